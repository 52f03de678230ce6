"""Single images with a mask file per map, and real hands pasted over each other, drawn by hand."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.sources.image_maps import ImageMapsSource
from maskcast.data.sources.pasted_hands import PastedHandsSource
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.params import validate
from maskcast.runner.run import run_stage

SIZE = 12
CLASSES = ["background", "palm", "thumb"]


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def mask(value: int, columns: slice) -> np.ndarray:
    out = np.zeros((SIZE, SIZE), np.uint8)
    out[4:8, columns] = value
    return out


def write_maps(raw: Path, names: str = "abcd") -> Path:
    """Images a to d with both masks, e with none."""
    for number, name in enumerate([*names, "e"]):
        save(raw / f"images/{name}.png", np.full((SIZE, SIZE, 3), 40 * number, np.uint8))
        if name != "e":
            save(raw / f"left/{name}.png", mask(1 + number % 2, slice(0, 5)))
            save(raw / f"right/{name}.png", mask(2, slice(3, 9)))
    return raw


def prepare(raw: Path, layout: str, **source: Any) -> ClipStore:
    values = {"source": {"layout": layout} | source, "workers": 1, "on_error": "fail"}
    run_stage("prepare_clips", values, raw=raw, clips=raw.parent / "clips")
    return ClipStore(raw.parent / "clips")


MAPS = {"images": "images/{frame}.png", "classes": CLASSES, "splits": {"val": ["d"]}}


def test_each_map_has_a_file_of_its_own(tmp_path: Path) -> None:
    store = prepare(write_maps(tmp_path / "raw"), "image_maps", **MAPS, mirror_swaps=["left", "right"])
    assert [(clip.id, clip.split, clip.maps) for clip in store.clips] == [
        *((name, "train", ("left", "right")) for name in "abc"),
        ("d", "val", ("left", "right")),
        ("e", "unlabeled", ()),
    ]
    np.testing.assert_array_equal(store.of("left").masks(store.get("b"))[0], mask(2, slice(0, 5)))
    np.testing.assert_array_equal(store.of("right").masks(store.get("b"))[0], mask(2, slice(3, 9)))
    assert store.mirror_swaps == (("left", "right"),)


@pytest.mark.parametrize("split", ["val", "test", "hidden"])
def test_an_image_without_masks_that_is_held_out_is_not_trained_on(tmp_path: Path, split: str) -> None:
    save(write_maps(tmp_path / "raw") / "images/f.png", np.full((SIZE, SIZE, 3), 200, np.uint8))
    splits = {"val": ["d", "E"]} if split == "val" else {"val": ["d"], split: ["E"]}
    store = prepare(tmp_path / "raw", "image_maps", **MAPS | {"splits": splits})
    assert {clip.id: (clip.split, clip.kind) for clip in store.clips if clip.id in "ef"} == {
        "e": ("hidden", "hidden"),
        "f": ("unlabeled", "unlabelled"),
    }


def test_images_without_masks_of_a_person_who_is_scored_on_are_not_trained_on(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for number, (person, masked) in enumerate([("ann", 1), ("bob", 1), ("eve", 0)]):
        for name in "ab":
            save(raw / f"images/{person}/{name}.png", np.full((SIZE, SIZE, 3), 60 * number + ord(name), np.uint8))
        if masked:
            save(raw / f"left/{person}/a.png", mask(1, slice(0, 5)))
    patterns = {"images": "images/{clip}/{frame}.png", "masks": {"left": "left/{clip}/{frame}.png"}}
    for splits in ({"val": ["bob"]}, {"train": ["ann"], "val": 1.0}):  # drawn: eve, who has no masks, too
        store = prepare(raw, "image_maps", **patterns, classes=CLASSES, splits=splits)
        assert {clip.id: clip.split for clip in store.clips if not clip.maps} == {
            "ann/b": "unlabeled",
            "bob/b": "hidden",
            "eve/a": "unlabeled",
            "eve/b": "unlabeled",
        }
        shutil.rmtree(store.root)


def test_a_hand_without_its_mask_is_left_out_and_said(tmp_path: Path) -> None:
    raw = write_maps(tmp_path / "raw")
    (raw / "right/b.png").unlink()
    save(raw / "left/z.png", mask(1, slice(0, 5)))
    store = prepare(raw, "image_maps", **MAPS)
    assert [clip.id for clip in store.clips] == ["a", "c", "d", "e"] and store.mirror_swaps == ()
    reasons = {one["item"]: one["reason"] for one in store.skipped}
    assert reasons == {
        "b": "has masks of left and none of right; add it",
        "masks.left": "1 have no image, first z.png",
    }


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"mirror_swaps": ["left", "up"]}, "mirror_swaps names 'up', which is none of: left, right, "),
        ({"images": "images/{clip}"}, "must name single images by {frame}"),
        ({"images": "{clip}/{frame}.png"}, "must all have {clip}, or none"),
        ({"masks": {}}, "at least 1 item"),
    ],
)
def test_params_that_contradict_each_other_are_refused(source: dict[str, Any], line: str) -> None:
    with pytest.raises(MaskcastError, match=line):
        validate(ImageMapsSource, source, "source")


def test_bad_masks_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    raw = write_maps(tmp_path / "raw")
    save(raw / "right/c.png", mask(7, slice(3, 9)))
    with pytest.raises(MaskcastError, match=r"right/c.png.* 7"):
        prepare(raw, "image_maps", **MAPS)
    save(raw / "right/c.png", mask(1, slice(3, 9))[:6])
    with pytest.raises(MaskcastError, match=r"c.png: is 12x6, .* is 12x12"):
        prepare(raw, "image_maps", **MAPS)
    with pytest.raises(
        MaskcastError, match=r"nothing matches masks.left 'lft/{frame}.png'; fix source.masks.left"
    ):
        prepare(raw, "image_maps", **MAPS, masks={"left": "lft/{frame}.png"})
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def write_photos(raw: Path, count: int = 4) -> Path:
    """Photographs of a bright arm that comes from the left, each of another height; 0 is hand."""
    for number in range(count):
        picture, hand = np.full((40, 40, 3), 30, np.uint8), np.full((40, 40), 255, np.uint8)
        rows = slice(12, 20 + 2 * number)
        picture[rows, :30] = (60, 120, 200 + number)
        hand[rows, :30] = 0
        save(raw / f"images/{number}.png", picture)
        save(raw / f"masks/{number}.png", hand)
    return raw


PASTE = {
    "images": "images/{frame}.png",
    "values": {"0": "hand", "255": "background"},
    "splits": {"val": ["0", "1"]},
    "pairs": {"train": 3, "val": 2, "unlabeled": 2},
}


def test_pasted_hands_are_whole_in_their_maps_and_in_front_of_each_other(tmp_path: Path) -> None:
    store = prepare(write_photos(tmp_path / "raw"), "pasted_hands", **PASTE)
    assert [clip.split for clip in store.clips] == ["train"] * 3 + ["val"] * 2 + ["unlabeled"] * 2
    assert (store.height, store.width) == (128, 128) and store.mirror_swaps == (("left", "right"),)
    in_front = set()
    for clip in store.clips[:5]:
        assert set(clip.meta["photos"]) == ({"0", "1"} if clip.split == "val" else {"2", "3"})
        left, right, visible = (store.of(name).masks(clip)[0] for name in ("left", "right", "visible"))
        both = (left == 1) & (right == 1)
        front = {int(value) for value in np.unique(visible[both])}
        assert both.any() and len(front) == 1  # one hand lies over the other wherever they meet
        in_front |= front
        assert (visible[(left == 1) & ~both] == 1).all() and (visible[(right == 1) & ~both] == 2).all()
        assert not visible[(left == 0) & (right == 0)].any()
        # photographs show right hands, whose arm comes from the left
        assert right[:, 0].any() and left[:, -1].any()
        skin = store.frames(clip)[0][..., 0] > 150
        assert (skin == (visible > 0)).mean() > 0.98
    assert in_front == {1, 2}
    assert store.get("pasted_unlabeled_000000").maps == ()


def test_pixels_of_photographs_without_a_label_have_none_in_the_picture(tmp_path: Path) -> None:
    raw = write_photos(tmp_path / "raw")
    for path in (raw / "masks").iterdir():
        hand = np.array(Image.open(path))
        hand[30:36] = 128
        save(path, hand)
    store = prepare(raw, "pasted_hands", **PASTE | {"values": PASTE["values"] | {"128": "ignore"}})
    for clip in store.clips[:5]:
        left, right, visible = (store.of(name).masks(clip)[0] for name in ("left", "right", "visible"))
        unknown = (left == IGNORE) | (right == IGNORE)
        assert unknown.any() and (visible[unknown & (left != 1) & (right != 1)] == IGNORE).all()
        assert (visible[~unknown] != IGNORE).all()
        assert right[:, 0].any() and left[:, -1].any()


def test_a_photograph_in_two_splits_is_refused(tmp_path: Path) -> None:
    raw = write_photos(tmp_path / "raw")
    for kind in ("images", "masks"):
        shutil.copy(raw / kind / "0.png", raw / kind / "copy.png")
    with pytest.raises(MaskcastError, match=r"the same as .*, and they are in splits 'train' and 'val'; remove"):
        prepare(raw, "pasted_hands", **PASTE)
    assert prepare(raw, "pasted_hands", **PASTE | {"splits": {"val": ["0", "1", "copy"]}}).clips


def test_pairs_need_two_photographs_with_masks(tmp_path: Path) -> None:
    raw = write_photos(tmp_path / "raw")
    with pytest.raises(MaskcastError, match=r"1 photograph of split 'val', a pair needs 2; fix source.splits"):
        prepare(raw, "pasted_hands", **PASTE | {"splits": {"val": ["0"]}})
    with pytest.raises(MaskcastError, match=r"zoom .* must be two factors above 0"):
        validate(PastedHandsSource, {"zoom": [0, 1]}, "source")
    with pytest.raises(MaskcastError, match=r"nothing matches masks 'mask/{frame}.png'; fix source.masks"):
        prepare(raw, "pasted_hands", **PASTE | {"masks": "mask/{frame}.png"})
    with pytest.raises(MaskcastError, match=r"source\.values"):
        prepare(raw, "pasted_hands", **PASTE | {"values": {"0": "arm", "255": "background"}})
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
