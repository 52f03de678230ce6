"""Fingerprints of runs: a checkpoint of a killed run is only used by a run with the same fingerprint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from pydantic import BaseModel

from maskcast.digest import digest_json, digest_tree, is_clip_store
from maskcast.errors import MaskcastError
from maskcast.runner.code_digests import code_digest

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


def fingerprint(module: str, params: BaseModel, **inputs: Path | None) -> str:
    """Returns a digest (32 hex digits) of params, contents of inputs (without None), and the code of a stage.

    Code counts because a training that is resumed with changed code is neither commit's.

    Args:
        module: full name of the stage's module; what it imports counts, too, with the packages of plugins.
        params: params of the stage.
        **inputs: input paths by port.
    """
    return digest_json([inputs_digest(params, **inputs), code_digest(module)])


def inputs_digest(params: BaseModel, **inputs: Path | None) -> str:
    """Returns a digest (32 hex digits) of params and contents of inputs (without None)."""
    digests = {name: input_digest(path) for name, path in inputs.items() if path is not None}
    return digest_json({"params": params.model_dump(mode="json")} | digests)


def has_digest(path: Path, digest: str) -> bool:
    """Whether an input has a digest; of a clip store, which is digested by its index, shards are read, too."""
    if not path.exists() or digest_tree(path) != digest:
        return False
    if not is_clip_store(path):
        return True
    from maskcast.data.clip_store.reader import ClipStore

    try:
        ClipStore(path).verify()
    except MaskcastError:
        return False
    return True
