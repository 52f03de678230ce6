"""Exports networks as graphs (torch.export or ONNX), and runs exported pipelines.

Legend: B clips, T context frames, h horizon, H height, W width, C = 3 channels, K classes.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from runpy import run_path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.errors import MaskcastError, first_line
from maskcast.reading import read_json
from maskcast.registry.forecast_models import PipelineModel

Format = Literal["torch-export", "onnx"]
SUFFIXES: dict[Format, str] = {"torch-export": ".pt2", "onnx": ".onnx"}
MANIFEST = "export.json"
OPSET = 18
CLIPS = "clips"  # name of the axis of variable length


class PipelineGraph(nn.Module):
    """A pipeline as one module, float32 on the CPU: frames (B, T, H, W, C) -> masks (B, h, H, W), both uint8."""

    def __init__(self, model: PipelineModel) -> None:
        super().__init__()
        self.masker, self.forecaster = MaskerGraph(model), ForecasterGraph(model)
        self.sees_frames = model.forecaster.input.needs_masker

    def forward(self, frames: Tensor) -> Tensor:
        """Forecasts clips."""
        if self.sees_frames:
            return self._mask(self.forecaster(frames))
        return self.forecaster(self._mask(frames))

    def _mask(self, frames_BTHWC: Tensor) -> Tensor:
        return _masks(self.masker.logits(frames_BTHWC))


class MaskerGraph(nn.Module):
    """The masker of a pipeline: frames to masks (B, T, H, W) uint8 and probabilities (B, T, H, W, K) float32."""

    def __init__(self, model: PipelineModel) -> None:
        super().__init__()
        self.network, self.map_index = model.masker.network.cpu(), model.masker.map_index

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Masks the frames of clips, each by itself."""
        logits_BTKHW = self.logits(frames)
        return _masks(logits_BTKHW), logits_BTKHW.permute(0, 1, 3, 4, 2).softmax(-1)

    def logits(self, frames_BTHWC: Tensor) -> Tensor:
        """Returns the logits (B, T, K, H, W) of the forecast label map."""
        logits, _ = self.network(frames_BTHWC)
        return logits[self.map_index]


class ForecasterGraph(nn.Module):
    """The forecaster of a pipeline: masks (B, T, H, W) or frames to those that follow."""

    def __init__(self, model: PipelineModel) -> None:
        super().__init__()
        self.network, self.horizon = model.forecaster.network.cpu(), model.forecaster.horizon

    def forward(self, masks: Tensor) -> Tensor:
        """Forecasts clips."""
        return self.network.forecast(masks, self.horizon)


def _masks(logits_BTKHW: Tensor) -> Tensor:
    return logits_BTKHW.argmax(2).to(torch.uint8)


def trace(graph: nn.Module, title: str, batch: np.ndarray, *more: np.ndarray) -> Any:
    """Traces a graph with torch.export, with a variable number of clips.

    Args:
        graph: takes one tensor, or several, of which all but the first are a starred argument.
        title: its name in errors.
        batch: example input, at least two clips.
        more: the other tensors, for as many clips.

    Raises:
        MaskcastError: it cannot be traced.
    """
    try:
        clips = {0: torch.export.Dim(CLIPS, min=1)}
        with _quiet():
            return torch.export.export(
                graph.eval().requires_grad_(False),
                tuple(torch.from_numpy(each[:2]) for each in (batch, *more)),
                dynamic_shapes=(clips, (clips,) * len(more)) if more else (clips,),
            )
    except Exception as error:  # torch.export may raise any error of the traced code
        reason = f"{type(error).__name__}: {first_line(error)[:200]}"
        raise MaskcastError(
            f"{title}: cannot be exported as one graph ({reason}); serve it, or train another arch"
        ) from error


def write_graph(program: Any, path: Path, inputs: list[str], outputs: list[str], about: dict[str, Any]) -> None:
    """Writes a traced graph, with ``about`` as metadata, in the format given by the suffix of ``path``."""
    with _quiet():
        if path.suffix == SUFFIXES["torch-export"]:
            archive = BytesIO()  # in memory, as torch's file writer aborts the process if the disk is full
            torch.export.save(program, archive, extra_files={"maskcast.json": json.dumps(about)})
            path.write_bytes(archive.getbuffer())
            return
        # no optimisation here: ONNX Runtime optimises on load, and onnxscript 0.7 would break the graph
        names: dict[str, Any] = {"input_names": inputs, "output_names": outputs}
        exported = torch.onnx.export(program, opset_version=OPSET, optimize=False, verbose=False, **names)
        assert exported is not None
        for each in (*exported.model.graph.inputs, *exported.model.graph.outputs):
            shape = each.shape
            assert shape is not None
            each.shape = type(shape)([CLIPS, *shape[1:]])  # torch names it s77 or similar
        exported.model.metadata_props["maskcast"] = json.dumps(about)
        exported.save(path)


def run_exported(folder: Path, clips_BTHWC: np.ndarray) -> np.ndarray:
    """Runs an exported pipeline step by step, like its users; returns masks (B, h, H, W)."""
    about = read_json(folder / MANIFEST, "exported pipeline", "give one that `maskcast models export` wrote")
    values = {about["input"]["name"]: clips_BTHWC}
    for step in about["steps"]:
        inputs = [values[name] for name in step["inputs"]]
        if "function" in step:
            function = run_path(str(folder / step["file"]))[step["function"]]
            outputs = [np.stack([function(*clip, **step["arguments"]) for clip in zip(*inputs, strict=True)])]
        else:
            (batch,) = inputs
            outputs = load_graph(folder / step["file"])(batch)
        values |= zip(step["outputs"], outputs, strict=True)
    return values[about["output"]["name"]]


def load_graph(path: Path) -> Callable[..., list[np.ndarray]]:
    """Returns a function that runs a graph: inputs in order to a list of outputs."""
    if path.suffix == SUFFIXES["onnx"]:
        import onnxruntime  # type: ignore[import-not-found, import-untyped, unused-ignore]

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # else it warns of operations that it cannot optimise
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]

        def run_onnx(*inputs: np.ndarray) -> list[np.ndarray]:
            return session.run(None, dict(zip(names, inputs, strict=True)))

        return run_onnx
    module = torch.export.load(path).module()

    def run_torch(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = module(*map(torch.from_numpy, inputs))
        return [each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run_torch


@contextmanager
def _quiet() -> Iterator[None]:
    """A context that silences the messages of torch's exporters."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
