"""Stages of a grid's variants on Kubeflow, where one failed task would end the loop for all variants.

Therefore a failing stage writes its error in place of its outputs and succeeds. Later stages pass the error on,
and `evaluate-many` reports it. ``MASKCAST_GRID`` enables this.
"""

import json
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from maskcast.digest import digest_json
from maskcast.errors import MaskcastError, one_line
from maskcast.locks import LockedError, exclusive_lock
from maskcast.runner.outputs import remove

GRID = "MASKCAST_GRID"
FAILED = "FAILED.json"
RESUME = "MASKCAST_RESUME_DIR"


def in_grid() -> bool:
    """Whether this process runs a stage of a variant, and is not one of several training processes."""
    return GRID in os.environ and "RANK" not in os.environ


def read_failure(path: Path) -> str | None:
    """Returns the error that was written in place of an output, or None if it is a real output."""
    file = path / FAILED
    return str(json.loads(file.read_text(encoding="utf-8"))["error"]) if file.is_file() else None


def run_variant(
    work: Callable[[], dict[str, float]],
    name: str,
    params: Mapping[str, Any],
    inputs: Sequence[Path],
    outputs: Iterable[Path],
) -> dict[str, float]:
    """Runs a stage and returns its metrics; none if it, or an earlier stage, failed.

    Args:
        work: runs the stage.
        name: its name in the pipeline.
        params: its params. Within a Kubeflow run, checkpoints of variants are distinguished by params and inputs
            only: the same stage of two variants waits for the other one.
        inputs: its inputs, which differ if a variant changes an earlier stage.
        outputs: its outputs, to which an error is written.
    """
    error = next(filter(None, map(read_failure, inputs)), None)
    if error is None:
        try:
            with ExitStack() as stack:
                if RESUME in os.environ:
                    folder = Path(os.environ[RESUME], digest_json([params, *map(str, inputs)], 16))
                    with suppress(OSError):  # the stage itself reports a volume that it cannot write to
                        stack.enter_context(_turn(name, folder / os.environ.get("KFP_RUN_ID", "")))
                    stack.enter_context(patch.dict(os.environ, {RESUME: str(folder)}))
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


@contextmanager
def _turn(name: str, checkpoints: Path) -> Iterator[None]:
    """A context in which no other variant uses these checkpoints of a stage; it says when it waits for one."""
    checkpoints.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(checkpoints))
        except LockedError as locked:
            print(f"{name}: waits for a variant with equal params and inputs ({locked.holder})", flush=True)
            stack.enter_context(exclusive_lock(checkpoints, blocking=True))
        yield
