"""Chooses the frames of a video that a pipeline sees, and the frames that it forecasts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from maskcast.data.video_files.timing import TOLERANCE, Timing, same_rate
from maskcast.errors import MaskcastError
from maskcast.reading import pluralize
from maskcast.registry.kinds import ForecastDescription
from maskcast.serving.videos import Video


@dataclass(frozen=True)
class ChosenFrames:
    """Frames of a video.

    Attributes:
        seen: indices of the context frames, from 0.
        future: indices of the forecast frames; they may be beyond the end of the video.
        warning: how the times of the frames differ from those of the pipeline's clips; empty if they do not, or
            are unknown.
        interval: seconds from one of the frames to the next; None if they are unknown.
    """

    seen: Sequence[int]
    future: Sequence[int]
    warning: str = ""
    interval: float | None = None


def choose_frames(video: Video, about: ForecastDescription, stride: int | None, start: int | None) -> ChosenFrames:
    """Returns the frames of a video for a pipeline.

    If the frame rate of the video is variable or differs from that of the pipeline's clips, and no stride is
    given, the frames are as far apart in time as those of the clips.

    Args:
        video: only its times are read.
        about: description of the pipeline.
        stride: distance of the context frames; None for that of the pipeline's clips, or the same in time.
        start: first context frame, from 0; None uses the last frames.

    Raises:
        MaskcastError: the video is damaged or too short.
    """
    distance = about.frame_stride if stride is None else stride
    assert distance is not None  # refused by `check_options`
    timing, rate = None if about.frame_rate is None else video.timing(), about.frame_rate
    if timing is None or timing.rate is None or rate is None:
        return _by_number(video, about, distance, start)
    own = timing.rate / distance
    if same_rate(own, rate) and not timing.variable:
        chosen = replace(_by_number(video, about, distance, start), interval=1 / own)
        return _warned_of_pause(chosen, timing, own)
    mean = "a variable frame rate, on average " if timing.variable else ""
    given = f"{timing.rate:.4g} frames per second ({own:.4g} at stride {distance})"
    what = f"has {mean}{given}, the model's clips {rate:.4g}"
    if timing.rate * TOLERANCE < rate:
        remedy = f"give a video of at least {rate:.4g} frames per second"
    elif timing.seconds_T is None:
        name = video.path.name
        remedy = f"its frames have no times, so convert it: ffmpeg -i {name} -c:v libx264 {video.path.stem}.mp4"
    elif stride is not None:
        remedy = "leave out the stride to take frames by time"
    else:
        seen, future = _by_time(timing, timing.seconds_T, about, rate, start)
        return ChosenFrames(seen, future, f"{what}: frames are taken by time", 1 / rate)
    chosen = _by_number(video, about, distance, start)
    warning = f"{what}, so the forecast may be worse: {remedy}"
    return replace(chosen, warning=warning, interval=None if timing.variable else 1 / own)


def _warned_of_pause(chosen: ChosenFrames, timing: Timing, rate: float) -> ChosenFrames:
    """Returns frames that are taken by number, with a warning if they last longer than at their usual rate."""
    if timing.seconds_T is None:
        return chosen
    lasts = float(timing.seconds_T[chosen.seen[-1]] - timing.seconds_T[chosen.seen[0]])
    usual = (len(chosen.seen) - 1) / rate
    if lasts <= TOLERANCE * usual:
        return chosen
    warning = (
        f"pauses in the context, which lasts {lasts:.4g} s in place of {usual:.4g} s, so the forecast may be "
        "worse: start earlier or later"
    )
    return replace(chosen, warning=warning, interval=None)


def _by_number(video: Video, about: ForecastDescription, stride: int, start: int | None) -> ChosenFrames:
    frames, horizon = about.context_frames, about.horizon
    total, span = video.count(), (frames - 1) * stride + 1
    first = total - span if start is None else start
    if first < 0 or first + span > total:
        raise MaskcastError(
            f"{video.path}: has {pluralize(total, 'frame')}, but {pluralize(frames, 'context frame')} with "
            f"stride {stride} need {span if start is None else first + span}; give a longer video, a smaller "
            "stride or an earlier start"
        )
    end = first + frames * stride
    return ChosenFrames(range(first, end, stride), range(end, end + horizon * stride, stride))


def _by_time(
    timing: Timing, seconds_T: np.ndarray, about: ForecastDescription, rate: float, start: int | None
) -> tuple[list[int], list[int]]:
    """Returns the frames that are seen and forecast, ``rate`` per second."""
    assert timing.rate is not None
    if start is not None and start >= timing.count:
        raise MaskcastError(
            f"{timing.path}: start {start} is beyond its {pluralize(timing.count, 'frame')}; give an earlier start"
        )
    span, end, half = (about.context_frames - 1) / rate, float(seconds_T[-1]), 0.5 / timing.rate
    first = end - span if start is None else float(seconds_T[start])
    if first < -half or first + span > end + half:
        raise MaskcastError(
            f"{timing.path}: lasts {end:.4g} s, but {pluralize(about.context_frames, 'context frame')}, "
            f"{rate:.4g} per second, need {span if start is None else first + span:.4g} s; give a longer video "
            "or an earlier start"
        )
    seen = timing.nearest(first + np.arange(about.context_frames) / rate)
    later = first + span + np.arange(1, about.horizon + 1) / rate
    beyond = np.rint(np.maximum(later - end, 0) * timing.rate).astype(int)
    return seen.tolist(), (timing.nearest(np.minimum(later, end)) + beyond).tolist()
