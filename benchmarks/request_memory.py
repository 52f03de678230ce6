"""Memory of a request to a served model: in bounded pieces, and all at once, as it was before the bounds.

    python benchmarks/request_memory.py [--rounds 3] [--models masker pipeline] [--frames 11] [--size 640 776]

Each request is of a process of its own, a fork of one that has loaded the model; it tells by how much its resident
memory rose. All at once is the same code with its limits (`maskcast.models.limits`) out of reach. Both answers are
compared. Weights are random. Of itself a clip has 15.6 of the 64 MiB that a request may have.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from _common import positive_int, print_table, write_untrained
from maskcast.errors import one_line_errors

ADDRESSES = {"masker": "masker", "pipeline": "maskcast"}  # in the folder from `write_untrained`
PIECES, WHOLE = "in pieces", "all at once"
LOADED = f"""
import hashlib, os, sys
import numpy as np, torch
from maskcast.models import limits
from maskcast.registry.loading import load_servable

def kib(key):
    with open("/proc/self/status") as file:
        return int(file.read().partition(key + ":")[2].split()[0])

torch.set_num_threads(1)
address, clip, *forms = sys.argv[1:]
model, frames = load_servable(address).model, np.load(clip)
known = [(module, name) for module in list(sys.modules.values()) for name in ("CHUNK_NUMBERS", "MAX_NUMBERS")
         if getattr(module, name, None) == getattr(limits, name)]
for form in forms:
    if os.fork():
        os.wait()
        continue
    if form == {WHOLE!r}:
        for module, name in known:
            setattr(module, name, 2**60)
    before = kib("VmRSS")
    answer = model.predict(frames)
    print(kib("VmHWM") - before, hashlib.sha256(answer.tobytes()).hexdigest(), form, flush=True)
    os._exit(0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--models", nargs="+", choices=tuple(ADDRESSES), default=list(ADDRESSES))
    parser.add_argument("--frames", type=positive_int, default=11, help="of the clip, and of its future")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[640, 776], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=positive_int, default=49)
    args = parser.parse_args()
    rises: dict[tuple[str, str], list[float]] = {}
    answers: dict[str, set[str]] = {name: set() for name in args.models}
    with tempfile.TemporaryDirectory() as place:
        folder, size = Path(place), tuple(args.size)
        write_untrained(folder, args.classes, *size, seen=args.frames, horizon=args.frames)
        clip = np.random.default_rng(0).integers(0, 256, (args.frames, *size, 3), np.uint8)
        np.save(folder / "clip.npy", clip)
        for name in args.models:
            forms = [form for _ in range(args.rounds) for form in random.sample((PIECES, WHOLE), 2)]
            for rise, digest, form in requests(folder / ADDRESSES[name], folder / "clip.npy", forms):
                rises.setdefault((name, form), []).append(rise)
                answers[name].add(digest)
    rows = []
    for name in args.models:
        pieces, whole = (statistics.median(rises[name, form]) for form in (PIECES, WHOLE))
        same = "equal" if len(answers[name]) == 1 else "differ"
        rows.append((name, f"{whole:.0f}", f"{pieces:.0f}", f"{whole / pieces:.2f}", same))
    title = f"Memory of a request of {args.frames}x{size[0]}x{size[1]}, {args.classes} classes"
    print_table(title, ("model", f"{WHOLE}, MiB", f"{PIECES}, MiB", "ratio", "answers"), rows)


def requests(model: Path, clip: Path, forms: list[str]) -> list[tuple[float, str, str]]:
    """Makes requests; returns the rise of memory in MiB, a hash of the answer, and the variant for each."""
    words = [sys.executable, "-c", LOADED, str(model), str(clip), *forms]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [form for *_, form in lines] == forms, "a request has failed"
    return [(int(rise) / 1024, digest, form) for rise, digest, form in lines]


if __name__ == "__main__":
    with one_line_errors():
        main()
