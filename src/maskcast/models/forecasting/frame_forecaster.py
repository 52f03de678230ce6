"""A recurrent forecaster of frames: the network of the mask forecaster, on colours instead of classes.

An untrained network repeats the last frame.

Shapes: B clips, T context frames, h horizon, S steps, H height, W width, C = 3 colours or the channels of the
state.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.distributed import all_sum, world_size
from maskcast.models.arithmetic import at_least_float32
from maskcast.models.encoders.base import edge_padded
from maskcast.models.forecasting.base import Forecaster
from maskcast.models.forecasting.batches import Batch
from maskcast.models.forecasting.input import Input
from maskcast.models.forecasting.pixels import draw_steps, stacked
from maskcast.models.objects.picks import picked
from maskcast.models.recurrent.cells import set_to_zero
from maskcast.models.recurrent.stack import Recurrent

HEAD_WIDTH = 16


class FrameForecaster(Forecaster):
    """Forecasts RGB frames from RGB frames.

    Args:
        rnn: recurrent layers over an input of ``hidden`` channels.
        hidden: channels of the state.
        stride: pixels per cell of the state, along each axis.
        loss_steps: future frames, drawn at random, that enter a training step's loss.
    """

    input = Input.FRAMES
    same_each_step = True

    def __init__(self, rnn: Recurrent, hidden: int, stride: int, loss_steps: int) -> None:
        super().__init__()
        self.rnn, self.stride, self.fine, self.loss_steps = rnn, stride, min(stride, 2), loss_steps
        self.stem = nn.Conv2d(3, hidden, stride, stride)
        self.up = nn.Conv2d(hidden, HEAD_WIDTH * (stride // self.fine) ** 2, 1)
        self.join = nn.Conv2d(HEAD_WIDTH + 3 * self.fine**2, 2 * HEAD_WIDTH, 3, padding=1)
        self.out = nn.Conv2d(2 * HEAD_WIDTH, 3 * self.fine**2, 3, padding=1)
        self.reset_to_persistence()

    def reset_to_persistence(self) -> None:
        """Resets it to repeating the last frame."""
        set_to_zero(self.out)

    def forecast(self, context_BTHWC: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W, 3) uint8 frames that follow (B, T, H, W, 3) uint8 ones."""
        drawn = (self._draw(context_BTHWC, state[:, None])[:, 0] for state in self._run(context_BTHWC, horizon))
        frames = [(frame_BHWC.clamp(0, 1) * 255).round().to(torch.uint8) for frame_BHWC in drawn]
        return torch.stack(frames, 1)

    def loss(self, context: Batch, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the mean squared error on a sample of future frames (colours in [0, 1]), and its terms."""
        assert isinstance(context, Tensor) and isinstance(target, Tensor)
        horizon = target.shape[1]
        states = self._run(context, horizon)
        steps = draw_steps(horizon, self.loss_steps, target.device)
        drawn = self._draw(context, stacked(states, steps))
        error = all_sum(F.mse_loss(drawn, picked(target, 1, steps).to(drawn.dtype) / 255)) / world_size()
        return error, {"squared_error": error.detach()}

    def _run(self, context_BTHWC: Tensor, horizon: int) -> list[Tensor]:
        """Returns the recurrent state of every step of the forecast."""
        x = self._scaled(context_BTHWC.flatten(0, 1)) - 0.5
        seen = self.stem(edge_padded(x, self.stride))
        return self.rnn(seen.unflatten(0, context_BTHWC.shape[:2]), horizon)

    def _draw(self, context_BTHWC: Tensor, state_BSCHW: Tensor) -> Tensor:
        """Returns frames (B, S, H, W, C) with colours in about [0, 1], not clamped."""
        last = self._scaled(context_BTHWC[:, -1])
        height, width = last.shape[-2:]
        x = F.pixel_shuffle(self.up(state_BSCHW.flatten(0, 1)), self.stride // self.fine)
        skip = F.pixel_unshuffle(edge_padded(last, self.stride), self.fine)
        skip = skip.repeat_interleave(state_BSCHW.shape[1], 0)
        x = F.silu(self.join(torch.cat([x, skip.to(x.dtype)], dim=1)))
        change = at_least_float32(F.pixel_shuffle(self.out(x), self.fine))[..., :height, :width]
        return last[:, None].movedim(2, -1) + change.unflatten(0, state_BSCHW.shape[:2]).movedim(2, -1)

    def _scaled(self, frames_NHWC: Tensor) -> Tensor:
        """Returns the colours scaled to [0, 1], (N, C, H, W)."""
        return frames_NHWC.movedim(-1, -3).to(self.stem.weight.dtype) / 255
