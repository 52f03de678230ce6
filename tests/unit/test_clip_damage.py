"""Damaged clip stores: each is refused in one line, at the latest when what is damaged is asked for."""

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import zstandard

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import MASK, LabelMap, single_map

FRAMES = np.arange(4 * 6 * 8 * 3, dtype=np.uint32).reshape(4, 6, 8, 3).astype(np.uint8)
MASKS = (np.arange(4 * 6 * 8) % 3).reshape(4, 6, 8).astype(np.uint8)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    maps = single_map(["background", "a", "b"])
    with ClipWriter(tmp_path / "s", height=6, width=8, maps=maps) as w:
        w.add("v_10", split="train", kind="labelled", frames=FRAMES, masks={MASK: MASKS}, meta={"seed": 7})
        w.add("v_2", split="hidden", kind="hidden", frames=FRAMES[:2])
        w.add("v_3", split="unlabeled", kind="unlabelled", masks={MASK: MASKS[:3]}, confidence={MASK: MASKS[:3]})
    return tmp_path / "s"


def test_missing_index(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match="no clip store found"):
        ClipStore(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other"}', '{"format": ["maskcast-clips/2"]}', "7"])
def test_damaged_index(written: Path, text: str) -> None:
    (written / "index.json").write_text(text)
    with pytest.raises(MaskcastError, match=r"index.json: not a.* index .*; write the clip store again"):
        ClipStore(written)


def edited(written: Path, key: str, value: object) -> None:
    index = json.loads((written / "index.json").read_text())
    *parents, last = key.split(".")
    place = index
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[last] = value
    (written / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("height", "6"),
        ("width", 0),
        ("shards", []),
        ("shards", {}),
        ("maps", [{"name": "mask"}]),
        ("maps.0.name", "../mask"),
        ("maps.0.kind", "depth"),
        ("groups", [{"split": "train"}]),
        ("groups.0.clips", 2),
        ("groups", []),
        ("maps.0.things", "yes"),
        ("maps.0.things", 1),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(written: Path, key: str, value: object) -> None:
    edited(written, key, value)
    with pytest.raises(
        MaskcastError, match=r"index.json: not a valid index \(.*; write the clip store again"
    ) as caught:
        ClipStore(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["depth", None, ["classes"]])
def test_an_unknown_kind_of_map_is_named_beside_what_is_allowed(written: Path, kind: object) -> None:
    edited(written, "maps.0.kind", kind)
    allowed = r"allowed: \('classes', 'instances', 'alpha'\)"
    with pytest.raises(
        MaskcastError, match=rf"index.json: .*label map 'mask': kind {re.escape(repr(kind))}; {allowed}"
    ):
        ClipStore(written)


@pytest.mark.parametrize("key", ["split", "kind", "layers", "clips"])
def test_a_key_that_a_group_of_the_index_lacks_is_named(written: Path, key: str) -> None:
    groups = json.loads((written / "index.json").read_text())["groups"]
    del groups[0][key]
    edited(written, "groups", groups)
    with pytest.raises(MaskcastError, match=rf"index.json: not a valid index \(groups.0.{key}: Field required\)"):
        ClipStore(written)


def rewritten(written: Path, name: str, content: bytes) -> None:
    (written / name).write_bytes(content)
    edited(
        written, "shards", json.loads((written / "index.json").read_text())["shards"] | {name: shard_of(content)}
    )


def shard_of(content: bytes) -> dict[str, object]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("columns", [np.zeros((4, 3)), np.zeros((4, 2), np.uint64), np.zeros((4, 3), np.uint64)])
def test_columns_that_contradict_the_index_are_refused(written: Path, columns: np.ndarray) -> None:
    file = io.BytesIO()
    np.save(file, columns)
    rewritten(written, "clips.npy", file.getvalue())
    with pytest.raises(MaskcastError, match=r"index.json: not a valid index .*clips.npy"):
        ClipStore(written)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v_10"', b'"v_11"'),
        (b'"num_frames": 4', b'"num_frames": 3'),
        (b'"split": "train"', b'"split": "trail"'),
        (b'"start": 0, "size": 4', b'"start": 3, "size": 4'),
        (b'"start": 0, "size": 4', b'"start": 0, "size": 3'),
        (b'"start": 0, "size": 4', b'"start":-1, "size": 4'),
        (b'"labels/mask"', b'"labels/musk"'),
        (b'"chunks": [', b'"chinks": ['),
        (b'{"id"', b'["id"'),
    ],
)
def test_a_clip_that_contradicts_the_index_is_refused_when_it_is_asked_for(
    written: Path, old: bytes, new: bytes
) -> None:
    lines = (written / "clips.jsonl").read_bytes()
    assert old in lines
    rewritten(written, "clips.jsonl", lines.replace(old, new, 1))
    store = ClipStore(written)
    with pytest.raises(
        MaskcastError, match=r"clips.jsonl: line 1: not a valid line \(.*; write the clip store again"
    ):
        store.get("v_10")
    assert store.get("v_2").id == "v_2"


@pytest.mark.parametrize("key", ["id", "split", "kind", "num_frames", "frames", "layers", "objects", "meta"])
def test_a_key_that_a_clip_lacks_is_named(written: Path, key: str) -> None:
    lines = (written / "clips.jsonl").read_bytes()
    assert f'"{key}":'.encode() in lines
    rewritten(written, "clips.jsonl", lines.replace(f'"{key}":'.encode(), f'"{key[1:]}_":'.encode(), 1))
    with pytest.raises(
        MaskcastError,
        match=rf"clips.jsonl: line 1: not a valid line \({key}: Field required\); write the clip store again",
    ):
        ClipStore(written).get("v_10")


@pytest.mark.parametrize("instance", ["+1", "-1", " 1", "1_", "1.", "٣", "x1"])
def test_ids_of_objects_are_digits(tmp_path: Path, instance: str) -> None:
    hands = LabelMap("hands", ("background", "left"), "instances")
    with ClipWriter(tmp_path / "s", height=6, width=8, maps=[hands]) as w:
        masks = (MASKS > 1).astype(np.uint16) * 10
        w.add(
            "v", split="train", kind="labelled", frames=FRAMES, masks={"hands": masks}, objects={"hands": {10: 1}}
        )
    assert ClipStore(tmp_path / "s").get("v").objects == {"hands": {10: 1}}
    lines = (tmp_path / "s/clips.jsonl").read_bytes()
    assert b'{"10": 1}' in lines
    rewritten(tmp_path / "s", "clips.jsonl", lines.replace(b'"10"', f'"{instance}"'.encode(), 1))
    with pytest.raises(MaskcastError, match=r"line 1: not a valid line \(objects.hands.* pattern"):
        ClipStore(tmp_path / "s").get("v")


def test_masks_that_are_longer_than_the_index_says_are_refused(written: Path) -> None:
    longer = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    size = json.loads((written / "clips.jsonl").read_text().splitlines()[0])["layers"]["labels/mask"]["chunks"][0]
    lines = (
        (written / "clips.jsonl")
        .read_bytes()
        .replace(b'"chunks": [%d]' % size, b'"chunks": [%d]' % len(longer), 1)
    )
    assert len(lines) == (written / "clips.jsonl").stat().st_size
    rewritten(written, "clips.jsonl", lines)
    rewritten(written, "labels-mask-00000.zst", longer + bytes(size))
    store = ClipStore(written)
    with pytest.raises(MaskcastError, match=r"labels-mask-00000.zst: not sound masks of clip 'v_10'"):
        store.masks(store.clips[0])


def test_a_store_opens_and_lists_without_reading_its_clips(written: Path) -> None:
    size = (written / "clips.jsonl").stat().st_size
    rewritten(written, "clips.jsonl", bytes(size))
    store = ClipStore(written)
    assert len(store.clips) == 3
    assert len(store.select("train", "labelled")) == 1
    assert store.select().frame_counts().tolist() == [4, 2, 3]
    with pytest.raises(MaskcastError, match="line 1: not a valid line"):
        store.clips[0]


def test_shard_cut_short(written: Path) -> None:
    shard = written / "frames-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(MaskcastError, match=r"frames-00000.npy: shard is missing or cut short"):
        ClipStore(written)


def test_shard_with_other_contents(written: Path) -> None:
    shard = written / "labels-mask-00000.zst"
    content = bytearray(shard.read_bytes())
    content[5] ^= 255
    shard.write_bytes(content)
    store = ClipStore(written)
    with pytest.raises(MaskcastError, match=r"labels-mask-00000.zst: contents differ"):
        store.verify()
