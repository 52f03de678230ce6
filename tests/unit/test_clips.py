"""The clip store: what is written is read back, and everything broken is said in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zstandard

from maskcast.data.clip_writer import ClipWriter
from maskcast.data.clips import ClipStore
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, MASK, id_key, single_map

FRAMES = np.arange(4 * 6 * 8 * 3, dtype=np.uint32).reshape(4, 6, 8, 3).astype(np.uint8)
MASKS = (np.arange(4 * 6 * 8) % 3).reshape(4, 6, 8).astype(np.uint8)


def writer(root: Path) -> ClipWriter:
    return ClipWriter(root, height=6, width=8, maps=single_map(["background", "a", "b"]), meta={"fps": 5})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with writer(tmp_path / "s") as w:
        w.add("v_10", split="train", kind="labelled", frames=FRAMES, masks={MASK: MASKS}, meta={"seed": 7})
        w.add("v_2", split="hidden", kind="hidden", frames=FRAMES[:2])
        w.add("v_3", split="unlabeled", kind="unlabelled", masks={MASK: MASKS[:3]}, confidence={MASK: MASKS[:3]})
        w.skip("v_4", "no frames")
    return tmp_path / "s"


def test_reads_back_what_was_written(written: Path) -> None:
    store = ClipStore(written)
    store.verify()
    labelled, hidden, generated = store.clips
    np.testing.assert_array_equal(store.frames(labelled), FRAMES)
    np.testing.assert_array_equal(store.frames(hidden), FRAMES[:2])
    np.testing.assert_array_equal(store.masks(labelled), MASKS)
    np.testing.assert_array_equal(store.confidence(generated), MASKS[:3])
    assert (labelled.kind, hidden.kind, generated.kind) == ("labelled", "hidden", "unlabelled")
    assert (labelled.meta, store.meta, store.num_classes) == ({"seed": 7}, {"fps": 5}, 3)
    assert store.skipped == [{"item": "v_4", "reason": "no frames"}]
    assert not store.has_masks(hidden)
    assert not generated.has_frames


def test_frames_are_a_read_only_view_of_the_shard(written: Path) -> None:
    store = ClipStore(written)
    frames = store.frames(store.clips[1])
    assert np.shares_memory(frames, store.frames(store.clips[1]))
    assert not frames.flags.writeable


def test_its_readme_reads_it_without_maskcast(written: Path) -> None:
    index = json.loads((written / "index.json").read_text())
    clip = json.loads((written / "clips.jsonl").read_text().splitlines()[0])
    frames = np.load(written / clip["frames"]["shard"], mmap_mode="r")
    np.testing.assert_array_equal(frames[clip["frames"]["start"] :][: clip["frames"]["size"]], FRAMES)
    layer = clip["layers"]["labels/mask"]
    with (written / layer["shard"]).open("rb") as file:
        file.seek(layer["start"])
        packed = file.read(layer["chunks"][0])
    masks = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8)
    np.testing.assert_array_equal(masks.reshape(clip["num_frames"], index["height"], index["width"]), MASKS)


def test_the_code_in_the_readme_runs(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (written / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(written)
    names: dict[str, object] = {}
    exec(code, names)
    np.testing.assert_array_equal(names["frames"], FRAMES)
    np.testing.assert_array_equal(names["masks"], MASKS)


def test_shards_roll_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskcast.data.clip_shards.SHARD_BYTES", FRAMES.nbytes + 1)
    with writer(tmp_path / "s") as w:
        for k in range(3):
            w.add(f"v_{k}", split="train", kind="labelled", frames=FRAMES + k, masks={MASK: MASKS})
    store = ClipStore(tmp_path / "s")
    assert len(list((tmp_path / "s").glob("frames-*.npy"))) == 3
    for k, clip in enumerate(store.clips):
        np.testing.assert_array_equal(store.frames(clip), FRAMES + k)


def test_same_clips_same_digest(tmp_path: Path, written: Path) -> None:
    shutil.copytree(written, tmp_path / "copy")
    assert ClipStore(tmp_path / "copy").digest == ClipStore(written).digest
    with writer(tmp_path / "other") as w:
        w.add("v_10", split="train", kind="labelled", frames=FRAMES + 1, masks={MASK: MASKS})
    assert ClipStore(tmp_path / "other").digest != ClipStore(written).digest


def test_select_names_what_there_is(written: Path) -> None:
    store = ClipStore(written)
    assert [clip.id for clip in store.select("train", "labelled")] == ["v_10"]
    with pytest.raises(MaskcastError, match=r"split 'val'.*train \(labelled\)"):
        store.select("val")
    with pytest.raises(MaskcastError, match="no clip 'v_9'"):
        store.get("v_9")


def test_ids_sort_as_people_count() -> None:
    assert sorted(["v_10", "v_2", "a_3"], key=id_key) == ["a_3", "v_2", "v_10"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clip_id": "v_0"}, "'v_0' occurs twice"),
        ({"split": "dev"}, "split 'dev'"),
        ({"kind": "secret"}, "kind 'secret'"),
        ({"masks": {}}, "without masks"),
        ({"masks": {MASK: MASKS[:3]}}, r"\[3, 4\] frames"),
        ({"masks": {MASK: MASKS.astype(np.int64)}}, "masks are int64"),
        ({"frames": FRAMES[:, :5]}, r"frames are uint8 \(4, 5, 8, 3\)"),
        ({"masks": {MASK: MASKS + 1}}, "class id 3 is not among the 3 classes"),
        ({"frames": FRAMES[:0], "masks": {MASK: MASKS[:0]}}, "frames"),
    ],
)
def test_bad_clips_are_refused(tmp_path: Path, change: dict, said: str) -> None:
    good = {"clip_id": "v_1", "split": "train", "kind": "labelled", "frames": FRAMES, "masks": {MASK: MASKS}}
    first = good | {"clip_id": "v_0"}
    with pytest.raises(MaskcastError, match=said), writer(tmp_path / "s") as w:
        for clip in (first, good | change):
            w.add(**clip)
    assert not (tmp_path / "s/index.json").exists()


def test_ignore_is_a_valid_mask_value(tmp_path: Path) -> None:
    masks = np.full_like(MASKS, IGNORE)
    with writer(tmp_path / "s") as w:
        w.add("v", split="train", kind="labelled", masks={MASK: masks})
    store = ClipStore(tmp_path / "s")
    np.testing.assert_array_equal(store.masks(store.clips[0]), masks)


def test_missing_index(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match="no clip store there"):
        ClipStore(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other"}'])
def test_damaged_index(written: Path, text: str) -> None:
    (written / "index.json").write_text(text)
    with pytest.raises(MaskcastError, match="index"):
        ClipStore(written)


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
