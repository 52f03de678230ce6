"""Line plots in a common style."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskcast.data.clip_store.frame_index import spread

MAX_TICKS = 22  # of x values with dots; more would overlap
INK, GRID = "#24292f", "#d8dee4"
Bin = tuple[float, float, float]
COLOURS = ("#0969da", "#8c959f", "#bc4c00", "#1a7f37", "#8250df")


def plot_lines(
    path: Path,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    points: bool = False,
) -> None:
    """Plots scores in 0..1 over `x` as PNG, one line per name; the first line is highlighted.

    Args:
        path: File to write; the same lines give the same bytes.
        x: Values on the horizontal axis.
        lines: Scores at `x`, by name.
        title: Heading.
        x_label: Meaning of `x`.
        y_label: Meaning of the scores.
        points: Whether to draw dots, with a tick for each `x` (or for evenly spaced ones of many).
    """
    figure, axes = _figure(title, x_label, y_label)
    for (name, values), colour in zip(lines.items(), cycle(COLOURS), strict=False):
        first = name == next(iter(lines))
        style = {"lw": 2.4, "zorder": 3} if first else {"lw": 1.6, "ls": (0, (4, 2))}
        axes.plot(x, values, color=colour, marker="o" if points else None, ms=4, label=name, **style)
    if points:
        axes.set_xticks(spread(x, MAX_TICKS))
    axes.legend(frameon=False, ncols=len(lines), loc="best")  # upper right, unless a line is there
    figure.savefig(path, metadata={"Software": None})


def plot_reliability(path: Path, curves: Mapping[str, Sequence[Bin]], *, title: str) -> None:
    """Plots accuracy over confidence as PNG (reliability diagram), with the diagonal of perfect calibration.

    Args:
        path: File to write; the same curves give the same bytes.
        curves: Confidence, accuracy and share of all pixels for each bin, by name; dots of bins with a larger
            share are larger.
        title: Heading.
    """
    figure, axes = _figure(title, "confidence", "fraction of correct pixels")
    axes.plot([0, 1], [0, 1], color=GRID, lw=1.6)
    for (name, curve), colour in zip(curves.items(), cycle(COLOURS), strict=False):
        confidence, accuracy, shares = zip(*curve, strict=True) if curve else ((), (), ())
        axes.plot(confidence, accuracy, color=colour, lw=1.6, label=name)
        axes.scatter(
            confidence, accuracy, s=[8 + 120 * share**0.5 for share in shares], color=colour, alpha=0.7, lw=0
        )
    axes.set_xlim(0, 1.02)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, metadata={"Software": None})


def plot_sweeps(path: Path, sweeps: Mapping[str, tuple[Sequence[float], Sequence[float], float | None]]) -> None:
    """Plots losses over learning rates as PNG, with a dot at the suggested rate of each curve.

    Args:
        path: File to write; the same curves give the same bytes.
        sweeps: Rates, losses, and the suggested rate or None, by name.
    """
    figure, axes = _figure("Loss by learning rate", "learning rate", "smoothed loss")
    axes.set_xscale("log")
    for number, (name, (rates, losses, suggested)) in enumerate(sweeps.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(rates, losses, color=colour, lw=1.6, ls="-" if number < len(COLOURS) else "--", label=name)
        if suggested is not None:
            nearest = min(range(len(rates)), key=lambda k: abs(rates[k] - suggested))
            axes.scatter([rates[nearest]], [losses[nearest]], color=colour, zorder=3, label=f"{suggested:.1e}")
    # A diverged loss would flatten the rest of the plot.
    starts = [losses[0] for _, losses, _ in sweeps.values()]
    low = min(min(losses) for _, losses, _ in sweeps.values())
    axes.set_ylim(low - 0.05 * abs(low), 1.5 * max(starts) if max(starts) > 0 else None)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def _figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Returns an empty plot with a y axis from 0 to 1."""
    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    axes: Axes = figure.subplots()
    axes.set_ylim(0, 1)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=INK, length=0)
    return figure, axes
