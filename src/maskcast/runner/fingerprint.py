"""Fingerprints of runs: a checkpoint of a killed run is only used by a run with the same fingerprint."""

from pathlib import Path

from pydantic import BaseModel

from maskcast.digest import digest_json, digest_tree, sha256_of
from maskcast.plugins import UNION_MODULES, plugin_files


def fingerprint(params: BaseModel, **inputs: Path | None) -> str:
    """Returns a digest (32 hex digits) of params, contents of inputs (without None), and packages with plugins.

    Packages of plugins count because a training must not resume after its loss, for example, was changed.
    """
    digests = {name: digest_tree(path) for name, path in inputs.items() if path is not None}
    parts = {"params": params.model_dump(mode="json")} | digests
    if plugins := plugin_digests():
        parts["plugins"] = plugins
    return digest_json(parts)


def plugin_digests() -> dict[str, str]:
    """Returns the sha256 of each Python file of the packages with plugins."""
    files = {place: path for module in UNION_MODULES.values() for place, path in plugin_files(module).items()}
    return {place: sha256_of(path) for place, path in files.items()}
