"""Reads and resizes the clips of a listing in worker processes, in order."""

import multiprocessing
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import psutil

from maskcast.data.images import resize_frames, resize_masks
from maskcast.data.left_out import LeftOut
from maskcast.data.sources.base import Arrays, Listing, RawClip
from maskcast.data.video_files.one_pass import WindowReader
from maskcast.errors import IllustratedError, MaskcastError
from maskcast.forking import init_spawned_process
from maskcast.labels import LabelError, LabelMap
from maskcast.resources import memory_limit, num_cpus
from maskcast.stopping import children_ignore_terminal

MAX_RUN = 64  # maximum number of clips that are read together
MEMORY_PART = 8  # clips that are read ahead may take so large a part of the free memory: 1 / 8


class Loaded(NamedTuple):
    """A clip that was read and resized."""

    arrays: Arrays
    aspect: float
    """Width / height of the video."""

    @property
    def num_bytes(self) -> int:
        """Size of its arrays."""
        frames = 0 if self.arrays.frames is None else self.arrays.frames.nbytes
        return frames + sum(mask.nbytes for mask in self.arrays.masks.values())


_Run = list[RawClip]  # clips that are read together


def load_all(
    listing: Listing, size: tuple[int, int] | None, workers: int
) -> Iterator[tuple[RawClip, Loaded | MaskcastError]]:
    """Yields each clip, in order, with its arrays or its error; reads only a limited number of clips ahead.

    Consecutive windows of a video are read together, so that its frames are decoded once.

    Args:
        listing: the clips and their label maps.
        size: (height, width) to resize to; None keeps the size.
        workers: number of processes; 0 is one per CPU.

    Raises:
        LabelError: labels contradict the params.
        MaskcastError: a process died, or a clip cannot be sent to one.
    """
    workers = min(workers or num_cpus(), len(listing.clips))
    load = partial(_load, maps={label_map.name: label_map for label_map in listing.maps}, size=size)
    if workers <= 1:
        for run in _runs(listing.clips, lambda: sys.maxsize):
            yield from zip(run, _load_run(run, _reader_of(run), load), strict=True)
        return
    _check_pickles(replace(listing.clips[0], video=None))
    ahead = min(memory_limit() or sys.maxsize, psutil.virtual_memory().available) // MEMORY_PART
    longest = 1  # until it is known how large a clip is
    runs = _runs(listing.clips, lambda: longest)
    # spawn: a forked child would inherit locks that threads of this process hold
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=init_spawned_process)
    in_flight: deque[tuple[_Run, Future[list[Loaded | MaskcastError]]]] = deque()

    def submit(count: int) -> None:
        for run in islice(runs, count):
            with children_ignore_terminal():  # submitting may start a worker, as the pool does when none is idle
                future = pool.submit(_load_whole_run, _without_video(run), _reader_of(run), load)
            in_flight.append((run, future))

    try:
        submit(2 * workers)
        while in_flight:
            run, future = in_flight.popleft()
            results = future.result()
            if sizes := [result.num_bytes for result in results if isinstance(result, Loaded)]:
                longest = min(MAX_RUN, max(1, ahead // (2 * workers * max(sizes))))
            submit(1)
            yield from zip(run, results, strict=True)
    except BrokenProcessPool as error:
        raise MaskcastError(
            "a worker of prepare_clips died; see its output above. Without output, it may have run out of "
            "memory: lower workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _runs(clips: Iterable[RawClip], longest: Callable[[], int]) -> Iterator[_Run]:
    """Yields runs of clips: consecutive windows of a video, or one clip of another source.

    Args:
        clips: in order.
        longest: returns the maximum length of the next run.
    """
    run: _Run = []
    for clip in clips:
        before = run[-1].video if run else None
        continued = before is not None and clip.video is not None and before.is_continued_by(clip.video)
        if run and not (continued and len(run) < longest()):
            yield run
            run = []
        run.append(clip)
    if run:
        yield run


def _reader_of(run: _Run) -> WindowReader | None:
    windows = [clip.video for clip in run if clip.video is not None]
    return WindowReader(windows) if windows else None


def _without_video(run: _Run) -> _Run:
    """Returns a run without what its reader knows, so that less is sent to a worker."""
    return [replace(clip, video=None) for clip in run]


def _load_run(
    run: _Run, reader: WindowReader | None, load: Callable[..., Loaded | MaskcastError]
) -> Iterator[Loaded | MaskcastError]:
    for clip in run:
        yield load(clip, {} if reader is None else {"read_video": reader.read})


def _load_whole_run(
    run: _Run, reader: WindowReader | None, load: Callable[..., Loaded | MaskcastError]
) -> list[Loaded | MaskcastError]:
    return list(_load_run(run, reader, load))


def _check_pickles(clip: RawClip) -> None:
    """Checks that a clip can be sent to a worker, which clips of another package may not.

    Raises:
        MaskcastError: it cannot.
    """
    try:
        pickle.dumps(clip)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise MaskcastError(
            f"clip {clip.id!r}: cannot be sent to a worker ({error}); make load a functools.partial of a function "
            "at the top of a module, with arguments that can be pickled"
        ) from error


def _load(
    clip: RawClip,
    options: Mapping[str, Any],
    *,
    maps: Mapping[str, LabelMap],
    size: tuple[int, int] | None,
) -> Loaded | MaskcastError:
    """Reads and resizes a clip.

    Args:
        clip: the clip.
        options: arguments of its `load` besides the size.
        maps: label maps by name.
        size: (height, width) to resize to; None keeps the size.
    """
    try:
        arrays = clip.read(size, **options)
    except LabelError:
        raise
    except MaskcastError as error:
        return error
    except Exception as error:  # a layout of another package may raise anything
        error.add_note(f"while loading clip {clip.id!r} of split {clip.split!r}")
        raise
    if not isinstance(arrays, Arrays):
        raise MaskcastError(
            f"clip {clip.id!r}: load returns {type(arrays).__name__}; return maskcast.data.sources.base.Arrays"
        )
    if arrays.frames is None and not arrays.masks:
        raise MaskcastError(
            f"clip {clip.id!r}: load returns neither frames nor masks; return one of them at least"
        )
    height, width = arrays.source_size or frame_size(arrays)
    if size is None:
        return Loaded(arrays, width / height)
    frames = None if arrays.frames is None else resize_frames(arrays.frames, *size)
    masks = {}
    for name, mask_THW in arrays.masks.items():
        label_map = maps.get(name)
        resize = resize_frames if label_map is not None and label_map.kind == "alpha" else resize_masks
        masks[name] = resize(mask_THW, *size)
    return Loaded(replace(arrays, frames=frames, masks=masks, source_size=None), width / height)


def only_readable(
    loaded: Iterable[tuple[RawClip, Loaded | MaskcastError]],
    unreadable: list[tuple[str, str]],
    left_out: LeftOut,
    on_error: str,
) -> Iterator[tuple[RawClip, Loaded]]:
    """Yields the readable clips and records the others, or stops at the first unreadable one.

    Args:
        loaded: result of `load_all`.
        unreadable: receives (item, reason) of unreadable clips.
        left_out: receives errors that come with a picture.
        on_error: `fail` to stop at the first error.

    Raises:
        MaskcastError: with `fail`, the first error.
    """
    for clip, result in loaded:
        if not isinstance(result, MaskcastError):
            yield clip, result
        elif on_error == "fail":
            raise result
        else:
            unreadable.append((f"{clip.split}/{clip.id}", str(result)))
            if isinstance(result, IllustratedError):
                left_out.add(clip.id, result)


def frame_size(arrays: Arrays) -> tuple[int, int]:
    """Returns height and width of a clip."""
    layer = next(iter(arrays.masks.values())) if arrays.frames is None else arrays.frames
    return layer.shape[1], layer.shape[2]
