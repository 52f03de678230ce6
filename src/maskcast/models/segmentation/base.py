"""A segmenter: frames in, logits of every label map out; it may remember what it saw of a clip.

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
from maskcast.models.encoders.base import padded
from maskcast.models.recorded import tensors_of

State = tuple[Tensor, ...]

PROBE = 64  # rows and columns of the frame by which a network is measured


class Segmenter(nn.Module, ABC):
    """Base of all segmenters.

    ``mean`` and ``std``, per channel of frames scaled to [0, 1], are buffers: training sets them, and they are
    saved with the weights.

    Args:
        maps: what it finds in a frame, each a map of kind ``classes`` or ``alpha``.

    Raises:
        MaskcastError: if a map is of another kind.
    """

    stateful: ClassVar[bool] = False
    """Whether a frame's logits depend on the frames before it; if not, the state is always ``()``."""

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
        """Names of the state's tensors, in order; zeros of their shapes are the state before the first frame."""
        return ()

    @cached_property
    def numbers_per_pixel(self) -> int:
        """How many numbers the widest step of a forward pass takes and gives, for each pixel of a frame."""
        most = 0

        def look(_: nn.Module, given: Any, made: Any) -> None:
            nonlocal most
            most = max(most, sum(x.numel() for x in tensors_of((given, made))))

        frame = torch.zeros(1, 1, PROBE, PROBE, 3, dtype=torch.uint8, device=self.mean.device)
        with torch.inference_mode():
            _, state = self(frame)  # a clip under way has a state
            hooks = [part.register_forward_hook(look) for part in self.modules() if part is not self]
            try:
                self(frame, state)
            finally:
                for hook in hooks:
                    hook.remove()
        return max(-(-most // PROBE**2), sum(self.channels))

    @abstractmethod
    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        """Segments frames that follow each other.

        Args:
            frames_BTHWC: uint8 RGB.
            state: what it returned of the frames before these; ``()`` before the first.

        Returns:
            Logits (B, T, K, H, W) of each map, in the order of ``maps``: K classes, or the one of an alpha, whose
            sigmoid is the opacity. And the state after the last frame, tensors with B as their first axis.
        """

    def normalised(self, frames_BTHWC: Tensor) -> Tensor:
        """Returns the frames as a network takes them, (N, C, H, W) channels_last."""
        return ((frames_BTHWC.flatten(0, 1).float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)  # no copy

    def per_map(self, logits_BTKHW: Tensor) -> tuple[Tensor, ...]:
        """Returns the logits of each map, which lie one after the other among the K channels."""
        if len(self.channels) == 1:  # splitting would cost the gradient its memory format
            return (logits_BTKHW,)
        return logits_BTKHW.split(self.channels, 2)

    def cropped(self, logits_NKHW: Tensor, frames_BTHWC: Tensor) -> tuple[Tensor, ...]:
        """Returns the logits of each map, of padded frames, as of those that were given."""
        height, width = frames_BTHWC.shape[2:4]
        return self.per_map(logits_NKHW[..., :height, :width].unflatten(0, frames_BTHWC.shape[:2]))


class Masker(Segmenter):
    """A segmentation network that sees one frame at a time.

    It normalises frames, pads them to what the network needs, and crops the logits back.

    Args:
        network: (N, C, H, W) float -> logits (N, K, H, W), for sizes that are multiples of ``multiple``.
        multiple: what height and width must be divisible by; frames are padded with their edge pixels.
        maps: what it finds in a frame.
    """

    fixed_shapes: Sequence[str] = ("network.forward",)
    mirror: bool = False
    """Whether the logits in eval mode are the mean of those of a frame and of its mirror image, turned back."""

    def __init__(self, network: nn.Module, multiple: int, maps: Sequence[LabelMap]) -> None:
        super().__init__(maps)
        self.network, self.multiple = network.to(memory_format=torch.channels_last), multiple

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        """Returns logits (channels_last where the network keeps it) of each map, and no state."""
        logits = self._logits(frames_BTHWC)
        if self.mirror and not self.training:
            turned = self._logits(frames_BTHWC.flip(3))
            logits = tuple((own + other.flip(4)) / 2 for own, other in zip(logits, turned, strict=True))
        return logits, ()

    def _logits(self, frames_BTHWC: Tensor) -> tuple[Tensor, ...]:
        logits_NKHW = self.network(padded(self.normalised(frames_BTHWC), self.multiple))
        return self.cropped(logits_NKHW, frames_BTHWC)


def logit_channels(maps: Sequence[LabelMap]) -> list[int]:
    """Returns the number of channels of logits that each map needs.

    Raises:
        MaskcastError: if a map is of a kind that is not learnt.
    """
    for label_map in maps:
        if label_map.kind == "instances":
            raise MaskcastError(
                f"label map {label_map.name!r}: of kind instances, which no masker learns; "
                "name maps of kind classes or alpha (maps)"
            )
    return [1 if label_map.kind == "alpha" else label_map.num_classes for label_map in maps]
