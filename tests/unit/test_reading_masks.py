"""Masks as people save them: each kind becomes the ids that its owner means, or names the key to set."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter
from tests.unit.test_reading_images import png

from maskcast.data.decoding import decode
from maskcast.data.masks.choice import choose_rule
from maskcast.data.masks.propose_params import propose_mask_params
from maskcast.data.masks.stored import read_mask
from maskcast.data.masks.survey import MAX_READ, survey_masks
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelError

DAVIS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128]  # its palette: 0 black, 1 red, ...
TWO = ("background", "foreground")
MANY = tuple(f"c{k}" for k in range(49))


def picture(rows: Any, mode: str = "L") -> Image.Image:
    dtype = {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
    return Image.fromarray(np.array(rows, dtype))


def palette(rows: Any, colours: list[int]) -> Image.Image:
    image = Image.fromarray(np.array(rows, np.uint8), "P")
    image.putpalette(colours)
    return image


def large(rows: Any) -> np.ndarray:
    """Eight pixels for each, so that JPEG's blocks hold one value."""
    return np.kron(np.array(rows), np.ones((8, 8), int)).astype(np.uint8)


def saved(path: Path, image: Image.Image | bytes, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return path


def read(paths: list[Path], classes: tuple[str, ...] = TWO, **params: Any) -> list[Any]:
    """Reads masks as frame_folders does: one survey, one rule."""
    source = FrameFoldersSource(classes=classes, **params)
    rule = source.rule(paths, classes)
    return [rule.read(path).tolist() for path in paths]


Make = Callable[[Path], Path]
KINDS: dict[str, tuple[Make, dict[str, Any], Any]] = {
    "one bit": (lambda p: saved(p / "m.png", picture([[0, 255]]).convert("1")), {}, [[0, 1]]),
    "one bit, TIFF, white is zero": (
        lambda p: saved(p / "m.tif", picture([[0, 255]]).convert("1"), tiffinfo={262: 0}),
        {},
        [[0, 1]],
    ),
    "one bit, BMP": (lambda p: saved(p / "m.bmp", picture([[0, 255]]).convert("1")), {}, [[0, 1]]),
    "grey 0/1": (lambda p: saved(p / "m.png", picture([[0, 1]])), {}, [[0, 1]]),
    "grey 0/1, said to be binary": (
        lambda p: saved(p / "m.png", picture([[0, 1]])),
        {"encoding": "binary"},
        [[0, 1]],
    ),
    "grey 0/255": (lambda p: saved(p / "m.png", picture([[0, 255]])), {}, [[0, 1]]),
    "grey 0/38": (lambda p: saved(p / "m.png", picture([[0, 38]])), {}, [[0, 1]]),
    "grey 0/255 saved as RGB": (lambda p: saved(p / "m.png", picture([[0, 255]]).convert("RGB")), {}, [[0, 1]]),
    "grey 0/255 with an alpha of no use": (
        lambda p: saved(p / "m.png", picture([[0, 255]]).convert("LA")),
        {},
        [[0, 1]],
    ),
    "soft edges": (
        lambda p: saved(p / "m.png", picture([[0] * 95 + list(range(20, 240, 20)) + [255] * 95])),
        {},
        [[0] * 101 + [1] * 100],
    ),
    "JPEG 0/255": (lambda p: saved(p / "m.jpg", picture(large([[0, 255]]))), {}, large([[0, 1]]).tolist()),
    "palette of DAVIS 2017": (
        lambda p: saved(p / "m.png", palette([[0, 1, 5]], DAVIS)),
        {"encoding": "binary"},
        [[0, 1, 1]],
    ),
    "palette of DAVIS 2017, by id": (
        lambda p: saved(p / "m.png", palette([[0, 1, 5]], DAVIS)),
        {"classes": MANY},
        [[0, 1, 5]],
    ),
    "palette whose first colour is white": (
        lambda p: saved(p / "m.png", palette([[0, 1]], [255, 255, 255, 0, 0, 0])),
        {},
        [[1, 0]],
    ),
    "grey of 4 bits": (lambda p: saved(p / "m.png", png(4, 0, [[0, 5]])), {"classes": MANY}, [[0, 5]]),
    "grey of 2 bits": (lambda p: saved(p / "m.png", png(2, 0, [[0, 3]])), {"classes": MANY}, [[0, 3]]),
    "palette of 4 bits": (
        lambda p: saved(p / "m.png", palette([[0, 5]], DAVIS), bits=4),
        {"classes": MANY},
        [[0, 5]],
    ),
    "16 bits": (lambda p: saved(p / "m.png", picture([[0, 48]], "I;16")), {"classes": MANY}, [[0, 48]]),
    "16 bits, TIFF": (lambda p: saved(p / "m.tif", picture([[0, 7]], "I;16")), {"classes": MANY}, [[0, 7]]),
    "16 bits, numbers of objects": (
        lambda p: saved(p / "m.png", picture([[0, 3, 200, 700]], "I;16")),
        {"encoding": "binary"},
        [[0, 1, 1, 1]],
    ),
    "16 bits, white": (lambda p: saved(p / "m.png", picture([[0, 65535]], "I;16")), {}, [[0, 1]]),
    "floats": (lambda p: saved(p / "m.tif", picture([[0.0, 3.0]], "F")), {"classes": MANY}, [[0, 3]]),
    "255 is no label": (
        lambda p: saved(p / "m.png", picture([[0, 2, 255]])),
        {"classes": MANY, "ignore": 255},
        [[0, 2, IGNORE]],
    ),
    "65535 is no label": (
        lambda p: saved(p / "m.png", picture([[0, 2, 65535]], "I;16")),
        {"classes": MANY, "ignore": 65535},
        [[0, 2, IGNORE]],
    ),
    "colours": (
        lambda p: saved(
            p / "m.png", Image.fromarray(np.array([[[128, 64, 128], [0, 0, 0], [128] * 3]], np.uint8))
        ),
        {"classes": ("road", "sky"), "values": {"#804080": "road", "#808080": "sky", "#000000": "ignore"}},
        [[0, IGNORE, 1]],
    ),
    "colours of a palette": (
        lambda p: saved(p / "m.png", palette([[0, 1, 2]], DAVIS)),
        {"values": {"#000000": "background", "#800000": "foreground", "#008000": "ignore"}},
        [[0, 1, IGNORE]],
    ),
    "values by name": (
        lambda p: saved(p / "m.png", picture([[0, 128, 255]])),
        {"classes": ("none", "left", "right"), "values": {0: "none", 128: "left", 255: "right"}},
        [[0, 1, 2]],
    ),
    "a cut-out: one colour and its alpha": (
        lambda p: saved(p / "m.png", Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8))),
        {},
        [[0, 1]],
    ),
    "objects on nothing": (
        lambda p: saved(p / "m.png", Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 255]]], np.uint8))),
        {},
        [[0, 1]],
    ),
    "turned by EXIF": (
        lambda p: saved(p / "m.png", picture([[0, 1, 2]]), exif=turned_by(6)),
        {"classes": MANY},
        [[0], [1], [2]],
    ),
    "an ending in capitals": (lambda p: saved(p / "M.PNG", picture([[0, 1]])), {}, [[0, 1]]),
}


def turned_by(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_mask_becomes_the_ids_that_its_owner_means(kind: str, tmp_path: Path) -> None:
    make, params, ids = KINDS[kind]
    assert read([make(tmp_path)], **params) == [ids]


REFUSED: dict[str, tuple[Make, dict[str, Any], str]] = {
    "0/255 among many classes": (
        lambda p: saved(p / "m.png", picture([[0, 255]])),
        {"classes": MANY, "encoding": "index"},
        r"m\.png: the value 255 \(1 of 1 mask, 1 pixel\) is not a class id in 0\.\.48; if it is the only "
        r"foreground, set source\.encoding: binary",
    ),
    "0/255 that ignore would hide": (
        lambda p: saved(p / "m.png", picture([[0, 255]])),
        {"ignore": 255},
        r"source\.ignore: 255 hides everything but the background",
    ),
    "255 beside ids": (
        lambda p: saved(p / "m.png", picture([[0, 3, 255]])),
        {"classes": MANY},
        r"if it means no label, set source\.ignore: 255",
    ),
    "an id of 200": (
        lambda p: saved(p / "m.png", picture([[0, 3, 199, 200, 200]])),
        {"classes": MANY},
        r"the value 200 \(1 of 1 mask, 2 pixels\) is not a class id in 0\.\.48; name all classes in",
    ),
    "objects of DAVIS 2017 for two classes": (
        lambda p: saved(p / "m.png", palette([[0, 1, 5]], DAVIS)),
        {},
        r"0, 1, 5, which may be one foreground or several classes; .*or set source\.encoding: binary",
    ),
    "0, 1 and 255": (
        lambda p: saved(p / "m.png", picture([[0, 1, 255]])),
        {},
        r"contain 0, 1 and 255; if 255 means no label, set source\.ignore: 255",
    ),
    "a trimap": (
        lambda p: saved(p / "m.png", picture([[0, 128, 255]])),
        {},
        r"0, 128, 255, which may be one foreground or several classes",
    ),
    "low and high values, said to be one foreground": (
        lambda p: saved(p / "m.png", picture([[0, 100, 200]])),
        {"encoding": "binary"},
        r"0, 100, 200, .*, or give the class of each value in source\.values, or set source\.instances: true",
    ),
    "numbers of many objects on a large background": (
        lambda p: saved(p / "m.png", picture([[0] * 5000 + list(range(1, 245))])),
        {},
        r"0, 1, 2, .*, which may be one foreground or several classes; .* source\.instances: true",
    ),
    "JPEG of ids": (
        lambda p: saved(p / "m.jpg", picture(large([[0, 3, 7]]))),
        {"classes": MANY},
        r"m\.jpg: JPEG changes the values of a mask, and these contain .*; export them as PNG",
    ),
    "JPEG of 0 and 1": (
        lambda p: saved(p / "m.jpg", picture(large([[0, 2]]))),
        {"encoding": "binary"},
        r"JPEG changes .* not black and white .*; export them as PNG",
    ),
    "colours": (
        lambda p: saved(p / "m.png", Image.fromarray(np.array([[[128, 64, 128], [0, 0, 0]]], np.uint8))),
        {"classes": MANY},
        r"the masks contain colours \(#804080\); give the class of each in source\.values, e\.g\. '#804080': NAME",
    ),
    "objects and 65535": (
        lambda p: saved(p / "m.png", picture([[0, 1, 2, 300, 65535]], "I;16")),
        {"encoding": "binary"},
        r"the masks contain 0, 1, 2, 300, 65535, which may be one foreground or several classes; list the",
    ),
    "a colour that is not listed": (
        lambda p: saved(p / "m.png", Image.fromarray(np.array([[[128, 64, 128], [1, 2, 3]]], np.uint8))),
        {"values": {"#804080": "foreground"}},
        r"the value #010203 \(1 of 1 mask, 1 pixel\) is not in source\.values; add it there",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_allows_two_readings_or_none_is_refused_with_the_key_to_set(kind: str, tmp_path: Path) -> None:
    make, params, match = REFUSED[kind]
    with pytest.raises(LabelError, match=match) as caught:
        read([make(tmp_path)], **params)
    assert "\n" not in str(caught.value)


def soft(greys: tuple[int, ...]) -> np.ndarray:
    """Returns a square of 20 pixels a side of each grey on black, blurred."""
    hard = np.zeros((128, 32 * len(greys)), np.uint8)
    for k, grey in enumerate(greys):
        hard[50:70, 6 + 32 * k : 26 + 32 * k] = grey
    return np.asarray(Image.fromarray(hard).filter(ImageFilter.GaussianBlur(0.7)))


@pytest.mark.parametrize("greys", [(127, 254), (128, 255), (255, 85), (85, 170, 255, 255)])
@pytest.mark.parametrize("name", ["m.png", "m.jpg"])
def test_a_grey_class_with_soft_edges_is_not_background(name: str, greys: tuple[int, ...], tmp_path: Path) -> None:
    path = saved(tmp_path / name, picture(soft(greys)))
    match = rf"{name}: the masks have soft edges, and areas of grey .* \(most .*\); export .*, or set source.enc"
    with pytest.raises(LabelError, match=match):
        propose_mask_params(survey_masks([path], ignore=255))
    with pytest.raises(LabelError, match=match):
        read([path])
    assert (read([path], encoding="binary")[0] == (np.asarray(Image.open(path)) >= 128)).all()
    white = saved(tmp_path / name, picture(soft((255,) * len(greys))))
    assert propose_mask_params(survey_masks([white], ignore=255)).source == {"classes": list(TWO)}
    assert np.sum(read([white])[0]) == pytest.approx(400 * len(greys), rel=0.05)


@pytest.mark.parametrize("filter_of", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("shape", ["discs", "lines"])
def test_soft_edges_of_small_objects_are_no_grey_class(
    shape: str, filter_of: Image.Resampling, tmp_path: Path
) -> None:
    hard = np.zeros((96, 96), np.uint8)
    for k in range(8, 96, 16):
        if shape == "discs":
            cv2.circle(hard, (k, 96 - k), 3, 255, -1)
        elif k == 40:
            cv2.line(hard, (k, 8), (96 - k, 88), 255, 2)
            cv2.line(hard, (8, k), (88, k), 255, 2)
    large = Image.fromarray(hard).resize((192, 192), filter_of)
    path = saved(tmp_path / "m.png", large)
    assert propose_mask_params(survey_masks([path], ignore=255)).source == {"classes": list(TWO)}
    assert (read([path])[0] == (np.asarray(large) >= 128)).all()


def dense(num_classes: int, *, rare: bool, void: bool) -> np.ndarray:
    """Returns a mask whose areas have the ids 0 to ``num_classes - 1`` in turn.

    Args:
        num_classes: up to 256.
        rare: whether more than nine of ten pixels are background.
        void: whether 255 is around each area, as in Pascal VOC.
    """
    mask = np.kron(np.arange(256).reshape(16, 16) % num_classes, np.ones((12, 12), int)).astype(np.uint8)
    if void:
        mask[::12] = mask[:, ::12] = 255
    return np.pad(mask, 260) if rare else mask


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 8, 9, 19, 32, 33, 34, 60, 128, 150, 222, 254])
def test_ids_of_classes_are_not_black_and_white(num_classes: int, rare: bool, tmp_path: Path) -> None:
    colours = [channel for k in range(256) for channel in (k * 7 % 256, k * 11 % 256, k)]
    for mode, void in itertools.product("LP", (False, True)):
        mask = dense(num_classes, rare=rare, void=void)
        image = palette(mask, colours) if mode == "P" else picture(mask)
        path = saved(tmp_path / f"{mode}{void}.png", image)
        proposal = propose_mask_params(survey_masks([path], ignore=255))
        assert len(proposal.source["classes"]) == num_classes
        assert proposal.source.get("ignore") == (255 if void else None)
        assert ("255 is taken as no label, as 255 in Pascal VOC" in proposal.notes) == void
        assert not any("black and white" in note or "128" in note for note in proposal.notes)
        assert read([path], **proposal.source) == [mask.tolist()]
        if void or num_classes > 2:
            with pytest.raises(LabelError, match=r"which may be one foreground or several|contain 0, 1 and 255"):
                read([path])


def test_ids_of_16_bits_are_not_black_and_white(tmp_path: Path) -> None:
    ids = dense(19, rare=True, void=True).astype(np.uint16)
    path = saved(tmp_path / "m.png", picture(np.where(ids == 255, 65535, ids), "I;16"))
    proposal = propose_mask_params(survey_masks([path], ignore=255)).source
    assert (len(proposal["classes"]), proposal["ignore"]) == (19, 65535)


@pytest.mark.parametrize("quality", [60, 95])
@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("num_classes", [3, 9, 19, 34, 60, 150])
def test_jpeg_of_ids_is_not_black_and_white(num_classes: int, rare: bool, quality: int, tmp_path: Path) -> None:
    jpeg = saved(tmp_path / "m.jpg", picture(dense(num_classes, rare=rare, void=True)), quality=quality)
    with pytest.raises(LabelError, match=r"export (them|the masks) as PNG"):
        propose_mask_params(survey_masks([jpeg], ignore=255))
    copy = saved(tmp_path / "m.png", Image.open(jpeg))
    for path in jpeg, copy:
        with pytest.raises(LabelError, match=r"export them as PNG|which may be one foreground or several"):
            read([path])


UNREADABLE: dict[str, tuple[Make, str]] = {
    "fractions": (lambda p: saved(p / "m.tif", picture([[0, 0.5]], "F")), r"m\.tif: contains the float 0\.5"),
    "more than 32 bits": (
        lambda p: saved(p / "m.tif", picture([[0, 2**31]], "F")),
        r"m\.tif: contains .* 2\.14748e\+09",
    ),
    "not a number": (lambda p: saved(p / "m.tif", picture([[0, np.nan]], "F")), r"contains the float nan"),
    "CMYK": (lambda p: saved(p / "m.tif", Image.new("CMYK", (2, 2))), r"mode CMYK are not supported"),
    "labels in colours and alpha": (
        lambda p: saved(p / "m.png", Image.fromarray(np.array([[[90, 1, 1, 9], [2, 2, 2, 255]]], np.uint8))),
        r"labels both in its colours and in its alpha channel",
    ),
    "labels in colours and alpha, and pixels without": (
        lambda p: saved(p / "m.png", Image.fromarray(np.array([[[1, 1, 1, 9], [0, 2, 2, 25]]], np.uint8))),
        r"labels both in its colours and in its alpha channel",
    ),
    "colours of 16 bits": (lambda p: saved(p / "m.png", png(16, 2, [[1, 2, 3]])), r"16-bit colours are not"),
    "two pages": (
        lambda p: saved(p / "m.tif", picture([[0]]), save_all=True, append_images=[picture([[1]])]),
        r"has 2 pages",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_mask_without_labels_is_named(kind: str, tmp_path: Path) -> None:
    make, match = UNREADABLE[kind]
    with pytest.raises(MaskcastError, match=match):
        read_mask(make(tmp_path))


def test_a_mask_that_the_survey_did_not_meet_is_held_against_the_rule(tmp_path: Path) -> None:
    rest = [saved(tmp_path / f"{k:04d}.png", picture([[0, 255]])) for k in range(3)]
    survey = survey_masks(rest)
    rule = choose_rule(survey, encoding="auto", ignore=None, num_classes=2)
    other = saved(tmp_path / "other.png", picture([[0, 1, 1]]))
    with pytest.raises(
        LabelError, match=r"other\.png: the value 1 \(2 pixels\) is not among those of the set \(0, 255"
    ):
        rule.read(other)
    index = choose_rule(survey_masks([other]), encoding="auto", ignore=None, num_classes=2)
    with pytest.raises(LabelError, match=r"0000\.png: the value 255 \(1 pixel\) is not a class id in 0\.\.1"):
        index.read(rest[0])
    lossy = saved(tmp_path / "lossy.jpg", picture(large([[0, 255]])))
    with pytest.raises(LabelError, match=r"lossy\.jpg: JPEG changes the values"):
        rule.read(lossy)


def test_palettes_of_black_and_white_are_read_by_brightness(tmp_path: Path) -> None:
    one = saved(tmp_path / "0.png", palette([[0, 1]], [0, 0, 0, 255, 255, 255]))
    other = saved(tmp_path / "1.png", palette([[0, 1]], [255, 255, 255, 0, 0, 0]))
    assert read([one, other]) == [[[0, 1]], [[1, 0]]]
    assert read([one, other], encoding="index") == [[[0, 1]], [[0, 1]]]
    three = saved(tmp_path / "2.png", palette([[0, 1, 2]], [0, 0, 0, 255, 255, 255, 255, 0, 0]))
    assert read([one, three], MANY) == [[[0, 1]], [[0, 1, 2]]]  # white is but the colour of class 1


def test_palettes_that_differ_tell_nothing_by_their_indices(tmp_path: Path) -> None:
    red = saved(tmp_path / "0.png", palette([[0, 1]], [0, 0, 0, 128, 0, 0]))
    green = saved(tmp_path / "1.png", palette([[0, 1]], [0, 0, 0, 0, 128, 0]))
    match = r"1\.png: palette index 1 is #008000 here and #800000 in .*0\.png, .* source\.encoding: index, else"
    with pytest.raises(LabelError, match=match):
        read([red, green], MANY)
    rule = FrameFoldersSource(classes=MANY).rule([red], MANY)
    with pytest.raises(LabelError, match=r"1\.png: palette index 1 is #008000 here and #800000 in others"):
        rule.read(green)
    assert read([red, green], MANY, encoding="index") == [[[0, 1]], [[0, 1]]]
    values = {"#000000": "c0", "#800000": "c1", "#008000": "c2"}
    assert read([red, green], MANY, values=values) == [[[0, 1]], [[0, 2]]]


def test_one_foreground_is_any_value_once_it_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "0.png", picture([[0, 255]]))
    rule = choose_rule(survey_masks([path]), encoding="binary", ignore=None, num_classes=2)
    assert rule.read(saved(tmp_path / "1.png", picture([[0, 1]]))).tolist() == [[0, 1]]


def test_ids_in_a_set_of_soft_masks_do_not_become_background(tmp_path: Path) -> None:
    soft = saved(tmp_path / "0.png", picture([[0] * 95 + list(range(20, 240, 20)) + [255] * 95]))
    rule = choose_rule(survey_masks([soft]), encoding="auto", ignore=None, num_classes=2)
    assert rule.read(saved(tmp_path / "empty.png", picture([[0, 0]]))).tolist() == [[0, 0]]
    with pytest.raises(
        LabelError, match=r"ids\.png: no value is above 1, and in this set 128 and more is foreground"
    ):
        rule.read(saved(tmp_path / "ids.png", picture([[0, 1]])))


def test_many_masks_are_looked_at_until_one_has_foreground(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{k:04d}.png", picture([[0, 0]])) for k in range(MAX_READ + 3)]
    saved(paths[1], picture([[0, 255]]))  # none of those that are evenly spread
    assert read(paths)[1] == [[0, 1]]
    assert survey_masks(paths).values == [0, 255]


def test_a_survey_says_what_a_set_holds(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "a.png", picture([[0, 0, 1]])), saved(tmp_path / "b.png", picture([[0, 9, 9]]))]
    survey = survey_masks(paths)
    assert dict(survey.pixels) == {0: 3, 1: 1, 9: 2}
    assert dict(survey.files) == {0: 2, 1: 1, 9: 1}
    assert survey.first_file[9] == paths[1]
    assert str(survey) == "2 masks (8-bit grey), values 0, 1, 9"


PROPOSALS: dict[str, tuple[Make, dict[str, Any]]] = {
    "0/255": (lambda p: saved(p / "m.png", picture([[0, 255]])), {"classes": list(TWO)}),
    "ids and 255": (
        lambda p: saved(p / "m.png", picture([[0, 1, 2, 255]])),
        {"encoding": "index", "classes": ["background", "class 1", "class 2"], "ignore": 255},
    ),
    "far apart": (
        lambda p: saved(p / "m.png", picture([[0, 100, 200]])),
        {
            "classes": ["background", "class 100", "class 200"],
            "values": {"0": "background", "100": "class 100", "200": "class 200"},
        },
    ),
    "colours": (
        lambda p: saved(p / "m.png", Image.fromarray(np.array([[[0, 0, 0], [128, 64, 128]]], np.uint8))),
        {
            "classes": ["background", "class 804080"],
            "values": {"#000000": "background", "#804080": "class 804080"},
        },
    ),
    "JPEG 0/255": (lambda p: saved(p / "m.jpg", picture(large([[0, 255]]))), {"classes": list(TWO)}),
    "16 bits, white": (lambda p: saved(p / "m.png", picture([[0, 65535]], "I;16")), {"classes": list(TWO)}),
    "16 bits, ids and 65535": (
        lambda p: saved(p / "m.png", picture([[0, 1, 2, 65535]], "I;16")),
        {"encoding": "index", "classes": ["background", "class 1", "class 2"], "ignore": 65535},
    ),
    "16 bits, ids with gaps and 65535": (
        lambda p: saved(p / "m.png", picture([[0, 7, 90, 65535]], "I;16")),
        {
            "classes": ["background", "class 7", "class 90"],
            "values": {"0": "background", "7": "class 7", "90": "class 90", "65535": "ignore"},
        },
    ),
    "16 bits, objects and 65535": (
        lambda p: saved(p / "m.png", picture([[0, 0, 0, 0, 0, 1001, 2002, 65535]], "I;16")),
        {"encoding": "binary", "classes": list(TWO), "ignore": 65535},
    ),
    "16 bits, many objects and 65535": (
        lambda p: saved(p / "m.png", picture([[0] * 400, [*range(1, 400), 65535]], "I;16")),
        {"encoding": "binary", "classes": list(TWO), "ignore": 65535},
    ),
    "16 bits, greys": (
        lambda p: saved(p / "m.png", picture([[0, 32768, 65535]], "I;16")),
        {
            "classes": ["background", "class 32768", "class 65535"],
            "values": {"0": "background", "32768": "class 32768", "65535": "class 65535"},
        },
    ),
    "16 bits, soft edges": (
        lambda p: saved(p / "m.png", picture([[0] * 6000, [*range(0, 65400, 218), *[65535] * 5700]], "I;16")),
        {"encoding": "binary", "classes": list(TWO)},
    ),
}


@pytest.mark.parametrize("kind", PROPOSALS)
def test_what_is_proposed_can_read_the_masks(kind: str, tmp_path: Path) -> None:
    make, source = PROPOSALS[kind]
    path = make(tmp_path)
    assert propose_mask_params(survey_masks([path], ignore=255)).source == source
    (ids,) = read([path], **source | {"classes": tuple(source["classes"])})
    assert np.unique(ids).max() >= 1


@pytest.mark.parametrize("on", [1, 255])
def test_a_foreground_that_has_most_pixels_is_asked_about_with_what_swaps_it(on: int, tmp_path: Path) -> None:
    few, most = (saved(tmp_path / f"{n}.png", picture([[0, on, n * on]])) for n in (0, 1))
    assert propose_mask_params(survey_masks([few], ignore=255)).notes == ()
    (note,) = propose_mask_params(survey_masks([most], ignore=255)).notes
    assert f"the foreground, {on}, has 67% of the pixels" in note
    assert note.endswith(f"source.values: {{0: foreground, {on}: background}}")
    (ids,) = read([most], values={"0": "foreground", str(on): "background"}, classes=TWO)
    assert np.mean(ids) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"#80": "foreground"}, "keys must all be numbers, or all be colours"),
        ({"0": "background", "#800000": "foreground"}, "or all be colours"),
        ({"0": "sky"}, "'sky' is not a class; allowed: background, foreground and 'ignore'"),
    ],
)
def test_values_that_name_nothing_are_refused(values: dict[str, str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FrameFoldersSource(values=values)


def test_values_leave_nothing_to_encoding_and_ignore() -> None:
    with pytest.raises(ValueError, match="remove encoding and ignore"):
        FrameFoldersSource(values={"0": "background"}, ignore=255)


def test_webp_without_loss_may_have_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "m.webp"
    for lossless in (True, False):
        picture(np.zeros((8, 8))).convert("RGB").save(path, lossless=lossless, icc_profile=bytes(501))
        assert decode(path).lossy != lossless
