"""Atomic outputs, and the files beside them from which a killed run resumes."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from maskcast.errors import MaskcastError, convert_system_errors, is_disk_full, remedy_of
from maskcast.files import walk_tree
from maskcast.locks import exchange, exclusive_lock
from maskcast.writing import refuse_device, sync, sync_file_systems

RUN_KEY, CURVES = "mlflow_run_id", "curves.jsonl"


def resume_dir(out: Path) -> Path:
    """Returns the folder of a stage's checkpoints for resuming a killed run: ``<output>.resume``.

    It survives crashes and kills, and ``run_stage`` removes it once the output is in place. It lies beside the
    output or, if that would be lost with its pod, below ``MASKCAST_RESUME_DIR`` (on a volume), in a folder per
    Kubeflow run.
    """
    name = final_path(out).name + ".resume"
    if root := os.environ.get("MASKCAST_RESUME_DIR"):
        return Path(root, os.environ.get("KFP_RUN_ID", "")) / name
    return out.with_name(name)


def partial_path(out: Path) -> Path:
    """Returns the temporary path of an output, on the same file system: ``<output>.partial``."""
    return out.with_name(out.name + ".partial")


def final_path(out: Path) -> Path:
    """Returns the final path of an output, given that or its temporary path; for messages."""
    return out.with_name(out.name.removesuffix(".partial"))


def run_file(out: Path) -> Path:
    """Returns the file that stores the key of the MLflow run that writes an output."""
    return resume_dir(out) / RUN_KEY


def curves_file(out: Path) -> Path:
    """Returns the file that stores the metrics by step of the run that writes an output."""
    return resume_dir(out) / CURVES


def check_deletes_none(out: Path, flag: str, protected: Mapping[str, Path]) -> None:
    """Refuses an output whose replacement would delete other files, because it is replaced as a whole.

    Args:
        out: The output, or its temporary path.
        flag: Name of its flag, for errors.
        protected: Paths to protect, by their names in errors.

    Raises:
        MaskcastError: One of these is the output, or lies inside it.
    """
    whole = _absolute(out)
    if whole.name:  # empty for the root of the file system
        whole = final_path(whole)
    for name, path in protected.items():
        if _absolute(path).is_relative_to(whole) or _resolved(path).is_relative_to(whole):
            raise MaskcastError(
                f"{whole}: --{flag} is replaced as a whole, but contains {name} ({path}); choose another path"
            )


def check_replaceable(out: Path, record: str) -> None:
    """Refuses an existing output folder that was not written by the command.

    Args:
        out: A folder that is replaced as a whole; errors call it ``--output``.
        record: The file that every run of the command writes into its folder.

    Raises:
        MaskcastError: The folder exists without that file, or contains the working directory.
    """
    check_deletes_none(out, "output", {"the working directory": Path.cwd()})
    if (out / record).is_file() or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    raise MaskcastError(
        f"{out}: --output is replaced as a whole, but this folder was not written by this command ({record} is "
        "missing); choose another path, or remove it"
    )


def check_not_exists(out: Path, flag: str, kind: str = "folder") -> None:
    """Refuses an output that already exists, for commands that replace nothing.

    Args:
        out: The output.
        flag: Name of its flag, for errors.
        kind: Kind of output, for errors.

    Raises:
        MaskcastError: It exists.
    """
    if out.exists():
        raise MaskcastError(f"{out}: already exists (--{flag}); choose a new {kind}, or remove this one")


def _absolute(path: Path) -> Path:
    """Returns the absolute path of a file or folder, without following it if it is a link."""
    absolute = Path(os.path.abspath(path))
    return _resolved(absolute.parent) / absolute.name


def _resolved(path: Path) -> Path:
    """Resolves links; a loop of links is returned unresolved, and reading it raises an error."""
    return Path(os.path.realpath(path))


@contextmanager
def atomic_output(out: Path, flag: str = "output") -> Iterator[Path]:
    """Yields the temporary path for an output of a command; ``atomic_outputs`` moves it into place."""
    partial = partial_path(out)
    with atomic_outputs({flag: out}, {flag: partial}):
        yield partial


@contextmanager
def atomic_outputs(
    outputs: Mapping[str, Path], partials: Mapping[str, Path], move: Callable[[Path, Path], object] = Path.rename
) -> Iterator[None]:
    """A context that moves temporary outputs into place at success, and removes them at failure.

    Args:
        outputs: The final path of each output, by its flag.
        partials: The temporary path of each output.
        move: Moves a complete temporary output to ``partial_path`` of its final path, which may be the same path.

    Raises:
        MaskcastError: An output cannot be written, another process writes it, or the disk is full.
    """
    created: list[Path] = []
    volume = os.environ.get("MASKCAST_RESUME_DIR")
    try:
        with ExitStack() as locks:
            for name, out in outputs.items():
                created += _make_parents(out, name)
                with write_errors(out, f"--{name}"):
                    refuse_device(out)
                    if out.is_dir() and not out.is_symlink() and not os.access(out, os.W_OK):
                        # An old output could be renamed after the work, but not removed.
                        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                    locks.enter_context(exclusive_lock(out))
                if volume:  # pods of other attempts see it, too
                    remedy = f"user {os.geteuid()} must be able to write to this volume (docs/runbook.md)"
                    with write_errors(Path(volume), "MASKCAST_RESUME_DIR", remedy):
                        resume_dir(out).parent.mkdir(parents=True, exist_ok=True)
                        locks.enter_context(exclusive_lock(resume_dir(out)))
            yield from _replace_outputs(outputs, partials, move)
    except BaseException:
        for folder in reversed(created):
            _remove_if_empty(folder)
        raise
    finally:
        if volume:  # folders of the Kubeflow run and of the stage, unless other outputs are being written there
            with suppress(OSError):
                for folder in (resume_dir(next(iter(outputs.values()))).parent, Path(volume)):
                    folder.rmdir()


def _replace_outputs(
    outputs: Mapping[str, Path], partials: Mapping[str, Path], move: Callable[[Path, Path], object]
) -> Iterator[None]:
    temporary = {*partials.values(), *map(partial_path, outputs.values())}
    for old_file in (*temporary, *(_trash_path(resume_dir(out)) for out in outputs.values())):
        remove(old_file)
    try:
        with convert_system_errors(*outputs.values(), *map(resume_dir, outputs.values())):
            yield
            for name in outputs:
                assert partials[name].exists(), f"the stage did not write its output {name!r}"
            for name, out in outputs.items():
                move(partials[name], partial_path(out))
            sync_file_systems(*map(partial_path, outputs.values()))
            for out in outputs.values():
                replace(partial_path(out), out)
            for folder in {out.parent for out in outputs.values()}:
                sync(folder)
            for out in outputs.values():  # last, so that a process killed before can resume with the same run
                _discard(resume_dir(out))
    except BaseException as error:
        for partial in temporary:
            remove(partial)
        for out in outputs.values():
            for partial in [*resume_dir(out).rglob("*.partial"), *resume_dir(out).rglob(".*.part")]:
                remove(partial)  # incomplete file of a failed write; earlier files are kept for resuming
            _remove_if_empty(resume_dir(out))
        if is_disk_full(error) and any(resume_dir(out).exists() for out in outputs.values()):
            raise MaskcastError(f"{error} to resume") from error
        raise


def _make_parents(out: Path, name: str) -> list[Path]:
    """Creates the parent folders of an output; returns the new ones, outermost first."""
    missing = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    with write_errors(out, f"--{name}"):
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
    return missing[::-1]


@contextmanager
def write_errors(out: Path, flag: str, remedy: str = "choose a writable path") -> Iterator[None]:
    """A context that turns an OSError into a MaskcastError with the path and its flag or variable."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise MaskcastError(f"{out}: cannot be written ({flag}: {reason}); {remedy_of(error, remedy)}") from None


def replace(partial: Path, out: Path) -> None:
    """Replaces ``out`` with ``partial``; an older output stays until the new one is in place."""
    old = partial.with_name(partial.name + ".old")  # `<output>.old` may be a copy of the user's
    remove(old)
    if exchange(partial, out):
        remove(partial)
        return
    if out.exists() or out.is_symlink():
        out.rename(old)
    partial.rename(out)
    remove(old)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder tree, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(folder: Path) -> None:
    """Removes a folder; it is renamed first, so that a killed process leaves no incomplete checkpoints."""
    if folder.exists():
        trash = _trash_path(folder)
        folder.rename(trash)
        remove(trash)


def _trash_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.gone")


def _remove_if_empty(folder: Path) -> None:
    """Removes a folder without files, or with only the records of a run that stored nothing to resume from."""
    if folder.is_dir() and all(entry.name in (RUN_KEY, CURVES) or entry.is_dir() for entry in walk_tree(folder)):
        remove(folder)
