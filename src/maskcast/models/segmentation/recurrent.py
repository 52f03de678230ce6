"""Single-frame maskers with a memory: system 1's recurrent units, and a light memory at a decoder's scales.

Legend: B clips, T frames, N = B T, H height, W width, C channels, K channels of logits.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.encoders.base import padded
from maskcast.models.segmentation.base import Segmenter, State
from maskcast.models.segmentation.configs import RecurrentConfig
from maskcast.models.segmentation.memory import CellMemory, HalfMemory, Memory, SplitMemory
from maskcast.models.segmentation.network_split import split_network
from maskcast.models.segmentation.unet import Change, Maps, as_it_is


class RecurrentSegmenter(Segmenter):
    """A masker with memories, which are residuals that start at zero, so that at first it equals the masker.

    Its state holds the tensors of all memories in order, with the names ``state_names``.

    Args:
        config: place and kind of the memory.
        network: see ``Masker``.
        multiple: see ``Masker``.
        maps: label maps to predict.

    Raises:
        MaskcastError: if the network has no such place for the memory.
    """

    stateful: ClassVar[bool] = True

    def __init__(
        self, config: RecurrentConfig, network: nn.Module, multiple: int, maps: Sequence[LabelMap]
    ) -> None:
        super().__init__(maps)
        self.network, self.multiple, self.place, self._config = network, multiple, config.place, config
        self._cut = split_network(network)
        if config.place == "scales" and not self._cut.scales:
            raise MaskcastError(
                f"model.base.arch {config.base.arch!r} has no scales for a memory; set model.place "
                "to logits, decoder or decoder_split, or choose the base unet or smp_unet"
            )
        kind: Callable[..., Memory]
        kind, seen = {
            "logits": (CellMemory, (sum(self.channels),)),
            "decoder": (CellMemory, (self._cut.channels,)),
            "decoder_split": (SplitMemory, (self._cut.channels,)),
            "scales": (HalfMemory, self._cut.scales),
        }[config.place]
        self.memories = nn.ModuleList(kind(channels, config.hidden, config.cell, config.sees) for channels in seen)
        self.to(memory_format=torch.channels_last)
        if config.frozen in ("encoder", "base"):
            for part in self._still():
                part.requires_grad_(False)
        self.train()

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's tensors, in order."""
        return tuple(f"{name}_{n}" for n in range(len(self.memories)) for name in self._memory(n).state_names)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; frozen parts stay in eval mode, so that their batch norms keep their statistics."""
        super().train(mode)
        for part in self._still():
            part.eval()
        return self

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        """Returns logits of each map, and the state after the last frame."""
        return self._remembering(self._maps(frames_BTHWC), frames_BTHWC, state)

    def with_frames_alone(
        self, frames_BTHWC: Tensor, state: State = ()
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], State]:
        """Returns the logits, those of the base (each frame without memory), and the last state."""
        maps = self._maps(frames_BTHWC)
        logits, state = self._remembering(maps, frames_BTHWC, state)
        return logits, self.cropped(self._logits(maps, as_it_is), frames_BTHWC), state

    def _still(self) -> list[nn.Module]:
        """Returns the frozen modules. Norms are looked up each time, as on several GPUs they are replaced."""
        frozen = self._config.frozen
        if frozen == "norms":
            return [part for part in self.network.modules() if isinstance(part, _BatchNorm)]
        if frozen == "nothing":
            return []
        return [self.network if frozen == "base" else self._config.encoder_of(self)]

    def _memory(self, place: int) -> Memory:
        memory = self.memories[place]
        assert isinstance(memory, Memory)
        return memory

    def _maps(self, frames_BTHWC: Tensor) -> Maps:
        return self._cut.encode(padded(self.normalised(frames_BTHWC), self.multiple))

    def _remembering(self, maps: Maps, frames_BTHWC: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        batch, before, after = frames_BTHWC.shape[:2], iter(state), []

        def remember(place: int, map_NCHW: Tensor) -> Tensor:
            memory, x_BTCHW = self._memory(place), map_NCHW.unflatten(0, batch)
            x_BTCHW, own = memory(x_BTCHW, tuple(islice(before, len(memory.state_names))))
            after.extend(own)
            return x_BTCHW.flatten(0, 1)

        return self.cropped(self._logits(maps, remember), frames_BTHWC), tuple(after)

    def _logits(self, maps: Maps, change: Change) -> Tensor:
        """Returns logits (N, K, H, W), after applying ``change`` where memories are inserted."""
        features_NCHW = self._cut.decode(maps, change if self.place == "scales" else as_it_is)
        if self.place.startswith("decoder"):
            features_NCHW = change(0, features_NCHW)
        logits_NKHW = self._cut.head(features_NCHW)
        return change(0, logits_NKHW) if self.place == "logits" else logits_NKHW
