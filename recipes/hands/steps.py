"""Compares ways to learn from few labelled pictures of two hands, and prints a table.

    python recipes/hands/steps.py [--params params.yaml] [--seeds 0 1 2] [--arms NAME ...]

arms.yaml says what is trained, the params file the rest: simulated hands, or real ones (real-single.yaml,
real-pairs.yaml) that `real.py DATA recipes/hands/data/real` lays out. Each arm is a run of train_masker,
generate_masks and evaluate_video on the test pictures, whose numbers stay in results/steps: what is there, made of
the same values, is not made again, so a killed comparison goes on where it was. The seed is that of the trainings.
An arm that learns from the masks of another one starts when that one is done.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import one_line_errors
from maskcast.params import deep_merge
from maskcast.runner.reuse import made_once, record_of
from maskcast.runner.run import run_stage

HERE = Path(__file__).resolve().parent
AMODAL = ("miou", "miou_occluded", "pooled", "pooled_occluded")  # two label maps; gains are of the first two
SINGLE = ("jaccard", "accuracy")  # for a single label map
SYSTEM = (  # table 1 of its report: test mIoU
    ("U-Net, CE", 0.49801),
    ("U-Net++ RegNetY", 0.53739),
    ("+ class weights", 0.53916),
    ("+ Dice", 0.54449),
    ("+ generated labels", 0.55771),
    ("+ adversarial", 0.55804),
)


def main() -> None:
    """Runs what is missing, and prints the table after each seed."""
    parser = argparse.ArgumentParser(description="few labelled pictures of hands")
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="in recipes/hands")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arms: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "arms.yaml").read_text(encoding="utf-8"))["arms"]
    parser.add_argument("--arms", nargs="+", choices=arms, default=list(arms), metavar="NAME", help="all")
    args = parser.parse_args()
    if not (HERE / args.params).is_file():
        parser.error(f"{HERE} has no {args.params!r}; --params names a file there, e.g. params.yaml")
    steps = Steps(HERE / args.params, arms)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in args.arms}
    for seed in args.seeds:
        for name in args.arms:
            found[name].append(one := steps.scored(name, seed))
            text = ", ".join(f"{score} {one[score]:.4f}" for score in steps.scores[:2])
            print(f"{name}, seed {seed}: {text}", flush=True)
        print(table(found, steps.scores), flush=True)


class Steps:
    """The arms of one params file.

    Args:
        params: params file.
        arms: changed params, by arm.
    """

    def __init__(self, params: Path, arms: Mapping[str, Mapping[str, Any]]) -> None:
        self.arms = arms
        self.values: dict[str, Any] = yaml.safe_load(params.read_text(encoding="utf-8"))
        self.scores = AMODAL if "amodal" in self.values["evaluate_video"] else SINGLE
        self.clips, self.results = (HERE / part / "steps" / params.stem for part in ("data", "results"))
        uri, section = self.values["fetch_dataset"]["uri"], self.values["prepare_clips"]
        raw = HERE / ("data/raw" if uri == "synthetic" else uri)
        if uri == "synthetic":
            raw.mkdir(parents=True, exist_ok=True)  # simulated pictures need no raw files
        make = partial(run_stage, "prepare_clips", section, raw=raw, clips=self.clips)
        made_once(record_of(self.clips), {"raw": uri, "params": section}, make, self.clips)
        self.digest = ClipStore(self.clips).digest

    def scored(self, name: str, seed: int) -> dict[str, float]:
        """Returns the scores of an arm, with the time of its own training; runs it once."""
        arm, done = self.arms[name], self.place(name, seed)
        inputs: dict[str, Any] = {"clips": self.clips}
        for key, port, what in (("of", "masks", "masks"), ("start", "start", "masker")):
            if key in arm:
                self.scored(arm[key], seed)
                inputs[port] = self.place(arm[key], seed) / what
        section, params = self.training(name, seed)
        masker, masks, report = (done / part for part in ("masker", "masks", "report"))
        train, generate, evaluate = (done / f"{stage}.json" for stage in ("train", "generate", "evaluate"))
        of: dict[str, Any] = self.made_of(name, seed)
        make = partial(run_stage, "train_masker", params, name=section, **inputs, masker=masker, metrics=train)
        took = made_once(record_of(masker), of, make, masker, train)
        found: dict[str, Any] = {"clips": self.clips, "masker": masker}
        own = self.values["generate_masks"]
        of = {"masker": of, "params": own}
        make = partial(run_stage, "generate_masks", own, **found, masks=masks, metrics=generate)
        made_once(record_of(masks), of, make, masks)
        own = self.values["evaluate_video"] | {"pictures": 0}
        make = partial(run_stage, "evaluate_video", own, **found, masks=masks, report=report, metrics=evaluate)
        scores: dict[str, float] = made_once(record_of(report), {"masks": of, "params": own}, make, report)
        return scores | {"minutes": took["train_seconds"] / 60}

    def training(self, name: str, seed: int) -> tuple[str, dict[str, Any]]:
        """Returns section name and params of an arm's training."""
        arm = self.arms[name]
        section = "second" if "second" in arm else "first"
        return section, deep_merge(
            deep_merge(self.values[section], arm.get(section, {})), {"training": {"seed": seed}}
        )

    def made_of(self, name: str, seed: int) -> dict[str, Any]:
        """Returns what the masker of an arm is made of: clips, params, and the arms that it learns from."""
        arm = self.arms[name]
        others = {key: self.made_of(arm[key], seed) for key in ("of", "start") if key in arm}
        own = {"clips": self.digest, "params": self.training(name, seed)}
        return own | others | ({"generate_masks": self.values["generate_masks"]} if "of" in arm else {})

    def place(self, name: str, seed: int) -> Path:
        """Returns the folder of an arm."""
        return self.results / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def table(found: Mapping[str, list[dict[str, float]]], names: Sequence[str]) -> str:
    """Returns the scores of each arm as Markdown: means, ranges, and gains over the first arm.

    A gain is the mean over seeds of the difference for the same seed, with its minimum and maximum.
    """
    first = next(iter(found.values()))
    heads = ["", *names, *(f"gain in {name}" for name in names[:2]), "minutes"]
    lines = ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, runs in found.items():
        cells = [spread([run[score] for run in runs]) for score in names]
        for score in names[:2]:
            gains = [run[score] - base[score] for run, base in zip(runs, first, strict=False)]
            cells.append(spread(gains, "+.4f"))
        minutes = statistics.mean(run["minutes"] for run in runs)
        lines.append(f"| {name} | {' | '.join(cells)} | {minutes:.1f} |")
    lines += ["", "System 3, test mIoU: " + ", ".join(f"{label} {score:.4f}" for label, score in SYSTEM)]
    return "\n".join(lines)


def spread(values: list[float], form: str = ".4f") -> str:
    """Returns mean, minimum and maximum as text."""
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    with one_line_errors():
        main()
