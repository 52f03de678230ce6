"""A registered model on disk: weights and configs without pickle, and their digests.

model.json          the model's kind (e.g. a pipeline), and settings of its parts
masker/             config.json and model.safetensors, as train_masker wrote them
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
from typing import Annotated, Literal

from pydantic import Field, RootModel, TypeAdapter

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.models.base import WEIGHTS
from maskcast.params import Params, validate
from maskcast.reading import parsing, read_file, read_json
from maskcast.registry.inputs import MAX_FRAMES
from maskcast.writing import write_json

DIGESTS = "digests.json"
FILES = ("config.json", WEIGHTS)  # files of each part

ForecastKind = Literal["pipeline", "masker", "forecaster", "encoder"]
Kind = ForecastKind | Literal["detector", "segmenter"]
PARTS: dict[Kind, tuple[str, ...]] = {
    "pipeline": ("masker", "forecaster"),
    "masker": ("masker",),
    "forecaster": ("forecaster",),
    "encoder": ("encoder",),
    "detector": ("detector",),
    "segmenter": ("segmenter",),
}


class ForecastDescription(Params):
    """Contents of model.json of a pipeline or one of its parts."""

    format: Literal["maskcast-registered/1"] = "maskcast-registered/1"
    kind: ForecastKind
    """Frames to future masks, frames to masks, a past to its future, or frames to features."""
    context_frames: int = Field(ge=1, le=MAX_FRAMES)
    """Frames that were seen when the model was evaluated."""
    horizon: int = Field(ge=1, le=MAX_FRAMES)
    """Frames that it forecasts."""
    precision: Literal["bf16", "fp32"]
    """Of the masker, as when the masks were generated that the evaluation started from."""
    consistent_frames: int | None = Field(None, ge=1)
    """Of a pipeline: frames per window with one class per object, as in those masks; null: single frames."""
    height: int = Field(ge=1)
    """Rows of the frames that it was evaluated on; other sizes run, but were not evaluated."""
    width: int = Field(ge=1)
    """Columns of these frames."""
    frame_stride: int | None = Field(None, ge=1)
    """Distance of consecutive frames in the video they come from; null if unknown or different."""
    frame_rate: float | None = Field(None, gt=0)
    """Frames per second of these clips; null if unknown or different."""
    classes: tuple[str, ...]
    """Class names by id, background first."""
    label_map: str | None = None
    """The label map of these classes; null if the clips of the evaluation had only one."""


class DetectorDescription(Params):
    """Contents of model.json of a detector."""

    format: Literal["maskcast-registered/1"] = "maskcast-registered/1"
    kind: Literal["detector"] = "detector"
    """Frames to boxes."""
    precision: Literal["bf16", "fp32"]
    """As in its evaluation."""
    classes: tuple[str, ...]
    """Class names by id; there is no background class."""


class SegmenterDescription(Params):
    """Contents of model.json of a masker of videos, which may keep state between frames."""

    format: Literal["maskcast-registered/1"] = "maskcast-registered/1"
    kind: Literal["segmenter"] = "segmenter"
    """Frames of a video to their masks."""
    precision: Literal["bf16", "fp32"]
    """As in its evaluation."""
    height: int = Field(ge=1)
    """Rows of the frames that it was evaluated on; other sizes run, but were not evaluated."""
    width: int = Field(ge=1)
    """Columns of these frames."""
    classes: tuple[str, ...]
    """Class names by id, background first."""
    label_map: str
    """The label map of these classes; the model may have others."""


Description = ForecastDescription | DetectorDescription | SegmenterDescription


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
    for part in PARTS[description.kind]:
        (folder / part).mkdir()
        for name in FILES:
            source = parts[part] / name
            if not source.is_file():
                raise MaskcastError(f"{source}: file not found; pass the folder that a training stage wrote")
            shutil.copyfile(source, folder / part / name)
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
    expected = {"model.json", *(f"{part}/{name}" for part in PARTS[description.kind] for name in FILES)}
    if wrong := set(files) ^ expected:
        raise MaskcastError(
            f"{folder / min(wrong)}: missing or unexpected; register the model again (files of a "
            f"{description.kind}: {', '.join(sorted(expected))})"
        )
    return description


def _files(folder: Path) -> list[str]:
    """Returns the relative paths of all files of a bundle except digests.json."""
    entries = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(name for path in entries if (name := path.relative_to(folder).as_posix()) != DIGESTS)
