"""Frames a second of one core: the clip store's reader against a loader that opens one PNG per picture with PIL.

    python benchmarks/reader.py [--rounds 7] [--clips 40]

Both return whole clips of 22 frames at 160x240 in memory of their own, for 8 random clips in turn: frames, masks,
and both as a labelled clip is read. Writing compresses masks in memory, and makes PNGs in memory. Files are in the
page cache. The frames are simulated ones with sensor noise, so the PNGs are of a realistic size.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from _common import positive_int, print_table, ratio, time_interleaved
from maskcast.data.clip_store.compression import compress
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import one_line_errors
from maskcast.labels import MASK, single_map
from maskcast.memory import keep_freed_memory
from maskcast.simulator.camera import CLASSES
from maskcast.simulator.scenes import simulate_clip

FRAMES, HEIGHT, WIDTH, READ = 22, 160, 240, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--clips", type=positive_int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = compare(args.rounds, args.clips)
    rows = [(what, f"{rate / times:.0f}", f"{rate:.0f}", f"{times:.1f}") for what, rate, times in found]
    header = ("what", "PNG, PIL: frames/s", "clip store: frames/s", "times")
    print_table(f"Clips of {FRAMES} frames, {HEIGHT}x{WIDTH} (equal bit for bit)", header, rows)


def compare(rounds: int, clips: int) -> list[tuple[str, float, float]]:
    """Returns for each task its name, the clip store's frames per second, and the ratio to PNG files.

    Args:
        rounds: number of timings.
        clips: number of clips to draw from.
    """
    keep_freed_memory()  # as in every stage; otherwise page faults take half of the time
    with tempfile.TemporaryDirectory() as folder:
        store, masks = write_both(Path(folder), clips)
        picks = np.random.default_rng(0).integers(0, clips, READ)

        def pngs(*names: str) -> list[np.ndarray]:
            paths = [
                [Path(folder) / f"{name}_{k}_{t}.png" for t in range(FRAMES)] for k in picks for name in names
            ]
            return [np.stack([np.asarray(Image.open(path)) for path in clip]) for clip in paths]

        def frames() -> list[np.ndarray]:
            return [store.frames(store.clips[k]).copy() for k in picks]

        def labels() -> list[np.ndarray]:
            return [store.masks(store.clips[k]) for k in picks]

        def save() -> None:
            for k in picks[:2]:
                for mask_HW in masks[k]:
                    Image.fromarray(mask_HW).save(io.BytesIO(), "PNG")

        for one, other in zip([*frames(), *labels()], [*pngs("frame"), *pngs("mask")], strict=True):
            np.testing.assert_array_equal(one, other)
        tasks = {
            "frames": (lambda: pngs("frame"), frames, 1.0),
            "masks": (lambda: pngs("mask"), labels, 1.0),
            "frames and masks": (lambda: pngs("frame", "mask"), lambda: (frames(), labels()), 1.0),
            "masks, written": (save, lambda: [compress(masks[k]) for k in picks], READ / 2),
        }
        found = []
        for name, (plain, ours, more) in tasks.items():
            seconds = time_interleaved({"plain": plain, "ours": ours}, rounds)
            rate = READ * FRAMES / statistics.median(seconds["ours"])
            found.append((name, rate, more * ratio(seconds["plain"], seconds["ours"])))
    return found


def write_both(folder: Path, clips: int) -> tuple[ClipStore, list[np.ndarray]]:
    """Writes the same clips as a store and as PNGs; returns the store and the masks of each clip."""
    every = []
    with ClipWriter(folder / "store", height=HEIGHT, width=WIDTH, maps=single_map(CLASSES)) as writer:
        for clip in range(clips):
            frames, masks = simulate_clip(clip, frames=FRAMES, height=HEIGHT, width=WIDTH)
            assert frames is not None
            writer.add(f"video_{clip}", split="train", kind="labelled", frames=frames, masks={MASK: masks})
            every.append(masks)
            for t, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
                Image.fromarray(frame).save(folder / f"frame_{clip}_{t}.png")
                Image.fromarray(mask).save(folder / f"mask_{clip}_{t}.png")
    return ClipStore(folder / "store"), every


if __name__ == "__main__":
    with one_line_errors():
        main()
