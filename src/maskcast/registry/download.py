"""Downloads a registered model as folders of the kind that training stages write and read.

A stage of a DVC pipeline depends on files, so that a training that goes on from a registered model needs it as
versioned files, not by an alias, which moves.
"""

import shutil
import tempfile
from pathlib import Path

from maskcast.registry.bundle import read_bundle
from maskcast.registry.kinds import KINDS
from maskcast.registry.loading import download
from maskcast.registry.store import Registry
from maskcast.runner.outputs import atomic_output, check_not_exists
from maskcast.runner.provenance import RECORD
from maskcast.writing import write_json


def download_parts(registry: Registry, which: str, output: Path) -> str:
    """Writes each part of a version as a folder, e.g. ``masker``, and returns a line on them.

    ``registered.json`` beside them has the version's name, number and digest, for the lineage of what is trained
    from them. The parts are those that were registered, with the same digests. No code of the model runs.

    Args:
        registry: the registered model.
        which: number or alias.
        output: is created.

    Raises:
        MaskcastError: the folder exists, the version does not, or its files differ from the registered ones.
    """
    check_not_exists(output, "output")
    version = registry.find(which)
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch, atomic_output(output) as partial:
        data = download(registry, version, Path(scratch)) / "data"
        parts = KINDS[read_bundle(data, version.digest).kind].parts
        for part in parts:
            shutil.copytree(data / part, partial / part)
        record = {"name": registry.name, "version": version.number, "digest": version.digest}
        write_json(partial / RECORD, record)
    return f"{registry.name} version {version.number}: {', '.join(str(output / part) for part in parts)}"
