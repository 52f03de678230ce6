"""Reads the index of a clip store, of format 1 and of format 2.

Format 1 holds everything in ``index.json``; it has one label map, without a name, and one chunk per clip. Format 2
has one line of JSON per clip in ``clips.jsonl`` and the numbers of all clips in ``clips.npy``; see ``reader.py``.
"""

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from maskcast.data.clip_store.table import Clip, FrameSpan, Group, LayerSpan, Table, group_clips, group_of, id_hash
from maskcast.errors import MaskcastError
from maskcast.labels import MAX_SIDE, LabelMap, label_maps_from_json, single_map
from maskcast.reading import load_memmap, parsing, pluralize, short_repr

FORMAT_V1, FORMAT = "maskcast-clips/1", "maskcast-clips/2"
LINES_FILE, COLUMNS_FILE = "clips.jsonl", "clips.npy"
LAYERS_V1 = {"masks": "labels/mask", "confidence": "confidence/mask"}
REMEDY = "write the clip store again"
MAX_FRAMES = 1 << 24  # per clip: three days at 60 fps
CACHED_CLIPS = 64  # per store: the line of a clip of an hour takes milliseconds to parse, and megabytes
MAX_MASK_BYTES = 1 << 30  # bytes of the masks of a clip of format 1, which are one chunk

Count = Annotated[int, Field(ge=0, le=1 << 62)]


class _Strict(BaseModel):
    """Base of the parts of an index: types must match exactly; keys of newer versions are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


class _Shard(_Strict):
    bytes: Count
    sha256: str
    frames: Count | None = None


class _Group(_Strict):
    split: str
    kind: str
    layers: list[str]
    clips: Count


class _FrameSpan(_Strict):
    shard: str
    start: Count
    size: Count


class _LayerSpan(_Strict):
    shard: str
    start: Count
    chunks: list[Annotated[int, Field(ge=1, le=1 << 62)]]


class _Line(_Strict):
    """A line of ``clips.jsonl``; in format 1 the layers of a clip are described differently."""

    id: str
    split: str
    kind: str
    num_frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)]
    frames: _FrameSpan | None
    layers: dict[str, _LayerSpan]
    objects: dict[str, dict[Annotated[str, Field(pattern="^[0-9]{1,5}$")], Annotated[int, Field(ge=1, le=255)]]]
    meta: dict[str, Any]


class _Map(_Strict):
    """A label map; keys of newer versions may be missing, and `labels.LabelMap` checks the values."""

    name: str
    classes: list[str]
    kind: str
    things: bool = False
    attributes: dict[str, list[str | None]] = Field(default_factory=dict)


class _Header(_Strict):
    """The keys that ``index.json`` has in both formats."""

    height: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    width: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    meta: dict[str, Any]
    skipped: list[dict[str, str]]
    shards: dict[str, _Shard]


class _HeaderV1(_Header):
    classes: list[str]
    clips: list[dict[str, Any]]


class _HeaderV2(_Header):
    maps: list[_Map]
    chunk_frames: Annotated[int, Field(ge=1)]
    groups: list[_Group]


HEADERS: dict[str, type[_Header]] = {FORMAT_V1: _HeaderV1, FORMAT: _HeaderV2}
LINE = TypeAdapter(_Line)  # created once, because many lines are parsed


@dataclass(frozen=True)
class Index:
    """The parsed index of a store.

    Attributes:
        height: of all frames and masks, in pixels.
        width: of all frames and masks, in pixels.
        maps: label maps by name.
        meta: JSON about the whole store.
        skipped: what was left out, and why.
        shards: by file name, ``bytes``, ``sha256`` and, for shards of frames, ``frames``.
        digest: 32 hex digits that differ if the contents of the store do.
        table: the clips.
    """

    height: int
    width: int
    maps: dict[str, LabelMap]
    meta: dict[str, Any]
    skipped: list[dict[str, str]]
    shards: dict[str, dict[str, Any]]
    digest: str
    table: Table


def parse_index(raw: bytes, path: Path) -> Index:
    """Parses an ``index.json`` and the files that belong to it.

    Raises:
        MaskcastError: if they are damaged, contradict each other, name files elsewhere, or have an unknown format.
    """
    with parsing(path, "a valid index", REMEDY):
        index = json.loads(raw)
        form = str(index.get("format"))
        if form not in HEADERS:
            raise MaskcastError(
                f"{path}: not a {FORMAT} index (format: {short_repr(index.get('format'))}); {REMEDY}"
            )
        HEADERS[form].model_validate(index)
        _check_shards(index["shards"], path)
        height, width = index["height"], index["width"]
        digest = hashlib.sha256(raw).hexdigest()[:32]
        table = (_table_v1 if form == FORMAT_V1 else _table_v2)(index, path, digest)
        maps = {one.name: one for one in _maps(index)}
        return Index(height, width, maps, index["meta"], index["skipped"], index["shards"], digest, table)


def to_line(clip: Clip) -> bytes:
    """Returns the line of ``clips.jsonl`` for a clip."""
    entry = {
        "id": clip.id,
        "split": clip.split,
        "kind": clip.kind,
        "num_frames": clip.num_frames,
        "frames": clip.frames and vars(clip.frames),
        "layers": {
            name: {"shard": layer.shard, "start": layer.start, "chunks": layer.chunks}
            for name, layer in clip.layers.items()
        },
        "objects": clip.objects,
        "meta": clip.meta,
    }
    return json.dumps(entry).encode() + b"\n"


def _maps(index: dict[str, Any]) -> tuple[LabelMap, ...]:
    try:
        if "classes" in index:
            return single_map(index["classes"])
        return label_maps_from_json(index["maps"])
    except MaskcastError as error:
        raise ValueError(str(error)) from None


def _check_shards(shards: dict[str, dict[str, Any]], path: Path) -> None:
    """Refuses shards that are missing, cut short or not in the folder of the index."""
    for name, shard in shards.items():
        if Path(name).name != name:
            raise MaskcastError(
                f"{path}: refers to a shard that is not listed or not in its folder; write the store again"
            )
        file = path.parent / name
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            raise MaskcastError(f"{file}: shard is missing or cut short; write the clip store again")


def _table_v1(index: dict[str, Any], path: Path, digest: str) -> Table:
    clips = []
    for entry in index["clips"]:
        LINE.validate_python({**entry, "layers": {}, "objects": {}})
        size = entry["num_frames"]
        layers = {
            layer: LayerSpan(entry[name]["shard"], entry[name]["start"], (entry[name]["size"],), size)
            for name, layer in LAYERS_V1.items()
            if entry[name]
        }
        if layers and size * index["height"] * index["width"] > MAX_MASK_BYTES:
            raise ValueError(f"clip {entry['id']!r} has {pluralize(size, 'frame')}")
        clip = _clip(entry, layers, {}, digest)
        _check_spans(clip, index["shards"], path)
        clips.append(clip)
    groups, numbers = group_clips(clips)
    return Table(
        np.array([clip.num_frames for clip in clips], np.uint64),
        np.array([id_hash(clip.id) for clip in clips], np.uint64),
        groups,
        numbers,
        clips.__getitem__,
    )


def _table_v2(index: dict[str, Any], path: Path, digest: str) -> Table:
    groups = [Group(one["split"], one["kind"], tuple(one["layers"])) for one in index["groups"]]
    shards, count = index["shards"], sum(one["clips"] for one in index["groups"])
    columns = load_memmap(path.parent / COLUMNS_FILE, REMEDY) if count else np.empty((4, 0), np.uint64)
    if columns.dtype != np.uint64 or columns.shape != (4, count) or not {LINES_FILE, COLUMNS_FILE} <= set(shards):
        raise ValueError(f"{COLUMNS_FILE} does not hold {pluralize(count, 'clip')}")
    ends, num_frames, hashes, numbers = map(np.asarray, columns)
    if (int(ends[-1]) if count else 0) != shards[LINES_FILE]["bytes"]:
        raise ValueError(f"{COLUMNS_FILE} and {LINES_FILE} differ")
    of_groups = np.bincount(np.minimum(numbers, len(groups)).astype(np.int64), minlength=len(groups)).tolist()
    if of_groups != [one["clips"] for one in index["groups"]]:
        raise ValueError(f"{COLUMNS_FILE} lists {of_groups} clips in the groups")
    if count and not (1 <= num_frames.min() <= num_frames.max() <= MAX_FRAMES and (ends[1:] > ends[:-1]).all()):
        raise ValueError(f"{COLUMNS_FILE} has invalid clip lengths")
    lines = _map_lines(path.parent / LINES_FILE) if count else b""

    @lru_cache(CACHED_CLIPS)
    def build(row: int) -> Clip:
        line = f"{path.parent / LINES_FILE}: line {row + 1}"
        with parsing(line, "a valid line", REMEDY):
            entry = json.loads(lines[int(ends[row - 1]) if row else 0 : int(ends[row])])
            LINE.validate_python(entry)
            layers = {
                name: LayerSpan(one["shard"], one["start"], tuple(one["chunks"]), index["chunk_frames"])
                for name, one in entry["layers"].items()
            }
            objects = {
                name: {int(one): class_id for one, class_id in classes.items()}
                for name, classes in entry["objects"].items()
            }
            clip = _clip(entry, layers, objects, digest)
            listed = (groups[int(numbers[row])], num_frames[row], hashes[row])
            if (group_of(clip), clip.num_frames, id_hash(clip.id)) != listed:
                raise ValueError(f"not the clip that {COLUMNS_FILE} and {path.name} list here")
            _check_spans(clip, shards, path)
        return clip

    return Table(num_frames, hashes, groups, numbers, build)


def _clip(
    entry: dict[str, Any], layers: dict[str, LayerSpan], objects: dict[str, dict[int, int]], digest: str
) -> Clip:
    span = FrameSpan(*(entry["frames"][key] for key in ("shard", "start", "size"))) if entry["frames"] else None
    size = entry["num_frames"]
    return Clip(entry["id"], entry["split"], entry["kind"], size, span, layers, objects, entry["meta"], digest)


def _map_lines(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _check_spans(clip: Clip, shards: Mapping[str, Any], path: Path) -> None:
    """Refuses a clip whose layers are not fully inside shards that the index lists."""
    named = [span.shard for span in (clip.frames, *clip.layers.values()) if span]
    if not set(named) <= set(shards):
        raise MaskcastError(
            f"{path}: refers to a shard that is not listed or not in its folder; write the store again"
        )
    size, span = clip.num_frames, clip.frames
    sound = size > 0
    if span is not None:
        sound &= span.size == size and _within(span.start, size, shards[span.shard]["frames"])
    for layer in clip.layers.values():
        sound &= len(layer.chunks) == -(-size // layer.chunk_frames) and min(layer.chunks) > 0
        sound &= _within(layer.start, sum(layer.chunks), shards[layer.shard]["bytes"])
    if not sound:
        raise ValueError(f"clip {clip.id!r} is not inside its shards")


def _within(start: int, size: int, whole: int) -> bool:
    return 0 <= start <= whole - size
