"""Rebuilds the tables of forecasters from nothing: simulates, trains every forecaster, scores it on real video.

    python benchmarks/forecasting.py DATA [--work FOLDER] [--seeds 0 1 2] [--only NAME ...]

DATA holds CLEVRER's release as clevrer/ and real video that no simulator knows as davis2016_val/,
davis2017_multiobj/ and camvid/; forecasting.yaml says what is trained and scored. What is in FOLDER already, made
with the same values, is not made again, and a run that was stopped goes on: so the command may be given piece by
piece. The tables end in FOLDER/results.md, with the commits that the runs were made at; pictures are in
FOLDER/<forecaster>/<seed>/real_stride_5.
"""

import argparse
import csv
import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from _common import commit, positive_int
from maskcast.data.clip_store.reader import ClipStore
from maskcast.digest import digest_json
from maskcast.errors import MaskcastError, one_line_errors
from maskcast.evaluation.bootstrap_params import Bootstrap
from maskcast.evaluation.forecasts import FORECASTER
from maskcast.evaluation.paired import format_interval, mean_interval
from maskcast.params import load_params_file
from maskcast.report.tables import markdown
from maskcast.runner.reuse import Facts, made_once, record_of
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage

SHIPPED = Path(__file__).with_suffix(".yaml")
PLUS = ("metrics", "page")  # secondary outputs of a stage
BASELINES = ("persistence", "constant_velocity", "rigid_body")
Run = dict[str, Any]  # scores by name, with `minutes` and `commit` of the training
Scores = dict[str, dict[str, list[Run]]]  # forecaster, store, seeds


def main() -> None:
    """Runs what is requested and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of real videos")
    parser.add_argument(
        "--work", type=Path, default=Path("forecasting"), help="folder for everything that is made"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="forecasters (default: all)")
    parser.add_argument("--values", type=Path, default=SHIPPED, help="default: %(default)s")
    parser.add_argument("--threads", type=positive_int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    values = load_params_file(args.values, "file of values", f"e.g. {SHIPPED}")
    names = args.only or list(values["forecasters"])
    if unknown := set(names) - set(values["forecasters"]):
        raise MaskcastError(f"--only: {', '.join(unknown)}: choose among {', '.join(values['forecasters'])}")
    args.work.mkdir(parents=True, exist_ok=True)
    for name, params in values["stores"].items():
        made("prepare_clips", params, args.work / "stores" / name, raw=args.data / "clevrer")
    for name, sections in values["videos"].items():
        made("prepare_clips", sections["prepare_clips"], args.work / "stores" / name, raw=args.data / name)
    scores: Scores = {name: {store: [] for store in (*values["scores"], *values["videos"])} for name in names}
    for seed in args.seeds:
        for name in names:
            for store, found in one_run(args.work, values, name, seed).items():
                scores[name][store].append(found)
    text = results(scores, values, args.work, args.seeds)
    (args.work / "results.md").write_text(text, encoding="utf-8")
    print(text)


def one_run(work: Path, values: Mapping[str, Any], name: str, seed: int) -> dict[str, Run]:
    """Trains one forecaster with one seed; returns its scores by store, with the CPU minutes of training."""
    folder, clips = folder_of(work, name, seed), work / "stores" / "simulated"
    params = values["forecasters"][name]
    params = params | {"training": params["training"] | {"seed": seed}}
    model = folder / "model"
    trained = made("pretrain_forecaster", params, model, clips=clips, masks=clips, masker=clips)
    scores = {}
    for store in (*values["scores"], *values["videos"]):
        where, scored, how = work / "stores" / store, model, values["scores"].get(store)
        if how is None:
            sections = values["videos"][store]
            tuning, how, scored = sections["finetune_forecaster"], sections["evaluate"], folder / f"{store}_model"
            args = {"clips": where, "masks": where, "masker": clips}
            if params["model"]["arch"] == "flow":
                made("pretrain_forecaster", params, scored, **args)
            else:
                tuning = tuning | {"training": tuning["training"] | {"seed": seed}}
                made("finetune_forecaster", tuning, scored, **args, pretrained=model)
        made("evaluate", how, folder / store, clips=where, masks=where, masker=clips, forecaster=scored)
        found = json.loads((folder / f"{store}.json").read_text(encoding="utf-8"))
        scores[store] = found | {"minutes": trained["cpu_seconds"] / 60, "commit": trained["commit"]}
    return scores


def folder_of(work: Path, name: str, seed: int) -> Path:
    """Returns the folder of one forecaster and seed."""
    return work / name.replace(" ", "-") / str(seed)


def made(stage: str, params: Mapping[str, Any], out: Path, **inputs: Path) -> Facts:
    """Runs a stage unless `out` exists with the same params and inputs; returns its CPU seconds and commit."""
    (port,) = (port.name for port in get_stage(stage).ports if port.direction == "out" and port.name not in PLUS)
    plus = {"metrics": out.with_name(f"{out.name}.json")} if get_stage(stage).tracked else {}

    def make() -> Facts:
        start = time.process_time()
        run_stage(stage, params, name=stage, where=f"forecasting: {out.name}", **inputs, **{port: out}, **plus)
        return {"cpu_seconds": time.process_time() - start, "commit": commit()}

    of = {"stage": stage, "params": params, "inputs": {port: made_of(path) for port, path in inputs.items()}}
    return made_once(record_of(out), of, make, out, *plus.values())


def made_of(path: Path) -> str:
    """Returns a hash of how an input was made, or the path of external data."""
    record = record_of(path)
    if not record.exists():
        return str(path.resolve())
    return digest_json(json.loads(record.read_text(encoding="utf-8"))["of"], 16)


def results(scores: Scores, values: Mapping[str, Any], work: Path, seeds: list[int]) -> str:
    """Returns the tables as Markdown."""
    stores = [*values["scores"], *values["videos"]]
    last = [f"{store.replace('_', ' ')}, last (mean)" for store in stores]
    header = ["forecaster", *last, "calibration error", "CPU min"]
    first = next(iter(scores.values()))
    rows = []
    for name in BASELINES:
        cells = [both(first[store][:1], f"_{name}") for store in stores]
        rows.append([name.replace("_", " "), *cells, "", "0"])
    for name, by_store in scores.items():
        runs = by_store["real_stride_5"]
        sure = statistics.mean(run["calibration_error"] for run in runs)
        minutes = statistics.mean(run["minutes"] for run in runs)
        rows.append([name, *(both(by_store[store], "") for store in stores), f"{sure:.3f}", f"{minutes:.0f}"])
    frames = map(re.compile(r"jaccard_h(\d+)").fullmatch, first["real_stride_5"][0])
    numbers = sorted(int(found[1]) for found in frames if found)
    horizons = [
        [name, *(f"{mean_of(by_store['real_stride_5'], f'jaccard_h{n}'):.3f}" for n in numbers)]
        for name, by_store in scores.items()
    ]
    for name in BASELINES:
        run = first["real_stride_5"][0]
        horizons.append([name.replace("_", " "), *(f"{run[f'jaccard_h{n}_{name}']:.3f}" for n in numbers)])
    digests = ", ".join(f"{store} {ClipStore(work / 'stores' / store).digest}" for store in stores)
    used = {run["commit"] for by_store in scores.values() for runs in by_store.values() for run in runs}
    commits = ", ".join(sorted(used))
    return "\n".join(
        [
            f"Macro Jaccard, absent classes left out, true context; seeds {', '.join(map(str, seeds))}: mean of "
            f"the last frame [lowest to highest] (mean over all forecast frames). Trained at {commits}.",
            "",
            markdown(header, rows),
            "Real masks at stride 5, by frame:",
            "",
            markdown(["forecaster", *map(str, numbers)], horizons),
            *(table for store in stores if (table := gains_by_video(work, list(scores), store, seeds))),
            f"Clip stores: {digests}.",
            "",
        ]
    )


def gains_by_video(work: Path, names: Sequence[str], store: str, seeds: Sequence[int]) -> str:
    """Returns a table of the forecasters' gains over rigid body in each video, empty where that is not scored.

    The last row has the mean over all clips and its interval (`mean_interval`), which resamples whole videos.
    """
    bootstrap, columns = Bootstrap(), []
    videos: dict[str, str] = {}
    for name in names:
        gains, of_name = gains_by_clip(work, name, store, seeds)
        if not gains:
            return ""
        videos |= of_name
        by_video: dict[str, list[float]] = {}
        for clip, gain in gains.items():
            by_video.setdefault(videos[clip], []).append(gain)
        interval = format_interval(mean_interval(gains, bootstrap, videos), len(gains), "+.3f")
        columns.append({video: f"{statistics.mean(of):+.3f}" for video, of in by_video.items()} | {"": interval})
    rows = [[video, *(column.get(video, "") for column in columns)] for video in sorted(set(videos.values()))]
    level = f"{bootstrap.confidence:.0%}".replace("%", " %")
    rows.append([f"mean over the clips [{level} interval]", *(column[""] for column in columns)])
    title = f"Mean over all forecast frames minus that of rigid body, {store.replace('_', ' ')}, mean of the seeds"
    return f"{title}:\n\n{markdown(['video', *names], rows)}"


def gains_by_clip(
    work: Path, name: str, store: str, seeds: Sequence[int]
) -> tuple[dict[str, float], dict[str, str]]:
    """Returns a forecaster's gain over rigid body in each clip, mean of the seeds, and the video of each clip."""
    gains: dict[str, list[float]] = {}
    videos: dict[str, str] = {}
    for seed in seeds:
        with (folder_of(work, name, seed) / store / "per_clip.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["jaccard_mean"]]
        ours, theirs = (
            {row["clip"]: float(row["jaccard_mean"]) for row in rows if row["model"] == model}
            for model in (FORECASTER, "rigid_body")
        )
        for clip in ours.keys() & theirs.keys():
            gains.setdefault(clip, []).append(ours[clip] - theirs[clip])
        videos |= {row["clip"]: row["video"] for row in rows}
    return {clip: statistics.mean(of) for clip, of in gains.items()}, videos


def both(runs: list[Run], suffix: str) -> str:
    """Returns a table cell: score of the last frame, its range over seeds, and the mean over frames."""
    key = f"jaccard_last{suffix}"
    if key not in runs[0]:
        return "not applicable"
    last = [run[key] for run in runs]
    span = f" [{min(last):.3f} to {max(last):.3f}]" if len(last) > 1 else ""
    return f"{statistics.mean(last):.3f}{span} ({mean_of(runs, f'jaccard_mean{suffix}'):.3f})"


def mean_of(runs: list[Run], key: str) -> float:
    """Returns the mean of a score over runs."""
    return statistics.mean(run[key] for run in runs)


if __name__ == "__main__":
    with one_line_errors():
        main()
