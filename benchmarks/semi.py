"""Steps of a masker against a supervised one by AdamW: semi-supervised ones, and Muon's. CPU time, one table.

A step makes its batch, gives the loss, its gradient and the optimiser's update: the U-Net of width 16 and crops of
32x48 of `recipes/few-labels`. Rounds are time_interleaved; the cost is the median of the rounds' paired ratios.

    python benchmarks/semi.py [--labelled 64] [--unlabelled 48] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _common import positive_int, print_table, ratio, time_interleaved
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import one_line_errors
from maskcast.labels import MASK, single_map
from maskcast.training.tasks.segmentation import FrameTask
from maskcast.training.tasks.segmentation_params import SegmentationTraining

CLASSES = 49
TRAINING = {"epochs": 1, "steps_per_epoch": 1000, "learning_rate": 1e-4}
RECIPE: dict[str, Any] = {
    "model": {"arch": "unet", "width": 16},
    "loss": {"ce": 1.0, "dice": 0.0, "focal": 0.0, "background_weight": 1.0},
    "augment": {"hflip": 0.5, "crop": [32, 48], "crop_on_object": 0.9},
}


def write_clips(root: Path) -> ClipStore:
    """Writes labelled clips in train and val, and an unlabelled clip: coloured blocks, 80x120."""
    random = np.random.default_rng(0)
    classes = [f"class {k}" for k in range(CLASSES)]
    colours = random.integers(0, 256, (CLASSES, 3), dtype=np.uint8)
    with ClipWriter(root, height=80, width=120, maps=single_map(classes)) as writer:
        for split, kind in (("train", "labelled"), ("val", "labelled"), ("unlabeled", "unlabelled")):
            blocks = random.integers(0, CLASSES, (22, 10, 15), dtype=np.uint8)
            masks = blocks.repeat(8, 1).repeat(8, 2)
            labels = {MASK: masks} if kind == "labelled" else {}
            writer.add(split, split=split, kind=kind, frames=colours[masks], masks=labels)
    return ClipStore(root)


def stepper(store: ClipStore, precision: str, **changes: Any) -> Callable[[], None]:
    """Returns a function that takes the next training step."""
    labelled, optimizer_name = changes.pop("labelled"), changes.pop("optimizer", "adamw")
    training = TRAINING | {"batch_size": labelled, "precision": precision, "optimizer": optimizer_name}
    params = SegmentationTraining.model_validate(RECIPE | {"training": training} | changes)
    task, steps = FrameTask(store, params, "x"), count()
    optimizer = params.training.make_optimizer(task.model)
    task.model.train()

    def step() -> None:
        number = next(steps)
        batch = task.batch(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = task.loss(batch, number)
        loss.float().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        task.end_step(number)

    return step


def main() -> None:
    """Runs the benchmark and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=positive_int, default=64, help="frames with labels in a step")
    parser.add_argument("--unlabelled", type=positive_int, default=48, help="frames without labels in a step")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--rounds", type=positive_int, default=7)
    args = parser.parse_args()
    for flag, least in (("labelled", 2), ("unlabelled", 4)):
        if (size := getattr(args, flag)) < least or size % 2:
            parser.error(
                f"--{flag} {size}: give an even number from {least} on, as unlabelled frames come in pairs"
            )
    torch.set_num_threads(1)

    def semi(size: int, **settings: Any) -> dict[str, Any]:
        return {"ema": 0.99, "unlabeled": {"batch_size": size, "burn_in_steps": 0} | settings}

    variants: dict[str, dict[str, Any]] = {
        "supervised": {},
        "supervised, with a running average": {"ema": 0.99},
        "supervised, by Muon": {"optimizer": "muon"},
        f"semi-supervised, {args.unlabelled} unlabelled": semi(args.unlabelled),
        "half of the features dropped": semi(args.unlabelled, feature_dropout=0.5),
        "without CutMix": semi(args.unlabelled, cutmix=0),
        "two frames agree": semi(2 * (args.unlabelled // 4), consistent_frames=2),
        f"as many unlabelled: {args.labelled}": semi(args.labelled),
    }
    with tempfile.TemporaryDirectory() as folder:
        store = write_clips(Path(folder) / "clips")
        steps = {
            name: stepper(store, args.precision, labelled=args.labelled, **changes)
            for name, changes in variants.items()
        }
        seconds = time_interleaved(steps, args.rounds)
    base = seconds["supervised"]
    rows = [
        (name, f"{1000 * statistics.median(taken):.0f}", f"{1 / ratio(base, taken):.2f}")
        for name, taken in seconds.items()
    ]
    title = f"{args.labelled} labelled crops of 32x48 a step, {args.precision}, {args.rounds} rounds"
    print_table(title, ("step", "CPU ms", "supervised steps"), rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
