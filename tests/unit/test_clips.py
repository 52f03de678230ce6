"""The clip store: what is written is read back, and everything broken is said in one line."""

import hashlib
import json
import os
import pickle
import re
import resource
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import zstandard
from torch.utils.data import DataLoader, Dataset

from maskcast.data.clip_store.columns import ColumnWriter
from maskcast.data.clip_store.compression import LayerCompressor, compress, decompress_into
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip, StoredFrames, id_hash
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, MASK, natural_sort_key, single_map

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


def test_a_clip_that_is_asked_for_again_is_not_parsed_again(written: Path) -> None:
    store = ClipStore(written, MASK)
    clip = store.clips[0]
    assert store.clips[0] is store.get(clip.id) is clip
    assert ClipStore(written, MASK).clips[0] is not clip


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_loader_read_a_store_however_they_are_started(
    written: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.chdir(written.parent)
    store = ClipStore("s", MASK)
    clips = [clip for clip in store.select("train") if store.masks(clip).any()]
    loader = DataLoader(_Masks(store, clips), batch_size=None, num_workers=1, multiprocessing_context=start)
    (masks,) = loader
    np.testing.assert_array_equal(masks, MASKS)
    copied, rows = pickle.loads(pickle.dumps((store, store.clips)))
    assert (copied.digest, copied.label_map, list(rows)) == (store.digest, store.label_map, list(store.clips))


def test_a_clip_of_another_store_is_read_where_its_id_lies(tmp_path: Path, written: Path) -> None:
    with writer(tmp_path / "older") as w:
        w.add("v_0", split="train", kind="labelled", frames=FRAMES[::-1], masks={MASK: MASKS[::-1]})
        w.add("v_10", split="train", kind="labelled", frames=FRAMES[:3], masks={MASK: MASKS[:3]})
    store, older = ClipStore(written, MASK), ClipStore(tmp_path / "older", MASK)
    (_, clip), (first,) = older.select("train"), store.select("train")
    for foreign in (clip, pickle.loads(pickle.dumps(clip))):
        np.testing.assert_array_equal(store.frames(foreign), FRAMES)
        np.testing.assert_array_equal(store.masks(foreign), MASKS)
        np.testing.assert_array_equal(older.frames(first), FRAMES[:3])
        assert store.has_masks(foreign)
        assert not store.has_confidence(foreign)
    with pytest.raises(MaskcastError, match=re.escape(f"{written}: no clip 'v_0'")):
        store.frames(older.get("v_0"))


class _Masks(Dataset[np.ndarray]):
    """As people write it for a training of their own."""

    def __init__(self, store: ClipStore, clips: list[Clip]) -> None:
        self.store, self.clips = store, clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.store.masks(self.clips[index])


def test_a_clip_may_have_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    """As of a file from Windows or an old archive."""
    name = os.fsdecode(b"caf\xe9")
    with writer(tmp_path / "s") as w:
        w.add(name, split="hidden", kind="hidden", frames=FRAMES)
    assert ClipStore(tmp_path / "s").get(name).id == name


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


@pytest.mark.parametrize("holds", ["frames", "masks"])
def test_the_code_in_the_readme_runs_where_frames_or_masks_are_absent(
    holds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer(tmp_path / "s") as w:
        given = {"frames": {"frames": FRAMES}, "masks": {"masks": {MASK: MASKS}}}[holds]
        w.add("v", split="train", kind="labelled" if holds == "masks" else "unlabelled", **given)
    code = (tmp_path / "s/README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path / "s")
    names: dict[str, object] = {}
    exec(code, names)
    np.testing.assert_array_equal(names[holds], {"frames": FRAMES, "masks": MASKS}[holds])


SLICES = [slice(None), slice(1, 3), slice(3, None), slice(None, None, 2), slice(-1, None), slice(3, 1)]


@pytest.mark.parametrize("frames", [*SLICES, slice(None, None, -1), slice(0, 99)])
def test_a_slice_of_masks_is_a_slice_of_the_frames(
    tmp_path: Path, frames: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskcast.data.clip_store.compression.CHUNK_BYTES", 3 * 6 * 8)
    with writer(tmp_path / "s") as w:
        w.add("v", split="train", kind="labelled", masks={MASK: MASKS}, confidence={MASK: MASKS + 9})
    store = ClipStore(tmp_path / "s")
    np.testing.assert_array_equal(store.masks(store.clips[0], frames), MASKS[frames])
    np.testing.assert_array_equal(store.confidence(store.clips[0], frames), MASKS[frames] + 9)


def test_one_frame_costs_one_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.concatenate([MASKS] * 25)
    monkeypatch.setattr("maskcast.data.clip_store.compression.CHUNK_BYTES", 8 * 6 * 8)
    with writer(tmp_path / "s") as w:
        w.add("v", split="train", kind="labelled", masks={MASK: masks})
    store = ClipStore(tmp_path / "s")
    given: list[int] = []

    def counting(chunk: memoryview, frames_THW: np.ndarray) -> None:
        decompress_into(chunk, frames_THW)
        given.append(frames_THW.nbytes)

    monkeypatch.setattr("maskcast.data.clip_store.compression.decompress_into", counting)
    for frames, chunks in ((slice(50, 51), 1), (slice(7, 9), 2), (slice(99, 100), 0.5), (slice(None), 12.5)):
        given.clear()
        np.testing.assert_array_equal(store.masks(store.clips[0], frames), masks[frames])
        assert sum(given) == chunks * 8 * 6 * 8


@pytest.mark.parametrize("cuts", [[1, 2, 3], [2], [], [5, 6]])
def test_a_layer_in_pieces_has_the_bytes_of_the_whole(cuts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskcast.data.clip_store.compression.CHUNK_BYTES", 3 * 6 * 8)
    masks = np.concatenate([MASKS, MASKS])
    packer = LayerCompressor()
    for piece in np.split(masks, cuts):
        packer.add(piece)
    found = packer.finish()
    assert found == compress(masks)
    assert (found.shape, found.dtype, len(found.chunks)) == ((8, 6, 8), "uint8", 3)


def test_layers_whose_frames_fill_their_chunks_are_kept(tmp_path: Path) -> None:
    masks = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 512, 512), np.uint8)
    assert len(compress(masks).chunks) == 4  # a frame each, and none is left
    with ClipWriter(tmp_path / "clips", height=512, width=512, maps=single_map("abcd")) as writer:
        writer.add("a", split="val", kind="labelled", masks={MASK: masks})
    store = ClipStore(tmp_path / "clips")
    np.testing.assert_array_equal(store.masks(store.clips[0]), masks)


def test_shards_roll_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskcast.data.clip_store.shards.SHARD_BYTES", FRAMES.nbytes + 1)
    with writer(tmp_path / "s") as w:
        for k in range(3):
            w.add(f"v_{k}", split="train", kind="labelled", frames=FRAMES + k, masks={MASK: MASKS})
    store = ClipStore(tmp_path / "s")
    assert len(list((tmp_path / "s").glob("frames-*.npy"))) == 3
    for k, clip in enumerate(store.clips):
        np.testing.assert_array_equal(store.frames(clip), FRAMES + k)


def test_shards_are_hashed_while_others_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskcast.data.clip_store.shards.SHARD_BYTES", FRAMES.nbytes + 1)
    hashed: SimpleQueue[str] = SimpleQueue()
    file_digest = hashlib.file_digest

    def noted(file: Any, function: str) -> Any:
        hashed.put(Path(file.name).name)
        return file_digest(file, function)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    with writer(tmp_path / "s") as w:
        for k in range(3):
            w.add(f"v_{k}", split="train", kind="labelled", frames=FRAMES + k, masks={MASK: MASKS})
        first = {hashed.get(timeout=300) for _ in range(2)}
        assert first == {"frames-00000.npy", "frames-00001.npy"}
    rest = {hashed.get(timeout=300) for _ in range(4)}
    assert rest == {"frames-00002.npy", "labels-mask-00000.zst", "clips.jsonl", "clips.npy"}
    ClipStore(tmp_path / "s").verify()


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


@pytest.mark.parametrize("links", [True, False])
def test_frames_of_another_store_are_linked_where_possible_and_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def across_devices(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", across_devices)
    monkeypatch.setattr("maskcast.data.clip_store.shards.SHARD_BYTES", 2 * FRAMES.nbytes)

    def write(root: Path, frames: Callable[[int], np.ndarray | StoredFrames]) -> Path:
        with writer(root) as w:
            for k in range(5):
                w.add(f"v_{k}", split="train", kind="labelled", frames=frames(k), masks={MASK: MASKS})
            w.add("own", split="train", kind="labelled", frames=FRAMES, masks={MASK: MASKS})
        return root

    store = ClipStore(write(tmp_path / "s", lambda k: FRAMES + k))
    (tmp_path / "s/frames-00001.npy").rename(tmp_path / "elsewhere")
    (tmp_path / "s/frames-00001.npy").symlink_to("../elsewhere")
    linked = write(tmp_path / "linked", lambda k: store.stored_frames(store.clips[k]))
    whole = write(tmp_path / "whole", lambda k: store.frames(store.clips[k]))
    for k in range(2):
        assert (linked / f"frames-0000{k}.npy").samefile(store.root / f"frames-0000{k}.npy") == links
        assert not (linked / f"frames-0000{k}.npy").is_symlink()
        assert contents(linked)[f"frames-0000{k}.npy"] == contents(whole)[f"frames-0000{k}.npy"]
    for k, clip in enumerate(ClipStore(linked).clips):
        np.testing.assert_array_equal(ClipStore(linked).frames(clip), FRAMES + k if k < 5 else FRAMES)
    ClipStore(linked).verify()
    assert contents(store.root) == contents(tmp_path / "whole")  # nothing was written through a link


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
    for unknown in ("v_9", 9, store.clips[0]):
        assert unknown not in store
        with pytest.raises(MaskcastError, match=f"no clip {re.escape(repr(unknown))}"):
            store.get(unknown)  # type: ignore[arg-type]
    for read in (store.frames, store.masks, store.confidence, store.has_masks, store.has_confidence):
        with pytest.raises(MaskcastError, match="got 'v_10', not a clip; use one from `get`, `select` or `clips`"):
            read("v_10")  # type: ignore[operator]


def test_columns_are_written_as_numpy_would(tmp_path: Path) -> None:
    columns = ColumnWriter()
    assert columns.write(tmp_path / "none.npy") == []
    assert np.load(tmp_path / "none.npy").shape == (4, 0)
    rows = np.random.default_rng(0).integers(0, 2**63, (1000, 4), np.uint64)
    rows[:, 2] = [id_hash(f"v_{k}") for k in range(1000)]
    rows[:, 3] %= 3
    for k, (end, num_frames, _, group) in enumerate(rows.tolist()):
        columns.add(f"v_{k}", end, num_frames, group)
    assert columns.write(tmp_path / "clips.npy") == np.bincount(rows[:, 3].astype(int)).tolist()
    np.save(tmp_path / "whole.npy", np.ascontiguousarray(rows.T))
    assert (tmp_path / "clips.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_name_that_is_not_utf8_is_read_as_it_was_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    with writer(tmp_path / "s") as w:
        w.add(name, split="train", kind="labelled", frames=FRAMES, masks={MASK: MASKS}, meta={"video": name})
    assert (ClipStore(tmp_path / "s").get(name).id, ClipStore(tmp_path / "s").clips[0].video) == (name, name)


def test_ids_sort_as_people_count() -> None:
    assert sorted(["v_10", "v_2", "a_3"], key=natural_sort_key) == ["a_3", "v_2", "v_10"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clip_id": "v_0"}, "'v_0' occurs twice"),
        ({"split": "dev"}, "split 'dev'"),
        ({"kind": "secret"}, "kind 'secret'"),
        ({"masks": {}}, "has no masks"),
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


def test_a_full_disk_leaves_no_file_open(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="File too large"), writer(tmp_path / "s") as w:
            w.add("v_1", split="train", kind="labelled", frames=FRAMES, masks={MASK: MASKS})
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))  # what is written is still in memory
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            found.append(link.readlink())
    assert found and not [path for path in found if path.is_relative_to(tmp_path)]


def test_a_disk_that_is_full_when_shards_roll_over_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskcast.data.clip_store.shards.SHARD_BYTES", FRAMES.nbytes + 1)
    with pytest.raises(OSError, match="No space left"), writer(tmp_path / "s") as w:
        (tmp_path / "s/frames-00000.npy").symlink_to("/dev/full")  # what is written is still in memory
        for k in range(2):
            w.add(f"v_{k}", split="train", kind="labelled", frames=FRAMES, masks={MASK: MASKS})


def test_ignore_is_a_valid_mask_value(tmp_path: Path) -> None:
    masks = np.full_like(MASKS, IGNORE)
    with writer(tmp_path / "s") as w:
        w.add("v", split="train", kind="labelled", masks={MASK: masks})
    store = ClipStore(tmp_path / "s")
    np.testing.assert_array_equal(store.masks(store.clips[0]), masks)


def test_a_store_of_no_clips(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as w:
        w.skip("v", "no frames")
    store = ClipStore(tmp_path / "s")
    assert (len(store.clips), list(store.clips), "v" in store) == (0, [], False)
    with pytest.raises(MaskcastError, match="holds no clips; it has nothing"):
        store.select()


def test_clips_that_take_turns_are_found_in_their_order(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as w:
        for k in range(7):
            split = ("train", "val")[k % 2]
            w.add(f"v_{k}", split=split, kind="labelled", masks={MASK: MASKS[: 1 + k % 3]})
    store = ClipStore(tmp_path / "s")
    chosen = store.select("train")
    assert [clip.id for clip in chosen] == ["v_0", "v_2", "v_4", "v_6"]
    assert chosen.frame_counts().tolist() == [1, 3, 2, 1]
    assert [clip.id for clip in chosen[1:3]] == ["v_2", "v_4"]
    assert chosen[-1].id == "v_6"
    assert all(store.get(f"v_{k}").id == f"v_{k}" for k in range(7))
    assert "v_7" not in store
