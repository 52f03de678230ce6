"""fetch_dataset: fetch a data set into a folder, with a record of its origin."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from maskcast.data.archives.checks import ARCHIVE_SUFFIXES
from maskcast.data.archives.unpack import is_archive, unpack
from maskcast.digest import digest_tree, sha256_of
from maskcast.errors import MaskcastError
from maskcast.files import ORIGIN, tree_files, walk_tree
from maskcast.params import Params
from maskcast.progress import say, track
from maskcast.reading import first_few, format_bytes, parsing, pluralize, read_yaml
from maskcast.redaction import has_user
from maskcast.resources import num_cpus
from maskcast.runner.outputs import check_deletes_none, resume_dir
from maskcast.runner.stage import OutPath, stage
from maskcast.storage import store as storage
from maskcast.validation_errors import HIDE_INPUT
from maskcast.writing import link, write_json

STALL_S = 300  # seconds without new bytes after which a download by DVC is stopped


class FetchDataset(Params):
    """Params of fetch_dataset."""

    uri: str = Field(min_length=1)
    """`synthetic` (nothing to fetch), a folder, archive (zip, tar, squashfs) or file as a path or `file:///path`,
    `s3://bucket/prefix`, or a DVC pointer: `dvc:<data.dvc>` or `dvc:<folder or git URL>#<path>`."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Expected SHA-256 digest of the archive or file; null skips the check."""

    @field_validator("uri")
    @classmethod
    def _without_credentials(cls, uri: str) -> str:
        if has_user(uri) and not re.search(r"ssh://[\w.-]+@", uri):
            raise PydanticCustomError(
                HIDE_INPUT,
                "must not contain a password or other secret; set it in the environment, or for Git use a "
                "credential helper (`git config credential.helper`)",
            )
        return uri


@stage
def fetch_dataset(*, raw: OutPath, params: FetchDataset) -> None:
    """Fetches a data set, unpacks it if it is an archive, and records its origin and digest in `SOURCE.json`.

    Args:
        raw: folder with the data set.
        params: address and checksum.

    Raises:
        MaskcastError: the data set is missing or unreachable, its checksum differs, it is an archive that is not
            safe to unpack, or it has links out of its folder.
    """
    scratch = resume_dir(raw)
    if params.uri == "synthetic":
        _refuse_sha256(params)
        raw.mkdir(parents=True)
    elif params.uri.startswith("dvc:"):
        shutil.rmtree(scratch / "dvc", ignore_errors=True)
        _unpack_or_link(_dvc_get(params.uri.removeprefix("dvc:"), scratch / "dvc"), raw, params)
    elif path := storage.local_path(params.uri):
        check_deletes_none(raw, "raw", {"fetch_dataset.uri": path})
        _unpack_or_link(path, raw, params)
    else:
        folder = scratch / hashlib.sha256(params.uri.encode()).hexdigest()[:16]
        files = storage.fetch(params.uri, folder)
        if files == [folder / files[0].name]:
            _unpack_or_link(files[0], raw, params)
        else:
            _refuse_sha256(params)
            _link_files(files, folder, raw)
    (raw / ORIGIN).unlink(missing_ok=True)  # a hard link: never write through it
    sizes = [path.stat().st_size for path in tree_files(raw)]
    note = {"uri": params.uri, "files": len(sizes), "bytes": sum(sizes), "digest": digest_tree(raw)}
    write_json(raw / ORIGIN, note)
    if params.uri == "synthetic":
        say("synthetic: nothing to fetch; prepare_clips draws the clips")
        return
    size = format_bytes(sum(sizes))
    say(f"fetched {params.uri}: {pluralize(len(sizes), 'file')}, {size}, digest {note['digest']}")


def _unpack_or_link(path: Path, raw: Path, params: FetchDataset) -> None:
    """Unpacks an archive, or links a file or folder, into the new folder ``raw``."""
    if path.is_dir():
        _refuse_sha256(params)
    if not path.is_file():
        storage.fetch(str(path), raw)
        return
    if params.sha256 is not None and (digest := sha256_of(path)) != params.sha256:
        raise MaskcastError(
            f"{path}: sha256 mismatch: {digest}, expected {params.sha256}; fetch the right file, or fix sha256"
        )
    if is_archive(path):
        unpack(path, raw)
    elif path.suffix.lower() in ARCHIVE_SUFFIXES:
        raise MaskcastError(
            f"{path}: damaged, or not a zip or tar archive; copy it again, or unpack it and give the folder"
        )
    else:
        _link_files([path], path.parent, raw)


def _link_files(files: list[Path], folder: Path, raw: Path) -> None:
    for file in files:
        target = raw / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        link(file, target)


def _refuse_sha256(params: FetchDataset) -> None:
    if params.sha256 is not None:
        raise MaskcastError(
            f"fetch_dataset.sha256 applies to an archive or file, but {params.uri} is neither; set it to null"
        )


def _dvc_get(pointer: str, folder: Path) -> Path:
    """Downloads the data of a DVC pointer into ``folder``, and verifies them; returns their path."""
    repository, separator, path = pointer.partition("#")
    if not separator and pointer.endswith(".dvc"):
        repository, path = _read_pointer(Path(pointer), folder / "repository")
    if not path:
        raise MaskcastError(f"dvc:{pointer}: missing path; use dvc:<data.dvc> or dvc:<folder or git URL>#<path>")
    target, hashes = folder / "data" / Path(path).name, folder / "hashes.json"
    target.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "maskcast.storage.dvc_get", repository, path, str(target), str(hashes)]
    limits = {"AWS_MAX_ATTEMPTS": "3", "AWS_RETRY_MODE": "standard", "DVC_NO_ANALYTICS": "1"}
    own = {"DVC_SITE_CACHE_DIR": str(folder / "site")}  # that of the machine may hold what a remote had before
    say(f"dvc get {repository} {path}")
    with subprocess.Popen(command, env=limits | os.environ | own, stderr=subprocess.PIPE, text=True) as process:
        try:
            reason = _wait_for_dvc(process, folder)
        finally:
            process.kill()
    if reason:
        shutil.rmtree(folder)
        raise MaskcastError(f"dvc:{pointer}: dvc get failed ({reason}); check pointer, remote and credentials")
    if damaged := _damaged(target, json.loads(hashes.read_bytes())):
        shutil.rmtree(folder)
        raise MaskcastError(
            f"dvc:{pointer}: md5 mismatch of {first_few(damaged, 3)}, so the DVC remote or cache is damaged; "
            "delete these objects there, and run `dvc push` where the data are whole"
        )
    return target


def _damaged(target: Path, hashes: dict[str, tuple[str, str]]) -> list[str]:
    """Returns the downloaded files, each with its expected hash, that have another one.

    Args:
        target: the download.
        hashes: names and values of the hashes by path relative to ``target``.
    """
    from dvc_data.hashfile.hash import file_md5  # knows those of DVC 2, too

    with ThreadPoolExecutor(num_cpus()) as pool:
        found = pool.map(lambda name: file_md5(str(target / name), name=hashes[name][0]), hashes)
        pairs = zip(hashes.items(), track(found, "verifying", len(hashes)), strict=True)
        names = {
            (target / name).relative_to(target.parent): value for (name, (_, value)), md5 in pairs if md5 != value
        }
    return [f"{name} (expected {value})" for name, value in names.items()]


def _wait_for_dvc(process: subprocess.Popen[str], folder: Path) -> str | None:
    """Waits for dvc as long as ``folder`` grows; returns the reason of a failure, else None.

    DVC itself retries each object of an unreachable remote for minutes.
    """
    previous, size = -1, _size(folder)
    while previous != size:
        with suppress(subprocess.TimeoutExpired):
            lines = process.communicate(timeout=STALL_S)[1].splitlines() or [f"exit code {process.returncode}"]
            errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
            return (errors or lines[-1:])[0] if process.returncode else None
        previous, size = size, _size(folder)
    return f"no data received for {STALL_S} s"


def _size(folder: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):  # renamed meanwhile
        for entry in walk_tree(folder):
            total += entry.stat(follow_symlinks=False).st_size
    return total


def _read_pointer(pointer: Path, copy: Path) -> tuple[str, str]:
    """Returns the DVC repository above a ``.dvc`` file, and the path of its data in the repository.

    DVC writes to ``.dvc/tmp``. If it cannot (a read-only image or volume), it gets a copy of config and pointer.
    """
    pointer = Path(os.path.abspath(pointer))  # links are not followed: those of a ConfigMap lead out of the folder
    content = read_yaml(pointer, ".dvc file", "write it with dvc add")
    with parsing(pointer, "a readable .dvc file", "write it with dvc add"):
        path = pointer.parent / content["outs"][0]["path"]
    for folder in path.parents:
        if (folder / ".dvc").is_dir():
            if os.access(folder / ".dvc", os.W_OK):
                return str(folder), str(path.relative_to(folder))
            for file in (pointer, *(folder / ".dvc").glob("config*")):
                target = copy / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
            return str(copy), str(path.relative_to(folder))
    raise MaskcastError(
        f"{pointer}: no DVC repository (.dvc) found above it; keep the pointer in its DVC repository"
    )
