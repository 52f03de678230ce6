"""Ranks labelled frames by how confidently a masker contradicts their labels: a list, and a page of pictures.

Legend: H height, W width.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.inference.label_review import LabelIssue, Review, doubted_pixels, review_labels
from maskcast.inference.worker import Worker
from maskcast.labels import IGNORE
from maskcast.markup import Html, figure
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
from maskcast.report.overlays import Row, error_map, grid, overlay, png_bytes
from maskcast.report.paint import ERRORS, class_entries
from maskcast.report.tables import write_csv

PICTURES = ("frame", "label", "masker", "contradicted")
WIDTHS = (240, 320)  # of a picture, in pixels
LEAD = (
    "The most suspicious first: frame, label, the masker's mask, and the labelled pixels that the masker "
    f"contradicts confidently. Frames count from 0, as in {LIST}. The score is the expected share of wrong "
    "pixels of the objects; px is the expected number of wrong pixels by the classes of label and masker. A "
    "masker may be wrong, too: look before you correct."
)


class ReviewLabels(Params):
    """Which labels are reviewed."""

    split: Literal["train", "val", "test"]
    """Split of the clips."""
    budget: int = Field(ge=1)
    """Frames to list."""


def review(folder: Path, store: ClipStore, masker: Path, params: ReviewLabels) -> int:
    """Writes ``frames.csv`` and ``frames.html`` into a new folder; returns the number of frames.

    Raises:
        MaskcastError: the masker does not have the store's map, or the split has no labels.
    """
    segmenter = load_masker_of(store, masker)
    labelled = store.of(store.label_map.name).select(params.split, "labelled")
    clips = [clip for clip in labelled if clip.has_frames]
    if not clips:
        raise MaskcastError(
            f"{store.root}: clips of split {params.split!r} have no frames; prepare them with frames"
        )
    result = review_labels(store, segmenter, clips, batch_size=BATCH, precision=PRECISION)
    shown = result.issues[: params.budget]
    if params.split == "train":
        say(
            "warning: a masker agrees with mistakes that it was trained on; to find those of split train, review "
            "it with a masker that was trained on other clips"
        )
    folder.mkdir()
    header = ["clip", "frame", "score", "wrong_pixels", "label_and_masker"]
    rows = [
        [one.clip_id, one.t, f"{one.score:.4f}", f"{one.pixels:.1f}", "; ".join(_confused(one, store.classes))]
        for one in shown
    ]
    write_csv(folder / LIST, header, rows)
    worker = Worker(segmenter, PRECISION)
    drawn = [_figure(store, worker, result, one) for one in shown]
    lead = LEAD if drawn else "The masker contradicts no label confidently."
    facts = {"clips": store.root, "masker": masker, "labelled frames": result.num_frames} | params.model_dump()
    facts |= {
        f"confident of {name} from": f"{threshold:.3f}" if threshold <= 1 else "never"
        for name, threshold in zip(store.classes, result.thresholds_K.tolist(), strict=True)
    }
    keys = {}
    if drawn:
        keys = {"classes": class_entries([ids for _, ids in drawn], store.classes), "errors": ERRORS}
    figures = [figure for figure, _ in drawn]
    page = frames_page("Labels to review", lead, keys, figures, "How they were found", facts)
    (folder / PAGE).write_text(page, encoding="utf-8")
    return len(shown)


def _confused(issue: LabelIssue, classes: tuple[str, ...]) -> list[str]:
    """Returns the classes that are confused most: that of the label, that of the masker, and how many pixels."""
    return [
        f"{classes[label]} and {classes[predicted]} ({pixels:.0f} px)"
        for label, predicted, pixels in issue.confused[:MAX_NAMED]
    ]


def _figure(store: ClipStore, worker: Worker, result: Review, issue: LabelIssue) -> tuple[Html, np.ndarray]:
    """Returns a figure of a frame, and the class ids in it."""
    clip, t = store.get(issue.clip_id), issue.t
    frame_HWC, (label_HW,) = store.frames(clip)[t], store.masks(clip, slice(t, t + 1))
    mask_HW, confidence_HW = mask_frame(store, worker, clip.id, t)
    doubted_HW = doubted_pixels(label_HW, mask_HW, confidence_HW, result.thresholds_K)
    undisputed_HW = np.where(doubted_HW | (label_HW == IGNORE), mask_HW, label_HW)
    pictures = (
        frame_HWC,
        overlay(frame_HWC, label_HW),
        overlay(frame_HWC, mask_HW),
        error_map(label_HW, undisputed_HW),
    )
    name = f"{clip.id}, frame {t}"
    picture = grid([Row("", pictures, PICTURES)], f"{name}: {issue.score:.2f}", WIDTHS)
    caption = f"{name}: score {issue.score:.3f}, {', '.join(_confused(issue, store.classes))}"
    return figure(name, caption, png_bytes(picture)), np.union1d(label_HW, mask_HW)
