"""Trains each kind of memory from one masker of single frames, and prints how right and how steady its masks are.

    python recipes/video/memories.py [--params FILE] [--seeds 1 2 3] [--versions scales "gru V3"]

The values are those of the pipeline's stages, with another memory in `train_segmenter.model` for each version.
The control is the masker of single frames, trained on for the same steps over as many frames. All are scored on
`evaluate_video.split` of the same clips. Rows are added to `rows.csv` in the folder --out as they come.
"""

import argparse
import csv
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from maskcast.errors import MaskcastError, one_line_errors
from maskcast.params import load_params_file, section
from maskcast.stopping import exit_with_parent

HERE = Path(__file__).resolve().parent
BASE, CONTROL, SCALES = "base", "control", "scales"
PLACES = tuple(product(("logits", "decoder", "decoder_split"), ("frame", "own_outputs")))
VERSIONS: dict[str, dict[str, str]] = {SCALES: {"place": "scales", "cell": "gru", "sees": "frame"}} | {
    f"{cell} V{number}": {"place": place, "cell": cell, "sees": sees}
    for cell in ("gru", "lstm")
    for number, (place, sees) in enumerate(PLACES, start=1)
}
SCORES = ("jaccard", "flicker", "change", "mvc8", "mvc16")
SECTIONS = ("prepare_clips", "train_masker", "train_segmenter", "evaluate_video")
Row = dict[str, Any]


def main() -> None:
    """Trains, scores, and prints the table."""
    parser = argparse.ArgumentParser(description="kinds of memory side by side")
    parser.add_argument("--params", type=Path, default=HERE / "params.yaml", help="values of the stages")
    parser.add_argument(
        "--out", type=Path, default=HERE / "data/compared", help="folder for clips, models, rows.csv"
    )
    parser.add_argument("--raw", type=Path, help="raw videos; without it those of fetch_dataset.uri")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--versions", nargs="+", choices=(*VERSIONS, CONTROL), default=[CONTROL, *VERSIONS])
    parser.add_argument("--processes", type=int, default=1, help="trainings side by side")
    args = parser.parse_args()
    values = load_params_file(args.params)
    needed = SECTIONS if args.raw else ("fetch_dataset", *SECTIONS)
    values |= {name: section(values, name, str(args.params)) for name in needed}
    prepare(values, args.raw, args.out)
    rows: list[Row] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, context, exit_with_parent) as pool:
        for versions in ([BASE], args.versions):  # maskers with memory start from the others
            jobs = [pool.submit(trained, values, args.out, one, seed) for one in versions for seed in args.seeds]
            for job in as_completed(jobs):
                rows.append(job.result())
                add(args.out / "rows.csv", rows[-1])
    print(table(rows))


def prepare(values: Mapping[str, Any], raw: Path | None, out: Path) -> None:
    """Writes the clip store, unless it is there and of the same videos and params."""
    from maskcast.runner.reuse import made_once, record_of
    from maskcast.runner.run import run_stage

    clips, fetched = out / "clips", values["fetch_dataset"] if raw is None else None

    def make() -> None:
        if fetched is not None:
            run_stage("fetch_dataset", fetched, raw=out / "raw")
        run_stage("prepare_clips", values["prepare_clips"], raw=raw or out / "raw", clips=clips)

    of = {"raw": raw and raw.resolve(), "fetch": fetched, "params": values["prepare_clips"]}
    made_once(record_of(clips), of, make, clips)


def trained(values: Mapping[str, Any], out: Path, version: str, seed: int) -> Row:
    """Trains a version with a seed, scores it, and returns its row."""
    from maskcast.stages.train_masker import TrainMasker, train_masker

    section, start = sections(values, version), None if version == BASE else out / f"{BASE}-{seed}"
    section["training"] = section["training"] | {"seed": seed}
    folder = out / f"{version.replace(' ', '-')}-{seed}"
    train_masker(
        clips=out / "clips",
        start=start,
        masker=folder,
        metrics=folder.with_suffix(".json"),
        params=TrainMasker.model_validate(section),
    )
    return {"version": version, "seed": seed} | scored(out / "clips", folder, values["evaluate_video"])


def sections(values: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Returns the params of train_masker for a version."""
    base, memory = dict(values["train_masker"]), dict(values["train_segmenter"])
    if version == BASE:
        return base
    if version == CONTROL:
        frames = memory["window"]["frames"]
        training = memory["training"] | {"batch_size": memory["training"]["batch_size"] * frames}
        return base | {"training": training}
    return memory | {"model": memory["model"] | VERSIONS[version]}


def scored(clips: Path, folder: Path, section: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scores of a trained masker, and the number of its parameters."""
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.evaluation.forecasts import scored_clips
    from maskcast.evaluation.video_scores import VideoScores
    from maskcast.inference.segment import segment_whole
    from maskcast.inference.worker import Worker
    from maskcast.models.base import best_device
    from maskcast.models.segmentation.table import load_masker

    store = ClipStore(clips, section.get("label_map"))
    masker = load_masker(folder)[0].to(best_device())
    scores, worker = VideoScores(store.num_classes), Worker(masker, "fp32")
    for clip in scored_clips(store, section.get("split", "val")):
        found = segment_whole(worker, store.frames(clip)[:], batch_size=16)
        scores.add(clip.id, store.masks(clip), found[store.label_map.name].masks)
    flat = scores.table()
    return {name: flat[name] for name in SCORES} | {"parameters": sum(p.numel() for p in masker.parameters())}


def add(path: Path, row: Row) -> None:
    """Adds a row to a CSV file."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows: Iterable[Row]) -> str:
    """Returns means over seeds as Markdown, compared with the base and the control of the same seed."""
    each = list(rows)
    others = {name: {row["seed"]: row for row in each if row["version"] == name} for name in (BASE, CONTROL)}
    if not others[BASE]:
        raise MaskcastError("no row of the base; train it, too")
    header = ["version", *SCORES]
    for name in others:
        header += [f"Jaccard beside the {name}, least", f"flicker over that of the {name}, greatest"]
    header.append("parameters")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for version in dict.fromkeys((BASE, CONTROL, *VERSIONS)):
        own = [row for row in each if row["version"] == version]
        if not own:
            continue
        cells = [version, *(f"{mean(float(row[name]) for row in own):.4f}" for name in SCORES)]
        for other in others.values():
            cells += beside([(row, other[row["seed"]]) for row in own if row["seed"] in other])
        lines.append(f"| {' | '.join([*cells, str(own[0]['parameters'])])} |")
    return "\n".join(lines)


def beside(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    """Returns the gain in Jaccard and the ratio of flicker compared with other rows: mean, and the worst seed."""
    if not pairs:
        return ["", ""]
    gain = [float(row["jaccard"]) - float(other["jaccard"]) for row, other in pairs]
    ratio = [float(row["flicker"]) / float(other["flicker"]) for row, other in pairs]
    return [f"{mean(gain):+.4f}, {min(gain):+.4f}", f"{mean(ratio):.2f}, {max(ratio):.2f}"]


if __name__ == "__main__":
    with one_line_errors():
        main()
