"""Trains the masker of this recipe on simulated frames and prints how well it masks what it has never seen.

    python recipes/clevrer-frames/real_frames.py [--seeds 0] [--clevrer FOLDER] [--forecasters FOLDER ...]
        [--values attributes.yaml gpu.yaml muon.yaml unlabeled.yaml]

Training is a `dvc repro` of this recipe, so what DVC has in its cache is not trained again. Files of values say
what of train_masker differs from params.yaml; with unlabeled.yaml the masker learns from real frames without
labels, too, and the stage is run with --unlabeled instead. The masker is scored on the simulated clips of
holdout.yaml, on which every choice was made, and with the folder of CLEVRER's release on the real videos of
real.yaml, each frame by itself and with classes that agree through the clip. With forecasters, it also prints how
well each forecasts the windows of windows.yaml from the masks of the real frames.
"""

import argparse
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import one_line_errors
from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.locks import temporary_change
from maskcast.models.forecasting.table import load_forecaster
from maskcast.params import deep_merge, load_params_file, section
from maskcast.runner.reuse import made_once, record_of
from maskcast.runner.run import run_stage

HERE = Path(__file__).resolve().parent
CONTEXT = 11
BASELINES = ("rigid_body", "constant_velocity", "persistence")
WAYS = {
    "each frame by itself": None,
    "each frame by itself, an object one class": 1,
    f"{CONTEXT} frames agree": CONTEXT,
    "all frames of a clip agree": 128,
}


def main() -> None:
    """Runs what is asked for and prints the tables."""
    parser = argparse.ArgumentParser(description="a masker for real frames from simulated ones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument("--clevrer", type=Path, help="folder of CLEVRER's official release")
    parser.add_argument("--forecasters", type=Path, nargs="*", default=[], help="folders of trained ones of masks")
    parser.add_argument(
        "--values", nargs="*", default=[], metavar="FILE", help="of this folder, e.g. attributes.yaml"
    )
    args = parser.parse_args()
    if "unlabeled.yaml" in args.values and args.clevrer is None:
        parser.error("unlabeled.yaml needs real videos: give --clevrer")
    if args.forecasters and args.clevrer is None:
        parser.error("--forecasters are scored on real videos: give --clevrer")
    if args.clevrer and not args.clevrer.is_dir():
        parser.error(f"--clevrer {args.clevrer}: folder not found; use that of CLEVRER's release")
    for folder in args.forecasters:
        load_forecaster(folder)  # ends here what would end after the training
    changes = [values_of(Path(name).stem, "train_masker") for name in args.values]
    raws = {"holdout": HERE / "data/raw"} | ({"real": args.clevrer} if args.clevrer else {})
    rows = []
    for seed in args.seeds:
        with changed_params([*changes, {"training": {"seed": seed}}]) as values:
            train(values, args.clevrer)
        trained = json.loads((HERE / "results/train_masker.json").read_text(encoding="utf-8"))
        rows.append(f"| {seed} | training, minutes | {trained['train_seconds'] / 60:.0f} |")
        rows.append(f"| {seed} | simulated validation, each frame by itself | {trained['val_jaccard']:.3f} |")
        for name, raw in raws.items():
            clips = prepared(name, raw)
            for way, frames in WAYS.items():
                score = jaccard(clips, generated(name, clips, consistent_frames=frames))
                rows.append(f"| {seed} | {name}, {way} | {score:.3f} |")
        if args.clevrer and args.forecasters:
            clips = prepared("windows", args.clevrer)
            masks = generated("windows", clips)
            scores = {str(path): forecast_scores(clips, masks, path) for path in args.forecasters}
            labels = {name: (run, "") for name, run in scores.items()}
            labels |= {name.replace("_", " "): (run, f"_{name}") for run in scores.values() for name in BASELINES}
            for label, (run, suffix) in labels.items():
                found = f"{run[f'jaccard_last{suffix}']:.3f} ({run[f'jaccard_mean{suffix}']:.3f})"
                rows.append(f"| {seed} | from masks of real frames, {label}: frame 22 (mean) | {found} |")
    print("\n| seed | macro Jaccard, absent classes left out | |\n|---|---|---|", *rows, sep="\n")


@contextmanager
def changed_params(changes: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Changes the section train_masker of params.yaml during the block, and yields it."""
    path = HERE / "params.yaml"
    with temporary_change(path) as text:
        params: dict[str, Any] = yaml.safe_load(text)
        for change in changes:
            params["train_masker"] = deep_merge(params["train_masker"], change)
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        yield params["train_masker"]


def train(values: dict[str, Any], clevrer: Path | None) -> None:
    """Trains the masker in the working directory."""
    if "unlabeled" not in values or clevrer is None:
        subprocess.run(["dvc", "repro"], cwd=HERE, check=True)
        return
    subprocess.run(["dvc", "repro", "prepare_clips"], cwd=HERE, check=True)
    (HERE / "models").mkdir(exist_ok=True)
    (HERE / "results").mkdir(exist_ok=True)
    run_stage(
        "train_masker",
        values,
        clips=HERE / "data/clips",
        unlabeled=prepared("unlabeled", clevrer),
        masker=HERE / "models/masker",
        metrics=HERE / "results/train_masker.json",
        page=HERE / "results/train_masker.html",
    )


def prepared(name: str, raw: Path) -> Path:
    """Returns the clips of `<name>.yaml`, prepared once for the same videos and params."""
    clips, params = HERE / "data" / name, values_of(name, "prepare_clips")
    of = {"raw": raw.resolve(), "params": params}
    made_once(record_of(clips), of, lambda: run_stage("prepare_clips", params, raw=raw, clips=clips), clips)
    return clips


def generated(name: str, clips: Path, **params: Any) -> Path:
    """Returns masks generated by the masker in the working directory."""
    masks, metrics = HERE / f"data/{name}-masks", HERE / f"results/{name}-masks.json"
    values = values_of(name, "generate_masks") | params
    run_stage("generate_masks", values, clips=clips, masker=HERE / "models/masker", masks=masks, metrics=metrics)
    return masks


def values_of(name: str, stage: str) -> dict[str, Any]:
    """Returns the params of a stage in `<name>.yaml`."""
    file = HERE / f"{name}.yaml"
    return section(load_params_file(file, "file of values", "e.g. attributes.yaml"), stage, str(file))


def jaccard(clips: Path, masks: Path) -> float:
    """Returns the macro Jaccard of all frames, absent classes left out."""
    truth, found = ClipStore(clips), ClipStore(masks)
    matrix_KK = np.zeros((truth.num_classes,) * 2, np.int64)
    for clip in truth.clips:
        matrix_KK += confusion(truth.masks(clip), found.masks(found.get(clip.id)), truth.num_classes)
    return macro_jaccard(matrix_KK, absent="omit")


def forecast_scores(clips: Path, masks: Path, forecaster: Path) -> dict[str, float]:
    """Returns the scores of `evaluate` for forecasts from these masks."""
    out = HERE / "results/windows"
    return run_stage(
        "evaluate",
        values_of("windows", "evaluate"),
        clips=clips,
        masks=masks,
        masker=HERE / "models/masker",
        forecaster=forecaster,
        metrics=out.with_suffix(".json"),
        report=out,
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
