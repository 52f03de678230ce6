"""The losses of label maps: MaskLoss for classes, AlphaLoss for opacities, CustomLoss for other packages' losses.

MaskLoss is weighted cross entropy + Dice + focal, with explicit reductions and without one-hot tensors. The three
terms share one pass over the logits. Forward keeps the logits, one log-sum-exp per pixel and a few sums per class.
Backward makes a second pass and writes the gradient in place. So peak memory is the logits and their gradient,
which is the minimum, and a term of weight 0 costs nothing. The passes use PyTorch's operations on chunks
(``loss_chunks``) or, on a GPU, two kernels (``loss_kernels``). With several processes, sums are added up before
any division.

Shapes: N frames, K classes, P pixels of a frame.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskcast.distributed import all_means, all_sum, world_size
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.models.arithmetic import at_least_float32, has_kernels
from maskcast.models.segmentation import loss_chunks
from maskcast.models.segmentation.configs import MaskLossConfig
from maskcast.models.segmentation.loss_terms import terms_of
from maskcast.models.segmentation.soft_dice import soft_dice

MAX_CLASSES = 512  # most classes that the kernels support


class Part(NamedTuple):
    """Says that a loss is computed of some frames of windows, and is to be their part of the windows' loss.

    Sums over pixels or frames are divided by counts over the windows, so that the losses of all parts add up to
    that of the windows. What is no such sum is that of the part, weighted by the part's share of the pixels that
    count: the Dice of `MaskLoss`, and a loss of another package.
    """

    frames: int
    """Frames of a window in this part."""
    total: int
    """Frames of a window."""
    count_K: Tensor
    """Pixels of each class in the windows of all processes, float64; empty for opacities."""

    @property
    def share(self) -> float:
        """Share of the frames."""
        return self.frames / self.total


class MaskLoss(nn.Module):
    """``ce * CE + dice * Dice + focal * Focal`` of logits and class ids; pixels of id 255 are ignored.

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
        self._weights: dict[torch.device, Tensor] = {}

    def forward(self, logits: Tensor, target: Tensor, part: Part | None = None) -> Tensor:
        """Returns the loss, a float32 scalar (float64 for float64 logits); 0 if no pixel counts.

        With several processes it is the loss over all their frames (see ``maskcast.distributed``).

        Args:
            logits: (N, K, ...) floating; the gradient has their layout if that is NCHW or channels_last.
            target: (N, ...) class ids below K, or 255; uint8 or long.
            part: of which windows these are a part; None if they are all.
        """
        weights, whole_K = self._class_weights(logits), None if part is None else part.count_K
        if self.config.dice_over == "batch":
            fused: Tensor = _FusedLoss.apply(logits, target, self.config, weights, whole_K)
            return fused
        dice = self.config.dice * (1.0 if part is None else part.share)
        loss = dice * soft_dice(logits, target, self.config.dice_smooth) if dice else 0
        if self.config.ce or self.config.focal:
            others = self.config.model_copy(update={"dice": 0.0})
            loss = loss + _FusedLoss.apply(logits, target, others, weights, whole_K)
        assert isinstance(loss, Tensor)  # at least one weight is above 0
        return loss

    def _class_weights(self, logits: Tensor) -> Tensor | None:
        """Returns the class weights, copied to the logits' device only once, so that a step can be recorded."""
        if self.config.class_weights is not None and logits.device not in self._weights:
            weights = torch.tensor(self.config.class_weights, dtype=torch.float64)
            self._weights[logits.device] = weights.to(logits.device)
        return self._weights.get(logits.device)


class AlphaLoss(nn.Module):
    """Mean absolute difference of an opacity, and of its gradient along both axes.

    The first term is that of Robust Video Matting (Lin et al. 2021, arXiv 2108.11515), the second the gradient
    loss of Tang et al. 2019 (Learning-based sampling for natural image matting), which keeps edges sharp; both
    have weight 1. With several processes it is the loss over all their frames.
    """

    def forward(self, logits: Tensor, target: Tensor, part: Part | None = None) -> Tensor:
        """Returns the loss, a float32 scalar (float64 for float64 logits).

        Args:
            logits: (N, 1, H, W) floating; their sigmoid is the opacity.
            target: (N, H, W) uint8, 255 = opaque.
            part: of which windows these are a part; None if they are all.
        """
        opacity_NHW = at_least_float32(logits[:, 0]).sigmoid()
        difference_NHW = opacity_NHW - target.to(opacity_NHW.dtype) / 255
        terms = [difference_NHW, difference_NHW.diff(dim=1), difference_NHW.diff(dim=2)]
        return all_means([(1.0 if part is None else part.share, term.abs()) for term in terms])


class CustomLoss(nn.Module):
    """The loss of another package, averaged over all processes.

    Args:
        loss: returned by ``LossConfig.build``.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor, part: Part | None = None) -> Tensor:
        """Returns the loss, a float32 scalar; 0 if no pixel counts.

        Args:
            logits: (N, K, H, W) floating.
            target: (N, H, W) class ids below K, or 255.
            part: of which windows these are a part; None if they are all.

        Raises:
            MaskcastError: the loss is not a single number.
        """
        self.to(logits.device)  # it may have class weights as a buffer
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            own = self.loss(logits, target.long()) if (target != IGNORE).any() else 0 * logits.sum()
        if not isinstance(own, Tensor) or own.ndim:
            name = getattr(self.loss, "__qualname__", type(self.loss).__name__)
            given = f"a tensor of shape {tuple(own.shape)}" if isinstance(own, Tensor) else type(own).__name__
            raise MaskcastError(
                f"train_masker.loss: {name} returns {given}; return a tensor of one number, e.g. the mean over "
                "the pixels that have a label"
            )
        mean = all_sum(own) / world_size()
        if part is None:
            return mean
        pixels = all_sum((target != IGNORE).sum().double())
        return mean * (pixels / part.count_K.sum().clamp_min(1)).to(mean.dtype)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        config: MaskLossConfig,
        class_weights: Tensor | None,
        whole_K: Tensor | None,
    ) -> Tensor:
        terms = terms_of(config)
        with torch.autocast(logits.device.type, enabled=False):
            sums, lse_N1P = _fused_backend(logits).sums(logits.detach().flatten(2), target.flatten(1), terms)
            loss, coefficients = _weighted_sums(all_sum(sums), config, class_weights, whole_K)
            dtype = torch.promote_types(logits.dtype, torch.float32)
        ctx.terms = terms
        ctx.save_for_backward(logits, target, lse_N1P, coefficients.to(dtype))
        return loss.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, target, lse_N1P, coefficients = ctx.saved_tensors
        logits_NKP = logits.flatten(2)  # a copy if the layout is neither NCHW nor channels_last
        gradient_NKP = torch.empty_like(logits_NKP)
        with torch.autocast(logits.device.type, enabled=False):
            _fused_backend(logits).fill_gradient(
                gradient_NKP,
                logits_NKP,
                target.flatten(1),
                lse_N1P,
                all_sum(grads[0]) * coefficients,
                ctx.terms,
            )
        return gradient_NKP.unflatten(2, logits.shape[2:]), None, None, None, None


def _fused_backend(logits: Tensor) -> ModuleType:
    """Returns the module that handles such logits: kernels on a GPU, if Triton works, else chunks."""
    if not has_kernels(logits) or logits.shape[1] > MAX_CLASSES:
        return loss_chunks
    from maskcast.models.segmentation import loss_kernels

    return loss_kernels


def _weighted_sums(
    sums: Tensor, config: MaskLossConfig, class_weights: Tensor | None = None, whole_K: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the loss, and the coefficients of the gradient, which depend on the whole batch; float64.

    Nothing is copied from the host to the device, so that a step can be recorded.

    Args:
        sums: (4 K + 1,) see ``loss_chunks.sums``.
        config: of the loss.
        class_weights: (K,) float64, if ``config`` has any.
        whole_K: pixels of each class in the windows that these frames are a part of (see `Part`).

    Returns:
        The loss, and the coefficients of ``loss_chunks.fill_gradient``.
    """
    num_classes = len(sums) // 4
    count_K, ce_K, mass_K, hit_K, (focal,) = sums.split([num_classes] * 4 + [1])
    weight_K = torch.ones_like(count_K) if class_weights is None else class_weights
    if class_weights is None:
        weight_K[:1] = config.background_weight  # `[0]` would copy from the CPU, which a CUDA graph cannot hold
    whole_K = count_K if whole_K is None else whole_K
    pixels = whole_K.sum().clamp_min(1)
    weight_sum = (weight_K * whole_K).sum()
    normaliser = pixels if config.ce_reduction == "mean" else weight_sum.masked_fill(weight_sum <= 0, 1)
    present_K = count_K > 0
    classes = num_classes if config.dice_classes == "all" else present_K.sum().clamp_min(1)
    union_K = (mass_K + count_K + config.dice_smooth).masked_fill(~present_K, 1)
    overlap_K = 2 * hit_K + config.dice_smooth
    share_K = config.dice * present_K.double() / classes * (count_K.sum() / pixels)
    one_in = num_classes if config.focal_form == "sigmoid" and config.focal_classes == "mean" else 1
    coefficients = [
        config.ce * weight_K / normaliser,
        share_K * overlap_K / union_K.square(),  # with respect to the summed softmax
        -2 * share_K / union_K,  # with respect to the softmax at the target
        (config.focal / (pixels * one_in))[None],
    ]
    loss = config.ce * (weight_K * ce_K).sum() / normaliser
    loss = loss + (share_K * (1 - overlap_K / union_K)).sum() + config.focal * focal / (pixels * one_in)
    return loss, torch.cat(coefficients)
