"""Maskers of segmentation-models-pytorch (U-Net, U-Net++ and DeepLabV3+) and its encoders.

Nothing is downloaded: weights are random, or an encoder's come from ``pretrain_encoder`` or a local safetensors
file. The library is imported when a network is built, because that takes seconds.
"""

import difflib
from pathlib import Path
from typing import Any, Literal

from torch import nn

from maskcast.errors import MaskcastError
from maskcast.models.base import load_weights
from maskcast.models.encoder_base import EncoderModelConfig
from maskcast.models.masker_base import Masker, MaskerModelConfig

CLASS_NAMES = {"smp_unet": "Unet", "smp_unetplusplus": "UnetPlusPlus", "smp_deeplabv3plus": "DeepLabV3Plus"}
REFUSALS = (ValueError, NotImplementedError, RuntimeError, AttributeError, TypeError)  # how the library says no


class SmpEncoderConfig(EncoderModelConfig):
    """An encoder of segmentation-models-pytorch, to its deepest map."""

    arch: Literal["smp"]
    encoder: str = "resnet18"
    """Name of the encoder: one of the library's own, or ``tu-<name>`` for one of timm's."""

    def build(self) -> nn.Module:
        """Returns the encoder, freshly initialised.

        Raises:
            MaskcastError: if the library or the encoder is not there.
        """
        smp = _library(self.arch)
        _check_encoder(self.encoder, smp.encoders.get_encoder_names())
        try:
            encoder: nn.Module = smp.encoders.get_encoder(self.encoder, in_channels=3, depth=5, weights=None)
        except REFUSALS as error:
            raise MaskcastError(f"encoder {self.encoder!r}: {_reason(error)}; choose another") from None
        return encoder


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
        smp = _library(self.arch)
        _check_encoder(self.encoder, smp.encoders.get_encoder_names())
        make = getattr(smp, CLASS_NAMES[self.arch])
        try:
            network: nn.Module = make(self.encoder, encoder_weights=None, in_channels=3, classes=num_classes)
        except REFUSALS as error:
            raise MaskcastError(
                f"encoder {self.encoder!r} does not fit {self.arch}: {_reason(error)}; choose another"
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


def bare(encoder: nn.Module) -> nn.Module:
    """Returns the module whose weights have the names that their library gives them: smp wraps timm's."""
    wrapped = getattr(encoder, "model", None)
    return wrapped if isinstance(wrapped, nn.Module) else encoder


def _library(arch: str) -> Any:
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError as error:
        raise MaskcastError(
            f"arch {arch!r} needs {error.name}, which is not installed; choose 'unet', "
            "or use an image with torchvision (docs/images.md)"
        ) from None
    return smp


def _check_encoder(name: str, own: list[str]) -> None:
    known = own
    if name.startswith("tu-"):
        import timm

        known = [f"tu-{model}" for model in timm.list_models()]
        if timm.is_model(name.removeprefix("tu-")):
            return
    if name not in known or name.startswith("timm-"):
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"allowed: {', '.join(known)}"
        raise MaskcastError(f"encoder {name!r} is unknown to segmentation-models-pytorch; {hint}")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _encoder(network: nn.Module) -> nn.Module:
    encoder = network.encoder
    assert isinstance(encoder, nn.Module)
    return encoder


def _stride(network: nn.Module) -> int:
    stride = _encoder(network).output_stride
    assert isinstance(stride, int)
    return stride
