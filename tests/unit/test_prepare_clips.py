import json
import shutil
import signal
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from tests.lookalikes import frames_of, write_images

from maskcast.data import loading
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.listing_checks import check_splits, skip_reasons
from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelMap, single_map
from maskcast.runner.run import run_stage
from maskcast.stages.prepare_clips import PrepareClips, prepare_clips

SIZE = (12, 16)


def write_raw(raw: Path, size: tuple[int, int] = SIZE, **ids: tuple[int, ...]) -> Path:
    """Writes a competition data set: frame k of video i is grey 10 i + k, its mask class 1 on the right half."""
    for split, numbers in ids.items():
        for i in numbers:
            folder = raw / split / f"video_{i}"
            folder.mkdir(parents=True)
            masks = np.zeros((3, *size), np.int64)
            masks[:, :, size[1] // 2 :] = 1
            for k in range(3):
                Image.fromarray(np.full((*size, 3), 10 * i + k, np.uint8)).save(folder / f"image_{k}.png")
            if split in ("train", "val"):
                np.save(folder / "mask.npy", masks)
    return raw


def prepare(raw: Path, clips: Path, **params) -> ClipStore:
    values = {"source": {"layout": "competition"}, "workers": 1, "required_splits": [], **params}
    run_stage("prepare_clips", values, raw=raw, clips=clips)
    store = ClipStore(clips)
    store.verify()
    return store


def refuses(raw: Path, clips: Path, match: str, **params) -> None:
    with pytest.raises(MaskcastError, match=match) as caught:
        prepare(raw, clips, **params)
    assert "\n" not in str(caught.value)
    assert not [p.name for p in clips.parent.iterdir() if p.name.startswith(clips.name)]


def test_a_raw_folder_becomes_a_store(tmp_path):
    raw = write_raw(tmp_path / "raw", train=(10, 2), val=(3,), unlabeled=(4,), hidden=(5,))
    store = prepare(raw, tmp_path / "clips")
    assert [(c.id, c.split, c.kind, bool(c.maps)) for c in store.clips] == [
        ("video_2", "train", "labelled", True),
        ("video_10", "train", "labelled", True),
        ("video_3", "val", "labelled", True),
        ("video_4", "unlabeled", "unlabelled", False),
        ("video_5", "hidden", "hidden", False),
    ]
    assert (store.height, store.width, store.num_classes) == (*SIZE, 49)
    clip = store.get("video_10")
    assert store.frames(clip)[:, 5, 5, 1].tolist() == [100, 101, 102]
    assert np.unique(store.masks(clip)[..., :8]).tolist() == [0]
    assert np.unique(store.masks(clip)[..., 8:]).tolist() == [1]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((20, 28), ""),  # of 40 x 64
        (
            (64, 40),
            "ratio (width / height) of 1.60, clips 0.62, so they are stretched by up to 2.6; set prepare_clips",
        ),
        ((32, 48), ""),
    ],
)
def test_frames_of_another_aspect_are_said(size, said, tmp_path, capsys):
    raw = tmp_path / "raw"
    for k in range(2):
        write_images(raw / f"frames/{k}", frames_of(k, 2)[0], "{:04d}.png")
    source = {"layout": "frame_folders", "images": "frames/{clip}", "frames": 2, "splits": {"unlabeled": 1.0}}
    prepare(raw, tmp_path / "clips", source=source, height=size[0], width=size[1])
    lines = [line for line in capsys.readouterr().err.splitlines() if "aspect ratio" in line]
    assert said in lines[0] if said else not lines, lines


def test_a_disk_on_which_the_clips_do_not_fit_is_said_before_they_are_read(tmp_path, monkeypatch, capsys):
    raw = write_raw(tmp_path / "raw", train=(2,), val=(3,))
    needed = 2 * 3 * 3 * SIZE[0] * SIZE[1]
    for share in (0.4, 0.6, 1.1):
        disk = SimpleNamespace(free=int(share * needed), total=10 * needed)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, disk=disk: disk)
        if share < 0.5:
            refuses(raw, tmp_path / "small", "small: needs 3.5 kB for the frames of the clips, but only 1.4 kB")
        else:
            prepare(raw, tmp_path / f"clips-{share}")
            assert (f"clips-{share} needs 3.5 kB" in capsys.readouterr().err) == (share < 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0, total=0))  # as of some mounts
    prepare(raw, tmp_path / "unknown")
    assert "needs" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("splits", "line"),
    [
        (
            {"val": (1, 2), "hidden": (3,)},
            r"no clip of split 'train' \(found: 2 val, 1 hidden\), fix the folders",
        ),
        (
            {"train": (1,), "unlabeled": (2,)},
            r"no clip of split 'val' .* set prepare_clips.required_splits to \[train\]",
        ),
        (
            {"train": (1,)},
            r"\(found: 1 train\), and one clip cannot be used for both training and validation",
        ),
        ({"hidden": (1, 2)}, r"no clip of split 'train' .* set prepare_clips.required_splits to \[\]$"),
    ],
)
def test_without_clips_to_learn_from_and_to_score_it_stops(tmp_path, splits, line):
    raw = write_raw(tmp_path / "raw", **splits)
    refuses(raw, tmp_path / "clips", line, required_splits=["train", "val"])
    assert PrepareClips.model_validate({"source": {"layout": "competition"}}).required_splits == ("train", "val")


def test_a_limit_draws_clips_of_each_split(tmp_path, capsys):
    raw = write_raw(tmp_path / "raw", train=tuple(range(9)), val=(20, 21, 22), hidden=(24,))

    def prepared(name: str, **params) -> list[str]:
        return [clip.id for clip in prepare(raw, tmp_path / name, **params).clips]

    every = prepared("all")
    some = prepared("some", limit=2)
    assert (
        "prepared 5 clips (2 train, 2 val, 1 hidden)\n  limit: 8 clips are not prepared\n"
        in capsys.readouterr().err
    )
    assert some == [one for one in every if one in some] and len(some) == 5
    assert prepared("again", limit=2) == some != prepared("other", limit=2, seed=1)
    assert prepared("enough", limit=9) == every
    assert "limit" not in capsys.readouterr().err.rpartition("prepared")[2]


def test_processes_and_order_do_not_change_a_byte(tmp_path):
    raw = write_raw(tmp_path / "raw", train=tuple(range(12)))
    one = prepare(raw, tmp_path / "one", workers=1, height=6, width=8)
    two = prepare(raw, tmp_path / "two", workers=2, height=6, width=8)
    assert one.digest == two.digest


def test_no_worker_hears_ctrl_c_whenever_it_is_started(tmp_path, monkeypatch):
    """A pool starts one with any clip that finds no idle one: with the last clip, where listing them is slow."""
    deaf = []

    class Pool:
        def submit(self, load, *given):
            deaf.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            loaded = Future()
            loaded.set_result(load(*given))
            return loaded

        def shutdown(self, cancel_futures):
            pass

    monkeypatch.setattr(loading, "ProcessPoolExecutor", lambda *_, **__: Pool())
    prepare(write_raw(tmp_path / "raw", train=tuple(range(7))), tmp_path / "clips", workers=2)
    assert deaf == [True] * 7


def test_clips_are_resized_together_with_their_masks(tmp_path):
    raw = write_raw(tmp_path / "raw", train=(1,))
    store = prepare(raw, tmp_path / "clips", height=6, width=4)
    (clip,) = store.clips
    assert store.frames(clip).shape == (3, 6, 4, 3)
    assert store.masks(clip)[0].tolist() == [[0, 0, 1, 1]] * 6


def test_unreadable_clips_are_left_out_and_said(tmp_path, capsys):
    raw = write_raw(tmp_path / "raw", train=(1, 2, 3))
    (raw / "train/video_2/image_1.png").write_bytes(b"corrupt")
    (raw / "train/video_3/image_0.png").unlink()
    store = prepare(raw, tmp_path / "clips")
    assert [c.id for c in store.clips] == ["video_1"]
    skipped = {entry["item"]: entry["reason"] for entry in store.skipped}
    assert "video_2/image_1.png: not a readable image" in skipped["train/video_2"]
    assert "image_0.png is missing" in skipped["train/video_3"]
    said = capsys.readouterr().err
    assert "prepared 1 clip (1 train); left out 2 items" in said
    assert "image_1.png: not a readable image" in said
    refuses(raw, tmp_path / "strict", r"image_1\.png: not a readable image", on_error="fail")


def test_short_masks_are_kept_with_the_rest_ignored(tmp_path):
    raw = write_raw(tmp_path / "raw", train=(1,))
    path = raw / "train/video_1/mask.npy"
    np.save(path, np.load(path)[:2])
    store = prepare(raw, tmp_path / "clips")
    assert (store.masks(store.clips[0])[2] == IGNORE).all()
    assert store.skipped[0]["item"] == "train/video_1/mask.npy"


@pytest.mark.parametrize("workers", [1, 2])
def test_labels_that_contradict_the_params_always_stop(tmp_path, workers):
    raw = write_raw(tmp_path / "raw", train=(1, 2))
    path = raw / "train/video_2/mask.npy"
    masks = np.load(path)
    masks[0, 0, 0] = 49
    np.save(path, masks)
    refuses(raw, tmp_path / "clips", r"video_2/mask\.npy: class id 49 is not in 0\.\.48", workers=workers)


def test_a_split_that_loses_all_its_clips_stops(tmp_path):
    raw = write_raw(tmp_path / "raw", train=(1,), val=(2,))
    (raw / "val/video_2/image_0.png").write_bytes(b"")
    refuses(
        raw, tmp_path / "clips", r"no clip of split 'val' can be read; 1 left out, first val/video_2: .*image_0"
    )
    (raw / "train/video_1/image_0.png").write_bytes(b"")
    refuses(raw, tmp_path / "clips", r"no clips left to prepare; 2 left out, 2 of them like train/video_1")


def test_why_most_were_left_out_comes_before_other_remedies():
    short = [(name, "has 9 frames, a window needs 22") for name in ("elm", "oak", "fir")]
    wrong = [("ash", "masks/ash: no mask images; fix source.masks")]
    assert skip_reasons([*wrong, *short]) == "; 4 left out, 3 of them like elm: has 9 frames, a window needs 22"
    assert skip_reasons(wrong) == "; 1 left out, first ash: masks/ash: no mask images; fix source.masks"
    clip = RawClip("elm_0", "unlabeled", "unlabelled", lambda: pytest.fail("was read"))
    listing = Listing([clip], single_map(["background", "tree"]), skipped=wrong)
    with pytest.raises(MaskcastError, match=r"\(found: 1 unlabeled\); 1 left out, first ash: .*; or .*fix source"):
        check_splits(Path("raw"), listing, FrameFoldersSource(), ["train"])


def test_mixed_sizes_name_two_clips_and_the_remedy(tmp_path):
    raw = write_raw(tmp_path / "raw", train=(1,))
    write_raw(raw, size=(6, 8), train=(2,))
    refuses(raw, tmp_path / "clips", r"'video_2' is 6x8, 'video_1' is 12x16; set height and width")
    assert len(prepare(raw, tmp_path / "clips", height=6, width=8).clips) == 2


def test_an_id_used_twice_stops(tmp_path):
    raw = write_raw(tmp_path / "raw", train=(7,), val=(7,))
    refuses(raw, tmp_path / "clips", r"clip id 'video_7' occurs twice \(splits train and val\)")


def test_wrong_params_and_folders_are_said(tmp_path):
    raw = write_raw(tmp_path / "raw", train=(1,))
    refuses(raw, tmp_path / "clips", "height and width must be set together", height=6)
    refuses(raw, tmp_path / "clips", "layout", source={"layout": "davis"})
    refuses(raw, tmp_path / "clips", r"nothing matches images", source={"layout": "frame_folders"})
    refuses(raw, tmp_path / "clips", r"num_class: unknown key", source={"layout": "competition", "num_class": 3})
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", tmp_path / "clips", "at least one of the folders train, val, unlabeled, hidden")


def test_the_index_tells_the_layout(tmp_path):
    raw = write_raw(tmp_path / "raw", train=(1,))
    prepare(raw, tmp_path / "clips")
    assert json.loads((tmp_path / "clips/index.json").read_text())["meta"] == {"layout": "competition"}


HANDS = LabelMap("hands", ("background", "left", "right"), "instances")
MATTE = LabelMap("matte", ("background", "foreground"), "alpha")
SKIN = LabelMap("skin", ("background", "skin"))


def two_hands() -> Arrays:
    """A left hand (300) over columns 0 to 3, a right one (7) over 4 and 5, a matte that falls by 40 a column."""
    hands = np.zeros((2, 4, 8), np.uint16)
    hands[..., :4], hands[..., 4:6] = 300, 7
    matte = np.broadcast_to(np.arange(255, -65, -40).clip(0).astype(np.uint8), (2, 4, 8))
    skin = (hands > 0).astype(np.uint8)
    frames = np.full((2, 4, 8, 3), 100, np.uint8)
    return Arrays(frames, {"hands": hands, "matte": matte, "skin": skin}, {"hands": {300: 1, 7: 2}})


def skin_alone() -> Arrays:
    return Arrays(np.zeros((1, 4, 8, 3), np.uint8), {"skin": np.full((1, 4, 8), IGNORE, np.uint8)})


class HandsSource(SourceConfig):
    layout: Literal["hands"] = "hands"
    maps: tuple[LabelMap, ...] = (HANDS, MATTE, SKIN)

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        clips = [RawClip("both", "train", "labelled", two_hands), RawClip("skin", "val", "labelled", skin_alone)]
        return Listing(clips, self.maps)


class PrepareHands(PrepareClips):
    source: HandsSource = HandsSource()


def prepare_hands(clips: Path, **params) -> ClipStore:
    prepare_clips(raw=clips, clips=clips, params=PrepareHands(workers=1, **params))
    return ClipStore(clips)


def test_a_source_may_give_several_maps_and_not_all_to_each_clip(tmp_path):
    store = prepare_hands(tmp_path / "clips")
    both, skin = store.clips
    assert store.maps == {"hands": HANDS, "matte": MATTE, "skin": SKIN}
    assert (both.maps, skin.maps) == (("hands", "matte", "skin"), ("skin",))
    assert both.objects == {"hands": {300: 1, 7: 2}}
    for name, mask in two_hands().masks.items():
        np.testing.assert_array_equal(store.of(name).masks(both), mask)
        assert store.of(name).masks(both).dtype == mask.dtype
    assert [clip.id for clip in store.of("hands").select(kind="labelled")] == ["both"]
    assert [clip.id for clip in store.of("skin").select(kind="labelled")] == ["both", "skin"]


class MasksSource(HandsSource):
    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        clips = super().listing(raw, height=height, width=width, seed=seed).clips
        clips += [RawClip("masks", "train", "labelled", lambda: replace(two_hands(), frames=None))]
        return Listing(clips, self.maps)


def test_clips_of_masks_without_frames_are_counted(tmp_path, capsys):
    prepare_clips(raw=tmp_path, clips=tmp_path / "clips", params=PrepareHands(workers=1, source=MasksSource()))
    said = "prepared 3 clips (2 train, 1 val), 1 of them masks without frames"
    assert said in capsys.readouterr().err.splitlines()


def test_ids_are_resized_to_the_nearest_and_mattes_by_area(tmp_path):
    store = prepare_hands(tmp_path / "clips", height=2, width=4)
    both = store.clips[0]
    assert store.of("hands").masks(both)[0].tolist() == [[300, 300, 7, 0]] * 2
    assert store.of("matte").masks(both)[0].tolist() == [[235, 155, 75, 8]] * 2  # (255 + 215) / 2 and so on
    assert store.of("skin").masks(both)[0].tolist() == [[1, 1, 1, 0]] * 2


def test_masks_of_a_map_that_the_source_does_not_name_are_refused(tmp_path):
    with pytest.raises(
        MaskcastError, match="'both': masks of 'hands', which is not a label map of this store; allowed: skin"
    ):
        prepare_hands(tmp_path / "clips", source=HandsSource(maps=(SKIN,)))


class OneClip(SourceConfig):
    """A layout of another package, whose clips are loaded by any function."""

    layout: Literal["one"] = "one"
    load: Any = None
    split: str = "train"

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        return Listing([RawClip(name, self.split, "labelled", self.load) for name in ("first", "second")], (SKIN,))


class PrepareOne(PrepareClips):
    source: OneClip


def no_file() -> Arrays:
    raise KeyError("frames")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            OneClip(load=lambda: 1),
            r"^clip 'first': cannot be sent to a worker \(.*make load a functools.partial of a f",
        ),
        (
            OneClip(load=partial(no_file, Lock())),
            r"^clip 'first': cannot be sent to a worker \(cannot pickle '_thread",
        ),
        (OneClip(load=partial(Arrays, None)), r"^clip 'first': load returns neither frames nor masks; return"),
        (OneClip(load=str), r"^clip 'first': load returns str; return maskcast\.data\.sources\.base\.Arrays$"),
        (
            OneClip(load=no_file, split="validation"),
            r"clip 'first' is of split 'validation'; fix source; allowed: tr",
        ),
    ],
)
def test_a_layout_of_another_package_is_told_what_is_wrong(source, said, tmp_path):
    with pytest.raises(MaskcastError, match=said):
        prepare_clips(
            raw=tmp_path, clips=tmp_path / "clips", params=PrepareOne(source=source, workers=2, required_splits=[])
        )


def test_the_clip_that_a_layout_fails_at_is_named(tmp_path):
    params = PrepareOne(source=OneClip(load=no_file), workers=1, required_splits=[])
    with pytest.raises(KeyError) as caught:
        prepare_clips(raw=tmp_path, clips=tmp_path / "clips", params=params)
    assert caught.value.__notes__ == ["while loading clip 'first' of split 'train'"]
