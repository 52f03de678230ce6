"""What the commands need that show frames with a masker's masks: the masker, its mask of a frame, and the page.

Legend: H height, W width, C = 3 channels (RGB), uint8.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.inference.segment import segment_whole
from maskcast.inference.worker import Worker
from maskcast.markup import Html, concatenate, element, table
from maskcast.models.base import best_device
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.table import load_masker
from maskcast.report.clip_player import legend
from maskcast.report.page import document
from maskcast.report.paint import Entry

LIST, PAGE = "frames.csv", "frames.html"
BATCH, PRECISION = 16, "bf16"  # as in generate_masks
MAX_NAMED = 3  # number of classes named below a picture


def load_masker_of(store: ClipStore, folder: Path) -> Segmenter:
    """Returns a masker of a store's chosen map, on the best device.

    Raises:
        MaskcastError: the masker does not have this map, or it is not of classes.
    """
    masker, _ = load_masker(folder)
    if store.label_map not in masker.maps or store.label_map.kind != "classes":
        raise MaskcastError(
            f"{folder}: has no map {store.label_map.name!r} with the classes of {store.root}; use a masker that "
            "was trained on these classes"
        )
    return masker.to(best_device())


def mask_frame(store: ClipStore, worker: Worker, clip_id: str, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mask of a frame, (H, W) uint8 class ids, and its confidence."""
    frames_THWC = store.frames(store.get(clip_id))
    seen_THWC = frames_THWC[: t + 1] if worker.segmenter.stateful else frames_THWC[t : t + 1]
    prediction = segment_whole(worker, seen_THWC, batch_size=BATCH)[store.label_map.name]
    assert prediction.confidence is not None
    return prediction.masks[-1], prediction.confidence[-1]


def frames_page(
    title: str,
    lead: str,
    keys: Mapping[str, Sequence[Entry]],
    frames: Iterable[Html],
    how: str,
    facts: Mapping[str, object],
) -> str:
    """Returns a page of frames, with legends, and of how they were found.

    Args:
        title: heading.
        lead: what is shown.
        keys: names and colours of each legend, by what they stand for.
        frames: figures of the frames.
        how: caption of the table of facts.
        facts: settings and results, by name.
    """
    settings = table(how, ["fact", "value"], [[name, str(value)] for name, value in facts.items()])
    titles = {f"Colours of {name}": key for name, key in keys.items() if key}
    legends = [part for title, key in titles.items() for part in (element("p", f"{title}:"), legend(key, title))]
    shown = concatenate([element("p", lead), *legends, *frames])
    return document(title, {"Frames": shown, "How": element("div", settings, class_="facts")})
