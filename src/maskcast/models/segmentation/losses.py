"""The losses of label maps: MaskLoss of classes, AlphaLoss of opacities.

MaskLoss is weighted cross entropy + Dice + focal, with every reduction named and no one-hot tensor. The three
terms share one walk over the logits in chunks that fit the cache: forward keeps the logits, one log-sum-exp per
pixel and a few sums per class; backward walks the same chunks again and writes the gradient in place. So the peak
is the logits and their gradient, which no formulation avoids, and a term of weight 0 costs nothing. Sums are
float32 inside a chunk and float64 over chunks, whatever the logits' type. Where several processes train together,
their sums are added up before anything is divided.

Shapes: N frames, K classes, P pixels of a frame, M pixels of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.distributed import all_sum
from maskcast.labels import IGNORE
from maskcast.models.segmentation.configs import MaskLossConfig
from maskcast.models.segmentation.soft_dice import soft_dice

CPU_CHUNK = 2**17  # logits per chunk: half a MiB in float32, so that a chunk's temporaries stay in the L2 cache
GPU_CHUNK = 2**25  # large enough to hide the launches, small beside the logits of a training batch


class MaskLoss(nn.Module):
    """``ce * CE + dice * Dice + focal * Focal`` of logits against class ids; pixels of id 255 are left out.

    * CE: softmax cross entropy with class weights, reduced by ``ce_reduction``.
    * Dice: ``1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)`` per class over batch and pixels, p the softmax; 0 for
      a class without a pixel in the batch, so that the denominator is at least 1 and needs no epsilon. Over frames
      it is `soft_dice`.
    * Focal: ``(1 - p_t)^gamma * BCE`` on raw logits, mean over pixels, ``focal_classes`` over classes; or the
      softmax form, mean over pixels.
    """

    def __init__(self, config: MaskLossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss, a float32 scalar (float64 for float64 logits); 0 where no pixel counts.

        Among processes that train together it is the loss of all their frames (see ``maskcast.distributed``).

        Args:
            logits: (N, K, ...) floating, NCHW or channels_last; the gradient comes in the same layout.
            target: (N, ...) class ids below K, or 255; uint8 or long.
        """
        if self.config.dice_over == "batch":
            fused: Tensor = _FusedLoss.apply(logits, target, self.config)
            return fused
        loss = self.config.dice * soft_dice(logits, target, self.config.dice_smooth) if self.config.dice else 0
        if self.config.ce or self.config.focal:
            loss = loss + _FusedLoss.apply(logits, target, self.config.model_copy(update={"dice": 0.0}))
        assert isinstance(loss, Tensor)  # a weight is above 0
        return loss


class AlphaLoss(nn.Module):
    """Mean absolute difference of an opacity, and of its gradient along both axes.

    The first term is that of Robust Video Matting (Lin et al. 2021, arXiv 2108.11515), the second the gradient
    loss of Tang et al. 2019 (Learning-based sampling for natural image matting), which keeps edges sharp; both
    have weight 1. Among processes that train together it is the loss of all their frames.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss, a float32 scalar (float64 for float64 logits).

        Args:
            logits: (N, 1, H, W) floating; their sigmoid is the opacity.
            target: (N, H, W) uint8, 255 = opaque.
        """
        opacity_NHW = logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
        difference_NHW = opacity_NHW - target.to(opacity_NHW.dtype) / 255
        terms = [difference_NHW, difference_NHW.diff(dim=1), difference_NHW.diff(dim=2)]
        sums = all_sum(torch.stack([term.abs().sum() for term in terms]))
        counts = all_sum(sums.new_tensor([term.numel() for term in terms]))
        total: Tensor = (sums / counts.clamp_min(1)).sum()
        return total


@dataclass
class _Coefficients:
    """What one pixel needs to know about the whole batch."""

    ce_K: Tensor  # CE weight of a class over the normaliser
    focal: Tensor  # focal weight over the number of pixels (and of classes)
    dice_sum_K: Tensor  # derivative of the loss by sum(p) of each class
    dice_hit_K: Tensor  # derivative of the loss by sum(p y) of each class


def _chunks(logits_NKP: Tensor) -> Iterator[tuple[slice, slice]]:
    frames, classes, pixels = logits_NKP.shape
    width = max(1, (CPU_CHUNK if logits_NKP.device.type == "cpu" else GPU_CHUNK) // classes)
    rows = max(1, width // max(1, pixels))
    for n in range(0, frames, rows):
        for p in range(0, pixels, width):
            yield slice(n, n + rows), slice(p, p + width)


def _split_target(target_NM: Tensor) -> tuple[Tensor, Tensor]:
    """Returns class ids (N, 1, M) long with 0 where ignored, and the ignored places (N, 1, M)."""
    ignored = (target_NM == IGNORE).unsqueeze(1)
    return target_NM.unsqueeze(1).long().masked_fill(ignored, 0), ignored


def _focal_sigmoid(z: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns sigmoid(z), its power gamma, and softplus(z); a negative's focal loss is power * softplus."""
    p = torch.sigmoid(z)
    # 8 times as fast as F.softplus, whose log1p is not vectorised
    softplus = F.relu(z).sub_(z.abs().sigmoid_().log_())
    return p, p.square() if gamma == 2 else p.pow(gamma), softplus


def _focal_slope(z: Tensor, gamma: float) -> Tensor:
    """Derivative of ``sigmoid(z)^gamma * softplus(z)``: ``p^gamma (p + gamma (1 - p) softplus)``."""
    p, power, softplus = _focal_sigmoid(z, gamma)
    return softplus.addcmul_(softplus, p, value=-1).mul_(gamma).add_(p).mul_(power)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, config: MaskLossConfig) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            loss, saved = _forward(logits.detach().flatten(2), target.flatten(1), config)
        ctx.config, ctx.coefficients = config, saved[1]
        ctx.save_for_backward(logits, target, saved[0])
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, target, lse_N1P = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        with torch.autocast(logits.device.type, enabled=False):
            _backward(
                gradient.flatten(2),
                logits.flatten(2),
                target.flatten(1),
                lse_N1P,
                ctx.coefficients,
                all_sum(grads[0]),
                ctx.config,
            )
        return gradient, None, None


def _forward(
    logits_NKP: Tensor, target_NP: Tensor, config: MaskLossConfig
) -> tuple[Tensor, tuple[Tensor, _Coefficients]]:
    num_classes = logits_NKP.shape[1]
    dtype = torch.promote_types(logits_NKP.dtype, torch.float32)
    device = logits_NKP.device
    count_K = torch.zeros(num_classes, dtype=torch.float64, device=device)  # pixels of each class
    ce_K, mass_K, hit_K = (
        count_K.clone(),
        count_K.clone(),
        count_K.clone(),
    )  # summed CE, softmax, softmax at the target
    focal = torch.zeros((), dtype=torch.float64, device=device)
    needs_softmax = bool(config.ce or config.dice or (config.focal and config.focal_form == "softmax"))
    lse_N1P = torch.empty(
        (logits_NKP.shape[0], 1, logits_NKP.shape[2] if needs_softmax else 0), dtype=dtype, device=device
    )
    for n, p in _chunks(logits_NKP):
        z_NKM = logits_NKP[n, :, p].to(dtype)
        y_N1M, ignored_N1M = _split_target(target_NP[n, p])
        kept_N1M = (~ignored_N1M).to(dtype)
        ids = y_N1M.flatten()
        true_N1M = z_NKM.gather(1, y_N1M)
        count_K.scatter_add_(0, ids, kept_N1M.flatten().double())
        if needs_softmax:
            top_N1M = z_NKM.amax(1, keepdim=True)
            e_NKM = (z_NKM - top_N1M).exp_()
            total_N1M = e_NKM.sum(1, keepdim=True)
            lse = total_N1M.log().add_(top_N1M)
            lse_N1P[n, :, p] = lse.masked_fill(ignored_N1M, torch.inf)  # softmax exp(z - lse) is 0 there
            nll_N1M = (lse - true_N1M).mul_(kept_N1M)
            if config.ce:
                ce_K.scatter_add_(0, ids, nll_N1M.flatten().double())
            if config.dice:
                hit_K.scatter_add_(0, ids, nll_N1M.neg().exp_().mul_(kept_N1M).flatten().double())
                mass_K += torch.matmul(e_NKM, (kept_N1M / total_N1M).mT).sum((0, 2), dtype=torch.float64)
            if config.focal and config.focal_form == "softmax":
                focal += (-nll_N1M.neg().expm1()).pow(config.focal_gamma).mul(nll_N1M).sum(dtype=torch.float64)
        if config.focal and config.focal_form == "sigmoid":
            _, power, softplus = _focal_sigmoid(z_NKM, config.focal_gamma)
            rest_N1M = power.mul_(softplus).sum(1, keepdim=True)
            _, power, softplus = _focal_sigmoid(true_N1M, config.focal_gamma)
            rest_N1M -= power * softplus
            _, power, softplus = _focal_sigmoid(-true_N1M, config.focal_gamma)
            focal += (rest_N1M + power * softplus).mul_(kept_N1M).sum(dtype=torch.float64)

    sums = all_sum(torch.cat([count_K, ce_K, mass_K, hit_K, focal[None]]))
    count_K, ce_K, mass_K, hit_K, (focal,) = sums.split([num_classes] * 4 + [1])
    weight_K = torch.ones_like(count_K)
    weight_K[0] = config.background_weight
    pixels = count_K.sum().clamp_min(1)
    weight_sum = (weight_K * count_K).sum()
    normaliser = pixels if config.ce_reduction == "mean" else torch.where(weight_sum > 0, weight_sum, 1)
    present_K = count_K > 0
    classes = num_classes if config.dice_classes == "all" else present_K.sum().clamp_min(1)
    union_K = torch.where(present_K, mass_K + count_K + config.dice_smooth, 1)
    overlap_K = 2 * hit_K + config.dice_smooth
    share_K = config.dice * present_K.double() / classes
    one_in = num_classes if config.focal_form == "sigmoid" and config.focal_classes == "mean" else 1
    coefficients = _Coefficients(
        ce_K=(config.ce * weight_K / normaliser).to(dtype),
        focal=(config.focal / (pixels * one_in)).to(dtype),
        dice_sum_K=(share_K * overlap_K / union_K.square()).to(dtype),
        dice_hit_K=(-2 * share_K / union_K).to(dtype),
    )
    loss = config.ce * (weight_K * ce_K).sum() / normaliser
    loss = loss + (share_K * (1 - overlap_K / union_K)).sum() + config.focal * focal / (pixels * one_in)
    return loss.to(dtype), (lse_N1P, coefficients)


def _backward(
    gradient_NKP: Tensor,
    logits_NKP: Tensor,
    target_NP: Tensor,
    lse_N1P: Tensor,
    coefficients: _Coefficients,
    scale: Tensor,
    config: MaskLossConfig,
) -> None:
    """Fills the gradient: ``p_k (a + b_k - sum_j p_j b_j)`` + what the true class adds + the focal slope."""
    c = coefficients
    ce_K, dice_sum_K, dice_hit_K, focal = (
        scale * c.ce_K,
        scale * c.dice_sum_K,
        scale * c.dice_hit_K,
        scale * c.focal,
    )
    for n, p in _chunks(logits_NKP):
        z_NKM = logits_NKP[n, :, p].to(ce_K.dtype)
        y_N1M, ignored_N1M = _split_target(target_NP[n, p])
        true_N1M = z_NKM.gather(1, y_N1M)
        out_NKM: Tensor | None = None
        at_true_N1M = torch.zeros_like(true_N1M)
        if lse_N1P.shape[2]:
            lse_N1M = lse_N1P[n, :, p]
            out_NKM = (z_NKM - lse_N1M).exp_()
            p_true_N1M = (true_N1M - lse_N1M).exp_()
            pull_N1M = ce_K[y_N1M] if config.ce else torch.zeros_like(true_N1M)  # derivative by the pixel's CE
            if config.focal and config.focal_form == "softmax":
                gamma, nll_N1M = config.focal_gamma, (lse_N1M - true_N1M).masked_fill_(ignored_N1M, 0)
                miss_N1M = (1 - p_true_N1M).clamp_min_(torch.finfo(z_NKM.dtype).tiny)  # gamma - 1 may be negative
                slope = miss_N1M.pow(gamma)
                if gamma:
                    slope = slope + gamma * miss_N1M.pow(gamma - 1) * p_true_N1M * nll_N1M
                pull_N1M = pull_N1M + focal * slope
            at_true_N1M -= pull_N1M
            if config.dice:
                hit_N1M = dice_hit_K[y_N1M] * p_true_N1M
                pull_N1M = pull_N1M - hit_N1M - torch.matmul(dice_sum_K, out_NKM).unsqueeze(1)
                at_true_N1M += hit_N1M
                out_NKM.mul_(dice_sum_K[:, None] + pull_N1M)
            else:
                out_NKM.mul_(pull_N1M)
        if config.focal and config.focal_form == "sigmoid":
            slope_NKM = _focal_slope(z_NKM, config.focal_gamma)
            at_true_N1M -= focal * (
                _focal_slope(true_N1M, config.focal_gamma) + _focal_slope(-true_N1M, config.focal_gamma)
            )
            slope_NKM.mul_(focal.expand_as(ignored_N1M).masked_fill(ignored_N1M, 0))
            out_NKM = slope_NKM if out_NKM is None else out_NKM.add_(slope_NKM)
        assert out_NKM is not None  # a weight is above 0
        out_NKM.scatter_add_(1, y_N1M, at_true_N1M.masked_fill_(ignored_N1M, 0))
        gradient_NKP[n, :, p] = out_NKM
