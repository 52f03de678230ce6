import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import layers_of
from tests.videos import encode_frames

from maskcast.data.images import resize_masks
from maskcast.data.masks.stored import read_mask
from maskcast.data.sources.clevrer import ClevrerSource, read_motion
from maskcast.errors import MaskcastError
from maskcast.labels import single_map
from maskcast.simulator.camera import CLASSES

SEVEN = (0, 1000, 3000, 4000, 5000, 6000, 10000)


def write_video(path: Path, frames: int = 30) -> None:
    """Writes a small video whose frame k is grey 6 k."""
    encode_frames(path, [np.full((32, 48, 3), 6 * k, np.uint8) for k in range(frames)])


def annotation(frames: int = 30, color: str = "red") -> dict:
    """One red rubber cube that rests at the origin."""
    item = {"object_id": 0, "location": [0.0, 0.0, 0.2], "orientation": [0.0, 0.0, 0.0]}
    return {
        "object_property": [{"object_id": 0, "shape": "cube", "material": "rubber", "color": color}],
        "motion_trajectory": [{"frame_id": k, "objects": [item]} for k in range(frames)],
    }


def write_annotation(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three videos: 3 annotated, 10004 not annotated, 15005 of the test split; 6 has an annotation only."""
    write_video(tmp_path / "video_train/video_00003.mp4")
    write_annotation(tmp_path / "annotation_train/annotation_00003.json", annotation())
    write_annotation(tmp_path / "annotation_train/a/annotation_00006.json", annotation())
    write_video(tmp_path / "video_validation/video_10004.mp4")
    write_video(tmp_path / "video_test/video_15005.mp4")
    return tmp_path


def listing(raw: Path, size: tuple[int | None, int | None] = (16, 24), **params):
    settings = {"frames": 4, "context": 2, "stride": 3, **params}
    return ClevrerSource(**settings).listing(raw, height=size[0], width=size[1], seed=0)


def test_masks_are_inside_the_derived_ones_on_all_seven_sequences(shared_data: Path):
    """The derived masks also hold the pixels that an edge touches, a rim of half a pixel at 320x480."""
    for number in SEVEN:
        source = ClevrerSource(frames=9, stride=15, ids=(number,), id_splits={number: "val"})
        folder = next((shared_data / "clevrer/DERIVED_masks").glob(f"*_{number:05d}"))
        derived = np.stack([read_mask(folder / f"{k:05d}.png").values_HW for k in range(0, 121, 15)])
        for size in ((320, 480), (160, 240)):
            clip = source.listing(shared_data / "clevrer", height=size[0], width=size[1], seed=0).clips[0]
            _, masks = layers_of(pickle.loads(pickle.dumps(clip)).load())
            expected = resize_masks(derived, *size)
            assert (masks == expected)[masks > 0].mean() > 0.99
            assert 1.0 < (expected > 0).sum() / (masks > 0).sum() < 1.05


def test_frames_of_a_real_video_lie_under_its_masks(shared_data: Path):
    source = ClevrerSource(frames=3, stride=20, ids=(1000,))
    clip = source.listing(shared_data / "clevrer", height=160, width=240, seed=0).clips[0]
    frames, masks = layers_of(clip.load())
    assert frames.shape == (3, 160, 240, 3)
    blue = frames[masks == CLASSES.index("cylinder rubber blue")].mean(axis=0)
    assert blue[2] > blue[0] + 40
    assert np.ptp(frames[masks == 0].mean(axis=0)) < 5


def test_splits_and_kinds_follow_what_is_there(raw):
    found = listing(raw)
    assert [(clip.id, clip.split, clip.kind) for clip in found.clips] == [
        ("clevrer_00003_s000", "train", "labelled"),
        ("clevrer_00006_s000", "train", "labelled"),
        ("clevrer_10004_s000", "unlabeled", "unlabelled"),
        ("clevrer_15005_s000", "hidden", "hidden"),
    ]
    shapes = [
        tuple(None if part is None else part.shape for part in layers_of(clip.load())) for clip in found.clips
    ]
    assert shapes == [
        ((4, 16, 24, 3), (4, 16, 24)),
        (None, (4, 16, 24)),
        ((4, 16, 24, 3), None),
        ((2, 16, 24, 3), None),
    ]
    meta = {"video": 3, "start": 0, "stride": 3, "frame_rate": 8.333, "video_frames": [0, 3, 6, 9]}
    assert found.clips[0].meta == meta
    assert found.maps == single_map(CLASSES)
    assert found.maps[0].things


def test_a_video_of_test_without_annotation_is_not_trained_on(raw):
    found = listing(raw, splits={"train": "train", "test": "test"})
    assert [(clip.split, clip.kind) for clip in found.clips[-1:]] == [("hidden", "hidden")]


def test_official_split_comes_from_the_id_where_no_folder_says_it(tmp_path):
    for number in (9999, 10000):
        write_annotation(tmp_path / f"annotation_{number:05d}.json", annotation())
    write_video(tmp_path / "video_15000.mp4")
    assert [clip.split for clip in listing(tmp_path).clips] == ["train", "val", "hidden"]


def test_splits_can_be_mapped_by_split_and_by_id(raw):
    found = listing(raw, splits={"train": "val"}, id_splits={6: "test", 10004: "hidden"}, ids=(3, 6, 10004))
    assert [(clip.split, clip.kind) for clip in found.clips] == [
        ("val", "labelled"),
        ("test", "labelled"),
        ("hidden", "hidden"),
    ]


def test_windows_have_the_frames_that_they_name(raw):
    found = listing(raw, window_step=5, ids=(3, 6))
    starts = [clip.meta["start"] for clip in found.clips]
    assert starts == [0, 5, 10, 15, 20] * 2
    assert found.clips[1].id == "clevrer_00003_s005"
    for clip in found.clips[:5]:
        frames, _ = layers_of(clip.load())
        expected = 6 * (clip.meta["start"] + 3 * np.arange(4))
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), expected, atol=2)


def test_without_a_size_masks_have_that_of_the_video(raw):
    frames, masks = layers_of(listing(raw, size=(None, None), ids=(3,)).clips[0].load())
    assert frames.shape[:3] == masks.shape == (4, 32, 48)
    assert layers_of(listing(raw, size=(None, None), ids=(6,)).clips[0].load())[1].shape == (4, 320, 480)


def test_objects_that_an_annotation_leaves_out_of_a_frame_are_not_painted(tmp_path):
    content = annotation()
    content["motion_trajectory"][3]["objects"] = []
    write_annotation(tmp_path / "annotation_00001.json", content)
    masks = layers_of(listing(tmp_path).clips[0].load())[1]
    assert [int(mask.max()) for mask in masks] == [2, 0, 2, 2]


def test_frames_in_any_order_are_sorted_by_their_number(tmp_path):
    content = annotation()
    content["motion_trajectory"][0]["objects"] = []
    content["motion_trajectory"].reverse()
    write_annotation(tmp_path / "annotation_00001.json", content)
    assert np.isnan(read_motion(tmp_path / "annotation_00001.json").locations[0]).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "not a CLEVRER annotation"),
        ({"object_property": []}, "motion_trajectory"),
        (annotation(color="pink"), "'pink' is not supported; allowed: gray"),
        ({**annotation(), "object_property": []}, "not a CLEVRER annotation"),
        (annotation(frames=5), "has 5 frames where 10 are needed"),
        ({**annotation(), "motion_trajectory": annotation()["motion_trajectory"][3:]}, "has missing frames"),
    ],
)
def test_malformed_annotations_are_named(tmp_path, content, words):
    write_annotation(tmp_path / "annotation_00001.json", content)
    clip = listing(tmp_path).clips[0]
    with pytest.raises(MaskcastError, match=r"annotation_00001\.json") as error:
        clip.load()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_cut_videos_are_named_and_skipped_where_windows_are_counted(raw):
    video = raw / "video_train/video_00003.mp4"
    video.write_bytes(video.read_bytes()[:-600])
    with pytest.raises(MaskcastError, match=r"video_00003\.mp4"):
        listing(raw, ids=(3,)).clips[0].load()
    found = listing(raw, window_step=4)
    assert [item for item, _ in found.skipped] == ["video_00003"]
    assert "video_00003.mp4" in found.skipped[0][1]


def test_too_short_videos_and_clips_without_frames_are_skipped_with_the_reason(raw):
    found = listing(raw, window_step=1, frames=20)
    assert {item for item, _ in found.skipped} == {"video_00003", "video_00006", "video_10004"}
    assert "has 30 frames, a window needs 58" in found.skipped[0][1]
    hidden = listing(raw, ids=(6,), id_splits={6: "hidden"})
    assert not hidden.clips and "video_00006.mp4 is missing" in hidden.skipped[0][1]


def test_second_file_of_an_id_is_skipped(raw):
    shutil.copy(raw / "video_train/video_00003.mp4", raw / "video_test/video_00003.mp4")
    found = listing(raw)
    assert len(found.clips) == 4
    assert "same id" in found.skipped[0][1]


def test_junk_is_passed_over(raw):
    write_video(raw / "__MACOSX/video_00009.mp4")
    assert all(clip.meta["video"] != 9 for clip in listing(raw).clips)


def test_wrong_params_stop(raw, tmp_path):
    with pytest.raises(MaskcastError, match="video 00077 not found"):
        listing(raw, ids=(77,))
    with pytest.raises(MaskcastError, match="video 10004 has no annotation"):
        listing(raw, id_splits={10004: "val"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaskcastError, match=r"contains no video_<id>\.mp4"):
        listing(tmp_path / "empty")


def test_endings_in_capitals_are_taken_and_others_are_said(raw: Path):
    for name, other in (
        ("video_train/video_00003.mp4", "video_train/video_00003.MP4"),
        ("annotation_train/annotation_00003.json", "annotation_train/annotation_00003.JSON"),
        ("video_validation/video_10004.mp4", "video_validation/video_10004.avi"),
    ):
        (raw / name).rename(raw / other)
    found = listing(raw)
    assert [(clip.id, clip.split) for clip in found.clips if clip.id.startswith("clevrer_00003")] == [
        ("clevrer_00003_s000", "train")
    ]
    assert found.skipped == [("video_validation/video_10004.avi", "ends in .avi, not in .mp4")]
