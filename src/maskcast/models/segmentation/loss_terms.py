"""The terms of a MaskLoss, which decide what is computed per pixel."""

from typing import NamedTuple

from maskcast.models.segmentation.configs import MaskLossConfig


class Terms(NamedTuple):
    """The terms of a MaskLoss."""

    ce: bool
    dice: bool
    sigmoid_focal: bool
    softmax_focal: bool
    gamma: float

    @property
    def softmax(self) -> bool:
        """Whether a term needs the softmax of a pixel."""
        return self.ce or self.dice or self.softmax_focal


def terms_of(config: MaskLossConfig) -> Terms:
    """Returns the terms whose weight is not 0."""
    form = config.focal_form if config.focal else None
    return Terms(
        bool(config.ce), bool(config.dice), form == "sigmoid", form == "softmax", float(config.focal_gamma)
    )
