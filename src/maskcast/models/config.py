"""The base of all architectures' configs; nothing here imports torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskcast.params import Params

if TYPE_CHECKING:
    from torch import nn


class ModelConfig(Params):
    """Base of an architecture's config; a subclass adds ``arch: Literal[...]`` and its sizes.

    ``build`` imports the network inside the method, so that reading params costs no import of torch.
    """

    def build(self, num_classes: int) -> "nn.Module":
        """Returns a freshly initialised network for ``num_classes`` classes, background included."""
        raise TypeError(f"{type(self).__name__} must implement build")


def as_text(values: Mapping[str, Any]) -> str:
    """Returns the values of a config as an error shows them."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"
