"""A clip store of 100,000 clips against one of 1,000: to open it, to list a split, to read a random batch.

    python benchmarks/clip_store.py [--rounds 21] [--few 1000] [--many 100000]

Every clip is 4 frames of 8 x 8 pixels and their masks; every tenth is of the split val. Milliseconds of the
CPU, medians; files are in the page cache. `times` is the median over the rounds of many / few.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from _common import positive_int, print_table, ratio, time_interleaved
from maskcast.data.clip_store.frame_index import FrameIndex
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import one_line_errors
from maskcast.labels import MASK, single_map

FRAMES, SIZE, BATCH, PAGE = 4, 8, 16, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=21)
    parser.add_argument("--few", type=positive_int, default=1000, help="clips of the small store")
    parser.add_argument("--many", type=positive_int, default=100_000, help="clips of the large store")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"few": args.few, "many": args.many}
        roots = {name: write_store(Path(folder) / name, clips) for name, clips in sizes.items()}
        rows = []
        for title, operation in (("open", opened), ("list", listed), ("batch", batch), ("all three", everything)):
            calls = {name: operation(root) for name, root in roots.items()}
            seconds = time_interleaved(calls, args.rounds)
            few, many = (f"{1000 * statistics.median(seconds[name]):.2f}" for name in sizes)
            rows.append((title, few, many, f"{ratio(seconds['many'], seconds['few']):.2f}"))
    header = ("operation", f"{args.few} clips", f"{args.many} clips", "times")
    print_table(f"Milliseconds to open, list and read {BATCH} random frames and masks", header, rows)


def write_store(root: Path, clips: int) -> Path:
    """Writes a store with this many clips and returns its folder."""
    rng = np.random.default_rng(0)
    with ClipWriter(root, height=SIZE, width=SIZE, maps=single_map(["background", "a"])) as writer:
        for k in range(clips):
            frames = rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
            masks = {MASK: frames[..., 0] // 128}
            split = "val" if k % 10 == 9 else "train"
            writer.add(f"video_{k}", split=split, kind="labelled", frames=frames, masks=masks, meta={"start": k})
    return root


def opened(root: Path) -> Callable[[], object]:
    """Opens the store, as every stage does first."""
    return partial(ClipStore, root)


def listed(root: Path) -> Callable[[], object]:
    """Selects a split of an open store, indexes its frames, and returns the ids of the clips on one page."""
    store = ClipStore(root)

    def call() -> object:
        chosen = store.select("train", "labelled")
        return len(FrameIndex(chosen)), [clip.id for clip in chosen[:PAGE]]

    return call


def batch(root: Path) -> Callable[[], object]:
    """Reads random frames and their masks, as in train_masker."""
    store = ClipStore(root)
    chosen = store.select("train", "labelled")
    return partial(_batch, store, chosen, FrameIndex(chosen), np.random.default_rng(0))


def everything(root: Path) -> Callable[[], object]:
    """Does all three, starting with opening the store."""

    def call() -> object:
        store = ClipStore(root)
        chosen = store.select("train", "labelled")
        return _batch(store, chosen, FrameIndex(chosen), np.random.default_rng(0))

    return call


def _batch(
    store: ClipStore, chosen: Sequence[Clip], index: FrameIndex, random: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for frame in random.integers(len(index), size=BATCH):
        k, t = index.at(int(frame))
        found.append((store.frames(chosen[k])[t].copy(), store.masks(chosen[k], slice(t, t + 1))))
    return found


if __name__ == "__main__":
    with one_line_errors():
        main()
