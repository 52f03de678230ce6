"""The metrics of a run by step, in a file: the page of a resumed stage shows its curves from the first step on.

curves.jsonl   a line with the digest of the run's origin, then one line per report: the step and its values
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from maskcast.markup import Html
from maskcast.writing import write_atomically

Report = tuple[int, dict[str, float]]  # step, values by name


class CurveLog:
    """Appends each report to a file at once; a listener of ``progress``.

    Args:
        path: the file; it is created with the first report that has a step.
        owner: digest of the run's origin; the file of another run is replaced.

    Attributes:
        earlier: what the killed run reported. Steps after its last checkpoint are reported again.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path, self._owner = path, owner
        self._file: TextIO | None = None
        self.earlier = _read(path, owner)

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Appends the values of a step; metrics without a step are ignored."""
        if step is None:
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps(line) + "\n" for line in (self._owner, *self.earlier))
            write_atomically(self._path, "".join(lines))  # without a last line that was cut off
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        self._file.write(json.dumps((step, dict(values))) + "\n")

    def file(self, path: Path, folder: str) -> None:
        """Does nothing: a resumed stage reports its files again."""

    def section(self, title: str, content: Html) -> None:
        """Does nothing: a resumed stage reports its sections again."""

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def _read(path: Path, owner: str) -> list[Report]:
    """Returns the reports in a file up to the first damaged line; none if it is missing or of another run."""
    reports: list[Report] = []
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        if json.loads(first) != owner:
            return []
        for line in lines:
            step, values = json.loads(line)
            reports.append((int(step), {str(name): float(value) for name, value in values.items()}))
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    return reports
