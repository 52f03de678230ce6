"""Registered models of single frames take arrays of any memory layout."""

from pathlib import Path

import numpy as np

from maskcast.models.encoders.configs import UNetEncoderConfig
from maskcast.models.encoders.table import save_encoder
from maskcast.registry.frame_models import EncoderModel


def test_views_in_reverse_are_frames_like_their_copies(tmp_path: Path) -> None:
    config = UNetEncoderConfig(width=2)
    save_encoder(tmp_path, config.build(), config, {"method": "moco", "mean": [0.5] * 3, "std": [0.25] * 3})
    model = EncoderModel(tmp_path)
    bgr_BHWC = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    rgb_BHWC = bgr_BHWC[..., ::-1]  # as OpenCV's frames are turned to RGB
    np.testing.assert_array_equal(model.predict(rgb_BHWC), model.predict(rgb_BHWC.copy()))
    np.testing.assert_array_equal(model.predict(rgb_BHWC[0]), model.predict(rgb_BHWC[0].copy()))
