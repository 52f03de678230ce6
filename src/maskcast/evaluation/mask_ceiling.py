"""The best score that masks of the clips' size can have at the size of the source.

Legend: K classes.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from maskcast.evaluation.metrics import jaccard_per_class, macro_jaccard
from maskcast.labels import LabelMap

MAX_CLASSES = 3  # that are named
LEAST_LOSS = 0.005  # that is said


class MaskCeilings:
    """Sums the round trips of many clips, and says what they lose.

    Args:
        maps: label maps of the clips.
    """

    def __init__(self, maps: Sequence[LabelMap]) -> None:
        self._counts = {
            each: np.zeros((each.num_classes,) * 2, np.int64) for each in maps if each.kind == "classes"
        }

    def add(self, round_trips: Mapping[str, np.ndarray]) -> None:
        """Adds the confusion matrices of a clip, by map (see ``data.mask_ceiling.round_trip``)."""
        for label_map, counts_KK in self._counts.items():
            counts_KK += round_trips.get(label_map.name, 0)

    def notes(self, height: int, width: int) -> Iterator[str]:
        """Yields a line for each map whose masks lose more than a little, given the size of the clips.

        It has the best Jaccard at the size of the source, and the classes that lose most.
        """
        for label_map, counts_KK in self._counts.items():
            mean, jaccard_K = macro_jaccard(counts_KK, absent="omit"), jaccard_per_class(counts_KK)
            if not mean <= 1 - LEAST_LOSS:  # or NaN, of nothing
                continue
            lossy = [k for k in np.argsort(jaccard_K, kind="stable") if jaccard_K[k] <= 1 - LEAST_LOSS]
            names = ", ".join(f"{label_map.classes[k]} {jaccard_K[k]:.2f}" for k in lossy[:MAX_CLASSES])
            yield (
                f"true masks of {label_map.name} at {height}x{width}, enlarged again, have Jaccard {mean:.3f} at "
                f"the source's size (lowest: {names}); a greater height and width keep more"
            )
