"""Writes a clip store (see ``reader.py`` for the format)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from maskcast.data.clip_store.checks import Layer, check_layers, check_objects, check_split, check_values
from maskcast.data.clip_store.columns import ColumnWriter
from maskcast.data.clip_store.compression import compress, frames_per_chunk
from maskcast.data.clip_store.formats import COLUMNS_FILE, FORMAT, LINES_FILE, to_line
from maskcast.data.clip_store.readme import README
from maskcast.data.clip_store.shards import FrameShardWriter, LayerShardWriter
from maskcast.data.clip_store.table import (
    Clip,
    Group,
    StoredFrames,
    confidence_layer,
    group_of,
    masks_layer,
)
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.writing import write_json


class ClipWriter:
    """Writes a clip store into a new folder; the index is written last, so a partial store is never read.

    Args:
        root: folder to write; must not exist or be empty.
        height: of all frames and masks, in pixels.
        width: of all frames and masks, in pixels.
        maps: the label maps of the masks, with different names.
        meta: JSON about the whole store.

    Raises:
        MaskcastError: on frames or masks of another size, dtype or length, a class id out of range, an instance
            without a class, a duplicate id, an unknown map, split or kind, or a labelled clip without masks.
    """

    def __init__(
        self, root: Path, *, height: int, width: int, maps: Sequence[LabelMap], meta: dict[str, Any] | None = None
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.height, self.width = root, height, width
        self.maps = {one.name: one for one in maps}
        if len(self.maps) < len(maps):
            names = [one.name for one in maps]
            raise MaskcastError(f"label maps {names}: duplicate name; give every map a unique name")
        self.meta = meta or {}
        self._groups: dict[Group, int] = {}
        self._columns = ColumnWriter()
        self._lines = (root / LINES_FILE).open("wb")
        self.skipped: list[dict[str, str]] = []
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="hashing")
        self._hashes: dict[str, Future[str]] = {}
        self._frames = FrameShardWriter(root, height, width, self._hash)
        self._layers = {
            layer: LayerShardWriter(root, layer, self._hash)
            for layer in [layer_of(name) for layer_of in (masks_layer, confidence_layer) for name in self.maps]
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with ExitStack() as shards:  # close all, even if the disk is full for one
                for end in (self._frames.close, self._lines.close, *(one.close for one in self._layers.values())):
                    shards.callback(end)
            if kind is None:
                self._write_index()
        finally:
            self._hashing.shutdown(cancel_futures=True)

    def add(
        self,
        clip_id: str,
        *,
        split: str,
        kind: str,
        frames: np.ndarray | StoredFrames | None = None,
        masks: Mapping[str, Layer] | None = None,
        confidence: Mapping[str, Layer] | None = None,
        objects: Mapping[str, Mapping[int, int]] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Adds one clip.

        Args:
            clip_id: unique in the store.
            split: one of `SPLITS`.
            kind: one of `KINDS`.
            frames: (T, H, W, 3) uint8, or those of another store.
            masks: masks (T, H, W) by the name of their map, with the dtype of its kind. The values of compressed
                masks are not checked.
            confidence: (T, H, W) uint8 by the name of the map; 255 is certain.
            objects: for each map of kind instances, the class id of each instance id.
            meta: JSON to keep with the clip.
        """
        masks, confidence, objects = masks or {}, confidence or {}, objects or {}
        layers = {masks_layer(name): mask for name, mask in masks.items()}
        layers |= {confidence_layer(name): layer for name, layer in confidence.items()}
        check_split(clip_id, split, kind)
        if not masks and (kind == "labelled" or frames is None):
            raise MaskcastError(f"clip {clip_id!r} ({kind}) has no masks; add its masks or leave it out")
        frames_THWC = frames.frames_THWC if isinstance(frames, StoredFrames) else frames
        check_layers(clip_id, self.maps, (self.height, self.width), frames_THWC, masks, confidence)
        check_objects(clip_id, self.maps, objects)
        for name, mask in masks.items():
            if isinstance(mask, np.ndarray):
                check_values(clip_id, self.maps[name], mask, objects.get(name, {}))
        some = next(iter(masks.values())) if frames_THWC is None else frames_THWC
        given = [layer for layer in self._layers if layer in layers]
        spans = {layer: self._layers[layer].append(compress(layers[layer])) for layer in given}
        clip = Clip(
            clip_id,
            split,
            kind,
            len(some),
            None if frames is None else self._frames.append(frames),
            spans,
            {name: dict(classes) for name, classes in objects.items()},
            meta or {},
        )
        self._lines.write(to_line(clip))
        group = self._groups.setdefault(group_of(clip), len(self._groups))
        self._columns.add(clip_id, self._lines.tell(), clip.num_frames, group)

    def skip(self, item: str, reason: str) -> None:
        """Records in the index that an item was left out, and why."""
        self.skipped.append({"item": item, "reason": reason})

    def _hash(self, name: str) -> None:
        """Starts to hash a complete file while further ones are written, which leaves little for the end."""
        self._hashes[name] = self._hashing.submit(sha256_of, self.root / name)

    def _write_index(self) -> None:
        counts = self._columns.write(self.root / COLUMNS_FILE)
        for name in (LINES_FILE, COLUMNS_FILE):
            self._hash(name)
        shards: dict[str, dict[str, Any]] = {LINES_FILE: {}, COLUMNS_FILE: {}}
        shards |= self._frames.shards
        for layer in self._layers.values():
            shards |= layer.shards
        for name, shard in shards.items():
            if name in self._hashes:  # that of a linked shard is known
                shard |= {"bytes": (self.root / name).stat().st_size, "sha256": self._hashes[name].result()}
        (self.root / "README.md").write_text(README, encoding="utf-8")
        index = {
            "format": FORMAT,
            "height": self.height,
            "width": self.width,
            "maps": [one.to_entry() for one in self.maps.values()],
            "chunk_frames": frames_per_chunk(self.height, self.width),
            "meta": self.meta,
            "groups": [asdict(group) | {"clips": counts[k]} for group, k in self._groups.items()],
            "skipped": self.skipped,
            "shards": shards,
        }
        partial = self.root / "index.json.partial"
        write_json(partial, index)
        partial.rename(self.root / "index.json")
