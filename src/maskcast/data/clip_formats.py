"""Reads the index of a clip store, of format 1 and of format 2.

Format 1 holds everything in ``index.json``: one map without a name, compressed per clip. Format 2 keeps a line of
JSON per clip in ``clips.jsonl`` and what must be known of all clips at once in ``clips.npy``; see ``clips.py``.
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.clip_table import Clip, Group, Packed, Span, Table, groups_of, id_hash
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, single_map

FORMAT_1, FORMAT = "maskcast-clips/1", "maskcast-clips/2"
LINES, COLUMNS = "clips.jsonl", "clips.npy"  # the latter of uint64, rows: end of the line, num_frames, id_hash
KEYS = {"format", "height", "width", "meta", "shards", "skipped"}
KEYS_OF = {FORMAT_1: KEYS | {"classes", "clips"}, FORMAT: KEYS | {"maps", "chunk_frames", "groups"}}
LAYERS_1 = {"masks": "labels/mask", "confidence": "confidence/mask"}
BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError)  # what a damaged index may run into


@dataclass(frozen=True)
class Index:
    """What an index says.

    Attributes:
        height: of every frame and mask, pixels.
        width: likewise.
        maps: label maps by name.
        meta: JSON about the whole store.
        skipped: what was left out, and why.
        shards: by file name ``bytes``, ``sha256`` and, of frames, ``frames``.
        table: the clips.
    """

    height: int
    width: int
    maps: dict[str, LabelMap]
    meta: dict[str, Any]
    skipped: list[dict[str, str]]
    shards: dict[str, dict[str, Any]]
    table: Table


def parse_index(raw: bytes, path: Path) -> Index:
    """Returns what an ``index.json`` and the files beside it say.

    Raises:
        MaskcastError: if they are damaged, contradict each other, name files elsewhere, or are of another format.
    """
    try:
        index = json.loads(raw)
        form = index.get("format")
    except BROKEN as error:
        raise _invalid(path, error) from None
    missing = KEYS_OF.get(form, KEYS) - set(index)
    if form not in KEYS_OF or missing:
        raise MaskcastError(f"{path}: not a {FORMAT} index (lacks {sorted(missing)}); write the clip store again")
    try:
        for name, shard in index["shards"].items():
            if Path(name).name != name or not {"bytes", "sha256"} <= set(shard):
                raise MaskcastError(
                    f"{path}: names a shard that it does not list as a file beside it; write the store again"
                )
            file = path.parent / name
            if not file.is_file() or file.stat().st_size != shard["bytes"]:
                raise MaskcastError(f"{file}: shard is missing or cut short; write the clip store again")
        maps = (
            single_map(index["classes"])
            if form == FORMAT_1
            else tuple(LabelMap(one["name"], tuple(one["classes"]), one["kind"]) for one in index["maps"])
        )
        table = _table_1(index, path) if form == FORMAT_1 else _table_2(index, path)
        return Index(
            index["height"],
            index["width"],
            {one.name: one for one in maps},
            index["meta"],
            index["skipped"],
            index["shards"],
            table,
        )
    except BROKEN as error:
        raise _invalid(path, error) from None


def line_of(clip: Clip) -> bytes:
    """Returns the line of ``clips.jsonl`` that holds a clip."""
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


def _table_1(index: dict[str, Any], path: Path) -> Table:
    clips = []
    for entry in index["clips"]:
        size = entry["num_frames"]
        layers = {
            layer: Packed(entry[name]["shard"], entry[name]["start"], (entry[name]["size"],), size)
            for name, layer in LAYERS_1.items()
            if entry[name]
        }
        span = Span(**entry["frames"]) if entry["frames"] else None
        clips.append(Clip(entry["id"], entry["split"], entry["kind"], size, span, layers, {}, entry["meta"]))
        _check_shards(clips[-1], index["shards"], path)
    return Table(
        np.array([clip.num_frames for clip in clips], np.uint64),
        np.array([id_hash(clip.id) for clip in clips], np.uint64),
        groups_of(clips),
        clips.__getitem__,
    )


def _table_2(index: dict[str, Any], path: Path) -> Table:
    groups = [Group(g["split"], g["kind"], tuple(g["layers"]), g["clips"]) for g in index["groups"]]
    ends, num_frames, hashes = np.load(path.parent / COLUMNS, mmap_mode="r", allow_pickle=False)
    count = sum(group.clips for group in groups)
    size = index["shards"][LINES]["bytes"]
    if len(ends) != count or {LINES, COLUMNS} - set(index["shards"]) or (int(ends[-1]) if count else 0) != size:
        raise ValueError(f"{COLUMNS}, {LINES} and groups differ")
    lines = _map_lines(path.parent / LINES) if count else b""

    def build(row: int) -> Clip:
        try:
            entry = json.loads(lines[int(ends[row - 1]) if row else 0 : int(ends[row])])
            layers = {
                name: Packed(one["shard"], one["start"], tuple(one["chunks"]), index["chunk_frames"])
                for name, one in entry["layers"].items()
            }
            objects = {
                name: {int(instance): class_id for instance, class_id in classes.items()}
                for name, classes in entry["objects"].items()
            }
            span = Span(**entry["frames"]) if entry["frames"] else None
            clip = Clip(
                entry["id"],
                entry["split"],
                entry["kind"],
                entry["num_frames"],
                span,
                layers,
                objects,
                entry["meta"],
            )
            if clip.num_frames != num_frames[row]:
                raise ValueError(
                    f"clip {clip.id!r} has {clip.num_frames} frames, {COLUMNS} says {num_frames[row]}"
                )
        except BROKEN as error:
            raise MaskcastError(
                f"{path.parent / LINES}: line {row + 1} is no clip ({error!r}); write the clip store again"
            ) from None
        _check_shards(clip, index["shards"], path)
        return clip

    return Table(num_frames, hashes, groups, build)


def _map_lines(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _check_shards(clip: Clip, shards: Mapping[str, Any], path: Path) -> None:
    named = [span.shard for span in (clip.frames, *clip.layers.values()) if span]
    if not set(named) <= set(shards):
        raise MaskcastError(
            f"{path}: names a shard that it does not list as a file beside it; write the store again"
        )


def _invalid(path: Path, error: Exception) -> MaskcastError:
    return MaskcastError(f"{path}: not a valid index ({error!r}); write the clip store again")
