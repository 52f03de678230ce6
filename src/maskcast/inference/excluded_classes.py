"""Counts which classes consistent masks keep and exclude, in groups of frames of many clips."""

from collections.abc import Mapping, Sequence

from maskcast.labels import LabelMap
from maskcast.models.objects.consistency import MIN_CERTAIN_PROBABILITY

MIN_PROBABILITY = 0.5  # what is less probable is more likely a speck of a wrong class, which should be excluded

# by the name of the label map and the class id: the groups in which the class was kept and in which it was
# excluded, and the sum of its mean probability in the latter
Counts = dict[str, dict[str, list[float]]]


class ClassCounts:
    """The counts of groups of frames, as JSON, so that the file of a finished clip can hold them."""

    def __init__(self) -> None:
        self.counts: Counts = {}

    def add(self, name: str, class_id: int, kept: bool, probability: float) -> None:
        """Counts a class of label map ``name`` in one group, see ``consistency.Report``."""
        self.merge({name: {str(class_id): [1, 0, 0.0] if kept else [0, 1, probability]}})

    def merge(self, counts: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        """Adds the counts of other groups."""
        for name, classes in counts.items():
            mine = self.counts.setdefault(name, {})
            for class_id, row in classes.items():
                mine[class_id] = [a + b for a, b in zip(mine.get(class_id, (0, 0, 0.0)), row, strict=True)]

    def warning(self, maps: Sequence[LabelMap], frames: int) -> str | None:
        """Returns a warning of the classes that were excluded more often than kept though probable, or None.

        Args:
            maps: the label maps that were made consistent.
            frames: length of a group.
        """
        lost = []
        for label_map in maps:
            for class_id, (kept, excluded, summed) in self.counts.get(label_map.name, {}).items():
                if excluded > kept and summed >= MIN_PROBABILITY * excluded:
                    text = (
                        f"class {label_map.classes[int(class_id)]!r} (mean probability {summed / excluded:.2f}) "
                        f"in {excluded:.0f} of {kept + excluded:.0f}"
                    )
                    lost.append((-excluded, text))
        if not lost:
            return None
        return (
            f"warning: consistent masks removed {', '.join(text for _, text in sorted(lost))} groups of {frames} "
            "frames that show it, as too small: a small object is kept if it is in most frames of a group, with a "
            f"mean probability of at least {MIN_CERTAIN_PROBABILITY}; train the masker for longer, prepare larger "
            "frames, or set generate_masks.consistent_frames to null"
        )
