"""Peak memory of `forecast` and `generate_masks` on a long video and on a short one, side by side.

    python benchmarks/video_length.py [--frames 500 10000] [--rounds 3]

Each command runs in a process of its own, which tells its largest resident memory as Linux counted it. Frames are
tiny, and so are the models: what is left is what grows with the number of frames. The frames of a clip store are
memory-mapped, and count as far as they were read.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import yaml

from _common import positive_int, print_table, write_untrained
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import one_line_errors
from maskcast.labels import single_map

HEIGHT, WIDTH, CLASSES = 16, 24, 3
PEAK = """
import sys
from maskcast.__main__ import main
code = main(sys.argv[1:])
status = open("/proc/self/status").read()
print("peak KiB:", status.partition("VmHWM:")[2].split()[0])
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=positive_int, nargs=2, default=[500, 10_000], metavar=("SHORT", "LONG"))
    parser.add_argument("--rounds", type=positive_int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_untrained(folder, CLASSES, HEIGHT, WIDTH, seen=11, horizon=11, channels=2)
        (folder / "params.yaml").write_text(yaml.safe_dump({"generate_masks": {"precision": "fp32"}}))
        for count in args.frames:
            write_video(folder / f"{count}.mp4", count)
            write_clip(folder / f"clips-{count}", count)
        peaks: dict[tuple[str, int], list[float]] = {}
        for _ in range(args.rounds):
            for count in random.sample(args.frames, 2):
                for name, command in commands(folder, count).items():
                    peaks.setdefault((name, count), []).append(peak_mib(command))
    rows = []
    for name in dict.fromkeys(name for name, _ in peaks):
        short, long = (statistics.median(peaks[name, count]) for count in args.frames)
        rows.append((name, f"{short:.1f}", f"{long:.1f}", f"{long / short:.3f}"))
    header = ("command", *(f"{count} frames, MiB" for count in args.frames), "ratio")
    print_table("Peak memory of a process, by the length of its video", header, rows)


def commands(folder: Path, count: int) -> dict[str, list[str]]:
    """Returns the commands for the video, or the clip, of `count` frames."""
    number = len(list(folder.glob("out-*")))
    out = folder / f"out-{number}"
    out.mkdir()
    forecast = ["forecast", str(folder / f"{count}.mp4"), "--model", str(folder / "maskcast")]
    masks = ["generate_masks", "--params", str(folder / "params.yaml"), "--clips", str(folder / f"clips-{count}")]
    return {
        "forecast": [*forecast, "--output", str(out / "forecasts")],
        "generate_masks": [
            *masks,
            *("--masker", str(folder / "masker"), "--masks", str(out / "masks")),
            *("--metrics", str(out / "masks.json")),
        ],
    }


def peak_mib(command: list[str]) -> float:
    """Runs a command and returns its peak resident memory in MiB."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{Path(command[-1]).parent / 'mlflow.db'}"}
    words = [sys.executable, "-c", PEAK, *command]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.rpartition("peak KiB:")[2]) / 1024


def frames(count: int) -> np.ndarray:
    """Returns a video (T, H, W, C) uint8 of slowly changing noise."""
    steps = np.random.default_rng(0).integers(-3, 4, (count, HEIGHT, WIDTH, 3), dtype=np.int8)
    return (128 + steps.cumsum(0, dtype=np.int32)).astype(np.uint8)


def write_video(path: Path, count: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in frames(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_clip(root: Path, count: int) -> None:
    maps = single_map(f"class {k}" for k in range(CLASSES))
    with ClipWriter(root, height=HEIGHT, width=WIDTH, maps=maps) as writer:
        writer.add("video", split="hidden", kind="hidden", frames=frames(count))


if __name__ == "__main__":
    with one_line_errors():
        main()
