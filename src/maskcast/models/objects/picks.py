"""Some steps, rows or columns of a tensor: a slice or numbers, or their indices on the device.

An index on the device costs no message between host and device, so that a step that draws it can be recorded.
"""

from torch import Tensor

Pick = slice | list[int] | Tensor
ALL = slice(None)


def picked(x: Tensor, axis: int, which: Pick) -> Tensor:
    """Returns some of an axis; for an index on the device that lies beyond its end, its last entry."""
    if isinstance(which, Tensor):
        return x.index_select(axis, which.clamp(max=x.shape[axis] - 1))
    return x[(ALL,) * (axis % x.ndim) + (which,)]


def picked_pixels(x: Tensor, rows: Pick, columns: Pick) -> Tensor:
    """Returns some rows and columns of pictures (..., H, W)."""
    return picked(picked(x, -2, rows), -1, columns)
