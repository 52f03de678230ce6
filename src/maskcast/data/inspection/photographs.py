"""Photographs: images that are no frames of a video, so that nothing can be forecast from them."""

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from maskcast.data.clip_index import evenly_spaced
from maskcast.data.decoding import upright_size
from maskcast.data.frame_names import skeleton
from maskcast.data.sources.footage import Footage
from maskcast.data.sources.patterns import CLIP, FRAME
from maskcast.errors import MaskcastError
from maskcast.progress import track

SEQUENCES, PAIRS = 20, 200  # sequences, and neighbours of all of them, whose sizes are compared
FEW = 4  # changes of size that damaged frames of a video may make: two to each


def photographs(footage: Mapping[str, Footage]) -> str:
    """Returns why images are photographs; empty where they may be frames of videos, or are videos."""
    images = [one.images for one in footage.values() if not isinstance(one.images, Path)]
    if not images or len(images) < len(footage):
        return ""
    if all(len(files) == 1 for files in images):
        return "no two images belong together"
    named = [pair for files in images for pair in pairwise(skeleton(_name(path)) for path in files)]
    if 2 * sum(before != after for before, after in named) > len(named):
        return "their names have no running number"
    chosen = [images[number] for number in evenly_spaced(len(images), SEQUENCES)]
    most = PAIRS // len(chosen)
    pairs = [pair for files in chosen for pair in pairwise(files[: most + 1])]
    changes = 0
    for pair in track(pairs, "comparing sizes", len(pairs)):
        with suppress(MaskcastError):  # who reads them will say what is wrong
            changes += len({upright_size(path) for path in pair}) > 1
    many = changes > min(FEW, len(pairs) // 2) and 10 * changes > len(pairs)
    return "sizes change from image to image" if many else ""


def _name(path: Path) -> str:
    return path.stem.partition(".rf.")[0]  # Roboflow puts a digest behind it


def by_image(pattern: str) -> str:
    """Returns a pattern under which each image is a sequence of its own, of one that names frames."""
    return re.sub(r"\{clip\}[-_]\{frame\}", CLIP, pattern if CLIP in pattern else pattern.replace(FRAME, CLIP))
