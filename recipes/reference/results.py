"""Runs the reference recipe for several seeds, masks and frames as input, and prints rows for docs/results.md.

    python recipes/reference/results.py [--seeds 0 1 2] [--clevrer FOLDER] [--values gpu.yaml]

Each run is a `dvc repro` of this recipe with other values in params.yaml, which is put back afterwards; what DVC
has in its cache is not trained again. A file of values says what else differs: gpu.yaml is the recipe at its full
size. Forecasters of frames are all scored with the masker of the first seed. With the folder of CLEVRER's release,
the forecasters, which have seen nothing but simulated clips, are also scored on the real masks named in real.yaml.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import one_line_errors
from maskcast.installation import commit
from maskcast.locks import temporary_change
from maskcast.params import deep_merge, load_params_file
from maskcast.runner.reuse import made_once, record_of

HERE = Path(__file__).resolve().parent
TRAINED = ("train_masker", "pretrain_forecaster", "finetune_forecaster")
FRAMES = {"arch": "convgru", "input": "frames", "stride": 4, "hidden": 32, "loss_steps": 2}
# Maximum values: a step costs several times one on masks, and both get about the same training time.
FRAMES_TRAINING: dict[str, dict[str, float]] = {
    "pretrain_forecaster": {"learning_rate": 1.0e-3, "batch_size": 16, "steps_per_epoch": 45},
    "finetune_forecaster": {"batch_size": 16, "steps_per_epoch": 12},
}
ROWS = [
    ("masker, Jaccard over all frames", "masks", "masker_jaccard"),
    ("**forecaster, Jaccard at frame 22**", "masks", "jaccard_last"),
    ("constant velocity", "masks", "jaccard_last_constant_velocity"),
    ("copy of the last mask", "masks", "jaccard_last_persistence"),
    ("`rigid_body`, which knows the scene", "masks", "jaccard_last_rigid_body"),
    ("frames as input, then masked", "frames", "jaccard_last"),
    ("forecaster, mean over frames 12 to 22", "masks", "jaccard_mean"),
    ("constant velocity, mean over frames 12 to 22", "masks", "jaccard_mean_constant_velocity"),
    ("`rigid_body`, mean over frames 12 to 22", "masks", "jaccard_mean_rigid_body"),
    ("real CLEVRER masks: **forecaster, frame 22**", "real", "jaccard_last"),
    ("real CLEVRER masks: constant velocity", "real", "jaccard_last_constant_velocity"),
    ("real CLEVRER masks: copy", "real", "jaccard_last_persistence"),
    ("training of the masker, minutes", "masks", "masker_minutes"),
    ("training of the forecaster, minutes", "masks", "forecaster_minutes"),
    ("training of the forecaster of frames, minutes", "frames", "forecaster_minutes"),
]


def main() -> None:
    """Runs what is asked for and prints the table."""
    parser = argparse.ArgumentParser(description="seeds of the reference recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clevrer", type=Path, help="folder of CLEVRER's official release")
    parser.add_argument("--values", type=Path, help="of this folder: gpu.yaml")
    args = parser.parse_args()
    if args.clevrer and not args.clevrer.is_dir():
        parser.error(f"--clevrer {args.clevrer}: folder not found; use that of CLEVRER's release")
    change = load_params_file(HERE / args.values, "file of values", "e.g. gpu.yaml") if args.values else {}
    scores: dict[str, list[dict[str, float]]] = {"masks": [], "frames": [], "real": []}
    for seed in args.seeds:
        for source in ("masks", "frames"):
            masker_seed = seed if source == "masks" else args.seeds[0]
            with params_of(seed, source, masker_seed, change):
                call("dvc", "repro")
                scores[source].append(metrics())
                if source == "masks" and args.clevrer:
                    scores["real"].append(real_scores(args.clevrer.resolve()))
    print_table(scores, args.seeds)


@contextmanager
def params_of(seed: int, source: str, masker_seed: int, change: Mapping[str, Any]) -> Iterator[None]:
    """Sets seeds, input and other changes in params.yaml during the block."""
    path = HERE / "params.yaml"
    with temporary_change(path) as text:
        params = deep_merge(yaml.safe_load(text), change)
        for stage in TRAINED:
            params[stage]["training"]["seed"] = masker_seed if stage == "train_masker" else seed
        if source == "frames":
            params["pretrain_forecaster"]["model"] = FRAMES
            for stage, training in FRAMES_TRAINING.items():
                training_params = params[stage]["training"]
                training_params |= {key: min(most, training_params[key]) for key, most in training.items()}
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        yield


def metrics() -> dict[str, float]:
    """Returns the scores of the run in the working directory."""
    found = {name: read(f"results/{name}.json") for name in ("evaluate", *TRAINED)}
    masker, *forecaster = (found[stage]["train_seconds"] / 60 for stage in TRAINED)
    return found["evaluate"] | {"masker_minutes": masker, "forecaster_minutes": sum(forecaster)}


def real_scores(clevrer: Path) -> dict[str, float]:
    """Returns the scores of the forecaster in the working directory on the real masks."""
    clips, out = HERE / "data/real", HERE / "results/real"
    params = load_params_file(HERE / "real.yaml")["prepare_clips"]
    of = {"raw": clevrer, "params": params}
    made_once(record_of(clips), of, lambda: stage("prepare_clips", raw=clevrer, clips=clips), clips)
    models = {"masker": HERE / "models/masker", "forecaster": HERE / "models/forecaster"}
    stage("evaluate", clips=clips, masks=clips, **models, metrics=out.with_suffix(".json"), report=out)
    return read("results/real.json")


def stage(name: str, **ports: Path) -> None:
    """Runs one stage with the params in real.yaml."""
    flags = [word for port, path in ports.items() for word in (f"--{port}", str(path))]
    call(sys.executable, "-m", "maskcast", name, "--params", "real.yaml", *flags)


def call(*command: str) -> None:
    """Runs a command in the folder of the recipe."""
    subprocess.run(command, cwd=HERE, check=True)


def read(name: str) -> dict[str, float]:
    """Returns a JSON file of the recipe's folder."""
    values: dict[str, float] = json.loads((HERE / name).read_text(encoding="utf-8"))
    return values


def print_table(scores: dict[str, list[dict[str, float]]], seeds: Sequence[int]) -> None:
    """Prints mean and range over the seeds as Markdown."""
    print(f"\n| seeds {', '.join(map(str, seeds))} | mean | lowest to highest |\n|---|---|---|")
    for label, source, key in ROWS:
        values = [one[key] for one in scores[source]]
        if values:
            print(f"| {label} | {statistics.mean(values):.3f} | {min(values):.3f} to {max(values):.3f} |")
    clips = ClipStore(HERE / "data/clips").digest
    print(f"\nclips {clips}, commit {commit() or 'unknown'}")


if __name__ == "__main__":
    with one_line_errors():
        main()
