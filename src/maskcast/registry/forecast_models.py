"""Inference of a registered pipeline and its two parts.

Legend: B clips or frames, T context frames, h horizon, H height, W width, C = 3 channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maskcast.errors import MaskcastError
from maskcast.inference.distribution_shift import ObservedClip, Reference, shift_warning
from maskcast.inference.predictions import MeanConfidence, quantise
from maskcast.inference.segment import segment_future, segment_raw_and_consistent
from maskcast.inference.session import Session
from maskcast.inference.worker import Worker
from maskcast.labels import IGNORE, first_class_map
from maskcast.models.base import best_device
from maskcast.models.forecasting import checked
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.table import load_masker, map_index
from maskcast.params import validate
from maskcast.registry.inputs import Shape, as_batch

FRAMES_AT_ONCE = 16
LEVELS = 256  # steps of confidence


class MaskedClip(NamedTuple):
    """The masks of a clip, uint8 (T, H, W)."""

    masks: np.ndarray
    confidence: np.ndarray | None
    """255 = certain; None for an alpha map."""
    mean_confidence: float | None
    """Mean confidence of foreground pixels, 0..1, before masks are made consistent."""


@dataclass(frozen=True)
class PipelineOutput:
    """The results of a pipeline for one clip.

    Attributes:
        seen: masks (T, H, W) of the context frames, and their confidence.
        masks: forecast masks (h, H, W), uint8.
        confidence: (h, H, W) uint8, 255 = certain; None if the forecaster has none.
        futures: (k, h, H, W) uint8, drawn futures; k = 0 if none are drawn.
        warning: how the frames differ from the masker's training data; empty if they do not.
    """

    seen: MaskedClip
    masks: np.ndarray
    confidence: np.ndarray | None
    futures: np.ndarray
    warning: str


class MaskerModel:
    """Frames (B, H, W, C) uint8 -> masks (B, H, W) uint8."""

    shape_in: Shape = (-1, -1, -1, 3)
    shape_out: Shape = (-1, -1, -1)
    dtype_out = "uint8"
    size: tuple[int, int] | None
    """Height and width of its training frames; None if not recorded."""

    def __init__(self, folder: Path, precision: str, label_map: str | None = None) -> None:
        masker, description = load_masker(folder)
        reference = description["meta"].get("reference")  # older maskers have none
        self.reference = None if reference is None else validate(Reference, reference, f"{folder / 'config.json'}")
        self.network, self.precision = masker.to(best_device()), precision
        self._shared = {logits: Worker(self.network, precision, logits=logits) for logits in (False, True)}
        self.size = _size_of(description["meta"])
        self.label_map = label_map or (first_class_map(masker.maps) or masker.maps[0]).name
        self.map_index = map_index(folder, masker, self.label_map, "register it again")

    def predict(self, data: Any) -> np.ndarray:
        """Masks frames of one clip in order; for one frame (H, W, C) returns one mask."""
        frames_BHWC, alone = as_batch(data, self.shape_in, "frames")
        masks_BHW = self.mask_clip(frames_BHWC, None).masks
        return masks_BHW[0] if alone else masks_BHW

    def mask_clip(self, frames_THWC: np.ndarray, consistent_frames: int | None) -> "MaskedClip":
        """Masks the frames of one clip like generate_masks."""
        raw, consistent = segment_raw_and_consistent(
            self._worker(), frames_THWC, batch_size=FRAMES_AT_ONCE, consistent_frames=consistent_frames
        )
        first, final = raw[self.label_map], consistent[self.label_map]
        if first.confidence is None or final.confidence is None:
            return MaskedClip(final.masks, None, None)
        mean = MeanConfidence()
        mean.add(first.masks, quantise(first.confidence, LEVELS))
        return MaskedClip(final.masks, quantise(final.confidence, LEVELS), mean.value)

    def session(self, *, cuts: bool = True, logits: bool = False) -> Session:
        """Returns a session that masks a video frame by frame, without making masks consistent.

        Args:
            cuts: see ``Session``.
            logits: whether it has the logits of its last frame, too.
        """
        return Session(self._worker(logits), cuts=cuts)

    def mask_future(self, seen_THWC: np.ndarray, made_hHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Masks forecast frames, which follow ``seen_THWC``; returns masks (h, H, W) and confidence."""
        predictions = segment_future(self._worker(), seen_THWC, made_hHWC, batch_size=FRAMES_AT_ONCE)
        future = predictions[self.label_map]
        return future.masks, None if future.confidence is None else quantise(future.confidence, LEVELS)

    def _worker(self, logits: bool = False) -> Worker:
        """Returns the worker of all clips and sessions, or one of its own for a segmenter with state."""
        if self.network.stateful:
            return Worker(self.network, self.precision, logits=logits)
        return self._shared[logits]


class ForecasterModel:
    """Masks (B, T, H, W) uint8 -> the masks (B, h, H, W) that follow; a forecaster of frames has a last axis C."""

    dtype_out = "uint8"

    def __init__(self, folder: Path, horizon: int) -> None:
        model, description = load_forecaster(folder)
        self._device, self._num_classes = best_device(), int(description["num_classes"])
        self.network, self.horizon = model.to(self._device), horizon
        self.input = model.input
        self.shape_in: Shape = (-1, -1, -1, -1, *self.input.channels)
        self.shape_out: Shape = (-1, horizon, -1, -1, *self.input.channels)

    def predict(self, data: Any) -> np.ndarray:
        """Forecasts clips; for one clip (T, H, W) or (T, H, W, C) returns one forecast."""
        context_BT, alone = as_batch(data, self.shape_in, self.input)
        self._check_classes(context_BT)
        context = torch.tensor(np.ascontiguousarray(context_BT), device=self._device)  # no negative strides
        future_Bh: np.ndarray = checked.forecast(self.network, context, self.horizon).cpu().numpy()
        return future_Bh[0] if alone else future_Bh

    def _check_classes(self, context_BT: np.ndarray) -> None:
        if self.input.needs_masker:
            return
        unknown = context_BT[(context_BT >= self._num_classes) & (context_BT != IGNORE)]
        if unknown.size:
            raise MaskcastError(
                f"masks: contain class {unknown[0]}, but the classes of this model are 0 to "
                f"{self._num_classes - 1}; use these, and {IGNORE} for pixels without a label"
            )

    def predict_with_confidence(self, masks_THW: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Forecasts one clip of masks; returns masks (h, H, W), and their confidence, 255 = certain."""
        context = torch.tensor(masks_THW[None], device=self._device)
        masks, confidence = checked.forecast_with_confidence(self.network, context, self.horizon)
        return masks[0].cpu().numpy(), None if confidence is None else confidence[0].cpu().numpy()

    def futures(self, masks_THW: np.ndarray, samples: int) -> np.ndarray:
        """Draws futures (k, h, H, W) of one clip of masks, with seeds from 0 on, as in ``evaluate``."""
        context = torch.tensor(masks_THW[None], device=self._device)
        drawn = [
            checked.future(self.network, context, self.horizon, seed)[0].cpu().numpy() for seed in range(samples)
        ]
        return np.stack(drawn) if drawn else np.empty((0, self.horizon, *masks_THW.shape[1:]), np.uint8)


class PipelineModel:
    """Frames (B, T, H, W, C) uint8 -> the masks (B, h, H, W) uint8 of the frames that follow."""

    shape_in: Shape = (-1, -1, -1, -1, 3)
    dtype_out = "uint8"

    def __init__(self, masker: MaskerModel, forecaster: ForecasterModel, consistent_frames: int | None) -> None:
        self.masker, self.forecaster, self.consistent_frames = masker, forecaster, consistent_frames
        self.shape_out: Shape = forecaster.shape_out[:4]

    def predict(self, data: Any) -> np.ndarray:
        """Forecasts clips; for one clip (T, H, W, C) returns (h, H, W)."""
        masks, _ = self.predict_with_warnings(data)
        return masks

    def predict_with_warnings(self, data: Any) -> tuple[np.ndarray, list[str]]:
        """Forecasts clips like ``predict``; also returns the warning of each (see ``PipelineOutput``)."""
        clips_BTHWC, alone = as_batch(data, self.shape_in, "frames")
        futures, warnings = [], []
        for clip_THWC in clips_BTHWC:
            if self.forecaster.input.needs_masker:
                confidence = None
                futures.append(self.masker.mask_future(clip_THWC, self.forecaster.predict(clip_THWC))[0])
            else:
                masks_THW, _, confidence = self._mask_seen(clip_THWC)
                futures.append(self.forecaster.predict(masks_THW))
            warnings.append(self._warning(ObservedClip(clip_THWC, confidence)))
        return futures[0] if alone else np.stack(futures), warnings

    def predict_all(
        self, clip_THWC: np.ndarray, source: tuple[int, int] | None = None, samples: int = 0
    ) -> PipelineOutput:
        """Returns all results for one clip.

        Args:
            clip_THWC: its frames.
            source: height and width of the video before it was resized.
            samples: number of futures to draw; 0 if the forecaster draws none.
        """
        seen = self._mask_seen(clip_THWC)
        if self.forecaster.input.needs_masker:
            future, confidence = self.masker.mask_future(clip_THWC, self.forecaster.predict(clip_THWC))
        else:
            future, confidence = self.forecaster.predict_with_confidence(seen.masks)
        futures = self.forecaster.futures(seen.masks, samples)
        return PipelineOutput(
            seen, future, confidence, futures, self._warning(ObservedClip(clip_THWC, seen.mean_confidence, source))
        )

    def session(self, *, cuts: bool = True, logits: bool = False) -> Session:
        """Returns a session of its masker."""
        return self.masker.session(cuts=cuts, logits=logits)

    def predict_masks(self, clip_THWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the masks (T, H, W) of one clip's frames, and the forecast masks (h, H, W)."""
        output = self.predict_all(clip_THWC)
        return output.seen.masks, output.masks

    def _mask_seen(self, clip_THWC: np.ndarray) -> MaskedClip:
        return self.masker.mask_clip(clip_THWC, self.consistent_frames)

    def _warning(self, seen: ObservedClip) -> str:
        return shift_warning(seen, self.masker.reference, self.masker.label_map)


def _size_of(meta: Mapping[str, Any]) -> tuple[int, int] | None:
    match meta:
        case {"height": int(height), "width": int(width)} if height > 0 and width > 0:
            return height, width
    return None
