"""The losses of mattes in video, after Robust Video Matting (Lin et al. 2021, arXiv 2108.11515).

With several processes each is the loss over all their frames (see ``maskcast.distributed``).

Shapes: B windows, T frames, N = B T, H height, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.distributed import all_means
from maskcast.models.arithmetic import at_least_float32, without_autocast
from maskcast.models.segmentation.configs import MatteLossConfig
from maskcast.models.segmentation.losses import Part

LEVELS = 5  # of the Laplacian pyramid


class MatteLoss(nn.Module):
    """``l1 * L1 + laplacian * Laplacian + coherence * Coherence`` of opacities.

    * L1: mean absolute difference.
    * Laplacian: mean absolute difference of each of 5 levels of the Laplacian pyramids, level s times ``2^s / 5``.
    * Coherence: mean squared difference of the changes from frame to frame; 0 if a window is one frame. A change
      from one chunk of a window to the next counts, too, with a gradient for the later frame only.
    """

    def __init__(self, config: MatteLossConfig) -> None:
        super().__init__()
        self.config = config
        binomial = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("kernel", torch.outer(binomial, binomial)[None, None], persistent=False)

    kernel: Tensor

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        part: Part | None = None,
        before: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Returns the loss, a float32 scalar (float64 for float64 logits).

        Args:
            logits: (B, T, 1, H, W) floating; their sigmoid is the opacity.
            target: (B, T, H, W) uint8, 255 = opaque.
            part: of which windows these are a part; None if they are all.
            before: logits and target of the frame before these in the windows; None if there is none.
        """
        difference_BTHW = _difference(logits, target)
        share = 1.0 if part is None else part.share
        terms = []
        if self.config.l1:
            terms.append((share * self.config.l1, difference_BTHW.abs()))
        if self.config.laplacian:
            self.kernel = self.kernel.to(difference_BTHW)  # only once: a recorded step must not copy
            levels = laplacian_pyramid(difference_BTHW.flatten(0, 1)[:, None], self.kernel)
            terms += [
                (share * self.config.laplacian * 2**s / LEVELS, level.abs()) for s, level in enumerate(levels)
            ]
        if self.config.coherence:
            change_BTHW = difference_BTHW.diff(dim=1, prepend=None if before is None else _difference(*before))
            if part is not None:
                share = change_BTHW.shape[1] / max(1, part.total - 1)
            terms.append((share * self.config.coherence, change_BTHW.square()))
        return all_means(terms)


def _difference(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the predicted opacity less the true one, (B, T, H, W)."""
    predicted_BTHW = at_least_float32(logits[:, :, 0]).sigmoid()
    return predicted_BTHW - target.to(predicted_BTHW.dtype) / 255


def laplacian_pyramid(pictures_N1HW: Tensor, kernel_11KK: Tensor) -> list[Tensor]:
    """Returns the Laplacian pyramid: differences of each level of a Gaussian pyramid to the upsampled next one.

    It is linear, so the pyramid of a difference of images is the difference of their pyramids. Sizes are cropped
    to even ones. Levels end when height or width is 2 pixels or less.
    """
    levels = []
    for _ in range(LEVELS):
        height, width = (side - side % 2 for side in pictures_N1HW.shape[2:])
        if min(height, width) <= 2:  # mirror padding by 2 pixels needs more than 2
            break
        pictures_N1HW = pictures_N1HW[..., :height, :width]
        smaller_N1HW = _blurred(pictures_N1HW, kernel_11KK)[..., ::2, ::2]
        spread_N1HW = torch.zeros_like(pictures_N1HW)
        spread_N1HW[..., ::2, ::2] = 4 * smaller_N1HW
        levels.append(pictures_N1HW - _blurred(spread_N1HW, kernel_11KK))
        pictures_N1HW = smaller_N1HW
    return levels


def _blurred(pictures_N1HW: Tensor, kernel_11KK: Tensor) -> Tensor:
    with without_autocast(pictures_N1HW.device):  # bf16 rounds a smooth difference by more than its Laplacian
        return F.conv2d(F.pad(pictures_N1HW, (2, 2, 2, 2), mode="reflect"), kernel_11KK)
