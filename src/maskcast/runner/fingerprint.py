"""The name of all that a run depends on: what a killed run has left is only continued by one of the same name."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel

from maskcast.digest import digest_tree, sha256_of
from maskcast.plugins import JOINED_IN, sources


def fingerprint(params: BaseModel, **inputs: Path) -> str:
    """Returns 32 hex digits that name the params, the contents of the inputs, and the packages that have plugins.

    Their authors stop a training, change a loss and start it again: it must not go on with the half of another.
    """
    parts = {"params": params.model_dump(mode="json")} | {name: digest_tree(path) for name, path in inputs.items()}
    files = {place: path for module in JOINED_IN.values() for place, path in sources(module).items()}
    if files:
        parts["plugins"] = {place: sha256_of(path) for place, path in files.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
