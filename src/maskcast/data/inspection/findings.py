"""What an inspection found in a folder of data, and the source params that read it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.data.video_files.timing import Timing, uneven_rates

MAX_CONTEXT = 11  # context of a forecaster, which forecasts as many frames
MIN_CONTEXT = 4


@dataclass
class Findings:
    """The findings of an inspection, in the form that `prepare_clips` needs.

    Attributes:
        layout: the layout in words.
        source: the params `prepare_clips.source`.
        reasons: for keys of the source, the reason for the value, in words.
        sequences: number of frames of each sequence.
        gaps: for sequences with gaps in their frame numbers, the ranges between gaps; clips never span a gap.
        labelled: for sequences with masks, the number of frames that have one.
        sizes: (height, width) after EXIF rotation, with the number of sequences that have it.
        rates: frames per second of the videos, as far as known.
        rows: further facts, as name and text.
        warnings: what the owner should check, one sentence each.
        trainable: whether there are masks to learn from.
        context: number of frames that a forecaster sees, and number that it forecasts.
        photographs: why images are photographs and not video frames; empty if they may be frames.
        one_sided: classes with a side, such as left, whose other side has no class.
        class_shares: for each class its share of the labelled pixels; empty if unknown.
        classes: by sequence, the classes except the background that were seen in its labels.
    """

    layout: str
    source: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    gaps: dict[str, Sequence[range]] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    rates: tuple[float, ...] = ()
    rows: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    trainable: bool = True
    context: int = MAX_CONTEXT
    photographs: str = ""
    one_sided: tuple[str, ...] = ()
    class_shares: dict[str, float] = field(default_factory=dict)
    classes: dict[str, set[str]] = field(default_factory=dict)

    def add_sequences(self, footage: Mapping[str, SequenceFiles]) -> None:
        """Adds the sequences of a source, with warnings about gaps."""
        for name, one in footage.items():
            self.sequences[name] = len(one.masks)
            if one.gap and not self.photographs:
                self.gaps[name] = one.runs
                self.warnings.append(f"{name}: a gap in the frame numbers, which no clip spans ({one.gap})")
        self.add_timings({name: one.timing for name, one in footage.items() if one.timing is not None})

    def add_timings(self, timings: Mapping[str, Timing]) -> None:
        """Adds the frame rates of videos, with a warning if frames are not equally far apart in time."""
        self.rates += tuple(one.rate for one in timings.values() if one.rate is not None)
        if text := uneven_rates(timings):
            self.warnings.append(text)

    def runs(self, name: str) -> Sequence[range]:
        """Returns the ranges of a sequence with consecutive frames."""
        return self.gaps.get(name, (range(self.sequences[name]),))

    @property
    def frames(self) -> int:
        """Number of frames of a clip."""
        return 1 if self.photographs else 2 * self.context

    @property
    def is_partly_labelled(self) -> bool:
        """Whether a sequence has masks for only some of its frames."""
        return any(count < self.sequences[name] for name, count in self.labelled.items())
