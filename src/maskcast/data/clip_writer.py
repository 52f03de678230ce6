"""Writes a clip store (see ``clips.py`` for its form)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from maskcast.data.clip_formats import COLUMNS, FORMAT, LINES, line_of
from maskcast.data.clip_shards import FrameShards, PackedShards
from maskcast.data.clip_table import Clip, groups_of, id_hash
from maskcast.data.clips import DTYPES
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, KINDS, SPLITS, LabelMap

CHUNK_BYTES = 1 << 18  # of a chunk of masks before compression

README = """# A maskcast clip store

Readable with numpy, json and zstandard alone:

```python
import json, pathlib, numpy as np, zstandard
index = json.loads(pathlib.Path("index.json").read_text())
clips = [json.loads(line) for line in pathlib.Path("clips.jsonl").read_text().splitlines()]
clip = clips[0]
span = clip["frames"]                                  # null where the store holds no frames
frames = np.load(span["shard"], mmap_mode="r")[span["start"] : span["start"] + span["size"]]  # (T, H, W, 3) uint8
label_map = index["maps"][0]                           # its name, kind and classes
layer = clip["layers"]["labels/" + label_map["name"]]  # absent where the clip has no masks of this map
with open(layer["shard"], "rb") as f:
    f.seek(layer["start"])
    packed = [f.read(size) for size in layer["chunks"]]  # index["chunk_frames"] frames each, the last one the rest
data = b"".join(zstandard.ZstdDecompressor().decompress(chunk) for chunk in packed)
dtype = np.uint16 if label_map["kind"] == "instances" else np.uint8
masks = np.frombuffer(data, dtype).reshape(clip["num_frames"], index["height"], index["width"])
```

A map of kind `classes` holds class ids, 255 = no label; one of kind `instances` ids of objects, 0 = none, whose
classes stand in the clip's `objects`; one of kind `alpha` the opacity of the foreground, 255 = 1.
`confidence/<map>` is stored likewise, uint8, 255 = certain. `kind` of a clip tells a labelled (true masks), an
unlabelled and a hidden clip apart; `split` says what it may be used for. `shards` gives the sha256 of each file,
`skipped` lists what was left out and why. `clips.npy` lists of each clip where its line ends, how many frames it
has and a hash of its id, `groups` which clips have the same split, kind and layers.
"""


class ClipWriter:
    """Writes a clip store into a new folder; the index comes last, so a half store is never read.

    Args:
        root: the folder to write; must not exist or be empty.
        height: of every frame and mask, pixels.
        width: of every frame and mask, pixels.
        maps: the label maps that masks may be of, each of a name of its own.
        meta: anything worth keeping with the whole store, as JSON values.

    Raises:
        MaskcastError: on frames or masks of another size, dtype or length, on a class id that does not exist, an
            instance without a class, an id used twice, an unknown map, split or kind, a labelled clip without
            masks.
    """

    def __init__(
        self,
        root: Path,
        *,
        height: int,
        width: int,
        maps: Sequence[LabelMap],
        meta: dict[str, Any] | None = None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.height, self.width = root, height, width
        self.maps = {one.name: one for one in maps}
        if len(self.maps) < len(maps):
            names = [one.name for one in maps]
            raise MaskcastError(f"label maps {names}: a name occurs twice; give every map a name of its own")
        self.meta = meta or {}
        self.clips: dict[str, Clip] = {}
        self.skipped: list[dict[str, str]] = []
        self.chunk_frames = max(1, CHUNK_BYTES // (height * width))
        self._frames = FrameShards(root, height, width)
        self._layers = {
            layer: PackedShards(root, layer, self.chunk_frames)
            for layer in [f"{part}/{name}" for part in ("labels", "confidence") for name in self.maps]
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frames.close()
        for layer in self._layers.values():
            layer.close()
        if error is None:
            self._write_index()

    def add(
        self,
        clip_id: str,
        *,
        split: str,
        kind: str,
        frames: np.ndarray | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
        confidence: Mapping[str, np.ndarray] | None = None,
        objects: Mapping[str, Mapping[int, int]] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Adds one clip.

        Args:
            clip_id: unique in the store.
            split: one of `SPLITS`.
            kind: one of `KINDS`.
            frames: (T, H, W, 3) uint8.
            masks: by the name of the map (T, H, W), of the dtype of its kind.
            confidence: by the name of the map (T, H, W) uint8, 255 = certain.
            objects: by the name of each map of instances the class id of every instance id.
            meta: JSON to keep with the clip.
        """
        masks, confidence, objects = masks or {}, confidence or {}, objects or {}
        layers = {f"labels/{name}": mask for name, mask in masks.items()}
        layers |= {f"confidence/{name}": sure for name, sure in confidence.items()}
        self._check(clip_id, split, kind, frames, layers)
        for name, mask in masks.items():
            self._check_values(clip_id, self.maps[name], mask, objects.get(name, {}))
        some = frames if frames is not None else next(iter(layers.values()))
        self.clips[clip_id] = Clip(
            clip_id,
            split,
            kind,
            len(some),
            None if frames is None else self._frames.append(frames),
            {layer: self._layers[layer].append(layers[layer]) for layer in self._layers if layer in layers},
            {name: dict(classes) for name, classes in objects.items()},
            meta or {},
        )

    def skip(self, item: str, reason: str) -> None:
        """Records in the index that something was left out, and why."""
        self.skipped.append({"item": item, "reason": reason})

    def _check(
        self, clip_id: str, split: str, kind: str, frames: np.ndarray | None, layers: Mapping[str, np.ndarray]
    ) -> None:
        if clip_id in self.clips:
            raise MaskcastError(f"clip id {clip_id!r} occurs twice; give every clip an id of its own")
        if split not in SPLITS or kind not in KINDS:
            raise MaskcastError(f"clip {clip_id!r}: split {split!r}, kind {kind!r}; allowed: {SPLITS} and {KINDS}")
        masked = any(layer.startswith("labels/") for layer in layers)
        if not masked and (kind == "labelled" or frames is None):
            raise MaskcastError(f"clip {clip_id!r} ({kind}) comes without masks; leave it out or give its masks")
        if strange := sorted(set(layers) - set(self._layers)):
            raise MaskcastError(
                f"clip {clip_id!r}: {strange[0]} is of none of the label maps ({', '.join(self.maps)}); name one"
            )
        size, given = (self.height, self.width), dict(layers)
        if frames is not None:
            given["frames"] = frames
        lengths = {len(layer) for layer in given.values()}
        if len(lengths) > 1 or 0 in lengths:
            raise MaskcastError(f"clip {clip_id!r}: its layers have {sorted(lengths)} frames; they must agree")
        for name, layer in given.items():
            part, _, of = name.partition("/")
            dtype = np.dtype(DTYPES[self.maps[of].kind] if part == "labels" else np.uint8)
            tail = (3,) if name == "frames" else ()
            if layer.dtype != dtype or layer.shape[1:] != size + tail:
                word = name.replace("labels/mask", "masks")
                raise MaskcastError(
                    f"clip {clip_id!r}: {word} are {layer.dtype} {layer.shape}; the store holds {dtype} "
                    f"{('T', *size, *tail)}: resize them (height and width of prepare_clips)"
                )

    def _check_values(
        self, clip_id: str, label_map: LabelMap, mask: np.ndarray, objects: Mapping[int, int]
    ) -> None:
        most = label_map.num_classes - 1
        if label_map.kind == "classes":
            allowed = np.zeros(256, bool)
            allowed[: most + 1] = allowed[IGNORE] = True
            if not allowed[mask].all():
                worst = int(mask[~allowed[mask]].max())
                raise MaskcastError(
                    f"clip {clip_id!r}: class id {worst} is not among the {most + 1} classes (0 to {most}, "
                    f"or {IGNORE} for no label); mend the mask or the list of classes"
                )
        if label_map.kind == "instances":
            found = np.flatnonzero(np.bincount(mask.ravel()))
            bare = [int(one) for one in found if one and int(one) not in objects]
            wrong = [(one, of) for one, of in objects.items() if not (0 < one < 1 << 16 and 0 < of <= most)]
            if bare:
                raise MaskcastError(
                    f"clip {clip_id!r}: instance {bare[0]} of map {label_map.name!r} has no class; "
                    "name it in objects"
                )
            if wrong:
                raise MaskcastError(
                    f"clip {clip_id!r}: instance {wrong[0][0]} of map {label_map.name!r} is of class "
                    f"{wrong[0][1]}; allowed: instances 1 to 65535 of classes 1 to {most}"
                )

    def _write_index(self) -> None:
        lines = [line_of(clip) for clip in self.clips.values()]
        (self.root / LINES).write_bytes(b"".join(lines))
        columns = [
            np.cumsum([len(line) for line in lines]),
            [clip.num_frames for clip in self.clips.values()],
            [id_hash(clip_id) for clip_id in self.clips],
        ]
        np.save(self.root / COLUMNS, np.stack([np.array(column, "<u8") for column in columns]))
        shards: dict[str, dict[str, Any]] = {LINES: {}, COLUMNS: {}}
        shards |= self._frames.shards
        for layer in self._layers.values():
            shards |= layer.shards
        for name, shard in shards.items():
            shard |= {"bytes": (self.root / name).stat().st_size, "sha256": sha256_of(self.root / name)}
        (self.root / "README.md").write_text(README, encoding="utf-8")
        index = {
            "format": FORMAT,
            "height": self.height,
            "width": self.width,
            "maps": [asdict(one) for one in self.maps.values()],
            "chunk_frames": self.chunk_frames,
            "meta": self.meta,
            "groups": [asdict(group) for group in groups_of(self.clips.values())],
            "skipped": self.skipped,
            "shards": shards,
        }
        partial = self.root / "index.json.partial"
        partial.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        partial.rename(self.root / "index.json")
