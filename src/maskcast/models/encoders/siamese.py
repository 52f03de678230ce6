"""The base of self-supervised methods with two views: an encoder, and a momentum copy of it as its target.

The copy sees its views in shuffled sub-batches, so that batch-norm statistics do not reveal which views belong
together (the shuffling BN of MoCo, here for any number of devices). Each process runs the copy on sub-batches of
its own. ``all_sum`` puts their outputs together in the order of the batch, so that every process has the same
targets as a single process would have.

Legend: B samples of the whole batch, b of this process, n of its sub-batches, H height, W width, C channels,
D embedding, S cells of the last map.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.distributed import all_sum, rank_indices, world_size
from maskcast.models.encoders.base import padded


class Views(NamedTuple):
    """Two views of each sample, uint8 RGB."""

    own: Tensor
    """Views of this process's part of the batch, (2, b, H, W, C)."""
    shuffled: Tensor
    """Views of the samples of its shuffled sub-batches, (2, n, H, W, C)."""
    order: Tensor
    """Index in the batch of each of these samples, (n,) int64."""
    step: Tensor
    """Number of the step, () int64; a tensor, so that a recorded step can read it."""


class Normalised(nn.Module):
    """An encoder that takes uint8 frames and normalises them.

    Args:
        encoder: built by an encoder's config.
        mean: of each channel, of pixels scaled to [0, 1].
        std: of each channel, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.stride, self.channels = int(encoder.output_stride), int(encoder.out_channels[-1])  # type: ignore[arg-type, index]
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, frames_BHWC: Tensor) -> Tensor:
        """Pads the frames to multiples of the stride, and returns the last map, (B, C, height, width)."""
        x_BCHW = ((frames_BHWC.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
        maps: list[Tensor] = self.encoder(padded(x_BCHW, self.stride))
        return maps[-1]


class Siamese(nn.Module):
    """Base of the methods with a momentum copy.

    Args:
        encoder: takes uint8 frames and returns its last map.
        head: maps the last map to embeddings; it is trained with the encoder and then discarded.
        momentum: of the copy, in each step: copy = momentum * copy + (1 - momentum) * encoder.
        sub_batches: number of parts of a batch in which the copy's batch norms compute their statistics.
    """

    def __init__(self, encoder: Normalised, head: nn.Module, momentum: float, sub_batches: int) -> None:
        super().__init__()
        self.encoder, self.head, self.momentum, self.sub_batches = encoder, head, momentum, sub_batches
        self.target = deepcopy(nn.ModuleList([encoder, head])).requires_grad_(False)

    @property
    def average(self) -> nn.Module:
        """The momentum copy, whose batch norms keep to this process (``maskcast.distributed``)."""
        return self.target

    def loss(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of the whole batch, and numbers to log.

        What it does on the host does not depend on the step, so that a step can be recorded
        (``models/cuda_graphs.py``).

        The numbers include ``embedding_spread`` of the copy's embeddings, which falls to 0 if the method
        collapses.
        """
        raise TypeError(f"{type(self).__name__} has no loss")

    @torch.no_grad()
    def move_target(self) -> None:
        """Updates the copy's weights towards the encoder's; its batch norms keep their own statistics."""
        for slow, fast in zip(
            self.target.parameters(), [*self.encoder.parameters(), *self.head.parameters()], strict=True
        ):
            slow.lerp_(fast, 1 - self.momentum)

    @torch.no_grad()
    def targets(
        self, frames_nHWC: Tensor, order_n: Tensor, head: Callable[[Tensor], Sequence[Tensor]]
    ) -> list[Tensor]:
        """Returns the outputs of ``head`` on the copy's last map, for the whole batch in its order.

        Args:
            frames_nHWC: the samples of this process's sub-batches.
            order_n: their indices in the batch.
            head: maps (n, C, h, w) to tensors whose first axis is n.
        """
        parts = [head(self.target[0](part)) for part in frames_nHWC.chunk(self.sub_batches // world_size())]
        return [_in_order(torch.cat(tensors).float(), order_n) for tensors in zip(*parts, strict=True)]

    @staticmethod
    def own(whole: Tensor) -> Tensor:
        """Returns the rows of this process's part of the batch."""
        part = rank_indices(len(whole))
        return whole[part.start :: part.step]


def pool(map_BChw: Tensor) -> Tensor:
    """Returns the mean over all cells of a map, (B, C)."""
    return map_BChw.mean((2, 3))


def cells(map_BChw: Tensor) -> Tensor:
    """Returns the cells of a map as normalised vectors, (B, C, S)."""
    return F.normalize(map_BChw.flatten(2).float(), dim=1)


def embedding_spread(embeddings_BD: Tensor) -> Tensor:
    """Returns the spread of normalised embeddings: 1 if they are uniform on the sphere, 0 if all are equal.

    It is the standard deviation of each coordinate over the samples, averaged over the coordinates, times
    sqrt(D) (Chen and He 2021, arXiv 2011.10566, section 4.1).
    """
    return embeddings_BD.float().std(0, correction=0).mean() * embeddings_BD.shape[1] ** 0.5


def _in_order(rows: Tensor, order: Tensor) -> Tensor:
    """Returns the rows of all processes, each at its index in the batch."""
    whole = rows.new_zeros(len(rows) * world_size(), *rows.shape[1:])
    whole[order] = rows
    return all_sum(whole)
