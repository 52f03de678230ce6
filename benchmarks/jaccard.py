"""Macro Jaccard of 110 masks (160x240, 49 classes): ours against torchmetrics with validation on.

    python benchmarks/jaccard.py [--rounds 9] [--masks 110]

torchmetrics needs int64, so the conversion of the uint8 masks belongs to it; ours validates class ids, too.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch

from _common import peer, positive_int, print_table, ratio, time_interleaved
from maskcast.errors import one_line_errors
from maskcast.evaluation.metrics import confusion, macro_jaccard

HEIGHT, WIDTH, CLASSES = 160, 240, 49
PEER, OURS = "torchmetrics, validation on", "maskcast, validation on"


def make_masks(masks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks with five rectangles each, and the same shifted by up to 6 pixels; (N, H, W) uint8 each."""
    rng = np.random.default_rng(seed)
    target = np.zeros((masks, HEIGHT, WIDTH), np.uint8)
    prediction = np.zeros_like(target)
    for n in range(masks):
        for class_id in rng.choice(np.arange(1, CLASSES), 5, replace=False):
            top, left = rng.integers(8, (HEIGHT - 40, WIDTH - 40))
            height, width = rng.integers(12, 32, 2)
            down, right = rng.integers(-6, 7, 2)
            target[n, top : top + height, left : left + width] = class_id
            prediction[n, top + down : top + down + height, left + right : left + right + width] = class_id
    return target, prediction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=9)
    parser.add_argument("--masks", type=positive_int, default=110)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target, prediction = make_masks(args.masks, 0)
    metrics = peer("torchmetrics.classification")

    def ours() -> float:
        return macro_jaccard(confusion(target, prediction, CLASSES), absent="omit")

    def theirs(validate: bool) -> float:
        metric = metrics.MulticlassJaccardIndex(CLASSES, average="macro", validate_args=validate)
        return float(metric(torch.from_numpy(prediction).long(), torch.from_numpy(target).long()))

    variants: dict[str, Callable[[], float]] = {OURS: ours}
    if metrics:
        theirs_too = {PEER: lambda: theirs(True), "torchmetrics, validation off": lambda: theirs(False)}
        variants = theirs_too | variants
    seconds = time_interleaved(variants, args.rounds)
    scores = {name: call() for name, call in variants.items()}
    base = next(iter(seconds.values()))
    rows = [
        (name, f"{statistics.median(s) * 1e3:.1f}", f"{ratio(base, s):.1f}x", f"{scores[name]:.8f}")
        for name, s in seconds.items()
    ]
    size = f"{args.masks} masks {HEIGHT}x{WIDTH}, K={CLASSES}"
    title = f"Macro Jaccard, {size}, medians of {args.rounds} time_interleaved rounds"
    print_table(title, ("variant", "CPU ms", "speed-up", "score"), rows)
    if not metrics:
        return
    difference = max(scores.values()) - min(scores.values())
    equal = difference <= 1e-6  # torchmetrics divides in fp32
    print(f"largest difference of scores: {difference:.1e} ({'equal' if equal else 'NOT EQUAL'})")
    if not equal or ratio(base, seconds[OURS]) < 10:
        raise SystemExit("target missed: equal scores, at least 10 times torchmetrics with validation on")


if __name__ == "__main__":
    with one_line_errors():
        main()
