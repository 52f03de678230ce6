"""What was found in a folder of data, and the source that reads it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskcast.data.sources.footage import Footage

SEEN = 11  # frames that a forecaster sees, and as many that it forecasts
LEAST_SEEN = 4


@dataclass
class Findings:
    """A folder of data as `prepare_clips` is to read it.

    Attributes:
        layout: in words.
        source: the params `prepare_clips.source`.
        why: where a key of the source comes from, in words, by key.
        sequences: frames of each sequence.
        gaps: the parts of sequences that have gaps in the numbers of their frames; no clip goes over one.
        labelled: of these the frames with a mask, of each sequence with any.
        sizes: (height, width) of sequences, upright, and how many have it.
        rate: frames a second of videos; None where nothing says.
        rows: further things to know, name and text.
        warnings: what the owner should look at, a sentence each.
        trainable: whether there are masks to learn from.
        context: frames that a forecaster is to see, and to forecast.
        photographs: why its images are no frames of videos; empty where they may be.
        shares: share of the pixels of each class, of labelled ones; empty where not known.
    """

    layout: str
    source: dict[str, Any]
    why: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    gaps: dict[str, Sequence[range]] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    rate: float | None = None
    rows: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    trainable: bool = True
    context: int = SEEN
    photographs: str = ""
    shares: dict[str, float] = field(default_factory=dict)

    def add_sequences(self, footage: Mapping[str, Footage]) -> None:
        """Adds the sequences of a source, and warns of gaps."""
        for name, one in footage.items():
            self.sequences[name] = len(one.masks)
            if one.gap and not self.photographs:
                self.gaps[name] = one.runs
                self.warnings.append(f"{name}: a gap in the frame numbers, which no clip spans ({one.gap})")

    def runs(self, name: str) -> Sequence[range]:
        """Returns the parts of a sequence whose frames follow each other."""
        return self.gaps.get(name, (range(self.sequences[name]),))

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return 1 if self.photographs else 2 * self.context

    @property
    def partly(self) -> bool:
        """Whether a sequence has masks of some of its frames only."""
        return any(count < self.sequences[name] for name, count in self.labelled.items())
