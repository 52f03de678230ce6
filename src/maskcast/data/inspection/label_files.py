"""Inspects folders whose masks are in label files of other tools, such as COCO, beside the frames."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.frame_names import class_key
from maskcast.data.inspection.clip_length import cover_horizon
from maskcast.data.inspection.find_class_names import NO_LABEL
from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.guess_patterns import Guess
from maskcast.data.inspection.image_groups import ImageGroup
from maskcast.data.inspection.label_kinds import FORMAT_TITLES, LabelFiles
from maskcast.data.inspection.label_patterns import across_splits, label_patterns, roboflow_pattern, wider_patterns
from maskcast.data.inspection.measuring import measure_frames
from maskcast.data.inspection.other_labels import other_labels_warnings
from maskcast.data.inspection.photographs import one_sequence_per_image, photographs_reason
from maskcast.data.inspection.propose_splits import propose_splits
from maskcast.data.inspection.widening import guess_in_folders
from maskcast.data.labelling.formats.base import IGNORED, ImportedFrame
from maskcast.data.labelling.formats.table import get_format
from maskcast.data.sources.annotations import (
    AnnotationsSource,
    FilesByName,
    LabelledFrames,
    gather_labels,
    labelled_frames,
)
from maskcast.data.sources.label_pairs import PairedLabels, ReadFrames
from maskcast.data.sources.patterns import find_sequences
from maskcast.errors import MaskcastError
from maskcast.reading import pluralize

MAX_COUNTED = 60  # frames whose pixels are counted by class


def inspect_label_files(
    label_files: LabelFiles, guess: Guess | None, groups: Sequence[ImageGroup], why_alone: str = ""
) -> Findings:
    """Returns the findings about a folder whose masks are in label files.

    If these have several formats, the one counts that says most about objects.

    Args:
        label_files: the label files, of which some have masks.
        guess: pattern of the frames.
        groups: images of the frames.
        why_alone: why labelled frames of a video are used as photographs; empty if they are not.

    Raises:
        MaskcastError: if the frames have no common pattern, or the files are unreadable or belong to other frames.
    """
    raw, (form, files) = label_files.raw, next(iter(label_files.by_format.items()))
    read = cache(lambda file: [*label_files.read(get_format(form), file)])
    images = roboflow_pattern(raw, groups) or (across_splits(raw, guess.images) if guess is not None else None)
    if images is None:
        raise MaskcastError(
            f"{raw}: the frames that {files[0].name} names have no pattern in common; give each sequence a folder "
            "or a video, or name its frames alike, e.g. street_0001.png"
        )
    source: dict[str, Any] = {
        "layout": "annotations",
        "format": form,
        "labels": label_patterns(raw, files),
        "images": images,
    }
    if form == "youtube-vis":
        source["empty"] = "background"
    found = Findings(f"masks in files of {FORMAT_TITLES[form]}, frames by sequence", source)
    if form == "youtube-vis":
        found.reasons["empty"] = "null means that an object is absent"
    inner = guess and guess_in_folders(guess, groups, [])
    footage, labels = _gather_best(
        raw, source, chain([inner.images] if inner else [], wider_patterns(raw, images)), read
    )
    why = photographs_reason(footage)
    if why or why_alone:
        found.layout = f"photographs, masks in files of {FORMAT_TITLES[form]}"
        found.photographs = why or why_alone
    if why:
        source["images"] = one_sequence_per_image(source["images"])
        footage, labels = gather_labels(raw, AnnotationsSource(**source), [], read)
    known = labelled_frames(labels, source.get("empty", "unlabelled"))
    if not known:
        raise MaskcastError(
            f"{files[0]}: labels no frame of the sequences that {source['images']!r} finds "
            f"({', '.join(list(footage)[:3])}); put the images there that it names, in folders and under names as "
            "it has them"
        )
    found.add_sequences(footage)
    _describe_labels(found, known)
    measure_frames(found, find_sequences(raw, source["images"]))
    propose_splits(raw, found, _label_flags(found, known), footage, labels.files)
    empty = sum(one.empty and not one.left_out for mine in labels.frames.values() for one in mine.values())
    asked = empty > 0 and "empty" not in source
    _choose_clip_length(found, known, labels, may_be_background=asked)
    if unpaired := [where for lost in labels.unpaired.values() for where in lost]:
        found.warnings.append(f"no image of {pluralize(len(unpaired), 'labelled frame')}, first {unpaired[0]}")
    if asked:
        what = "background" if "empty" in source else "not labelled"
        found.warnings.append(
            f"{pluralize(empty, 'frame')} listed without objects: {what}; set source.empty to background if "
            "somebody has looked at them and nothing is there, else to unlabelled"
        )
    found.warnings += other_labels_warnings(raw, source, footage, known, label_files)
    return found


def _gather_best(
    raw: Path, source: dict[str, Any], others: Iterable[str], read: ReadFrames
) -> tuple[FilesByName, PairedLabels]:
    """Returns sequences and their labels; sets ``source["images"]`` to the pattern that finds most frames."""
    best, failure = None, None
    for images in chain([str(source["images"])], others):
        try:
            found = gather_labels(raw, AnnotationsSource(**source | {"images": images}), [], read)
        except MaskcastError as error:
            failure = failure or error
            continue
        if best is None or _unpaired(found[1]) < _unpaired(best[1]):
            best, source["images"] = found, images
        if not _unpaired(found[1]):
            break
    if best is None:
        assert failure is not None
        raise failure
    return best


def _unpaired(labels: PairedLabels) -> int:
    """Returns the number of listed frames that have no image."""
    return sum(map(len, labels.unpaired.values()))


def _label_flags(found: Findings, known: LabelledFrames) -> dict[str, list[bool]]:
    """Returns for each sequence which of its frames have labels."""
    return {name: [k in known.get(name, ()) for k in range(count)] for name, count in found.sequences.items()}


def _describe_labels(found: Findings, known: LabelledFrames) -> None:
    """Adds the classes and objects that labelled frames have."""
    frames = [one for mine in known.values() for one in mine.values()]
    found.labelled = {name: len(mine) for name, mine in known.items()}
    shown = {name: {kind for one in mine.values() for kind, _ in one.objects} for name, mine in known.items()}
    _add_classes(found, frames)
    ours, classes = found.source.get("rename", {}), {*found.source["classes"][1:]}
    found.classes = {name: {ours.get(kind, kind) for kind in kinds} & classes for name, kinds in shown.items()}
    _add_objects(found, frames)
    _count_pixels(found, frames)


def _choose_clip_length(
    found: Findings, known: LabelledFrames, labels: PairedLabels, *, may_be_background: bool
) -> None:
    """Adds a length of clips that covers the horizon; frames without objects become background if it needs them.

    Raises:
        MaskcastError: if no length does.
    """
    try:
        cover_horizon(found, _label_flags(found, known), shorter=not may_be_background)
    except MaskcastError:
        if not may_be_background:
            raise
        known = labelled_frames(labels, "background")
        found.labelled = {name: len(known[name]) for name in found.labelled}
        found.source["empty"] = "background"
        found.reasons["empty"] = "too few frames have objects to score a forecast on them alone"
        cover_horizon(found, _label_flags(found, known))


def _add_classes(found: Findings, frames: Sequence[ImportedFrame]) -> None:
    """Adds the classes; spellings that differ in case, spaces or Unicode form are one, the most frequent."""
    counts = Counter(name for frame in frames for name, _ in frame.objects if name != IGNORED)
    spellings = defaultdict[str, list[str]](list)  # the most frequent first
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        spellings[class_key(name)].append(name)
    shown: list[str] = []
    renamed: dict[str, str] = {}
    same: list[list[str]] = []
    for key, names in sorted(spellings.items(), key=lambda one: one[1][0]):
        ours = names[0]
        if NO_LABEL.fullmatch(key):
            ours = IGNORED
        elif key.strip("_") == "background":
            ours = "background"
        else:
            shown.append(ours)
            same += [names] if len(names) > 1 else []
        renamed |= {name: ours for name in names if name != ours}
    found.source["classes"] = ["background", *shown]
    found.reasons["classes"] = f"the classes that have masks in {pluralize(len(frames), 'labelled frame')}"
    if renamed:
        found.source["rename"] = renamed
        found.reasons["rename"] = (
            "names that differ only in case, spaces or Unicode form are one class"
            if same
            else "by their names, these are not classes"
        )
    if same:
        found.warnings.append(
            f"classes: {' and '.join(map(repr, same[0]))} differ only in case, spaces or Unicode form, so they "
            f"are one class{f', and so are {len(same) - 1} more' if same[1:] else ''}; if not, edit source.rename"
        )
    found.rows.append(("classes", ", ".join(found.source["classes"])))


def _add_objects(found: Findings, frames: Sequence[ImportedFrame]) -> None:
    numbers = [number for frame in frames for _, number in frame.objects]
    if numbers and None not in numbers:
        found.rows.append(
            ("objects", "have numbers: source.instances keeps them for forecasts by object (docs/forecasting.md)")
        )


def _count_pixels(found: Findings, frames: Sequence[ImportedFrame]) -> None:
    """Adds the share of pixels of each class, estimated from some frames."""
    names = {name: name for name in found.source["classes"]} | found.source.get("rename", {})
    counts = dict.fromkeys(found.source["classes"], 0)
    for number in evenly_spaced(len(frames), MAX_COUNTED):
        frame = frames[number]
        if frame.size is None:
            continue
        painted = np.zeros(frame.size, np.intp)
        classes = list(counts)
        for region in frame.regions(frame.size):
            ours = names.get(region.class_name, IGNORED)
            painted[region.mask_HW] = classes.index(ours) if ours in counts else -1
        for k, name in enumerate(classes):
            counts[name] += int((painted == k).sum())
    total = sum(counts.values())
    if total:
        found.class_shares = {name: count / total for name, count in counts.items()}
        top = sorted(found.class_shares.items(), key=lambda one: -one[1])[:6]
        found.rows.append(("pixels", ", ".join(f"{name}: {share:.1%}" for name, share in top)))
