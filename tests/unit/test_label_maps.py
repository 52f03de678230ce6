"""Label maps: a store holds several, of any kind, each by its name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap

FRAMES = np.arange(4 * 6 * 8 * 3, dtype=np.uint32).reshape(4, 6, 8, 3).astype(np.uint8)
MASKS = (np.arange(4 * 6 * 8) % 3).reshape(4, 6, 8).astype(np.uint8)
HANDS = LabelMap("hands", ("background", "left", "right"), "instances")
MATTE = LabelMap("matte", ("background", "foreground"), "alpha")
SKIN = LabelMap("skin", ("background", "skin"))
IDS = (np.arange(4 * 6 * 8) % 3 * 400).reshape(4, 6, 8).astype(np.uint16)
OBJECTS = {"hands": {400: 1, 800: 2}}


def several(root: Path) -> ClipWriter:
    return ClipWriter(root, height=6, width=8, maps=[HANDS, MATTE, SKIN])


@pytest.fixture
def mixed(tmp_path: Path) -> ClipStore:
    masks = {"skin": MASKS % 2, "hands": IDS, "matte": FRAMES[..., 0]}
    with several(tmp_path / "mixed") as w:
        sure = {"skin": MASKS + 100}
        w.add("all", split="train", kind="labelled", masks=masks, confidence=sure, objects=OBJECTS)
        w.add("matte", split="train", kind="labelled", masks={"matte": FRAMES[:2, ..., 1]})
    return ClipStore(tmp_path / "mixed")


def test_each_map_is_read_by_its_name(mixed: ClipStore) -> None:
    clip = mixed.get("all")
    hands, matte, skin = (mixed.of(name) for name in ("hands", "matte", "skin"))
    np.testing.assert_array_equal(hands.masks(clip), IDS)
    np.testing.assert_array_equal(matte.masks(clip), FRAMES[..., 0])
    np.testing.assert_array_equal(skin.masks(clip), MASKS % 2)
    np.testing.assert_array_equal(skin.confidence(clip), MASKS + 100)
    assert hands.masks(clip).dtype == np.uint16
    assert (hands.label_map, matte.label_map, skin.classes) == (HANDS, MATTE, ("background", "skin"))
    assert clip.objects == OBJECTS
    assert (skin.has_confidence(clip), matte.has_confidence(clip)) == (True, False)
    assert ClipStore(mixed.root, "hands").num_classes == 3


def test_a_store_shows_what_it_holds(mixed: ClipStore) -> None:
    maps = "hands (3 classes), matte (2 classes), skin (2 classes)"
    assert repr(mixed) == f"<ClipStore {mixed.root}: 2 clips of 6x8; label maps: {maps}>"


def test_a_map_must_be_named_where_there_are_several(mixed: ClipStore) -> None:
    with pytest.raises(MaskcastError, match=r"maps hands, matte, skin; choose one \(label_map, or --map\)"):
        mixed.masks(mixed.get("all"))
    with pytest.raises(MaskcastError, match="no label map 'feet'; it has hands, matte, skin"):
        mixed.of("feet")
    with pytest.raises(MaskcastError, match="no label map 'feet'"):
        ClipStore(mixed.root, "feet")


def test_things_are_said_and_stuff_is_not_mentioned(tmp_path: Path) -> None:
    cars = LabelMap("cars", ("background", "car"), things=True)
    with ClipWriter(tmp_path / "s", height=6, width=8, maps=[cars, SKIN]) as w:
        w.add("a", split="train", kind="labelled", masks={"cars": MASKS % 2, "skin": MASKS % 2})
    store = ClipStore(tmp_path / "s")
    assert (store.of("cars").label_map.things, store.of("skin").label_map.things) == (True, False)
    written = json.loads((tmp_path / "s/index.json").read_text())["maps"]
    assert written[1] == {"name": "skin", "classes": ["background", "skin"], "kind": "classes"}  # as ever
    assert cars == LabelMap("cars", ("background", "car"))  # a masker from before this may mask these clips


def test_a_clip_may_lack_maps(mixed: ClipStore) -> None:
    clip, skin = mixed.get("matte"), mixed.of("skin")
    assert (clip.maps, skin.has_masks(clip), mixed.of("matte").has_masks(clip)) == (("matte",), False, True)
    assert [clip.id for clip in skin.select("train", "labelled")] == ["all"]
    assert [clip.id for clip in mixed.select("train", "labelled")] == ["all", "matte"]
    with pytest.raises(MaskcastError, match="clip 'matte' has no masks of map 'skin'"):
        skin.masks(clip)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"masks": {"feet": MASKS}},
            "masks of 'feet', which is not a label map of this store; allowed: hands, matte, skin",
        ),
        ({"confidence": {"feet": MASKS}}, "masks of 'feet', which is not a label map"),
        ({"masks": {"hands": MASKS}}, r"masks of map 'hands' are uint8 \(4, 6, 8\); the store holds uint16"),
        (
            {"frames": FRAMES.astype(np.float32)},
            r"uint8 \('T', 6, 8, 3\), frames, rows, columns, colours: convert th",
        ),
        ({"frames": FRAMES[:, :-1]}, r"frames are uint8 \(4, 5, 8, 3\); .*: resize them \(height and width of"),
        ({"masks": {"matte": IDS}}, r"masks of map 'matte' are uint16 \(4, 6, 8\); the store holds uint8"),
        ({"masks": {"skin": MASKS}}, "class id 2 is not among the 2 classes"),
        ({"masks": {"hands": IDS}}, "instance 400 of map 'hands' has no class; give it in objects"),
        (
            {"objects": {"skin": {1: 1}}},
            "objects of 'skin', which is not a map of kind instances; allowed: hands",
        ),
        ({"objects": {"hands": {0: 1}}}, "object 0 of map 'hands' is of class 1; allowed: objects 1 to 65535"),
        ({"objects": {"hands": {1 << 16: 1}}}, "object 65536 of map 'hands'"),
        ({"objects": {"hands": {1: 3}}}, "object 1 of map 'hands' is of class 3; allowed.*of classes 1 to 2"),
        ({"objects": {"hands": {1: 0}}}, "object 1 of map 'hands' is of class 0"),
        ({"masks": {"skin": MASKS % 2, "matte": MASKS[:2]}}, r"layers have \[2, 4\] frames"),
    ],
)
def test_bad_masks_of_several_maps_are_refused(tmp_path: Path, change: dict, said: str) -> None:
    good = {"split": "train", "kind": "labelled", "masks": {"skin": MASKS % 2}}
    with pytest.raises(MaskcastError, match=said) as caught, several(tmp_path / "s") as w:
        w.add("v", **good | change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s/index.json").exists()


def test_two_maps_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match="duplicate name"):
        ClipWriter(tmp_path / "s", height=6, width=8, maps=[SKIN, SKIN])


@pytest.mark.parametrize(
    ("name", "classes", "kind", "said"),
    [
        ("../up", ("a",), "classes", "name it with letters, digits and _"),
        ("", ("a",), "classes", "name it with letters"),
        ("a-b", ("a",), "classes", "name it with letters"),
        ("a", ("a",), "depth", "kind 'depth'; allowed: .*'alpha'"),
        ("a", (), "classes", "0 classes; give 1 to 255"),
        ("a", ("x",) * 256, "classes", "256 classes; give 1 to 255"),
    ],
)
def test_bad_label_maps_are_refused(name: str, classes: tuple[str, ...], kind: Any, said: str) -> None:
    with pytest.raises(MaskcastError, match=said):
        LabelMap(name, classes, kind)
