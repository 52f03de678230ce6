"""MaskLoss with PyTorch's operations, in chunks that fit into a processor's cache.

Sums are float32 inside a chunk and float64 over chunks, for any type of logits. The backward pass over the chunks
needs the logits and one log-sum-exp per pixel, and writes the gradient in place.

Shapes: N frames, K classes, P pixels of a frame, M pixels of a chunk.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.labels import IGNORE
from maskcast.models.segmentation.loss_terms import Terms

CPU_CHUNK = 2**17  # logits per chunk: half a MiB in float32, so that a chunk's temporaries stay in the L2 cache
GPU_CHUNK = 2**25  # large enough to hide launch times, small compared with the logits of a batch
SPREAD = 1024  # partial sums per class on a GPU: atomic additions of thousands of threads to one would be serial


def sums(logits_NKP: Tensor, target_NP: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """Returns the sums from which the loss is computed.

    Args:
        logits_NKP: floating.
        target_NP: class ids, 255 is ignored; uint8 or long.
        terms: of the loss.

    Returns:
        Pixels, summed cross entropy, summed softmax and softmax at the target of each class, and the sum of the
        focal terms, (4 K + 1,) float64; and the log-sum-exp of each pixel, (N, 1, P), infinite where ignored,
        without pixels where no term needs it.
    """
    num_classes = logits_NKP.shape[1]
    dtype = torch.promote_types(logits_NKP.dtype, torch.float32)
    device = logits_NKP.device
    # per class: pixels, summed cross entropy, softmax, softmax at the target
    count_K, ce_K, mass_K, hit_K = torch.zeros(4, num_classes, dtype=torch.float64, device=device)
    focal = torch.zeros((), dtype=torch.float64, device=device)
    lse_N1P = torch.empty(
        (logits_NKP.shape[0], 1, logits_NKP.shape[2] if terms.softmax else 0), dtype=dtype, device=device
    )
    for n, p in _chunks(logits_NKP):
        z_NKM = logits_NKP[n, :, p].to(dtype)
        y_N1M, ignored_N1M = _split_target(target_NP[n, p])
        kept_N1M = (~ignored_N1M).to(dtype)
        ids = y_N1M.flatten()
        true_N1M = z_NKM.gather(1, y_N1M)
        _add_by_class(count_K, ids, kept_N1M.flatten().double())
        if terms.softmax:
            top_N1M = z_NKM.amax(1, keepdim=True)
            e_NKM = (z_NKM - top_N1M).exp_()
            total_N1M = e_NKM.sum(1, keepdim=True)
            lse = total_N1M.log().add_(top_N1M)
            lse_N1P[n, :, p] = lse.masked_fill(ignored_N1M, torch.inf)  # softmax exp(z - lse) is 0 there
            nll_N1M = (lse - true_N1M).mul_(kept_N1M)
            if terms.ce:
                _add_by_class(ce_K, ids, nll_N1M.flatten().double())
            if terms.dice:
                _add_by_class(hit_K, ids, nll_N1M.neg().exp_().mul_(kept_N1M).flatten().double())
                mass_K += torch.matmul(e_NKM, (kept_N1M / total_N1M).mT).sum((0, 2), dtype=torch.float64)
            if terms.softmax_focal:
                focal += (-nll_N1M.neg().expm1()).pow(terms.gamma).mul(nll_N1M).sum(dtype=torch.float64)
        if terms.sigmoid_focal:
            _, power, softplus = _focal_sigmoid(z_NKM, terms.gamma)
            rest_N1M = power.mul_(softplus).sum(1, keepdim=True)
            _, power, softplus = _focal_sigmoid(true_N1M, terms.gamma)
            rest_N1M -= power * softplus
            _, power, softplus = _focal_sigmoid(-true_N1M, terms.gamma)
            focal += (rest_N1M + power * softplus).mul_(kept_N1M).sum(dtype=torch.float64)
    return torch.cat([count_K, ce_K, mass_K, hit_K, focal[None]]), lse_N1P


def count_classes(target: Tensor, num_classes: int) -> Tensor:
    """Returns the pixels of each class, (K,) float64.

    Args:
        target: class ids, 255 is ignored; uint8 or long.
        num_classes: K.
    """
    count_K = torch.zeros(num_classes, dtype=torch.float64, device=target.device)
    for part_M in target.flatten().split(_chunk_size(target)):
        y_11M, ignored_11M = _split_target(part_M[None])
        _add_by_class(count_K, y_11M.flatten(), (~ignored_11M).flatten().double())
    return count_K


def fill_gradient(
    gradient_NKP: Tensor,
    logits_NKP: Tensor,
    target_NP: Tensor,
    lse_N1P: Tensor,
    coefficients: Tensor,
    terms: Terms,
) -> None:
    """Writes the gradient: ``p_k (a + b_k - sum_j p_j b_j)`` + a term of the true class + the focal slope.

    Args:
        gradient_NKP: output.
        logits_NKP: as for ``sums``.
        target_NP: likewise.
        lse_N1P: what ``sums`` returned.
        coefficients: (3 K + 1,): derivatives of the loss with respect to the cross entropy of a pixel of each
            class, each class's summed softmax, its softmax at the target, and a focal term.
        terms: of the loss.
    """
    num_classes = logits_NKP.shape[1]
    ce_K, dice_sum_K, dice_hit_K, (focal,) = coefficients.split([num_classes] * 3 + [1])
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
            pull_N1M = ce_K[y_N1M] if terms.ce else torch.zeros_like(true_N1M)  # d loss / d CE of the pixel
            if terms.softmax_focal:
                gamma, nll_N1M = terms.gamma, (lse_N1M - true_N1M).masked_fill_(ignored_N1M, 0)
                miss_N1M = (1 - p_true_N1M).clamp_min_(torch.finfo(z_NKM.dtype).tiny)  # gamma - 1 may be negative
                slope = miss_N1M.pow(gamma)
                if gamma:
                    slope = slope + gamma * miss_N1M.pow(gamma - 1) * p_true_N1M * nll_N1M
                pull_N1M = pull_N1M + focal * slope
            at_true_N1M -= pull_N1M
            if terms.dice:
                hit_N1M = dice_hit_K[y_N1M] * p_true_N1M
                pull_N1M = pull_N1M - hit_N1M - torch.matmul(dice_sum_K, out_NKM).unsqueeze(1)
                at_true_N1M += hit_N1M
                out_NKM.mul_(dice_sum_K[:, None] + pull_N1M)
            else:
                out_NKM.mul_(pull_N1M)
        if terms.sigmoid_focal:
            slope_NKM = _focal_slope(z_NKM, terms.gamma)
            at_true_N1M -= focal * (_focal_slope(true_N1M, terms.gamma) + _focal_slope(-true_N1M, terms.gamma))
            slope_NKM.mul_(focal.expand_as(ignored_N1M).masked_fill(ignored_N1M, 0))
            out_NKM = slope_NKM if out_NKM is None else out_NKM.add_(slope_NKM)
        assert out_NKM is not None  # at least one weight is above 0
        out_NKM.scatter_add_(1, y_N1M, at_true_N1M.masked_fill_(ignored_N1M, 0))
        gradient_NKP[n, :, p] = out_NKM


def _chunks(logits_NKP: Tensor) -> Iterator[tuple[slice, slice]]:
    frames, classes, pixels = logits_NKP.shape
    width = max(1, _chunk_size(logits_NKP) // classes)
    rows = max(1, width // max(1, pixels))
    for n in range(0, frames, rows):
        for p in range(0, pixels, width):
            yield slice(n, n + rows), slice(p, p + width)


def _chunk_size(x: Tensor) -> int:
    return CPU_CHUNK if x.device.type == "cpu" else GPU_CHUNK


def _split_target(target_NM: Tensor) -> tuple[Tensor, Tensor]:
    """Returns class ids (N, 1, M) long with 0 where ignored, and the ignored places (N, 1, M)."""
    ignored = (target_NM == IGNORE).unsqueeze(1)
    return target_NM.unsqueeze(1).long().masked_fill(ignored, 0), ignored


def _focal_sigmoid(z: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns sigmoid(z), sigmoid(z)^gamma and softplus(z); the last two multiply to a negative's focal loss."""
    p = torch.sigmoid(z)
    # 8 times as fast as F.softplus, whose log1p is not vectorised
    softplus = F.relu(z).sub_(z.abs().sigmoid_().log_())
    return p, p.square() if gamma == 2 else p.pow(gamma), softplus


def _focal_slope(z: Tensor, gamma: float) -> Tensor:
    """Derivative of ``sigmoid(z)^gamma * softplus(z)``: ``p^gamma (p + gamma (1 - p) softplus)``."""
    p, power, softplus = _focal_sigmoid(z, gamma)
    return softplus.addcmul_(softplus, p, value=-1).mul_(gamma).add_(p).mul_(power)


def _add_by_class(sums_K: Tensor, ids: Tensor, values: Tensor) -> None:
    """Adds each value to the sum of its class."""
    if ids.device.type == "cpu":
        sums_K.scatter_add_(0, ids, values)
        return
    classes = len(sums_K)
    places = torch.arange(len(ids), device=ids.device).remainder_(SPREAD).mul_(classes).add_(ids)
    spread = sums_K.new_zeros(SPREAD * classes).scatter_add_(0, places, values)
    sums_K += spread.view(SPREAD, classes).sum(0)
