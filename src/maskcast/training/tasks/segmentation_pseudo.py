"""Pseudo masks, from which a student learns on unlabelled frames.

As in FixMatch (Sohn et al. 2020, arXiv 2001.07685), the confident pixels of a teacher's prediction on a weakly
augmented view are the labels of a strongly augmented view. The threshold of a class depends on the teacher's mean
probability for it (FlexMatch, Zhang et al. 2021, arXiv 2110.08263).

Legend: B samples, T frames of a sample, H height, W width, K channels of logits, P pixels masked as an object.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.distributed import all_sum
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelMap
from maskcast.models.objects.consistency import find_regions, make_windows_consistent
from maskcast.models.segmentation.base import most_probable
from maskcast.progress import say
from maskcast.training.tasks.segmentation_params import UnlabeledParams

MEAN_MOMENTUM = 0.05  # weight of a step in the running mean of a class's probability
# share of pixels, or of objects' pixels, that pass the threshold, below which a warning is given
MIN_LEARNT_SHARE = 1e-3
COLLAPSED = 0.01  # ratio of the teacher's share of objects to that of the labels, below which it has collapsed
OPAQUE_FROM = 128  # opacity from which on a pixel counts as an object


class PseudoMasks(nn.Module):
    """Makes pseudo masks from a teacher's logits, and keeps statistics of them.

    The teacher's mean probability of each class and the counts since the last validation are buffers, so that a
    checkpoint holds them.

    Args:
        maps: label maps of the logits.
        params: thresholds.
    """

    collapsed: Tensor
    """Whether the teacher found next to no objects between the last two validations."""
    tally: Tensor
    """Three pairs of pixel counts, all pixels and those of objects: masked by the teacher, learnt, and labelled.
    Summed over all maps and processes."""

    def __init__(self, maps: Sequence[LabelMap], params: UnlabeledParams) -> None:
        super().__init__()
        self.maps, self.params = maps, params
        for n, label_map in enumerate(maps):
            self.register_buffer(f"sure_{n}", torch.ones(label_map.num_classes))
        self.register_buffer("tally", torch.zeros(6, dtype=torch.float64))
        self.register_buffer("collapsed", torch.tensor(False))

    @torch.no_grad()
    def forward(self, logits: Sequence[Tensor], labels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the pseudo masks (B, T, H, W) of each map, uint8: ``IGNORE`` below the threshold.

        Args:
            logits: the teacher's, (B, T, K, H, W) of each map.
            labels: masks of the labelled samples of the same step, for the statistics.
        """
        masks, counts = [], torch.zeros_like(self.tally)
        for n, (label_map, logits_BTKHW, labels_BTHW) in enumerate(zip(self.maps, logits, labels, strict=True)):
            if label_map.kind == "alpha":
                predicted_BTHW = learnt_BTHW = (
                    logits_BTKHW[:, :, 0].float().sigmoid().mul(255).round().to(torch.uint8)
                )
            else:
                predicted_BTHW, learnt_BTHW = self._classes(logits_BTKHW, self.get_buffer(f"sure_{n}"))
            counted = predicted_BTHW, learnt_BTHW, labels_BTHW
            counts += torch.cat([_pixel_counts(label_map, masks_BTHW) for masks_BTHW in counted])
            masks.append(learnt_BTHW)
        self.tally += all_sum(counts)
        return tuple(masks)

    def _classes(self, logits_BTKHW: Tensor, mean_confidence_K: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the teacher's classes, and those above the threshold; updates the means of the probabilities."""
        ids_BTHW, confidence_BTHW, logits_BTHWK = most_probable(logits_BTKHW)
        if self.params.consistent_frames is not None:
            ids_BTHW, confidence_BTHW = _made_consistent(
                ids_BTHW, confidence_BTHW, logits_BTHWK, self.params.consistent_frames
            )
        threshold_K = self.params.threshold * (
            mean_confidence_K if self.params.balance else torch.ones_like(mean_confidence_K)
        )
        learnt_BTHW = confidence_BTHW >= threshold_K[ids_BTHW]
        sums_2K = torch.zeros(2, len(mean_confidence_K), dtype=torch.float64, device=mean_confidence_K.device)
        for sum_K, values in zip(sums_2K, (confidence_BTHW, torch.ones_like(confidence_BTHW)), strict=True):
            sum_K.scatter_add_(0, ids_BTHW.flatten(), values.flatten().double())
        total_K, pixels_K = all_sum(sums_2K)
        mean_K = (total_K / pixels_K.clamp_min(1)).to(mean_confidence_K.dtype)
        mean_confidence_K.lerp_(mean_K, MEAN_MOMENTUM * (pixels_K > 0).to(mean_confidence_K.dtype))
        predicted_BTHW = ids_BTHW.to(torch.uint8)
        return predicted_BTHW, predicted_BTHW.masked_fill(~learnt_BTHW, IGNORE)

    def statistics(self) -> dict[str, float]:
        """Returns statistics of the pseudo masks since the last call; nothing if there were none.

        Warns of thresholds that hardly any pixel passes, and of a teacher that finds hardly any objects although
        labels have some.

        Returns:
            ``pseudo_learnt``, the share of the pixels that are learnt, and ``pseudo_objects``, the share of
            objects in the teacher's masks.

        Raises:
            MaskcastError: if the teacher finds hardly any objects for the second time in a row.
        """
        pixels, objects, learnt, learnt_objects, labelled, labelled_objects = self.tally.tolist()
        self.tally.zero_()
        if not pixels:
            return {}
        share, labelled_share = objects / pixels, labelled_objects / max(1, labelled)
        was_collapsed, is_collapsed = bool(self.collapsed), share < COLLAPSED * labelled_share
        self.collapsed.fill_(is_collapsed)
        if is_collapsed:
            message = (
                f"the teacher has collapsed to background: objects are {share:.2%} of its masks of unlabelled "
                f"frames, {labelled_share:.2%} of the labels; raise train_masker.unlabeled.burn_in_steps, lower "
                "its weight or training.learning_rate"
            )
            if was_collapsed:
                raise MaskcastError(message)
            say(message)
        key = f"train_masker.unlabeled.threshold {self.params.threshold:g}"
        if learnt < MIN_LEARNT_SHARE * pixels:
            say(f"{key}: no pixel of the unlabelled frames exceeds it, so none is learnt; lower it")
        elif learnt_objects < MIN_LEARNT_SHARE * objects:
            say(f"{key}: only background exceeds it, so no object of the unlabelled frames is learnt; lower it")
        return {"pseudo_learnt": learnt / pixels, "pseudo_objects": share}


def cutmix_masks(masks_BTHW: Tensor, cut_BHW: Tensor) -> Tensor:
    """Returns the masks of the strong views, in which parts are replaced by those of the pair's other sample."""
    others_BTHW = masks_BTHW.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return torch.where(cut_BHW[:, None], others_BTHW, masks_BTHW)


def learnt_share(masks_BTHW: Tensor) -> Tensor:
    """Returns the share of the pixels of all processes that are learnt, a scalar."""
    counts = torch.stack([(masks_BTHW != IGNORE).sum(), torch.ones_like(masks_BTHW).sum()])
    learnt, pixels = all_sum(counts.double())
    return (learnt / pixels).float()


def _pixel_counts(label_map: LabelMap, masks_BTHW: Tensor) -> Tensor:
    """Returns the numbers of pixels that are not ``IGNORE``, and of those that are objects."""
    if label_map.kind == "alpha":
        return torch.stack(
            [torch.ones_like(masks_BTHW, dtype=torch.bool).sum(), (masks_BTHW >= OPAQUE_FROM).sum()]
        )
    known_BTHW = masks_BTHW != IGNORE
    return torch.stack([known_BTHW.sum(), (known_BTHW & (masks_BTHW > 0)).sum()])


def _made_consistent(
    ids_BTHW: Tensor, sure_BTHW: Tensor, logits_BTHWK: Tensor, frames: int
) -> tuple[Tensor, Tensor]:
    """Returns classes made consistent over windows of ``frames`` frames, and their confidence."""
    masks_BTHW, confidence_BTHW = ids_BTHW.to(torch.uint8).cpu().numpy(), sure_BTHW.cpu().numpy()
    for b, masks_THW in enumerate(masks_BTHW):
        sure_PK = logits_BTHWK[b][ids_BTHW[b] > 0].softmax(-1).cpu().numpy()
        ends = np.count_nonzero(masks_THW, (1, 2)).cumsum()[:-1]
        regions = list(map(find_regions, masks_THW, np.split(sure_PK, ends)))
        masks_BTHW[b], confidence_BTHW[b] = make_windows_consistent(masks_THW, confidence_BTHW[b], regions, frames)
    return torch.from_numpy(masks_BTHW).to(ids_BTHW), torch.from_numpy(confidence_BTHW).to(sure_BTHW)
