"""Maskers of segmentation-models-pytorch (U-Net, U-Net++ and DeepLabV3+) and its encoders.

Nothing is downloaded: weights are random, or an encoder's come from ``pretrain_encoder`` or a local safetensors
file. The library is imported when a network is built, because that takes seconds.
"""

from pathlib import Path
from typing import Literal

from torch import nn

from maskcast.errors import MaskcastError
from maskcast.models.base import load_weights
from maskcast.models.encoders.smp import REFUSALS, SmpEncoderConfig, bare, check_encoder, library, reason
from maskcast.models.segmentation.base import Masker, MaskerModelConfig

CLASS_NAMES = {"smp_unet": "Unet", "smp_unetplusplus": "UnetPlusPlus", "smp_deeplabv3plus": "DeepLabV3Plus"}


class SmpConfig(MaskerModelConfig):
    """A decoder and an encoder of segmentation-models-pytorch."""

    arch: Literal["smp_unet", "smp_unetplusplus", "smp_deeplabv3plus"]
    encoder: str = "resnet18"
    """Name of the encoder: one of the library's own, or ``tu-<name>`` for one of timm's."""
    encoder_weights: Path | None = None
    """Safetensors file with the state of the bare encoder to start training from; null starts at random."""

    def network(self, num_classes: int) -> tuple[nn.Module, int]:
        """Returns the network, and the deepest stride of its encoder.

        Raises:
            MaskcastError: if the library or the encoder is not there, or the architecture cannot use the encoder.
        """
        smp = library(self.arch)
        check_encoder(self.encoder, smp.encoders.get_encoder_names())
        make = getattr(smp, CLASS_NAMES[self.arch])
        try:
            network: nn.Module = make(self.encoder, encoder_weights=None, in_channels=3, classes=num_classes)
        except REFUSALS as error:
            raise MaskcastError(
                f"encoder {self.encoder!r} does not fit {self.arch}: {reason(error)}; choose another"
            ) from None
        return network, _stride(network)

    @property
    def encoder_config(self) -> SmpEncoderConfig:
        """The config of the encoder that it could start from."""
        return SmpEncoderConfig(arch="smp", encoder=self.encoder)

    def encoder_of(self, masker: Masker) -> nn.Module:
        """Returns the part of a masker that is its encoder."""
        return _encoder(masker.network)

    def load_pretrained(self, masker: Masker) -> bool:
        """Loads ``encoder_weights``, if it is set; names and shapes must match the encoder's exactly."""
        if self.encoder_weights is None:
            return False
        load_weights(bare(self.encoder_of(masker)), self.encoder_weights)
        return True


def _encoder(network: nn.Module) -> nn.Module:
    encoder = network.encoder
    assert isinstance(encoder, nn.Module)
    return encoder


def _stride(network: nn.Module) -> int:
    stride = _encoder(network).output_stride
    assert isinstance(stride, int)
    return stride
