"""Stores of format 1, written by hand: they are read as one map called mask."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from maskcast.data.clip_store.reader import ClipStore
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap

FRAMES = np.arange(5 * 6 * 8 * 3, dtype=np.uint32).reshape(5, 6, 8, 3).astype(np.uint8)
MASKS = (np.arange(3 * 6 * 8) % 3).reshape(3, 6, 8).astype(np.uint8)


def write(root: Path) -> Path:
    """Writes two clips: `a` of 3 frames with masks and a confidence, `b` of 2 frames alone."""
    root.mkdir()
    np.save(root / "frames-00000.npy", FRAMES)
    masks, sure = (zstandard.ZstdCompressor().compress(layer.tobytes()) for layer in (MASKS, MASKS + 50))
    (root / "masks-00000.zst").write_bytes(b"before" + masks)
    (root / "confidence-00000.zst").write_bytes(sure)
    entries: list[dict[str, Any]] = [
        {
            "id": "a",
            "split": "train",
            "kind": "labelled",
            "num_frames": 3,
            "frames": {"shard": "frames-00000.npy", "start": 0, "size": 3},
            "masks": {"shard": "masks-00000.zst", "start": 6, "size": len(masks)},
            "confidence": {"shard": "confidence-00000.zst", "start": 0, "size": len(sure)},
            "meta": {"fps": 5},
        },
        {
            "id": "b",
            "split": "hidden",
            "kind": "hidden",
            "num_frames": 2,
            "frames": {"shard": "frames-00000.npy", "start": 3, "size": 2},
            "masks": None,
            "confidence": None,
            "meta": {},
        },
    ]
    shards = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(root.iterdir())
    }
    shards["frames-00000.npy"]["frames"] = 5
    index = {
        "format": "maskcast-clips/1",
        "height": 6,
        "width": 8,
        "classes": ["background", "x", "y"],
        "meta": {"layout": "competition"},
        "clips": entries,
        "skipped": [{"item": "c", "reason": "empty"}],
        "shards": shards,
    }
    (root / "index.json").write_text(json.dumps(index))
    return root


def test_it_is_read_as_one_map(tmp_path: Path) -> None:
    store = ClipStore(write(tmp_path / "s"))
    store.verify()
    a, b = store.clips
    assert store.maps == {"mask": LabelMap("mask", ("background", "x", "y"))}
    assert (store.label_map.kind, store.num_classes) == ("classes", 3)
    np.testing.assert_array_equal(store.frames(b), FRAMES[3:])
    np.testing.assert_array_equal(store.masks(a), MASKS)
    np.testing.assert_array_equal(store.of("mask").masks(a, slice(1, 2)), MASKS[1:2])
    np.testing.assert_array_equal(store.confidence(a), MASKS + 50)
    assert (a.maps, b.maps, store.has_masks(b), a.meta) == (("mask",), (), False, {"fps": 5})
    assert (store.meta, store.skipped) == ({"layout": "competition"}, [{"item": "c", "reason": "empty"}])
    assert [clip.id for clip in store.select("train", "labelled")] == ["a"]
    assert store.get("b") == b and "c" not in store


def test_it_is_named_by_its_index(tmp_path: Path) -> None:
    root = write(tmp_path / "s")
    expected = hashlib.sha256((root / "index.json").read_bytes()).hexdigest()[:32]
    assert ClipStore(root).digest == digest_tree(root) == expected


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("clips", [{"id": "a"}], "index.json: not a valid index"),
        ("clips", {"a": 1}, "index.json: not a valid index"),
        ("classes", 3, "index.json: not a valid index"),
        ("classes", [], "index.json: not a valid index"),
        ("height", None, "index.json: not a valid index"),
        ("clips.0.num_frames", 0, "index.json: not a valid index"),
        ("clips.0.num_frames", 2, "index.json: not a valid index"),
        ("clips.0.frames.start", 3, "index.json: not a valid index"),
        ("clips.0.frames.size", 2, "index.json: not a valid index"),
        ("clips.0.masks.size", 9999, "index.json: not a valid index"),
        ("clips.0.masks.shard", "../masks-00000.zst", "index.json: refers to a shard that is not listed"),
        ("shards.masks-00000.zst", {"bytes": 1}, "index.json: not a valid index"),
        ("shards.masks-00000.zst.bytes", 1, "masks-00000.zst: shard is missing or cut short"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(tmp_path: Path, key: str, value: object, said: str) -> None:
    root = write(tmp_path / "s")
    index = json.loads((root / "index.json").read_text())
    place = index
    *parents, last = key.replace("00.zst", "00,zst").split(".")
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent.replace(",", ".")]
    place[last.replace(",", ".")] = value
    (root / "index.json").write_text(json.dumps(index))
    with pytest.raises(MaskcastError, match=f"{said}.*write the (clip )?store again") as caught:
        ClipStore(root)
    assert "\n" not in str(caught.value)


def test_damaged_masks_are_said(tmp_path: Path) -> None:
    root = write(tmp_path / "s")
    content = bytearray((root / "masks-00000.zst").read_bytes())
    content[10:] = bytes(len(content) - 10)
    (root / "masks-00000.zst").write_bytes(content)
    store = ClipStore(root)
    with pytest.raises(MaskcastError, match=r"masks-00000.zst: not sound masks of clip 'a' .*; write"):
        store.masks(store.clips[0])
