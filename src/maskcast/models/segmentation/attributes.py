"""Classes with shared attributes: the head learns a part per attribute value, and is folded after training.

The logit of a class is the sum over its attribute values: that of ``cube rubber red`` is the sum for cube, rubber
and red. So a class without any label is known from its parts. A class has a term of its own only if it has no
attributes or shares all of them with another class, because such a term would teach a class without labels never
to occur. All terms are linear in the features, so the weights of a class are the sums of its parts' weights. In
training they are computed at each step (a parametrisation). At the end they are folded into the head, so that
saved, exported and served models are plain.

Legend: K channels of logits, A values of attributes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import logit_channels

TENSORS = ("weight", "bias")


def parts_of(maps: Sequence[LabelMap]) -> Tensor:
    """Returns which logit channel has which attribute value, (K, A) of 0 and 1; A is 0 without attributes."""
    columns, first, total = [], 0, sum(logit_channels(maps))
    for label_map, channels in zip(maps, logit_channels(maps), strict=True):
        for values in label_map.attributes.values() if label_map.kind == "classes" else ():
            for value in dict.fromkeys(value for value in values if value is not None):
                column = torch.zeros(total)
                column[first : first + channels] = torch.tensor([float(each == value) for each in values])
                columns.append(column)
        first += channels
    return torch.stack(columns, 1) if columns else torch.zeros(total, 0)


def share_parts(head: nn.Module, maps: Sequence[LabelMap]) -> None:
    """Parametrises the last layer of a segmenter by parts of classes; does nothing without attributes.

    Args:
        head: the convolution whose output channels are the logits of ``maps``, in order.
        maps: label maps of the segmenter.

    Raises:
        MaskcastError: if the head is not such a convolution.
    """
    parts_KA = parts_of(maps)
    if not parts_KA.shape[1]:
        return
    if not isinstance(head, nn.Conv2d) or head.out_channels != len(parts_KA):
        raise MaskcastError(
            f"train_masker.model: its head, {type(head).__name__}, is not a convolution to the {len(parts_KA)} "
            "logits, which attributes need; set train_masker.attributes to false, or use another model"
        )
    for name in TENSORS:
        own = getattr(head, name)
        if own is not None:
            parametrize.register_parametrization(head, name, _Parts(parts_KA, own))


def fold_parts(head: nn.Module) -> None:
    """Removes the parametrisation; the head's outputs stay the same."""
    for name in TENSORS:
        if parametrize.is_parametrized(head, name):
            parametrize.remove_parametrizations(head, name)


class _Parts(nn.Module):
    """Sums the shared parts of each channel, and its own term if it has one, to a tensor (K, ...)."""

    parts_KA: Tensor
    own_K: Tensor

    def __init__(self, parts_KA: Tensor, own: Tensor) -> None:
        super().__init__()
        alike_KK = (parts_KA[:, None] == parts_KA).all(2)
        own_K = (alike_KK.sum(1) > 1) | ~parts_KA.any(1)
        self.register_buffer("parts_KA", parts_KA.to(own), persistent=False)
        self.register_buffer("own_K", own_K.to(own), persistent=False)
        bound = own[0].numel() ** -0.5 if own.ndim > 1 else 0.0  # like the initialisation of a convolution
        shared = own.detach().new_empty(parts_KA.shape[1], *own.shape[1:]).uniform_(-bound, bound)
        self.shared = nn.Parameter(shared, requires_grad=own.requires_grad)

    def forward(self, own: Tensor) -> Tensor:
        """Returns the sum."""
        own_K = self.own_K.view(-1, *[1] * (own.ndim - 1))
        return own * own_K + torch.tensordot(self.parts_KA, self.shared, 1)
