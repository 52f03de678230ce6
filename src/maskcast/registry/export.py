"""Exports a registered pipeline as graphs from frames to future masks, for programs without maskcast.

A pipeline is one graph. If masks are made consistent over time, it is two graphs, masker and forecaster, with a
Python file between them that only needs numpy and OpenCV. Graphs have fixed numbers of frames, rows and columns
(those of the evaluation), and any number of clips. They compute in float32. They are only written if their results
agree with the model's.

Legend: B clips, T context frames, h horizon, H height, W width, C = 3 channels.
"""

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskcast.data.images import RESIZE, resize_frames
from maskcast.errors import MaskcastError
from maskcast.inference.segment import segment_raw_and_consistent
from maskcast.inference.worker import Worker
from maskcast.models.objects import consistency
from maskcast.registry.forecast_models import FRAMES_AT_ONCE, PipelineModel
from maskcast.registry.graphs import (
    MANIFEST,
    SUFFIXES,
    ForecasterGraph,
    Format,
    MaskerGraph,
    PipelineGraph,
    run_exported,
    trace,
    write_graph,
)
from maskcast.registry.loading import LoadedPipeline
from maskcast.runner.outputs import atomic_output, check_replaceable
from maskcast.writing import write_json

MAX_DIFFERENT_SHARE = 1e-4  # share of pixels, for ties that different rounding breaks differently
CLIPS = 4

Step = dict[str, Any]


def export(loaded: LoadedPipeline, form: Format, output: Path) -> str:
    """Writes a pipeline as graphs, and returns a line on how well their results agree with the model's.

    ``output`` becomes a folder with the graphs, ``agree.py`` if masks are made consistent, and ``export.json``,
    which describes inputs, outputs and steps.

    Args:
        loaded: the pipeline.
        form: torch-export (needs torch to run) or onnx (needs an ONNX runtime).
        output: the folder; an older export is replaced.

    Raises:
        MaskcastError: the model cannot be exported, results disagree, a package is missing, or the folder has
            files that are not an export.
    """
    check_output(output, form)
    clips = check_clips(loaded)
    expected = _in_float32(loaded.model, clips)
    with atomic_output(output) as partial:
        partial.mkdir()
        steps = _steps(loaded.model, form)
        about = _about(loaded, form) | {"steps": steps}
        about["output"]["name"] = steps[-1]["outputs"][0]
        _write_steps(partial, loaded, clips, about)
        write_json(partial / MANIFEST, about)
        exported = run_exported(partial, clips)
        different = np.count_nonzero(exported != expected)
        agreement = f"{different} of {exported.size} pixels differ from the model in float32"
        share = different / exported.size
        if share > MAX_DIFFERENT_SHARE:
            raise MaskcastError(
                f"{loaded.title}: as {form}, {agreement}, more than {MAX_DIFFERENT_SHARE:.2%}; nothing is "
                "written; export it in the other format, or with other versions of torch and onnx"
            )
        about["checked"] = {"clips": len(clips), "pixels": exported.size, "share_different": share}
        write_json(partial / MANIFEST, about)
    files = ", ".join(str(output / step["file"]) for step in steps)
    return f"{loaded.title}: {files}: {agreement}"


def check_clips(loaded: LoadedPipeline) -> np.ndarray:
    """Returns clips (B, T, H, W, C) for the comparison: the registered example, enlarged, in several variants."""
    about = loaded.about
    example_THWC = resize_frames(loaded.example[0], about.height, about.width)
    noise = np.random.default_rng(0).integers(-8, 9, (CLIPS, *example_THWC.shape))
    variants = np.stack([example_THWC, example_THWC[:, :, ::-1], example_THWC[:, ::-1], example_THWC[::-1]])
    return (variants + noise).clip(0, 255).astype(np.uint8)


def _needs_consistency(model: PipelineModel) -> bool:
    """Returns whether context masks are made consistent over time."""
    return model.consistent_frames is not None and not model.forecaster.input.needs_masker


def _steps(model: PipelineModel, form: Format) -> list[Step]:
    """Returns the steps of an exported pipeline in order."""
    suffix = SUFFIXES[form]
    if not _needs_consistency(model):
        return [{"file": f"model{suffix}", "inputs": ["frames"], "outputs": ["masks"]}]
    masker = {"file": f"masker{suffix}", "inputs": ["frames"], "outputs": ["masks", "probabilities"]}
    between = {
        "file": "agree.py",
        "function": consistency.agree.__name__,
        "inputs": masker["outputs"],
        "arguments": {"frames": model.consistent_frames},
        "outputs": ["seen"],
    }
    return [masker, between, {"file": f"forecaster{suffix}", "inputs": ["seen"], "outputs": ["future"]}]


def _write_steps(folder: Path, loaded: LoadedPipeline, clips: np.ndarray, about: Mapping[str, Any]) -> None:
    model, blank = loaded.model, np.zeros_like(clips[..., 0])
    graphs = {
        "model": (PipelineGraph, clips),
        "masker": (MaskerGraph, clips),
        "forecaster": (ForecasterGraph, blank),
    }
    for step in about["steps"]:
        path = folder / step["file"]
        if "function" in step:
            shutil.copyfile(consistency.__file__, path)
            continue
        graph, batch = graphs[path.stem]
        write_graph(trace(graph(model), loaded.title, batch), path, step["inputs"], step["outputs"], dict(about))


def _in_float32(model: PipelineModel, clips: np.ndarray) -> np.ndarray:
    """Returns the forecast of the model in float32 on the CPU."""
    with torch.inference_mode():
        if not _needs_consistency(model):
            return PipelineGraph(model).eval()(torch.from_numpy(clips)).numpy()
        worker, seen = Worker(model.masker.network.cpu(), "fp32"), []
        for clip in clips:
            _, masks = segment_raw_and_consistent(
                worker, clip, batch_size=FRAMES_AT_ONCE, consistent_frames=model.consistent_frames
            )
            seen.append(masks[model.masker.label_map].masks)
        return ForecasterGraph(model)(torch.from_numpy(np.stack(seen))).numpy()


def check_output(output: Path, form: Format) -> None:
    """Checks that a folder may be written, and that packages for onnx are installed.

    Raises:
        MaskcastError: the folder has files that are not an export, or a package is missing.
    """
    check_replaceable(output, MANIFEST)
    for name in ("onnx", "onnxscript", "onnxruntime") if form == "onnx" else ():
        if find_spec(name) is None:
            raise MaskcastError(f"{name}: not installed, but needed for onnx; pip install 'maskcast[export]'")


def _about(loaded: LoadedPipeline, form: Format) -> dict[str, Any]:
    about = loaded.about
    clip = ["clips", about.context_frames, about.height, about.width, 3]
    distance = {"frame_stride": about.frame_stride, "frame_rate": about.frame_rate}
    return {
        "format": form,
        "model": loaded.identity,
        "input": {"name": "frames", "dtype": "uint8", "shape": clip, **distance, "resize": RESIZE},
        "output": {"name": "masks", "dtype": "uint8", "shape": ["clips", about.horizon, *clip[2:4]]},
        "classes": list(about.classes),
    }
