"""Encoders of segmentation-models-pytorch and timm.

Nothing is downloaded. The library is imported when a network is built, because that takes seconds.
"""

import difflib
from typing import Any

from torch import nn

from maskcast.errors import MaskcastError

REFUSALS = (ValueError, NotImplementedError, RuntimeError, AttributeError, TypeError)  # how the library says no


def build_encoder(name: str, arch: str) -> nn.Module:
    """Returns the encoder ``name`` to its deepest map, freshly initialised; errors name ``arch``.

    Raises:
        MaskcastError: if the library or the encoder is not there.
    """
    smp = library(arch)
    check_encoder(name, smp.encoders.get_encoder_names())
    try:
        encoder: nn.Module = smp.encoders.get_encoder(name, in_channels=3, depth=5, weights=None)
    except REFUSALS as error:
        raise MaskcastError(f"encoder {name!r}: {reason(error)}; choose another") from None
    return encoder


def bare(encoder: nn.Module) -> nn.Module:
    """Returns the module whose weights have the names that their library gives them: smp wraps timm's."""
    wrapped = getattr(encoder, "model", None)
    return wrapped if isinstance(wrapped, nn.Module) else encoder


def library(arch: str) -> Any:
    """Returns segmentation-models-pytorch, which ``arch`` needs."""
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError as error:
        raise MaskcastError(
            f"arch {arch!r} needs {error.name}, which is not installed; choose 'unet', "
            "or use an image with torchvision (docs/images.md)"
        ) from None
    return smp


def check_encoder(name: str, own: list[str]) -> None:
    """Makes sure that an encoder is one of the library's ``own`` or of timm's; the error names what is close."""
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


def reason(error: Exception) -> str:
    """Returns the first line of what a library said."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
