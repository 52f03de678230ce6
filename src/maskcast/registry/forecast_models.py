"""A registered pipeline and its two parts, ready to predict.

Legend: B clips or frames, T frames seen, h horizon, H height, W width, C = 3 channels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskcast.inference.segment import segment_future, segment_whole
from maskcast.labels import first_of_classes
from maskcast.models.base import best_device
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.table import load_masker, place_of_map
from maskcast.registry.inputs import Shape, batched

FRAMES_AT_ONCE = 16


class MaskerModel:
    """Frames (B, H, W, C) uint8 -> masks (B, H, W) uint8."""

    shape_in: Shape = (-1, -1, -1, 3)
    shape_out: Shape = (-1, -1, -1)
    dtype_out = "uint8"

    def __init__(self, folder: Path, precision: str, label_map: str | None = None) -> None:
        masker, _ = load_masker(folder)
        self.network, self.precision = masker.to(best_device()), precision
        self.label_map = label_map or (first_of_classes(masker.maps) or masker.maps[0]).name
        self.place = place_of_map(folder, masker, self.label_map, "register it again")

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
