"""Which frames to label next: Jaccard by the number of labelled frames, for each method of `labels suggest`.

    python benchmarks/label_suggestions.py [--work FOLDER] [--seeds 0 1 2] [--budgets 10 20 40]

Simulated clips; a class is the colour of an object, so there are 9 with the background. A seed starts with the
first budget of frames, drawn at random; from then on each method asks for what is missing to the next budget, the
true masks stand in for the people who correct, and a masker is trained from scratch on all frames labelled so far.
The score is macro Jaccard over frames of clips that nobody labels, absent classes left out, of the last weights.
What is in FOLDER already, made with the same values, is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _common import commit, commits, positive_int
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.errors import MaskcastError, one_line_errors
from maskcast.inference.suggestions import METHODS, choose, find_candidates
from maskcast.labels import IGNORE, MASK, single_map
from maskcast.models.segmentation.table import load_masker
from maskcast.params import validate
from maskcast.report.tables import markdown
from maskcast.runner.reuse import Facts, made_once, record_of
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage
from maskcast.seed import derive, rng
from maskcast.simulator.camera import CLASSES, COLORS

SIZE = 48, 72
CLIP = {"frames": 6, "context": 3, "stride": 15}
SPACING = 2  # in frames
Frames = dict[str, list[int]]  # indices of labelled frames, by clip


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("label_suggestions"), help="folder for what is made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--budgets", type=positive_int, nargs="+", default=[10, 20, 40], help="labelled frames, ascending"
    )
    parser.add_argument("--clips", type=positive_int, default=100, help="clips whose frames may be labelled")
    parser.add_argument("--validation", type=positive_int, default=40, help="clips to score")
    parser.add_argument("--steps", type=positive_int, default=500, help="training steps of each masker")
    parser.add_argument("--batch", type=positive_int, default=16)
    args = parser.parse_args()
    if any(after <= before for before, after in pairwise(args.budgets)):
        raise MaskcastError(f"--budgets {' '.join(map(str, args.budgets))}: give them ascending, each once")
    torch.set_num_threads(1)
    truth = simulated(args)
    runs = {name: [one_run(args, truth, name, seed) for seed in args.seeds] for name in METHODS}
    rows = [[name, *map(cell, zip(*rounds, strict=True))] for name, rounds in runs.items()]
    trained = [run for each in runs.values() for rounds in each for run in rounds]
    seeds = ", ".join(map(str, args.seeds))
    print(f"Macro Jaccard by labelled frames: mean [lowest to highest] of seeds {seeds}.")
    print(f"{args.clips} clips, {args.steps} steps of {args.batch} crops, commit {commits(trained)}\n")
    print(markdown(["method", *(f"{budget} frames" for budget in args.budgets)], rows))


def simulated(args: argparse.Namespace) -> ClipStore:
    """Returns clips with their true masks: `train` to label, `val` for scores."""
    args.work.mkdir(parents=True, exist_ok=True)
    root = args.work / "truth"
    source = {"layout": "synthetic", "train": args.clips, "val": args.validation, "unlabeled": 0, **CLIP}
    params = {"source": source, "height": SIZE[0], "width": SIZE[1], "workers": 1, "seed": 7}

    def make() -> None:
        shutil.rmtree(root, ignore_errors=True)
        run_stage("prepare_clips", params, raw=args.work, clips=args.work / "simulated")
        store = ClipStore(args.work / "simulated")
        colour_of = np.array([0, *(1 + COLORS.index(name.split()[-1]) for name in CLASSES[1:])], np.uint8)
        maps = single_map(["background", *COLORS])
        with ClipWriter(root, height=store.height, width=store.width, maps=maps) as writer:
            for clip in store.clips:
                masks = {MASK: colour_of[store.masks(clip)]}
                writer.add(
                    clip.id, split=clip.split, kind=clip.kind, frames=store.stored_frames(clip), masks=masks
                )

    made_once(record_of(root), params, make, root)
    return ClipStore(root)


def one_run(args: argparse.Namespace, truth: ClipStore, method: str, seed: int) -> list[Facts]:
    """Returns the facts about the round of each budget."""
    rounds: list[Facts] = []
    before: tuple[Path, Frames] | None = None
    of: dict[str, Any] = {"truth": truth.digest, "params": masker_params(args, seed)}
    for budget in args.budgets:
        name = "start" if before is None else method  # all methods start with the same frames
        folder = args.work / f"{name}_{seed}_{budget}"
        of = {"after": of, "method": name, "budget": budget}
        make = partial(one_round, args, truth, method, seed, budget, before, folder)
        rounds.append(made_once(folder / "record.json", of, make, folder / "masker"))
        before = folder, rounds[-1]["frames"]
    return rounds


def one_round(
    args: argparse.Namespace,
    truth: ClipStore,
    method: str,
    seed: int,
    budget: int,
    before: tuple[Path, Frames] | None,
    folder: Path,
) -> Facts:
    """Chooses frames up to a budget with the previous masker, and trains a masker on all labelled frames.

    Args:
        args: of the command line.
        truth: all clips with their true masks.
        method: of `labels suggest`.
        seed: of the frames and the training.
        budget: number of labelled frames.
        before: folder and labelled frames of the previous round; None draws frames at random.
        folder: for the masker.
    """
    start = time.process_time()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    frames: Frames = {}
    if before is None:
        random = rng(seed, 0)
        clips = random.choice(len(truth.select("train")), budget, replace=budget > args.clips)
        for clip in (truth.select("train")[int(k)] for k in clips):
            frames.setdefault(clip.id, []).append(int(random.integers(clip.num_frames)))
    else:
        folder_before, frames_before = before
        frames = {clip: list(each) for clip, each in frames_before.items()}
        with tempfile.TemporaryDirectory(dir=args.work) as scratch:
            store = labelled(Path(scratch) / "clips", truth, frames)
            candidates = find_candidates(
                store, load_masker(folder_before / "masker")[0], batch_size=64, precision="bf16"
            )
        missing = budget - sum(map(len, frames.values()))
        for n in choose(candidates, method, budget=missing, spacing=SPACING, seed=derive(seed, budget)):
            clip_id = candidates.clip_ids[candidates.clip_N[n]]
            frames.setdefault(clip_id, []).append(int(candidates.frame_N[n]))
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        labelled(Path(scratch) / "clips", truth, frames)
        train = get_stage("train_masker")
        train.function(
            clips=Path(scratch) / "clips",
            masker=folder / "masker",
            metrics=folder / "metrics.json",
            params=validate(train.params, masker_params(args, seed), "label_suggestions"),
        )
    jaccard = json.loads((folder / "metrics.json").read_text())["val_jaccard"]
    spent = time.process_time() - start
    return {"frames": frames, "jaccard": jaccard, "cpu_seconds": spent, "commit": commit()}


def masker_params(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Returns the params of train_masker."""
    return {
        "model": {"arch": "unet", "width": 8},
        "loss": {"ce": 1.0, "dice": 0.0, "focal": 0.0, "background_weight": 1.0},
        "augment": {"crop": [24, 36], "crop_on_object": 0.9},
        "val_frame_step": 3,
        "training": {
            "epochs": 1,
            "steps_per_epoch": args.steps,
            "batch_size": args.batch,
            "learning_rate": 5.0e-3,
            "warmup_steps": min(50, args.steps),
            "seed": seed,
        },
    }


def labelled(root: Path, truth: ClipStore, frames: Frames) -> ClipStore:
    """Writes a store in which only these frames of the training clips have (true) masks."""
    labels = {}
    for clip in truth.select("train"):
        masks = truth.masks(clip)
        known = sorted(frames.get(clip.id, ()))
        hidden = np.full_like(masks, IGNORE)
        hidden[known] = masks[known]
        labels[clip.id] = NewLabels(hidden, known)
    write_relabelled(root, truth, labels, {})
    return ClipStore(root)


def cell(rounds: Sequence[Facts]) -> str:
    """Returns mean and range of the score over the seeds, as text."""
    scores = [one["jaccard"] for one in rounds]
    return f"{statistics.mean(scores):.3f} [{min(scores):.3f} to {max(scores):.3f}]"


if __name__ == "__main__":
    with one_line_errors():
        main()
