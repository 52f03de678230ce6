"""Bombs and lies that were found by hand: each is said in one line, within the bounds of the other attacks."""

import gzip
import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from tests.attacks.harm import LAUGHS
from tests.attacks.readers import READERS, SIZE
from tests.attacks.sandbox import Sandbox

Spoil = Callable[[Path], object]


def absurd_lengths(folder: Path) -> None:
    """Frames were numbered by their sum, which overflowed: a search among them had no end."""
    columns = np.load(folder / "clips/clips.npy")
    columns[1] = 1 << 63
    np.save(folder / "clips/clips.npy", columns)


def negative_offset(folder: Path) -> None:
    lines = folder / "clips/clips.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b'"start": 0, "size"', b'"start":-9, "size"'))


def stated_size(folder: Path) -> None:
    """The head of a zstd frame says that it holds a terabyte."""
    with (folder / "clips/labels-mask-00000.zst").open("r+b") as file:
        file.write(b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little"))


def unknown_class(folder: Path) -> None:
    masks, index = folder / "clips/masks-00000.zst", folder / "clips/index.json"
    masks.write_bytes(zstandard.compress(np.full((3, *SIZE), 200, np.uint8).tobytes()))
    content = json.loads(index.read_text())
    content["clips"][0]["masks"]["size"] = masks.stat().st_size
    index.write_text(json.dumps(content))


def long_head(folder: Path) -> None:
    """A member's name of 600 MB, packed into 600 KB."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 600 << 20
    with gzip.open(folder / "data.tar.gz", "wb", 1) as file:
        file.write(head.tobuf())
        for _ in range(600):
            file.write(bytes(1 << 20))


def names_in_a_zip(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        with zipfile.ZipFile(folder / "data.zip", "w") as file:
            for name in names:
                file.writestr(name, b"x")

    return spoil


def text_bomb(folder: Path) -> None:
    """A note of 200 MB in a picture."""
    data = b"Comment\0\0" + zlib.compress(bytes(200 << 20))
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    png = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(png[:33] + chunk + png[33:])


def a_pipe(folder: Path) -> None:
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")


def far_polygon(folder: Path) -> None:
    truth = json.loads((folder / "gt.json").read_text())
    truth["annotations"][0]["segmentation"] = [[1e308, -1e308] * 4]
    (folder / "gt.json").write_text(json.dumps(truth))


def written(place: str, text: str) -> Spoil:
    return lambda folder: (folder / place).write_text(text)


CASES: dict[str, tuple[str, Spoil, str]] = {
    "absurd lengths": ("clip store", absurd_lengths, "invalid clip lengths"),
    "a negative offset": ("clip store", negative_offset, "greater than or equal to 0"),
    "a frame of zstd that says a terabyte": ("clip store", stated_size, "a chunk does not hold"),
    "a class that there is not": ("clip store of format 1", unknown_class, "class id 200 among 3 classes"),
    "10^9 frames": ("raw competition", written("raw/train/annotations.txt", "video_5 0 999999999 0 \n"), ""),
    "a number of 5000 digits": ("raw competition", written("raw/train/annotations.txt", f"video_5 0 {'9' * 5000} 0"), "line 1"),
    "a head of 600 MB": ("archives", long_head, "damaged"),
    "a name that is too long": ("archives", names_in_a_zip("x" * 300), "cannot be written"),
    "a file where a folder must be": ("archives", names_in_a_zip("a", "a/b"), "a file in one place and a folder in another"),
    "a note of 200 MB": ("images", text_bomb, "a.png"),
    "a pipe named as an image": ("images", a_pipe, "a pipe or device"),
    "a polygon at 1e308": ("COCO files", far_polygon, "far outside"),
    "aliases of aliases": ("params", written("params.yaml", LAUGHS), "aliases expand to more than"),
    "a date that is none": ("params", written("params.yaml", "evaluate: 2001-99-99"), "not valid YAML"),
    "a hexadecimal number of 5000 digits": ("params", written("params.yaml", f"prepare_clips: 0x{'f' * 5000}"), "must map"),
    "deep nesting": ("cluster file", written("cluster.yaml", "[" * 3000), "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_in_one_line(case: str, tmp_path: Path, sandbox: Sandbox) -> None:
    name, spoil, says = CASES[case]
    READERS[name].write(tmp_path)
    spoil(tmp_path)
    READERS[name].agree(tmp_path)
    outcome = sandbox.run(name, tmp_path)
    shutil.rmtree(tmp_path)
    assert outcome.ended == ("refused" if says else "read"), outcome
    assert says in outcome.said
