"""Outputs appear whole or not at all, and what a killed run needs to go on lies beside them."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from maskcast.errors import MaskcastError, is_disk_full, user_errors_of_machine
from maskcast.runner.locks import exchange, sole_writer
from maskcast.writing import refuse_device

RUN = "mlflow_run_id"


def resume_dir(out: Path) -> Path:
    """Returns the folder where a stage keeps what a killed run needs to go on: ``<output>.resume``.

    It outlives a crash and a kill, and ``run_stage`` removes it once the output is in place. It lies beside the
    output, or, where that is lost with its pod, below ``MASKCAST_RESUME_DIR`` (on a volume), by Kubeflow run.
    """
    name = final(out).name + ".resume"
    if root := os.environ.get("MASKCAST_RESUME_DIR"):
        return Path(root, os.environ.get("KFP_RUN_ID", "")) / name
    return out.with_name(name)


def beside(out: Path) -> Path:
    """Returns where an output waits for its turn, on the same file system: ``<output>.partial``."""
    return out.with_name(out.name + ".partial")


def final(out: Path) -> Path:
    """Returns where an output will lie, whether that or where a stage writes it is given: what people are told."""
    return out.with_name(out.name.removesuffix(".partial"))


def run_file(out: Path) -> Path:
    """Returns the file that remembers the MLflow run of what is being written to an output."""
    return resume_dir(out) / RUN


def check_spares(out: Path, flag: str, spared: Mapping[str, Path]) -> None:
    """Refuses an output that would take something else with it, because it is replaced as a whole.

    Args:
        out: The output, or where it is being written.
        flag: Names it.
        spared: What must be left alone, by what errors call it.

    Raises:
        MaskcastError: One of these is the output, or lies in it.
    """
    whole = _place_of(out)
    if whole.name:  # of a folder, not of the root of all
        whole = final(whole)
    for name, path in spared.items():
        if _place_of(path).is_relative_to(whole) or _real(path).is_relative_to(whole):
            raise MaskcastError(
                f"{whole}: --{flag} is replaced as a whole, and {name} ({path}) lies there; choose another path"
            )


def check_own(out: Path, record: str) -> None:
    """Refuses an output of a command that would take with it what no run of the command has written.

    Args:
        out: A folder that is replaced as a whole; errors call it ``--output``.
        record: The file that every run leaves in its folder.

    Raises:
        MaskcastError: The folder is there and lacks that file, or the working directory lies there.
    """
    check_spares(out, "output", {"the working directory": Path.cwd()})
    if (out / record).is_file() or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    raise MaskcastError(
        f"{out}: --output is replaced as a whole, and what is there was not written by this command (it has no "
        f"{record}); choose another path, or remove it"
    )


def check_new(out: Path, flag: str, kind: str = "folder") -> None:
    """Refuses an output of a command where there is something already, which it would not replace.

    Args:
        out: The output.
        flag: Names it.
        kind: What the output is.

    Raises:
        MaskcastError: Something is there.
    """
    if out.exists():
        raise MaskcastError(f"{out}: already there (--{flag}); name a new {kind}, or remove this one")


def _place_of(path: Path) -> Path:
    """Returns the absolute path of an entry; a link is itself, not what it leads to."""
    absolute = Path(os.path.abspath(path))
    return _real(absolute.parent) / absolute.name


def _real(path: Path) -> Path:
    """Returns where links lead; a loop of them leads nowhere, and whoever reads it says so."""
    return Path(os.path.realpath(path))


@contextmanager
def output_whole(out: Path, flag: str = "output") -> Iterator[Path]:
    """Yields where the block writes an output of a command, which ``outputs_whole`` then moves into place."""
    partial = beside(out)
    with outputs_whole({flag: out}, {flag: partial}):
        yield partial


@contextmanager
def outputs_whole(
    outputs: Mapping[str, Path], partials: Mapping[str, Path], place: Callable[[Path, Path], object] = Path.rename
) -> Iterator[None]:
    """Moves the partial outputs into place when the block succeeds, removes them when it fails.

    Args:
        outputs: The final path of each output, by the flag that names it.
        partials: Where the block writes each of them.
        place: Brings what was written, whole, to ``beside`` of its output; where that lies there, nothing happens.

    Raises:
        MaskcastError: An output cannot be written, another process writes it, or the disk is full.
    """
    made: list[Path] = []
    volume = os.environ.get("MASKCAST_RESUME_DIR")
    try:
        with ExitStack() as locks:
            for name, out in outputs.items():
                made += _make_parents(out, name)
                with _unwritable(out, f"--{name}"):
                    refuse_device(out)
                    if out.is_dir() and not out.is_symlink() and not os.access(out, os.W_OK):
                        # What is there could be moved away after the work, but not be removed.
                        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                    locks.enter_context(sole_writer(out))
                if volume:  # which pods of other tries see, too
                    remedy = f"user {os.geteuid()} must be able to write to this volume (docs/runbook.md)"
                    with _unwritable(Path(volume), "MASKCAST_RESUME_DIR", remedy):
                        resume_dir(out).parent.mkdir(parents=True, exist_ok=True)
                        locks.enter_context(sole_writer(resume_dir(out)))
            yield from _moved_into_place(outputs, partials, place)
    except BaseException:
        for folder in reversed(made):
            _drop_if_empty(folder)
        raise
    finally:
        if volume:  # the folders of the Kubeflow run and of the stage, where no other output is on its way
            with suppress(OSError):
                for folder in (resume_dir(next(iter(outputs.values()))).parent, Path(volume)):
                    folder.rmdir()


def _moved_into_place(
    outputs: Mapping[str, Path], partials: Mapping[str, Path], place: Callable[[Path, Path], object]
) -> Iterator[None]:
    passing = {*partials.values(), *map(beside, outputs.values())}
    for left in (*passing, *(_gone(resume_dir(out)) for out in outputs.values())):
        remove(left)
    try:
        with user_errors_of_machine(*outputs.values(), *map(resume_dir, outputs.values())):
            yield
            for name in outputs:
                assert partials[name].exists(), f"the stage did not write its output {name!r}"
            for name, out in outputs.items():
                place(partials[name], beside(out))
                _replace(beside(out), out)
            for out in outputs.values():  # last of all: whoever is killed before goes on, with the same run
                _discard(resume_dir(out))
    except BaseException as error:
        for partial in passing:
            remove(partial)
        for out in outputs.values():
            for cut in [*resume_dir(out).rglob("*.partial"), *resume_dir(out).rglob(".*.part")]:
                remove(cut)  # of a write that failed; what was written before it is gone on from
            _drop_if_empty(resume_dir(out))
        if is_disk_full(error) and any(resume_dir(out).exists() for out in outputs.values()):
            raise MaskcastError(f"{error} (it resumes)") from error
        raise


def _make_parents(out: Path, name: str) -> list[Path]:
    """Makes the folders that an output lies in and returns those that were not there, outermost first."""
    missing = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    with _unwritable(out, f"--{name}"):
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
    return missing[::-1]


@contextmanager
def _unwritable(out: Path, named: str, remedy: str = "choose a writable path") -> Iterator[None]:
    """Makes of what the system refuses a line that names the path and the flag or variable that it comes from."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise MaskcastError(f"{out}: cannot be written ({named}: {reason}); {remedy}") from None


def _replace(partial: Path, out: Path) -> None:
    """Renames ``partial`` to ``out``; an older output stands until the new one is there."""
    old = partial.with_name(partial.name + ".old")  # not `<output>.old`, as people call a copy that they keep
    remove(old)
    if (out.exists() or out.is_symlink()) and exchange(partial, out):
        remove(partial)
        return
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


def _gone(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.gone")


def _drop_if_empty(folder: Path) -> None:
    """Removes a folder without files, or with nothing but the id of a tracked run that never got far."""
    if folder.is_dir() and all(entry.name == RUN or entry.is_dir() for entry in folder.rglob("*")):
        remove(folder)
