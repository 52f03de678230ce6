"""MaskLoss against the plain one-hot formulas: time and peak memory of forward + backward, one process, one table.

Each round times every variant once in shuffled order; the speed-up is the median of the rounds' paired ratios.
Peak memory is what a fresh process adds to its resident set between "logits and target exist" and "the gradient
exists" (Linux: VmHWM - VmRSS; ru_maxrss would show the parent's peak), so it counts the gradient of the logits,
which every form must return.

    python benchmarks/losses.py
"""

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from _common import commit, positive_int
from maskcast.errors import one_line_errors
from maskcast.models.segmentation.configs import MaskLossConfig
from maskcast.models.segmentation.losses import MaskLoss

Loss = Callable[[Tensor, Tensor], Tensor]
BACKGROUND_WEIGHT, GAMMA = 0.3, 2


def one_hot(target: Tensor, logits: Tensor) -> Tensor:
    return F.one_hot(target.long(), logits.shape[1]).movedim(-1, 1).to(logits.dtype)


def plain_ce(logits: Tensor, target: Tensor) -> Tensor:
    weight = torch.ones(logits.shape[1], 1, 1)
    weight[0] = BACKGROUND_WEIGHT
    weighted = one_hot(target, logits) * weight
    return -(weighted * F.log_softmax(logits, 1)).sum() / weighted.sum()


def plain_dice(logits: Tensor, target: Tensor) -> Tensor:
    y, p = one_hot(target, logits), logits.softmax(1)
    present = y.sum((0, 2, 3)) > 0
    return ((1 - 2 * (p * y).sum((0, 2, 3)) / (p + y).sum((0, 2, 3)).clamp_min(1e-7)) * present).mean()


def plain_focal(logits: Tensor, target: Tensor) -> Tensor:
    bce = F.binary_cross_entropy_with_logits(logits, one_hot(target, logits), reduction="none")
    return ((1 - torch.exp(-bce)) ** GAMMA * bce).mean((0, 2, 3)).sum()


def plain_sum(logits: Tensor, target: Tensor) -> Tensor:
    ce, dice, focal = (loss(logits, target) for loss in (plain_ce, plain_dice, plain_focal))
    return 0.2 * ce + 0.4 * dice + 0.4 * focal


PLAIN: dict[str, Loss] = {"CE": plain_ce, "Dice": plain_dice, "focal": plain_focal, "sum": plain_sum}
OURS: dict[str, Loss] = {
    "CE": MaskLoss(MaskLossConfig(ce=1, dice=0, focal=0)),
    "Dice": MaskLoss(MaskLossConfig(ce=0, dice=1, focal=0)),
    "focal": MaskLoss(MaskLossConfig(ce=0, dice=0, focal=1)),
    "sum": MaskLoss(MaskLossConfig()),
}


def make_batch(shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Returns channels_last logits, like those of maskcast's networks, and a target of 8 x 8 blocks."""
    frames, classes, height, width = shape
    generator = torch.Generator().manual_seed(0)
    logits = torch.empty(frames, height, width, classes).normal_(std=2, generator=generator)
    blocks = torch.randint(0, classes, (frames, -(-height // 8), -(-width // 8)), generator=generator)
    target = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].to(torch.uint8)
    return logits.movedim(-1, 1).requires_grad_(), target


def timed(loss: Loss, logits: Tensor, target: Tensor) -> tuple[float, float, Tensor]:
    start = time.perf_counter()
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)  # as in a network, in which logits are not leaves
    return time.perf_counter() - start, value.item(), gradient


def measure_memory(name: str, form: str, shape: tuple[int, int, int, int]) -> None:
    """Prints how many MiB one forward + backward adds to this process's peak memory."""
    logits, target = make_batch(shape)
    loss = (PLAIN if form == "plain" else OURS)[name]
    timed(loss, logits.detach()[:1, :, :8, :8].requires_grad_(), target[:1, :8, :8])  # load the kernels first
    before = resident_mib("VmRSS")
    timed(loss, logits, target)
    print(resident_mib("VmHWM") - before)


def resident_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def peak_mib(name: str, form: str, args: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--memory-of", name, form, "--threads", str(args.threads), "--shape"]
    result = subprocess.run([*command, *map(str, args.shape)], capture_output=True, text=True, check=True)
    return float(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", type=positive_int, nargs=4, default=[11, 49, 160, 240], metavar=("N", "K", "H", "W")
    )
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--threads", type=positive_int, default=1)
    parser.add_argument("--losses", nargs="+", choices=PLAIN, default=list(PLAIN))
    parser.add_argument("--memory-of", nargs=2, metavar=("LOSS", "FORM"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    frames, classes, height, width = args.shape
    shape = (frames, classes, height, width)
    if args.memory_of:
        name, form = args.memory_of
        measure_memory(name, form, shape)
        return

    logits, target = make_batch(shape)
    seconds: dict[tuple[str, str], list[float]] = {(n, f): [] for n in args.losses for f in ("plain", "ours")}
    difference = {}
    for round_index in range(args.rounds + 1):  # the first is for warm-up
        found: dict[tuple[str, str], tuple[float, Tensor]] = {}
        for name in random.Random(round_index).sample(sorted(args.losses), len(args.losses)):
            for form, losses in (("plain", PLAIN), ("ours", OURS)):
                taken, value, gradient = timed(losses[name], logits, target)
                found[form, name] = value, gradient
                if round_index:
                    seconds[name, form].append(taken)
            (value, gradient), (our_value, our_gradient) = found.pop(("plain", name)), found.pop(("ours", name))
            worst = (our_gradient - gradient).abs().max() / gradient.abs().max()
            difference[name] = abs(our_value - value) / value, worst.item()

    size = "x".join(map(str, shape))
    print(f"logits {size} fp32, {args.threads} thread(s), {args.rounds} rounds, commit {commit()}\n")
    print("| loss | plain ms | ours ms | speed-up | plain MiB | ours MiB | memory | value diff | gradient diff |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.losses:
        plain_s, our_s = seconds[name, "plain"], seconds[name, "ours"]
        ratio = statistics.median(a / b for a, b in zip(plain_s, our_s, strict=True))
        plain_mib, our_mib = peak_mib(name, "plain", args), peak_mib(name, "ours", args)
        value_diff, gradient_diff = difference[name]
        milliseconds = (
            f"{1e3 * statistics.median(plain_s):.0f} | {1e3 * statistics.median(our_s):.0f} | {ratio:.1f}x"
        )
        share = f"{our_mib / plain_mib:.2f}x" if plain_mib else "too little to tell"
        memory = f"{plain_mib:.0f} | {our_mib:.0f} | {share}"
        print(f"| {name} | {milliseconds} | {memory} | {value_diff:.0e} | {gradient_diff:.0e} |")


if __name__ == "__main__":
    with one_line_errors():
        main()
