"""Runs a registered model: what MLflow's pyfunc loads, named as ``loader_module`` in its ``MLmodel``.

Nothing here unpickles: the bundle's digests are checked, then configs are read as JSON and weights as safetensors.

Legend: B clips or frames, T frames seen, h horizon, H height, W width, C = 3 channels, F features, N boxes.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from maskcast.errors import MaskcastError
from maskcast.inference.detect import detect_images
from maskcast.inference.segment import segment_future, segment_whole
from maskcast.labels import first_of_classes
from maskcast.models.base import best_device
from maskcast.models.detection.table import load_detector
from maskcast.models.encoders.siamese import Normalised, pool
from maskcast.models.encoders.table import load_encoder
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.table import load_masker
from maskcast.registry.bundle import Description, read_bundle
from maskcast.runner.tracking import bad_request

FRAMES_AT_ONCE = 16
MAX_BYTES = 64 << 20  # of one call from outside: a server's memory is a small multiple of it, and so is bounded
MAX_FRAMES = 4096  # of the same: clips of a few pixels take long, too

Shape = tuple[int, ...]  # with the batch axis; -1 stands for any length of at least 1


class Model(Protocol):
    """A registered model of any kind."""

    shape_in: Shape
    shape_out: Shape
    dtype_out: str

    def predict(self, data: Any) -> np.ndarray:
        """Runs the model on a uint8 batch, or on one sample without the batch axis."""
        ...


class MaskerModel:
    """Frames (B, H, W, C) uint8 -> masks (B, H, W) uint8."""

    shape_in: Shape = (-1, -1, -1, 3)
    shape_out: Shape = (-1, -1, -1)
    dtype_out = "uint8"

    def __init__(self, folder: Path, precision: str, label_map: str | None = None) -> None:
        masker, _ = load_masker(folder)
        self.network, self.precision = masker.to(best_device()), precision
        names = [one.name for one in masker.maps]
        if label_map is not None and label_map not in names:
            raise MaskcastError(
                f"{folder}: knows the label maps {', '.join(names)}, not {label_map!r}; register it again"
            )
        self.label_map = label_map or (first_of_classes(masker.maps) or masker.maps[0]).name
        self.place = names.index(self.label_map)  # among the maps of the network

    def predict(self, data: Any) -> np.ndarray:
        """Masks frames, those of one clip in order; one frame (H, W, C) gives one mask."""
        frames_BHWC, alone = batched(data, self.shape_in, "frames")
        masks_BHW = self.mask_clip(frames_BHWC, None)
        return masks_BHW[0] if alone else masks_BHW

    def mask_clip(self, frames_THWC: np.ndarray, consistent_frames: int | None) -> np.ndarray:
        """Masks the frames of one clip as generate_masks does; returns masks (T, H, W)."""
        found = segment_whole(
            self.network,
            frames_THWC,
            batch_size=FRAMES_AT_ONCE,
            precision=self.precision,
            consistent_frames=consistent_frames,
        )
        return found[self.label_map].masks

    def mask_future(self, seen_THWC: np.ndarray, made_hHWC: np.ndarray) -> np.ndarray:
        """Masks frames that a forecaster made of those before them; returns masks (h, H, W)."""
        found = segment_future(
            self.network, seen_THWC, made_hHWC, batch_size=FRAMES_AT_ONCE, precision=self.precision
        )
        return found[self.label_map].masks


class ForecasterModel:
    """Masks (B, T, H, W) uint8 -> the masks (B, h, H, W) that follow; a forecaster of frames has a last axis C."""

    dtype_out = "uint8"

    def __init__(self, folder: Path, horizon: int) -> None:
        model, _ = load_forecaster(folder)
        self._device = best_device()
        self.network, self.horizon = model.to(self._device), horizon
        self.input = model.input
        self.shape_in: Shape = (-1, -1, -1, -1, *self.input.channels)
        self.shape_out: Shape = (-1, horizon, -1, -1, *self.input.channels)

    def predict(self, data: Any) -> np.ndarray:
        """Continues clips; one clip (T, H, W) or (T, H, W, C) gives one future."""
        context_BT, alone = batched(data, self.shape_in, self.input)
        context = torch.tensor(context_BT, device=self._device)
        future_Bh: np.ndarray = self.network.forecast(context, self.horizon).cpu().numpy()
        return future_Bh[0] if alone else future_Bh


class PipelineModel:
    """Frames (B, T, H, W, C) uint8 -> the masks (B, h, H, W) uint8 of the frames that follow."""

    shape_in: Shape = (-1, -1, -1, -1, 3)
    dtype_out = "uint8"

    def __init__(self, masker: MaskerModel, forecaster: ForecasterModel, consistent_frames: int | None) -> None:
        self.masker, self.forecaster, self.consistent_frames = masker, forecaster, consistent_frames
        self.shape_out: Shape = forecaster.shape_out[:4]

    def predict(self, data: Any) -> np.ndarray:
        """Forecasts clips; one clip (T, H, W, C) gives (h, H, W)."""
        clips_BTHWC, alone = batched(data, self.shape_in, "frames")
        futures_BhHW = np.stack([self._forecast(clip_THWC) for clip_THWC in clips_BTHWC])
        return futures_BhHW[0] if alone else futures_BhHW

    def watch(self, clip_THWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the masks (T, H, W) of the frames of one clip, and those (h, H, W) that follow."""
        seen_THW = self._mask_seen(clip_THWC)
        if self.forecaster.input.needs_masker:
            return seen_THW, self._forecast(clip_THWC)
        return seen_THW, self.forecaster.predict(seen_THW)

    def _forecast(self, clip_THWC: np.ndarray) -> np.ndarray:
        if self.forecaster.input.needs_masker:
            return self.masker.mask_future(clip_THWC, self.forecaster.predict(clip_THWC))
        return self.forecaster.predict(self._mask_seen(clip_THWC))

    def _mask_seen(self, clip_THWC: np.ndarray) -> np.ndarray:
        return self.masker.mask_clip(clip_THWC, self.consistent_frames)


class EncoderModel:
    """Frames (B, H, W, C) uint8 -> features (B, F) float32: the mean of the encoder's last map over its cells."""

    shape_in: Shape = (-1, -1, -1, 3)
    dtype_out = "float32"

    def __init__(self, folder: Path) -> None:
        encoder, description = load_encoder(folder)
        try:
            mean, std = (torch.tensor(description["meta"][name]).float().reshape(3) for name in ("mean", "std"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise MaskcastError(
                f"{folder / 'config.json'}: no mean and std of colours ({error!r}); register it again"
            ) from None
        self._device = best_device()
        self.network = Normalised(encoder, mean, std).eval().to(self._device)
        self.shape_out: Shape = (-1, self.network.channels)

    @torch.inference_mode()
    def predict(self, data: Any) -> np.ndarray:
        """Encodes frames; one frame (H, W, C) gives one vector (F,)."""
        frames_BHWC, alone = batched(data, self.shape_in, "frames")
        maps = (self.network(torch.tensor(part, device=self._device)) for part in _few(frames_BHWC))
        features_BF: np.ndarray = torch.cat([pool(map_BFhw) for map_BFhw in maps]).cpu().numpy()
        return features_BF[0] if alone else features_BF


class DetectorModel:
    """Frames (B, H, W, C) uint8 -> boxes (B, N, 6) float32.

    A box is x1, y1, x2, y2 in pixels of the frame, its score, and its class id 0..K-1. Boxes of a frame stand best
    first; N is the most that the detector finds in one, and rows of zeros fill up: no box found has score 0.
    """

    shape_in: Shape = (-1, -1, -1, 3)
    dtype_out = "float32"

    def __init__(self, folder: Path, precision: str) -> None:
        detector, _ = load_detector(folder)
        self.network, self.precision = detector.to(best_device()), precision
        self.shape_out: Shape = (-1, detector.most_boxes, 6)

    def predict(self, data: Any) -> np.ndarray:
        """Finds boxes in frames; one frame (H, W, C) gives (N, 6)."""
        frames_BHWC, alone = batched(data, self.shape_in, "frames")
        found_BN6 = np.zeros((len(frames_BHWC), *self.shape_out[1:]), np.float32)
        found = (one for part in _few(frames_BHWC) for one in detect_images(self.network, part, self.precision))
        for rows_N6, (boxes_N4, scores_N, labels_N) in zip(found_BN6, found, strict=True):
            rows_N6[: len(boxes_N4)] = np.column_stack([boxes_N4, scores_N, labels_N])
        return found_BN6[0] if alone else found_BN6


def load_bundle(folder: Path, digest: str | None = None) -> Model:
    """Checks a bundle (see ``read_bundle``) and returns its model.

    Raises:
        MaskcastError: if anything differs from what was registered, or a config names what is none of ours.
    """
    return build_model(folder, read_bundle(folder, digest))


def build_model(folder: Path, about: Description) -> Model:
    """Returns the model of a bundle that has been checked.

    Raises:
        MaskcastError: if a config names what is none of ours.
    """
    if about.kind == "detector":
        return DetectorModel(folder / "detector", about.precision)
    if about.kind == "masker":
        return MaskerModel(folder / "masker", about.precision, about.label_map)
    if about.kind == "encoder":
        return EncoderModel(folder / "encoder")
    forecaster = ForecasterModel(folder / "forecaster", about.horizon)
    if about.kind == "forecaster":
        return forecaster
    # Frames that a forecaster made are masked as the evaluation does it.
    precision = "fp32" if forecaster.input.needs_masker else about.precision
    masker = MaskerModel(folder / "masker", precision, about.label_map)
    return PipelineModel(masker, forecaster, about.consistent_frames)


class PyfuncModel:
    """A model as MLflow calls it: calls are bounded, and MLflow's server answers 400 to a bad one and says why."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, data: Any) -> np.ndarray:
        """Runs the model on a batch."""
        try:
            check_size(np.shape(data))
            return self.model.predict(data)
        except MaskcastError as error:
            raise bad_request(error) from error


def _load_pyfunc(path: str) -> PyfuncModel:
    """What ``mlflow.pyfunc.load_model`` calls with the path of the bundle."""
    return PyfuncModel(load_bundle(Path(path)))


def check_size(shape: Shape) -> None:
    """Makes sure that a call from outside is not too large.

    Raises:
        MaskcastError: if it is; the line says what is allowed.
    """
    if math.prod(shape) > MAX_BYTES or math.prod(shape[:-3]) > MAX_FRAMES:
        raise MaskcastError(
            f"shape {shape}: one call takes at most {MAX_BYTES >> 20} MiB and {MAX_FRAMES} frames; "
            "give fewer clips, or smaller frames"
        )


def _few(frames_BHWC: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the frames in parts that fit into memory."""
    for start in range(0, len(frames_BHWC), FRAMES_AT_ONCE):
        yield frames_BHWC[start : start + FRAMES_AT_ONCE]


def batched(data: Any, shape: Shape, what: str) -> tuple[np.ndarray, bool]:
    """Returns uint8 data with a batch axis, and whether it came without one.

    Args:
        data: an array, or nested lists.
        shape: with the batch axis; -1 stands for any length of at least 1.
        what: what errors call it.

    Raises:
        MaskcastError: if type or shape differ; the line says what is allowed.
    """
    array = np.asarray(data)
    alone = array.ndim == len(shape) - 1
    found = array[None] if alone else array
    fits = found.ndim == len(shape) and all(
        have == want if want > 0 else have > 0 for have, want in zip(found.shape, shape, strict=False)
    )
    if array.dtype != np.uint8 or not fits:
        axes = ", ".join("any" if length < 0 else str(length) for length in shape)
        raise MaskcastError(
            f"{what}: got {array.dtype} of shape {array.shape}; give uint8 of shape ({axes}), "
            "or one sample without the first axis"
        )
    return found, alone
