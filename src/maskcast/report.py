"""Tables and plots of an evaluation: what a person reads, and what `dvc plots` draws."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from maskcast.metrics import jaccard_per_class
from maskcast.scores import ForecastScores

DEFINITIONS = {
    "jaccard_last": "macro Jaccard of the last forecast frame: one confusion matrix over that frame of all clips; "
    "mean over the classes that occur in truth or forecast, background included, absent classes left out",
    "jaccard_last_no_background": "the same without class 0",
    "jaccard_last_absent_zero": "the same as jaccard_last, but absent classes count as 0",
    "jaccard_last_absent_zero_no_background": "the same without class 0",
    "jaccard_h<n>": "the same as jaccard_last at frame n, counted from 1",
    "jaccard_mean": "mean of jaccard_h<n> over the forecast frames",
    "accuracy_last": "fraction of right pixels of the last forecast frame, background included",
    "dice_last": "macro Dice of the last forecast frame, reduced like jaccard_last",
    "coco_<name>": "COCO segmentation summary over all forecast frames; each object class of a frame is one "
    "instance with score 1; left out where no such target exists",
    "frame_mse, frame_psnr": "mean squared error of forecast frames in [0, 1], over all pixels; its PSNR in dB",
    "seconds_per_clip": "wall time of reading the context and forecasting, per clip",
    "peak_memory_mib": "peak memory while forecasting: of the GPU, or resident memory of the whole process",
    "masker_<score>": "the masker's masks against the truth over all frames of the split, one confusion matrix",
}
HEADLINE = {
    "jaccard_last": "Jaccard {last}",
    "jaccard_last_no_background": "without background",
    "jaccard_last_absent_zero": "absent = 0",
    "jaccard_mean": "mean {first}-{last}",
    "accuracy_last": "accuracy",
    "dice_last": "Dice",
    "coco_AP": "COCO AP",
    "seconds_per_clip": "s / clip",
    "peak_memory_mib": "MiB",
}
INK, GRID = "#24292f", "#d8dee4"
COLOURS = ("#0969da", "#8c959f", "#bc4c00", "#1a7f37", "#8250df")


def headline(scores: Mapping[str, ForecastScores]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the score table, one row per forecaster."""
    numbers = next(iter(scores.values())).frame_numbers
    header = ["forecaster", *(text.format(first=numbers[0], last=numbers[-1]) for text in HEADLINE.values())]
    rows = [[name, *(_cell(key, one.table()[key]) for key in HEADLINE)] for name, one in scores.items()]
    return header, rows


def printed(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    """Returns a table for a terminal of 120 columns, under its title."""
    table = Table()
    for column, name in enumerate(header):
        table.add_column(name, justify="right" if column else "left", no_wrap=not column)
    for row in rows:
        table.add_row(*row)
    text = StringIO()
    Console(file=text, width=120).print(table)
    return f"{title}\n{text.getvalue().rstrip()}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_tables(
    folder: Path, scores: Mapping[str, ForecastScores], classes: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """Writes scores.md, scores.csv, per_horizon.csv, per_class.csv, per_clip.csv and README.md."""
    header, rows = headline(scores)
    (folder / "scores.md").write_text(markdown(header, rows), encoding="utf-8")
    _csv(
        folder / "scores.csv",
        ["model", "score", "value"],
        [[name, key, _number(value)] for name, one in scores.items() for key, value in one.table().items()],
    )
    _csv(
        folder / "per_horizon.csv",
        ["horizon", *scores],
        [
            [number, *(_number(one.per_horizon()[index]) for one in scores.values())]
            for index, number in enumerate(next(iter(scores.values())).frame_numbers)
        ],
    )
    per_class = [jaccard_per_class(one.matrix_hKK[-1]) for one in scores.values()]
    pixels_K = next(iter(scores.values())).matrix_hKK[-1].sum(axis=1)
    _csv(
        folder / "per_class.csv",
        ["class_id", "class", "target_pixels", *scores],
        [
            [k, name, int(pixels_K[k]), *(_number(jaccard_K[k]) for jaccard_K in per_class)]
            for k, name in enumerate(classes)
        ],
    )
    _csv(
        folder / "per_clip.csv",
        ["clip", "model", "jaccard_last", "jaccard_mean"],
        [
            [clip_id, name, _number(jaccard_h[-1]), _number(float(np.mean(jaccard_h)))]
            for name, one in scores.items()
            for clip_id, jaccard_h in zip(one.clip_ids, one.clip_jaccard, strict=True)
        ],
    )
    lines = ["# Evaluation", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", markdown(header, rows), "## What the scores mean", ""]
    lines += [f"- `{name}`: {text}." for name, text in DEFINITIONS.items()]
    lines += ["", "In `metrics`, the baselines' scores end in `_persistence` and `_constant_velocity`."]
    lines += ["In per_clip.csv a score is that of one clip alone: their mean is not the pooled score above.", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def plot_horizons(path: Path, scores: Mapping[str, ForecastScores]) -> None:
    """Draws macro Jaccard over the forecast frames, one line per forecaster."""
    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    for (name, one), colour in zip(scores.items(), COLOURS, strict=False):
        first = name == next(iter(scores))
        style = {"lw": 2.4, "zorder": 3} if first else {"lw": 1.6, "ls": (0, (4, 2))}
        axes.plot(one.frame_numbers, one.per_horizon(), color=colour, marker="o", ms=4, label=name, **style)
    axes.set_xticks(list(one.frame_numbers))
    axes.set_ylim(0, 1)
    axes.set_xlabel("frame", color=INK)
    axes.set_ylabel("macro Jaccard (absent classes omitted)", color=INK)
    axes.set_title("Forecast quality by horizon", loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=INK, length=0)
    axes.legend(frameon=False, ncols=len(scores), loc="upper right")
    figure.savefig(path, metadata={"Software": None})


def _csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _number(value: float) -> str:
    return f"{value:.6f}" if np.isfinite(value) else ""


def _cell(key: str, value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.0f}" if key == "peak_memory_mib" else f"{value:.4f}"
