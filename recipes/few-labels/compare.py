"""Compares a masker that starts from a pretrained encoder with a randomly initialised one, and prints the table.

    python recipes/few-labels/compare.py [--seeds 0 1 2] [--pretraining budget.yaml]

Each run is a `dvc repro train_masker` of this recipe with other values in params.yaml, which is put back
afterwards: pretrain_encoder is that of moco.yaml or another file, and train_masker that of compare.yaml, which
learns for 500 steps from labels alone. The seeds are the masker's; the encoder is trained once. Method `none` has
the masker randomly initialised. The encoder is also measured on the clips of compare.yaml, of which eight times as
many are labelled.
"""

import argparse
import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import one_line_errors
from maskcast.evaluation.probe import probe
from maskcast.installation import commit
from maskcast.locks import temporary_change
from maskcast.models.encoders.configs import UNetEncoderConfig
from maskcast.models.encoders.siamese import Normalised
from maskcast.models.encoders.table import load_encoder
from maskcast.params import deep_merge, load_params_file, section
from maskcast.runner.reuse import made_once, record_of
from maskcast.seed import derive

HERE = Path(__file__).resolve().parent
STARTS = ("random", "pretrained")
PROBES = (("linear probe", "linear_probe"), ("kNN", "knn"))


def main() -> None:
    """Runs what is asked for and prints the table."""
    parser = argparse.ArgumentParser(description="seeds of the recipe with few labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretraining", default="moco.yaml", metavar="FILE", help="moco.yaml, budget.yaml")
    args = parser.parse_args()
    seeds = args.seeds
    path = HERE / "params.yaml"
    file = HERE / args.pretraining
    pretraining = section(
        load_params_file(file, "file of values", "e.g. moco.yaml"), "pretrain_encoder", str(file)
    )
    masker = yaml.safe_load((HERE / "compare.yaml").read_text(encoding="utf-8"))["train_masker"]
    jaccard: dict[str, list[float]] = {start: [] for start in STARTS}
    with temporary_change(path) as shipped:
        values: dict[str, Any] = yaml.safe_load(shipped)
        values["train_masker"] = deep_merge(values["train_masker"], masker)
        for start in reversed(STARTS):
            method = {} if start == "pretrained" else {"method": {"name": "none"}}
            values["pretrain_encoder"] = pretraining | method
            for seed in seeds:
                values["train_masker"]["training"]["seed"] = seed
                path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
                call("dvc", "repro", "train_masker")
                jaccard[start].append(read("train_masker")["val_jaccard"])
            if start == "pretrained":
                few, many = read("pretrain_encoder"), probed_on_many_labels(pretraining)
    print_table(few, many, jaccard, seeds)


def probed_on_many_labels(values: dict[str, Any]) -> dict[str, float]:
    """Returns the scores of the encoder in the working directory, and of its random initialisation."""
    clips, params = HERE / "data/probe", load_params_file(HERE / "compare.yaml")["prepare_clips"]
    flags = ["--params", "compare.yaml", "--raw", "data/raw", "--clips", "data/probe"]
    command = partial(call, sys.executable, "-m", "maskcast", "prepare_clips", *flags)
    made_once(record_of(clips), {"params": params}, command, clips)
    encoder, description = load_encoder(HERE / "models/encoder")
    torch.manual_seed(derive(values["training"].get("seed", 0)))
    start = UNetEncoderConfig.model_validate(values["model"]).build()
    mean, std = (torch.tensor(description["meta"][name]) for name in ("mean", "std"))
    scores = probe(Normalised(encoder, mean, std), ClipStore(clips))
    random = probe(Normalised(start, mean, std), ClipStore(clips))
    return scores | {f"{name}_random": value for name, value in random.items()}


def call(*command: str) -> None:
    """Runs a command in the folder of the recipe."""
    subprocess.run(command, cwd=HERE, check=True)


def read(stage: str) -> dict[str, float]:
    """Returns the metrics of a stage."""
    values: dict[str, float] = json.loads((HERE / f"results/{stage}.json").read_text(encoding="utf-8"))
    return values


def print_table(
    few: dict[str, float], many: dict[str, float], jaccard: dict[str, list[float]], seeds: list[int]
) -> None:
    """Prints the scores as Markdown."""
    print(f"\n| | {' | '.join(STARTS)} |\n|---|---|---|")
    for labelled, scores in (("120", many), ("15", few)):
        for label, key in PROBES:
            name = f"{label} on {labelled} labelled clips, mean class accuracy"
            print(f"| {name} | {scores[f'{key}_random']:.3f} | {scores[key]:.3f} |")
    means = " | ".join(f"{statistics.mean(jaccard[start]):.3f}" for start in STARTS)
    spans = " | ".join(f"{min(jaccard[start]):.3f} to {max(jaccard[start]):.3f}" for start in STARTS)
    print(f"| masker on 15 labelled clips, Jaccard, mean of seeds {', '.join(map(str, seeds))} | {means} |")
    print(f"| lowest to highest | {spans} |")
    digest = ClipStore(HERE / "data/clips").digest
    print(f"\npretraining {few['train_seconds'] / 60:.1f} minutes; clips {digest}, commit {commit() or 'unknown'}")


if __name__ == "__main__":
    with one_line_errors():
        main()
