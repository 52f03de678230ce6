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

from maskcast.inference.agreement import Agreement
from maskcast.inference.found import Found, joined, length, sliced
from maskcast.inference.worker import FoundPart, Part, Worker
from maskcast.models.segmentation.base import Segmenter
from maskcast.processors import num_processors
from maskcast.rehearsal import note, rehearsing

AT_ONCE = 3  # batches per worker: one being read, one on the device, one waiting for it
MOST_BYTES = 2**30  # limit for probabilities in further batches, if all pixels were foreground

Turn = tuple[int, list[Part]]  # index of a worker, and its next batch
Chunks = Iterable[np.ndarray]  # consecutive pieces of a clip, uint8 RGB (T, H, W, C)


def segment(
    segmenter: Segmenter, chunks: Chunks, *, batch_size: int, precision: str, consistent_frames: int | None = None
) -> Iterator[Found]:
    """Yields the predictions for one clip, piece by piece, in the order of its frames.

    It reads no further frame while a full batch is waiting, on which ``Session`` relies.

    Args:
        segmenter: in eval mode, on its device.
        chunks: the clip.
        batch_size: frames per forward pass.
        precision: ``bf16`` or ``fp32``.
        consistent_frames: length of the windows in which masks are made consistent (see ``Agreement``); None masks
            each frame by itself.
    """
    worker = Worker(segmenter, precision, consistent_frames is not None)
    yield from segment_by(worker, chunks, batch_size=batch_size, consistent_frames=consistent_frames)


def segment_by(
    worker: Worker, chunks: Chunks, *, batch_size: int, consistent_frames: int | None = None
) -> Iterator[Found]:
    """Like ``segment``, with a worker that may be reused for several clips and keeps its recorded network."""
    parts = chain.from_iterable(map(worker, _batches([(0, chunks)], batch_size)))
    yield from _agreeing((found for _, found in parts if found is not None), consistent_frames)


def segment_whole(segmenter: Segmenter, frames_THWC: np.ndarray, *, batch_size: int, precision: str) -> Found:
    """Returns the predictions for a clip that fits into memory, each frame masked by itself."""
    return joined(list(segment(segmenter, [frames_THWC], batch_size=batch_size, precision=precision)))


def segment_both(
    segmenter: Segmenter,
    frames_THWC: np.ndarray,
    *,
    batch_size: int,
    precision: str,
    consistent_frames: int | None,
) -> tuple[Found, Found]:
    """Returns the predictions for a clip with each frame by itself, and after they are made consistent."""
    worker = Worker(segmenter, precision, consistent_frames is not None)
    alone = joined(list(segment_by(worker, [frames_THWC], batch_size=batch_size)))
    agreed = joined(list(_agreeing([alone], consistent_frames)))
    return {name: one._replace(objects=None) for name, one in alone.items()}, agreed


def segment_clips(
    replicas: Sequence[Segmenter],
    clips: Sequence[Chunks],
    *,
    batch_size: int,
    precision: str,
    objects: bool = False,
    confidence_levels: int | None = None,
) -> Iterator[tuple[int, Found]]:
    """Yields the predictions for many clips: the index of a clip, and its next piece.

    The pieces of a clip come in order. For a segmenter with state, pieces of as many clips as there are replicas
    may alternate.

    Args:
        replicas: copies of one segmenter, each on a device of its own; they work in parallel.
        clips: the frames of each.
        batch_size: frames per forward pass.
        precision: ``bf16`` or ``fp32``.
        objects: whether to include the probabilities of foreground pixels, which ``Agreement`` needs.
        confidence_levels: number of steps to which confidence is rounded, unless ``objects`` is true.
    """
    numbered, count = list(enumerate(clips)), len(replicas)
    turns: Iterator[Turn]
    if replicas[0].stateful:
        lanes = [_clip_by_clip(numbered[k::count], batch_size) for k in range(count)]
        turns = chain.from_iterable(enumerate(batches) for batches in zip_longest(*lanes, fillvalue=[]))
    else:
        turns = ((k % count, batch) for k, batch in enumerate(_batches(numbered, batch_size)))
    workers = [Worker(replica, precision, objects, confidence_levels) for replica in replicas]
    if rehearsing():
        turns = _warmed(workers, turns)
    parts = chain.from_iterable(_side_by_side(workers, turns))
    yield from ((number, found) for number, found in parts if found is not None)


def frame_by_frame(pieces: Iterable[tuple[int, Found]]) -> Iterator[tuple[int, Found] | None]:
    """Yields each piece, followed by None for each further frame of it, so that progress counts frames."""
    for piece in pieces:
        yield piece
        yield from repeat(None, length(piece[1]) - 1)


def _warmed(workers: Sequence[Worker], turns: Iterator[Turn]) -> Iterator[Turn]:
    """Warms up GPUs with the first batch, and returns all batches."""
    first = next(turns)
    began = time.monotonic()
    for worker in workers:
        worker.warm_up(first[1])
    note(within=time.monotonic() - began)
    return chain([first], turns)


def segment_future(
    segmenter: Segmenter, seen_THWC: np.ndarray, made_hHWC: np.ndarray, *, batch_size: int, precision: str
) -> Found:
    """Returns the predictions for frames that a forecaster made.

    Args:
        segmenter: see ``segment``.
        seen_THWC: the frames before, which a segmenter with state sees first.
        made_hHWC: the forecast frames.
        batch_size: frames per forward pass.
        precision: ``bf16`` or ``fp32``.
    """
    before = len(seen_THWC) if segmenter.stateful else 0
    frames = np.concatenate([seen_THWC, made_hHWC]) if before else made_hHWC
    found = segment_whole(segmenter, frames, batch_size=batch_size, precision=precision)
    return sliced(found, slice(before, None))


def _batches(clips: Iterable[tuple[int, Chunks]], size: int) -> Iterator[list[Part]]:
    """Yields batches of ``size`` frames of all clips laid end to end, as parts of one clip each."""
    parts: list[Part] = []
    room = size
    for number, chunks in clips:
        for chunk in chunks:
            for start in _cuts(len(chunk), room, size):
                piece = chunk[start : start + room]
                parts.append((number, piece))
                room -= len(piece)
                if not room:
                    yield parts
                    parts, room = [], size
        parts.append((number, None))
    yield parts


def _clip_by_clip(clips: Iterable[tuple[int, Chunks]], size: int) -> Iterator[list[Part]]:
    """Yields batches of at most ``size`` frames, each of one clip."""
    return chain.from_iterable(_batches([clip], size) for clip in clips)


def _cuts(length: int, first: int, size: int) -> Iterator[int]:
    """Yields the starts of a chunk's pieces: the first completes a batch, the others have ``size`` frames."""
    yield from range(min(length, 1))
    yield from range(first, length, size)


def _agreeing(pieces: Iterable[Found], consistent_frames: int | None) -> Iterator[Found]:
    """Yields the pieces of a clip unchanged, or consistent windows of it, see ``Agreement``."""
    if consistent_frames is None:
        yield from pieces
        return
    agreement = Agreement(consistent_frames)
    for found in pieces:
        yield from agreement.add(found)
    yield from agreement.end()


def _side_by_side(workers: Sequence[Worker], turns: Iterable[tuple[int, list[Part]]]) -> Iterator[list[FoundPart]]:
    """Yields the workers' results in the order of ``turns`` (index of the worker, and its batch).

    Each worker has a thread of its own. While a GPU works on the next batch, the results of earlier ones are
    copied to the host, where each processor post-processes one. ``AT_ONCE`` batches per worker are in memory, plus
    one per processor if they are small.
    """
    pools, processors = [ThreadPoolExecutor(1, thread_name_prefix="segmenter") for _ in workers], num_processors()
    finishing = ThreadPoolExecutor(processors, thread_name_prefix="found")
    running: deque[Future[list[FoundPart]]] = deque()
    try:
        for turn, parts in turns:
            begun = pools[turn].submit(workers[turn].begin, parts)
            running.append(finishing.submit(_finished, begun))
            if len(running) >= AT_ONCE * len(workers) + _more(parts, workers[turn].segmenter, processors):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for pool in (*pools, finishing):
            pool.shutdown(cancel_futures=True)


def _finished(begun: "Future[Callable[[], list[FoundPart]]]") -> list[FoundPart]:
    return begun.result()()


def _more(parts: Sequence[Part], segmenter: Segmenter, processors: int) -> int:
    """Returns how many further batches like this one may be in memory."""
    pixels = sum(frames_THWC[..., 0].size for _, frames_THWC in parts if frames_THWC is not None)
    classes = sum(one.num_classes for one in segmenter.maps)
    return min(processors - 1, MOST_BYTES // max(1, 4 * pixels * classes))
