"""When the frames of a video are shown: its frame rate, whether that varies, and frames taken by time.

Shapes: T frames of the video, N times.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.video_files.frames import frame_rate
from maskcast.data.video_files.index import NO_TIME, VideoIndex, index_video
from maskcast.errors import MaskcastError
from maskcast.reading import pluralize

TOLERANCE = 1.1  # ratio of two rates, or of two distances of frames, up to which they count as equal
SPAN_UNITS = 20  # units of time that compared distances have at least: then rounding changes them by 5 % at most
MAX_UNEVEN = 0.01  # share of uneven distances from which on a rate is variable; a camera may drop single frames


@dataclass(frozen=True, eq=False)
class Timing:
    """When the frames of a video file are shown.

    Attributes:
        path: the file.
        count: number of frames.
        rate: mean frames per second, without long pauses between few frames; None if unknown.
        variable: whether the distance of frames varies.
        seconds_T: float64, time of each frame after the first, ascending; None if the file does not state it.
        index: of the file's frames.
    """

    path: Path
    count: int
    rate: float | None
    variable: bool
    seconds_T: np.ndarray | None
    index: VideoIndex

    def take(self, fps: float | None) -> Sequence[int]:
        """Returns the numbers of the frames nearest to 0, 1 / fps, 2 / fps, ... seconds; for None, of all frames.

        Raises:
            MaskcastError: if the file has fewer frames per second, or does not state when they are shown.
        """
        if fps is None:
            return range(self.count)
        if self.rate is not None and self.rate * TOLERANCE < fps:
            raise MaskcastError(
                f"{self.path}: has {self.rate:.4g} frames per second, too few for source.fps {fps:g}; lower it, "
                "or leave this video out"
            )
        if self.seconds_T is None:
            raise MaskcastError(
                f"{self.path}: states no times of frames, which source.fps needs; convert it: "
                f"ffmpeg -i {self.path.name} -c:v libx264 {self.path.stem}.mp4"
            )
        last = self.seconds_T[-1] + (0.5 / self.rate if self.rate else 0)
        numbers: list[int] = self.nearest(np.arange(int(last * fps) + 1) / fps).tolist()
        return numbers

    def nearest(self, seconds_N: np.ndarray) -> np.ndarray:
        """Returns the number (N,) of the frame that is nearest to each time; of two, the earlier one.

        Args:
            seconds_N: float64, after the first frame.
        """
        assert self.seconds_T is not None
        middle = (self.seconds_T[1:] + self.seconds_T[:-1]) / 2
        return np.searchsorted(middle, seconds_N - 1e-6)  # far below a frame, far above rounding errors

    def clip_rate(self, fps: float | None, stride: int) -> dict[str, float]:
        """Returns the entry of a clip's meta about its frames per second; empty if that is unknown.

        Args:
            fps: as in ``take``.
            stride: distance of the clip's frames, in frames that ``take`` returns.
        """
        rate = fps or self.rate
        return {"frame_rate": round(rate / stride, 3)} if rate else {}


def read_timing(path: Path) -> Timing:
    """Returns when the frames of a video file are shown.

    Raises:
        MaskcastError: if the file is missing, not a video, damaged or cut short.
    """
    index = index_video(path)
    count, times = index.num_frames, index.times
    seconds_T = (times - times[0]) * index.unit if NO_TIME not in times and count > 1 else np.zeros(1)
    if len(seconds_T) < count or (np.diff(seconds_T) <= 0).any():
        return Timing(path, count, frame_rate(path), False, None, index)
    if count == 1:
        return Timing(path, count, frame_rate(path), False, seconds_T, index)
    rate = (count - 1) / float(seconds_T[-1])
    apart = min(math.ceil(SPAN_UNITS * index.unit * rate), count - 1)
    spans = seconds_T[apart:] - seconds_T[:-apart]
    usual = float(np.median(spans))
    uneven = np.abs(spans - usual) > (TOLERANCE - 1) * usual
    variable = bool(uneven.mean() > MAX_UNEVEN)
    if not variable and not same_rate(rate, apart / usual):  # pauses, e.g. of a recording that was interrupted
        rate = apart / usual
    return Timing(path, count, rate, variable, seconds_T, index)


def same_rate(one: float, other: float) -> bool:
    """Whether two rates count as equal."""
    return max(one, other) <= TOLERANCE * min(one, other)


def common_rate(metas: Iterable[Mapping[str, Any]]) -> float | None:
    """Returns the frames per second of clips, the median; None if they differ, or a clip does not record any.

    Args:
        metas: meta of each clip.
    """
    rates = [meta.get("frame_rate") for meta in metas]
    known = [float(rate) for rate in rates if isinstance(rate, int | float) and rate > 0]
    if not known or len(known) < len(rates) or not same_rate(min(known), max(known)):
        return None
    return statistics.median(known)


def uneven_rates(timings: Mapping[str, Timing]) -> str:
    """Returns a sentence if the frames of videos are not equally far apart in time; empty if they are.

    Args:
        timings: of the videos, by name.
    """
    rates = {name: one.rate for name, one in timings.items() if one.rate is not None}
    variable = [name for name, one in timings.items() if one.variable]
    ranked = sorted(rates, key=rates.__getitem__)
    parts = []
    if ranked and not same_rate(rates[ranked[0]], rates[ranked[-1]]):
        low, high = (f"{rates[name]:.4g} ({name})" for name in (ranked[0], ranked[-1]))
        parts.append(f"videos have {low} to {high} frames per second")
    if variable:
        many = pluralize(len(variable), "video", "has", "have")
        parts.append(f"{many} a variable frame rate ({variable[0]})")
    if not parts:
        return ""
    value = f": {rates[ranked[0]]:.4g}" if ranked else ""
    return f"{', and '.join(parts)}, so clips differ in duration; source.fps{value} takes frames by time"
