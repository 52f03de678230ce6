"""Cuts sequences into windows, which become clips; no window spans a gap in the frame numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from maskcast.data.sources.base import Listing
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.data.sources.splits import Splits, assign_splits, listed_names, time_parts
from maskcast.errors import MaskcastError
from maskcast.labels import KIND_OF_SPLIT
from maskcast.params import is_null
from maskcast.reading import pluralize

SplitBy = Literal["sequence", "time"]
Fps = Annotated[float | None, Field(gt=0, allow_inf_nan=False, exclude_if=is_null)]


class WindowParams(Protocol):
    """The params of a source that define how sequences are cut."""

    @property
    def frames(self) -> int:
        """Number of frames of a clip."""

    @property
    def stride(self) -> int:
        """Distance between consecutive frames of a clip, in frames of the sequence."""

    @property
    def fps(self) -> float | None:
        """Frames per second that are taken of videos; None takes all."""

    @property
    def window_step(self) -> int:
        """Distance between the first frames of consecutive clips, in frames of the sequence."""

    @property
    def split_by(self) -> SplitBy:
        """Whether a split gets whole sequences, or a part of each sequence that no split names."""

    @property
    def splits(self) -> Splits:
        """Shares or names of the splits."""


def span(frames: int, stride: int) -> int:
    """Returns how many video frames a window of ``frames`` frames covers, ``stride`` apart."""
    return (frames - 1) * stride + 1


def windows_in(num_frames: int, frames: int, stride: int, window_step: int) -> list[range]:
    """Returns the frame numbers of each window that fits into a video.

    Args:
        num_frames: number of frames of the video.
        frames: number of frames of a window.
        stride: distance between consecutive frames of a window, in frames of the video.
        window_step: distance between the first frames of consecutive windows, in frames of the video.
    """
    covered = span(frames, stride)
    return [range(start, start + covered, stride) for start in range(0, num_frames - covered + 1, window_step)]


@dataclass(frozen=True)
class Window:
    """A window of a sequence, with what its clip needs.

    Attributes:
        id: id of the clip.
        split: split of the clip.
        kind: kind of the clip (`maskcast.labels.KINDS`).
        frames: indices of the frames in the sequence; ascending, repeated where a video stands still.
        images: one file per frame, or the video that has all frames.
        meta: JSON of the clip.
    """

    id: str
    split: str
    kind: str
    frames: Sequence[int]
    images: Path | Sequence[Path]
    meta: dict[str, Any]


def sequence_splits(names: Sequence[str], params: WindowParams, seed: int) -> dict[str, str | None]:
    """Returns the split of each sequence, None for a sequence that is cut by time.

    Args:
        names: names of the sequences.
        params: the params that define the splits.
        seed: see `assign_splits`.

    Raises:
        MaskcastError: see `assign_splits`.
    """
    if params.split_by == "sequence":
        return {**assign_splits(names, params.splits, seed)}
    listed: Splits = {split: members for split, members in params.splits.items() if isinstance(members, tuple)}
    whole = listed_names(params.splits)
    return {name: split if name in whole else None for name, split in assign_splits(names, listed, seed).items()}


def is_labelled(split: str | None) -> bool:
    """Whether a sequence of this split needs labels; None stands for a sequence that is cut by time."""
    return split is None or KIND_OF_SPLIT[split] == "labelled"


def windows(
    name: str,
    sequence: SequenceFiles,
    split: str | None,
    params: WindowParams,
    listing: Listing,
    lookback: int = 0,
) -> Iterator[Window]:
    """Yields the windows of a sequence; records parts that are too short in ``listing.skipped``.

    Args:
        name: name of the sequence.
        sequence: its frames and masks.
        split: the split of the sequence; None cuts it by time.
        params: the params that define the cuts.
        listing: where left-out parts are recorded.
        lookback: with a split by time, how many frames at the start of a window may be from the split before; not
            for unlabelled windows, which would be trained on frames of `val` or `test`.

    Raises:
        MaskcastError: if frames are taken by time, and are images.
    """
    timing, taken_runs = sequence.timing, sequence.runs
    taken: Sequence[int] = range(len(sequence.masks))
    if params.fps is not None:
        if timing is None:
            raise MaskcastError(
                f"{name}: its frames are images, which state no times; set source.stride in place of source.fps"
            )
        try:
            taken = timing.take(params.fps)
        except MaskcastError as error:
            listing.skipped.append((name, str(error)))
            return
        taken_runs = [range(len(taken))]
    rate = {} if timing is None else timing.clip_rate(params.fps, params.stride)
    whole = range(len(taken))
    for part_split, part in (time_parts(whole, params.splits) if split is None else {split: whole}).items():
        first = max(0, part.start - (lookback if part_split != "unlabeled" else 0))
        runs = (range(max(one.start, first), min(one.stop, part.stop)) for one in taken_runs)
        ranges = [
            run[window.start : window.stop : window.step]
            for run in runs
            for window in windows_in(len(run), params.frames, params.stride, params.window_step)
        ]
        if not ranges:
            what = f"has {pluralize(len(part), 'frame')}" + (f" for {part_split}" if split is None else "")
            what += f" in {len(sequence.runs)} parts ({sequence.gap})" if sequence.gap else ""
            listing.skipped.append((name, f"{what}, a window needs {span(params.frames, params.stride)}"))
        for window in ranges:
            frames = taken[window.start : window.stop : window.step]
            images = sequence.images if isinstance(sequence.images, Path) else [sequence.images[i] for i in frames]
            meta = {"video": name, "start": window.start, "stride": params.stride} | rate
            yield Window(f"{name}_{window.start:05d}", part_split, KIND_OF_SPLIT[part_split], frames, images, meta)
