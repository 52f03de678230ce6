"""Model folders that somebody made to hurt: one line with the file's name, before anything large is allocated."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.registered import write_parts

from maskcast.errors import MaskcastError
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.table import load_masker
from maskcast.registry.kinds import ForecastDescription


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    return write_parts(tmp_path)


def change(folder: Path, **changed: Any) -> None:
    path = folder / "config.json"
    known = json.loads(path.read_text())
    model = known["model"] | changed.pop("model", {})
    path.write_text(json.dumps(known | {"model": model} | changed))


@pytest.mark.parametrize(
    ("part", "changed", "line"),
    [
        ("masker", {"model": {"width": 10**6}}, "far larger network"),
        ("masker", {"model": {"width": 10**30}}, "model: "),
        ("forecaster", {"model": {"hidden": 10**5}}, "far larger network"),
        ("forecaster", {"model": {"layers": 10**9}}, "model: "),
        ("forecaster", {"num_classes": 10**9}, "num_classes from 0 to 65536"),
        ("forecaster", {"num_classes": "many"}, "num_classes from 0 to 65536"),
        ("forecaster", {"num_classes": 65536}, "wrong shape of weights"),
        ("forecaster", {"meta": [1]}, "no model, meta and num_classes"),
        ("masker", {"model": {"width": -1}}, "model: "),
        (
            "masker",
            {"meta": {"maps": [{"name": "m", "classes": ["a"], "kind": None}]}},
            "no classes or label maps (",
        ),
    ],
)
def test_a_config_that_is_a_bomb(parts: dict[str, Path], part: str, changed: dict[str, Any], line: str) -> None:
    change(parts[part], **changed)
    refused(parts, part, line)


def refused(parts: dict[str, Path], part: str, line: str) -> None:
    load = load_masker if part == "masker" else load_forecaster
    with pytest.raises(MaskcastError) as raised:
        load(parts[part])
    said = str(raised.value)
    assert said.startswith(str(parts[part])) and line in said and "\n" not in said and len(said) < 600, said


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, '{"format": ' + "9" * 5000 + "}"])
def test_a_config_that_is_no_config(parts: dict[str, Path], text: str) -> None:
    (parts["masker"] / "config.json").write_text(text)
    refused(parts, "masker", "config.json: not valid JSON (")


@pytest.mark.parametrize("part", ["masker", "forecaster"])
def test_weights_that_were_damaged(parts: dict[str, Path], part: str) -> None:
    load = load_masker if part == "masker" else load_forecaster
    path, config = parts[part] / "model.safetensors", parts[part] / "config.json"
    content = bytearray(path.read_bytes())
    content[-16:] = bytes(16)
    path.write_bytes(content)
    refused(parts, part, "model.safetensors: contents differ from the sha256 in config.json; train or fetch")
    description = json.loads(config.read_text())
    del description["sha256"]  # as models of before have none
    config.write_text(json.dumps(description))
    load(parts[part])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(parts: dict[str, Path], value: float) -> None:
    path = parts["masker"] / "model.safetensors"
    state = load_file(path)
    state["network.head.weight"].view(-1)[0] = value
    save_file(state, path)
    refused(parts, "masker", "network.head.weight (1 in all) has values that are not finite")


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (struct.pack("<Q", 2**62), "header of 4611686018427387904 bytes, at most"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "not a file of weights in safetensors"),
        (struct.pack("<Q", 2) + b"{}", "missing weights mean"),
        (struct.pack("<Q", 2) + b"[]", "not a file of weights in safetensors"),
        (b"", "not a file of weights in safetensors"),
    ],
)
def test_a_header_that_is_a_bomb(parts: dict[str, Path], raw: bytes, line: str) -> None:
    (parts["masker"] / "model.safetensors").write_bytes(raw)
    refused(parts, "masker", line)


def test_shapes_without_numbers_behind_them(parts: dict[str, Path]) -> None:
    path = parts["masker"] / "model.safetensors"
    state = load_file(path)
    header = {
        name: {"dtype": "F32", "shape": list(one.shape), "data_offsets": [0, 4 * one.numel()]}
        for name, one in state.items()
    }
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    refused(parts, "masker", "not a file of weights in safetensors")


def test_a_horizon_is_bounded() -> None:
    facts = {"kind": "pipeline", "precision": "fp32", "context_frames": 4, "height": 8, "width": 8, "classes": []}
    with pytest.raises(ValueError, match="less than or equal to 4096"):
        ForecastDescription(horizon=10**6, **facts)  # type: ignore[arg-type]


def test_random_numbers_are_those_of_a_network_that_is_built_outside(parts: dict[str, Path]) -> None:
    network, _ = load_masker(parts["masker"])
    for name, weights in load_file(parts["masker"] / "model.safetensors").items():
        assert torch.equal(network.state_dict()[name], weights)
