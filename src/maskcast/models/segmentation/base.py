"""The base of segmenters: frames in, logits of every label map out, optionally with a state along the clip.

Legend: B clips, T frames, N = B T, H height, W width, C = 3 colour channels, K channels of logits.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.cuda_graphs import tensors_of
from maskcast.models.encoders.base import padded

State = tuple[Tensor, ...]

PROBE = 64  # rows and columns of the frame on which a network is measured


class Segmenter(nn.Module, ABC):
    """Base of all segmenters.

    ``mean`` and ``std``, per channel of frames scaled to [0, 1], are buffers: training sets them, and they are
    saved with the weights.

    Args:
        maps: label maps to predict, of kind ``classes`` or ``alpha``.

    Raises:
        MaskcastError: if a map is of another kind.
    """

    stateful: ClassVar[bool] = False
    """Whether a frame's logits depend on earlier frames; if not, the state is always ``()``."""

    mean: Tensor
    std: Tensor

    def __init__(self, maps: Sequence[LabelMap]) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.channels = logit_channels(self.maps)
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("std", torch.full((3,), 0.25))

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's tensors, in order. The initial state is zeros of their shapes."""
        return ()

    @cached_property
    def numbers_per_pixel(self) -> int:
        """Numbers per pixel of the largest layer of a forward pass: inputs plus outputs."""
        largest = 0

        def count_numbers(_: nn.Module, given: Any, made: Any) -> None:
            nonlocal largest
            largest = max(largest, sum(x.numel() for x in tensors_of((given, made))))

        frame = torch.zeros(1, 1, PROBE, PROBE, 3, dtype=torch.uint8, device=self.mean.device)
        with torch.inference_mode():
            _, state = self(frame)  # measured with a state, as in the middle of a clip
            hooks = [part.register_forward_hook(count_numbers) for part in self.modules() if part is not self]
            try:
                self(frame, state)
            finally:
                for hook in hooks:
                    hook.remove()
        return max(-(-largest // PROBE**2), sum(self.channels))

    @abstractmethod
    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        """Segments consecutive frames.

        Args:
            frames_BTHWC: uint8 RGB.
            state: returned for the frames before; ``()`` at the first frame.

        Returns:
            Logits (B, T, K, H, W) of each map, in the order of ``maps``: K classes, or for an alpha K = 1, whose
            sigmoid is the opacity. And the state after the last frame, tensors with B as their first axis.
        """

    def normalised(self, frames_BTHWC: Tensor) -> Tensor:
        """Returns the normalised frames, (N, C, H, W) in channels_last."""
        return ((frames_BTHWC.flatten(0, 1).float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)  # no copy

    def per_map(self, logits_BTKHW: Tensor) -> tuple[Tensor, ...]:
        """Splits the K channels into the logits of each map."""
        if len(self.channels) == 1:  # a split would change the memory format of the gradient
            return (logits_BTKHW,)
        return logits_BTKHW.split(self.channels, 2)

    def cropped(self, logits_NKHW: Tensor, frames_BTHWC: Tensor) -> tuple[Tensor, ...]:
        """Crops the logits of padded frames to the given frames, and splits them by map."""
        height, width = frames_BTHWC.shape[2:4]
        return self.per_map(logits_NKHW[..., :height, :width].unflatten(0, frames_BTHWC.shape[:2]))


class Masker(Segmenter):
    """A segmentation network that sees one frame at a time.

    It normalises frames, pads them to the sizes that the network needs, and crops the logits.

    Args:
        network: maps (N, C, H, W) float to logits (N, K, H, W), for sizes that are multiples of ``multiple``.
        multiple: divisor of height and width; frames are padded with their edge pixels.
        maps: label maps to predict.
    """

    fixed_shapes: Sequence[str] = ("network.forward",)
    mirror: bool = False
    """Whether logits in eval mode are averaged over a frame and its mirror image."""

    def __init__(self, network: nn.Module, multiple: int, maps: Sequence[LabelMap]) -> None:
        super().__init__(maps)
        self.network, self.multiple = network.to(memory_format=torch.channels_last), multiple

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        """Returns the logits of each map (channels_last if the network preserves it), and an empty state."""
        logits = self._logits(frames_BTHWC)
        if self.mirror and not self.training:
            turned = self._logits(frames_BTHWC.flip(3))
            logits = tuple((own + other.flip(4)) / 2 for own, other in zip(logits, turned, strict=True))
        return logits, ()

    def _logits(self, frames_BTHWC: Tensor) -> tuple[Tensor, ...]:
        logits_NKHW = self.network(padded(self.normalised(frames_BTHWC), self.multiple))
        return self.cropped(logits_NKHW, frames_BTHWC)


def most_probable(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the most probable class of each pixel, its probability, and the logits with the classes last.

    Args:
        logits: (..., K, H, W).

    Returns:
        Classes (..., H, W) int64, probabilities (..., H, W) float32 and logits (..., H, W, K) float32.
    """
    # argmax over the innermost axis is four times as fast as over a strided one
    logits = logits.movedim(-3, -1).contiguous().float()
    top, ids = logits.max(-1)
    return ids, (top - logits.logsumexp(-1)).exp_(), logits


def logit_channels(maps: Sequence[LabelMap]) -> list[int]:
    """Returns the number of logit channels of each map.

    Raises:
        MaskcastError: if a map is of a kind that cannot be learnt.
    """
    for label_map in maps:
        if label_map.kind == "instances":
            raise MaskcastError(
                f"label map {label_map.name!r} has kind instances, which maskers do not support; "
                "set maps to maps of kind classes or alpha"
            )
    return [1 if label_map.kind == "alpha" else label_map.num_classes for label_map in maps]
