"""Compares ways to learn from few labelled pictures of two hands, and prints a table.

    python recipes/hands/steps.py [--seeds 0 1 2] [--arms NAME ...]

arms.yaml says what is trained, params.yaml the rest. Each arm is a run of train_masker, generate_masks and
evaluate_video on the test pictures, whose numbers stay in results/steps: what is there is not made again, so a
killed comparison goes on where it was. The seed is that of the trainings. An arm that learns from the masks of
another one starts when that one is done.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from maskcast.runner.run import run_stage

HERE = Path(__file__).resolve().parent
SCORES = ("miou", "miou_occluded", "pooled", "pooled_occluded")
SYSTEM = (  # table 1 of its report: test mIoU
    ("U-Net, CE", 0.49801),
    ("U-Net++ RegNetY", 0.53739),
    ("+ class weights", 0.53916),
    ("+ Dice", 0.54449),
    ("+ generated labels", 0.55771),
    ("+ adversarial", 0.55804),
)


def main() -> None:
    """Makes what is asked for and not there, and prints the table after each seed."""
    parser = argparse.ArgumentParser(description="few labelled pictures of two hands")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    values: dict[str, Any] = yaml.safe_load((HERE / "params.yaml").read_text(encoding="utf-8"))
    arms: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "arms.yaml").read_text(encoding="utf-8"))["arms"]
    parser.add_argument("--arms", nargs="+", choices=arms, default=list(arms), metavar="NAME", help="all")
    given = parser.parse_args()
    clips = HERE / "data/steps"
    if not clips.exists():
        (HERE / "data/raw").mkdir(parents=True, exist_ok=True)  # simulated pictures need no raw files
        run_stage("prepare_clips", values["prepare_clips"], raw=HERE / "data/raw", clips=clips)
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in given.arms}
    for seed in given.seeds:
        for name in given.arms:
            found[name][seed] = one = scored(name, seed, values, arms, clips)
            print(f"{name}, seed {seed}: mIoU {one['miou']:.4f}, hidden {one['miou_occluded']:.4f}", flush=True)
        print(table({name: list(seeds.values()) for name, seeds in found.items()}), flush=True)


def scored(
    name: str, seed: int, values: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]], clips: Path
) -> dict[str, float]:
    """Returns the scores of an arm and how long its own training took, made once.

    Args:
        name: of the arm.
        seed: of its training.
        values: the sections of params.yaml.
        arms: what differs, by arm.
        clips: the clip store.
    """
    arm, done = arms[name], place(name, seed)
    inputs: dict[str, Any] = {"clips": clips}
    for key, port, what in (("of", "masks", "masks"), ("start", "start", "masker")):
        if key in arm:
            scored(arm[key], seed, values, arms, clips)
            inputs[port] = place(arm[key], seed) / what
    done.mkdir(parents=True, exist_ok=True)
    section = "second" if "second" in arm else "first"
    params = merged(merged(values[section], arm.get(section, {})), {"training": {"seed": seed}})
    masker, masks, report = (done / part for part in ("masker", "masks", "report"))
    metrics = {stage: done / f"{stage}.json" for stage in ("train", "generate", "evaluate")}
    if not masker.exists():
        run_stage("train_masker", params, name=section, **inputs, masker=masker, metrics=metrics["train"])
    if not masks.exists():
        outputs: dict[str, Any] = {"masks": masks, "metrics": metrics["generate"]}
        run_stage("generate_masks", values["generate_masks"], clips=clips, masker=masker, **outputs)
    if not report.exists():
        paths: dict[str, Any] = {
            "clips": clips,
            "masks": masks,
            "masker": masker,
            "report": report,
            "metrics": metrics["evaluate"],
        }
        run_stage("evaluate_video", values["evaluate_video"] | {"pictures": 0}, **paths)
    scores: dict[str, float] = json.loads(metrics["evaluate"].read_text(encoding="utf-8"))
    took: dict[str, float] = json.loads(metrics["train"].read_text(encoding="utf-8"))
    return scores | {"minutes": took["train_seconds"] / 60}


def place(name: str, seed: int) -> Path:
    """Returns the folder of an arm."""
    return HERE / f"results/steps/{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values with others in their place, sections within sections."""
    both = dict(base)
    for key, value in changes.items():
        within = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if within else value
    return both


def table(found: Mapping[str, list[dict[str, float]]]) -> str:
    """Returns the scores of each arm as Markdown: means, lowest to highest, and the gain over the first arm.

    A gain is the mean over seeds of the difference on one seed, with the least and the greatest one.
    """
    first = next(iter(found.values()))
    lines = ["", f"| | {' | '.join(SCORES)} | gain in mIoU | in occluded mIoU | minutes |", "|---" * 8 + "|"]
    for name, runs in found.items():
        cells = [spread([run[score] for run in runs]) for score in SCORES]
        for score in SCORES[:2]:
            gains = [run[score] - base[score] for run, base in zip(runs, first, strict=False)]
            cells.append(spread(gains, "+.4f"))
        minutes = statistics.mean(run["minutes"] for run in runs)
        lines.append(f"| {name} | {' | '.join(cells)} | {minutes:.1f} |")
    lines += ["", "System 3, test mIoU: " + ", ".join(f"{label} {score:.4f}" for label, score in SYSTEM)]
    return "\n".join(lines)


def spread(values: list[float], form: str = ".4f") -> str:
    """Returns a mean, and the least and the greatest value behind it."""
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
