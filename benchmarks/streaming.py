"""A masker that remembers on a long video: memory beside a short one, and speed beside its single-frame base.

    python benchmarks/streaming.py [--frames 500 10000] [--rounds 3] [--size 270 512] [--base smp_deeplabv3plus]

Memory is the largest resident memory, as Linux counted it, of `maskcast segment` with a new background, in a
process of its own. Frames are tiny, so that what grows with their number is what is seen. Speed is of sessions,
which are shown one frame after the other; every version of the memory is measured next to the base, round by
round. Weights are random. An accelerator is used where there is one.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch

from _common import positive_int, print_table, ratio, time_interleaved
from maskcast.errors import one_line_errors
from maskcast.inference.session import Session
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.base import best_device
from maskcast.models.segmentation.configs import FrameConfig, RecurrentConfig, SmpConfig, UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.simulator.scenes import simulate_clip

HEIGHT, WIDTH = 32, 48  # of the frames for memory measurements
MAPS = (LabelMap("person", ("background", "person")), LabelMap("matte", ("background", "person"), "alpha"))
SHOWN = 10  # frames per round
PEAK = """
import sys
from maskcast.__main__ import main
code = main(sys.argv[1:])
print("peak KiB:", open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--frames", type=positive_int, nargs="*", default=[500, 10_000], help="none leaves memory out"
    )
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--size", type=positive_int, nargs=2, default=[270, 512], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--base", default="smp_deeplabv3plus", help="smp_unet, smp_deeplabv3plus, ... or unet")
    parser.add_argument("--encoder", default="mobilenet_v2", help="of an smp base")
    args = parser.parse_args()
    torch.manual_seed(0)
    speed(args.base, args.encoder, args.size[0], args.size[1], args.rounds)
    if args.frames:
        memory(args.frames, args.rounds)


def speed(arch: str, encoder: str, height: int, width: int, rounds: int) -> None:
    base: FrameConfig = UNetConfig(width=16) if arch == "unet" else SmpConfig(arch=arch, encoder=encoder)
    places = ("logits", "decoder", "decoder_split", *(("scales",) if "unet" in arch else ()))
    configs = {"base": base} | {f"gru, {place}": RecurrentConfig(base=base, place=place) for place in places}
    frames, _ = simulate_clip(0, frames=SHOWN, height=height, width=width)
    assert frames is not None
    device = best_device()
    variants: dict[str, Callable[[], object]] = {}
    for name, config in configs.items():
        segmenter = config.build(MAPS[:1]).to(device).eval()
        variants[name] = partial(show, Session(Worker(segmenter, "fp32"), cuts=False), frames)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = time_interleaved(variants, rounds, clock)
    rows = [
        (name, f"{SHOWN / statistics.median(taken):.2f}", f"{ratio(seconds['base'], taken):.2f}")
        for name, taken in seconds.items()
    ]
    where = "CPU seconds" if device.type == "cpu" else torch.cuda.get_device_name()
    title = f"{arch}{'' if arch == 'unet' else f' {encoder}'} at {height}x{width}, one frame at a time, {where}"
    print_table(title, ("memory", "frames/s", "of the base's"), rows)


def show(session: Session, frames: np.ndarray) -> None:
    for frame in frames:
        session.step(frame)  # its masks are back on the host, so the computation has ended


def memory(counts: list[int], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = RecurrentConfig(base=UNetConfig(width=2))
        save_masker(folder / "masker", config.build(MAPS), config, {"height": HEIGHT, "width": WIDTH})
        for count in counts:
            write_video(folder / f"{count}.mp4", count)
        taken: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
        for number in range(rounds):
            for count in random.sample(counts, len(counts)):
                taken[count].append(segmented(folder, count, folder / f"out{number}"))
    peaks = {count: statistics.median(peak for peak, _ in found) for count, found in taken.items()}
    rows = [
        (
            count,
            f"{peak:.1f}",
            f"{peak / peaks[counts[0]]:.3f}",
            f"{statistics.median(s for _, s in taken[count]):.0f}",
        )
        for count, peak in peaks.items()
    ]
    title = f"maskcast segment --background --alpha, {HEIGHT}x{WIDTH}, sound included"
    print_table(title, ("frames", "peak MiB", f"of {counts[0]} frames", "seconds"), rows)


def segmented(folder: Path, count: int, output: Path) -> tuple[float, float]:
    """Runs the command in a process of its own; returns its peak memory in MiB, and seconds."""
    words = ["segment", f"{folder / str(count)}.mp4", "--model", str(folder / "masker"), "--output", str(output)]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words, "--background", "white", "--alpha"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.partition("peak KiB:")[2]) / 1024, time.perf_counter() - start


def write_video(path: Path, count: int) -> None:
    """Writes a video of a moving square, with a tone."""
    import av

    with av.open(str(path), "w") as container:
        stream, tone = container.add_stream("mpeg4", rate=25), container.add_stream("aac", rate=48_000)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for k in range(count):
            picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            picture[10:20, k % (WIDTH - 10) :][:, :10] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            wave = np.sin(np.arange(1920 * k, 1920 * (k + 1)) / 20, dtype=np.float32)[None]
            sound = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            sound.sample_rate, sound.pts, sound.time_base = 48_000, 1920 * k, Fraction(1, 48_000)
            container.mux(tone.encode(sound))
        for each in (stream, tone):
            container.mux(each.encode(None))


if __name__ == "__main__":
    with one_line_errors():
        main()
