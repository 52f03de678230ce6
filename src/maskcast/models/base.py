"""Shared by all networks: model folders (without pickle) and the available devices."""

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.models.weights import N, build_within_limit, load_weights
from maskcast.params import Params
from maskcast.reading import read_json, reason_of
from maskcast.writing import write_json

FORMAT = "maskcast-model/1"
WEIGHTS = "model.safetensors"
SHA256 = "sha256"  # key in config.json: the sha256 of each file of weights
MAX_CLASSES = 2**16


def save_model(folder: Path, model: nn.Module, config: Params, *, num_classes: int, meta: dict[str, Any]) -> None:
    """Writes ``model.safetensors`` and ``config.json`` into ``folder``.

    Args:
        folder: made if it does not exist.
        model: its ``state_dict`` is saved, on the CPU.
        config: the config that built it.
        num_classes: the number of classes it was built for.
        meta: further information for readers (class names, context length, ...), as JSON values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(storable(model.state_dict()), folder / WEIGHTS, metadata={"format": FORMAT})
    save_description(folder, config, num_classes=num_classes, meta=meta)


def storable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies of tensors as safetensors writes them: on the CPU, each with memory of its own.

    A network that uses a module or a weight twice has it under two names, both of which are written.
    """
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }


def save_description(folder: Path, config: Params, *, num_classes: int, meta: dict[str, Any]) -> None:
    """Writes ``config.json``, which describes a network and has the sha256 of the weights in its folder."""
    description = {
        "format": FORMAT,
        "model": config.model_dump(mode="json"),
        "num_classes": num_classes,
        "meta": meta,
    }
    if digests := {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}:
        description[SHA256] = digests
    write_json(folder / "config.json", description)


def load_model(folder: Path, configs: Any, kind: str) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the model in eval mode, and its description (``model``, ``num_classes``, ``meta``).

    Args:
        folder: what ``save_model`` wrote.
        configs: the accepted config class, or union of config classes.
        kind: what these are, for errors: `forecaster` or `detector`.

    Raises:
        MaskcastError: if a file is missing or damaged, the architecture is not among ``configs``, or the
            weights' names or shapes differ from the network's.
    """
    description = read_description(folder)
    config = validated_config(folder, description, configs, kind)
    return build_and_load(
        folder, description, config, lambda: config.build(description["num_classes"])
    ), description


def validated_config(folder: Path, description: dict[str, Any], configs: Any, kind: str) -> Any:
    """Returns the validated config of the model in a folder.

    Raises:
        MaskcastError: if it is not one of ``configs``, which are those of a kind of model.
    """
    try:
        return TypeAdapter(configs).validate_python(description["model"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"].startswith("union_tag_") or first["loc"] == ("arch",):
            arch = description["model"].get("arch")
            raise MaskcastError(
                f"{folder / 'config.json'}: model: {arch!r} is no installed {kind}; give the folder of a {kind}, "
                "or install the package that has it"
            ) from None
        raise MaskcastError(
            f"{folder / 'config.json'}: model: {reason_of(error)}; give a model of another stage, or install the "
            "package that has it"
        ) from None


def build_and_load(folder: Path, description: dict[str, Any], config: Params, build: Callable[[], N]) -> N:
    """Builds the network of a config, loads the weights of a folder into it, and returns it in eval mode.

    Raises:
        MaskcastError: if the weights are missing, damaged or of another network, the network is far larger than
            the weights, or it cannot be built.
    """
    model = build_within_limit(folder / WEIGHTS, config, build)
    load_weights(model, folder / WEIGHTS, description[SHA256].get(WEIGHTS))
    return model.eval()


def read_description(folder: Path) -> dict[str, Any]:
    """Returns the contents of ``config.json``.

    Raises:
        MaskcastError: if it is missing or not a description of a model.
    """
    path = folder / "config.json"
    description = read_json(path, "model", "give the folder that a training stage wrote")
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise MaskcastError(f"{path}: not a {FORMAT} description; give the folder that a training stage wrote")
    defaults = {"model": {}, "meta": {}, "num_classes": 0, SHA256: {}}  # callers check for what they need
    description = defaults | description
    classes = description["num_classes"]
    if not all(isinstance(description[key], dict) for key in ("model", "meta", SHA256)) or (
        type(classes) is not int or not 0 <= classes <= MAX_CLASSES
    ):
        raise MaskcastError(
            f"{path}: no model, meta and num_classes from 0 to {MAX_CLASSES}; train or fetch the model again"
        )
    return description


def count_parameters(model: nn.Module) -> int:
    """Returns the number of learnable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def best_device() -> torch.device:
    """Returns the accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of a model; the CPU if it has neither parameters nor buffers."""
    return next((one.device for one in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def all_devices() -> list[torch.device]:
    """Returns all accelerators of this machine, or the CPU if there are none."""
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())] or [torch.device("cpu")]
