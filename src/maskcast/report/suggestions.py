"""Suggests frames to label next: writes a list for `labels export`, and a page of pictures.

Legend: K classes, H height, W width, C = 3 channels (RGB), uint8.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from maskcast.data.clip_store.reader import ClipStore
from maskcast.inference.suggestions import Candidates, choose, find_candidates
from maskcast.inference.worker import Worker
from maskcast.markup import Html, data_uri, element
from maskcast.params import Params
from maskcast.progress import say
from maskcast.report.masker_frames import (
    BATCH,
    LIST,
    MAX_NAMED,
    PAGE,
    PRECISION,
    frames_page,
    load_masker_of,
    mask_frame,
)
from maskcast.report.overlays import overlay, png_bytes, resize_picture
from maskcast.report.paint import class_entries
from maskcast.report.tables import write_csv

PICTURE_WIDTH = 320  # minimum width in pixels


class Suggest(Params):
    """How frames are chosen."""

    method: Literal["class-uncertainty", "foreground-random", "random"]
    """See docs/labels.md."""
    budget: int = Field(ge=1)
    """Frames to choose."""
    spacing: int = Field(ge=1)
    """Minimum distance between two frames of a video, chosen or labelled."""
    seed: int = Field(ge=0)
    """Of the draws."""


def suggest(folder: Path, store: ClipStore, masker: Path, params: Suggest) -> int:
    """Writes ``frames.csv`` and ``frames.html`` into a new folder; returns the number of frames.

    Raises:
        MaskcastError: the masker does not have the store's map, or every frame has labels.
    """
    model = load_masker_of(store, masker)
    candidates = find_candidates(store, model, batch_size=BATCH, precision=PRECISION)
    chosen = choose(candidates, params.method, budget=params.budget, spacing=params.spacing, seed=params.seed)
    if len(chosen) < params.budget:
        say(
            f"{len(chosen)} of {params.budget} frames (--budget): no other frame is at least "
            f"{params.spacing} (--spacing) away from these and from labelled frames"
        )
    folder.mkdir()
    header = ["clip", "frame", "doubted_pixels", "most_doubted"]
    write_csv(folder / LIST, header, [_row(candidates, n, store.classes) for n in chosen])
    worker = Worker(model, PRECISION)
    drawn = [_figure(store, worker, candidates, n) for n in chosen]
    lead = (
        f"In the order of choice, each frame with the masker's mask. Frames count from 0, as in {LIST}; px is the "
        "expected number of wrong pixels of a class."
    )
    facts = {"clips": store.root, "masker": masker, "candidates": len(candidates)} | params.model_dump()
    keys = {"classes": class_entries([ids for _, ids in drawn], store.classes)}
    figures = element("div", *(figure for figure, _ in drawn), class_="charts")
    page = frames_page("Frames to label next", lead, keys, [figures], "How they were chosen", facts)
    (folder / PAGE).write_text(page, encoding="utf-8")
    return len(chosen)


def _row(candidates: Candidates, n: int, classes: tuple[str, ...]) -> list[object]:
    clip, t = candidates.clip_ids[candidates.clip_N[n]], int(candidates.frame_N[n])
    class_names = "; ".join(name for name, _ in _uncertain_classes(candidates, n, classes))
    return [clip, t, f"{candidates.uncertainty_NK[n, 1:].sum():.1f}", class_names]


def _uncertain_classes(candidates: Candidates, n: int, classes: tuple[str, ...]) -> list[tuple[str, float]]:
    """Returns the most uncertain classes of a frame, with their expected numbers of wrong pixels."""
    uncertain_K = candidates.uncertainty_NK[n]
    order = np.argsort(-uncertain_K[1:], kind="stable")[:MAX_NAMED] + 1
    return [(classes[k], float(uncertain_K[k])) for k in order if uncertain_K[k] > 0]


def _figure(store: ClipStore, worker: Worker, candidates: Candidates, n: int) -> tuple[Html, np.ndarray]:
    """Returns a figure of a frame under the masker's mask with the uncertain classes, and the ids in the mask."""
    clip, t = candidates.clip_ids[candidates.clip_N[n]], int(candidates.frame_N[n])
    mask_HW, _ = mask_frame(store, worker, clip, t)
    picture_HWC = overlay(store.frames(store.get(clip))[t], mask_HW)
    scale = max(1, -(-PICTURE_WIDTH // picture_HWC.shape[1]))
    image = resize_picture(picture_HWC, scale * picture_HWC.shape[1], scale * picture_HWC.shape[0])
    classes_text = ", ".join(
        f"{name} ({pixels:.0f} px)" for name, pixels in _uncertain_classes(candidates, n, store.classes)
    )
    text = f"{clip}, frame {t}" + (f": uncertain about {classes_text}" if classes_text else "")
    image_uri = data_uri(png_bytes(image), "image/png")
    figure = element(
        "figure", element("img", alt=f"{clip}, frame {t}", src=image_uri), element("figcaption", text)
    )
    return figure, np.unique(mask_HW)
