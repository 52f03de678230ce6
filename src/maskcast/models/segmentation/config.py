"""The bases of the configs of segmenters and of their losses; nothing here imports torch."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.encoders.configs import EncoderModelConfig
from maskcast.params import Params
from maskcast.plugins import class_name, returned_error

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maskcast.models.encoders.pretrained import Pretrained
    from maskcast.models.segmentation.base import Segmenter


class SegmenterModelConfig(Params):
    """Base of a segmenter's config; a subclass adds ``arch: Literal[...]`` and its sizes."""

    stateful: ClassVar[bool] = False
    """Whether the model has a state along a clip, so that it is trained on windows of clips."""
    same_each_step: ClassVar[bool] = False
    """Whether training always does the same on the host for equal shapes and never waits for a GPU."""
    encoder_name: ClassVar[str | None] = None
    head_name: ClassVar[str | None] = None
    """Names of encoder and last convolution in the segmenter, as ``get_submodule`` takes them."""

    def build(self, maps: Sequence[LabelMap]) -> "Segmenter":
        """Returns a freshly initialised segmenter; ``load_pretrained`` is a separate step, for training only."""
        raise TypeError(f"{type(self).__name__} must implement build")

    @property
    def encoder_config(self) -> EncoderModelConfig | None:
        """The config of the encoder, if it has one that can be pretrained."""
        return None

    def encoder_of(self, segmenter: "Segmenter") -> "nn.Module":
        """Returns the encoder of a segmenter.

        Raises:
            MaskcastError: the config does not name it.
        """
        if self.encoder_name is None:
            raise MaskcastError(f"{type(self).__name__}: sets no encoder_name; set it, e.g. to network.encoder")
        return segmenter.get_submodule(self.encoder_name)

    def head_of(self, segmenter: "Segmenter") -> "nn.Module":
        """Returns the last convolution of a segmenter, which gives the logits of all maps.

        Raises:
            MaskcastError: the config does not name it.
        """
        if self.head_name is None:
            raise MaskcastError(
                f"{type(self).__name__}: sets no head_name, the convolution that learns what classes share; "
                "set it, e.g. to network.head, or train_masker.attributes to false"
            )
        return segmenter.get_submodule(self.head_name)

    @property
    def unweighted(self) -> Self:
        """The config of the same network without pretrained weights."""
        return self

    def load_pretrained(self, segmenter: "Segmenter") -> "Pretrained | None":
        """Loads the pretrained weights that the config names, and returns them; None if it names none."""
        return None


class LossConfig(Params):
    """Base of the config of a loss of maps of classes; a subclass adds ``name: Literal[...]`` and its values."""

    def build(self, label_map: LabelMap) -> "Callable[[Tensor, Tensor], Tensor]":
        """Returns the loss of a map, a module or a function from logits and class ids to a scalar.

        The logits are (N, K, H, W) float32. The ids are (N, H, W) int64; 255 means no label and must not count,
        and at least one pixel has a label. K is the number of the map's classes, or of groups of classes for
        samples of ``recoloured``.
        """
        raise TypeError(f"{type(self).__name__} must implement build")


class MaskerModelConfig(SegmenterModelConfig):
    """Base of the config of a segmenter without state: it names the network, ``build`` wraps it."""

    def network(self, channels: int) -> "tuple[nn.Module, int]":
        """Returns a fresh network with ``channels`` logit channels, and the divisor of its input sizes."""
        raise TypeError(f"{type(self).__name__} must implement network")

    def build(self, maps: Sequence[LabelMap]) -> "Segmenter":
        """Returns a freshly initialised masker."""
        from torch import nn

        from maskcast.models.segmentation.base import Masker, logit_channels

        made: Any = self.network(sum(logit_channels(maps)))
        is_pair = isinstance(made, Sequence) and len(made) == 2
        if not is_pair or not isinstance(made[0], nn.Module) or not isinstance(made[1], Integral):
            expected = "a pair: the network, a torch module, and the divisor of its input sizes, an int"
            raise returned_error(self, "network", expected, made)
        network, divisor = made
        return Masker(network, int(divisor), maps, f"{class_name(self)}.network")
