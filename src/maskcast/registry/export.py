"""Exports a registered pipeline as one graph, for programs without maskcast: frames in, future masks out.

The graph has fixed numbers of frames, rows and columns (those of the evaluation); the number of clips is free. It
computes in float32, and is written only if it agrees with the model.

Legend: B clips, T frames seen, h horizon, H height, W width, C = 3 channels.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.data.images import resize_frames
from maskcast.errors import MaskcastError
from maskcast.registry.loading import LoadedPipeline
from maskcast.registry.runtime import PipelineModel
from maskcast.runner.outputs import outputs_whole

Format = Literal["torch-export", "onnx"]
FILES: dict[Format, str] = {"torch-export": "model.pt2", "onnx": "model.onnx"}
MOST_DIFFERENT = 1e-4  # share of pixels: two libraries round sums differently, and a tie may fall either way
OPSET = 18
CLIPS = 4


class Graph(nn.Module):
    """A pipeline as one module, float32 on the CPU: frames (B, T, H, W, C) -> masks (B, h, H, W), both uint8."""

    def __init__(self, model: PipelineModel) -> None:
        super().__init__()
        self.masker, self.forecaster = model.masker.network.cpu(), model.forecaster.network.cpu()
        self.horizon, self.place = model.forecaster.horizon, model.masker.place

    def forward(self, frames: Tensor) -> Tensor:
        """Forecasts clips."""
        if self.forecaster.input.needs_masker:
            return self._mask(self.forecaster.forecast(frames, self.horizon))
        masks: Tensor = self.forecaster.forecast(self._mask(frames), self.horizon)
        return masks

    def _mask(self, frames_BTHWC: Tensor) -> Tensor:
        """Returns the masks (B, T, H, W) of frames."""
        logits, _ = self.masker(frames_BTHWC)
        masks_BTHW: Tensor = logits[self.place].argmax(2).to(torch.uint8)
        return masks_BTHW


def export(loaded: LoadedPipeline, form: Format, output: Path) -> str:
    """Writes a pipeline as a graph, and returns a line that says how well the two agree.

    ``output`` becomes a folder: ``model.pt2`` or ``model.onnx``, and ``export.json``: what goes in and out.

    Args:
        loaded: the pipeline.
        form: torch-export needs torch to run, onnx any ONNX runtime.
        output: the folder; an older one is replaced.

    Raises:
        MaskcastError: the model cannot be written as a graph, the two disagree, or a package is missing.
    """
    if form == "onnx":
        _check_packages()
    model = loaded.model
    if model.consistent_frames is not None and not model.forecaster.input.needs_masker:
        raise MaskcastError(
            f"{loaded.title}: consistent_frames is {model.consistent_frames}, and no graph makes masks agree; "
            "serve it, or register one made with generate_masks.consistent_frames: null"
        )
    graph = Graph(model).eval().requires_grad_(False)
    clips = check_clips(loaded)
    partial = output.with_name(output.name + ".partial")
    with outputs_whole({"output": output}, {"output": partial}):
        partial.mkdir()
        path = partial / FILES[form]
        about = _about(loaded, form)
        program = traced(graph, clips, loaded.title)
        with _quiet():
            if form == "onnx":
                _write_onnx(program, path, about)
            else:
                torch.export.save(program, path, extra_files={"maskcast.json": json.dumps(about)})
            found = run_exported(path, clips)
        with torch.inference_mode():
            wanted = graph(torch.from_numpy(clips)).numpy()
        different = float((found != wanted).mean())
        told = f"{int((found != wanted).sum())} of {found.size} pixels differ from the model in float32"
        if different > MOST_DIFFERENT:
            raise MaskcastError(
                f"{loaded.title}: as {form}, {told}, more than {MOST_DIFFERENT:.2%}; nothing is written: "
                "export it in the other format, or with other versions of torch and onnx"
            )
        about["checked"] = {"clips": len(clips), "pixels": found.size, "share_different": different}
        (partial / "export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return f"{loaded.title}: {output / FILES[form]}, {told}"


def run_exported(path: Path, clips_BTHWC: np.ndarray) -> np.ndarray:
    """Runs an exported file as its users do; returns masks (B, h, H, W)."""
    if path.suffix == ".onnx":
        import onnxruntime  # type: ignore[import-not-found, import-untyped, unused-ignore]

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of what it cannot make faster
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found: np.ndarray = session.run(None, {"frames": clips_BTHWC})[0]
        return found
    with torch.inference_mode():
        masks: Tensor = torch.export.load(path).module()(torch.from_numpy(clips_BTHWC))
    return masks.numpy()


def check_clips(loaded: LoadedPipeline) -> np.ndarray:
    """Returns clips (B, T, H, W, C) to compare by: the registration's example, enlarged, in several guises."""
    about = loaded.about
    example_THWC = resize_frames(loaded.example[0], about.height, about.width)
    noise = np.random.default_rng(0).integers(-8, 9, (CLIPS, *example_THWC.shape))
    guises = np.stack([example_THWC, example_THWC[:, :, ::-1], example_THWC[:, ::-1], example_THWC[::-1]])
    return (guises + noise).clip(0, 255).astype(np.uint8)


def traced(graph: Graph, clips: np.ndarray, title: str) -> Any:
    """Returns the graph as torch.export traces it."""
    batch = torch.export.Dim("clips", min=1)
    try:
        with _quiet():
            return torch.export.export(
                graph, (torch.from_numpy(clips[:2]),), dynamic_shapes={"frames": {0: batch}}
            )
    except Exception as error:  # torch.export raises whatever the code that it traces does
        reason = str(error).strip().split("\n")[0][:200]
        raise MaskcastError(
            f"{title}: cannot be written as one graph ({reason}); serve it, or train another arch"
        ) from error


def _write_onnx(program: Any, path: Path, about: dict[str, Any]) -> None:
    # ONNX Runtime optimizes when it loads; the optimizer of onnxscript 0.7 breaks the graph
    names: dict[str, Any] = {"input_names": ["frames"], "output_names": ["masks"]}
    found = torch.onnx.export(program, opset_version=OPSET, optimize=False, verbose=False, **names)
    assert found is not None
    found.model.metadata_props["maskcast"] = json.dumps(about)
    found.save(path)


def _check_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise MaskcastError(f"{name}: is missing here, and onnx needs it; pip install 'maskcast[export]'")


def _about(loaded: LoadedPipeline, form: Format) -> dict[str, Any]:
    about = loaded.about
    clip = ["clips", about.context_frames, about.height, about.width, 3]
    return {
        "format": form,
        "model": {"name": loaded.name, "version": loaded.version, "digest": loaded.digest},
        "input": {"name": "frames", "dtype": "uint8", "shape": clip, "frame_stride": about.frame_stride},
        "output": {"name": "masks", "dtype": "uint8", "shape": ["clips", about.horizon, *clip[2:4]]},
        "classes": list(about.classes),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what torch's exporters say of their own workings."""
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
