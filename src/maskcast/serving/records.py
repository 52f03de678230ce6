"""Records in the outputs of `forecast` and `segment`: what was requested, and which files were written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.files import is_junk, tree_files
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.writing import write_json

REVISION = 1  # of masks and forecasts; raise it if a request would give others, so that old ones count as not done
FORECAST, SEGMENTED = "forecast.json", "segment.json"  # names of the records
FILES = "files"  # key in the records: size in bytes of each other file, by its path in the output


def write_record(record: Path, values: Mapping[str, Any]) -> None:
    """Writes the record of an output whose other files are complete: some values, and the sizes of these files."""
    write_json(record, {**values, FILES: _written_files(record.parent)})


def is_done(record: Path, request: Mapping[str, Any]) -> bool:
    """Whether an earlier run with the same request has written its record, and no file is missing or cut off.

    Files that were added or grew since are the user's, and do not count as damaged.

    Args:
        record: file of the record, with the values of its request at least; it may be missing or damaged.
        request: values that determine the result; None equals a missing one.
    """
    found = read_record(record)
    if not found or any(found.get(key) != value for key, value in request.items()):
        return False
    there = _written_files(record.parent)
    damaged = [name for name, size in _recorded_files(found).items() if there.get(name, -1) < size]
    if damaged:
        first, *others = damaged
        more = f", and so {pluralize(len(others), 'other file', 'is', 'are')}" if others else ""
        say(f"{record.parent / first}: damaged: {'cut off' if first in there else 'missing'}{more}")
    return not damaged


def check_only_written(record: Path) -> None:
    """Refuses an output that is to be replaced, if it has files that its command has not written so.

    Args:
        record: the file of its record; it may be missing or damaged.

    Raises:
        MaskcastError: files were added, or have grown.
    """
    written = _recorded_files(read_record(record))
    if not written:  # of before the files were recorded
        return
    there = _written_files(record.parent)
    changed = [name for name, size in there.items() if name != record.name and size > written.get(name, -1)]
    if changed:
        more = f" and {pluralize(len(changed) - 1, 'other file')}" if changed[1:] else ""
        raise MaskcastError(
            f"{record.parent}: --output is replaced as a whole, but {changed[0]}{more} were added or changed "
            "since it was written; move them elsewhere, or choose another path"
        )


def _written_files(folder: Path) -> dict[str, int]:
    """Returns the size in bytes of each file of an output, by its path in there."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in tree_files(folder)
        if not is_junk(path.name)
    }


def read_record(record: Path) -> dict[str, Any]:
    """Returns the values of a record; none if it is missing or damaged."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _recorded_files(record: Mapping[str, Any]) -> dict[str, int]:
    """Returns the sizes of the files in a record; none if it is of before they were recorded."""
    files = record.get(FILES)
    if not isinstance(files, dict) or not all(isinstance(size, int) for size in files.values()):
        return {}
    return files
