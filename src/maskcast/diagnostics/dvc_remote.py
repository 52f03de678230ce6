"""Checks of DVC: its repository, its cache, and whether its remote can be reached and written to."""

import configparser
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from maskcast.diagnostics.checks import CheckResult
from maskcast.errors import one_line
from maskcast.redaction import redacted

ADD = "dvc remote add -d team s3://bucket/dvc"
CREDENTIALS = {  # by scheme of the remote's address
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS to a key file",
    "azure": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY",
}


def has_pipeline() -> bool:
    """Whether the working directory, or one above it, has a pipeline for DVC or a repository for one."""
    return any((folder / name).exists() for folder in _here_and_above() for name in ("dvc.yaml", ".dvc", ".git"))


def dvc_root() -> Path | None:
    """Returns the root of the DVC repository of the working directory, or None."""
    return next((folder for folder in _here_and_above() if (folder / ".dvc").is_dir()), None)


def _here_and_above() -> tuple[Path, ...]:
    here = Path.cwd()
    return (here, *here.parents)


def cache_folder(root: Path | None) -> Path:
    """Returns DVC's cache folder: `cache.dir` in its config files, or the default."""
    cache, folder = "cache", (root or Path.cwd()) / ".dvc"
    for name in ("config", "config.local"):
        settings = configparser.ConfigParser(interpolation=None)
        try:
            settings.read(folder / name, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):  # the check of DVC reports it
            continue
        cache = settings.get("cache", "dir", fallback=cache)
    return folder / cache


def dvc() -> Iterator[CheckResult]:
    """Yields rows on the repository and on its remote, tested by writing, reading and removing a small file."""
    if not has_pipeline():
        yield CheckResult("DVC", "ok", "not needed: no dvc.yaml and no repository here or above")
        return
    try:
        from dvc.exceptions import DvcException  # type: ignore[import-untyped]
        from dvc.repo import Repo  # type: ignore[import-untyped]
    except ImportError as error:
        yield CheckResult("DVC", "missing", f"cannot be imported: {error}", "pip install 'maskcast[data]'")
        return
    root = dvc_root()
    if root is None:
        yield CheckResult(
            "DVC",
            "missing",
            "this folder is not in a DVC repository",
            "run `dvc init` in the root of the Git repository",
        )
        return
    try:
        with Repo(str(root)) as repository:
            yield CheckResult("DVC", "ok", f"repository {root}")
            yield _remote(repository)
    except DvcException as error:
        yield CheckResult("DVC", "missing", one_line(error), f"fix {root / '.dvc/config'}, or its remote")


def _remote(repository: Any) -> CheckResult:
    name = repository.config["core"].get("remote")
    if not name:
        return CheckResult(
            "DVC remote", "warning", "no default remote: outputs are stored only on this machine", ADD
        )
    settings = repository.config["remote"][name]
    at = f" at {settings['endpointurl']}" if settings.get("endpointurl") else ""
    shown = redacted(f"{name}: {settings['url']}{at}")
    content = b"written by doctor; may be removed"
    try:
        remote = repository.cloud.get_remote(command="doctor")
        path = remote.fs.join(remote.path, f"maskcast-doctor-{uuid4().hex}")
        is_new = not remote.fs.exists(remote.path)
        if remote.fs.protocol == "local":
            remote.fs.makedirs(remote.path, exist_ok=True)
        remote.fs.pipe_file(path, content)
        try:
            read = remote.fs.cat_file(path)
        finally:
            remote.fs.rm_file(path)
            if is_new and remote.fs.protocol == "local":
                Path(remote.path).rmdir()
    except Exception as error:  # each kind of remote raises its own errors
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        variables = CREDENTIALS.get(urlsplit(settings["url"]).scheme)
        remedy = (
            f"{f'set {variables}; ' if variables else ''}check URL and permissions: `dvc remote list`, "
            f"`dvc remote modify --local {name} ...`"
        )
        return CheckResult("DVC remote", "missing", f"{shown}: cannot be written ({reason})", remedy)
    if read != content:
        return CheckResult(
            "DVC remote", "missing", f"{shown}: data read back differs from data written", "fix the server"
        )
    return CheckResult("DVC remote", "ok", f"{shown}, is writable")
