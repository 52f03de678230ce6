"""Outputs appear whole or not at all, and what a killed run needs to go on lies beside them."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from maskcast.errors import MaskcastError, user_errors_of_disk

RUN = "mlflow_run_id"


def resume_dir(out: Path) -> Path:
    """Returns the folder where a stage keeps what a killed run needs to go on: ``<output>.resume``.

    It outlives a crash and a kill, and ``run_stage`` removes it once the output is in place. It lies beside the
    output, or, where that is lost with its pod, below ``MASKCAST_RESUME_DIR`` (on a volume), by Kubeflow run.
    """
    name = out.name.removesuffix(".partial") + ".resume"
    if root := os.environ.get("MASKCAST_RESUME_DIR"):
        return Path(root, os.environ.get("KFP_RUN_ID", "")) / name
    return out.with_name(name)


def run_file(out: Path) -> Path:
    """Returns the file that remembers the MLflow run of what is being written to an output."""
    return resume_dir(out) / RUN


@contextmanager
def outputs_whole(outputs: Mapping[str, Path], partials: Mapping[str, Path]) -> Iterator[None]:
    """Moves the partial outputs into place when the block succeeds, removes them when it fails.

    Args:
        outputs: The final path of each output, by the flag that names it.
        partials: Where the block writes each of them; beside it.

    Raises:
        MaskcastError: An output cannot be written, or the disk is full.
    """
    made = _make_parents(outputs)
    for left in (*partials.values(), *(_gone(resume_dir(out)) for out in outputs.values())):
        remove(left)
    try:
        with user_errors_of_disk():
            yield
            for name in outputs:
                assert partials[name].exists(), f"the stage did not write its output {name!r}"
            for name, out in outputs.items():
                _replace(partials[name], out)
            for out in outputs.values():  # last of all: whoever is killed before goes on, with the same run
                _discard(resume_dir(out))
    except BaseException:
        for partial in partials.values():
            remove(partial)
        for out in outputs.values():
            _drop_if_empty(resume_dir(out))
        for folder in reversed(made):
            _drop_if_empty(folder)
        raise


def _make_parents(outputs: Mapping[str, Path]) -> list[Path]:
    """Makes the folders that the outputs lie in and returns those that were not there, outermost first."""
    made = []
    for name, out in outputs.items():
        missing = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
        try:
            for folder in reversed(missing):
                folder.mkdir()
                made.append(folder)
            probe = out.with_name(out.name + ".partial")
            probe.touch()
            remove(probe)
        except OSError as error:
            reason = error.strerror or str(error)
            raise MaskcastError(f"{out}: cannot be written (--{name}: {reason}); choose a writable path") from None
    return made


def _replace(partial: Path, out: Path) -> None:
    """Renames ``partial`` to ``out``; an older output stands until the new one is ready."""
    old = out.with_name(out.name + ".old")
    remove(old)
    if out.exists() or out.is_symlink():
        out.rename(old)
    partial.rename(out)
    remove(old)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(folder: Path) -> None:
    """Removes a folder at once: who is killed on the way leaves all of it, or nothing that is gone on from."""
    if folder.exists():
        gone = _gone(folder)
        folder.rename(gone)
        remove(gone)
        if os.environ.get("MASKCAST_RESUME_DIR"):
            with suppress(OSError):  # other outputs of the Kubeflow run are on their way
                folder.parent.rmdir()


def _gone(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.gone")


def _drop_if_empty(folder: Path) -> None:
    """Removes a folder that holds nothing, or nothing but the id of a tracked run that never got far."""
    if folder.is_dir() and all(entry.name == RUN for entry in folder.iterdir()):
        remove(folder)
