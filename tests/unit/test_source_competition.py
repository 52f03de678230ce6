import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import layers_of

from maskcast.data.sources.annotations_txt import read_annotations, write_annotations
from maskcast.data.sources.base import Listing
from maskcast.data.sources.competition import CompetitionSource
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelError, single_map
from maskcast.simulator.camera import CLASSES

SIZE = (6, 8)


def write_video(folder: Path, frames: int = 22, masks: np.ndarray | None = None) -> Path:
    """Writes a video whose frame k is filled with k."""
    folder.mkdir(parents=True)
    for k in range(frames):
        Image.fromarray(np.full((*SIZE, 3), k, np.uint8)).save(folder / f"image_{k}.png")
    if masks is not None:
        np.save(folder / "mask.npy", masks)
    return folder


def some_masks(num: int = 22, dtype: type = np.int64) -> np.ndarray:
    return np.broadcast_to(np.arange(num, dtype=dtype)[:, None, None], (num, *SIZE)).copy()


def list_raw(raw: Path, **params) -> Listing:
    return CompetitionSource(**params).listing(raw, height=None, width=None, seed=0)


def reasons(listing: Listing) -> dict[str, str]:
    return dict(listing.skipped)


@pytest.mark.parametrize("top", ["", "Dataset_Student"])
@pytest.mark.parametrize("inner", ["", "data"])
def test_all_sets_are_listed_in_numeric_order(tmp_path, top, inner):
    for split, ids in {"train": (10, 9), "val": (1000,), "unlabeled": (2000,)}.items():
        for i in ids:
            write_video(tmp_path / top / split / inner / f"video_{i}", masks=some_masks())
    write_video(tmp_path / top / "hidden" / inner / "video_15000", frames=11)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / top / "train" / inner / ".DS_Store").write_bytes(b"junk")
    (tmp_path / top / "train" / inner / "video_9" / "._image_0.png").write_bytes(b"junk")
    listing = list_raw(tmp_path)
    assert [(c.id, c.split, c.kind) for c in listing.clips] == [
        ("video_9", "train", "labelled"),
        ("video_10", "train", "labelled"),
        ("video_1000", "val", "labelled"),
        ("video_2000", "unlabeled", "unlabelled"),
        ("video_15000", "hidden", "hidden"),
    ]
    assert listing.maps == single_map(CLASSES)
    assert listing.maps[0].things  # CLEVRER's
    assert listing.skipped == []
    frames, masks = layers_of(pickle.loads(pickle.dumps(listing.clips[0].load))())
    assert frames.shape == (22, *SIZE, 3)
    assert frames[:, 0, 0, 0].tolist() == list(range(22))
    np.testing.assert_array_equal(masks, some_masks())
    assert masks.dtype == np.uint8
    hidden, no_masks = layers_of(listing.clips[-1].load())
    assert len(hidden) == 11
    assert no_masks is None


def test_the_missing_tail_of_short_masks_is_ignored_and_reported(tmp_path):
    write_video(tmp_path / "train/video_0", masks=some_masks(20, np.uint16))
    listing = list_raw(tmp_path)
    assert reasons(listing)["train/video_0/mask.npy"].startswith("2 masks are missing at the end")
    masks = layers_of(listing.clips[0].load())[1]
    np.testing.assert_array_equal(masks[:20], some_masks(20))
    assert (masks[20:] == IGNORE).all()


def test_missing_frames_and_files_are_reported(tmp_path):
    for i in range(6):
        write_video(tmp_path / f"train/video_{i}", masks=some_masks())
    (tmp_path / "train/video_1/image_7.png").unlink()
    (tmp_path / "train/video_2/image_21.png").unlink()
    (tmp_path / "train/video_3/mask.npy").unlink()
    (tmp_path / "train/video_4/mask.npy").write_bytes(b"no array")
    (tmp_path / "train/notes").mkdir()
    listing = list_raw(tmp_path)
    assert [c.id for c in listing.clips] == ["video_0", "video_5"]
    found = reasons(listing)
    assert "image_7.png is missing" in found["train/video_1"]
    assert "image_21.png is missing" in found["train/video_2"]
    assert "mask.npy is missing" in found["train/video_3"]
    assert "mask.npy: not a readable array" in found["train/video_4"]
    assert "not named video_<id>" in found["train/notes"]


def test_annotations_name_videos_and_ranges(tmp_path):
    for i in range(3):
        write_video(tmp_path / f"train/data/video_{i}", masks=some_masks())
    (tmp_path / "train/annotations.txt").write_text("video_0 0 21 0 \ndata/video_1 2 10 0 3 \n\nvideo_7 0 21 0 \n")
    listing = list_raw(tmp_path)
    assert [c.id for c in listing.clips] == ["video_0", "video_1"]
    assert "not in annotations.txt" in reasons(listing)["train/video_2"]
    assert "folder is missing" in reasons(listing)["train/video_7"]
    frames, masks = layers_of(listing.clips[1].load())
    assert frames[:, 0, 0, 0].tolist() == list(range(2, 11))
    assert masks[:, 0, 0].tolist() == list(range(2, 11))


@pytest.mark.parametrize(
    "text", ["garbage", "video_0 0 21", "video_0 0 x 0", "video_0 5 1 0", "video_0 0 1 0\n" * 2]
)
def test_garbage_in_annotations_is_named_by_line(tmp_path, text):
    write_video(tmp_path / "train/video_0", masks=some_masks())
    (tmp_path / "train/annotations.txt").write_text(text)
    with pytest.raises(MaskcastError, match=r"annotations\.txt: line \d"):
        list_raw(tmp_path)


@pytest.mark.parametrize(("value", "shown"), [(49, "49"), (-1, "-1"), (1000, "1000")])
def test_a_class_that_does_not_exist_is_named_with_its_file(tmp_path, value, shown):
    masks = some_masks()
    masks[3, 2, 2] = value
    folder = write_video(tmp_path / "val/video_1", masks=masks)
    (clip,) = list_raw(tmp_path).clips
    with pytest.raises(LabelError, match=rf"{folder}/mask\.npy: class id {shown} is not in 0\.\.48"):
        clip.load()


def test_other_class_counts_get_plain_names(tmp_path):
    write_video(tmp_path / "val/video_1", masks=some_masks())
    listing = list_raw(tmp_path, num_classes=3)
    assert listing.maps == single_map(("background", "class 1", "class 2"))
    assert not listing.maps[0].things  # nobody says what they are
    with pytest.raises(LabelError, match=r"class id 21 is not in 0\.\.2"):
        listing.clips[0].load()


@pytest.mark.parametrize(
    ("masks", "match"),
    [
        (np.zeros((22, 5, 8), int), r"is 8x5, .*image_0\.png is 8x6 \(width x height\)"),
        (np.zeros((25, *SIZE), int), "25 masks for 22 frames"),
        (np.zeros(SIZE, int), r"not integers \(T, H, W\)"),
        (np.zeros((22, *SIZE)), r"holds float64 .* not integers"),
    ],
)
def test_masks_of_another_shape_or_type_are_named(tmp_path, masks, match):
    write_video(tmp_path / "val/video_1", masks=masks)
    with pytest.raises(LabelError, match=rf"mask\.npy: .*{match}|mask\.npy: {match}"):
        list_raw(tmp_path).clips[0].load()


def test_pickled_masks_are_never_loaded(tmp_path):
    folder = write_video(tmp_path / "val/video_1")
    np.save(folder / "mask.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    listing = list_raw(tmp_path)
    assert listing.clips == []
    assert "not a readable array" in reasons(listing)["val/video_1"]


@pytest.mark.parametrize("content", [b"", b"not a png", None])
def test_an_unreadable_frame_is_named(tmp_path, content):
    frame = write_video(tmp_path / "hidden/video_1", frames=11) / "image_4.png"
    if content is None:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(frame)
        content = frame.read_bytes()[:3000]
    frame.write_bytes(content)
    with pytest.raises(MaskcastError, match=r"image_4\.png: .*(damaged|not a readable image)"):
        list_raw(tmp_path).clips[0].load()


def test_a_frame_of_another_size_is_named(tmp_path):
    folder = write_video(tmp_path / "hidden/video_1", frames=11)
    Image.new("RGB", (9, 6)).save(folder / "image_4.png")
    with pytest.raises(MaskcastError, match=r"image_4\.png: is 6x9, 10 of 11 frames are 6x8"):
        list_raw(tmp_path).clips[0].load()


def test_a_folder_without_sets_is_refused(tmp_path):
    with pytest.raises(MaskcastError, match="at least one of the folders train, val, unlabeled, hidden"):
        list_raw(tmp_path)


def test_annotations_are_written_as_the_generator_did(tmp_path):
    path = write_annotations(998, 1000, tmp_path, 22)
    assert path == tmp_path / "annotations.txt"
    assert path.read_text() == "video_998 0 21 0 \nvideo_999 0 21 0 \n"
    assert list(read_annotations(path)) == ["video_998", "video_999"]


@pytest.mark.parametrize("numbers", [(5, 5, 22), (-1, 3, 22), (0, 3, 0)])
def test_annotations_of_nothing_are_refused(tmp_path, numbers):
    start, end, frames = numbers
    with pytest.raises(MaskcastError, match="give 0 <= START < END and FRAMES >= 1"):
        write_annotations(start, end, tmp_path, frames)
    with pytest.raises(MaskcastError, match="folder not found"):
        write_annotations(0, 1, tmp_path / "absent", 22)


def test_frames_with_endings_in_capitals_are_taken(tmp_path):
    folder = write_video(tmp_path / "train/video_0", masks=some_masks())
    wanted = layers_of(list_raw(tmp_path).clips[0].load())[0]
    for path in list(folder.glob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    (clip,) = list_raw(tmp_path).clips
    np.testing.assert_array_equal(layers_of(clip.load())[0], wanted)
