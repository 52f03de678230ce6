"""Tables of a forecaster's evaluation, for readers and for `dvc plots`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskcast.evaluation.definitions import FORECASTS, FORECASTS_DAVIS, FUTURES
from maskcast.evaluation.forecasts import ForecastEvaluation, selection_note
from maskcast.evaluation.metrics import jaccard_per_class
from maskcast.evaluation.scores import ForecastScores
from maskcast.report.clip_by_clip import CSV_HEADER, EXPLANATION, ClipComparison, clip_by_clip
from maskcast.report.clip_by_clip import HEADER as CLIP_BY_CLIP
from maskcast.report.tables import csv_number, format_score, markdown, write_csv

NO_FOREGROUND = "no true mask has foreground, so Jaccard is undefined (n/a)"
HEADLINE = {
    "jaccard_last": "Jaccard, frame {judged}",
    "jaccard_last_no_background": "without background",
    "jaccard_last_absent_zero": "absent classes as 0",
    "jaccard_mean": "Jaccard, frames {first}-{last}",
    "j_and_f": "J&F, frames {first}-{last}",
    "accuracy_last": "accuracy, frame {judged}",
    "dice_last": "Dice, frame {judged}",
    "coco_AP": "COCO AP",
    "calibration_error": "calibration error",
    "seconds_per_clip": "s per clip",
    "peak_memory_mib": "peak MiB",
}
DEFINED_AS = {"coco_AP": "coco_<name>"}  # name of the definition, where it is not that of the score
DIGITS = {"peak_memory_mib": 0}


def definitions(futures: int) -> dict[str, str]:
    """Returns the definitions that comparable evaluations share, given the number of sampled futures."""
    return FORECASTS | FUTURES if futures else FORECASTS


def meanings(futures: int) -> dict[str, str]:
    """Returns the definitions of all scores, including those of DAVIS."""
    return definitions(futures) | FORECASTS_DAVIS


def meanings_by_header(evaluation: ForecastEvaluation) -> dict[str, str]:
    """Returns the definitions of all scores; those of a column of the table are found by its header, too."""
    headers = {DEFINED_AS.get(key, key): text for key, text in _headers(evaluation.scores).items()}
    return {
        f"{headers[name]}: {name}" if name in headers else name: text
        for name, text in meanings(evaluation.futures).items()
    }


def _headers(scores: Mapping[str, ForecastScores]) -> dict[str, str]:
    """Returns the headers of the table of scores, by name of the score."""
    first = next(iter(scores.values()))
    numbers = first.frame_numbers
    frames = {"first": numbers[0], "last": numbers[-1], "judged": numbers[first.last]}
    return {key: text.format(**frames) for key, text in HEADLINE.items()}


def score_table(scores: Mapping[str, ForecastScores]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the table of scores, one row per forecaster."""
    header = ["forecaster", *_headers(scores).values()]
    rows = []
    for name, each in scores.items():
        numbers_by_name = each.table()  # takes a while for many clips
        rows.append([name, *(format_score(numbers_by_name[key], DIGITS.get(key, 4)) for key in HEADLINE)])
    return header, rows


def write_tables(folder: Path, evaluation: ForecastEvaluation) -> list[ClipComparison]:
    """Writes scores.md, scores.csv, per_horizon.csv, per_class.csv, per_clip.csv, clip_by_clip.csv and README.md.

    Returns:
        The clip-by-clip comparison of the forecasters.
    """
    scores = evaluation.scores
    (folder / "scores.md").write_text(markdown(*score_table(scores)), encoding="utf-8")
    _write_scores(folder / "scores.csv", scores)
    _write_horizons(folder / "per_horizon.csv", scores)
    _write_classes(folder / "per_class.csv", scores, evaluation.prepared.classes)
    _write_clips(folder / "per_clip.csv", scores, evaluation.videos)
    comparisons = clip_by_clip(scores, evaluation.videos)
    write_csv(folder / "clip_by_clip.csv", CSV_HEADER, [each.csv_row for each in comparisons])
    _write_readme(folder / "README.md", evaluation, comparisons)
    return comparisons


def _write_scores(path: Path, scores: Mapping[str, ForecastScores]) -> None:
    rows = [[name, key, csv_number(value)] for name, each in scores.items() for key, value in each.table().items()]
    write_csv(path, ["model", "score", "value"], rows)


def _write_horizons(path: Path, scores: Mapping[str, ForecastScores]) -> None:
    frames = next(iter(scores.values())).frame_numbers
    by_horizon = zip(*(each.per_horizon() for each in scores.values()), strict=True)
    rows = [[frame, *map(csv_number, values)] for frame, values in zip(frames, by_horizon, strict=True)]
    write_csv(path, ["horizon", *scores], rows)


def _write_classes(path: Path, scores: Mapping[str, ForecastScores], classes: Sequence[str]) -> None:
    first = next(iter(scores.values()))
    pixels_K = first.matrix_hKK[first.last].sum(axis=1)
    by_class = zip(*(jaccard_per_class(each.matrix_hKK[each.last]) for each in scores.values()), strict=True)
    rows = [
        [k, name, int(pixels), *map(csv_number, values)]
        for k, (name, pixels, values) in enumerate(zip(classes, pixels_K, by_class, strict=True))
    ]
    write_csv(path, ["class_id", "class", "target_pixels", *scores], rows)


def _write_clips(path: Path, scores: Mapping[str, ForecastScores], videos: Mapping[str, str]) -> None:
    rows = [
        [clip_id, name, *(csv_number(each.get(clip_id, np.nan)) for each in by_score.values()), videos[clip_id]]
        for name, by_score in {name: each.per_clip() for name, each in scores.items()}.items()
        for clip_id in next(iter(scores.values())).clip_ids
    ]
    write_csv(path, ["clip", "model", "jaccard_last", "jaccard_mean", "j_and_f", "video"], rows)


def _write_readme(path: Path, evaluation: ForecastEvaluation, comparisons: Sequence[ClipComparison]) -> None:
    split = evaluation.clips[0].split
    facts = {"split": split, **evaluation.facts}
    if note := selection_note(split):
        facts["selection"] = note
    if evaluation.notes:
        facts["trained on"] = " ".join(evaluation.notes)
    lines = ["# Evaluation", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", markdown(*score_table(evaluation.scores))]
    if comparisons:
        rows = [each.table_row for each in comparisons]
        lines += ["## Clip by clip", "", markdown(CLIP_BY_CLIP, rows), EXPLANATION, ""]
    lines += ["## What the scores mean", ""]
    lines += [f"- `{name}`: {text}." for name, text in meanings_by_header(evaluation).items()]
    lines += ["", "In `metrics`, a baseline's scores end in its name."]
    if "rigid_body" in evaluation.scores:
        lines += ["`rigid_body` uses CLEVRER's camera and physics, which trained forecasters do not have."]
    lines += ["Scores in per_clip.csv are of single clips; their mean is not the pooled score above.", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
