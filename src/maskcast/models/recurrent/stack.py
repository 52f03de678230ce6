"""A stack of recurrent layers, which reads a sequence and then continues it.

Shapes: B clips, T input steps, C channels, H height, W width (of the state).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from maskcast.models.recurrent.cells import ConvGRUCell, ConvLSTMCell, State

Cell = ConvLSTMCell | ConvGRUCell


class Recurrent(nn.Module):
    """Layers of recurrent cells, each with an optional BatchNorm on its output."""

    def __init__(self, cells: Sequence[Cell], *, batch_norm: bool = False) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.fixed_shapes = [f"cells.{k}.gated" for k, cell in enumerate(cells) if isinstance(cell, ConvLSTMCell)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(cell.hidden) if batch_norm else nn.Identity() for cell in cells)

    def forward(
        self, seen_BTCHW: Tensor, horizon: int, feed: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """Returns the top layer's output (B, C, H, W) at each of the ``horizon`` steps after the input.

        Args:
            seen_BTCHW: input of the first layer.
            horizon: number of steps to continue.
            feed: makes a step's input from the top layer's last output; without it these steps have no input.
        """
        states, top = self._read(seen_BTCHW, without_input=feed is None)
        outputs = []
        for _ in range(horizon):
            below = None if feed is None else feed(top)
            for layer, (cell, norm) in enumerate(self._layers()):
                gates = cell.without_input() if below is None else cell.input(below)
                states[layer] = cell.step(gates, states[layer])
                below = norm(states[layer][0])
            assert below is not None
            top = below
            outputs.append(top)
        return outputs

    def _layers(self) -> Iterator[tuple[Cell, nn.Module]]:
        for cell, norm in zip(self.cells, self.norms, strict=True):
            assert isinstance(cell, ConvLSTMCell | ConvGRUCell)
            yield cell, norm

    def _read(self, seen_BTCHW: Tensor, *, without_input: bool) -> tuple[list[State], Tensor]:
        """Returns each layer's state after the last input step, and the top layer's output there."""
        states: list[State] = []
        x_BTCHW = seen_BTCHW
        for cell, norm in self._layers():
            state = cell.start(x_BTCHW[:, 0])
            hidden = []
            for gates in cell.inputs(x_BTCHW):
                state = cell.step(gates, state)
                hidden.append(state[0])
            states.append(state)
            if without_input and len(states) == len(self.cells) and isinstance(norm, nn.Identity):
                return states, state[0]  # this output is not used
            batch_steps = torch.stack(hidden, dim=1)
            x_BTCHW = norm(batch_steps.flatten(0, 1)).unflatten(0, batch_steps.shape[:2])
        return states, x_BTCHW[:, -1]
