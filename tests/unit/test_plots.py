"""Plots that people read: letters do not run into each other, and nothing lies over a line."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from maskcast.report.plots import COLOURS, plot_lines, plot_reliability


def test_more_lines_than_colours_are_all_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **how: drawn.append(self))
    names = [f"line {number}" for number in range(len(COLOURS) + 1)]
    lines = {name: [0.1, 0.2] for name in names}
    plot_lines(tmp_path / "plot.png", [1, 2], lines, title="title", x_label="frame", y_label="Jaccard")
    plot_reliability(tmp_path / "plot.png", {name: [(0.5, 0.5, 1.0)] for name in names}, title="title")
    for figure in drawn:
        assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == names


@pytest.mark.parametrize(("places", "ticks"), [(11, 11), (80, 22)])
@pytest.mark.parametrize("height", [0.3, 0.94])
def test_ticks_and_legend_leave_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: int, ticks: int, height: float
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **how: (save(self, path, **how), drawn.append(self)))
    x = list(range(12, 12 + places))
    lines = {name: np.linspace(height, height - 0.03, places).tolist() for name in ("forecaster", "persistence")}
    plot_lines(tmp_path / "plot.png", x, lines, title="title", x_label="frame", y_label="Jaccard", points=True)
    (axes,) = drawn[0].axes
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert len(boxes) == ticks and all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert (axes.get_xticks()[0], axes.get_xticks()[-1]) == (x[0], x[-1])
    legend = axes.get_legend().get_window_extent()
    points = axes.transData.transform(
        [(at, y) for values in lines.values() for at, y in zip(x, values, strict=True)]
    )
    assert not any(legend.contains(*point) for point in points)
