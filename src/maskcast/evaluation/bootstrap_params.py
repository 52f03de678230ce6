"""Params of the bootstrap; nothing here has slow imports."""

from pydantic import Field

from maskcast.params import Params


class Bootstrap(Params):
    """A seeded bootstrap of paired differences."""

    confidence: float = Field(0.95, gt=0, lt=1)
    """Level of the two-sided confidence interval of the mean difference."""
    resamples: int = Field(10_000, ge=100, le=1_000_000)
    """Number of bootstrap samples."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap."""
