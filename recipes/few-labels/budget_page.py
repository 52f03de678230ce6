"""The page of a label budget: scores of several ways to train a masker, by the number of labelled clips."""

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from maskcast.markup import element, table
from maskcast.report.charts import line_chart
from maskcast.report.page import document

ATTRIBUTES = "attributes"  # in the names of arms whose classes have attributes, which get a separate chart


class Point(NamedTuple):
    """One training: its arm, the order of labelling, the number of labelled clips, seed, score and minutes."""

    arm: str
    order: str
    percent: float
    clips: int
    seed: int
    jaccard: float
    minutes: float


def write_budget(path: Path, points: Iterable[Point]) -> None:
    """Writes an HTML page and a CSV table.

    Args:
        path: path of both without ``.html`` and ``.csv``; its folder exists.
        points: the trainings, in the order in which their arms are listed.
    """
    points = list(points)
    with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([Point._fields, *points])
    lines: defaultdict[str, defaultdict[float, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        name = point.arm if point.order == "random" else f"{point.arm}, {point.order}"
        lines[name][point.percent].append(point)
    groups = {
        "Classes without attributes": {name: line for name, line in lines.items() if ATTRIBUTES not in name},
        "Classes with attributes": {name: line for name, line in lines.items() if ATTRIBUTES in name},
    }
    charts = [
        line_chart(
            title,
            {name: [(percent, _mean(line[percent])) for percent in sorted(line)] for name, line in group.items()},
            x_label="clips with labels, %",
            y_label="Jaccard",
            y_range=(0, 1),
            log_x=True,
        )
        for title, group in groups.items()
        if group
    ]
    rows = [
        [
            name,
            f"{percent:g}",
            seeds[0].clips,
            len(seeds),
            f"{_mean(seeds):.3f}",
            _span(seeds),
            f"{_minutes(seeds):.1f}",
        ]
        for name, line in lines.items()
        for percent, seeds in sorted(line.items())
    ]
    header = ["way to train", "%", "clips", "seeds", "Jaccard, mean", "lowest to highest", "minutes"]
    sections = {
        "By the number of labelled clips": element("div", *charts, class_="charts"),
        "Numbers": table("Validation Jaccard of single frames; clips with labels, % and number", header, rows),
    }
    path.with_suffix(".html").write_text(document("Few labels", sections), encoding="utf-8")


def _mean(points: Sequence[Point]) -> float:
    """Returns the mean Jaccard index."""
    return statistics.mean(point.jaccard for point in points)


def _minutes(points: Sequence[Point]) -> float:
    """Returns the mean training time in minutes."""
    return statistics.mean(point.minutes for point in points)


def _span(points: Sequence[Point]) -> str:
    """Returns the range of the Jaccard index, as text."""
    return f"{min(point.jaccard for point in points):.3f} to {max(point.jaccard for point in points):.3f}"
