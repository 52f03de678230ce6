"""Measures size, bit depth, orientation and transparency of frames, from the first frame of some sequences."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.decoding import decode
from maskcast.data.inspection.findings import Findings
from maskcast.data.sources.patterns import SequencePaths
from maskcast.data.video_files.frames import read_video
from maskcast.errors import MaskcastError
from maskcast.progress import track
from maskcast.reading import pluralize

MAX_MEASURED = 20  # sequences whose first frame is read


def measure_frames(found: Findings, images: Mapping[str, SequencePaths]) -> None:
    """Adds sizes, bit depth, and what is done about orientation and transparency."""
    names = list(images)
    depths: Counter[int] = Counter()
    turned = transparent = 0
    for number in track(evenly_spaced(len(names), MAX_MEASURED), "measuring frames"):
        files = images[names[number]]
        try:
            if files.video is not None:
                found.sizes[read_video(files.video, [0]).shape[1:3]] += 1
                continue
            first = next(iter(files.by_name().values()))
            decoded = decode(first)
        except (MaskcastError, StopIteration):
            continue
        size = decoded.upright(np.empty((decoded.image.height, decoded.image.width), bool)).shape
        found.sizes[size[0], size[1]] += 1
        depths[decoded.depth] += 1
        turned += decoded.orientation != 1
        transparent += decoded.alpha() is not None
    if deep := [depth for depth in depths if depth > 8]:
        found.rows.append(("depth", f"{max(deep)} bits: frames are scaled to 8"))
    if turned:
        found.rows.append(("orientation", f"{pluralize(turned, 'sequence', 'is', 'are')} rotated as EXIF says"))
    if transparent:
        found.warnings.append(
            f"{pluralize(transparent, 'sequence', 'has', 'have')} frames with transparent pixels, whose alpha "
            "channel is dropped: if it holds masks or mattes, save it as grey PNGs with the names of the frames"
        )
