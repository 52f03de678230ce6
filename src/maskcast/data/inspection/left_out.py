"""Says what of a folder is not read: masks without frames, and images and videos that no pattern finds."""

from pathlib import Path

from maskcast.data.inspection.families import is_named_as_masks
from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.frames_and_masks import SortedImages
from maskcast.data.inspection.image_groups import ImageGroup, looks_like_masks
from maskcast.data.inspection.mask_selection import complementary_masks
from maskcast.data.sources.patterns import CLIP, find_sequences
from maskcast.errors import MaskcastError
from maskcast.reading import pluralize


def check_pairing(raw: Path, found: Findings, images: SortedImages) -> None:
    """Checks that masks, where images are named so and look so, belong to frames.

    Raises:
        MaskcastError: if no mask does: then masks would be left out, or be read as frames, in silence.
    """
    if found.labelled:
        return
    lost = next((one.files for one in images.masks if is_named_as_masks((one.folder, one.name_suffix))), ())
    if not lost:
        footage = find_sequences(raw, str(found.source["images"]))
        counts = {name: len(files.images) for name, files in footage.items()}
        lost = next(
            (
                tuple(footage[name].images)
                for name in counts
                if is_named_as_masks((name,))
                and any(counts[name] == counts[other] and not is_named_as_masks((other,)) for other in counts)
                and looks_like_masks(tuple(footage[name].images), name)[0]
            ),
            (),
        )
    if lost:
        path = lost[0].relative_to(raw).as_posix()
        raise MaskcastError(
            f"{raw}: {path} and {pluralize(len(lost) - 1, 'other')} of its folder are named like masks and look "
            "like masks, and belong to no frame by their names: give masks the names of their frames, in a folder "
            "of their own, e.g. frames/street_0001.png and masks/street_0001.png, or move them away"
        )


def warn_unmatched_images(raw: Path, found: Findings, groups: list[ImageGroup]) -> None:
    """Adds a note on images that no pattern finds."""
    patterns = [str(found.source[key]) for key in ("images", "masks") if key in found.source]
    suffix = str(found.source.get("mask_suffix", ""))
    taken: set[tuple[Path, str]] = set()  # files, and folders with the end of the names that are read in them
    for pattern, tail in zip(patterns, ("", suffix), strict=False):
        for files in find_sequences(raw, pattern).values():
            taken |= {(path, tail) for path in files.paths}
    ends = {tail for _, tail in taken}

    def is_read(path: Path) -> bool:
        return any(
            (path, tail) in taken or ((path.parent, tail) in taken and path.stem.endswith(tail)) for tail in ends
        )

    others = [path for one in groups for path in one.files if not is_read(path)]
    read = [one for one in groups if one.are_masks and is_read(one.files[0])]
    lost = {path.parent for path in others}
    if (two := complementary_masks(read, [one for one in groups if one.files[0].parent in lost])) is not None:
        raise MaskcastError(
            f"{raw}: {two[0]} and {two[1]} mark different pixels of the same frames, e.g. one class or object "
            "each, but only one mask per frame is supported: merge them into one mask with a value per class or "
            "object (0 is background), or move away what is not needed"
        )
    if others:
        first = others[0].relative_to(raw).as_posix()
        found.warnings.append(
            f"{pluralize(len(others), 'image', 'is', 'are')} left out, e.g. {first}: no pattern finds them "
            f"({', '.join(patterns)}; write * for each folder whose name differs, or {CLIP} if names "
            "occur in several)"
        )


def warn_unmatched_videos(
    raw: Path, found: Findings, frames: list[ImageGroup], videos: list[tuple[str, ...]]
) -> Findings:
    """Adds a note on videos that are left out; beside frames, these are videos that the pattern does not find."""
    taken = {files.video for files in find_sequences(raw, str(found.source["images"])).values()}
    others = [parts for parts in videos if raw.joinpath(*parts) not in taken]
    if others:
        why = f"they do not fit the pattern {found.source['images']}; name them and their masks alike"
        if others[0][-1].lower().endswith(".gif"):
            why = "GIFs are read as videos: save them as PNG where they are masks, or frames"
        elif frames:
            why = (
                "one source reads frames or videos, not both. Save their frames as images beside the others to "
                "use them as unlabelled clips"
            )
        found.warnings.append(
            f"{pluralize(len(others), 'video', 'is', 'are')} left out, e.g. {'/'.join(others[0])}: {why}"
        )
    return found
