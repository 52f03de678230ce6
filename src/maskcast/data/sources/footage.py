"""A sequence on disk: its frames in order, their masks, and where frame numbers are missing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskcast.data.frame_names import first_names, other_endings, runs, same_number, unique
from maskcast.data.images import image_files, read_frames
from maskcast.data.sources.pairing import Pairs, numbers_of, pair_by_name, pair_by_number
from maskcast.data.sources.patterns import Files
from maskcast.data.video_files.frames import count_frames, read_video
from maskcast.errors import MaskcastError
from maskcast.labels import natural_sort_key
from maskcast.reading import pluralize

REMEDY = "set source.mask_suffix or source.offset, or name both by {frame} in source.images and source.masks"


@dataclass(frozen=True)
class Footage:
    """Frames and masks of a sequence, all paths.

    Attributes:
        images: one file per frame, or the video that has all frames.
        masks: one file or None per frame.
        runs: ranges of frames with consecutive numbers.
        unpaired: a text that says which masks have no frame, and which rule was tried; empty if all have one.
        gap: a text that says where numbers are missing; empty if none are.
        unread: endings of files beside the frames that are no supported image format; empty if there are none.
    """

    images: Path | Sequence[Path]
    masks: Sequence[Path | None]
    runs: Sequence[range]
    unpaired: str = ""
    gap: str = ""
    unread: str = ""


def gather(
    images: Files, masks: Files | None, where: Path, *, suffix: str, offset: int | None, labelled: bool
) -> Footage:
    """Returns the frames of a sequence, paired with its masks if it is ``labelled``.

    Args:
        images: the folder of the frames, the video, or the images by frame key.
        masks: the folder of the masks, or the masks by frame key; None without masks.
        where: place of the masks, for errors.
        suffix: suffix that the name of a mask in a folder adds to its frame's.
        offset: see `pair_by_number`; None pairs images by name.
        labelled: whether masks are required.

    Raises:
        MaskcastError: if two frames or two masks have one name, there are no masks, or no mask has a frame.
    """
    found = named_images(masks, suffix)
    if labelled and not found:
        kinds = other_endings(where) if where.is_dir() else ""
        raise MaskcastError(
            f"{where}: no mask images{f' (it has {kinds})' if kinds else ''}; fix source.masks or put the "
            "sequence into unlabeled"
        )
    if isinstance(images, Path) and images.is_file():
        numbers = range(count_frames(images))
        pairs = pair_by_number(numbers, found, offset, str(where)) if labelled else _no_pairs(numbers)
        return Footage(images, pairs.masks, [numbers], _unpaired(pairs, images.name))
    frames = frames_beside(images, {} if images == masks and not suffix else found)  # masks may be frames
    keys = sorted(frames, key=natural_sort_key)
    pairs = _no_pairs(keys)
    if labelled and offset is None:
        pairs = pair_by_name(keys, found, suffix)
    elif labelled:
        pairs = pair_by_number(list(numbers_of(keys, str(where)).values()), found, offset, str(where))
    parts = runs(keys)
    after = frames[keys[parts[1].start]] if len(parts) > 1 else None
    alike = after is not None and after.name == frames[keys[0]].name  # a folder per frame
    gap = f"they do not go on at {'/'.join(after.parts[-2 if alike else -1 :])}" if after is not None else ""
    files = [frames[key] for key in keys]
    unread = other_endings(images) if isinstance(images, Path) else ""
    return Footage(files, pairs.masks, parts, _unpaired(pairs, first_names(files)), gap, unread)


def read_footage(images: Path | Sequence[Path], window: Sequence[int]) -> np.ndarray:
    """Returns the frames (T, H, W, 3) uint8 of a window: `window` of a video, or all images of a list.

    Raises:
        MaskcastError: on unreadable files, or images that differ in size.
    """
    return read_video(images, window) if isinstance(images, Path) else read_frames(images)


def file_of(images: Path | Sequence[Path], t: int) -> Path:
    """Returns the file that holds frame ``t`` of a window."""
    return images if isinstance(images, Path) else images[t]


def frames_beside(images: Files, masks: Mapping[str, Path]) -> dict[str, Path]:
    """Returns the images of a sequence that are not among its masks, by frame key.

    Raises:
        MaskcastError: if there are none, or names in a folder do not tell frames from other images.
    """
    remedy = "name the frames by {frame} in source.images, e.g. {clip}/{frame}.jpg"
    try:
        frames = named_images(images, "", without=masks.values())
    except MaskcastError as error:
        raise MaskcastError(f"{error}, or {remedy}") from None
    if isinstance(images, Path) and (two := same_number(frames)) is not None:
        raise MaskcastError(
            f"{images}: {frames[two[0]].name} and {frames[two[1]].name} have one number, so not all images there "
            f"are frames; {remedy}"
        )
    if not frames:
        kinds = other_endings(images) if isinstance(images, Path) else ""
        raise MaskcastError(
            f"{images}: holds no images{f' (but {kinds})' if kinds else ''}{' beside masks' if masks else ''}; "
            "save the frames as PNG"
        )
    return frames


def named_images(files: Files | None, suffix: str, without: Collection[Path] = ()) -> dict[str, Path]:
    """Returns the images of a folder by name, without ending and suffix, or those that a pattern found.

    Args:
        files: the folder, or the images by what stands for `{frame}`.
        suffix: only names that end in it are returned, and it is removed from them.
        without: images to leave out.

    Raises:
        MaskcastError: if two images have the same name.
    """
    if files is None:
        return {}
    others = set(without)
    if not isinstance(files, Path):
        return unique((key, path) for key, path in files.items() if path not in others)
    inside = [path for path in image_files(files) if path not in others] if files.is_dir() else []
    return unique((path.stem.removesuffix(suffix), path) for path in inside if path.stem.endswith(suffix))


def notes_of(footage: Mapping[str, Footage]) -> Iterator[str]:
    """Yields notes for the owner of the data, one line each."""
    bare = {name: found.masks.count(None) for name, found in footage.items() if any(found.masks)}
    if missing := {name: count for name, count in bare.items() if count}:
        name, count = next(iter(missing.items()))
        yield (
            f"{pluralize(sum(missing.values()), 'frame')} of {pluralize(len(missing), 'labelled sequence')} "
            f"without mask and label ({name}: {count} of {len(footage[name].masks)})"
        )
    if unread := {name: found for name, found in footage.items() if found.unread}:
        name, found = next(iter(unread.items()))
        yield (
            f"{pluralize(len(unread), 'sequence', 'holds', 'hold')} files that are no images known here "
            f"({name}: {found.unread}); save them as PNG if they are frames"
        )
    if gaps := {name: found for name, found in footage.items() if found.gap}:
        name, found = next(iter(gaps.items()))
        yield (
            f"{pluralize(len(gaps), 'sequence', 'has', 'have')} gaps in the numbers of frames, and no clip "
            f"goes over one ({name}: {found.gap})"
        )


def _no_pairs(frames: Sequence[object]) -> Pairs:
    return Pairs([None] * len(frames), [], "")


def _unpaired(pairs: Pairs, frames: str) -> str:
    """Returns a text that says which masks have no frame; empty if all have one.

    Raises:
        MaskcastError: if no mask has a frame.
    """
    if not pairs.unpaired:
        return ""
    first = first_names(pairs.unpaired)
    if not any(pairs.masks):
        raise MaskcastError(
            f"{pairs.unpaired[0].parent}: no mask ({first}) has a frame ({frames}) by the rule: {pairs.rule}; "
            + REMEDY
        )
    return f"{pluralize(len(pairs.unpaired), 'mask')} ({first}) without a frame by the rule: {pairs.rule}"
