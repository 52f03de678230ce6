"""Convolutional recurrent cells. The gates' input half is computed for all steps at once.

``inputs`` convolves the whole input, (B, T, C, H, W). ``step`` adds the hidden half, which depends on the step
before. Under autocast the convolutions run in bf16, and gates and states stay float32. An exception is the hidden
state of GPU kernels (``kernels.gates``), which is only an input of convolutions.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.models.arithmetic import at_least_float32, has_kernels

Peepholes = Literal["none", "channel", "full"]
State = tuple[Tensor, ...]


class _Cell(nn.Module):
    """Base of both cells: the input half of the gates, and an initial state of zeros."""

    hidden: int
    input: nn.Conv2d
    num_states: int

    def start(self, like_BCHW: Tensor) -> State:
        """Returns a state of zeros for the batch and size of an input."""
        batch, _, height, width = like_BCHW.shape
        shape = (batch, self.hidden, height, width)
        zeros = torch.zeros(shape, device=like_BCHW.device, dtype=self.input.weight.dtype)
        return (zeros,) * self.num_states

    def inputs(self, x_BTCHW: Tensor) -> tuple[Tensor, ...]:
        """Returns the input half of the gates for every step."""
        return _batched(self.input, x_BTCHW)

    def without_input(self) -> Tensor:
        """Returns the input half of the gates for a step without input."""
        assert self.input.bias is not None
        return self.input.bias[:, None, None]


class ConvLSTMCell(_Cell):
    """ConvLSTM (Shi et al. 2015, arXiv 1506.04214) with forget bias 1 and optional peepholes that start at 0.

    Args:
        channels: of the input.
        hidden: of the state.
        kernel: size of both convolutions, odd.
        norm: GroupNorm on the gates.
        activation: of the candidate and the output.
        peepholes: none, one weight per channel, or one per channel and place of ``size`` (H, W).
        size: of the state, for full peepholes.
    """

    num_states = 2  # hidden, cell

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel: int,
        *,
        norm: bool = True,
        activation: Literal["tanh", "relu"] = "tanh",
        peepholes: Peepholes = "none",
        size: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.activation = torch.tanh if activation == "tanh" else torch.relu
        self.input = nn.Conv2d(channels, 4 * hidden, kernel, padding=kernel // 2)
        self.recurrent = nn.Conv2d(hidden, 4 * hidden, kernel, padding=kernel // 2, bias=False)
        self.norm = _gate_norm(4, hidden) if norm else nn.Identity()
        bias = self.norm.bias if isinstance(self.norm, nn.GroupNorm) else self.input.bias
        assert bias is not None
        with torch.no_grad():
            bias.zero_()[hidden : 2 * hidden] = 1.0
        self.peepholes = None
        if peepholes != "none":
            self.peepholes = nn.Parameter(torch.zeros(3, hidden, *(size if peepholes == "full" else (1, 1))))

    def step(self, gates_x: Tensor, state: State) -> State:
        """Returns the state (h, c) after one step."""
        hidden, cell = state
        gates_h = self.recurrent(hidden)
        plain = self.peepholes is None and self.activation is torch.tanh
        if plain and isinstance(self.norm, nn.GroupNorm) and has_kernels(gates_h):
            from maskcast.models.kernels.gates import gated

            return gated(gates_x, gates_h, cell, self.norm)
        return self.gated(gates_x, gates_h, cell)

    def gated(self, gates_x: Tensor, gates_h: Tensor, cell: Tensor) -> State:
        """Returns the state (h, c) from both halves of the gates: all of a step but its convolution."""
        gates = self.norm(at_least_float32(gates_x + gates_h))
        i, f, g, o = gates.chunk(4, dim=1)
        if self.peepholes is not None:
            _check_size(self.peepholes, cell)
            i, f = i + self.peepholes[0] * cell, f + self.peepholes[1] * cell
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * self.activation(g)
        if self.peepholes is not None:
            o = o + self.peepholes[2] * cell
        return torch.sigmoid(o) * self.activation(cell), cell


class ConvGRUCell(_Cell):
    """ConvGRU (Ballas et al. 2016, arXiv 1511.06432), with the reset gate before the candidate's convolution."""

    num_states = 1

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input = nn.Conv2d(channels, 3 * hidden, kernel, padding=kernel // 2)
        self.recurrent = nn.Conv2d(hidden, 2 * hidden, kernel, padding=kernel // 2, bias=False)
        self.candidate = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, bias=False)
        self.norm, self.candidate_norm = _gate_norm(2, hidden), _gate_norm(1, hidden)

    def step(self, gates: Tensor, state: State) -> State:
        """Returns the state (h,) after one step."""
        (hidden,) = state
        gates_x, candidate_x = gates.split([2 * self.hidden, self.hidden], dim=-3)
        gates = self.norm(at_least_float32(gates_x + self.recurrent(hidden)))
        update, reset = torch.sigmoid(gates).chunk(2, dim=1)
        candidate = self.candidate_norm(at_least_float32(candidate_x + self.candidate(reset * hidden)))
        return ((1 - update) * hidden + update * torch.tanh(candidate),)


def _check_size(peepholes: Tensor, cell: Tensor) -> None:
    """Checks that full peepholes have the size of the state.

    Raises:
        MaskcastError: they were made for frames of another size.
    """
    expected, got = tuple(peepholes.shape[-2:]), tuple(cell.shape[-2:])
    if expected not in ((1, 1), got):
        raise MaskcastError(
            f"model.size: full peepholes are for {expected[0]} x {expected[1]} places, the frames have {got[0]} x "
            f"{got[1]}; set size to the height and width of the frames, or peepholes to channel"
        )


def set_to_zero(layer: nn.Module) -> None:
    """Sets the parameters of a layer to zero, so that its output is 0 until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _batched(conv: nn.Conv2d, x_BTCHW: Tensor) -> tuple[Tensor, ...]:
    """Returns the convolution of every step, unbound, as the backward of indexing per step costs O(T^2)."""
    gates = conv(x_BTCHW.flatten(0, 1)).unflatten(0, x_BTCHW.shape[:2])
    if gates.is_cuda:  # channels_last, as in the GPU's kernels, so that gradients need no change of layout
        return tuple(each.permute(0, 3, 1, 2) for each in gates.permute(0, 1, 3, 4, 2).unbind(1))
    return gates.unbind(1)


def _gate_norm(gates: int, hidden: int) -> nn.GroupNorm:
    """Returns GroupNorm with groups of about 16 channels, none of which spans two gates."""
    per_gate = next(groups for groups in range(max(1, hidden // 16), 0, -1) if hidden % groups == 0)
    return nn.GroupNorm(gates * per_gate, gates * hidden)
