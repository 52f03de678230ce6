"""A sequence on disk: its frames in order, their masks, and where frame numbers are missing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from maskcast.data.footage import Footage
from maskcast.data.frame_names import (
    consecutive_runs,
    find_same_number,
    format_names,
    original_name,
    unsupported_suffixes,
)
from maskcast.data.sources.pairing import PairedMasks, numbers_of, pair_by_name, pair_by_number
from maskcast.data.sources.patterns import SequencePaths
from maskcast.data.video_files.timing import Timing, read_timing, uneven_rates
from maskcast.errors import MaskcastError
from maskcast.labels import natural_sort_key
from maskcast.reading import pluralize

REMEDY = "set source.mask_suffix or source.offset, or name both by {frame} in source.images and source.masks"


@dataclass(frozen=True)
class SequenceFiles:
    """Frames and masks of a sequence.

    Attributes:
        frames: the video, or one image per frame.
        masks: one file or None per frame.
        runs: ranges of frames with consecutive numbers.
        unpaired: a text that says which masks have no frame, and which rule was tried; empty if all have one.
        gap: a text that says where numbers are missing; empty if none are.
        unsupported: suffixes of files beside the frames that are no supported images; empty if there are none.
        timing: when the frames of the video are shown; None for images.
    """

    frames: Footage
    masks: Sequence[Path | None]
    runs: Sequence[range]
    unpaired: str = ""
    gap: str = ""
    unsupported: str = ""
    timing: Timing | None = None

    @property
    def masked(self) -> dict[int, Path]:
        """The masks by the indices of their frames."""
        return {k: mask for k, mask in enumerate(self.masks) if mask is not None}


def pair_files(
    images: SequencePaths,
    masks: SequencePaths | None,
    location: Path,
    *,
    suffix: str,
    offset: int | None,
    labelled: bool,
) -> SequenceFiles:
    """Returns the frames of a sequence, paired with its masks if it is ``labelled``.

    Args:
        images: the frames.
        masks: the masks; None without.
        location: place of the masks, for errors.
        suffix: suffix that the name of a mask in a folder adds to its frame's.
        offset: see `pair_by_number`; None pairs images by name.
        labelled: whether masks are required.

    Raises:
        MaskcastError: if two frames or two masks have one name, there are no masks, or no mask has a frame.
    """
    mask_images = {} if masks is None else masks.by_name(suffix)
    if labelled and not mask_images:
        suffixes = unsupported_suffixes(location) if location.is_dir() else ""
        raise MaskcastError(
            f"{location}: no mask images{f' (it has {suffixes})' if suffixes else ''}; fix source.masks or put "
            "the sequence into unlabeled, or into hidden if nothing may learn from it"
        )
    if images.video is not None:
        timing = read_timing(images.video)
        numbers = range(timing.count)
        pairs = pair_by_number(numbers, mask_images, offset, str(location)) if labelled else _no_pairs(numbers)
        unpaired = _unpaired_text(pairs, images.video.name)
        return SequenceFiles(Footage(video=images.video), pairs.masks, [numbers], unpaired, timing=timing)
    # masks may be frames
    frames = _frames_without_masks(images, {} if images == masks and not suffix else mask_images)
    keys = sorted(frames, key=natural_sort_key)
    pairs = _no_pairs(keys)
    if labelled and offset is None:
        pairs = pair_by_name(keys, mask_images, suffix)
    elif labelled:
        of_frames = list(numbers_of(keys, str(frames[keys[0]].parent), "images").values())
        pairs = pair_by_number(of_frames, mask_images, offset, str(location))
    ranges = consecutive_runs([original_name(key) for key in keys])
    next_file = frames[keys[ranges[1].start]] if len(ranges) > 1 else None
    is_folder_per_frame = next_file is not None and next_file.name == frames[keys[0]].name  # a folder per frame
    gap = (
        f"they do not go on at {'/'.join(next_file.parts[-2 if is_folder_per_frame else -1 :])}"
        if next_file is not None
        else ""
    )
    files = [frames[key] for key in keys]
    unpaired = _unpaired_text(pairs, format_names(files))
    return SequenceFiles(Footage(files), pairs.masks, ranges, unpaired, gap, images.unsupported)


def sequence_notes(footage: Mapping[str, SequenceFiles]) -> Iterator[str]:
    """Yields notes for the owner of the data, one line each."""
    unlabelled = {name: files.masks.count(None) for name, files in footage.items() if any(files.masks)}
    if missing := {name: count for name, count in unlabelled.items() if count}:
        name, count = next(iter(missing.items()))
        yield (
            f"{pluralize(sum(missing.values()), 'frame')} of {pluralize(len(missing), 'labelled sequence')} "
            f"without mask and label ({name}: {count} of {len(footage[name].masks)})"
        )
    if unsupported := {name: files for name, files in footage.items() if files.unsupported}:
        name, files = next(iter(unsupported.items()))
        yield (
            f"{pluralize(len(unsupported), 'sequence', 'holds', 'hold')} files in unsupported image formats "
            f"({name}: {files.unsupported}); save them as PNG if they are frames"
        )
    if gaps := {name: files for name, files in footage.items() if files.gap}:
        name, files = next(iter(gaps.items()))
        yield (
            f"{pluralize(len(gaps), 'sequence', 'has', 'have')} gaps in the numbers of frames, and no clip "
            f"spans one ({name}: {files.gap})"
        )


def rate_warnings(
    footage: Mapping[str, SequenceFiles], fps: float | None, labelled: Mapping[str, Collection[int]]
) -> Iterator[str]:
    """Yields warnings about frame rates, one line each.

    Args:
        footage: the sequences.
        fps: frames per second that are taken of videos; None takes all.
        labelled: by sequence, the indices of frames with labels.
    """
    timings = {name: files.timing for name, files in footage.items() if files.timing is not None}
    if fps is None:
        if text := uneven_rates(timings):
            yield f"warning: {text}"
        return
    lost = 0
    for name in timings.keys() & labelled.keys():
        with suppress(MaskcastError):  # sequences that are left out
            lost += len({*labelled[name]}.difference(timings[name].take(fps)))
    if lost:
        total = sum(map(len, labelled.values()))
        yield (
            f"warning: {lost} of {pluralize(total, 'labelled frame')} are not among the frames that source.fps "
            f"{fps:g} takes, and are not used"
        )


def _frames_without_masks(images: SequencePaths, masks: Mapping[str, Path]) -> dict[str, Path]:
    """Returns the images of a sequence that are not among its masks, by frame key.

    Raises:
        MaskcastError: if there are none, or names in a folder do not tell frames from other images.
    """
    remedy = "name the frames by {frame} in source.images, e.g. {clip}/{frame}.jpg"
    try:
        frames = images.by_name(exclude=masks.values())
    except MaskcastError as error:
        raise MaskcastError(f"{error}, or {remedy}") from None
    if images.folder is not None and (pair := find_same_number(frames)) is not None:
        raise MaskcastError(
            f"{images.folder}: {frames[pair[0]].name} and {frames[pair[1]].name} have the same number, so not all "
            f"images are frames; {remedy}"
        )
    if not frames:
        but = f" (but {images.unsupported})" if images.unsupported else ""
        raise MaskcastError(
            f"{images.paths[0]}: holds no images{but}{' beside masks' if masks else ''}; save the frames as PNG"
        )
    return frames


def _no_pairs(frames: Sequence[object]) -> PairedMasks:
    return PairedMasks([None] * len(frames), [], "")


def _unpaired_text(pairs: PairedMasks, frames: str) -> str:
    """Returns a text that says which masks have no frame; empty if all have one.

    Raises:
        MaskcastError: if no mask has a frame.
    """
    if not pairs.unpaired:
        return ""
    first = format_names(pairs.unpaired)
    if not any(pairs.masks):
        raise MaskcastError(
            f"{pairs.unpaired[0].parent}: no mask ({first}) matches a frame ({frames}) by the rule: {pairs.rule}; "
            + REMEDY
        )
    return f"{pluralize(len(pairs.unpaired), 'mask')} ({first}) without a frame by the rule: {pairs.rule}"
