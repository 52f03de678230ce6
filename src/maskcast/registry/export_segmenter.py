"""Exports a segmenter as a graph for one frame, with its state as named inputs and outputs.

A program feeds the frames of a video one by one, first with zeros as state and then with the last output state.
Any number of clips can be fed in parallel. Rows and columns are those of the training frames.

Legend: B clips, T frames, H height, W width, C = 3 channels, K channels of logits.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.data.images import RESIZE
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import Segmenter, State
from maskcast.reading import pluralize
from maskcast.registry.export import MAX_DIFFERENT_SHARE, check_output
from maskcast.registry.graphs import MANIFEST, SUFFIXES, Format, load_graph, trace, write_graph
from maskcast.registry.loading import LoadedMasker
from maskcast.runner.outputs import atomic_output
from maskcast.simulator.scenes import simulate_clip
from maskcast.writing import write_json

CHECKED_FRAMES = 6  # frames
LOGIT_TOLERANCE = 1e-4  # tolerance of logits up to 10; 1e-5 of larger ones, about the precision of float32
OUTPUT_SUFFIXES = {"classes": "ids", "alpha": "opacity"}  # contents of an output, by kind of label map


class FrameGraph(nn.Module):
    """Maps frames (B, H, W, C) uint8 and state to masks (B, H, W) uint8, logits (B, K, H, W) and next state.

    Args:
        network: float32, on the CPU.
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Segments one frame of each clip."""
        logits, after = self.network(frames[:, None], state)
        logits_BKHW = [each_BTKHW[:, 0] for each_BTKHW in logits]
        maps = [_map_of(*each) for each in zip(self.network.maps, logits_BKHW, strict=True)]
        return (*maps, *logits_BKHW, *after)


def _map_of(label_map: LabelMap, logits_BKHW: Tensor) -> Tensor:
    if label_map.kind == "alpha":
        return (logits_BKHW[:, 0].sigmoid() * 255).round().to(torch.uint8)
    return logits_BKHW.argmax(1).to(torch.uint8)


def export_segmenter(loaded: LoadedMasker, form: Format, output: Path) -> str:
    """Writes a segmenter as a graph for one frame, and returns a line on how well results agree with the model's.

    ``output`` becomes a folder with the graph, and ``export.json``, which describes inputs and outputs.

    Args:
        loaded: the segmenter.
        form: torch-export (needs torch to run) or onnx (needs an ONNX runtime).
        output: the folder; an older export is replaced.

    Raises:
        MaskcastError: it cannot be exported, results disagree, its frame size is unknown, a package is missing, or
            the folder has files that are not an export.
    """
    check_output(output, form)
    if loaded.model.size is None:
        raise MaskcastError(f"{loaded.title}: config.json has no height and width; train the masker again")
    network = copy.deepcopy(loaded.model.network).cpu().float().eval()
    clips_BTHWC = _clips(*loaded.model.size)
    expected, starts = _run_network(network, clips_BTHWC)
    file = f"segmenter{SUFFIXES[form]}"
    about = _about(loaded, form, file, starts)
    inputs = [about["input"]["name"], *(each["input"] for each in about["states"])]
    outputs = [*(each["name"] for each in about["outputs"]), *(each["output"] for each in about["states"])]
    with atomic_output(output) as partial:
        partial.mkdir()
        program = trace(FrameGraph(network), loaded.title, clips_BTHWC[:, 0], *starts)
        write_graph(program, partial / file, inputs, outputs, about)
        write_json(partial / MANIFEST, about)
        agreement = _compare(run_frames(partial, clips_BTHWC, about), expected, about, loaded.title)
        write_json(partial / MANIFEST, about)
    return f"{loaded.title}: {output / file}: {agreement}"


def run_frames(folder: Path, clips_BTHWC: np.ndarray, about: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs an exported segmenter frame by frame, like its users.

    Args:
        folder: of the export.
        clips_BTHWC: videos.
        about: the contents of its ``export.json``.

    Returns:
        Each output by name, with leading axes B and T.
    """
    run, names = load_graph(folder / about["file"]), [each["name"] for each in about["outputs"]]
    state = [np.zeros([len(clips_BTHWC), *each["shape"][1:]], each["dtype"]) for each in about["states"]]
    frames: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for t in range(clips_BTHWC.shape[1]):
        outputs = run(np.ascontiguousarray(clips_BTHWC[:, t]), *state)
        state = outputs[len(names) :]
        for name, value in zip(names, outputs, strict=False):
            frames[name].append(value)
    return {name: np.stack(values, 1) for name, values in frames.items()}


def _clips(height: int, width: int) -> np.ndarray:
    """Returns two simulated clips for the comparison, (B, T, H, W, C)."""
    frames_THWC, _ = simulate_clip(0, frames=CHECKED_FRAMES, height=height, width=width)
    assert frames_THWC is not None
    return np.stack([frames_THWC, frames_THWC[::-1, :, ::-1]])


@torch.inference_mode()
def _run_network(network: Segmenter, clips_BTHWC: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the logits (B, T, K, H, W) of each map, computed frame by frame, and a state of zeros."""
    frames: list[tuple[Tensor, ...]] = []
    state: State = ()
    for frames_BHWC in torch.from_numpy(clips_BTHWC).unbind(1):
        logits, state = network(frames_BHWC[:, None], state)
        frames.append(logits)
    logits_by_map = [torch.cat(each, 1).numpy() for each in zip(*frames, strict=True)]
    return logits_by_map, [torch.zeros_like(each, memory_format=torch.contiguous_format).numpy() for each in state]


def _about(loaded: LoadedMasker, form: Format, file: str, starts: list[np.ndarray]) -> dict[str, Any]:
    network, size = loaded.model.network, list(loaded.model.size or ())
    names = network.state_names
    if len(names) != len(starts):  # a network of another package may have forgotten them
        raise MaskcastError(
            f"{loaded.title}: {type(network).__name__}.state_names names {pluralize(len(names), 'tensor')} of its "
            f'state, which has {len(starts)}; name each, e.g. state_names = ("memory",)'
        )
    maps, logits = [], []
    for label_map, channels in zip(network.maps, network.channels, strict=True):
        meaning = {"label_map": label_map.name, "classes": list(label_map.classes)}
        name = f"{label_map.name}_{OUTPUT_SUFFIXES[label_map.kind]}"
        maps.append({"name": name, "dtype": "uint8", "shape": ["clips", *size]} | meaning)
        shape = ["clips", channels, *size]
        logits.append({"name": f"{label_map.name}_logits", "dtype": "float32", "shape": shape} | meaning)
    return {
        "format": form,
        "model": loaded.identity,
        "file": file,
        "input": {"name": "frames", "dtype": "uint8", "shape": ["clips", *size, 3], "resize": RESIZE},
        "outputs": maps + logits,
        "states": [
            {
                "input": name,
                "output": f"{name}_next",
                "dtype": str(start.dtype),
                "shape": ["clips", *start.shape[1:]],
                "start": "zeros",
            }
            for name, start in zip(names, starts, strict=True)
        ],
    }


def _compare(
    exported: Mapping[str, np.ndarray], expected: list[np.ndarray], about: dict[str, Any], title: str
) -> str:
    """Compares logits and classes of the graph and the model; writes the differences into ``about``.

    Raises:
        MaskcastError: they differ by more than rounding.
    """
    outputs = about["outputs"]
    maps, logits = outputs[: len(expected)], outputs[len(expected) :]
    error, largest, differing, pixels = 0.0, 0.0, 0, 0
    for map_output, logits_output, logits_BTKHW in zip(maps, logits, expected, strict=True):
        error = max(error, float(np.abs(exported[logits_output["name"]] - logits_BTKHW).max()))
        largest = max(largest, float(np.abs(logits_BTKHW).max()))
        if map_output["name"].endswith(OUTPUT_SUFFIXES["classes"]):
            ids = exported[map_output["name"]]
            differing += int((ids != logits_BTKHW.argmax(2)).sum())
            pixels += ids.size
    agreement = f"logits differ by at most {error:.1e}"
    if pixels:  # mattes have no classes
        agreement += f", {differing} of {pixels} pixels have a different class"
    if error > LOGIT_TOLERANCE * max(1, largest / 10) or differing > MAX_DIFFERENT_SHARE * pixels:
        raise MaskcastError(
            f"{title}: as {about['format']}, {agreement}; nothing is written; export it in the other format, or "
            "with other versions of torch and onnx"
        )
    about["checked"] = {
        "frames": CHECKED_FRAMES,
        "logits_off": error,
        "pixels": pixels,
        "pixels_different": differing,
    }
    return agreement
