"""Segments clips; all inference of segmenters on frames goes through this module.

Frames come in chunks of any length and are regrouped into batches of a fixed length, counted from the first frame.
So predictions do not depend on the chunks, and memory does not grow with the clip. A segmenter with state gets
each clip by itself, from its first frame on. One without state gets batches that may include several clips.

Legend: T frames, H height, W width, C = 3 colour channels, K classes, P foreground pixels.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat, zip_longest

import numpy as np

from maskcast.dry_run_notes import is_dry_run, write_note
from maskcast.inference.predictions import Predictions, concatenate, count_frames, take_frames
from maskcast.inference.streaming_consistency import StreamingConsistency
from maskcast.inference.worker import Part, PredictedPart, Worker
from maskcast.models.segmentation.base import Segmenter
from maskcast.resources import num_cpus

BATCHES_IN_FLIGHT = 3  # batches per worker: one being read, one on the device, one waiting for it
MAX_EXTRA_BYTES = 2**30  # limit for probabilities in further batches, if all pixels were foreground

Job = tuple[int, list[Part]]  # index of a worker, and its next batch
Chunks = Iterable[np.ndarray]  # consecutive pieces of a clip, uint8 RGB (T, H, W, C)


def segment(worker: Worker, chunks: Chunks, *, batch_size: int, objects: bool = False) -> Iterator[Predictions]:
    """Yields the predictions for one clip, each frame masked by itself, piece by piece in the order of its frames.

    It reads no further frame while a full batch is waiting, on which ``Session`` relies.

    Args:
        worker: runs the segmenter; may be reused for several clips.
        chunks: the clip.
        batch_size: frames per forward pass.
        objects: whether to include the probabilities of foreground pixels, which ``StreamingConsistency`` needs.
    """
    parts = chain.from_iterable(worker(batch, objects) for batch in _batches([(0, chunks)], batch_size))
    yield from (predictions for _, predictions in parts if predictions is not None)


def segment_whole(worker: Worker, frames_THWC: np.ndarray, *, batch_size: int) -> Predictions:
    """Returns the predictions for a clip that fits into memory, each frame masked by itself."""
    return concatenate(list(segment(worker, [frames_THWC], batch_size=batch_size)))


def segment_raw_and_consistent(
    worker: Worker, frames_THWC: np.ndarray, *, batch_size: int, consistent_frames: int | None
) -> tuple[Predictions, Predictions]:
    """Returns the predictions for a clip with each frame by itself, and after they are made consistent.

    Args:
        worker: see ``segment``.
        frames_THWC: the clip.
        batch_size: frames per forward pass.
        consistent_frames: length of the windows of ``StreamingConsistency``; None leaves each frame by itself.
    """
    objects = consistent_frames is not None
    raw = concatenate(list(segment(worker, [frames_THWC], batch_size=batch_size, objects=objects)))
    if consistent_frames is None:
        return raw, raw
    consistency = StreamingConsistency(consistent_frames)
    consistent = concatenate([*consistency.add(raw), *consistency.end()])
    return {name: prediction._replace(probabilities=None) for name, prediction in raw.items()}, consistent


def segment_clips(
    replicas: Sequence[Segmenter],
    clips: Sequence[Chunks],
    *,
    batch_size: int,
    precision: str,
    objects: bool = False,
    confidence_levels: int | None = None,
) -> Iterator[tuple[int, Predictions]]:
    """Yields the predictions for many clips: the index of a clip, and its next piece.

    The pieces of a clip come in order. For a segmenter with state, pieces of as many clips as there are replicas
    may alternate.

    Args:
        replicas: copies of one segmenter, each on a device of its own; they work in parallel.
        clips: the frames of each.
        batch_size: frames per forward pass.
        precision: ``bf16`` or ``fp32``.
        objects: whether to include the probabilities of foreground pixels, which ``StreamingConsistency`` needs.
        confidence_levels: number of steps to which confidence is rounded, unless ``objects`` is true.
    """
    numbered, count = list(enumerate(clips)), len(replicas)
    jobs: Iterator[Job]
    if replicas[0].stateful:
        # each batch is of one clip
        per_replica = [
            chain.from_iterable(_batches([clip], batch_size) for clip in numbered[k::count]) for k in range(count)
        ]
        jobs = chain.from_iterable(enumerate(batches) for batches in zip_longest(*per_replica, fillvalue=[]))
    else:
        jobs = ((k % count, batch) for k, batch in enumerate(_batches(numbered, batch_size)))
    workers = [Worker(replica, precision, confidence_levels) for replica in replicas]
    if is_dry_run():
        jobs = _warmed_up(workers, jobs, objects)
    parts = chain.from_iterable(_run_in_parallel(workers, jobs, objects))
    yield from ((number, predictions) for number, predictions in parts if predictions is not None)


def frame_by_frame(pieces: Iterable[tuple[int, Predictions]]) -> Iterator[tuple[int, Predictions] | None]:
    """Yields each piece, followed by None for each further frame of it, so that progress counts frames."""
    for piece in pieces:
        yield piece
        yield from repeat(None, count_frames(piece[1]) - 1)


def _warmed_up(workers: Sequence[Worker], jobs: Iterator[Job], objects: bool) -> Iterator[Job]:
    """Warms up GPUs with the first batch, and returns all batches."""
    first = next(jobs)
    start = time.monotonic()
    for worker in workers:
        worker.warm_up(first[1], objects)
    write_note(within=time.monotonic() - start)
    return chain([first], jobs)


def segment_future(
    worker: Worker, context_THWC: np.ndarray, forecast_hHWC: np.ndarray, *, batch_size: int
) -> Predictions:
    """Returns the predictions for frames that a forecaster made.

    Args:
        worker: see ``segment``.
        context_THWC: the frames before, which a segmenter with state sees first.
        forecast_hHWC: the forecast frames.
        batch_size: frames per forward pass.
    """
    num_context = len(context_THWC) if worker.segmenter.stateful else 0
    frames = np.concatenate([context_THWC, forecast_hHWC]) if num_context else forecast_hHWC
    predictions = segment_whole(worker, frames, batch_size=batch_size)
    return take_frames(predictions, slice(num_context, None))


def _batches(clips: Iterable[tuple[int, Chunks]], size: int) -> Iterator[list[Part]]:
    """Yields batches of ``size`` frames of all clips laid end to end, as parts of one clip each."""
    parts: list[Part] = []
    room = size
    for number, chunks in clips:
        for chunk in chunks:
            for start in _piece_starts(len(chunk), room, size):
                piece = chunk[start : start + room]
                parts.append((number, piece))
                room -= len(piece)
                if not room:
                    yield parts
                    parts, room = [], size
        parts.append((number, None))
    yield parts


def _piece_starts(length: int, first: int, size: int) -> Iterator[int]:
    """Yields the starts of a chunk's pieces: the first completes a batch, the others have ``size`` frames."""
    yield from range(min(length, 1))
    yield from range(first, length, size)


def _run_in_parallel(
    workers: Sequence[Worker], jobs: Iterable[tuple[int, list[Part]]], objects: bool
) -> Iterator[list[PredictedPart]]:
    """Yields the workers' results in the order of ``jobs`` (index of the worker, and its batch).

    Each worker has a thread of its own. While a GPU works on the next batch, the results of earlier ones are
    copied to the host, where each processor post-processes one. ``BATCHES_IN_FLIGHT`` batches per
    worker are in memory, plus one per processor if they are small.
    """
    pools, processors = [ThreadPoolExecutor(1, thread_name_prefix="segmenter") for _ in workers], num_cpus()
    finishing = ThreadPoolExecutor(processors, thread_name_prefix="results")
    running: deque[Future[list[PredictedPart]]] = deque()
    try:
        for k, parts in jobs:
            started = pools[k].submit(workers[k].begin, parts, objects)
            running.append(finishing.submit(_wait_for, started))
            if len(running) >= BATCHES_IN_FLIGHT * len(workers) + _extra_batches(
                parts, workers[k].segmenter, processors
            ):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for pool in (*pools, finishing):
            pool.shutdown(cancel_futures=True)


def _wait_for(started: "Future[Callable[[], list[PredictedPart]]]") -> list[PredictedPart]:
    return started.result()()


def _extra_batches(parts: Sequence[Part], segmenter: Segmenter, processors: int) -> int:
    """Returns how many further batches like this one may be in memory."""
    pixels = sum(frames_THWC[..., 0].size for _, frames_THWC in parts if frames_THWC is not None)
    classes = sum(label_map.num_classes for label_map in segmenter.maps)
    return min(processors - 1, MAX_EXTRA_BYTES // max(1, 4 * pixels * classes))
