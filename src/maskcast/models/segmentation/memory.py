"""The memory of a segmenter: a recurrent cell on feature maps, added as a residual that starts at zero.

The output of a cell is between -1 and 1; added as a residual, it bounds neither features nor confidence. At first
the residual is 0, so that a network with a new memory gives the same output as without.

Legend: B clips, T frames, C channels, H height, W width.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from maskcast.models.arithmetic import at_least_float32
from maskcast.models.recurrent.cells import ConvGRUCell, ConvLSTMCell, State, set_to_zero

KERNEL = 3
READ = 2  # own earlier outputs that are read before the frame

Cell = Literal["gru", "lstm"]
Sees = Literal["frame", "own_outputs"]


class Memory(nn.Module, ABC):
    """Changes feature maps, depending on earlier ones."""

    state_names: tuple[str, ...]
    """Names of the state's tensors."""

    @abstractmethod
    def forward(self, x_BTCHW: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the changed maps, and the state after the last one. ``()`` is the initial state, zeros."""


class CellMemory(Memory):
    """Adds to each map the output of a recurrent cell.

    Args:
        channels: of the maps.
        hidden: channels of the cell's state; None for as many as the maps have.
        cell: kind of the cell.
        sees: ``frame`` carries the cell's state from map to map. ``own_outputs`` resets it at each map, and reads
            the last two changed maps and then this one.
        starts_at_zero: whether the added output is 0 before training.
    """

    def __init__(
        self, channels: int, hidden: int | None, cell: Cell, sees: Sees, *, starts_at_zero: bool = True
    ) -> None:
        super().__init__()
        make = ConvGRUCell if cell == "gru" else ConvLSTMCell
        self.cell = make(channels, hidden or channels, KERNEL)
        self.out = nn.Conv2d(self.cell.hidden, channels, 1)
        if starts_at_zero:
            set_to_zero(self.out)
        self.own_outputs = sees == "own_outputs"
        self.state_names = ("before_last", "last") if self.own_outputs else ("hidden", "cell")[: make.num_states]

    def forward(self, x_BTCHW: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the changed maps, and the state after the last one."""
        if self.own_outputs:
            return self._from_outputs(x_BTCHW, state)
        state, hidden = state or self.cell.start(x_BTCHW[:, 0]), []
        for gates in self.cell.inputs(x_BTCHW):
            state = self.cell.step(gates, state)
            hidden.append(state[0])
        return x_BTCHW + _each(self.out, torch.stack(hidden, 1)), state

    def _from_outputs(self, x_BTCHW: Tensor, state: State) -> tuple[Tensor, State]:
        outputs = list(state) or [torch.zeros_like(at_least_float32(x_BTCHW[:, 0]))] * READ
        read = [self.cell.input(output_BCHW) for output_BCHW in outputs]
        for x_BCHW, gates in zip(x_BTCHW.unbind(1), self.cell.inputs(x_BTCHW), strict=True):
            own = self.cell.start(x_BCHW)
            for each in (*read[-READ:], gates):
                own = self.cell.step(each, own)
            outputs.append(at_least_float32(x_BCHW + self.out(own[0])))
            read.append(self.cell.input(outputs[-1]))
        return torch.stack(outputs[READ:], 1), tuple(outputs[-READ:])


class SplitMemory(Memory):
    """Projects maps into two halves, applies a memory to one of them, and adds a projection of both.

    Args:
        channels: of the maps.
        hidden: channels of the cell's state; None for half of the channels.
        cell: see ``CellMemory``.
        sees: see ``CellMemory``.
    """

    def __init__(self, channels: int, hidden: int | None, cell: Cell, sees: Sees) -> None:
        super().__init__()
        seen = max(1, channels // 2)
        self.squeeze = nn.Conv2d(channels, 2 * seen, 1)
        self.memory = CellMemory(seen, hidden, cell, sees, starts_at_zero=False)
        self.out = nn.Conv2d(2 * seen, channels, 1)
        set_to_zero(self.out)
        self.state_names = self.memory.state_names

    def forward(self, x_BTCHW: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the changed maps, and the state after the last one."""
        seen_BTcHW, beside_BTcHW = _each(self.squeeze, x_BTCHW).relu().chunk(2, dim=2)
        seen_BTcHW, state = self.memory(seen_BTcHW, state)
        return x_BTCHW + _each(self.out, torch.cat([seen_BTcHW, beside_BTcHW], 2)), state


class HalfMemory(Memory):
    """Applies a memory to the second half of the channels only (Lin et al. 2021, arXiv 2108.11515).

    Args:
        channels: of the maps, at least 2.
        hidden: channels of the cell's state; None for half of the channels.
        cell: see ``CellMemory``.
        sees: see ``CellMemory``.
    """

    def __init__(self, channels: int, hidden: int | None, cell: Cell, sees: Sees) -> None:
        super().__init__()
        self.sizes = [channels - channels // 2, channels // 2]
        self.memory = CellMemory(channels // 2, hidden, cell, sees)
        self.state_names = self.memory.state_names

    def forward(self, x_BTCHW: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the changed maps, and the state after the last one."""
        passing_BTcHW, seen_BTcHW = x_BTCHW.split(self.sizes, 2)
        seen_BTcHW, state = self.memory(seen_BTcHW, state)
        return torch.cat([passing_BTcHW, seen_BTcHW], 2), state


def _each(layer: nn.Conv2d, x_BTCHW: Tensor) -> Tensor:
    """Applies a layer to each map."""
    y_NCHW: Tensor = layer(x_BTCHW.flatten(0, 1))
    return y_NCHW.unflatten(0, x_BTCHW.shape[:2])
