"""Pairs frames and masks of all sequences: by name, or by number if names do not match."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maskcast.data.inspection.findings import Findings
from maskcast.data.sources.pairing import numbers_of
from maskcast.data.sources.patterns import SequencePaths
from maskcast.data.sources.sequence_files import SequenceFiles, pair_files
from maskcast.data.video_files.frames import count_frames
from maskcast.errors import MaskcastError
from maskcast.progress import track

FilesBySequence = Mapping[str, SequencePaths]


class NoSequenceError(MaskcastError):
    """No sequence can be read with the patterns."""


def pair_masks(
    images: FilesBySequence, labels: FilesBySequence, suffix: str, found: Findings, *, whole: bool
) -> dict[str, SequenceFiles]:
    """Returns the sequences with their masks; adds warnings and, if needed, `source.offset` to ``found``.

    Args:
        images: the sequences.
        labels: masks of some or all sequences.
        suffix: see `pair_files`.
        found: the findings so far.
        whole: whether all sequences with masks must be readable; else most of their masks.

    Raises:
        NoSequenceError: if no sequence, or none with masks, is readable, or not all are and ``whole`` is set.
        MaskcastError: if most masks are unreadable, or masks of a sequence may belong to other frames.
    """
    footage, failed = _gather_all(images, labels, suffix, None)
    if failed or any(one.unpaired for one in footage.values()):
        offset = _guess_offset(images, labels, suffix)
        by_number, wrong = ({}, failed) if offset is None else _gather_all(images, labels, suffix, offset)
        if by_number and not wrong.keys() & labels.keys() and not any(one.unpaired for one in by_number.values()):
            footage, failed = by_number, {}
            found.source["offset"] = offset
            found.reasons["offset"] = "taken from the numbers of frames and masks: check a picture"
            found.warnings.append(
                f"masks are paired with frames by number (offset {offset}), because names do not match: check one"
            )
    paired = any(any(one.masks) for one in footage.values())
    if not paired and (several := _single_frame_with_masks(images, labels)) is not None:
        raise MaskcastError(
            f"{several}: one frame has several masks, e.g. one per object, but only one mask per frame is "
            "supported: merge them into one mask with a value per object (0 is background)"
        )
    if not footage:
        why = next(iter(failed.values()), "no pattern finds names that hold { or *; rename these folders or files")
        raise NoSequenceError(f"no sequence can be read: {why}")
    unread = {name: failed[name] for name in labels if name in failed}
    lost, read = (sum(len(labels[name].images) for name in labels if name in one) for one in (unread, footage))
    if unread and (whole or lost > read):
        what = "most masks cannot be read" if read else "no sequence with masks can be read"
        error = NoSequenceError if whole or not read else MaskcastError
        remedy = "or give each sequence its own folder, or move away what is not a mask"
        raise error(f"{what}: {next(iter(unread.values()))}; {remedy}")
    for name in (name for name, one in footage.items() if one.unpaired):
        numbers = _numbers(images[name], labels[name], suffix, name)
        if numbers is not None and (shift := _constant_shift(*numbers)):
            count, (frames, masks) = len(numbers[0]), (f"{each[0]} to {each[-1]}" for each in numbers)
            raise MaskcastError(
                f"{name}: its {count} frames have the numbers {frames}, its {count} masks {masks}, but others are "
                f"paired differently: rename its masks, by {-shift:+d}, or move them away"
            )
    return footage


def _single_frame_with_masks(images: FilesBySequence, labels: FilesBySequence) -> str | None:
    """Returns the first sequence with one frame and several masks, or None."""
    both = [name for name in images if name in labels]
    return next((name for name in both if len(images[name].images) == 1 < len(labels[name].images)), None)


def _gather_all(
    images: FilesBySequence, labels: FilesBySequence, suffix: str, offset: int | None
) -> tuple[dict[str, SequenceFiles], dict[str, str]]:
    """Returns the readable sequences, and the errors of the others."""
    footage, failed = {}, {}
    for name, files in track(images.items(), "looking at sequences", len(images)):
        masks = labels.get(name)
        try:
            footage[name] = pair_files(
                files, masks, Path(name), suffix=suffix, offset=offset, labelled=masks is not None
            )
        except MaskcastError as error:
            failed[name] = str(error)
    return footage, failed


def _guess_offset(images: FilesBySequence, labels: FilesBySequence, suffix: str) -> int | None:
    """Returns the offset from frame numbers to mask numbers, or None if it cannot be determined.

    If a sequence has as many masks as frames, its first mask belongs to its first frame. If it has fewer, masks
    have the numbers of their frames, except for videos whose frames are counted from 1.
    """
    numbers = [_numbers(images[name], labels[name], suffix, name) for name in images if name in labels]
    known = [one for one in numbers if one is not None]
    if not known:
        return None
    if shifts := {shift for frames, masks in known if (shift := _constant_shift(frames, masks)) is not None}:
        return shifts.pop() if len(shifts) == 1 else None
    lowest = min(masks[0] - frames[0] for frames, masks in known)
    video = any(isinstance(frames, range) for frames, _ in known)
    same = lowest >= 0 and all(masks[-1] <= frames[-1] for frames, masks in known)
    return 0 if same and not (video and lowest == 1) else lowest


def _numbers(
    images: SequencePaths, labels: SequencePaths, suffix: str, name: str
) -> tuple[Sequence[int], Sequence[int]] | None:
    """Returns the numbers of frames and of masks, ascending; None if names do not show them."""
    try:
        masks = sorted(numbers_of(labels.by_name(suffix), name).values())
        if images.video is not None:
            return (range(count_frames(images.video)), masks) if masks else None
        frames = sorted(numbers_of(images.by_name(), name).values())
    except MaskcastError:
        return None
    return (frames, masks) if frames and masks else None


def _constant_shift(frames: Sequence[int], masks: Sequence[int]) -> int | None:
    """Returns the constant offset from frame to mask numbers; None if there is none or the counts differ."""
    if len(frames) != len(masks):
        return None
    shifts = {mask - frame for frame, mask in zip(frames, masks, strict=True)}
    return shifts.pop() if len(shifts) == 1 else None
