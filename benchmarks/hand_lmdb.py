"""Memory to list, read and write a set of hands of 100,000 keys against one of 1,000.

    python benchmarks/hand_lmdb.py [--few 1000] [--many 100000]

Images are 16 x 16 pixels without masks, with a list of JSON lines. Bytes are the highest that Python and
NumPy hold at once (tracemalloc) beyond what was held before. `a key` is what each further key costs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from _common import positive_int, print_table
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.listing_checks import check_ids, check_splits
from maskcast.data.lmdb_files import write_lmdb
from maskcast.data.sources.base import Listing
from maskcast.data.sources.hand_lmdb import HandLmdbSource
from maskcast.errors import one_line_errors

SIZE, BATCH = 16, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=positive_int, default=1000, help="keys of the small set")
    parser.add_argument("--many", type=positive_int, default=100_000, help="keys of the large set")
    args = parser.parse_args()
    counts = (args.few, args.many)
    with tempfile.TemporaryDirectory() as folder:
        measured = [measure(write_set(Path(folder) / str(count), count)) for count in counts]
    rows = []
    for name, (few, few_s) in measured[0].items():
        many, many_s = measured[1][name]
        each = (many - few) / (args.many - args.few)
        rows.append(
            (name, f"{few / 1024:.0f}", f"{many / 1024:.0f}", f"{each:.1f}", f"{few_s:.2f}", f"{many_s:.2f}")
        )
    header = ("what", *(f"{count} keys, KiB" for count in counts), "a key, bytes", *(f"{n}, s" for n in counts))
    print_table("Highest memory, and CPU seconds with the measurement on", header, rows)


def write_set(raw: Path, count: int) -> Path:
    """Writes an LMDB of ``count`` images and its list; returns the folder."""
    raw.mkdir()
    image = bytes(cv2.imencode(".jpg", np.full((SIZE, SIZE, 3), 90, np.uint8))[1])
    write_lmdb(raw / "images.lmdb", ((path_of(k), image) for k in range(count)))
    box = {"bbox": [0, 0, SIZE, SIZE], "hand_type": "right"}
    with (raw / "list.jsonl").open("w") as file:
        for k in range(count):
            file.write(json.dumps({"img_path": f"./{path_of(k)}"} | box) + "\n")
    return raw


def path_of(number: int) -> str:
    return (
        f"data/InterHand2.6M/images/train/Capture{number % 26}/0001_hand/cam400{number % 10}/image{number:06d}.jpg"
    )


def measure(raw: Path) -> dict[str, tuple[int, float]]:
    """Returns the peak of allocated bytes, and the seconds, of each step by name."""
    source = HandLmdbSource(images="images.lmdb", lists={"unlabeled": "list.jsonl"})
    found: dict[str, tuple[int, float]] = {}

    def step(name: str, run: Callable[[], object]) -> object:
        tracemalloc.start()
        begun = time.process_time()
        done = run()
        found[name] = tracemalloc.get_traced_memory()[1], time.process_time() - begun
        tracemalloc.stop()
        return done

    listing = step("list", lambda: source.listing(raw, height=SIZE, width=SIZE, seed=0))
    assert isinstance(listing, Listing)
    step("check ids", lambda: check_ids(listing))
    step("check splits", lambda: check_splits(raw, listing, source, required=()))
    random = np.random.default_rng(0)
    step(
        "read a batch", lambda: [listing.clips[k].load() for k in random.integers(len(listing.clips), size=BATCH)]
    )
    step("write the store", lambda: write_store(raw / "clips", listing))
    step("read a batch of the store", lambda: list(read_batch(raw / "clips", random)))
    return found


def write_store(root: Path, listing: Listing) -> None:
    """Writes a store of all clips, with the same frame in each."""
    frames = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    with ClipWriter(root, height=SIZE, width=SIZE, maps=listing.maps) as writer:
        for clip in listing.clips:
            writer.add(clip.id, split=clip.split, kind=clip.kind, frames=frames, meta=clip.meta)


def read_batch(root: Path, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields the frames of random clips from a newly opened store."""
    store = ClipStore(root)
    clips = store.select("unlabeled")
    for k in random.integers(len(clips), size=BATCH):
        yield store.frames(clips[int(k)])


if __name__ == "__main__":
    with one_line_errors():
        main()
