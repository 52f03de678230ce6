"""Dense generative pretraining: predicts each pixel of an image from a corrupted view of a frame.

The network is the whole masker, with three colour channels instead of logits. So the decoder is pretrained as
well, which helps with few labels (Brempong et al. 2022, arXiv 2205.11423).

- ``denoise``: noise is added; the target is the noise, which works better than the frame (same paper, section
  3.2).
- ``masked``: patches are replaced by the mean colour; the target is the original (He et al. 2021, arXiv
  2111.06377).
- ``next_frame``: the view is not corrupted; the target is the difference to the same crop some frames later.

Legend: B samples, H height, W width, C = 3 channels (RGB).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskcast.distributed import all_sum
from maskcast.models.encoders.configs import DenoiseConfig, DenseConfig, MaskedConfig


class PretextSample(NamedTuple):
    """Inputs and targets of samples, float32."""

    seen: Tensor | np.ndarray
    """Input (B, H, W, C), colours from 0 to 255."""
    target: Tensor | np.ndarray
    """Target (B, H, W, C), in standard deviations of the frames' colours."""
    weight: Tensor | np.ndarray
    """Weight of each pixel in the loss (B, H, W)."""


def pretext_sample(
    config: DenseConfig,
    view_HWC: np.ndarray,
    later_HWC: np.ndarray,
    colours: tuple[np.ndarray, np.ndarray],
    random: np.random.Generator,
) -> PretextSample:
    """Returns input, target and weight of one sample, without the axis B.

    Args:
        config: of the method.
        view_HWC: crop of a frame, uint8 RGB.
        later_HWC: the same crop some frames later.
        colours: mean and standard deviation (C,) of the frames, of pixels scaled to [0, 1].
        random: generator; its state is advanced.
    """
    mean_C, std_C = (255 * np.asarray(colour, np.float32) for colour in colours)
    shown_HWC = view_HWC.astype(np.float32)
    everywhere_HW = np.ones(view_HWC.shape[:2], np.float32)
    if isinstance(config, DenoiseConfig):
        noise_HWC = random.standard_normal(view_HWC.shape, np.float32)
        return PretextSample(shown_HWC + np.float32(config.sigma) * std_C * noise_HWC, noise_HWC, everywhere_HW)
    if isinstance(config, MaskedConfig):
        hidden_HW = _patches(config, view_HWC.shape[:2], random)
        seen_HWC = np.where(hidden_HW[..., None], mean_C, shown_HWC)
        return PretextSample(seen_HWC, (shown_HWC - mean_C) / std_C, hidden_HW.astype(np.float32))
    return PretextSample(shown_HWC, (later_HWC - shown_HWC) / std_C, everywhere_HW)


def sums(predicted_BCHW: Tensor, samples: PretextSample) -> tuple[Tensor, Tensor, Tensor]:
    """Returns weighted sums over the batches of all processes.

    Returns:
        The sums of the squared errors, of the squared targets (the errors of predicting 0), and of the weights.
    """
    target_BCHW, weight_BHW = torch.as_tensor(samples.target).permute(0, 3, 1, 2), torch.as_tensor(samples.weight)
    error_BHW = (predicted_BCHW.float() - target_BCHW).square().mean(1)
    square_BHW = target_BCHW.square().mean(1)
    parts = [(weight_BHW * x).sum() for x in (error_BHW, square_BHW)]
    error, square, weight = all_sum(torch.stack([*parts, weight_BHW.sum()]))
    return error, square, weight


def _patches(config: MaskedConfig, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Draws which pixels are hidden, (H, W) bool: at least one patch, but not all."""
    grid = [-(-size // config.patch) for size in shape]
    count = grid[0] * grid[1]
    hidden = np.zeros(count, bool)
    hidden[random.permutation(count)[: min(max(round(config.ratio * count), 1), count - 1) or 1]] = True
    whole_HW = hidden.reshape(grid).repeat(config.patch, 0).repeat(config.patch, 1)
    return np.asarray(whole_HW[: shape[0], : shape[1]])
