"""A segmenter with state, as small as can be, as a module of the family: network and config."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import Segmenter, State
from maskcast.models.segmentation.config import SegmenterModelConfig


class Memory(Segmenter):
    """A 3x3 convolution over each frame and what is left of the frames before it, and a head."""

    stateful: ClassVar[bool] = True

    def __init__(self, width: int, maps: Sequence[LabelMap]) -> None:
        super().__init__(maps)
        self.look = nn.Conv2d(3, width, 3, padding=1)
        self.keep = nn.Conv2d(width, width, 1)
        self.head = nn.Conv2d(width, sum(self.channels), 1)

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        seen_BTFHW = self.look(self.normalised(frames_BTHWC)).unflatten(0, frames_BTHWC.shape[:2])
        memory_BFHW = state[0] if state else torch.zeros_like(seen_BTFHW[:, 0])
        logits = []
        for seen_BFHW in seen_BTFHW.unbind(1):
            memory_BFHW = (seen_BFHW + self.keep(memory_BFHW)).tanh()
            logits.append(self.head(memory_BFHW))
        return self.per_map(torch.stack(logits, 1)), (memory_BFHW,)


class MemoryConfig(SegmenterModelConfig):
    """The toy."""

    stateful: ClassVar[bool] = True
    arch: Literal["memory"] = "memory"
    width: int = 8
    """Channels of the memory."""

    def build(self, maps: Sequence[LabelMap]) -> Memory:
        """Returns a freshly initialised toy."""
        return Memory(self.width, maps)

    def head_of(self, segmenter: Segmenter) -> nn.Module:
        """Returns the head."""
        return segmenter.get_submodule("head")
