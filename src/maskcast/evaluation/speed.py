"""How long a segmenter takes, and how much memory.

Legend: T frames, H height, W width, C = 3 channels.
"""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from maskcast.inference.segment import segment_whole
from maskcast.inference.session import Session
from maskcast.memory import told_by_linux
from maskcast.models.base import best_device, count_parameters
from maskcast.models.segmentation.base import Segmenter

WARM_UP, TIMED = 11, 30  # frames: system 1 left out 11
CLIPS = 3  # times that the clip is masked whole
MIB = 2**20


class Speed(NamedTuple):
    """What a segmenter costs on one device.

    Attributes:
        device: its name.
        parameters: weights that can be learnt.
        frame_ms: median milliseconds of a frame that is shown by itself, from uint8 frame to uint8 masks.
        clip_ms: median milliseconds of the whole clip in batches.
        clip_frames: frames of that clip.
        memory_mib: greatest memory beyond that before it was loaded while frames are shown one by one: of the
            device, or on a CPU of the process (NaN where the system does not tell).
    """

    device: str
    parameters: int
    frame_ms: float
    clip_ms: float
    clip_frames: int
    memory_mib: float


def measure(
    load: Callable[[], Segmenter], frames_THWC: np.ndarray, batch_size: int, precision: str
) -> tuple[Segmenter, Speed]:
    """Loads a segmenter onto the best device, and measures it; the device has finished whenever a clock is read.

    A process that has measured another one before holds memory of it: measure each in a process of its own.

    Args:
        load: returns it.
        frames_THWC: a clip, uint8 RGB.
        batch_size: frames per forward pass where the clip is masked whole.
        precision: ``bf16`` or ``fp32``.
    """
    device = best_device()
    before = _memory("VmRSS")
    segmenter = load().to(device)
    times = []
    with Session(segmenter, precision=precision, cuts=False) as session:
        for t in range(WARM_UP + TIMED):
            if not t % len(frames_THWC):
                session.reset()
            times.append(seconds_of(partial(session.step, frames_THWC[t % len(frames_THWC)]), device))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _memory("VmHWM") - before
    mask = partial(segment_whole, segmenter, frames_THWC, batch_size=batch_size, precision=precision)
    whole = [seconds_of(mask, device) for _ in range(CLIPS)]
    return segmenter, Speed(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        parameters=count_parameters(segmenter),
        frame_ms=1000 * statistics.median(times[WARM_UP:]),
        clip_ms=1000 * statistics.median(whole),
        clip_frames=len(frames_THWC),
        memory_mib=peak / MIB,
    )


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Returns how many seconds work takes, the device's part included."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(name: str) -> float:
    told = told_by_linux(name)
    return math.nan if told is None else told
