"""Inspects a folder of data and returns the params that read it."""

from pathlib import Path, PurePosixPath

from maskcast.data.archives.checks import ARCHIVE_SUFFIXES
from maskcast.data.archives.unpack import is_archive
from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.fixed_layouts import (
    green_screen_evidence,
    inspect_clevrer,
    inspect_competition,
    inspect_videos,
)
from maskcast.data.inspection.frames_and_masks import sort_images
from maskcast.data.inspection.guess_patterns import guess_patterns
from maskcast.data.inspection.image_groups import (
    ImageGroup,
    find_image_groups,
    find_mask_video,
    find_video_files,
    unsupported_files_text,
)
from maskcast.data.inspection.inspect_patterns import inspect_best_guess
from maskcast.data.inspection.label_files import inspect_label_files
from maskcast.data.inspection.label_kinds import LabelFiles
from maskcast.data.inspection.left_out import check_pairing, warn_unmatched_images, warn_unmatched_videos
from maskcast.data.inspection.mask_selection import select_class_masks
from maskcast.data.inspection.photographs import PROJECT_REASON
from maskcast.data.inspection.widening import widen_frames
from maskcast.data.mirror_swaps import find_sides
from maskcast.errors import MaskcastError
from maskcast.labels import MIRROR_SWAPS, mirror_swaps_to_json
from maskcast.reading import pluralize


def inspect_folder(raw: Path, *, photographs: bool = False) -> Findings:
    """Returns the findings about a folder.

    Args:
        raw: folder of the data.
        photographs: whether labelled images are photographs, for a pipeline that forecasts nothing, even if they
            are frames of a video.

    Raises:
        MaskcastError: if the folder does not exist, has nothing known, or has masks that cannot be read.
    """
    if not raw.is_dir():
        what = "folder not found"
        if raw.is_file():
            packed = is_archive(raw) or raw.suffix.lower() in ARCHIVE_SUFFIXES
            what = "is an archive: unpack it first" if packed else "is a file"
        raise MaskcastError(f"{raw}: {what}; give the folder that holds the videos, or frames and masks")
    if (found := inspect_clevrer(raw) or inspect_competition(raw)) is not None:
        return found
    if (sign := green_screen_evidence(raw)) is not None:
        raise MaskcastError(
            f"{raw}: holds {sign}, so it looks like a green-screen data set: run `maskcast new FOLDER "
            "--pipeline video`, set fetch_dataset.uri there to this folder and remove figures from "
            "prepare_clips.source (docs/green-screen.md)"
        )
    groups, videos, label_files = find_image_groups(raw), find_video_files(raw), LabelFiles(raw)
    images = sort_images(groups, label_files, videos)
    if images.blurred and not images.masks and not label_files.by_format:
        one, twin = next(iter(images.blurred.items()))
        raise MaskcastError(
            f"{raw}: {one.folder} is named like masks, or looks like them, and has the names of {twin}, but has "
            "as many colours as photographs. JPEG and resizing do this to masks; save masks as PNG, or move them "
            "away"
        )
    if not images.frames and not videos:
        if images.unread:
            raise MaskcastError(images.unread[0].read_error)
        have = "no images and no videos"
        if images.masks:
            have = f"{pluralize(len(images.masks), 'folder')} of masks, and no frames"
        have += f" ({others}: save them as PNG, or unpack them)" if (others := unsupported_files_text(raw)) else ""
        raise MaskcastError(f"{raw}: holds {have}; give the folder that holds the videos, or frames and masks")
    masks = select_class_masks(images.masks)
    found = _inspect_groups(label_files, images.frames, masks, videos, PROJECT_REASON if photographs else "")
    if found.source["layout"] == "frame_folders":
        check_pairing(raw, found, images)
    found.warnings[:0] = images.left_out(found.source["layout"])
    _add_mirror_swaps(found)
    return found


def _add_mirror_swaps(found: Findings) -> None:
    """Adds the classes that a horizontal flip swaps, by their names, after the key of the classes."""
    sides = find_sides(found.source.get("classes", ()))
    found.one_sided = sides.unpaired
    if sides.pairs:
        items = list(found.source.items())
        at = 1 + list(found.source).index("classes")
        items.insert(at, (MIRROR_SWAPS, mirror_swaps_to_json(sides.pairs)))
        found.source = dict(items)
        found.reasons[MIRROR_SWAPS] = (
            "by their names, these trade places in flipped frames; [] if they do not (docs/your-data.md)"
        )
    if sides.unpaired:
        found.warnings.append(
            f"class {sides.unpaired[0]!r} has a side and no partner, so frames are not flipped in training "
            "(augment.hflip and flip are 0); remove these if the name does not depend on the side in the picture"
        )


def _inspect_groups(
    label_files: LabelFiles,
    frames: list[ImageGroup],
    masks: list[ImageGroup],
    videos: list[tuple[str, ...]],
    why_alone: str,
) -> Findings:
    raw = label_files.raw
    if not frames and (both := find_mask_video(videos)) is not None:
        raise MaskcastError(
            f"{raw}: {both[0]} is named like the masks of {both[1]}, but masks are read from images: if "
            f"compression kept its values, extract its images (`ffmpeg -i {both[0]} -start_number 0 "
            f"{PurePosixPath(both[0]).with_suffix('')}/%05d.png`); then move it away"
        )
    if not masks and label_files.by_format:
        found = inspect_label_files(label_files, guess_patterns(frames, videos, []), frames, why_alone)
        return warn_unmatched_videos(raw, found, frames, videos)
    if not masks and not videos and (boxes := label_files.find_boxes()) is not None:
        raise MaskcastError(
            f"{boxes}: images with boxes, no videos: they are for the detection pipeline: `maskcast new FOLDER "
            "--pipeline detection`, whose params.yaml you write by hand: fetch_dataset.uri and "
            "prepare_detection.source (docs/detection-data.md). A masker learns from masks: export polygons or "
            "masks in place of boxes"
        )
    guess = guess_patterns(frames, videos, masks)
    if guess is None:
        raise MaskcastError(
            f"{raw}: frames ({_folder_names(frames) or 'videos'}) and masks ({_folder_names(masks) or 'none'}) "
            "have no pattern in common; give each sequence a folder or video and its masks a folder of the same "
            "name, e.g. frames/street/0001.png and masks/street/0001.png"
        )
    if videos and not frames and guess.masks is None:
        return inspect_videos(raw, label_files)
    known = _known_paths(raw, frames, videos)
    if guess.masks is None:
        guess = widen_frames(raw, guess, known)
    found = inspect_best_guess(label_files, guess, frames, masks, known, why_alone)
    warn_unmatched_images(raw, found, [*frames, *masks])
    return warn_unmatched_videos(raw, found, frames, videos)


def _known_paths(raw: Path, frames: list[ImageGroup], videos: list[tuple[str, ...]]) -> set[Path]:
    """Returns all that may be frames: images, their folders, and videos."""
    images = {path for one in frames for file in one.files for path in (file, file.parent)}
    return images | {raw.joinpath(*parts) for parts in videos}


def _folder_names(groups: list[ImageGroup]) -> str:
    return ", ".join([*dict.fromkeys(one.folder for one in groups)][:3])
