"""Makes the masks of a clip consistent, window by window, while they are computed."""

from collections.abc import Iterator

from maskcast.inference.found import Found, Masked, joined, length, sliced
from maskcast.models.bounds import check_time
from maskcast.models.objects.consistency import find_regions, make_consistent


class Agreement:
    """Collects the frames of one clip, in pieces of any length, and makes their masks consistent.

    Within each window of ``frames`` frames, each object has one class. The last window includes earlier frames if
    too few are left, see ``consistency.agreed``. Maps without classes are not changed.

    Args:
        frames: length of a window.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._waiting: Found = {}  # frames of an incomplete window
        self._before: Found = {}  # the last complete window

    def add(self, found: Found) -> Iterator[Found]:
        """Adds frames, with the probabilities of their foreground pixels; yields each complete window.

        It keeps copies only, because the arrays given may lie in memory that is reused.
        """
        found = {name: _with_regions(one) for name, one in found.items()}
        self._waiting = joined([self._waiting or sliced(found, slice(0)), found])
        while length(self._waiting) >= self._frames:
            self._before = sliced(self._waiting, slice(self._frames))
            self._waiting = sliced(self._waiting, slice(self._frames, None))
            yield _consistent(self._before, self._frames)

    def end(self) -> Iterator[Found]:
        """Yields the remaining frames, if there are any."""
        new = length(self._waiting) if self._waiting else 0
        if new:
            before = [sliced(self._before, slice(new, None))] if self._before else []
            yield _consistent(joined([*before, self._waiting]), new)


def _with_regions(one: Masked) -> Masked:
    if one.objects is None:
        return one
    regions = [
        find_regions(mask_HW, sure_PK, check_time) for mask_HW, sure_PK in zip(one.masks, one.objects, strict=True)
    ]
    return one._replace(objects=regions)


def _consistent(found: Found, last: int) -> Found:
    """Makes frames consistent, and returns the last ``last`` of them."""
    agreed = {
        name: one
        if one.objects is None or one.confidence is None
        else Masked(*make_consistent(one.masks, one.confidence, one.objects, check_time))
        for name, one in found.items()
    }
    return sliced(agreed, slice(length(found) - last, None))
