"""The rows of `benchmarks/gpu.py`: a CSV file that grows row by row, and a table of it."""

import csv
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch

from _common import commit
from maskcast.resources import num_cpus

SHOWN = {
    "ms": "ms",
    "per_s": "samples/s",
    "plain": "x plain",
    "tflop_s": "TFLOP/s",
    "flop_share": "% FLOP",
    "gb_s": "GB/s",
    "byte_share": "% bytes",
    "wait": "% waits",
    "peak_gib": "GiB",
    "infer_per_s": "frames/s",
    "infer_flop_share": "% FLOP",
    "note": "note",
}
DIGITS = {
    "ms": 2,
    "plain": 2,
    "tflop_s": 1,
    "peak_gib": 1,
    "flop_share": 1,
    "byte_share": 1,
    "infer_flop_share": 1,
    "wait": 1,
}


@dataclass
class Row:
    """A measurement; values are None if not measured.

    Args:
        part: part of the benchmark.
        model: name of the model.
        form: variant.
        batch: samples per step.
        unit: name of a sample.
        ms: milliseconds per training step or call.
        per_s: samples per second.
        plain: speed relative to the plain implementation in this run.
        tflop_s: achieved TFLOP/s, from the operations of the eager variant.
        flop_share: percentage of the peak rate in the same precision.
        gb_s: achieved GB/s, from the bytes that the eager variant moves.
        byte_share: percentage of the peak rate of a copy.
        wait: percentage of the loop's time in which the GPU waits for batches.
        peak_gib: peak memory of tensors.
        infer_per_s: frames per second of inference.
        infer_flop_share: percentage of the peak rate, in inference.
        took: seconds to measure the row.
        note: why values are missing, or a remark.
    """

    part: str
    model: str
    form: str
    batch: int | None = None
    unit: str = ""
    ms: float | None = None
    per_s: float | None = None
    plain: float | None = None
    tflop_s: float | None = None
    flop_share: float | None = None
    gb_s: float | None = None
    byte_share: float | None = None
    wait: float | None = None
    peak_gib: float | None = None
    infer_per_s: float | None = None
    infer_flop_share: float | None = None
    took: float | None = None
    note: str = ""


class Table:
    """Rows on disk, to which several processes append one after the other.

    Args:
        folder: folder for ``gpu.csv`` and ``gpu.md``.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.markdown = folder / "gpu.csv", folder / "gpu.md"
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: Row) -> None:
        """Appends a row with facts about the machine, and prints it."""
        where = machine()
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow([*(each.name for each in fields(Row)), *where])
            values = ["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in asdict(row).values()]
            writer.writerow([*values, *where.values()])
        seconds = "" if row.took is None else f"[{row.took:.0f} s] "
        facts = [f"{label} {_text(name, getattr(row, name))}" for name, label in SHOWN.items() if _set(row, name)]
        print(f"{row.part:10} {row.model:22} {row.form:34} {seconds}{', '.join(facts)}", flush=True)

    def rows(self) -> list[Row]:
        """Returns all rows."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return [
                Row(**{each.name: _value(each.name, line[each.name]) for each in fields(Row)})
                for line in csv.DictReader(file)
            ]

    def finish(self) -> None:
        """Prints a table of each part, and writes them as Markdown."""
        rows = self.rows()
        lines = []
        for part in dict.fromkeys(row.part for row in rows):
            part_rows = [row for row in rows if row.part == part]
            used = [name for name in SHOWN if any(_set(row, name) for row in part_rows)]
            header = ["model", "form", "batch", *(SHOWN[name] for name in used)]
            body = [
                [
                    row.model,
                    row.form,
                    f"{row.batch or ''} {row.unit}".strip(),
                    *(_text(n, getattr(row, n)) for n in used),
                ]
                for row in part_rows
            ]
            lines += [f"### {part}", "", _line(header), _line(["---"] * len(header)), *map(_line, body), ""]
        text = "\n".join([*lines, " · ".join(f"{name} {value}" for name, value in machine().items()), ""])
        print(text)
        self.markdown.write_text(text, encoding="utf-8")


@cache
def machine() -> dict[str, str]:
    """Returns facts on which the results depend."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "commit": commit(),
        "card": card,
        "driver": _driver(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "python": platform.python_version(),
        "processors": str(num_cpus()),
        "threads": str(torch.get_num_threads()),
    }


def _driver() -> str:
    try:
        found = re.search(r"\d{3}\.\d+(\.\d+)?", Path("/proc/driver/nvidia/version").read_text(encoding="ascii"))
    except OSError:
        return "unknown"
    return found[0] if found else "unknown"


def _set(row: Row, name: str) -> bool:
    return getattr(row, name) not in (None, "")


def _text(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{DIGITS.get(name, 0)}f}"
    return "" if value is None else str(value)


def _value(name: str, text: str) -> Any:
    if name in ("part", "model", "form", "unit", "note"):
        return text
    if not text:
        return None
    return int(text) if name == "batch" else float(text)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
