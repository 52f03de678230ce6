"""Measures the speed and memory of a segmenter.

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
from maskcast.inference.worker import Worker
from maskcast.memory import process_memory
from maskcast.models.base import best_device, count_parameters
from maskcast.models.segmentation.base import Segmenter

WARM_UP_FRAMES, TIMED_FRAMES = 11, 30  # frames; system 1 also skipped 11
CLIP_REPEATS = 3  # repetitions of masking the whole clip
MIB = 2**20


class Speed(NamedTuple):
    """Time and memory of a segmenter on one device.

    Attributes:
        device: name of the device.
        parameters: number of learnable weights.
        frame_ms: median milliseconds per single frame, from uint8 frame to uint8 masks.
        clip_ms: median milliseconds for the whole clip in batches.
        clip_frames: number of frames of that clip.
        memory_mib: peak memory with single frames, minus the memory before loading; what PyTorch allocates on the
            device or, on a CPU, that of the process (NaN if the system does not tell).
    """

    device: str
    parameters: int
    frame_ms: float
    clip_ms: float
    clip_frames: int
    memory_mib: float


def measure_speed(
    load: Callable[[], Segmenter], frames_THWC: np.ndarray, batch_size: int, precision: str
) -> tuple[Segmenter, Speed]:
    """Loads a segmenter onto the best device, and measures it, synchronising the device at each clock reading.

    Measure each segmenter in a process of its own, because memory of an earlier one may still be held.

    Args:
        load: returns the segmenter.
        frames_THWC: a clip, uint8 RGB.
        batch_size: frames per forward pass for the whole clip.
        precision: ``bf16`` or ``fp32``.
    """
    device = best_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    baseline = torch.cuda.memory_allocated(device) if device.type == "cuda" else _memory("VmRSS")
    segmenter = load().to(device)
    times, worker = [], Worker(segmenter, precision)
    with Session(worker, cuts=False) as session:
        for t in range(WARM_UP_FRAMES + TIMED_FRAMES):
            if not t % len(frames_THWC):
                session.reset()
            times.append(seconds_of(partial(session.step, frames_THWC[t % len(frames_THWC)]), device))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _memory("VmHWM")
    mask = partial(segment_whole, worker, frames_THWC, batch_size=batch_size)
    clip_times = [seconds_of(mask, device) for _ in range(CLIP_REPEATS)]
    return segmenter, Speed(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        parameters=count_parameters(segmenter),
        frame_ms=1000 * statistics.median(times[WARM_UP_FRAMES:]),
        clip_ms=1000 * statistics.median(clip_times),
        clip_frames=len(frames_THWC),
        memory_mib=(peak - baseline) / MIB,
    )


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds that ``work`` takes, including asynchronous work of the device."""
    _synchronize(device)
    start = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(name: str) -> float:
    value = process_memory(name)
    return math.nan if value is None else value
