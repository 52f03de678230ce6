"""Inspects the images that patterns find, and returns the params that read them."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from maskcast.data.inspection.clip_length import cover_horizon
from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.guess_patterns import Guess, guess_by_names
from maskcast.data.inspection.image_groups import ImageGroup, unsupported_files_text
from maskcast.data.inspection.label_kinds import LabelFiles
from maskcast.data.inspection.mask_values import add_mask_values
from maskcast.data.inspection.measuring import measure_frames
from maskcast.data.inspection.other_labels import other_labels_warnings
from maskcast.data.inspection.pair_masks import NoSequenceError, pair_masks
from maskcast.data.inspection.photographs import one_sequence_per_image, patterns_in_one_folder, photographs_reason
from maskcast.data.inspection.propose_splits import propose_splits
from maskcast.data.inspection.widening import guess_in_folders, guess_in_frames, widen, widen_levels
from maskcast.data.masks.rules import has_colours
from maskcast.data.sources.patterns import FRAME, SequencePaths, find_sequences, match_names, without_masks
from maskcast.errors import MaskcastError
from maskcast.reading import pluralize

Sequences = dict[str, SequencePaths]  # by name


def inspect_best_guess(
    label_files: LabelFiles,
    guess: Guess,
    frames: list[ImageGroup],
    masks: list[ImageGroup],
    known: set[Path],
    why_alone: str,
) -> Findings:
    """Returns the findings of the first pattern that reads all masks, else of the one that reads most.

    Args:
        label_files: the label files of the folder.
        guess: the patterns of all images.
        frames: the groups of frames.
        masks: the groups of masks.
        known: the files that may be frames, and their folders.
        why_alone: why labelled frames of a video are used as photographs; empty if they are not.

    Raises:
        MaskcastError: if no pattern gives a usable source.
    """
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
