"""Fingerprints of runs: a checkpoint of a killed run is only used by a run with the same fingerprint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from pydantic import BaseModel

from maskcast.digest import digest_json, digest_tree, sha256_of
from maskcast.plugins import UNION_MODULES, plugin_files

_known: ContextVar[Mapping[Path, str]] = ContextVar("maskcast_digests", default={})  # noqa: B039 - is not changed


@contextmanager
def known_digests(digests: Mapping[Path, str]) -> Iterator[None]:
    """A context in which these inputs, which may be large, are not read again to be digested."""
    token = _known.set(digests)
    try:
        yield
    finally:
        _known.reset(token)


def input_digest(path: Path) -> str:
    """Returns the ``digest_tree`` of an input; in a tracked run, the one of before the work began."""
    return _known.get().get(path) or digest_tree(path)


def fingerprint(params: BaseModel, **inputs: Path | None) -> str:
    """Returns a digest (32 hex digits) of params, contents of inputs (without None), and packages with plugins.

    Packages of plugins count because a training must not resume after its loss, for example, was changed.
    """
    digests = {name: input_digest(path) for name, path in inputs.items() if path is not None}
    parts = {"params": params.model_dump(mode="json")} | digests
    if plugins := plugin_digests():
        parts["plugins"] = plugins
    return digest_json(parts)


def plugin_digests() -> dict[str, str]:
    """Returns the sha256 of each Python file of the packages with plugins."""
    files = {place: path for module in UNION_MODULES.values() for place, path in plugin_files(module).items()}
    return {place: sha256_of(path) for place, path in files.items()}
