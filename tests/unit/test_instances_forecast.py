"""Maps of instances are forecast and scored object by object."""

import json
import pickle
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskcast.data.clip_store.instances import ObjectClasses
from maskcast.data.clip_store.reader import ALL, Clip, ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.errors import MaskcastError
from maskcast.inference.forecast import open_stores
from maskcast.inference.predicted_objects import PredictedObjects
from maskcast.labels import LabelError, LabelMap
from maskcast.models.base import save_model
from maskcast.models.forecasting.configs import ObjectsConfig
from maskcast.models.forecasting.numbered_objects import NumberedObjects
from maskcast.models.objects.overlaps import overlaps
from maskcast.params import validate
from maskcast.runner.stage import get_stage

CLASSES = ("background", "car", "bus")
MASK, OBJECTS = LabelMap("mask", CLASSES), LabelMap("objects", CLASSES, "instances")
LEFT, RIGHT = 700, 30  # ids of the two cars: the order of ids is the order of names
FRAMES, HEIGHT, WIDTH = 22, 32, 96


def ids() -> np.ndarray:
    """Returns the ids of two cars that drive apart."""
    ids_THW = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint16)
    for t in range(FRAMES):
        ids_THW[t, 4:12, 36 - t : 48 - t] = LEFT
        ids_THW[t, 20:28, 48 + t : 60 + t] = RIGHT
    return ids_THW


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    """Clips with a map of instances, and masks that know classes alone."""
    masks, frames = (ids() > 0).astype(np.uint8), np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    objects = {"objects": {LEFT: 1, RIGHT: 1}}
    with (
        ClipWriter(tmp_path / "clips", height=HEIGHT, width=WIDTH, maps=[MASK, OBJECTS]) as clips,
        ClipWriter(tmp_path / "masks", height=HEIGHT, width=WIDTH, maps=[MASK]) as generated,
    ):
        for name, split in (("a", "train"), ("b", "val")):
            both = {"mask": masks, "objects": ids()}
            clips.add(name, split=split, kind="labelled", frames=frames, masks=both, objects=objects)
            generated.add(name, split=split, kind="labelled", masks={"mask": masks})
    return tmp_path / "clips", tmp_path / "masks"


def run(name: str, params: Mapping[str, Any], **paths: Path) -> None:
    stage = get_stage(name)
    stage.function(**paths, params=validate(stage.params, params, name))


def test_objects_are_classes_by_name_and_parts_of_masks_are_named_by_what_they_cover(
    stores: tuple[Path, Path],
) -> None:
    prepared = ObjectClasses(ClipStore(stores[0], "objects"))
    assert prepared.classes == ("background", "car 1", "car 2")
    (clip, _), truth = prepared.clips, np.select([ids() == RIGHT, ids() == LEFT], [1, 2], 0)
    np.testing.assert_array_equal(prepared.masks(clip), truth)
    found = PredictedObjects(ClipStore(stores[1]), prepared)
    np.testing.assert_array_equal(found.masks(clip, slice(11)), truth[:11])
    assert (
        found.classes == prepared.classes and found.of("mask").label_map == prepared.of("mask").label_map == MASK
    )


@pytest.mark.parametrize(("numbers", "names"), [(3, 4), (60000, 256), (1, 1)])
def test_overlaps_are_those_that_a_count_of_each_pixel_gives(numbers: int, names: int) -> None:
    random = np.random.default_rng(0)
    number_THW = random.integers(0, numbers, (2, 9, 11), dtype=np.uint16)
    name_THW = random.integers(0, names, number_THW.shape).astype(np.uint8)
    some = number_THW > 0
    counted = Counter(zip(number_THW[some].tolist(), name_THW[some].tolist(), strict=True))
    assert overlaps(number_THW, name_THW) == [pair for pair, _ in counted.most_common()]


def test_overlaps_of_high_numbers_take_no_memory_for_those_below() -> None:
    number_THW, name_THW = np.full((1, 2, 2), 65535, np.uint16), np.full((1, 2, 2), 200, np.uint8)
    tracemalloc.start()
    assert overlaps(number_THW, name_THW) == [(65535, 200)]
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("maps", [[OBJECTS], [MASK, OBJECTS]], ids=["objects alone", "with classes"])
def test_objects_that_masks_tell_are_scored_as_they_are(
    maps: list[LabelMap], stores: tuple[Path, Path], tmp_path: Path
) -> None:
    """A tracker takes one car for the other from frame 14 on; connected parts would not."""
    tracked = np.select([ids() == LEFT, ids() == RIGHT], [5, 400], 0).astype(np.uint16)
    tracked[14:] = np.select([tracked[14:] == 5, tracked[14:] == 400], [400, 5], 0)
    found = {"objects": tracked, "mask": (tracked > 0).astype(np.uint8)}
    with ClipWriter(tmp_path / "tracked", height=HEIGHT, width=WIDTH, maps=maps) as writer:
        for name in ("a", "b"):
            both = {one.name: found[one.name] for one in maps}
            told = {"objects": {5: 1, 400: 1}}
            writer.add(name, split="val", kind="labelled", masks=both, objects=told)
    _, generated = open_stores(stores[0], tmp_path / "tracked", "objects")
    truth = np.select([ids() == RIGHT, ids() == LEFT], [1, 2], 0)
    expected = truth.copy()
    expected[14:] = np.select([truth[14:] == 1, truth[14:] == 2], [2, 1], 0)
    np.testing.assert_array_equal(generated.masks(generated.get("b")), expected)
    paths = {"clips": stores[0], "masks": tmp_path / "tracked"}
    out = {"metrics": tmp_path / "scores.json", "report": tmp_path / "report"}
    run("evaluate_video", {"label_map": "objects"}, **paths, **out)
    assert json.loads(out["metrics"].read_text())["j"] == pytest.approx(14 / 22)  # where cars have their names


@pytest.mark.parametrize("tracked", [False, True], ids=["parts of masks", "a tracker"])
def test_the_names_of_objects_do_not_depend_on_the_frame_read_first(tracked: bool, tmp_path: Path) -> None:
    """The left car, of higher id, leaves before the second car comes; nobody knows the truth."""
    ids_THW = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint16)
    ids_THW[:8, 4:12, :12], ids_THW[:, 20:28, 40:52], ids_THW[12:, 4:12, 80:] = 9, 4, 2
    classes, told = (ids_THW > 0).astype(np.uint8), {"objects": {2: 1, 4: 1, 9: 1}}
    stores = tmp_path / "clips", tmp_path / "masks"
    maps = [OBJECTS] if tracked else [MASK]
    with (
        ClipWriter(stores[0], height=HEIGHT, width=WIDTH, maps=[MASK, OBJECTS]) as clips,
        ClipWriter(stores[1], height=HEIGHT, width=WIDTH, maps=maps) as generated,
    ):
        frames = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
        both = {"mask": classes, "objects": ids_THW}
        clips.add("a", split="train", kind="labelled", frames=frames, masks=both, objects=told)
        clips.add("b", split="unlabeled", kind="unlabelled", frames=frames)
        layers = {"objects": ids_THW} if tracked else {"mask": classes}
        generated.add("b", split="unlabeled", kind="unlabelled", masks=layers, objects=told if tracked else {})
    _, found = open_stores(*stores, "objects")
    whole = found.masks(found.get("b"))
    assert whole[0].max() == 2 and whole[-1].max() == 3
    for part in (slice(11), slice(11, 22), slice(9, 20, 2), slice(-8, -2)):
        np.testing.assert_array_equal(found.masks(found.get("b"), part), whole[part])


def test_windows_of_tracked_masks_are_named_without_reading_the_clip_again(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names depend on the frames up to the window's end, in whatever order windows are read."""
    tracked = np.select([ids() == LEFT, ids() == RIGHT], [5, 400], 0).astype(np.uint16)
    tracked[9:] = np.select([tracked[9:] == 5, tracked[9:] == 400], [400, 5], 0)
    with ClipWriter(tmp_path / "tracked", height=HEIGHT, width=WIDTH, maps=[OBJECTS]) as writer:
        told = {"objects": {5: 1, 400: 1}}
        writer.add("b", split="val", kind="labelled", masks={"objects": tracked}, objects=told)
    prepared = ObjectClasses(ClipStore(stores[0], "objects"))
    found = PredictedObjects(ClipStore(tmp_path / "tracked"), prepared)
    clip = found.get("b")
    read = Counter[int]()

    def masks(self: ClipStore, clip: Clip, frames: slice = ALL) -> np.ndarray:
        if self.root == found.root:
            read.update(range(FRAMES)[frames])
        return original(self, clip, frames)

    original = ClipStore.masks
    monkeypatch.setattr(ClipStore, "masks", masks)
    windows = [slice(8, 12), slice(18, 22), slice(3), slice(12, 20, 2), slice(18, 22)]
    for window in windows:
        car_1, car_2 = (400, 5) if window.stop < 18 else (5, 400)  # by most of the frames until then
        expected = np.select([tracked == car_1, tracked == car_2], [1, 2], 0)[window]
        np.testing.assert_array_equal(found.masks(clip, window), expected)
    asked = Counter(t for window in windows for t in range(FRAMES)[window])
    assert read == asked + Counter(range(FRAMES)), "each frame once to count, and those asked for"


def test_what_has_no_label_is_no_background_of_objects(tmp_path: Path) -> None:
    """Frames that nobody labelled, and pixels that the map of classes beside says nothing of."""
    masks = (ids() > 0).astype(np.uint8)
    masks[:, :4], masks[5] = 255, 255  # frame 5 has labels of objects alone
    known = [t for t in range(FRAMES) if t % 5 == 0]
    meta = {"labelled_frames": {"objects": known}}
    with ClipWriter(tmp_path, height=HEIGHT, width=WIDTH, maps=[MASK, OBJECTS]) as writer:
        both = {"mask": masks, "objects": ids()}
        objects = {"objects": {LEFT: 1, RIGHT: 1}}
        writer.add("a", split="val", kind="labelled", masks=both, objects=objects, meta=meta)
    store = ObjectClasses(ClipStore(tmp_path, "objects"))
    truth = np.select([ids() == RIGHT, ids() == LEFT], [1, 2], 0)
    truth[[t for t in range(FRAMES) if t not in known]] = 255
    truth[[t for t in known if t != 5], :4] = 255
    np.testing.assert_array_equal(store.masks(store.clips[0]), truth)
    np.testing.assert_array_equal(store.masks(store.clips[0], slice(4, 17, 3)), truth[4:17:3])


def test_a_forecaster_learns_objects_and_is_scored_by_object(stores: tuple[Path, Path], tmp_path: Path) -> None:
    clips, masks = stores
    training = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 1e-6, "precision": "fp32"}
    paths = {"clips": clips, "masks": masks, "masker": masks}
    learn = {"label_map": "objects", "model": {"arch": "objects", "hidden": 8}, "training": training}
    run("pretrain_forecaster", learn, **paths, pretrained=tmp_path / "model", metrics=tmp_path / "learnt.json")
    tune = {"label_map": "objects", "training": training}
    tuned = {
        "pretrained": tmp_path / "model",
        "forecaster": tmp_path / "tuned",
        "metrics": tmp_path / "tuned.json",
    }
    run("finetune_forecaster", tune, **paths, **tuned)
    for context in ("generated", "truth"):
        out = {"metrics": tmp_path / f"{context}.json", "report": tmp_path / context}
        asked = {"label_map": "objects", "context": context, "pictures": 0}
        run("evaluate", asked, **paths, forecaster=tmp_path / "tuned", **out)
        scores = json.loads(out["metrics"].read_text())
        assert scores["jaccard_last"] > 0.95 > scores["jaccard_last_persistence"]
        assert "1,car 1," in (out["report"] / "per_class.csv").read_text()
    out = {"predictions": tmp_path / "predicted"}
    run("predict", {"label_map": "objects", "split": "val"}, **paths, forecaster=tmp_path / "model", **out)
    predicted = ClipStore(out["predictions"])
    assert predicted.classes == ("background", "car 1", "car 2")
    assert set(np.unique(predicted.masks(predicted.clips[0]))) == {0, 1, 2}


def test_masks_without_the_classes_of_the_objects_are_refused(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with ClipWriter(
        tmp_path / "other", height=HEIGHT, width=WIDTH, maps=[LabelMap("any", ("no", "yes"))]
    ) as writer:
        writer.add("b", split="val", kind="labelled", masks={"any": (ids() > 0).astype(np.uint8)})
    config = ObjectsConfig(hidden=8)
    save_model(tmp_path / "model", config.build(3), config, num_classes=3, meta={"label_map": "objects"})
    paths = {
        "clips": stores[0],
        "masks": tmp_path / "other",
        "masker": stores[1],
        "forecaster": tmp_path / "model",
    }
    with pytest.raises(
        MaskcastError, match=r"other: has maps any, but none of kind instances or classes with the 3"
    ):
        run("predict", {"label_map": "objects", "split": "val"}, **paths, predictions=tmp_path / "out")


def test_a_view_is_pickled_as_a_view(stores: tuple[Path, Path]) -> None:
    view = ObjectClasses(ClipStore(stores[0], "objects"))
    copy = pickle.loads(pickle.dumps(NumberedObjects(view)))
    assert (type(copy), type(copy.store), copy.label_map) == (NumberedObjects, ObjectClasses, view.label_map)
    clip = copy.get(view.select("val")[0].id)
    np.testing.assert_array_equal(copy.store.masks(clip), view.masks(clip))
    np.testing.assert_array_equal(copy.frames(clip), view.frames(clip))


def test_a_clip_without_objects_is_background(tmp_path: Path) -> None:
    empty = np.zeros((1, 15, 20), np.uint16)
    with ClipWriter(tmp_path / "clips", height=15, width=20, maps=[OBJECTS]) as writer:
        writer.add("a", split="val", kind="labelled", masks={"objects": empty})
    store = ObjectClasses(ClipStore(tmp_path / "clips"))
    assert not store.masks(store.clips[0]).any()


def test_more_objects_than_ids_are_refused(tmp_path: Path) -> None:
    many = np.arange(300, dtype=np.uint16).reshape(1, 15, 20)
    with ClipWriter(tmp_path / "clips", height=15, width=20, maps=[OBJECTS]) as writer:
        objects = {"objects": dict.fromkeys(range(1, 300), 2)}
        writer.add("a", split="val", kind="labelled", masks={"objects": many}, objects=objects)
    with pytest.raises(LabelError, match=r"clips: clips of map 'objects' have up to 299 objects; at most 254"):
        ObjectClasses(ClipStore(tmp_path / "clips"))


def folder(root: Path, values: np.ndarray, missing: int | None = None) -> Path:
    """Writes a sequence of three frames whose masks hold ``values``."""
    for name in ("frames", "masks"):
        (root / name / "s").mkdir(parents=True)
    for k in range(3):
        Image.fromarray(np.full((*values.shape, 3), 90, np.uint8)).save(root / "frames/s" / f"{k}.png")
        if k != missing:
            Image.fromarray(values).save(root / "masks/s" / f"{k}.png")
    return root


def source(**params: Any) -> FrameFoldersSource:
    base = {"images": "frames/{clip}", "masks": "masks/{clip}", "frames": 3, "splits": {}, "instances": True}
    return FrameFoldersSource(**(base | params))


def test_values_of_masks_are_objects(tmp_path: Path) -> None:
    raw = folder(tmp_path, np.repeat(np.array([[0, 1, 7, 9, 255]], np.uint8), 4, 0))
    told = {"0": "background", "1": "car", "7": "car", "9": "bus", "255": "ignore"}
    listing = source(classes=CLASSES, values=told).listing(raw, height=None, width=None, seed=0)
    assert listing.maps == (MASK, OBJECTS) and listing.maps[0].things
    loaded = listing.clips[0].load()
    assert loaded.masks["mask"][0, 0].tolist() == [0, 1, 1, 2, 255]
    assert loaded.masks["objects"][0, 0].tolist() == [0, 1, 7, 9, 0] and loaded.masks["objects"].dtype == np.uint16
    assert loaded.objects == {"objects": {1: 1, 7: 1, 9: 2}}
    alone = source(ignore=255).listing(raw, height=None, width=None, seed=0).clips[0].load()
    assert alone.masks["mask"][0, 0].tolist() == [0, 1, 1, 1, 255]
    assert alone.objects == {"objects": {1: 1, 7: 1, 9: 1}}


@pytest.mark.parametrize("ids", [(3, 200), (251, 700), tuple(range(1, 250, 12))])
def test_objects_have_any_number(ids: tuple[int, ...], tmp_path: Path) -> None:
    raw = folder(tmp_path, np.array([[0] * 300, [0] * (300 - len(ids)) + list(ids)], np.uint16))
    loaded = source().listing(raw, height=None, width=None, seed=0).clips[0].load()
    assert loaded.objects == {"objects": dict.fromkeys(ids, 1)}
    assert (loaded.masks["mask"][0, 1, -len(ids) :] == 1).all()


def test_a_clip_with_a_frame_without_a_mask_has_no_objects(tmp_path: Path) -> None:
    raw = folder(tmp_path, np.array([[0, 1, 2]], np.uint8), missing=1)
    assert set(source().listing(raw, height=None, width=None, seed=0).clips[0].load().masks) == {"mask"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"classes": CLASSES}, "instances: true needs values, the class of each object"),
        ({"encoding": "index"}, "instances: true needs values, the class of each object"),
        ({"values": {"#ff0000": "foreground"}}, "instances: true is for masks whose values are numbers"),
    ],
)
def test_objects_without_a_class_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**params)
