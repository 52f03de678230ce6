"""Saves and loads encoders, and loads pretrained encoders into other models.

``model.safetensors`` holds the state of the bare encoder with the names of its own library, so that torchvision
and timm can load it. An encoder without that file was not trained; models that start from it stay randomly
initialised.
"""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import nn

from maskcast.errors import MaskcastError
from maskcast.models.base import SHA256, WEIGHTS, read_description, save_description, save_model
from maskcast.models.config import as_text
from maskcast.models.encoders.configs import EncoderConfig, EncoderModelConfig
from maskcast.models.encoders.smp import unwrapped
from maskcast.models.weights import build_within_limit, load_weights
from maskcast.reading import parsing


def save_encoder(
    folder: Path, encoder: nn.Module | None, config: EncoderModelConfig, meta: dict[str, Any]
) -> None:
    """Writes ``config.json`` and, if the encoder was trained, ``model.safetensors``.

    Args:
        folder: made if it does not exist.
        encoder: built by ``config``; None if nothing was trained.
        config: its config.
        meta: ``method``, and ``mean`` and ``std`` of the colours in training.
    """
    if encoder is not None:
        save_model(folder, unwrapped(encoder), config, num_classes=0, meta=meta)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        save_description(folder, config, num_classes=0, meta=meta)


def is_trained(folder: Path) -> bool:
    """Whether an encoder folder has weights, i.e. the method was not ``none``.

    Raises:
        MaskcastError: if the folder holds no encoder.
    """
    description = read_description(folder)
    _config(folder, description)
    return bool(description["meta"]["method"] != "none")


def load_encoder(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Returns an encoder that ``pretrain_encoder`` wrote, in eval mode, and its description.

    If the method was ``none``, it is initialised from torch's random state.

    Raises:
        MaskcastError: if the folder holds no encoder or a damaged one.
    """
    description = read_description(folder)
    config = _config(folder, description)
    encoder = build_within_limit(folder / WEIGHTS, config, config.build)
    load_into(encoder, folder, config, "this encoder")
    return encoder.eval(), description


def load_into(encoder: nn.Module, folder: Path, config: EncoderModelConfig, key: str) -> dict[str, Any] | None:
    """Loads a pretrained encoder into the encoder of another model; names and shapes must match exactly.

    Args:
        encoder: built by ``config``; unchanged if the method was ``none``.
        folder: written by ``pretrain_encoder``.
        config: of the other model's encoder.
        key: name of the param that chose it, for errors, e.g. ``train_masker.model``.

    Returns:
        The description, or None if the method was ``none``.

    Raises:
        MaskcastError: if the folder holds no encoder, a damaged one, or one of another architecture.
    """
    description = read_description(folder)
    trained = _config(folder, description)
    if description["meta"]["method"] == "none":
        return None
    if trained != config:
        trained_text, needed_text = (as_text(each.model_dump(mode="json")) for each in (trained, config))
        raise MaskcastError(
            f"{folder}: pretrain_encoder.model is {trained_text}, but {key} needs {needed_text}; make the two "
            "params agree"
        )
    load_weights(unwrapped(encoder), folder / WEIGHTS, description[SHA256].get(WEIGHTS))
    return description


def _config(folder: Path, description: dict[str, Any]) -> EncoderModelConfig:
    with parsing(folder / "config.json", "an encoder", "give the folder that pretrain_encoder wrote"):
        assert description["meta"]["method"]
        config: EncoderModelConfig = TypeAdapter(EncoderConfig).validate_python(description["model"])
    return config
