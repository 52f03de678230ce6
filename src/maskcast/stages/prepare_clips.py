"""prepare_clips: raw videos of any layout -> a clip store of one size."""

import multiprocessing
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

from maskcast.data.clip_table import id_hash
from maskcast.data.clip_writer import ClipWriter
from maskcast.data.clips import ClipStore
from maskcast.data.composing import BACKGROUNDS
from maskcast.data.images import resize_frames, resize_masks
from maskcast.data.left_out import LEFT_OUT, show_left_out
from maskcast.data.sources.base import Arrays, Listing, RawClip
from maskcast.data.sources.table import Source
from maskcast.errors import MaskcastError, PicturedError
from maskcast.labels import IGNORE, LabelError, MapKind, Split
from maskcast.params import Params
from maskcast.processors import num_processors
from maskcast.progress import say, track
from maskcast.rehearsal import handful, rehearsing
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.stopping import children_ignore_ctrl_c

REASONS_SAID = 5
TRAINING: tuple[Split, ...] = ("train", "val")

Loaded = tuple[Arrays, float]  # and width / height of the video


class PrepareClips(Params):
    """Params of prepare_clips."""

    source: Source
    """The raw layout and what it needs to know."""
    height: int | None = Field(default=None, ge=1)
    """Rows of the clips; null keeps the size of the source, which must then be one and the same."""
    width: int | None = Field(default=None, ge=1)
    """Columns of the clips, likewise."""
    workers: int = Field(default=0, ge=0)
    """Processes that read clips; 0 is one per CPU."""
    seed: int = Field(default=0, ge=0)
    """Seed of what the source draws."""
    on_error: Literal["skip", "fail"] = "skip"
    """Whether a clip that cannot be read is left out and reported, or stops the stage."""
    required_splits: tuple[Split, ...] = Field(default=TRAINING, exclude_if=lambda value: value == TRAINING)
    """Splits that must have clips: what follows learns from `train` and is scored on `val`. [] for clips that are
    to be masked alone; [val] to be scored."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> "PrepareClips":
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width must be set together or not at all")
        return self


@stage
def prepare_clips(*, raw: InPath, clips: OutPath, params: PrepareClips) -> None:
    """Writes the clips of a raw folder into a clip store.

    Raises:
        MaskcastError: when the layout is not the one named, labels contradict the params, sizes differ although
            none is set, an id occurs twice, a split that is required has no clips, or one loses all its clips.
    """
    listing = params.source.list(raw, height=params.height, width=params.width, seed=params.seed)
    _check_ids(listing)
    _check_splits(raw, listing, params)
    if rehearsing():
        _take_handful(listing)
    meta = {**listing.meta, "layout": params.source.layout}
    size = None if params.height is None or params.width is None else (params.height, params.width)
    unreadable: list[tuple[str, str]] = []
    pictured: dict[str, PicturedError] = {}
    loaded = track(_load_all(listing, size, params.workers), "preparing clips", len(listing.clips))
    readable = _readable(loaded, unreadable, pictured, params.on_error)
    first = next(readable, None)
    if first is None:
        raise MaskcastError(f"{raw}: no clips left to prepare{_reasons([*listing.skipped, *unreadable])}")
    height, width = _size(first[1])
    if listing.backgrounds:
        meta[BACKGROUNDS] = _write_backgrounds(clips / BACKGROUNDS, listing, (height, width), params.workers)
    written: Counter[str] = Counter()
    shown: dict[tuple[str, str], bool] = {}  # by split and map: whether a mask has foreground
    void = {one.name: IGNORE if one.kind == "classes" else 0 for one in listing.maps}
    narrowest, widest = first[2], first[2]
    with ClipWriter(clips, height=height, width=width, maps=listing.maps, meta=meta) as writer:
        for clip, arrays, aspect in chain([first], readable):
            narrowest, widest = min(narrowest, aspect), max(widest, aspect)
            if (found := _size(arrays)) != (height, width):
                sizes = f"{found[0]}x{found[1]}, {first[0].id!r} is {height}x{width}"
                raise MaskcastError(f"{raw}: clip {clip.id!r} is {sizes}; set height and width of prepare_clips")
            writer.add(clip.id, split=clip.split, kind=clip.kind, meta=clip.meta, **vars(arrays))
            written[clip.split] += 1
            for name, mask in arrays.masks.items():
                shown[clip.split, name] = shown.get((clip.split, name), False) or bool(
                    ((mask != 0) & (mask != void.get(name))).any()
                )
        for name, reason in [*listing.skipped, *unreadable]:
            writer.skip(name, reason)
        notes = [*listing.notes, *(_without_foreground(*place) for place, some in shown.items() if not some)]
        if notes:
            writer.meta["notes"] = notes
        if max(abs(aspect * height - width) for aspect in (narrowest, widest)) > 1:  # frames are stretched
            writer.meta["source_aspect"] = [round(narrowest, 3), round(widest, 3)]
        lost = {clip.split for clip in listing.clips} - set(written)
        if lost:
            raise MaskcastError(f"{raw}: no clip of split {min(lost)!r} can be read{_reasons(unreadable)}")
    show_left_out(clips, pictured)
    if pictured:
        notes.append(f"{len(pictured)} clips are left out that {clips / LEFT_OUT / 'index.html'} shows")
    _report(written, [*listing.skipped, *unreadable], notes)


def _check_ids(listing: Listing) -> None:
    hashes = np.fromiter((id_hash(clip.id) for clip in listing.clips), np.uint64, len(listing.clips))
    order = np.argsort(hashes, kind="stable")
    for k in np.flatnonzero(np.diff(hashes[order]) == 0):
        one, other = (listing.clips[int(row)] for row in order[k : k + 2])
        if one.id == other.id:
            splits = f"{one.split} and {other.split}"
            raise MaskcastError(f"clip id {one.id!r} occurs twice (splits {splits}); rename one of them")


def _check_splits(raw: Path, listing: Listing, params: PrepareClips) -> None:
    """Stops before anything is read where a later stage could only fail."""
    whole = Counter(clip.split for clip in listing.clips if clip.has_frames)
    # Where there are frames, no masker learns from masks alone; where there are none, forecasters do.
    found = whole or Counter(clip.split for clip in listing.clips)
    missing = [split for split in params.required_splits if not found[split]]
    if not found or not missing:  # where nothing was found, another line says so
        return
    have = ", ".join(f"{count} {split}" for split, count in found.items())
    why = "and one clip cannot be both learnt from and scored; " if found.total() == 1 else ""
    others = ", ".join(split for split in params.required_splits if found[split])
    raise MaskcastError(
        f"{raw}: no clip of split {missing[0]!r} (found: {have}), {why}mend {params.source.splits_come_from}"
        f"{_reasons(listing.skipped) if listing.skipped else ''}; where nothing is to be trained, set "
        f"prepare_clips.required_splits to [{others}]"
    )


def _take_handful(listing: Listing) -> None:
    """Leaves a few clips of each kind in the listing, and the backgrounds that they need."""
    behind = {clip.meta.get("background") for clip in listing.clips}
    others = [one for one in listing.backgrounds if one.id not in behind]
    kept = handful(others, lambda one: f"backgrounds/{one.split}")
    listing.backgrounds = [one for one in listing.backgrounds if one.id in behind] + kept
    listing.clips = handful(
        listing.clips, lambda clip: f"{clip.split}/{clip.kind}/{'frames' if clip.has_frames else 'masks'}"
    )


def _load_all(
    listing: Listing, size: tuple[int, int] | None, workers: int
) -> Iterator[tuple[RawClip, Loaded | MaskcastError]]:
    """Yields every clip with its arrays or what is wrong with it, in order, a bounded number of them in flight."""
    workers = min(workers or num_processors(), len(listing.clips))
    load = partial(_load, kinds={each.name: each.kind for each in listing.maps}, size=size)
    if workers <= 1:
        for clip in listing.clips:
            yield clip, load(clip)
        return
    # spawn: a forked child would inherit locks held by the threads of this process
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
    flight: deque[tuple[RawClip, Future[Loaded | MaskcastError]]] = deque()
    waiting = iter(listing.clips)
    try:
        with children_ignore_ctrl_c():  # the first of these starts the workers
            for clip in islice(waiting, 2 * workers):
                flight.append((clip, pool.submit(load, clip)))
        while flight:
            done, future = flight.popleft()
            result = future.result()
            for clip in islice(waiting, 1):
                flight.append((clip, pool.submit(load, clip)))
            yield done, result
    except BrokenProcessPool as error:
        raise MaskcastError("a worker of prepare_clips died, perhaps for lack of memory; lower workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _load(clip: RawClip, *, kinds: Mapping[str, MapKind], size: tuple[int, int] | None) -> Loaded | MaskcastError:
    try:
        arrays = clip.load()
    except LabelError:
        raise
    except MaskcastError as error:
        return error
    height, width = _size(arrays)
    if size is None:
        return arrays, width / height
    frames = None if arrays.frames is None else resize_frames(arrays.frames, *size)
    resize = {name: resize_frames if kinds.get(name) == "alpha" else resize_masks for name in arrays.masks}
    masks = {name: resize[name](mask, *size) for name, mask in arrays.masks.items()}
    return Arrays(frames, masks, arrays.objects), width / height


def _readable(
    loaded: Iterable[tuple[RawClip, Loaded | MaskcastError]],
    unreadable: list[tuple[str, str]],
    pictured: dict[str, PicturedError],
    on_error: str,
) -> Iterator[tuple[RawClip, Arrays, float]]:
    """Yields the clips that could be read and notes the others, or stops at the first of them."""
    for clip, result in loaded:
        if not isinstance(result, MaskcastError):
            yield clip, *result
        elif on_error == "fail":
            raise result
        else:
            unreadable.append((f"{clip.split}/{clip.id}", str(result)))
            if isinstance(result, PicturedError):
                pictured[clip.id] = result


def _write_backgrounds(root: Path, listing: Listing, size: tuple[int, int], workers: int) -> str:
    """Writes the store of backgrounds; returns its digest."""
    backgrounds = Listing(listing.backgrounds, ())
    with ClipWriter(root, height=size[0], width=size[1], maps=()) as writer:
        for clip, result in track(
            _load_all(backgrounds, size, workers), "preparing backgrounds", len(listing.backgrounds)
        ):
            if isinstance(result, MaskcastError):
                writer.skip(f"{clip.split}/{clip.id}", str(result))
            else:
                writer.add(clip.id, split=clip.split, kind=clip.kind, frames=result[0].frames, meta=clip.meta)
    return ClipStore(root).digest


def _size(arrays: Arrays) -> tuple[int, int]:
    layer = next(iter(arrays.masks.values())) if arrays.frames is None else arrays.frames
    return layer.shape[1], layer.shape[2]


def _reasons(skipped: list[tuple[str, str]]) -> str:
    if not skipped:
        return "; mend the path or source.layout"
    return f"; {len(skipped)} left out, first {skipped[0][0]}: {skipped[0][1]}"


def _without_foreground(split: str, name: str) -> str:
    return (
        f"warning: no {name} of split {split!r} has foreground, so scores on it say nothing; look at the "
        "files, and at what source says of their values"
    )


def _report(written: Counter[str], skipped: list[tuple[str, str]], notes: list[str]) -> None:
    counts = ", ".join(f"{count} {split}" for split, count in written.items())
    say(f"prepared {written.total()} clips ({counts}); left out {len(skipped)} items")
    for note in notes:
        say(f"  {note}")
    for item, reason in skipped[:REASONS_SAID]:
        say(f"  {item}: {reason}")
    if len(skipped) > REASONS_SAID:
        say(f"  ... and {len(skipped) - REASONS_SAID} more: see 'skipped' of index.json")
