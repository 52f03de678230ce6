"""Checks whether frames resemble a masker's training data, by size, colours and confidence of its masks.

A masker predicts masks for any frame, but its scores only hold for frames like those of its evaluation. Statistics
of these are stored with its weights. A clip that is far from them gets a warning of one line.

Legend: T frames, H height, W width, C = 3 colour channels.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from maskcast.data.clip_store.statistics import colour_statistics
from maskcast.data.clip_survey import ASPECT_RATIO_LIMIT
from maskcast.params import Params

MAX_DEVIATIONS = 4.0  # standard deviations over clips, exceeded by one of 16,000 clips of a normal distribution
MIN_COLOUR_STD = 0.05  # least deviation, as a share of a colour's range, for clips that are all alike
MIN_CONFIDENCE_STD = 0.1  # least deviation of a confidence, likewise
SCALE_RATIO_LIMIT = 2.0  # ratio of two sides from which on the scale of objects differs
COLOURS = ("red", "green", "blue")


class MeanStd(Params):
    """How a number lies over clips."""

    mean: float
    """Over the clips."""
    std: float = Field(ge=0)
    """Standard deviation over the clips."""


class Reference(Params):
    """What was measured of the clips that a masker was trained and validated on."""

    height: int = Field(ge=1)
    """Rows of the frames."""
    width: int = Field(ge=1)
    """Columns of the frames."""
    aspect: tuple[float, float]
    """Least and greatest width / height of the videos that the frames were made of."""
    colours: dict[str, MeanStd]
    """Of training clips: the mean of each colour, and the contrast, in parts of a colour's range."""
    confidence: dict[str, MeanStd]
    """Of validation clips, by label map: the mean confidence in what is masked as an object."""


@dataclass(frozen=True)
class ObservedClip:
    """One clip that is compared with a reference.

    Attributes:
        frames: (T, H, W, C) uint8, as the masker sees them.
        confidence: mean over foreground pixels, before masks are made consistent; None if unknown.
        source: height and width of the video, if frames were resized.
    """

    frames: np.ndarray
    confidence: float | None
    source: tuple[int, int] | None = None


def colour_features(frames_THWC: np.ndarray) -> dict[str, float]:
    """Returns the mean of each colour, and the contrast (mean standard deviation), of three frames of a clip."""
    mean, std = colour_statistics(frames_THWC[t] for t in sorted({0, len(frames_THWC) // 2, len(frames_THWC) - 1}))
    return dict(zip(COLOURS, mean.tolist(), strict=True)) | {"contrast": float(std.mean())}


def mean_std(values: Sequence[float]) -> MeanStd:
    """Returns mean and standard deviation of some numbers."""
    return MeanStd(mean=round(float(np.mean(values)), 4), std=round(float(np.std(values)), 4))


def mean_std_by_key(rows: Iterable[Mapping[str, float]]) -> dict[str, MeanStd]:
    """Returns mean and standard deviation of each key over rows with equal keys."""
    table = list(rows)
    return {name: mean_std([row[name] for row in table]) for name in (table[0] if table else {})}


def shift_warning(observed: ObservedClip, reference: Reference | None, label_map: str) -> str:
    """Returns a line on how a clip differs from a reference; empty if it does not, or there is no reference.

    Args:
        observed: the clip.
        reference: statistics of the training data.
        label_map: name of the map whose confidence is compared.
    """
    if reference is None:
        return ""
    differences = [
        _size(observed, reference),
        _colours(observed, reference),
        _confidence(observed, reference.confidence.get(label_map)),
    ]
    text = "; ".join(filter(None, differences))
    return f"differs from the training data, so masks may be worse: {text}" if text else ""


def _size(observed: ObservedClip, reference: Reference) -> str:
    low, high = reference.aspect
    rows, columns = observed.frames.shape[1:3]
    if observed.source is None:
        scale = math.sqrt(rows * columns / (reference.height * reference.width))
        if 1 / SCALE_RATIO_LIMIT < scale < SCALE_RATIO_LIMIT:
            return ""
        return f"frames are {rows}x{columns}, in training {reference.height}x{reference.width}"
    height, width = observed.source
    if not low / ASPECT_RATIO_LIMIT < width / height < high * ASPECT_RATIO_LIMIT:
        aspects = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
        return f"aspect ratio of {height}x{width} frames is {width / height:.2f}, in training {aspects}"
    if math.sqrt(height * width / (rows * columns)) <= 1 / SCALE_RATIO_LIMIT:
        return f"frames of {height}x{width} are upscaled to {rows}x{columns}"
    return ""


def _colours(observed: ObservedClip, reference: Reference) -> str:
    """Describes the colour that is most standard deviations away from the reference."""
    colours = colour_features(observed.frames)
    deviations = {
        name: abs(colours[name] - expected.mean) / max(MAX_DEVIATIONS * expected.std, MIN_COLOUR_STD)
        for name, expected in reference.colours.items()
    }
    name = max(deviations, key=lambda one: deviations[one], default="")
    if not name or deviations[name] <= 1:
        return ""
    return f"mean {name} is {colours[name]:.2f}, in training {reference.colours[name].mean:.2f}"


def _confidence(observed: ObservedClip, expected: MeanStd | None) -> str:
    if (
        expected is None
        or observed.confidence is None
        or observed.confidence >= expected.mean - max(MAX_DEVIATIONS * expected.std, MIN_CONFIDENCE_STD)
    ):
        return ""
    return f"mean confidence is {observed.confidence:.2f}, in validation {expected.mean:.2f}"
