"""Training speed of the ConvLSTM forecaster against a plain ConvLSTM at full resolution, side by side in one run.

Plain: the cell convolves cat(x, h) at every step, 49 one-hot channels in, zeros into the decoder, a 1x1 head per
step, cross entropy over all 11 future frames, fp32. Ours: `ConvLSTMConfig()` under bf16 autocast, one training
step as the stages take it. Both: forward, backward and optimiser step on 160x240 masks of 22 frames.

    python benchmarks/forecaster.py [--rounds 3] [--hidden 32] [--batch 32] [--threads 1]
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from _common import positive_int, print_table, ratio, time_interleaved
from maskcast.errors import one_line_errors
from maskcast.models.forecasting.batches import TrackBatch
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.objects.tracks import pack_tracks, stack_tracks
from maskcast.simulator.scenes import simulate_clip

CLASSES, CONTEXT, HORIZON = 49, 11, 11


class PlainConvLSTM(nn.Module):
    """A ConvLSTM encoder-forecaster as it is usually written."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(CLASSES + hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Conv2d(hidden, CLASSES, 1)

    def loss(self, context_BTHW: Tensor, target_BhHW: Tensor) -> Tensor:
        """Returns the mean cross entropy of the future frames."""
        onehot = F.one_hot(context_BTHW.long(), CLASSES).movedim(-1, 2).float()
        batch, steps, _, height, width = onehot.shape
        h = c = torch.zeros(batch, self.hidden, height, width)
        for t in range(steps):
            h, c = self.step(onehot[:, t], h, c)
        total = torch.zeros(())
        for t in range(target_BhHW.shape[1]):
            h, c = self.step(torch.zeros(batch, CLASSES, height, width), h, c)
            total = total + F.cross_entropy(self.head(h), target_BhHW[:, t].long())
        return total / target_BhHW.shape[1]

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Returns h and c after one step."""
        i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


def train_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description="training speed of the forecaster")
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--hidden", type=positive_int, default=ConvLSTMConfig().hidden)
    parser.add_argument("--batch", type=positive_int, default=32, help="windows per step of ours; plain takes one")
    parser.add_argument("--threads", type=positive_int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clips = [torch.from_numpy(simulate_clip(seed, render=False)[1]) for seed in range(arguments.batch)]
    masks = torch.stack(clips)
    plain = PlainConvLSTM(arguments.hidden)
    ours: Any = ConvLSTMConfig(hidden=arguments.hidden).build(CLASSES)

    tracks = stack_tracks([pack_tracks(clip, CLASSES) for clip in clips])  # made once per clip in a training
    few = masks[: ours.pixels.clips]

    def our_loss() -> Tensor:
        seen, coming = (
            TrackBatch(tracks[:, part], few[:, part]) for part in (slice(CONTEXT), slice(CONTEXT, None))
        )
        with torch.autocast("cpu", torch.bfloat16):
            loss: Tensor = ours.loss(seen, coming)[0]
        return loss

    variants = {
        "plain": (train_step(plain, lambda: plain.loss(masks[:1, :CONTEXT], masks[:1, CONTEXT:])), 1),
        "ours": (train_step(ours, our_loss), arguments.batch),
    }
    seconds = time_interleaved({name: step for name, (step, _) in variants.items()}, arguments.rounds)
    each = {name: [value / variants[name][1] for value in values] for name, values in seconds.items()}
    rows = []
    for name, values in each.items():
        value = statistics.median(values)
        rows.append((name, f"{value:.4f}", f"{1 / value:.2f}", f"{ratio(each['plain'], values):.1f}"))
    title = f"one training step, hidden {arguments.hidden}, {arguments.rounds} rounds, CPU time"
    print_table(title, ("variant", "s per sequence", "sequences per s", "speed-up"), rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
