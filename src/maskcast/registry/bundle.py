"""A registered model on disk: weights and configs without pickle, and their digests.

model.json          the model's kind (e.g. a pipeline), and settings of its parts
masker/             config.json, model.safetensors and possibly trained_frames.npy, as train_masker wrote them
forecaster/         the same files of finetune_forecaster
encoder/            the same files of pretrain_encoder
detector/           the same files of train_detector
segmenter/          the same files of train_masker, from the pipeline of videos
digests.json        the sha256 of every other file
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel, TypeAdapter

from maskcast.data import trained_frames
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.files import walk_tree
from maskcast.models.base import WEIGHTS
from maskcast.params import validate
from maskcast.reading import parsing, read_file, read_json
from maskcast.registry.kinds import KINDS, Description
from maskcast.writing import write_json

DIGESTS = "digests.json"
FILES = ("config.json", WEIGHTS)  # files of each part
OPTIONAL = (trained_frames.NAME,)  # files that a part may have


class _ModelFile(RootModel[Annotated[Description, Field(discriminator="kind")]]):
    """model.json of any kind."""


def write_bundle(folder: Path, description: Description, parts: Mapping[str, Path]) -> str:
    """Writes a bundle and returns its digest, which covers weights, configs and description.

    Args:
        folder: is created.
        description: of the model.
        parts: folders that the training stages wrote; those that the kind of model needs are copied.

    Raises:
        MaskcastError: a file is missing.
    """
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(description.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for part in KINDS[description.kind].parts:
        (folder / part).mkdir()
        for name in FILES:
            source = parts[part] / name
            if not source.is_file():
                raise MaskcastError(f"{source}: file not found; pass the folder that a training stage wrote")
            shutil.copyfile(source, folder / part / name)
        for source in (parts[part] / name for name in OPTIONAL):
            if source.is_file():
                shutil.copyfile(source, folder / part / source.name)
    digests = {name: sha256_of(folder / name) for name in _files(folder)}
    write_json(folder / DIGESTS, digests)
    return bundle_digest(folder)


def bundle_digest(folder: Path) -> str:
    """Returns the sha256 of digests.json, which covers the whole bundle."""
    return sha256_of(folder / DIGESTS)


def read_bundle(folder: Path, digest: str | None = None) -> Description:
    """Checks that a bundle is unchanged and has no further files, and returns its description.

    Args:
        folder: the bundle.
        digest: its digest at registration, if known.

    Raises:
        MaskcastError: a file has changed, is missing or is unexpected; the message names the first one.
    """
    path = folder / DIGESTS
    remedy = "fetch or register the model again"
    raw = read_file(path, "list of digests", remedy)
    with parsing(path, "a list of digests", remedy):
        digests = TypeAdapter(dict[str, str]).validate_json(raw, strict=True)
    if digest is not None and hashlib.sha256(raw).hexdigest() != digest:
        raise MaskcastError(f"{path}: differs from what was registered; register the model again")
    files = _files(folder)
    for name in sorted({*files, *digests}):
        if name not in digests:
            raise MaskcastError(f"{folder / name}: unexpected file, not part of the model; remove it")
        exists = name in files and (folder / name).is_file()  # reading a pipe or device would never end
        if not exists or sha256_of(folder / name) != digests[name]:
            fault = "differs from what was registered" if exists else "is missing"
            raise MaskcastError(f"{folder / name}: {fault}; fetch or register the model again")
    values = read_json(folder / "model.json", "description of a model", "register it again")
    description = validate(_ModelFile, values, f"{folder / 'model.json'}: ").root
    parts = KINDS[description.kind].parts
    expected = {"model.json", *(f"{part}/{name}" for part in parts for name in FILES)}
    optional = {f"{part}/{name}" for part in parts for name in OPTIONAL}
    if wrong := (set(files) - optional) ^ expected:
        raise MaskcastError(
            f"{folder / min(wrong)}: missing or unexpected; register the model again (files of a "
            f"{description.kind}: {', '.join(sorted(expected))})"
        )
    return description


def _files(folder: Path) -> list[str]:
    """Returns the relative paths of all files of a bundle except digests.json."""
    entries = (Path(entry.path) for entry in walk_tree(folder) if not entry.is_dir(follow_symlinks=False))
    return sorted(name for path in entries if (name := path.relative_to(folder).as_posix()) != DIGESTS)
