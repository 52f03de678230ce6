"""Recognises photographs: images that are not frames of a video, so that forecasts are impossible."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise, permutations, takewhile
from pathlib import Path

import cv2
import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.decoding import upright_size
from maskcast.data.frame_names import name_pattern, original_name
from maskcast.data.images import read_image
from maskcast.data.sources.patterns import CLIP, FRAME
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.errors import MaskcastError
from maskcast.progress import track

SEQUENCES, PAIRS = 20, 200  # number of sequences, and of neighbouring frames in total, whose sizes are compared
# number of sequences, and of neighbouring frames in each, whose pixels are compared
MAX_COMPARED, MAX_NEIGHBOURS = 8, 12
# of the difference of distant images; for neighbours DAVIS and CamVid have 0.1 to 0.3, photographs 1
MIN_RATIO = 0.9
STATIC = 8.0  # grey levels; below this the scene is static, and differences are noise
PROJECT_REASON = "the project is of the pipeline photographs"  # frames of a video may be such, too
MAX_DAMAGED_CHANGES = 4  # changes of size that damaged frames of a video may cause: two each


def photographs_reason(footage: Mapping[str, SequenceFiles]) -> str:
    """Returns why images are photographs; empty for videos and possible video frames."""
    images = [one.frames.images for one in footage.values() if one.frames.images]
    if not images or len(images) < len(footage):
        return ""
    if all(len(files) == 1 for files in images):
        return "no two images belong together"
    named = [
        pair for files in images for pair in pairwise(name_pattern(original_name(path.stem)) for path in files)
    ]
    if 2 * sum(before != after for before, after in named) > len(named):
        return "their names have no running number"
    chosen = [images[number] for number in evenly_spaced(len(images), SEQUENCES)]
    most = PAIRS // len(chosen)
    pairs = [pair for files in chosen for pair in pairwise(files[: most + 1])]
    changes = 0
    for pair in track(pairs, "comparing sizes", len(pairs)):
        with suppress(MaskcastError):  # reported where the files are read
            changes += len({upright_size(path) for path in pair}) > 1
    if changes > min(MAX_DAMAGED_CHANGES, len(pairs) // 2) and 10 * changes > len(pairs):
        return "sizes change from image to image"
    return "neighbouring images are no more alike than distant ones" if _neighbours_differ(chosen) else ""


def _neighbours_differ(sequences: Sequence[Sequence[Path]]) -> bool:
    """Whether neighbouring images differ as much as distant images of a sequence."""
    near: list[float] = []
    far: list[float] = []
    for files in track(sequences[:MAX_COMPARED], "comparing images", len(sequences[:MAX_COMPARED])):
        places = evenly_spaced(len(files) - 1, MAX_NEIGHBOURS)
        with suppress(MaskcastError):
            pairs = [(thumbnail(read_image(files[k])), thumbnail(read_image(files[k + 1]))) for k in places]
            near += [difference(before, after) for before, after in pairs]
            far += [difference(one[0], other[1]) for one, other in permutations(pairs, 2)]
    if not far:
        return False
    usual = float(np.median(near))
    return usual > STATIC and usual > MIN_RATIO * float(np.median(far))


def thumbnail(image_HWC: np.ndarray) -> np.ndarray:
    """Returns an image of 16 x 16 pixels, float32."""
    return cv2.resize(image_HWC, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean difference of two thumbnails in grey levels."""
    return float(np.abs(one - other).mean())


def patterns_in_one_folder(raw: Path, one: SequenceFiles) -> tuple[str, str] | None:
    """Returns patterns of photographs, each a sequence, and of their masks; None if their names allow none.

    Args:
        raw: folder of the data.
        one: the photographs, all in one folder, and their masks, which may have other texts behind their names.
    """
    pairs = [(one.frames.images[k], mask) for k, mask in one.masked.items()]
    shared = [
        len([*takewhile(lambda both: both[0] == both[1], zip(frame.stem, mask.stem, strict=False))])
        for frame, mask in pairs
    ]
    patterns = [
        {
            (path.parent / f"{CLIP}{path.stem[length:]}{path.suffix}")
            for path, length in zip(paths, shared, strict=True)
        }
        for paths in zip(*pairs, strict=True)
    ]
    if not all(shared) or [len(each) for each in patterns] != [1, 1]:
        return None
    (images,), (masks,) = patterns
    tail = images.name.removeprefix(CLIP)
    if any(path.parent != images.parent or not path.name.endswith(tail) for path in one.frames.images):
        return None
    return images.relative_to(raw).as_posix(), masks.relative_to(raw).as_posix()


def one_sequence_per_image(pattern: str) -> str:
    """Returns a pattern in which each image is a sequence, made from one that names frames."""
    pattern = pattern if CLIP in pattern else pattern.replace(FRAME, CLIP)
    return re.sub(r"\{clip\}([_.-]| \()\{frame\}\)?", CLIP, pattern)
