import pickle
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from tests.conftest import layers_of
from tests.videos import encode_frames

from maskcast.data.sources.base import Listing
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.data.sources.patterns import find_sequences
from maskcast.data.sources.splits import assign_splits, split_by_shares, time_parts
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelError

SIZE = (6, 8)


def write_sequence(raw: Path, name: str, frames: int = 5, value: int = 255, mode: str = "L") -> None:
    """Writes a DAVIS sequence; frame and mask k hold k and, in row k, the value."""
    images, masks = raw / "JPEGImages/480p" / name, raw / "Annotations/480p" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for k in range(frames):
        Image.fromarray(np.full((*SIZE, 3), 20 * k, np.uint8)).save(images / f"{k:05d}.png")
        mask = np.zeros(SIZE, np.uint8)
        mask[k] = value
        image = Image.fromarray(mask)
        if mode == "P":
            image.putpalette(list(range(256)) * 3)
        image.save(masks / f"{k:05d}.png")


def list_raw(raw: Path, seed: int = 0, **params) -> Listing:
    return FrameFoldersSource(**params).listing(raw, height=None, width=None, seed=seed)


def test_cameras_of_several_scenes_are_sequences_of_their_own(tmp_path: Path) -> None:
    """A slash joins the parts of a name, which no folder can have: `a-b` with `c` is not `a` with `b-c`."""
    for scene, camera in (("scene 1", "left"), ("scene 1", "right"), ("a-b", "c"), ("a", "b-c"), ("bare", "left")):
        write_sequence(tmp_path, f"{scene}/{camera}", frames=2)
    shutil.rmtree(tmp_path / "Annotations/480p/bare/left")
    patterns = {"images": "JPEGImages/480p/{clip}/{clip}", "masks": "Annotations/480p/{clip}/{clip}"}
    splits = {"val": ["Scene 01/LEFT"]}
    listing = list_raw(tmp_path, **patterns, frames=2, window_step=2, splits=splits)
    found = {clip.id: clip.split for clip in listing.clips}
    assert found == {
        "a/b-c_00000": "train",
        "a-b/c_00000": "train",
        "bare/left_00000": "unlabeled",
        "scene 1/left_00000": "val",
        "scene 1/right_00000": "train",
    }
    listing = list_raw(tmp_path, **patterns, frames=2, window_step=2, splits={"val": ["bare/left"]})
    ((name, reason),) = listing.skipped
    assert name == "bare/left" and f"{tmp_path}/Annotations/480p/bare/left: no mask images" in reason


def test_listed_names_ignore_case_zeros_and_unicode_forms() -> None:
    """A name that two sequences might have is none; the same one comes first."""
    names = ["Run-B", "run 01", "cafe\u0301", "Dog", "dog"]
    assigned = assign_splits(names, {"val": ("run-b", "Run 1"), "test": ("Caf\u00e9", "dog")}, seed=0)
    assert assigned == dict(zip(names, ["val", "val", "test", "train", "test"], strict=True))
    with pytest.raises(MaskcastError, match=r"source\.splits\.val: 'DOG' is not among the sequences"):
        assign_splits(names, {"val": ("DOG",)}, seed=0)
    with pytest.raises(MaskcastError, match="'run-b' is in two splits"):
        assign_splits(names, {"val": ("Run-B",), "test": ("run-b",)}, seed=0)


def test_windows_carry_frames_and_binary_masks(tmp_path):
    write_sequence(tmp_path, "dog", frames=6)
    listing = list_raw(tmp_path, frames=2, stride=2, window_step=3, splits={})
    assert [(c.id, c.split, c.kind) for c in listing.clips] == [
        ("dog_00000", "train", "labelled"),
        ("dog_00003", "train", "labelled"),
    ]
    assert listing.clips[1].meta == {"video": "dog", "start": 3, "stride": 2}
    frames, masks = layers_of(pickle.loads(pickle.dumps(listing.clips[1].load))())
    assert frames[:, 0, 0, 0].tolist() == [60, 100]
    assert [mask.any(axis=1).nonzero()[0].tolist() for mask in masks] == [[3], [5]]
    assert masks.max() == 1


def test_windows_with_labels_may_be_closer_together(tmp_path):
    write_sequence(tmp_path, "dog", frames=6)
    for k in {*range(6)} - {4}:
        (tmp_path / f"Annotations/480p/dog/{k:05d}.png").unlink()
    params = {"frames": 2, "window_step": 4, "splits": {}}
    usual = [clip.meta["start"] for clip in list_raw(tmp_path, **params).clips]
    closer = [clip.meta["start"] for clip in list_raw(tmp_path, **params, labelled_window_step=1).clips]
    assert usual == [0, 4] and closer == [0, 3, 4]
    unlabelled = list_raw(tmp_path, **params | {"splits": {"unlabeled": ("dog",)}}, labelled_window_step=1)
    assert [clip.meta["start"] for clip in unlabelled.clips] == usual


def test_images_that_clip_names_are_sequences_of_one_frame(tmp_path):
    for name in ("cat", "dog", "dog_mask"):
        Image.fromarray(np.full(SIZE, len(name), np.uint8)).save(tmp_path / f"{name}.png")
    masks = {"images": "{clip}.png", "masks": "{clip}_mask.png", "frames": 1}
    listing = list_raw(tmp_path, **masks, splits={"unlabeled": ("cat",)})
    assert [(c.id, c.kind) for c in listing.clips] == [("cat_00000", "unlabelled"), ("dog_00000", "labelled")]
    assert layers_of(listing.clips[1].load())[1].tolist() == [np.ones(SIZE, int).tolist()]
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "cat.jpg")
    with pytest.raises(MaskcastError, match=r"cat\.png: .*cat\.jpg has the same name by the pattern"):
        list_raw(tmp_path, images="{clip}.*", masks="{clip}_mask.png", frames=1)


def test_files_beside_frames_in_formats_that_are_not_read_are_reported_and_folders_are_not(tmp_path):
    write_sequence(tmp_path, "dog")
    folder = tmp_path / "JPEGImages/480p/dog"
    (folder / "thumbs.v1").mkdir()
    (folder / "notes.txt").touch()
    assert not any("unsupported" in note for note in list_raw(tmp_path, frames=5, splits={}).notes)
    (folder / "00005.HEIC").touch()
    said = "1 sequence holds files in unsupported image formats (dog: .heic); save them as PNG if they are frames"
    assert said in list_raw(tmp_path, frames=5, splits={}).notes


@pytest.mark.parametrize("mode", ["L", "P"])
def test_index_masks_keep_their_ids_and_the_ignore_label(tmp_path, mode):
    write_sequence(tmp_path, "road", value=2, mode=mode)
    params = {"encoding": "index", "classes": ("sky", "road"), "frames": 5}
    masks = layers_of(list_raw(tmp_path, **params, ignore=2).clips[0].load())[1]
    assert np.unique(masks).tolist() == [0, IGNORE]
    with pytest.raises(
        LabelError, match=r"480p/road/00000\.png: the value 2 \(5 of 5 masks, 40 pixels\) is not a class"
    ):
        list_raw(tmp_path, **params)


def test_whether_classes_are_things_is_said_by_whoever_knows(tmp_path):
    write_sequence(tmp_path, "cars")
    assert [list_raw(tmp_path, frames=5, things=things).maps[0].things for things in (False, True)] == [
        False,
        True,
    ]


def test_frames_without_a_mask_are_ignored(tmp_path):
    write_sequence(tmp_path, "dog")
    (tmp_path / "Annotations/480p/dog/00002.png").unlink()
    masks = layers_of(list_raw(tmp_path, frames=5).clips[0].load())[1]
    assert [(mask == IGNORE).all() for mask in masks] == [False, False, True, False, False]


def test_unlabelled_and_hidden_splits_need_no_masks(tmp_path):
    for name in ("a", "b", "c"):
        write_sequence(tmp_path, name)
    for name in ("b", "c"):
        for mask in (tmp_path / "Annotations/480p" / name).iterdir():
            mask.unlink()
    listing = list_raw(tmp_path, frames=5, splits={"unlabeled": ["b"], "hidden": ["c"]})
    assert [(c.id, c.kind) for c in listing.clips] == [
        ("a_00000", "labelled"),
        ("b_00000", "unlabelled"),
        ("c_00000", "hidden"),
    ]
    assert layers_of(listing.clips[1].load())[1] is None


def test_a_video_file_takes_the_place_of_images(tmp_path):
    encode_frames(tmp_path / "dogs_orig.mp4", [np.full((16, 32, 3), 60 * k, np.uint8) for k in range(4)])
    (tmp_path / "dogs").mkdir()
    for k in range(4):
        Image.fromarray(np.full((16, 32), k, np.uint8)).save(tmp_path / f"dogs/{k:05d}.png")
    params = {"images": "{clip}_orig.mp4", "masks": "{clip}", "encoding": "index", "classes": tuple("abcd")}
    (clip,) = list_raw(tmp_path, **params, frames=2, stride=2, window_step=5, splits={}).clips
    frames, masks = layers_of(clip.load())
    assert frames.shape == (2, 16, 32, 3)
    assert abs(int(frames[1].mean()) - 120) < 6
    assert masks[:, 0, 0].tolist() == [0, 2]


def test_what_is_missing_is_reported_and_what_is_damaged_is_named(tmp_path):
    write_sequence(tmp_path, "fine")
    write_sequence(tmp_path, "short", frames=3)
    write_sequence(tmp_path, "bare")
    for mask in (tmp_path / "Annotations/480p/bare").iterdir():
        mask.unlink()
    listing = list_raw(tmp_path, frames=5, splits={"train": ["bare"]})
    assert [c.id for c in listing.clips] == ["fine_00000"]
    found = dict(listing.skipped)
    assert found["short"] == "has 3 frames, a window needs 5"
    assert "no mask images" in found["bare"]
    (tmp_path / "Annotations/480p/bare/00000.npy").touch()
    assert "no mask images (it has .npy)" in dict(list_raw(tmp_path, frames=5, splits={}).skipped)["bare"]
    (tmp_path / "JPEGImages/480p/fine/00001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(MaskcastError, match=r"fine/00001\.png: .*copy it again"):
        listing.clips[0].load()


def test_videos_are_no_masks(tmp_path: Path) -> None:
    write_sequence(tmp_path, "dog")
    (tmp_path / "Annotations/480p/dog.mp4").touch()
    ((name, reason),) = list_raw(tmp_path, masks="Annotations/480p/{clip}.mp4", frames=5, splits={}).skipped
    assert name == "dog" and reason.startswith(f"{tmp_path}/Annotations/480p/dog.mp4: no mask images; fix source")


@pytest.mark.parametrize("odd", [0, 3])  # the first is not what the others are held against
def test_a_frame_of_another_size_is_named_and_without_it_the_others_are_clips(tmp_path, odd):
    write_sequence(tmp_path, "dog")
    (clip,) = list_raw(tmp_path, frames=5).clips
    frame = tmp_path / f"JPEGImages/480p/dog/{odd:05d}.png"
    Image.new("RGB", (3, 2)).save(frame)
    said = rf"{odd:05d}\.png: is 2x3, 4 of 5 frames are 6x8 \(height x width\); export it at the size of"
    with pytest.raises(MaskcastError, match=said):
        clip.load()
    frame.unlink()
    clips = list_raw(tmp_path, frames=1, window_step=1).clips
    assert [len(one.load().frames) for one in clips] == [1] * 4
    windows = list_raw(tmp_path, frames=2, window_step=1).clips
    assert [one.meta["start"] for one in windows] == ([0, 1, 2] if odd == 0 else [0, 1])  # none over the gap


@pytest.mark.parametrize("scale", [2, 0.5])
def test_masks_of_another_size_are_resized_to_frames_of_the_same_aspect_ratio(tmp_path, scale):
    write_sequence(tmp_path, "dog", value=7)
    size = tuple(round(side / scale) for side in SIZE)
    for path in tmp_path.glob("JPEGImages/480p/dog/*.png"):
        Image.open(path).resize(size[::-1]).save(path)
    (clip,) = list_raw(tmp_path, frames=5, instances=True).clips
    arrays = clip.load()
    masks = np.stack(
        [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("Annotations/480p/dog/*.png"))]
    )
    expected = masks[:, 1::2, 1::2] if scale == 2 else masks.repeat(2, axis=1).repeat(2, axis=2)
    assert (arrays.masks["objects"] == expected).all() and (arrays.masks["mask"] == (expected > 0)).all()
    assert "masks of clip 'a' are 8x6 (width x height), a size other" in arrays.mask_note("a")


def test_a_folder_of_masks_is_listed_once(tmp_path, monkeypatch):
    write_sequence(tmp_path, "dog")
    listed, iterdir = [], Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or iterdir(path))
    assert list_raw(tmp_path, frames=5).clips
    assert listed.count(tmp_path / "Annotations/480p/dog") == 1


def test_a_mask_of_another_size_or_in_colour_is_named(tmp_path):
    write_sequence(tmp_path, "dog")
    (clip,) = list_raw(tmp_path, frames=5).clips
    Image.new("L", (3, 3)).save(tmp_path / "Annotations/480p/dog/00003.png")
    with pytest.raises(
        LabelError, match=r"00003\.png: is 3x3, .*\.png is 8x6 \(width x height\); export both at one size"
    ):
        clip.load()
    Image.new("RGB", SIZE[::-1], "red").save(tmp_path / "Annotations/480p/dog/00003.png")
    with pytest.raises(LabelError, match=r"00003\.png: contains colours, but other masks of the set do not"):
        clip.load()


def test_splits_go_by_name_or_by_share_of_whole_sequences():
    names = [f"s{i}" for i in range(10)]
    splits = assign_splits(names, {"val": 0.3, "test": ("s0", "s1")}, seed=3)
    assert list(splits) == names
    assert splits["s0"] == splits["s1"] == "test"
    assert sorted(splits.values()) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    assert splits == assign_splits(names, {"val": 0.3, "test": ("s0", "s1")}, seed=3)
    assert splits != assign_splits(names, {"val": 0.3, "test": ("s0", "s1")}, seed=4)


@pytest.mark.parametrize(
    "shares",
    [
        {"val": 0.2},
        {"val": 0.2, "test": 0.2},
        {"val": 0.5, "test": 0.5},
        {"train": 0.4, "val": 0.35, "test": 0.25},
        {"hidden": 0.1, "test": 0.2, "unlabeled": 0.3, "val": 0.15},
    ],
)
def test_another_item_moves_at_most_one_across_the_end_of_each_share(shares: dict[str, float]) -> None:
    """Redrawn splits made validation images of those that a continued training had learned from."""
    held_out = len(shares.keys() - {"train"})
    moves: Counter[tuple[str, str]] = Counter()
    for seed in range(4):
        names = [f"IMG_{number * 37 % 1009:04d}" for number in range(150)]
        before: dict[str, str] = {}
        for count in range(1, len(names) + 1):
            after = split_by_shares(names[:count], shares, seed)
            moved = [(split, after[name]) for name, split in before.items() if after[name] != split]
            assert len(moved) <= held_out
            if count > held_out:
                sizes = Counter(after.values())
                for split, share in shares.items():
                    assert sizes[split] >= 1 and abs(sizes[split] - share * count) <= 1
                moves.update(moved)
            before = after
    assert moves["train", "test"] == moves["test", "train"] == 0
    assert sum(moves.values()) / (4 * len(names)) < held_out / 2  # most items move none


def test_shares_do_not_depend_on_the_order_of_names_or_on_their_unicode_form() -> None:
    names = [f"caf\u00e9-{number}" for number in range(40)]
    shares = {"val": 0.2, "test": 0.2}
    splits = split_by_shares(names, shares, 5)
    assert splits == split_by_shares(reversed(names), shares, 5)
    decomposed = split_by_shares([unicodedata.normalize("NFD", name) for name in names], shares, 5)
    assert splits == {unicodedata.normalize("NFC", name): split for name, split in decomposed.items()}
    drawn = [name for name, split in split_by_shares(names, {"val": 0.1}, 0).items() if split == "val"]
    assert drawn == ["caf\u00e9-1", "caf\u00e9-2", "caf\u00e9-15", "caf\u00e9-18"]  # on every machine, always


@pytest.mark.parametrize("seed", range(4))
def test_varied_copies_of_one_image_are_of_one_split(seed):
    names = [f"street{i}_jpg.rf.{i}{j}" for i in range(10) for j in range(3)]
    splits = assign_splits(names, {"val": 0.3, "test": 0.1}, seed=seed)
    assert Counter(splits.values()) == {"train": 18, "val": 9, "test": 3}
    assert all(len({splits[name] for name in names[k : k + 3]}) == 1 for k in range(0, 30, 3))


@pytest.mark.parametrize(
    ("splits", "match"),
    [
        ({"valid": 0.5}, "splits.valid: unknown split; allowed: train, val"),
        ({"val": ("absent",)}, "'absent' is not among the sequences"),
        ({"val": ("a",), "test": ("a",)}, "'a' is in two splits"),
        ({"val": 0.7, "test": 0.7}, "sum to at most 1"),
        ({"val": -0.1}, "at least 0"),
    ],
)
def test_impossible_splits_are_refused(splits, match):
    with pytest.raises(MaskcastError, match=match):
        assign_splits(["a", "b"], splits, seed=0)


def test_shares_that_sum_to_1_are_no_more_than_that():
    names = [f"s{i}" for i in range(100)]
    splits = assign_splits(names, {"train": 0.33, "val": 0.56, "test": 0.11}, seed=0)
    assert Counter(splits.values()) == {"train": 33, "val": 56, "test": 11}


def test_a_sequence_is_cut_in_time_and_no_frame_is_in_two_splits(tmp_path):
    write_sequence(tmp_path, "road", frames=6)
    splits = {"val": 0.34, "test": 0.34}
    listing = list_raw(tmp_path, frames=2, window_step=1, split_by="time", splits=splits)
    found = [(c.id, c.split, c.kind) for c in listing.clips]
    assert found == [
        ("road_00000", "train", "labelled"),
        ("road_00002", "val", "labelled"),
        ("road_00004", "test", "labelled"),
    ]
    frames, masks = layers_of(listing.clips[2].load())
    assert frames[:, 0, 0, 0].tolist() == [80, 100]
    assert [mask.any(axis=1).nonzero()[0].tolist() for mask in masks] == [[4], [5]]


def test_a_window_may_look_back_into_the_part_before(tmp_path):
    write_sequence(tmp_path, "road", frames=6)
    splits = {"val": 0.34, "test": 0.17}
    listing = list_raw(tmp_path, frames=3, window_step=1, split_by="time", splits=splits, lookback=2)
    assert [(c.id, c.split) for c in listing.clips] == [
        ("road_00000", "train"),
        ("road_00001", "val"),
        ("road_00002", "val"),
        ("road_00003", "test"),
    ]
    assert listing.meta == {"lookback": 2}


def test_sequences_that_a_split_names_stay_whole_where_others_are_cut_by_time(tmp_path):
    for name, frames in {"lane": 4, "park": 4, "road": 6, "sea": 5}.items():
        write_sequence(tmp_path, name, frames=frames)
    shutil.rmtree(tmp_path / "Annotations/480p/lane")
    shutil.rmtree(tmp_path / "Annotations/480p/sea")
    splits = {"val": 0.34, "unlabeled": ("lane",), "train": ("park",), "hidden": ("sea",)}
    listing = list_raw(tmp_path, frames=2, window_step=2, split_by="time", splits=splits, lookback=1)
    assert [(c.id, c.split, c.kind) for c in listing.clips] == [
        ("lane_00000", "unlabeled", "unlabelled"),
        ("lane_00002", "unlabeled", "unlabelled"),
        ("park_00000", "train", "labelled"),
        ("park_00002", "train", "labelled"),
        ("road_00000", "train", "labelled"),
        ("road_00002", "train", "labelled"),
        ("road_00003", "val", "labelled"),
        ("sea_00000", "hidden", "hidden"),
        ("sea_00002", "hidden", "hidden"),
    ]
    assert not listing.skipped
    listing = list_raw(tmp_path, frames=2, split_by="time", splits={"val": 0.5, "hidden": ("Sea",)})
    assert not listing.skipped and {c.split for c in listing.clips if c.id.startswith("lane")} == {"unlabeled"}
    listing = list_raw(tmp_path, frames=2, split_by="time", splits={"val": 0.5, "train": ("lane",)})
    ((name, reason),) = listing.skipped
    assert name == "lane" and "or put the sequence into unlabeled, or into hidden if nothing may" in reason
    with pytest.raises(MaskcastError, match=r"splits.unlabeled: 'lake' is not among the sequences \(lane, "):
        list_raw(tmp_path, split_by="time", splits={"val": 0.34, "unlabeled": ("lake",)})


def test_a_sequence_without_masks_is_unlabelled_until_it_has_some(tmp_path):
    for name in ("lake", "park", "road", "sea"):
        write_sequence(tmp_path, name)
    masks = tmp_path / "Annotations/480p"
    for name in ("lake", "sea"):
        (masks / name).rename(tmp_path / name)
    params = {"frames": 5, "splits": {"val": ("park",)}}
    listing = list_raw(tmp_path, **params)
    splits = {"lake": "unlabeled", "park": "val", "road": "train", "sea": "unlabeled"}
    assert {clip.meta["video"]: clip.split for clip in listing.clips} == splits and not listing.skipped
    assert "no masks of 2 sequences: unlabeled (lake)" in listing.notes
    assert {clip.split for clip in list_raw(tmp_path, frames=5, splits={"val": 0.5}, seed=1).clips} == {
        *splits.values()
    }

    (tmp_path / "sea").rename(masks / "sea")
    (tmp_path / "lake").rename(masks / "lakes")
    listing = list_raw(tmp_path, **params)
    assert {clip.meta["video"]: clip.split for clip in listing.clips} == splits | {"sea": "train"}
    assert "no frames for the masks of 1 sequence (lakes)" in listing.notes
    listing = list_raw(tmp_path, frames=5, splits={"val": ("park",), "unlabeled": ("sea",)})
    assert {clip.meta["video"]: clip.split for clip in listing.clips} == splits
    said = "labels of 1 sequence are not used, because source.splits puts it into unlabeled (sea)"
    assert said in listing.notes


def test_unlabelled_windows_do_not_look_back_at_what_is_scored_on(tmp_path):
    write_sequence(tmp_path, "road", frames=6)
    splits = {"val": 0.34, "unlabeled": 0.34}
    listing = list_raw(tmp_path, frames=2, window_step=1, split_by="time", splits=splits, lookback=1)
    assert [(c.id, c.split) for c in listing.clips] == [
        ("road_00000", "train"),
        ("road_00001", "val"),
        ("road_00002", "val"),
        ("road_00004", "unlabeled"),
    ]


def test_parts_of_a_sequence_that_hold_no_window_are_reported_and_unlabelled_ones_show_no_mask(tmp_path):
    write_sequence(tmp_path, "road", frames=6)
    listing = list_raw(tmp_path, frames=3, split_by="time", splits={"val": 0.34, "unlabeled": 0.5})
    assert [(c.split, c.kind, layers_of(c.load())[1]) for c in listing.clips] == [
        ("unlabeled", "unlabelled", None)
    ]
    assert listing.skipped == [
        ("road", "has 1 frame for train, a window needs 3"),
        ("road", "has 2 frames for val, a window needs 3"),
    ]


@pytest.mark.parametrize(
    ("splits", "parts"),
    [
        ({}, {"train": range(10)}),
        ({"test": 0.5}, {"train": range(5), "test": range(5, 10)}),
        ({"val": 0.2, "test": 0.8}, {"val": range(2), "test": range(2, 10)}),
    ],
)
def test_shares_of_time_leave_the_beginning_to_train(splits, parts):
    assert time_parts(range(10), splits) == parts


@pytest.mark.parametrize(
    ("splits", "match"),
    [
        ({"train": 0.5}, "splits.train: with split_by: time train gets the rest of each sequence; give the other"),
        ({"valid": 0.5}, "splits.valid: unknown split; allowed: train, val"),
        ({"val": 0.7, "test": 0.7}, "sum to at most 1"),
    ],
)
def test_impossible_shares_of_time_are_refused(splits, match):
    with pytest.raises(MaskcastError, match=match):
        time_parts(range(10), splits)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"lookback": 1}, "lookback is for split_by: time"),
        ({"lookback": 22, "split_by": "time"}, "below the 22 frames"),
    ],
)
def test_a_window_that_looks_back_has_a_split_before_it_and_shows_something_new(values, match):
    with pytest.raises(ValidationError, match=match):
        FrameFoldersSource(**values)


@pytest.mark.parametrize("pattern", ["images", "../{clip}", "/abs/{clip}", "{clip}_{clip}/rgb"])
def test_patterns_that_leave_the_folder_or_name_no_clip_are_refused(pattern):
    with pytest.raises(ValidationError, match=r"relative path with {clip} once"):
        FrameFoldersSource(images=pattern)


@pytest.mark.parametrize("images", ["frames/{clip}", "{clip}/rgb", "{clip}"])
def test_a_folder_that_does_not_exist_has_no_sequences(images, tmp_path):
    assert find_sequences(tmp_path / "nothing", images) == {}


def test_a_folder_of_another_layout_is_refused(tmp_path):
    with pytest.raises(MaskcastError, match="nothing matches images"):
        list_raw(tmp_path)


def test_real_camvid(shared_data):
    classes = [
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Sidewalk",
        "Tree",
        "Sign",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    ]
    params = {"images": "{clip}/images", "masks": "{clip}/labels", "encoding": "index", "ignore": 11}
    listing = list_raw(shared_data / "camvid", **params, classes=classes, splits={"val": ["0016E5_15Hz"]})
    assert [c.id for c in listing.clips if c.split == "val"][:2] == ["0016E5_15Hz_00000", "0016E5_15Hz_00022"]
    frames, masks = layers_of(listing.clips[0].load())
    assert frames.shape == (22, 360, 480, 3)
    assert masks.shape == (22, 360, 480)
    assert set(np.unique(masks)) <= {*range(11), IGNORE}
    assert (masks == 3).mean() > 0.1  # a road fills much of every view


def test_real_davis_binary(shared_data):
    listing = list_raw(shared_data / "davis2016_val", frames=3, window_step=200)
    assert len({c.meta["video"] for c in listing.clips}) == len(listing.clips) >= 2
    frames, masks = layers_of(listing.clips[0].load())
    assert frames.shape[1:] == (480, 854, 3)
    assert np.unique(masks).tolist() == [0, 1]


def test_real_davis_objects_beside_a_video(shared_data):
    params = {"images": "{clip}_orig.mp4", "masks": "{clip}", "splits": {}, "frames": 2, "window_step": 40}
    raw = shared_data / "davis2017_multiobj"
    with pytest.raises(
        LabelError, match=r"0, 1, 2, .* \(8 values\), which may be one foreground or several classes"
    ):
        list_raw(raw, **params)
    one = layers_of(list_raw(raw, **params, encoding="binary").clips[0].load())[1]
    ids = layers_of(list_raw(raw, **params, classes=tuple("abcdefgh")).clips[0].load())[1]
    assert one.shape == (2, 240, 432)
    np.testing.assert_array_equal(one, ids > 0)
    assert set(np.unique(ids)) == set(range(8))


def test_real_hands_whose_foreground_is_black(shared_data):
    params = {"images": "{clip}/images", "masks": "{clip}/masks", "splits": {}, "frames": 1, "window_step": 1}
    listing = list_raw(shared_data / "hands_hgr1", **params)
    assert "67.2% of the pixels; if that is the background, set source.values" in listing.notes[0]
    values = {"classes": ("background", "skin"), "values": {0: "skin", 1: "background"}}
    told = layers_of(list_raw(shared_data / "hands_hgr1", **params, **values).clips[0].load())[1]
    np.testing.assert_array_equal(told, 1 - layers_of(listing.clips[0].load())[1])


def test_a_folder_may_be_one_sequence_and_masks_of_others_are_none(tmp_path: Path) -> None:
    for folder, value in (("frames", 90), ("masks", 0), ("street", 90), ("streetannot", 0)):
        (tmp_path / folder).mkdir()
        for k in range(22):
            Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / folder / f"{k:03d}.png")
    alone = FrameFoldersSource(images="frames/{frame}.png", masks="masks/{frame}.png", splits={})
    size = {"height": None, "width": None}
    assert [clip.id for clip in alone.listing(tmp_path, **size, seed=0).clips] == ["sequence_00000"]
    beside = FrameFoldersSource(images="st{clip}", masks="st{clip}annot", splits={})
    assert [clip.id for clip in beside.listing(tmp_path, height=None, width=None, seed=0).clips] == ["reet_00000"]
