"""Tables for the terminal, Markdown and CSV files."""

import csv
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from rich.cells import cell_len, chop_cells

from maskcast.redaction import printable

GAP = 2  # spaces between columns
MIN_TEXT_WIDTH = 34  # minimum width of a column of long texts; less would put each word on a line of its own
MAX_DECIMALS = 4


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    """Returns a table with its title for the terminal (80 columns wide if there is none).

    Columns that do not fit continue in further blocks below, each with the first column repeated. If width is
    short, headers are wrapped between words, and so are texts, down to ``MIN_TEXT_WIDTH`` columns.
    """
    columns = [_Column(name, [printable(row[index]) for row in rows]) for index, name in enumerate(header)]
    width = shutil.get_terminal_size().columns
    blocks: list[list[_Column]] = []
    for column in columns[1:]:
        if not blocks or _width([*blocks[-1], column]) > width:
            blocks.append(columns[:1])
        blocks[-1] = [*blocks[-1], column]
    text = "\n\n".join(_draw(block, width) for block in blocks or [columns])
    return f"{title}\n{text}" if title else text


@dataclass(frozen=True)
class _Column:
    """A column of a table.

    Args:
        name: header.
        cells: texts below the header.
    """

    name: str
    cells: Sequence[str]

    @property
    def max_width(self) -> int:
        """Width of the widest cell."""
        return max((cell_len(line) for cell in self.cells for line in cell.splitlines()), default=0)

    @property
    def min_width(self) -> int:
        """Minimum width, with headers and texts wrapped between words."""
        return max(min(self.max_width, MIN_TEXT_WIDTH), *map(cell_len, self.name.split()), 1)

    @property
    def is_numeric(self) -> bool:
        """Whether all cells are numbers or placeholders for missing numbers."""
        return all(re.match(r"[-+]?\d|-$|n/a$|$", cell) for cell in self.cells)


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.min_width for column in columns) + GAP * (len(columns) - 1)


def _draw(columns: Sequence[_Column], width: int) -> str:
    """Returns one block of a table; spare width goes to its texts first, then to its headers."""
    widths = [column.min_width for column in columns]
    for target_widths in ([column.max_width for column in columns], [cell_len(column.name) for column in columns]):
        for index, size in enumerate(target_widths):
            spare = width - sum(widths) - GAP * (len(columns) - 1)
            widths[index] += max(0, min(size - widths[index], spare))
    left = [index == 0 or not column.is_numeric for index, column in enumerate(columns)]
    names = [_wrap(column.name, size) or [""] for column, size in zip(columns, widths, strict=True)]
    height = max(map(len, names))
    lines = _join_cells([[""] * (height - len(name)) + name for name in names], widths, left)
    lines.append("─" * (sum(widths) + GAP * (len(widths) - 1)))
    for cells in zip(*(column.cells for column in columns), strict=True):
        wrapped = [
            [part for line in cell.splitlines() for part in _wrap(line, size)]
            for cell, size in zip(cells, widths, strict=True)
        ]
        lines += _join_cells(wrapped, widths, left)
    return "\n".join(lines)


def _wrap(text: str, width: int) -> list[str]:
    """Returns the lines of a text that is wrapped between words; wider words are cut, runs of spaces become one.

    The width is in columns of a terminal, of which a Chinese character takes two.
    """
    lines: list[str] = []
    for word in text.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines += chop_cells(word, width)
    return lines


def _join_cells(cells: Sequence[Sequence[str]], widths: Sequence[int], left: Sequence[bool]) -> list[str]:
    """Returns the lines of one row; each cell may have several lines."""
    rows = zip_longest(*(lines or [""] for lines in cells), fillvalue="")
    return [
        (" " * GAP)
        .join(
            text + " " * (size - cell_len(text)) if to_left else " " * (size - cell_len(text)) + text
            for text, size, to_left in zip(row, widths, left, strict=True)
        )
        .rstrip()
        for row in rows
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with right-aligned numbers."""
    texts = [[" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in (header, *rows)]
    lines = [texts[0], ["---", *["---:"] * (len(header) - 1)], *texts[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def format_score(value: float, digits: int = 4, none: str = "-") -> str:
    """Returns a score with ``digits`` decimals, or ``none`` if it is not finite."""
    return f"{value:.{digits}f}" if np.isfinite(value) else none


def format_numbers(values: Sequence[float]) -> list[str]:
    """Returns a column of numbers as text with equal decimals.

    The greatest has four digits, and the smallest that is not 0 has two, with up to four decimals.
    """
    finite = [abs(value) for value in values if np.isfinite(value)]
    largest, smallest = max(finite, default=0.0), min((value for value in finite if value), default=0.0)
    if largest <= 1:
        decimals = MAX_DECIMALS
    elif all(float(value).is_integer() for value in finite):
        decimals = 0
    else:
        of_largest, of_smallest = 3 - math.floor(math.log10(largest)), 1 - math.floor(math.log10(smallest))
        decimals = min(max(of_largest, of_smallest, 0), MAX_DECIMALS)
    return [f"{value:,.{decimals}f}" if np.isfinite(value) else "n/a" for value in values]


def csv_number(value: float) -> str:
    """Returns a score for CSV files; NaN and infinity become an empty cell."""
    return f"{value:.6f}" if np.isfinite(value) else ""
