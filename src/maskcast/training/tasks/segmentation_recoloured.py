"""Labelled samples in other colours, which teach a class's shape independently of its colour.

With few labels, colour may predict shape: all purple objects may be spheres. A sample with rotated hue shows a
known shape in an unknown colour. Its label is then a group of classes, those that are equal in all other
attributes, and the loss uses the sum of their probabilities.

Legend: B samples, T frames of a sample, K classes, G groups of M classes at most, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelMap
from maskcast.training.tasks.segmentation_params import RecolouredParams


class ClassGroups:
    """Groups of classes that are equal in all but some attributes; classes without these are groups of one.

    Args:
        label_map: of kind ``classes``.
        varying: names of the attributes in which the classes of a group differ.
    """

    def __init__(self, label_map: LabelMap, varying: Sequence[str]) -> None:
        varying_values = [values for name, values in label_map.attributes.items() if name in varying]
        fixed_values = [values for name, values in label_map.attributes.items() if name not in varying]
        keys = [
            tuple(values[k] for values in fixed_values) if any(values[k] for values in varying_values) else k
            for k in range(label_map.num_classes)
        ]
        groups = {key: number for number, key in enumerate(dict.fromkeys(keys))}  # keeps the background first
        self.group_K = [groups[key] for key in keys]
        members = [[k for k, group in enumerate(self.group_K) if group == number] for number in range(len(groups))]
        largest = max(map(len, members))
        self.members_GM = [group + [label_map.num_classes] * (largest - len(group)) for group in members]
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def logits(self, logits_BTKHW: Tensor) -> Tensor:
        """Returns logits (B, T, G, H, W) whose softmax is the summed probability of each group's classes."""
        _, members_GM = self._on(logits_BTKHW.device)
        padded_BTKHW = F.pad(logits_BTKHW.float(), (0, 0, 0, 0, 0, 1), value=-torch.inf)
        chosen_BTGMHW = padded_BTKHW.index_select(2, members_GM.flatten()).unflatten(2, members_GM.shape)
        return chosen_BTGMHW.logsumexp(3)

    def masks(self, masks_BTHW: Tensor) -> Tensor:
        """Returns masks of group indices, `IGNORE` where there is no label."""
        group_256, _ = self._on(masks_BTHW.device)
        return group_256[masks_BTHW.long()]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._tables:
            group_256 = torch.full((256,), IGNORE, dtype=torch.uint8)
            group_256[: len(self.group_K)] = torch.tensor(self.group_K, dtype=torch.uint8)
            self._tables[device] = group_256.to(device), torch.tensor(self.members_GM, device=device)
        return self._tables[device]


def class_groups(maps: Sequence[LabelMap], params: RecolouredParams | None) -> list[ClassGroups | None]:
    """Returns the groups of classes of each map; None for a map whose classes do not depend on colour.

    Raises:
        MaskcastError: if no map has one of the named attributes.
    """
    if params is None:
        return [None] * len(maps)
    available = {name for label_map in maps for name in label_map.attributes}
    for name in params.attributes:
        if name not in available:
            raise MaskcastError(
                f"train_masker.recoloured.attributes: attribute {name!r} not found in any map (available: "
                f"{', '.join(sorted(available)) or 'none'}); use attributes that depend on colour, or set what "
                "classes share in prepare_clips.source"
            )
    return [
        ClassGroups(label_map, params.attributes)
        if label_map.kind == "classes" and any(name in label_map.attributes for name in params.attributes)
        else None
        for label_map in maps
    ]


def is_recoloured(index: int, params: RecolouredParams | None) -> bool:
    """Whether a sample of a batch is recoloured; these are spread evenly over the batch."""
    return params is not None and int((index + 1) * params.share) > int(index * params.share)
