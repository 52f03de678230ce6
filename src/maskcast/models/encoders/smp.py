"""Encoders of segmentation-models-pytorch and timm.

The library is imported when a network is built, because that takes seconds. It is not allowed to download:
``pretrained.py`` fetches weights, and this module lets the library read them.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskcast.errors import MaskcastError, first_line
from maskcast.models.encoders.vit import ViTEncoder, is_vit
from maskcast.models.weights import load_weights, read_weights
from maskcast.spelling import suggestion

DEPRECATED = "timm-"  # the library's old prefix for some of timm's encoders
BUILD_ERRORS = (ValueError, NotImplementedError, RuntimeError, AttributeError, TypeError)  # errors of the library


def build_encoder(name: str, arch: str) -> nn.Module:
    """Returns the encoder ``name`` with all its stages, freshly initialised; errors name ``arch``.

    Raises:
        MaskcastError: if the library or the encoder is not there.
    """
    smp = library(arch)
    check_encoder(name, smp.encoders.get_encoder_names())
    try:
        return _made(name)
    except BUILD_ERRORS as error:
        raise MaskcastError(f"encoder {name!r}: {first_line(error)}; choose another") from None


def check_pyramid(name: str, arch: str) -> None:
    """Checks that an encoder has maps of several strides, which ``arch`` needs.

    Raises:
        MaskcastError: it is a vision transformer.
    """
    if is_vit(name):
        raise MaskcastError(
            f"encoder {name!r} is a vision transformer, whose maps have one stride, and {arch} needs several; "
            "choose a convolutional encoder, e.g. 'tu-convnext_tiny.dinov3_lvd1689m', or a masker of arch smp_dpt"
        )


def _made(name: str, **settings: Any) -> nn.Module:
    """Returns an encoder; ``settings`` are further arguments of ``timm.create_model``."""
    if is_vit(name):
        return ViTEncoder(name, **settings)
    import segmentation_models_pytorch as smp

    weights = settings.pop("pretrained", None)
    encoder: nn.Module = smp.encoders.get_encoder(name, in_channels=3, depth=5, weights=weights, **settings)
    return encoder


def unwrapped(encoder: nn.Module) -> nn.Module:
    """Returns the encoder without smp's wrapper for timm, so that weights have their library's names."""
    wrapped = getattr(encoder, "model", None)
    return wrapped if isinstance(wrapped, nn.Module) else encoder


def load_pretrained(encoder: nn.Module, name: str, path: Path) -> None:
    """Loads weights with the names of ``unwrapped``, or as the library publishes them, e.g. with a classifier.

    Args:
        encoder: built by the library.
        name: its name in the library.
        path: safetensors file.

    Raises:
        MaskcastError: if the file cannot be read or lacks weights of the encoder.
    """
    own = unwrapped(encoder)
    if read_weights(path).keys() == own.state_dict().keys():
        load_weights(own, path)
        return
    try:
        if name.startswith("tu-"):
            own.load_state_dict(_convert_with_timm(name, path))
        else:
            own.load_state_dict(read_weights(path))  # the library's classes ignore the classifier
    except BUILD_ERRORS:
        load_weights(own, path)  # raises an error that names what does not fit
        raise


def _convert_with_timm(name: str, path: Path) -> dict[str, torch.Tensor]:
    """Returns the state of an encoder that timm builds and loads.

    timm silently skips weights that a file lacks. So two differently initialised encoders are loaded, which must
    end up equal.

    Raises:
        MaskcastError: if the file lacks weights.
    """
    logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of unused classifier weights
    overlay = {"file": str(path), "custom_load": False}
    found = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            loaded = _made(name, pretrained=True, pretrained_cfg_overlay=overlay)
            found.append(unwrapped(loaded).state_dict())
    first, second = found
    if random := [key for key in first if not torch.equal(first[key], second[key])]:
        raise MaskcastError(
            f"{path}: missing weights {random[0]} ({len(random)} in all); the file belongs to another network"
        )
    return first


def hub_location(name: str) -> str:
    """Returns the place on the hub of the library's weights for an encoder: ``<owner>/<name>@<revision>``.

    timm pins no revision, so its weights may change.

    Raises:
        MaskcastError: if there are none.
    """
    import segmentation_models_pytorch as smp
    import timm

    if name.startswith("tu-"):
        known = timm.models.get_pretrained_cfg(name.removeprefix("tu-"))
        if known is not None and known.hf_hub_id:
            return f"{known.hf_hub_id}@main"
    else:
        settings = smp.encoders.encoders[name]["pretrained_settings"]
        if "imagenet" in settings:
            return "{repo_id}@{revision}".format(**settings["imagenet"])
    raise MaskcastError(
        f"encoder {name!r} has no pretrained weights on the hub; choose another encoder, or set "
        "model.encoder_weights to null or to a local safetensors file"
    )


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


def check_encoder(name: str, smp_names: list[str]) -> None:
    """Checks that an encoder is one of ``smp_names`` or of timm's; the error suggests similar names."""
    if name in smp_names and not name.startswith(DEPRECATED):
        return
    sought, known = name, [each for each in smp_names if not each.startswith(DEPRECATED)]
    if name.startswith(("tu-", DEPRECATED)):
        import timm

        if name.startswith("tu-") and timm.is_model(name.removeprefix("tu-")):
            return
        known = [f"tu-{model}" for model in timm.list_models()]
        sought = "tu-" + name.partition("-")[2].replace("-", "_")
    problem = (
        "is an old name of one of timm's" if name in smp_names else "is unknown to segmentation-models-pytorch"
    )
    raise MaskcastError(f"encoder {name!r} {problem}; {suggestion(sought, known)}")
