"""Adapts the weights of a trained segmenter to other classes, which are matched by name.

The last convolution of a segmenter has one output channel per logit. Channels of classes that both segmenters have
are taken as they are. A new class starts from the channel of the background, which its pixels were predicted as
before (Cermelli et al. 2020, arXiv 2002.00718), or of the first class that is taken. Fresh weights are added,
because features would not learn to tell apart two classes of equal weights. The bias is lower by ``MARGIN``, so
that at first hardly a pixel is predicted as a new class.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, single_map
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.progress import say

Logit = tuple[str, str | None]  # names of its label map and of its class; None for an opacity

MARGIN = 4.0  # a new class is e^4 = 55 times less probable than the first one, but for its fresh weights
PROBE = 64  # rows and columns of the frame of noise on which the effect of fresh weights is measured


def adapt_classes(trained: Segmenter, segmenter: Segmenter, config: SegmenterModelConfig) -> dict[str, Tensor]:
    """Returns the state of a trained segmenter, adapted to the label maps of another one.

    A label map that has no class in common keeps the fresh weights of ``segmenter``. If the last convolutions
    differ in more than their number of channels, the state is returned as it is.

    Args:
        trained: of the same network as ``segmenter``, or of its base.
        segmenter: freshly built; it is not changed.
        config: the config that built it.

    Raises:
        MaskcastError: if there is no class in common but the background, or weights depend on the classes that are
            not of the last convolution.
    """
    state, fresh = trained.state_dict(), segmenter.state_dict()
    before, now = _logits(trained.maps), _logits(segmenter.maps)
    if not set(before) & set(now):
        raise MaskcastError("they have no class in common")
    if set(before) & set(now) <= _first(trained.maps) & _first(segmenter.maps):
        raise MaskcastError("they have no class in common but the background")
    head = _head_tensors(segmenter, config)
    if others := (_class_tensors(segmenter, config) & state.keys()) - set(head):
        raise MaskcastError(f"{min(others)} depends on the classes")
    if any(name not in state or state[name].shape[1:] != fresh[name].shape[1:] for name in head):
        return state
    for map_name, first in sorted(_first(segmenter.maps) - set(before)):
        if any(logit in before for logit in now if logit[0] == map_name):
            say(
                f"class {first!r} of map {map_name!r} comes first, but is new: at first, others are predicted in "
                "its place; if the masker has it under another name, use that name"
            )
    scale = _fresh_scale(trained, head[0].rpartition(".")[0], fresh[head[0]])
    for name in head:
        adapted = fresh[name].clone()
        for label_map in segmenter.maps:
            own = [channel for channel, logit in enumerate(now) if logit[0] == label_map.name]
            kept = [channel for channel in own if now[channel] in before]
            new = [channel for channel in own if now[channel] not in before]
            adapted[kept] = state[name][[before.index(now[channel]) for channel in kept]]
            if kept and new:
                is_bias = adapted.ndim == 1
                adapted[new] = adapted[kept[0]] + (-MARGIN if is_bias else scale * adapted[new])
        state[name] = adapted
    return state


def class_changes(trained: Sequence[LabelMap], maps: Sequence[LabelMap]) -> str:
    """Returns a text on the classes that a segmenter of ``maps`` has more or less than a trained one."""
    before, now = _logits(trained), _logits(maps)
    several = len({name for name, _ in (*before, *now)}) > 1
    changes = {
        "new": [logit for logit in now if logit not in before],
        "dropped": [logit for logit in before if logit not in now],
    }
    parts = [
        f"{change}: {', '.join(_title(logit, several) for logit in logits)}"
        for change, logits in changes.items()
        if logits
    ]
    return "; ".join(parts) or "in another order"


def _logits(maps: Sequence[LabelMap]) -> list[Logit]:
    """Returns the names of all logits, in the order of their channels."""
    names: list[Logit] = []
    for label_map in maps:
        classes = (None,) if label_map.kind == "alpha" else label_map.classes
        names += [(label_map.name, each) for each in classes]
    return names


def _first(maps: Sequence[LabelMap]) -> set[tuple[str, str]]:
    """Returns the logits of the first class, the background, of each map of classes."""
    return {(label_map.name, label_map.classes[0]) for label_map in maps if label_map.kind == "classes"}


def _title(logit: Logit, several: bool) -> str:
    label_map, name = logit
    if name is None:
        return f"{label_map} (opacity)"
    return f"{name} (map {label_map})" if several else name


def _head_tensors(segmenter: Segmenter, config: SegmenterModelConfig) -> list[str]:
    """Returns the names of the tensors of the last convolution, whose first axis has the logits.

    Raises:
        MaskcastError: the config names no such convolution.
    """
    try:
        head = config.head_of(segmenter)
    except MaskcastError:
        raise MaskcastError(f"{type(config).__name__} does not name its last convolution (head_name)") from None
    if not isinstance(head, nn.Conv2d) or head.out_channels != sum(segmenter.channels):
        raise MaskcastError(f"its head, {type(head).__name__}, is not a convolution to the logits")
    place = next(name for name, part in segmenter.named_modules() if part is head)
    return [f"{place}.{name}" for name in head.state_dict()]


def _fresh_scale(trained: Segmenter, place: str, weight: Tensor) -> float:
    """Returns a factor for fresh weights, so that they change logits by at most 1: the root mean square on noise.

    Args:
        trained: in eval mode.
        place: of its last convolution.
        weight: fresh weights of such a convolution.
    """
    seen: list[Tensor] = []
    head = trained.get_submodule(place)
    assert isinstance(head, nn.Conv2d)
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    noise = torch.randint(256, (1, 1, PROBE, PROBE, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trained(noise.to(torch.uint8))
        changes = F.conv2d(seen[0], weight, None, head.stride, head.padding, head.dilation)
    hook.remove()
    return 1 / max(1.0, float(changes.square().mean().sqrt()))


def _class_tensors(segmenter: Segmenter, config: SegmenterModelConfig) -> set[str]:
    """Returns the names of tensors whose shape depends on the classes: they differ in a segmenter of others."""
    classes = "abc" if sum(segmenter.channels) == 2 else "ab"
    other = config.build(single_map(classes)).state_dict()
    return {name for name, tensor in segmenter.state_dict().items() if other[name].shape != tensor.shape}
