"""Results of the scripts of recipes and benchmarks, made again only if they are to be made of something else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maskcast.reading import parsing, read_json
from maskcast.writing import write_atomically

Facts = dict[str, Any]


def made_once(
    record: Path, of: Mapping[str, Any], make: Callable[[], Mapping[str, Any] | None], *outputs: Path
) -> Facts:
    """Calls a function, unless a record says that it was called for the same values and its outputs exist.

    Args:
        record: JSON file that is written after the call; its folder may be missing.
        of: all that the results depend on, such as params, inputs and seeds; what JSON lacks counts as its text.
        make: writes the outputs; returns what the record shall hold of them, such as scores.
        outputs: files and folders that `make` writes.

    Returns:
        What `make` returned, now or then.

    Raises:
        MaskcastError: the record is damaged.
    """
    facts = recalled(record, of)
    if facts is None or not all(path.exists() for path in outputs):
        record.unlink(missing_ok=True)  # if this is stopped, outputs may be of these values or of those
        record.parent.mkdir(parents=True, exist_ok=True)
        facts = dict(make() or {})
        write_record(record, of, facts)
    return facts


def write_record(record: Path, of: Mapping[str, Any], facts: Facts) -> None:
    """Writes what `recalled` returns for the same values."""
    write_atomically(record, json.dumps({"of": _plain(of), "facts": facts}) + "\n")


def recalled(record: Path, of: Mapping[str, Any]) -> Facts | None:
    """Returns what a record holds; None if there is none, or if it is of other values.

    Raises:
        MaskcastError: the record is damaged.
    """
    if not record.exists():
        return None
    remedy = "remove it, and its run is made again"
    known = read_json(record, "record of a run", remedy)
    with parsing(record, "a record of a run", remedy):
        return dict(known["facts"]) if known.get("of") == _plain(of) else None


def record_of(out: Path) -> Path:
    """Returns the file beside an output that records how it was made."""
    return out.with_name(f"{out.name}.made.json")


def _plain(of: Mapping[str, Any]) -> Any:
    """Returns values as they come out of a JSON file."""
    return json.loads(json.dumps(of, default=str))
