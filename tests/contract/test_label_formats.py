"""What every label format must do: a new one is a module and a line of its table, and is tested here."""

import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling import formats as label_formats
from maskcast.data.labelling.exporting import export_labels
from maskcast.data.labelling.formats.table import FORMATS, get_format
from maskcast.data.labelling.importing import ImportReport, import_labels
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelMap

CLASSES = ("background", "car", "person")  # names that Cityscapes has, too
MAPS = (LabelMap("mask", CLASSES), LabelMap("objects", CLASSES, "instances"))
HEIGHT, WIDTH = 13, 22
LENGTHS = {"plain": 4, "a b_0001": 5, "c%20/d": 6}  # ids that file names cannot hold as they are
OBJECTS = {7: 1, 300: 2}
# modules of the package that are no format
SHARED = (
    "base",
    "burst",
    "brush",
    "class_names",
    "coco_panoptic",
    "cvat",
    "cvat_shapes",
    "names",
    "sa_v",
    "shapes",
    "table",
)
WITHOUT_TRACKS = ("label-studio", "label-studio-predictions")  # objects are numbered in each frame anew
WITHOUT_OBJECTS = ("png",)
WITHOUT_SCORES = ("cityscapes", "labelme", "mots", "mots-txt", "png")
PARAMETERS = pytest.mark.parametrize("name", FORMATS)


def masks_of(clip: str) -> np.ndarray:
    """Every pixel is drawn by itself; some have no label, and frame 1 and the last one no object."""
    frames = LENGTHS[clip]
    masks = np.random.default_rng(frames).integers(0, 3, (frames, HEIGHT, WIDTH)).astype(np.uint8)
    masks[0, :4] = IGNORE
    masks[1] = masks[-1] = 0
    return masks


def objects_of(clip: str) -> np.ndarray:
    """One object covers a part of the other, and is away in frame 1."""
    masks = np.zeros((LENGTHS[clip], HEIGHT, WIDTH), np.uint16)
    masks[:, 2:9, 3:12] = 7
    masks[:, 5:12, 8:20] = 300
    masks[1] = 0
    return masks


def write_clips(root: Path, *, labelled: bool) -> Path:
    with ClipWriter(root, height=HEIGHT, width=WIDTH, maps=MAPS) as writer:
        for clip, frames in LENGTHS.items():
            pictures = np.full((frames, HEIGHT, WIDTH, 3), 90, np.uint8)
            if not labelled:
                writer.add(clip, split="unlabeled", kind="unlabelled", frames=pictures)
                continue
            masks = {"mask": masks_of(clip), "objects": objects_of(clip)}
            sure = {"mask": np.where(masks["mask"] == 1, 204, 51).astype(np.uint8)}
            writer.add(
                clip,
                split="train",
                kind="labelled",
                frames=pictures,
                masks=masks,
                confidence=sure,
                objects={"objects": OBJECTS},
            )
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return ClipStore(write_clips(tmp_path_factory.mktemp("labelled") / "clips", labelled=True))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return ClipStore(write_clips(tmp_path_factory.mktemp("bare") / "clips", labelled=False))


Back = Callable[..., tuple[ClipStore, ImportReport]]


@pytest.fixture
def back(bare: ClipStore, tmp_path: Path) -> Back:
    """Reads a folder of labels into the clips without any."""

    def read(name: str, folder: Path, label_map: str, **options: str) -> tuple[ClipStore, ImportReport]:
        reader = {"label-studio": "label-studio-predictions"}.get(name, name)  # which is what it writes
        known = {"empty": "background", "split": "train"} | options
        report = import_labels(
            tmp_path / "back", get_format(reader), folder, bare.of(label_map), rename={}, **known
        )
        return ClipStore(tmp_path / "back", label_map), report

    return read


def exported(name: str, store: ClipStore, label_map: str, folder: Path, frames: dict | None = None) -> None:
    form = get_format(name)
    export_labels(folder, form, store.of(label_map), frames, store)


def test_the_table_is_complete() -> None:
    modules = {module.name for module in pkgutil.iter_modules(label_formats.__path__)} - set(SHARED)
    assert {place.partition(":")[0] for place, _ in FORMATS.values()} == modules
    assert [get_format(name).name for name in FORMATS] == list(FORMATS)


@PARAMETERS
def test_masks_come_back_equal_pixel_for_pixel(name: str, labelled: ClipStore, back: Back, tmp_path: Path) -> None:
    exported(name, labelled, "mask", tmp_path / "out")
    found, report = back(name, tmp_path / "out", "mask")
    for clip in labelled.clips:
        np.testing.assert_array_equal(found.masks(found.get(clip.id)), labelled.of("mask").masks(clip))
        assert (found.get(clip.id).split, found.get(clip.id).kind) == ("train", "labelled")
        assert len(list((tmp_path / "out/images").iterdir())) == sum(LENGTHS.values())
    assert (report.clips, report.frames, report.empty, report.unmatched) == (3, 15, 6, [])


@PARAMETERS
def test_objects_come_back_with_their_numbers_where_the_format_has_any(
    name: str, labelled: ClipStore, back: Back, tmp_path: Path
) -> None:
    if name in WITHOUT_OBJECTS:
        with pytest.raises(MaskcastError, match=rf"{name}: has no room for objects; use"):
            exported(name, labelled, "objects", tmp_path / "out")
        return
    exported(name, labelled, "objects", tmp_path / "out")
    found, _ = back(name, tmp_path / "out", "objects")
    for clip in labelled.clips:
        truth, masks = labelled.of("objects").masks(clip), found.masks(found.get(clip.id))
        objects = found.get(clip.id).objects["objects"]
        if name not in WITHOUT_TRACKS:
            np.testing.assert_array_equal(masks, truth)
            assert objects == OBJECTS
        else:  # each frame has objects of its own
            for t, frame in enumerate(truth):
                numbers = [np.unique(masks[t][frame == one]) for one in np.unique(frame)]
                assert [len(one) for one in numbers] == [1] * len(numbers)
                assert {objects[int(one[0])] for one in numbers[1:]} == ({1, 2} if t != 1 else set())
            assert len(objects) == 2 * (LENGTHS[clip.id] - 1)


@PARAMETERS
def test_chosen_frames_come_back_and_the_others_have_no_label(
    name: str, labelled: ClipStore, back: Back, tmp_path: Path
) -> None:
    chosen = {"plain": [0, 3], "c%20/d": [1]}
    if get_format(name).whole_clips:
        with pytest.raises(MaskcastError, match=r"whole clips and does not support --frames"):
            exported(name, labelled, "mask", tmp_path / "out", chosen)
        return
    exported(name, labelled, "mask", tmp_path / "out", chosen)
    found, report = back(name, tmp_path / "out", "mask")
    for clip, frames in chosen.items():
        expected = np.full_like(masks_of(clip), IGNORE)
        expected[frames] = masks_of(clip)[frames]
        np.testing.assert_array_equal(found.masks(found.get(clip)), expected)
        assert found.get(clip).meta["labelled_frames"] == {"mask": frames}
    assert found.get("a b_0001").kind == "unlabelled"
    assert report.frames == 3


@PARAMETERS
def test_a_frame_that_is_listed_empty_may_stay_without_label(
    name: str, labelled: ClipStore, back: Back, tmp_path: Path
) -> None:
    exported(name, labelled, "mask", tmp_path / "out")
    found, report = back(name, tmp_path / "out", "mask", empty="unlabelled")
    masks = found.masks(found.get("plain"))
    assert (masks[1] == IGNORE).all()
    np.testing.assert_array_equal(masks[0], masks_of("plain")[0])
    assert (report.frames, report.empty) == (9, 0)


@PARAMETERS
def test_confidence_goes_out_where_the_format_has_room(name: str, labelled: ClipStore, tmp_path: Path) -> None:
    exported(name, labelled, "mask", tmp_path / "out")
    reader = get_format({"label-studio": "label-studio-predictions"}.get(name, name))
    scores = {
        region.class_name: region.score
        for frame in reader.read(tmp_path / "out")
        for region in frame.regions((HEIGHT, WIDTH))
        if region.class_name in CLASSES[1:]
    }
    known = {"car": 0.8, "person": 0.2}
    assert scores == (dict.fromkeys(known) if name in WITHOUT_SCORES else pytest.approx(known))


@PARAMETERS
def test_a_class_of_another_store_is_refused_with_the_nearest(
    name: str, labelled: ClipStore, tmp_path: Path
) -> None:
    exported(name, labelled, "mask", tmp_path / "out")
    with ClipWriter(
        tmp_path / "other", height=HEIGHT, width=WIDTH, maps=(LabelMap("mask", ("background", "cart", "person")),)
    ) as writer:
        for clip, frames in LENGTHS.items():
            pictures = np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8)
            writer.add(clip, split="unlabeled", kind="unlabelled", frames=pictures)
    reader = get_format({"label-studio": "label-studio-predictions"}.get(name, name))
    other = ClipStore(tmp_path / "other")
    options: dict = {"empty": "background", "split": "train"}
    with pytest.raises(MaskcastError, match=r"no class 'car'; did you mean 'cart'\?.*--rename 'car=OURS'"):
        import_labels(tmp_path / "back", reader, tmp_path / "out", other, rename={}, **options)
    with pytest.raises(MaskcastError, match=r"--rename 'car=kart': no class 'kart'; did you mean 'cart'\?"):
        import_labels(tmp_path / "back", reader, tmp_path / "out", other, rename={"car": "kart"}, **options)
    assert not (tmp_path / "back").exists()
    import_labels(tmp_path / "back", reader, tmp_path / "out", other, rename={"car": "cart"}, **options)
    found = ClipStore(tmp_path / "back")
    np.testing.assert_array_equal(found.masks(found.get("plain")), masks_of("plain"))


@PARAMETERS
@pytest.mark.parametrize(
    ("frames", "size", "message"),
    [
        (2, (HEIGHT, WIDTH), r"clip 'plain' of .* has frames 0 to 1, not [23]; use the store that the labels"),
        (
            4,
            (WIDTH, HEIGHT),
            rf"is {WIDTH}x{HEIGHT}, the clips of .* are {HEIGHT}x{WIDTH} .*, of another aspect ratio; label the",
        ),
        (0, (HEIGHT, WIDTH), r"has \d+ frames?, none of a clip in .*; names must be <video or clip>_<frame>.png"),
    ],
)
def test_frames_that_contradict_the_store_are_refused(
    name: str, frames: int, size: tuple[int, int], message: str, labelled: ClipStore, tmp_path: Path
) -> None:
    exported(name, labelled, "mask", tmp_path / "out")
    reader = get_format({"label-studio": "label-studio-predictions"}.get(name, name))
    with ClipWriter(tmp_path / "other", height=size[0], width=size[1], maps=MAPS[:1]) as writer:
        pictures = np.zeros((frames or 4, *size, 3), np.uint8)
        writer.add("plain" if frames else "else", split="unlabeled", kind="unlabelled", frames=pictures)
    with pytest.raises(MaskcastError, match=message):
        import_labels(
            tmp_path / "back",
            reader,
            tmp_path / "out",
            ClipStore(tmp_path / "other"),
            rename={},
            empty="background",
            split="train",
        )
    assert not (tmp_path / "back").exists()


@PARAMETERS
def test_what_is_no_file_of_the_format_is_said_in_one_line(name: str, bare: ClipStore, tmp_path: Path) -> None:
    form, options = get_format(name), {"rename": {}, "empty": "background", "split": "train"}
    suffix = form.files[-1].rpartition(".")[2]
    cases = {
        "absent": None,
        "empty": b"",
        "truncated": {
            "json": b'{"images": [',
            "xml": b"<annotations><image id=",
            "png": b"\x89PNG\r\n",
            "txt": b"0 1",
        }[suffix],
        "noise": bytes(range(128, 256)),
    }
    for case, content in cases.items():
        file = tmp_path / f"{case}{'_gtFine_labelIds' if name == 'cityscapes' else ''}.{suffix}"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(MaskcastError) as caught:
            import_labels(tmp_path / "back", form, file, bare.of("mask"), **options)
        assert file.name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert ";" in str(caught.value), "a line says what to do"
    (tmp_path / "folder").mkdir()
    with pytest.raises(MaskcastError, match=r"folder: contains no .*; give a file or export of"):
        import_labels(tmp_path / "back", form, tmp_path / "folder", bare.of("mask"), **options)
    assert not (tmp_path / "back").exists()
