"""Reads the index of a clip store, of format 1 and of format 2.

Format 1 holds everything in ``index.json``; it has one label map, without a name, and one chunk per clip. Format 2
has one line of JSON per clip in ``clips.jsonl`` and the numbers of all clips in ``clips.npy``; see ``reader.py``.
"""

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter

from maskcast.data.clip_store.table import (
    MAX_FRAMES,
    Clip,
    Count,
    Group,
    Positive,
    Table,
    group_clips,
    group_of,
    id_hash,
)
from maskcast.errors import MaskcastError
from maskcast.labels import MAX_SIDE, LabelMap, single_map
from maskcast.reading import load_memmap, parsing, pluralize, short_repr

FORMAT_V1, FORMAT = "maskcast-clips/1", "maskcast-clips/2"
LINES_FILE, COLUMNS_FILE = "clips.jsonl", "clips.npy"
LAYERS_V1 = {"masks": "labels/mask", "confidence": "confidence/mask"}
REMEDY = "write the clip store again"
CACHED_CLIPS = 64  # per store: the line of a clip of an hour takes milliseconds to parse, and megabytes
MAX_MASK_BYTES = 1 << 30  # bytes of the masks of a clip of format 1, which are one chunk

Side = Annotated[int, Field(strict=True, ge=1, le=MAX_SIDE)]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of a store.

    Attributes:
        frames: their number in a shard of frames.
        bytes: its size.
        sha256: of its content.
    """

    frames: Count | None = None
    bytes: Count
    sha256: str


class _Header(BaseModel):
    """The keys that ``index.json`` has in both formats; keys of newer versions are ignored."""

    height: Side
    width: Side
    meta: dict[str, Any]
    skipped: list[dict[str, str]]
    shards: dict[str, Shard]


class _HeaderV1(_Header):
    classes: list[str]
    clips: list[dict[str, Any]]

    @property
    def maps(self) -> tuple[LabelMap, ...]:
        return single_map(self.classes)


class _HeaderV2(_Header):
    maps: tuple[LabelMap, ...]
    chunk_frames: Positive
    groups: tuple[Group, ...]


CLIP = TypeAdapter(Clip)  # created once, because many lines are parsed


@dataclass(frozen=True)
class Index:
    """The parsed index of a store.

    Attributes:
        height: of all frames and masks, in pixels.
        width: of all frames and masks, in pixels.
        maps: label maps by name.
        meta: JSON about the whole store.
        skipped: what was left out, and why.
        shards: by file name.
        digest: 32 hex digits that differ if the contents of the store do.
        table: the clips.
    """

    height: int
    width: int
    maps: dict[str, LabelMap]
    meta: dict[str, Any]
    skipped: list[dict[str, str]]
    shards: dict[str, Shard]
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
        if form not in (FORMAT_V1, FORMAT):
            raise MaskcastError(
                f"{path}: not a {FORMAT} index (format: {short_repr(index.get('format'))}); {REMEDY}"
            )
        try:
            header = (_HeaderV1 if form == FORMAT_V1 else _HeaderV2).model_validate(index)
            maps = {one.name: one for one in header.maps}
        except MaskcastError as error:  # of a label map
            raise ValueError(str(error)) from None
        _check_shards(header.shards, path)
        digest = hashlib.sha256(raw).hexdigest()[:32]
        table = (
            _table_v1(header, path, digest) if isinstance(header, _HeaderV1) else _table_v2(header, path, digest)
        )
        return Index(header.height, header.width, maps, header.meta, header.skipped, header.shards, digest, table)


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


def _check_shards(shards: dict[str, Shard], path: Path) -> None:
    """Refuses shards that are missing, cut short or not in the folder of the index."""
    for name, shard in shards.items():
        if Path(name).name != name:
            raise MaskcastError(
                f"{path}: refers to a shard that is not listed or not in its folder; write the store again"
            )
        file = path.parent / name
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise MaskcastError(f"{file}: shard is missing or cut short; write the clip store again")


def _table_v1(header: _HeaderV1, path: Path, digest: str) -> Table:
    clips = []
    for entry in header.clips:
        layers = {
            layer: {"shard": entry[name]["shard"], "start": entry[name]["start"], "chunks": [entry[name]["size"]]}
            for name, layer in LAYERS_V1.items()
            if entry[name]
        }
        clip = _clip(entry | {"layers": layers, "objects": {}}, entry["num_frames"], digest)
        if layers and clip.num_frames * header.height * header.width > MAX_MASK_BYTES:
            raise ValueError(f"clip {clip.id!r} has {pluralize(clip.num_frames, 'frame')}")
        _check_spans(clip, header.shards, path)
        clips.append(clip)
    groups, numbers = group_clips(clips)
    return Table(
        np.array([clip.num_frames for clip in clips], np.uint64),
        np.array([id_hash(clip.id) for clip in clips], np.uint64),
        groups,
        numbers,
        clips.__getitem__,
    )


def _table_v2(header: _HeaderV2, path: Path, digest: str) -> Table:
    groups, shards = header.groups, header.shards
    counts = [group.clips for group in groups]
    count = sum(counts)
    columns = load_memmap(path.parent / COLUMNS_FILE, REMEDY) if count else np.empty((4, 0), np.uint64)
    if columns.dtype != np.uint64 or columns.shape != (4, count) or not {LINES_FILE, COLUMNS_FILE} <= set(shards):
        raise ValueError(f"{COLUMNS_FILE} does not hold {pluralize(count, 'clip')}")
    ends, num_frames, hashes, numbers = map(np.asarray, columns)
    if (int(ends[-1]) if count else 0) != shards[LINES_FILE].bytes:
        raise ValueError(f"{COLUMNS_FILE} and {LINES_FILE} differ")
    of_groups = np.bincount(np.minimum(numbers, len(groups)).astype(np.int64), minlength=len(groups)).tolist()
    if of_groups != counts:
        raise ValueError(f"{COLUMNS_FILE} lists {of_groups} clips in the groups")
    if count and not (1 <= num_frames.min() <= num_frames.max() <= MAX_FRAMES and (ends[1:] > ends[:-1]).all()):
        raise ValueError(f"{COLUMNS_FILE} has invalid clip lengths")
    lines = _map_lines(path.parent / LINES_FILE) if count else b""

    @lru_cache(CACHED_CLIPS)
    def build(row: int) -> Clip:
        line = f"{path.parent / LINES_FILE}: line {row + 1}"
        with parsing(line, "a valid line", REMEDY):
            entry = json.loads(lines[int(ends[row - 1]) if row else 0 : int(ends[row])])
            clip = _clip(entry, header.chunk_frames, digest)
            listed = (groups[int(numbers[row])], num_frames[row], hashes[row])
            if (group_of(clip), clip.num_frames, id_hash(clip.id)) != listed:
                raise ValueError(f"not the clip that {COLUMNS_FILE} and {path.name} list here")
            _check_spans(clip, shards, path)
        return clip

    return Table(num_frames, hashes, groups, numbers, build)


def _clip(entry: dict[str, Any], chunk_frames: int, digest: str) -> Clip:
    # Not validate_json, which refuses the escapes that stand for bytes of a file's name that are not UTF-8.
    clip: Clip = CLIP.validate_python({**entry, "store": digest})
    for name, layer in clip.layers.items():
        clip.layers[name] = replace(layer, chunk_frames=chunk_frames)
    return clip


def _map_lines(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _check_spans(clip: Clip, shards: Mapping[str, Shard], path: Path) -> None:
    """Refuses a clip whose layers are not fully inside shards that the index lists."""
    named = [span.shard for span in (clip.frames, *clip.layers.values()) if span]
    if not set(named) <= set(shards):
        raise MaskcastError(
            f"{path}: refers to a shard that is not listed or not in its folder; write the store again"
        )
    size, span = clip.num_frames, clip.frames
    sound = size > 0
    if span is not None:
        sound &= span.size == size and _within(span.start, size, shards[span.shard].frames or 0)
    for layer in clip.layers.values():
        sound &= len(layer.chunks) == -(-size // layer.chunk_frames) and min(layer.chunks) > 0
        sound &= _within(layer.start, sum(layer.chunks), shards[layer.shard].bytes)
    if not sound:
        raise ValueError(f"clip {clip.id!r} is not inside its shards")


def _within(start: int, size: int, whole: int) -> bool:
    return 0 <= start <= whole - size
