"""Pairs the frames of all sequences with their masks: by name, or by number where names do not."""

from collections.abc import Mapping
from pathlib import Path

from maskcast.data.inspection.findings import Findings
from maskcast.data.sources.footage import Footage, gather, named_images
from maskcast.data.sources.pairing import numbers_of
from maskcast.data.sources.patterns import Files
from maskcast.errors import MaskcastError
from maskcast.progress import track

Sequences = Mapping[str, Files]


class NoSequenceError(MaskcastError):
    """No sequence can be read by the patterns that were tried."""


def pair_masks(images: Sequences, labels: Sequences, suffix: str, found: Findings) -> dict[str, Footage]:
    """Returns the sequences with their masks; ``found`` gets `source.offset`, if that is needed, and warnings.

    Raises:
        NoSequenceError: when no sequence, or none with masks, can be read.
    """
    footage, failed = _gathered(images, labels, suffix, None)
    if failed or any(one.unpaired for one in footage.values()):
        offset = _offset(images, labels, suffix)
        by_number, wrong = ({}, failed) if offset is None else _gathered(images, labels, suffix, offset)
        if by_number and not wrong.keys() & labels.keys() and not any(one.unpaired for one in by_number.values()):
            footage, failed = by_number, {}
            found.source["offset"] = offset
            found.why["offset"] = "taken from the numbers of the first frame and the first mask: check a picture"
            found.warnings.append(
                f"masks are paired with frames by number (offset {offset}), because names do not tell: check one"
            )
    if not footage:
        raise NoSequenceError(f"no sequence can be read: {next(iter(failed.values()))}")
    unread = [failed[name] for name in labels if name in failed]
    if unread and not any(any(one.masks) for one in footage.values()):
        raise NoSequenceError(f"no sequence with masks can be read: {unread[0]}; or move away what is no mask")
    return footage


def _gathered(
    images: Sequences, labels: Sequences, suffix: str, offset: int | None
) -> tuple[dict[str, Footage], dict[str, str]]:
    """Returns the sequences that can be read, and what is wrong with the others."""
    footage, failed = {}, {}
    for name, files in track(images.items(), "looking at sequences", len(images)):
        masks = labels.get(name)
        try:
            footage[name] = gather(
                files, masks, Path(name), suffix=suffix, offset=offset, labelled=masks is not None
            )
        except MaskcastError as error:
            failed[name] = str(error)
    return footage, failed


def _offset(images: Sequences, labels: Sequences, suffix: str) -> int | None:
    """Returns how far the numbers of masks are above those of frames, if the first ones belong together."""
    name = next((name for name in images if name in labels), None)
    if name is None:
        return None
    files = images[name]
    try:
        masks = numbers_of(named_images(labels[name], suffix), name)
        video = isinstance(files, Path) and files.is_file()
        frames = {"": 0} if video else numbers_of(named_images(files, ""), name)
    except MaskcastError:
        return None
    return min(masks.values()) - min(frames.values()) if masks and frames else None
