"""Frames as people save them: turned as they are seen, scaled by the depth that they declare, or refused."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from maskcast.data.decoding import upright_size
from maskcast.data.frame_names import by_stem, frame_files
from maskcast.data.images import Size, have_one_aspect, read_frames, read_image
from maskcast.errors import MaskcastError

RED, BLUE = (200, 0, 0), (0, 0, 200)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    depth: int, colour_type: int, rows: list[list[int]], *extra: bytes, size: tuple[int, int] | None = None
) -> bytes:
    """Returns a PNG of any depth: samples of a row in order; `size` is what it says, if not what it holds."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    bits = ["".join(f"{sample:0{depth}b}" for sample in row) for row in rows]
    packed = [
        int(row.ljust(-len(row) % 8 + len(row), "0"), 2).to_bytes((len(row) + 7) // 8, "big") for row in bits
    ]
    width, height = size or (len(rows[0]) // channels, len(rows))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in packed))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(extra)
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


def grey(values: Any, dtype: Any = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(values, dtype))


def saved(path: Path, image: Image.Image | bytes, **options: Any) -> Path:
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, [[1, 2], [3, 4], [5, 6]]),
        (2, [[2, 1], [4, 3], [6, 5]]),
        (3, [[6, 5], [4, 3], [2, 1]]),
        (4, [[5, 6], [3, 4], [1, 2]]),
        (5, [[1, 3, 5], [2, 4, 6]]),
        (6, [[5, 3, 1], [6, 4, 2]]),
        (7, [[6, 4, 2], [5, 3, 1]]),
        (8, [[2, 4, 6], [1, 3, 5]]),
    ],
)
def test_images_are_turned_as_exif_says(
    ending: str, orientation: int, seen: list[list[int]], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.kron(np.array([[1, 2], [3, 4], [5, 6]]) * 40, np.ones((16, 16))).astype(np.uint8)
    path = tmp_path / f"photo.{ending}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(ending, {})
    Image.fromarray(pixels).convert("RGB").save(path, exif=exif, **options)
    found = read_image(path)
    assert np.rint(found[8::16, 8::16, 1] / 40).astype(int).tolist() == seen


def test_a_clip_without_images_is_said() -> None:
    with pytest.raises(MaskcastError, match="a clip without images; give the paths"):
        read_frames([])


KINDS: dict[str, tuple[Callable[[Path], Path], list[int]]] = {
    "one bit": (lambda p: saved(p / "f.png", grey([[0, 255]]).convert("1")), [0, 255]),
    "grey of 4 bits": (lambda p: saved(p / "f.png", png(4, 0, [[0, 5, 15]])), [0, 85, 255]),
    "16 bits": (lambda p: saved(p / "f.png", grey([[0, 257, 32896, 65535]], np.uint16)), [0, 1, 128, 255]),
    "16 bits, TIFF": (lambda p: saved(p / "f.tif", grey([[0, 257, 65535]], np.uint16)), [0, 1, 255]),
    "12 bits that TIFF declares": (
        lambda p: saved(p / "f.tif", grey([[0, 2048, 4095]], np.uint16), tiffinfo={281: 4095}),
        [0, 128, 255],
    ),
    "16 bits, RGB": (lambda p: saved(p / "f.png", png(16, 2, [[257, 514, 771, 65535, 0, 0]])), [2, 0]),
    "16 bits, grey and alpha": (lambda p: saved(p / "f.png", png(16, 4, [[65535, 0, 257, 9]])), [255, 1]),
    "floats from 0 to 1": (lambda p: saved(p / "f.tif", grey([[0, 0.5, 1]], np.float32)), [0, 128, 255]),
    "grey and alpha": (lambda p: saved(p / "f.png", grey([[7, 9]]).convert("LA")), [7, 9]),
    "alpha is dropped": (lambda p: saved(p / "f.png", Image.new("RGBA", (1, 1), (9, 8, 7, 0))), [8]),
    "CMYK": (lambda p: saved(p / "f.jpg", Image.new("CMYK", (1, 1), (0, 255, 0, 0)), quality=100), [0]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_image_becomes_8_bits(kind: str, tmp_path: Path) -> None:
    make, green = KINDS[kind]
    found = read_image(make(tmp_path))
    assert found.dtype == np.uint8
    assert found[0, :, 1].tolist() == green


def test_colours_of_a_palette_and_of_16_bits_keep_their_order(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([*RED, *BLUE])
    assert read_image(saved(tmp_path / "p.png", image, transparency=bytes([0, 255])))[0].tolist() == [
        list(RED),
        list(BLUE),
    ]
    deep = png(16, 2, [[200 * 257, 0, 0, 0, 0, 200 * 257]])
    assert read_image(saved(tmp_path / "d.png", deep))[0].tolist() == [list(RED), list(BLUE)]
    cv2.imwrite(str(tmp_path / "d.tif"), np.array([[BLUE, RED]], np.uint16) * 257)  # OpenCV writes BGR
    assert read_image(tmp_path / "d.tif")[0].tolist() == [list(RED), list(BLUE)]


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_the_size_in_the_head_of_a_file_is_that_of_its_picture(ending: str, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    path = saved(tmp_path / f"a.{ending}", Image.new("RGB", (30, 20)), exif=turned)
    assert upright_size(path) == read_image(path).shape[:2] == (30, 20)


def test_a_photo_of_a_phone_with_a_preview_is_one_picture(tmp_path: Path) -> None:
    first, preview = Image.new("RGB", (16, 8), RED), Image.new("RGB", (4, 2), BLUE)
    first.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[preview])
    assert read_image(tmp_path / "photo.jpg").shape == (8, 16, 3)


def test_smaller_copies_within_a_tiff_are_no_pages(tmp_path: Path) -> None:
    small = grey([[1]])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    saved(tmp_path / "f.tif", grey([[5, 6]]), save_all=True, append_images=[small])
    assert read_image(tmp_path / "f.tif")[0, :, 0].tolist() == [5, 6]


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "12 bits in 16": (lambda p: saved(p / "f.png", grey([[0, 4095]], np.uint16)), "no value is above 4095"),
    "32 bits": (lambda p: saved(p / "f.tif", grey([[0, 9]], np.int32)), "integers of 32 bits"),
    "floats up to 255": (lambda p: saved(p / "f.tif", grey([[0, 255]], np.float32)), "floats from 0 to 255"),
    "no number": (lambda p: saved(p / "f.tif", grey([[0, np.nan]], np.float32)), "floats from .*nan"),
    "16 bits, white is zero": (
        lambda p: saved(p / "f.tif", grey([[0, 65535]], np.uint16), tiffinfo={262: 0}),
        "TIFF of 16 bits with white as 0 is not supported",
    ),
    "two pages": (
        lambda p: saved(p / "f.tif", grey([[0]]), save_all=True, append_images=[grey([[1]])]),
        "has 2 pages",
    ),
    "animated PNG": (
        lambda p: saved(p / "f.png", grey([[0]]), save_all=True, append_images=[grey([[1]])]),
        "has 2 pages or animation frames",
    ),
    "animated WebP": (
        lambda p: saved(
            p / "f.webp", Image.new("RGB", (9, 9)), save_all=True, append_images=[Image.new("RGB", (9, 9), RED)]
        ),
        "has 2 pages or animation frames",
    ),
    "a video's name": (lambda p: saved(p / "f.png", b"\0\0\0\x18ftypmp42"), "not a readable image"),
    "empty": (lambda p: saved(p / "f.png", b""), "not a readable image"),
    "too many pixels": (
        lambda p: saved(p / "f.png", png(1, 0, [[0]], size=(40000, 40000))),
        "more than 178956970",
    ),
    "a text that unpacks to gigabytes": (
        lambda p: saved(p / "f.png", png(8, 0, [[1]], chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 2**21)))),
        "too large",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_without_a_guess_is_one_line_with_the_file(kind: str, tmp_path: Path) -> None:
    make, match = REFUSED[kind]
    path = make(tmp_path)
    with pytest.raises(MaskcastError, match=match) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "bmp"])
def test_files_that_are_cut_short_are_named(ending: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    path = saved(tmp_path / f"f.{ending}", Image.fromarray(noise))
    whole = path.read_bytes()
    for size in (len(whole) * 3 // 4, len(whole) // 2, 30, 3):
        path.write_bytes(whole[:size])
        with pytest.raises(MaskcastError, match=rf"f\.{ending}: .*copy it again"):
            read_image(path)


def test_dark_frames_of_16_bits_are_read_beside_bright_ones(tmp_path: Path) -> None:
    dark = saved(tmp_path / "0.png", grey([[0, 514]], np.uint16))
    bright = saved(tmp_path / "1.png", grey([[0, 65535]], np.uint16))
    assert read_frames([dark, bright])[:, 0, 1, 0].tolist() == [2, 255]
    with pytest.raises(MaskcastError, match="no value is above 514"):
        read_frames([dark, dark])


@pytest.mark.parametrize("names", [("image_0.PNG", "image_0.jpg"), ("1.png", "001.png"), ("A.png", "a.PNG")])
def test_two_encodings_of_one_frame_are_said(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    with pytest.raises(MaskcastError, match=f"has the same name as ({'|'.join(names)}); remove one"):
        frame_files(tmp_path)
    with pytest.raises(MaskcastError, match="has the same name as"):
        by_stem(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ((1080, 1920), (480, 854), True),  # to the nearest pixel, either way
        ((480, 854), (1080, 1920), True),
        ((247, 138), (1920, 1080), True),  # down: 0.1287 times the size is 247.1 x 138.996
        ((360, 640), (480, 854), True),  # both are rounded
        ((1088, 1920), (480, 854), False),  # padded
        ((478, 640), (480, 640), False),  # cropped
        ((640, 480), (480, 640), False),  # rotated
        ((4, 6), (4, 7), False),  # too small to tell
    ],
)
def test_two_sizes_have_one_aspect_ratio_up_to_rounding_of_the_smaller(
    one: Size, other: Size, alike: bool
) -> None:
    assert have_one_aspect(one, other) == alike


def test_clips_of_multiples_of_8_have_the_aspect_ratio_of_their_frames() -> None:
    for height in range(320, 2200, 7):
        frame, small = (height, 16 * height / 9), tuple(8 * round(side / 40) for side in (height, 16 * height / 9))
        assert have_one_aspect(frame, small, 4) and have_one_aspect(small, frame, 4), (frame, small)
