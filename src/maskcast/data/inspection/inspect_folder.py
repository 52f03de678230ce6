"""Inspects a folder of data and returns the params that read it."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from maskcast.data.archives.checks import ARCHIVE_SUFFIXES
from maskcast.data.archives.unpack import is_archive
from maskcast.data.inspection.clip_length import cover_horizon
from maskcast.data.inspection.families import is_named_as_masks
from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.fixed_layouts import (
    green_screen_evidence,
    inspect_clevrer,
    inspect_competition,
    inspect_videos,
)
from maskcast.data.inspection.frames_and_masks import SortedImages, sort_images
from maskcast.data.inspection.guess_patterns import Guess, guess_by_names, guess_patterns
from maskcast.data.inspection.image_groups import (
    ImageGroup,
    find_image_groups,
    find_mask_video,
    find_video_files,
    looks_like_masks,
    unsupported_files_text,
)
from maskcast.data.inspection.image_selection import (
    complementary_masks,
    select_class_masks,
)
from maskcast.data.inspection.label_files import inspect_label_files
from maskcast.data.inspection.label_kinds import LabelFiles
from maskcast.data.inspection.mask_values import add_mask_values
from maskcast.data.inspection.measuring import measure_frames
from maskcast.data.inspection.other_labels import other_labels_warnings
from maskcast.data.inspection.pair_masks import NoSequenceError, pair_masks
from maskcast.data.inspection.photographs import (
    PROJECT_REASON,
    one_sequence_per_image,
    patterns_in_one_folder,
    photographs_reason,
)
from maskcast.data.inspection.propose_splits import propose_splits
from maskcast.data.inspection.widening import guess_in_folders, guess_in_frames, widen, widen_frames, widen_levels
from maskcast.data.masks.rules import has_colours
from maskcast.data.mirror_swaps import find_sides
from maskcast.data.sources.patterns import CLIP, FRAME, SequencePaths, find_sequences, match_names, without_masks
from maskcast.errors import MaskcastError
from maskcast.labels import MIRROR_SWAPS, mirror_swaps_to_json
from maskcast.reading import pluralize

Sequences = dict[str, SequencePaths]  # by name


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
        _check_pairing(raw, found, images)
    found.warnings[:0] = images.left_out(found.source["layout"])
    _add_mirror_swaps(found)
    return found


def _check_pairing(raw: Path, found: Findings, images: SortedImages) -> None:
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
        return _warn_unmatched_videos(raw, found, frames, videos)
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
    found = _inspect_best_guess(label_files, guess, frames, masks, known, why_alone)
    _warn_unmatched_images(raw, found, [*frames, *masks])
    return _warn_unmatched_videos(raw, found, frames, videos)


def _known_paths(raw: Path, frames: list[ImageGroup], videos: list[tuple[str, ...]]) -> set[Path]:
    """Returns all that may be frames: images, their folders, and videos."""
    images = {path for one in frames for file in one.files for path in (file, file.parent)}
    return images | {raw.joinpath(*parts) for parts in videos}


def _inspect_best_guess(
    label_files: LabelFiles,
    guess: Guess,
    frames: list[ImageGroup],
    masks: list[ImageGroup],
    known: set[Path],
    why_alone: str,
) -> Findings:
    """Returns the findings of the first pattern that reads all masks, else of the one that reads most."""
    raw, guesses, inner = label_files.raw, [guess], guess_in_folders(guess, frames, masks)
    with suppress(MaskcastError):  # two files have the same name
        if inner is not None:
            more = len(find_sequences(raw, inner.images)) > len({one.parts for one in frames})
            guesses.insert(0 if more and FRAME in inner.images else 1, inner)
    with suppress(MaskcastError):
        guesses[:0] = [each] if (each := guess_in_frames(raw, guess)) is not None else []
    for one in guesses:
        with suppress(NoSequenceError):
            return _inspect_patterns(label_files, one, known, why_alone=why_alone, whole=True)
    try:
        return _inspect_patterns(label_files, guess, known, why_alone=why_alone)
    except NoSequenceError:
        other = guess_by_names(frames, masks)
        if other is None or other == guess:
            raise
        return _inspect_patterns(label_files, other, known, why_alone=why_alone)


def _warn_unmatched_images(raw: Path, found: Findings, groups: list[ImageGroup]) -> None:
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


def _warn_unmatched_videos(
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


def _inspect_patterns(
    label_files: LabelFiles,
    guess: Guess,
    known: set[Path],
    why: str = "",
    *,
    why_alone: str = "",
    whole: bool = False,
) -> Findings:
    """Returns the findings for given patterns.

    Args:
        label_files: the label files of the folder.
        guess: the patterns.
        known: the files that may be frames, and their folders.
        why: why the images are photographs, if known; the patterns then make each a sequence.
        why_alone: why labelled frames of a video are used as photographs; empty if they are not.
        whole: whether all sequences with masks must be readable.

    Raises:
        MaskcastError: if they are not, or the patterns give no usable source.
    """
    raw = label_files.raw
    if guess.masks:
        guess = widen_levels(raw, widen(raw, guess), known)
    source: dict[str, object] = {"layout": "frame_folders", "images": guess.images}
    images, labels = _find_images_and_masks(raw, guess)
    if guess.masks:
        source["masks"] = guess.masks
    if guess.mask_suffix:
        source["mask_suffix"] = guess.mask_suffix
    found = Findings("frames and masks by sequence" if labels else "frames by sequence, no masks", source)
    if why:
        found.layout, found.photographs = "photographs with masks" if labels else "photographs without masks", why
    elif all(files.video for files in images.values()):
        found.layout = "videos and mask images by sequence"
    if unpaired := sorted(labels.keys() - images.keys()):
        found.warnings.append(
            f"masks of {', '.join(unpaired[:3])} ({pluralize(len(unpaired), 'sequence')}) have no frames that "
            f"{guess.images} finds"
        )
    footage = pair_masks(images, labels, guess.mask_suffix or "", found, whole=whole)
    if not why and (why := photographs_reason(footage)):
        alone = replace(
            guess,
            images=one_sequence_per_image(guess.images),
            masks=guess.masks and one_sequence_per_image(guess.masks),
        )
        (first, *others) = footage.values()
        if alone == guess and not others and (patterns := patterns_in_one_folder(raw, first)) is not None:
            alone = Guess(*patterns)
        return _inspect_patterns(label_files, alone, known, why)
    if why_alone and not why and any(one.masked for one in footage.values()):
        found.layout, found.photographs = "photographs with masks", why_alone
    found.add_sequences(footage)
    masks = {name: one.masked for name, one in footage.items()}
    found.labelled = {name: len(mine) for name, mine in masks.items() if mine}
    if found.labelled:
        add_mask_values(raw, found, footage)
    _warn_unread_labels(label_files, found)
    if found.labelled:
        found.warnings += other_labels_warnings(raw, source, footage, masks, label_files)
    measure_frames(found, images)
    marked = {name: [path is not None for path in one.masks] for name, one in footage.items()}
    places = {name: {path.parent for path in mine.values()} for name, mine in masks.items()}
    propose_splits(raw, found, marked, footage, places)
    cover_horizon(found, marked)
    return found


def _find_images_and_masks(raw: Path, guess: Guess) -> tuple[Sequences, Sequences]:
    """Returns the frames and the masks of each sequence that the patterns find."""
    found = find_sequences(raw, guess.masks) if guess.masks else {}
    found = {name: files for name, files in found.items() if files.has_masks(guess.mask_suffix or "")}
    sequences = find_sequences(raw, guess.images)
    masks = match_names(sequences, found)
    return without_masks(sequences, masks), masks


def _warn_unread_labels(label_files: LabelFiles, found: Findings) -> None:
    """Adds a note on labels that are not read as classes, if there are any."""
    if found.labelled:
        if has_colours(found.source.get("values", {})) and (segments := label_files.find_panoptic()):
            found.warnings.append(
                f"{segments} is COCO's panoptic form: colours of such masks number segments, not classes. "
                "Make masks of classes, or one COCO file, of it and run init again (VIPSeg has panomasks)"
            )
    elif (unread := label_files.not_read_text()) is not None:
        found.warnings.append(unread)
    elif others := unsupported_files_text(label_files.raw):
        found.warnings.append(f"{others}, which are not read: save masks as PNG")


def _folder_names(groups: list[ImageGroup]) -> str:
    return ", ".join([*dict.fromkeys(one.folder for one in groups)][:3])
