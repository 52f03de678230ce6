"""A stage of one variant of a grid on Kubeflow, where a loop loses all variants if a task of one fails.

So there a stage that fails leaves word of it in place of its outputs and ends well, stages after it pass that on,
and `evaluate-many` names it. ``MASKCAST_GRID`` says that a stage runs so.
"""

import hashlib
import json
import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from maskcast.errors import MaskcastError, one_line
from maskcast.runner.outputs import remove

GRID = "MASKCAST_GRID"
FAILED = "FAILED.json"
RESUME = "MASKCAST_RESUME_DIR"


def in_grid() -> bool:
    """Whether this process runs a stage of a variant, and is not one of several of a training."""
    return GRID in os.environ and "RANK" not in os.environ


def failure(path: Path) -> str | None:
    """Returns what failed in place of an output, or None where it is one."""
    file = path / FAILED
    return str(json.loads(file.read_text(encoding="utf-8"))["error"]) if file.is_file() else None


def run_variant(
    work: Callable[[], dict[str, float]],
    name: str,
    params: Mapping[str, Any],
    inputs: Sequence[Path],
    outputs: Iterable[Path],
) -> dict[str, float]:
    """Runs a stage and returns its metrics; there are none where it, or one before it, failed.

    Args:
        work: runs it.
        name: what it goes by.
        params: its params. Checkpoints of variants, which share all else, are told apart by them and the inputs.
        inputs: its inputs; they differ where a variant changes a stage before this one.
        outputs: its outputs, which get word of a failure.
    """
    error = next(filter(None, map(failure, inputs)), None)
    if error is None:
        parts = json.dumps([params, *map(str, inputs)], sort_keys=True)
        digest = hashlib.sha256(parts.encode()).hexdigest()[:16]
        own = {RESUME: f"{os.environ[RESUME]}/{digest}"} if RESUME in os.environ else {}
        try:
            with patch.dict(os.environ, own):
                return work()
        except Exception as failed:
            if not isinstance(failed, MaskcastError):
                traceback.print_exc()
            error = f"{name}: {one_line(failed)}"
    print(f"error: {error}")
    for out in outputs:
        remove(out)
        out.mkdir(parents=True)
        (out / FAILED).write_text(json.dumps({"error": error}), encoding="utf-8")
    return {}
