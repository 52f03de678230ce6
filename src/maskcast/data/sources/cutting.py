"""Cuts sequences into windows, none of them over a gap: the clips that a source lists."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from maskcast.data.sources.base import Listing
from maskcast.data.sources.footage import Footage
from maskcast.data.sources.splits import Splits, time_parts
from maskcast.labels import KIND_OF_SPLIT
from maskcast.reading import counted

SplitBy = Literal["sequence", "time"]


class Cuts(Protocol):
    """The params of a source that say how sequences are cut."""

    @property
    def frames(self) -> int:
        """Frames of a clip."""

    @property
    def stride(self) -> int:
        """Distance of a clip's frames in the sequence."""

    @property
    def window_step(self) -> int:
        """Distance of consecutive clips' first frames in the sequence."""

    @property
    def split_by(self) -> SplitBy:
        """What a split has: whole sequences, or parts of each."""

    @property
    def splits(self) -> Splits:
        """Shares or names of the splits."""


def span(frames: int, stride: int) -> int:
    """Returns the frames of a video from the first to the last of a window of ``frames``, ``stride`` apart."""
    return (frames - 1) * stride + 1


def windows_in(num_frames: int, frames: int, stride: int, window_step: int) -> list[range]:
    """Returns the frames of each window that fits into a video.

    Args:
        num_frames: frames of the video.
        frames: frames of a window.
        stride: distance of a window's frames, in frames of the video.
        window_step: distance of consecutive windows, in frames of the video.
    """
    reach = span(frames, stride)
    return [range(start, start + reach, stride) for start in range(0, num_frames - reach + 1, window_step)]


@dataclass(frozen=True)
class Window:
    """A window of a sequence.

    Attributes:
        id: of its clip.
        split: of its clip.
        kind: of its clip.
        frames: their places in the sequence.
        images: a file per frame, or the video of all.
        meta: of its clip.
    """

    id: str
    split: str
    kind: str
    frames: range
    images: Path | Sequence[Path]
    meta: dict[str, Any]


def windows(
    name: str, found: Footage, split: str, how: Cuts, listing: Listing, lookback: int = 0
) -> Iterator[Window]:
    """Yields the windows of a sequence; notes parts that are too short.

    Args:
        name: of the sequence.
        found: its frames.
        split: that it is for, unless it is cut by time.
        how: how it is cut.
        listing: is told what is left out.
        lookback: frames at a window's beginning that may be of the split before, by time.
    """
    whole, by_time = range(len(found.masks)), how.split_by == "time"
    for part_split, part in (time_parts(whole, how.splits) if by_time else {split: whole}).items():
        first = max(0, part.start - lookback)
        runs = (range(max(one.start, first), min(one.stop, part.stop)) for one in found.runs)
        inside = [
            run[window.start : window.stop : window.step]
            for run in runs
            for window in windows_in(len(run), how.frames, how.stride, how.window_step)
        ]
        if not inside:
            what = f"has {counted(len(part), 'frame')}" + (f" for {part_split}" if by_time else "")
            what += f" in {len(found.runs)} parts ({found.gap})" if found.gap else ""
            listing.skipped.append((name, f"{what}, a window needs {span(how.frames, how.stride)}"))
        for frames in inside:
            images = found.images if isinstance(found.images, Path) else [found.images[i] for i in frames]
            meta = {"video": name, "start": frames.start, "stride": how.stride}
            yield Window(f"{name}_{frames.start:05d}", part_split, KIND_OF_SPLIT[part_split], frames, images, meta)
