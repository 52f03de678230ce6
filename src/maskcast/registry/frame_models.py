"""Inference of registered models of single frames: encoder and detector.

Legend: B frames, H height, W width, C = 3 channels, F features, N boxes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskcast.errors import MaskcastError
from maskcast.inference.detect import detect_images
from maskcast.models.base import best_device
from maskcast.models.detection.table import load_detector
from maskcast.models.encoders.siamese import Normalised, pool
from maskcast.models.encoders.table import load_encoder
from maskcast.registry.forecast_models import FRAMES_AT_ONCE
from maskcast.registry.inputs import Shape, as_batch


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
                f"{folder / 'config.json'}: mean or std of colours is missing or invalid ({error!r}); register it "
                "again"
            ) from None
        self._device = best_device()
        self.network = Normalised(encoder, mean, std).eval().to(self._device)
        self.shape_out: Shape = (-1, self.network.channels)

    @torch.inference_mode()
    def predict(self, data: Any) -> np.ndarray:
        """Encodes frames; for one frame (H, W, C) returns one vector (F,)."""
        frames_BHWC, alone = as_batch(data, self.shape_in, "frames")
        maps = (self.network(torch.tensor(part, device=self._device)) for part in _chunks(frames_BHWC))
        features_BF: np.ndarray = torch.cat([pool(map_BFhw) for map_BFhw in maps]).cpu().numpy()
        return features_BF[0] if alone else features_BF


class DetectorModel:
    """Frames (B, H, W, C) uint8 -> boxes (B, N, 6) float32.

    A row is x1, y1, x2, y2 in pixels of the frame, the score, and the class id 0..K-1. Boxes are sorted by score,
    highest first. N is the most boxes per frame; missing boxes are rows of zeros, as no real box has score 0.
    """

    shape_in: Shape = (-1, -1, -1, 3)
    dtype_out = "float32"

    def __init__(self, folder: Path, precision: str) -> None:
        detector, _ = load_detector(folder)
        self.network, self.precision = detector.to(best_device()), precision
        self.shape_out: Shape = (-1, detector.most_boxes, 6)

    def predict(self, data: Any) -> np.ndarray:
        """Finds boxes in frames; for one frame (H, W, C) returns (N, 6)."""
        frames_BHWC, alone = as_batch(data, self.shape_in, "frames")
        rows_BN6 = np.zeros((len(frames_BHWC), *self.shape_out[1:]), np.float32)
        detections = (
            image for part in _chunks(frames_BHWC) for image in detect_images(self.network, part, self.precision)
        )
        for rows_N6, (boxes_N4, scores_N, labels_N) in zip(rows_BN6, detections, strict=True):
            rows_N6[: len(boxes_N4)] = np.column_stack([boxes_N4, scores_N, labels_N])
        return rows_BN6[0] if alone else rows_BN6


def _chunks(frames_BHWC: np.ndarray) -> Iterator[np.ndarray]:
    """Yields parts of the frames that fit into memory, as arrays that PyTorch takes: without negative strides."""
    for start in range(0, len(frames_BHWC), FRAMES_AT_ONCE):
        yield np.ascontiguousarray(frames_BHWC[start : start + FRAMES_AT_ONCE])
