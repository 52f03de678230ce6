"""Tables of a forecaster's evaluation, for readers and for `dvc plots`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.evaluation.definitions import FORECASTS, FORECASTS_DAVIS, FUTURES
from maskcast.evaluation.metrics import jaccard_per_class
from maskcast.evaluation.scores import ForecastScores
from maskcast.report.clip_by_clip import CSV_HEADER, EXPLANATION, ClipComparison, clip_by_clip
from maskcast.report.clip_by_clip import HEADER as CLIP_BY_CLIP
from maskcast.report.tables import csv_number, format_score, markdown, write_csv

NO_FOREGROUND = "no true mask has foreground, so Jaccard is undefined (n/a)"
HEADLINE = {
    "jaccard_last": "Jaccard {judged}",
    "jaccard_last_no_background": "without background",
    "jaccard_last_absent_zero": "absent = 0",
    "jaccard_mean": "mean {first}-{last}",
    "j_and_f": "J&F {first}-{last}",
    "accuracy_last": "accuracy",
    "dice_last": "Dice",
    "coco_AP": "COCO AP",
    "calibration_error": "calibration error",
    "seconds_per_clip": "s / clip",
    "peak_memory_mib": "MiB",
}
DIGITS = {"peak_memory_mib": 0}


def definitions(futures: int) -> dict[str, str]:
    """Returns the definitions that comparable evaluations share, given the number of sampled futures."""
    return FORECASTS | FUTURES if futures else FORECASTS


def meanings(futures: int) -> dict[str, str]:
    """Returns the definitions of all scores, including those of DAVIS."""
    return definitions(futures) | FORECASTS_DAVIS


def score_table(scores: Mapping[str, ForecastScores]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the table of scores, one row per forecaster."""
    first = next(iter(scores.values()))
    numbers = first.frame_numbers
    frames = {"first": numbers[0], "last": numbers[-1], "judged": numbers[first.last]}
    header = ["forecaster", *(text.format(**frames) for text in HEADLINE.values())]
    rows = [
        [name, *(format_score(each.table()[key], DIGITS.get(key, 4)) for key in HEADLINE)]
        for name, each in scores.items()
    ]
    return header, rows


def write_tables(
    folder: Path,
    scores: Mapping[str, ForecastScores],
    classes: Sequence[str],
    facts: Mapping[str, Any],
    futures: int,
    videos: Mapping[str, str],
) -> list[ClipComparison]:
    """Writes scores.md, scores.csv, per_horizon.csv, per_class.csv, per_clip.csv, clip_by_clip.csv and README.md.

    Returns:
        The clip-by-clip comparison of the forecasters.
    """
    header, rows = score_table(scores)
    (folder / "scores.md").write_text(markdown(header, rows), encoding="utf-8")
    write_csv(
        folder / "scores.csv",
        ["model", "score", "value"],
        [[name, key, csv_number(value)] for name, each in scores.items() for key, value in each.table().items()],
    )
    write_csv(
        folder / "per_horizon.csv",
        ["horizon", *scores],
        [
            [frame, *(csv_number(each.per_horizon()[index]) for each in scores.values())]
            for index, frame in enumerate(next(iter(scores.values())).frame_numbers)
        ],
    )
    per_class = [jaccard_per_class(each.matrix_hKK[each.last]) for each in scores.values()]
    first = next(iter(scores.values()))
    pixels_K = first.matrix_hKK[first.last].sum(axis=1)
    write_csv(
        folder / "per_class.csv",
        ["class_id", "class", "target_pixels", *scores],
        [
            [k, name, int(pixels_K[k]), *(csv_number(jaccard_K[k]) for jaccard_K in per_class)]
            for k, name in enumerate(classes)
        ],
    )
    write_csv(
        folder / "per_clip.csv",
        ["clip", "model", "jaccard_last", "jaccard_mean", "j_and_f", "video"],
        [
            [
                clip_id,
                name,
                *(csv_number(each.get(clip_id, np.nan)) for each in by_score.values()),
                videos[clip_id],
            ]
            for name, by_score in {name: each.per_clip() for name, each in scores.items()}.items()
            for clip_id in first.clip_ids
        ],
    )
    comparisons = clip_by_clip(scores, videos)
    write_csv(folder / "clip_by_clip.csv", CSV_HEADER, [each.csv_row for each in comparisons])
    lines = ["# Evaluation", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", markdown(header, rows)]
    if comparisons:
        lines += [
            "## Clip by clip",
            "",
            markdown(CLIP_BY_CLIP, [each.table_row for each in comparisons]),
            EXPLANATION,
            "",
        ]
    lines += ["## What the scores mean", ""]
    lines += [f"- `{name}`: {text}." for name, text in meanings(futures).items()]
    lines += ["", "In `metrics`, a baseline's scores end in its name."]
    if "rigid_body" in scores:
        lines += ["`rigid_body` uses CLEVRER's camera and physics, which trained forecasters do not have."]
    lines += ["Scores in per_clip.csv are of single clips; their mean is not the pooled score above.", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    return comparisons
