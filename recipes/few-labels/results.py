"""Compares a masker that starts from a pretrained encoder with one that starts at random, and prints the table.

    python recipes/few-labels/results.py [--seeds 0 1 2]

Each run is a `dvc repro` of this recipe with other values in params.yaml, which is put back afterwards. The seeds
are the masker's; the encoder is trained once. Method `none` makes the masker start at random.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import yaml

from maskcast.data.clips import ClipStore

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Runs what is asked for and prints the table."""
    parser = argparse.ArgumentParser(description="seeds of the recipe with few labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    path = HERE / "params.yaml"
    shipped = path.read_text(encoding="utf-8")
    method = yaml.safe_load(shipped)["pretrain_encoder"]["method"]
    jaccard: dict[str, list[float]] = {"random": [], "pretrained": []}
    encoder: dict[str, float] = {}
    try:
        for start, chosen in (("pretrained", method), ("random", {"name": "none"})):
            for seed in seeds:
                params: dict[str, Any] = yaml.safe_load(shipped)
                params["pretrain_encoder"]["method"] = chosen
                params["train_masker"]["training"]["seed"] = seed
                path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
                subprocess.run(["dvc", "repro"], cwd=HERE, check=True)
                jaccard[start].append(read("train_masker")["val_jaccard"])
                encoder = encoder or read("pretrain_encoder")
    finally:
        path.write_text(shipped, encoding="utf-8")
    print_table(encoder, jaccard, seeds)


def read(stage: str) -> dict[str, float]:
    """Returns the metrics of a stage."""
    values: dict[str, float] = json.loads((HERE / f"results/{stage}.json").read_text(encoding="utf-8"))
    return values


def print_table(encoder: dict[str, float], jaccard: dict[str, list[float]], seeds: list[int]) -> None:
    """Prints the scores as Markdown."""
    print("\n| | starts at random | pretrained |\n|---|---|---|")
    for label, key in (("linear probe", "linear_probe"), ("kNN", "knn")):
        print(f"| {label}, mean class accuracy | {encoder[f'{key}_random']:.3f} | {encoder[key]:.3f} |")
    means = " | ".join(f"{statistics.mean(jaccard[start]):.3f}" for start in ("random", "pretrained"))
    spans = " | ".join(f"{min(jaccard[s]):.3f} to {max(jaccard[s]):.3f}" for s in ("random", "pretrained"))
    print(f"| masker, validation Jaccard, mean of seeds {', '.join(map(str, seeds))} | {means} |")
    print(f"| lowest to highest | {spans} |")
    digest = ClipStore(HERE / "data/clips").digest
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, check=True, capture_output=True, text=True
    ).stdout.strip()
    print(f"\npretraining {encoder['train_seconds'] / 60:.1f} minutes; clips {digest}, commit {commit}")


if __name__ == "__main__":
    main()
