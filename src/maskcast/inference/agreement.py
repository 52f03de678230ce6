"""The masks of a clip's frames, made to agree window by window while they come."""

from collections.abc import Iterator

from maskcast.inference.found import Found, Masked, joined, length, sliced
from maskcast.models.bounds import check_time
from maskcast.models.objects.consistency import find_regions, make_consistent


class Agreement:
    """The frames of one clip, in pieces of any lengths, on their way to masks that agree.

    The first so many frames agree on the class of each object, then the next, and what is left at the end with
    those before it, see ``consistency.agreed``. Maps without classes stay as they are.

    Args:
        frames: of a window.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._waiting: Found = {}  # frames that do not fill a window yet
        self._before: Found = {}  # the last whole window

    def add(self, found: Found) -> Iterator[Found]:
        """Takes the next frames, with the probabilities of their objects; yields each window that is whole.

        Nothing that was given is kept: it may lie in memory that is used again.
        """
        found = {name: _with_regions(one) for name, one in found.items()}
        self._waiting = joined([self._waiting or sliced(found, slice(0)), found])
        while length(self._waiting) >= self._frames:
            self._before = sliced(self._waiting, slice(self._frames))
            self._waiting = sliced(self._waiting, slice(self._frames, None))
            yield _consistent(self._before, self._frames)

    def end(self) -> Iterator[Found]:
        """Yields what is left, if anything is."""
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
    """Makes frames agree, and returns the last so many of them."""
    agreed = {
        name: one
        if one.objects is None or one.confidence is None
        else Masked(*make_consistent(one.masks, one.confidence, one.objects, check_time))
        for name, one in found.items()
    }
    return sliced(agreed, slice(length(found) - last, None))
