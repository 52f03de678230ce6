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
from maskcast.params import Params

FAR = 4.0  # standard deviations over clips, exceeded by one of 16,000 clips of a normal distribution
LEAST_COLOUR = 0.05  # least deviation, as a share of a colour's range, for clips that are all alike
LEAST_SURE = 0.1  # least deviation of a confidence, likewise
OTHER_ASPECT = 1.25  # ratio of two aspects from which on frames are distorted (16:9 to 3:2 is 1.19)
OTHER_SCALE = 2.0  # ratio of two sides from which on the scale of objects differs
COLOURS = ("red", "green", "blue")


class Spread(Params):
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
    colours: dict[str, Spread]
    """Of training clips: the mean of each colour, and the contrast, in parts of a colour's range."""
    confidence: dict[str, Spread]
    """Of validation clips, by label map: the mean confidence in what is masked as an object."""


@dataclass(frozen=True)
class Seen:
    """One clip that is compared with a reference.

    Attributes:
        frames: (T, H, W, C) uint8, as the masker sees them.
        confidence: mean over foreground pixels, before masks are made consistent; None if unknown.
        source: height and width of the video, if frames were resized.
    """

    frames: np.ndarray
    confidence: float | None
    source: tuple[int, int] | None = None


def colours_of(frames_THWC: np.ndarray) -> dict[str, float]:
    """Returns the mean of each colour, and the contrast (mean standard deviation), of three frames of a clip."""
    mean, std = colour_statistics(frames_THWC[t] for t in sorted({0, len(frames_THWC) // 2, len(frames_THWC) - 1}))
    return dict(zip(COLOURS, mean.tolist(), strict=True)) | {"contrast": float(std.mean())}


def spread(values: Sequence[float]) -> Spread:
    """Returns mean and standard deviation of some numbers."""
    return Spread(mean=round(float(np.mean(values)), 4), std=round(float(np.std(values)), 4))


def spreads(rows: Iterable[Mapping[str, float]]) -> dict[str, Spread]:
    """Returns mean and standard deviation of each key over rows with equal keys."""
    table = list(rows)
    return {name: spread([row[name] for row in table]) for name in (table[0] if table else {})}


def unlike(seen: Seen, reference: Reference | None, label_map: str) -> str:
    """Returns a line on how a clip differs from a reference; empty if it does not, or there is no reference.

    Args:
        seen: the clip.
        reference: statistics of the training data.
        label_map: name of the map whose confidence is compared.
    """
    if reference is None:
        return ""
    told = [
        _size(seen, reference),
        _colours(seen, reference),
        _confidence(seen, reference.confidence.get(label_map)),
    ]
    found = "; ".join(filter(None, told))
    return f"unlike what the model was trained on, so trust it less: {found}" if found else ""


def _size(seen: Seen, reference: Reference) -> str:
    low, high = reference.aspect
    rows, columns = seen.frames.shape[1:3]
    if seen.source is None:
        scale = math.sqrt(rows * columns / (reference.height * reference.width))
        if 1 / OTHER_SCALE < scale < OTHER_SCALE:
            return ""
        return f"frames of {rows}x{columns}, there {reference.height}x{reference.width}"
    height, width = seen.source
    if not low / OTHER_ASPECT < width / height < high * OTHER_ASPECT:
        aspects = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
        return f"frames of {height}x{width}, {width / height:.2f} times as wide as high, there {aspects}"
    if math.sqrt(height * width / (rows * columns)) <= 1 / OTHER_SCALE:
        return f"frames of {height}x{width}, enlarged to {rows}x{columns}"
    return ""


def _colours(seen: Seen, reference: Reference) -> str:
    """Describes the colour that is most standard deviations away from the reference."""
    colours = colours_of(seen.frames)
    far = {
        name: abs(colours[name] - known.mean) / max(FAR * known.std, LEAST_COLOUR)
        for name, known in reference.colours.items()
    }
    name = max(far, key=lambda one: far[one], default="")
    if not name or far[name] <= 1:
        return ""
    return f"{name} is {colours[name]:.2f} on average, there {reference.colours[name].mean:.2f}"


def _confidence(seen: Seen, known: Spread | None) -> str:
    if (
        known is None
        or seen.confidence is None
        or seen.confidence >= known.mean - max(FAR * known.std, LEAST_SURE)
    ):
        return ""
    return f"masks are sure by {seen.confidence:.2f}, in validation by {known.mean:.2f}"
