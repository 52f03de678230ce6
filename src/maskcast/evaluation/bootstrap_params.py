"""Params of the bootstrap; nothing here imports what takes long."""

from pydantic import Field

from maskcast.params import Params


class Bootstrap(Params):
    """A seeded bootstrap of paired differences."""

    confidence: float = Field(0.95, gt=0, lt=1)
    """Of the two-sided interval of the mean difference."""
    resamples: int = Field(10_000, ge=100, le=1_000_000)
    """Bootstrap samples of what was scored."""
    seed: int = Field(0, ge=0)
    """Of the bootstrap."""
