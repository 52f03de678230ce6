"""Frames a second of one core: the clip store's reader against a loader that opens one PNG per frame with PIL.

    python benchmarks/reader.py [--rounds 7] [--clips 40]

Both return the whole clip, (22, 160, 240, 3) uint8 in memory of its own, for 8 random clips of 40 in turn. Files
are in the page cache. The frames are simulated ones with sensor noise, so the PNGs are of a realistic size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from _common import interleaved, print_table, ratio
from maskcast.data.clip_writer import ClipWriter
from maskcast.data.clips import ClipStore
from maskcast.labels import single_map
from maskcast.memory import keep_freed_memory
from maskcast.simulator.scenes import simulate_clip

FRAMES, HEIGHT, WIDTH, READ = 22, 160, 240, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, default=40)
    given = parser.parse_args()
    rounds = given.rounds
    torch.set_num_threads(1)
    keep_freed_memory()  # as every stage does; half of the time would be page faults
    with tempfile.TemporaryDirectory() as folder:
        store, pngs = write_both(Path(folder), given.clips)
        picks = iter(np.random.default_rng(0).integers(0, given.clips, (4 * rounds + 8, READ)))

        def packed() -> list[np.ndarray]:
            return [store.frames(store.clips[clip]).copy() for clip in next(picks)]

        def per_frame() -> list[np.ndarray]:
            return [np.stack([np.asarray(Image.open(path)) for path in pngs[clip]]) for clip in next(picks)]

        np.testing.assert_array_equal(
            store.frames(store.clips[0]), np.stack([np.asarray(Image.open(path)) for path in pngs[0]])
        )
        seconds = interleaved({"PNG per frame, PIL": per_frame, "clip store": packed}, rounds)
    base = seconds["PNG per frame, PIL"]
    rows = [
        (name, f"{READ * FRAMES / statistics.median(taken):.0f}", f"{ratio(base, taken):.1f}")
        for name, taken in seconds.items()
    ]
    print_table(f"Reading frames, {HEIGHT}x{WIDTH} (equal bit for bit)", ("reader", "frames/s", "times"), rows)


def write_both(folder: Path, clips: int) -> tuple[ClipStore, list[list[Path]]]:
    """Writes the same clips as a store and as PNGs, and returns the store and the paths of each clip."""
    pngs = []
    with ClipWriter(folder / "store", height=HEIGHT, width=WIDTH, maps=single_map(["background"])) as writer:
        for clip in range(clips):
            frames, _ = simulate_clip(clip, frames=FRAMES, height=HEIGHT, width=WIDTH)
            assert frames is not None
            writer.add(f"video_{clip}", split="unlabeled", kind="unlabelled", frames=frames)
            pngs.append([folder / f"video_{clip}_{k}.png" for k in range(FRAMES)])
            for path, frame in zip(pngs[-1], frames, strict=True):
                Image.fromarray(frame).save(path)
    return ClipStore(folder / "store"), pngs


if __name__ == "__main__":
    main()
