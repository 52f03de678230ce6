"""Lists of hand images with their boxes, and tables of mask ids: `.jsonl`, `.json`, or `.pt` of PyTorch.

A `.pt` is loaded like weights: only numbers, text, lists and arrays. Pickles that would run code are refused.

    {"img_path": "./data/InterHand2.6M/images/a.jpg", "bbox": [x, y, w, h], "hand_type": "interacting"}
"""

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maskcast.errors import MaskcastError
from maskcast.labels import LabelError
from maskcast.reading import open_file, parsing, read_json, short_repr

HAND_TYPES = ("left", "right", "interacting")
KIND, REMEDY = "list", "fix source.lists or source.ids"
CONVERTER = "python recipes/hands/list_to_jsonl.py"


class Sample(NamedTuple):
    """An entry of a list: an image of hands.

    Attributes:
        path: path of the image, which is its key in the LMDB.
        box: x, y, width and height in pixels; may reach beyond the image.
        hands: one of `HAND_TYPES`.
        mask: prefix of the keys of its masks; empty without masks.
    """

    path: str
    box: tuple[float, float, float, float]
    hands: str
    mask: str


def read_list(path: Path) -> Iterator[Sample | tuple[str, str]]:
    """Yields the samples of a list; for an unusable entry, its path and the reason instead.

    Raises:
        MaskcastError: if the list does not exist, is damaged, would run code, or is no list of images.
    """
    for number, entry in enumerate(_entries(path)):
        where = f"{path}: entry {number}"
        with parsing(where, "an image of hands", "fix the list"):
            sample = _sample(where, entry)
        yield sample


def _sample(where: str, entry: Any) -> Sample | tuple[str, str]:
    missing = {"img_path", "bbox", "hand_type"} - set(entry) if isinstance(entry, Mapping) else {"img_path"}
    if missing or not isinstance(entry["img_path"], str):
        raise LabelError(
            f"{where}: {min(missing, default='img_path')} is missing; required: img_path, bbox, hand_type"
        )
    if entry["hand_type"] not in HAND_TYPES:
        raise LabelError(f"{where}: hand_type {short_repr(entry['hand_type'])}; allowed: {', '.join(HAND_TYPES)}")
    name = entry["img_path"].removeprefix("./")
    try:
        x, y, width, height = (float(value) for value in entry["bbox"])
    except (TypeError, ValueError, OverflowError):
        return name, f"{where}: bbox {short_repr(entry['bbox'])} is not x, y, width, height; fix the list"
    if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) <= 0:
        return name, f"{where}: bbox {[x, y, width, height]} has no size; fix the list"
    return Sample(name, (x, y, width, height), entry["hand_type"], "")


def read_ids(path: Path) -> dict[str, str]:
    """Returns the table from image path to mask id.

    Raises:
        MaskcastError: see `read_list`.
    """
    table = _load(path)
    if not isinstance(table, Mapping) or not all(isinstance(key, str) for key in table):
        raise LabelError(f"{path}: not a table of ids by path; give the path2id file of the split (source.ids)")
    with parsing(path, "a table of ids by path", REMEDY):
        return {key: str(value) for key, value in table.items()}


def _entries(path: Path) -> Iterator[Any]:
    if path.suffix == ".jsonl":
        with open_file(path, KIND, REMEDY) as file:
            for number, line in enumerate(file, 1):
                with parsing(f"{path}: line {number}", "valid JSON", "write the list again"):
                    entry = json.loads(line)
                yield entry
        return
    entries = _load(path)
    if not isinstance(entries, list | tuple):
        raise LabelError(f"{path}: expected a list of images, got {type(entries).__name__}; give a datalist file")
    yield from entries


def _load(path: Path) -> Any:
    return load_pt(path) if path.suffix == ".pt" else read_json(path, KIND, REMEDY)


def load_pt(path: Path) -> Any:
    """Returns the content of a `.pt` file, restricted to the types of weights and to arrays of numbers."""
    with open_file(path, KIND, REMEDY):
        pass  # reports a missing file even without PyTorch
    try:
        import torch
    except ModuleNotFoundError:
        raise MaskcastError(
            f"{path}: reading .pt needs PyTorch (pip install 'maskcast[train]'); or give the list as .jsonl, "
            f"written by {CONVERTER}"
        ) from None
    import numpy as np
    from numpy._core import multiarray

    numbers = [type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8", "u1", "?")]
    named = [
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")  # module names in NumPy 1 and 2
        for name in ("_reconstruct", "scalar")
    ]
    with open_file(path, KIND, REMEDY) as file, parsing(path, "a list that can be read", "copy it again"):
        try:
            with torch.serialization.safe_globals([np.ndarray, np.dtype, *numbers, *named]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), "not a list")
            raise LabelError(
                f"{path}: loading it could run code ({reason.strip()[:120]}); if you trust its origin, write it "
                f"as JSON lines: {CONVERTER} --trust {path} {path.stem}.jsonl, and name that"
            ) from None
