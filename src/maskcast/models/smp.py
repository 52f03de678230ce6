"""Maskers of segmentation-models-pytorch: U-Net, U-Net++ and DeepLabV3+ over any of its encoders.

Nothing is downloaded: weights are random, or an encoder's come from a local safetensors file. The library is
imported when a network is built, because that takes seconds.
"""

import difflib
from pathlib import Path
from typing import Literal

from torch import nn

from maskcast.errors import MaskcastError
from maskcast.models.base import load_weights
from maskcast.models.masker_base import Masker, MaskerModelConfig

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
        try:
            import segmentation_models_pytorch as smp
        except ModuleNotFoundError as error:
            raise MaskcastError(
                f"arch {self.arch!r} needs {error.name}, which is not installed; choose 'unet', "
                "or use an image with torchvision (docs/images.md)"
            ) from None

        _check_encoder(self.encoder, smp.encoders.get_encoder_names())
        make = getattr(smp, CLASS_NAMES[self.arch])
        try:
            network: nn.Module = make(self.encoder, encoder_weights=None, in_channels=3, classes=num_classes)
        except (ValueError, NotImplementedError, RuntimeError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise MaskcastError(
                f"encoder {self.encoder!r} does not fit {self.arch}: {reason}; choose another"
            ) from None
        return network, _stride(network)

    def load_pretrained(self, masker: Masker) -> None:
        """Loads ``encoder_weights``; names and shapes must match the encoder's exactly."""
        if self.encoder_weights is not None:
            encoder = masker.network.encoder
            assert isinstance(encoder, nn.Module)
            load_weights(encoder, self.encoder_weights)


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


def _stride(network: nn.Module) -> int:
    encoder = network.encoder
    assert isinstance(encoder, nn.Module)
    stride = encoder.output_stride
    assert isinstance(stride, int)
    return stride
