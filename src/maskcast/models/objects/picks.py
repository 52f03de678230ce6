"""Indexing of steps, rows or columns, by a slice, by numbers, or by indices on the device.

An index on the device needs no copy from the host, so that a step that draws it can be recorded.
"""

from torch import Tensor

Pick = slice | list[int] | Tensor
ALL = slice(None)


def picked(x: Tensor, axis: int, which: Pick) -> Tensor:
    """Indexes an axis; indices on the device that lie beyond its end give the last entry."""
    if isinstance(which, Tensor):
        return x.index_select(axis, which.clamp(max=x.shape[axis] - 1))
    return x[(ALL,) * (axis % x.ndim) + (which,)]


def picked_pixels(x: Tensor, rows: Pick, columns: Pick) -> Tensor:
    """Returns the picked rows and columns of images (..., H, W)."""
    return picked(picked(x, -2, rows), -1, columns)
