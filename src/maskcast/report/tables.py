"""Tables for terminals, Markdown and CSV files."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def printed(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    """Returns a table for a terminal of 120 columns, under its title; headers are wrapped between words alone."""
    table = Table(box=SIMPLE_HEAD, padding=0)
    for column, name in enumerate(header):
        longest = max(map(len, name.split()), default=0)
        table.add_column(name, justify="right" if column else "left", no_wrap=not column, min_width=longest)
    for row in rows:
        table.add_row(*row)
    text = StringIO()
    console = Console(file=text, width=120)
    console.width = max(120, Measurement.get(console, console.options.update(max_width=1000), table).minimum)
    console.print(table)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    return "\n".join([title, *filter(None, lines)])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def number(value: float) -> str:
    """Returns a score as CSV files hold it; NaN and infinity become an empty cell."""
    return f"{value:.6f}" if np.isfinite(value) else ""
