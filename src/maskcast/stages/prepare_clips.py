"""prepare_clips: convert raw videos or images of any layout to a clip store with one frame size."""

import shutil
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.clip_survey import ClipSurvey
from maskcast.data.compositing import BACKGROUNDS
from maskcast.data.left_out import LeftOut
from maskcast.data.listing_checks import check_ids, check_meta, check_splits, list_clips, skip_reasons
from maskcast.data.loading import frame_size, load_all, only_readable
from maskcast.data.mirror_swaps import side_warnings, sides_of_maps
from maskcast.data.shared_frames import SharedFrames, frame_hashes
from maskcast.data.sources.base import Arrays, Listing, RawClip
from maskcast.data.sources.table import Source
from maskcast.dry_run_notes import first_of_each_part, is_dry_run
from maskcast.errors import MaskcastError
from maskcast.labels import MIRROR_SWAPS, Split, mirror_swaps_from_json
from maskcast.params import Params
from maskcast.progress import say, track
from maskcast.reading import format_bytes, pluralize
from maskcast.runner.outputs import final_path
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.seed import draw_at_most, rng

MAX_REASONS = 5
TRAINING: tuple[Split, ...] = ("train", "val")


class PrepareClips(Params):
    """Params of prepare_clips."""

    source: Source
    """Layout of the raw data, and how to read it."""
    height: int | None = Field(default=None, ge=1)
    """Height of the clips in pixels; null keeps the size of the source, which must then be the same for all
    clips."""
    width: int | None = Field(default=None, ge=1)
    """Width of the clips in pixels, likewise."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of clips of each split and kind (labelled, unlabelled, hidden), drawn with the seed, to try a
    pipeline on a large data set; null takes all."""
    workers: int = Field(default=0, ge=0)
    """Processes that read clips; 0 starts one per CPU."""
    seed: int = Field(default=0, ge=0)
    """Seed of the source's random choices, and of `limit`."""
    on_error: Literal["skip", "fail"] = "skip"
    """Clips that cannot be read: `skip` leaves them out and reports them, `fail` stops the stage."""
    required_splits: tuple[Split, ...] = TRAINING
    """Splits that must have clips: later stages train on `train` and are scored on `val`. Use [] for clips that
    are only masked, [val] for clips that are scored."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> "PrepareClips":
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width must be set together or not at all")
        return self


@stage
def prepare_clips(*, raw: InPath, clips: OutPath, params: PrepareClips) -> None:
    """Converts a raw data set to a clip store.

    Args:
        raw: data set, the output of ``fetch_dataset``.
        clips: clip store.
        params: layout of the data set, and size of the clips.

    Raises:
        MaskcastError: the data do not have the layout, labels contradict the params, sizes differ but no size is
            set, an id is duplicate, a required split has no clips, or no clip of a split is readable.
    """
    from maskcast.report.left_out_page import write_left_out

    listing = list_clips(params.source, raw, height=params.height, width=params.width, seed=params.seed)
    check_ids(listing)
    check_splits(raw, listing, params.source, params.required_splits)
    found = len(listing.clips)
    if params.limit is not None:
        listing.clips = _draw_of_each_part(listing.clips, params.limit, params.seed)
    left_by_limit = found - len(listing.clips)
    if is_dry_run():
        _keep_few(listing)
    warnings = [*listing.warnings, *_side_warnings(listing)]
    check_meta(params.source, listing.meta, "the listing")
    for clip in (*listing.clips, *listing.backgrounds):
        check_meta(params.source, clip.meta, f"clip {clip.id!r}")
    meta = {**listing.meta, "layout": params.source.layout}
    size = None if params.height is None or params.width is None else (params.height, params.width)
    unreadable: list[tuple[str, str]] = []
    left_out = LeftOut(clips)
    loaded = track(load_all(listing, size, params.workers), "preparing clips", len(listing.clips))
    readable_clips = only_readable(loaded, unreadable, left_out, params.on_error)
    first = next(readable_clips, None)
    if first is None:
        raise MaskcastError(f"{raw}: no clips left to prepare{skip_reasons([*unreadable, *listing.skipped])}")
    _check_disk(clips, listing.clips, first[1].arrays)
    height, width = frame_size(first[1].arrays)
    shared_backgrounds = SharedFrames()
    if listing.backgrounds:
        root = clips / BACKGROUNDS
        meta[BACKGROUNDS] = _write_backgrounds(root, listing, (height, width), params.workers, shared_backgrounds)
    survey = ClipSurvey(listing.maps, params.source.splits_come_from)
    resized_masks = ""
    with ClipWriter(clips, height=height, width=width, maps=listing.maps, meta=meta) as writer:
        for clip, (arrays, aspect) in chain([first], readable_clips):
            if (clip_size := frame_size(arrays)) != (height, width):
                sizes = f"{clip_size[0]}x{clip_size[1]}, {first[0].id!r} is {height}x{width}"
                raise MaskcastError(f"{raw}: clip {clip.id!r} is {sizes}; set height and width of prepare_clips")
            resized_masks = resized_masks or arrays.mask_note(clip.id)
            clip_meta = clip.meta | survey.add(clip, arrays, aspect)
            writer.add(
                clip.id,
                split=clip.split,
                kind=clip.kind,
                meta=clip_meta,
                frames=arrays.frames,
                masks=arrays.masks,
                objects=arrays.objects,
            )
        for name, reason in [*listing.skipped, *unreadable]:
            writer.skip(name, reason)
        notes = [*listing.notes, *survey.warnings(), *shared_backgrounds.warnings("background frame")]
        writer.meta |= ({"notes": notes} if notes else {}) | survey.meta(height, width)
        missing = {clip.split for clip in listing.clips} - set(survey.written)
        if missing:
            raise MaskcastError(f"{raw}: no clip of split {min(missing)!r} can be read{skip_reasons(unreadable)}")
    # Not kept in the store, as new words would change its digest, and all that depends on it would run again.
    notes += [*warnings, *survey.missing_classes(), *survey.distortion(height, width)]
    notes += [resized_masks] if resized_masks else []
    if left_by_limit:
        notes.append(f"limit: {pluralize(left_by_limit, 'clip', 'is', 'are')} not prepared")
    if (page := write_left_out(left_out)) is not None:
        page_path = final_path(clips) / page.relative_to(clips)
        notes.append(f"{pluralize(len(left_out), 'clip', 'is', 'are')} left out, see {page_path}")
    _report(survey, [*listing.skipped, *unreadable], notes)


def _check_disk(clips: Path, listed: Sequence[RawClip], first: Arrays) -> None:
    """Checks early whether the frames of all clips fit on the disk, if they are as large as the first one's.

    Some may be shorter, so the stage stops only if not even half fits, and else says what it needs.

    Raises:
        MaskcastError: the disk is far too small.
    """
    if first.frames is None:
        return
    needed = sum(clip.has_frames for clip in listed) * first.frames.nbytes
    disk = shutil.disk_usage(clips.parent)
    if disk.free >= needed or not disk.total:  # some file systems report no sizes
        return
    text = f"needs {format_bytes(needed)} for the frames of the clips, but only {format_bytes(disk.free)} are free"
    remedy = "free some, lower height and width, or raise source.window_step"
    if 2 * disk.free < needed:
        raise MaskcastError(f"{final_path(clips)}: {text}; {remedy}")
    say(f"warning: {final_path(clips)} {text}; {remedy}")


def _side_warnings(listing: Listing) -> list[str]:
    """Returns warnings about left and right in names, which training confuses if they are not declared.

    Raises:
        MaskcastError: the source declares something other than pairs of names.
    """
    try:
        declared = mirror_swaps_from_json(listing.meta[MIRROR_SWAPS]) if MIRROR_SWAPS in listing.meta else None
    except ValueError as error:
        raise MaskcastError(f"{MIRROR_SWAPS} in the meta of the listing {error}; fix the layout") from None
    no_flip = "set train_masker.augment.hflip, and flip of the forecasters, to 0"
    return side_warnings(sides_of_maps(listing.maps), declared, no_flip)


def _keep_few(listing: Listing) -> None:
    """Leaves a few clips of each kind in the listing, and the backgrounds that they need."""
    used_ids = {clip.meta.get("background") for clip in listing.clips}
    unused = [clip for clip in listing.backgrounds if clip.id not in used_ids]
    kept = first_of_each_part(unused, lambda clip: f"backgrounds/{clip.split}")
    listing.backgrounds = [clip for clip in listing.backgrounds if clip.id in used_ids] + kept
    listing.clips = first_of_each_part(listing.clips, _part_of)


def _part_of(clip: RawClip) -> str:
    return f"{clip.split}/{clip.kind}/{'frames' if clip.has_frames else 'masks'}"


def _draw_of_each_part(clips: Sequence[RawClip], limit: int, seed: int) -> list[RawClip]:
    """Returns at most ``limit`` clips of each part, in the order of the listing."""
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        indices[_part_of(clip)].append(index)
    chosen = [draw_at_most(of_part, limit, rng(seed, 1)) for of_part in indices.values()]
    return [clips[index] for index in sorted(chain.from_iterable(chosen))]


def _write_backgrounds(
    root: Path, listing: Listing, size: tuple[int, int], workers: int, shared: SharedFrames
) -> str:
    """Writes the store of backgrounds, whose frames are added to ``shared``; returns its digest."""
    backgrounds = Listing(listing.backgrounds, ())
    with ClipWriter(root, height=size[0], width=size[1], maps=()) as writer:
        for clip, result in track(
            load_all(backgrounds, size, workers), "preparing backgrounds", len(listing.backgrounds)
        ):
            if isinstance(result, MaskcastError):
                writer.skip(f"{clip.split}/{clip.id}", str(result))
            else:
                frames = result.arrays.frames
                assert frames is not None
                shared.add(clip.split, clip.id, clip.meta["video"], frame_hashes(frames))
                writer.add(clip.id, split=clip.split, kind=clip.kind, frames=frames, meta=clip.meta)
    return ClipStore(root).digest


def _report(survey: ClipSurvey, skipped: list[tuple[str, str]], notes: list[str]) -> None:
    counts = ", ".join(f"{count} {split}" for split, count in survey.written.items())
    without_frames = f", {survey.masks_alone} of them masks without frames" if survey.masks_alone else ""
    left_out = f"; left out {pluralize(len(skipped), 'item')}" if skipped else ""
    say(f"prepared {pluralize(survey.written.total(), 'clip')} ({counts}){without_frames}{left_out}")
    for note in notes:
        say(f"  {note}")
    for item, reason in skipped[:MAX_REASONS]:
        say(f"  {item}: {reason}")
    if len(skipped) > MAX_REASONS:
        say(f"  ... and {len(skipped) - MAX_REASONS} more: see 'skipped' of index.json")
