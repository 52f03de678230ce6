"""Sequences of frames, or videos, whose masks are in annotation files: COCO, YouTube-VIS, CVAT, ...

Shapes: T frames, H rows, W columns.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from maskcast.data.images import Size, check_mask_size
from maskcast.data.labelling.formats.base import Empty, ImportedFrame
from maskcast.data.labelling.formats.class_names import ClassNames, UnknownClasses
from maskcast.data.labelling.formats.table import get_format
from maskcast.data.sources.base import Listing
from maskcast.data.sources.cutting import LabelledSource, clips, is_labelled, sequence_splits, unused_labels
from maskcast.data.sources.label_lists import match_label_files, unlisted_warning
from maskcast.data.sources.label_pairs import PairedLabels, ReadFrames, match_frames, pair_labels
from maskcast.data.sources.load_window import NO_OBJECT
from maskcast.data.sources.patterns import Pattern, find_sequences, fixed_folder
from maskcast.data.sources.sequence_files import (
    SequenceFiles,
    pair_files,
    rate_warnings,
    sequence_notes,
)
from maskcast.errors import MaskcastError
from maskcast.labels import (
    IGNORE,
    LabelError,
    natural_sort_key,
)
from maskcast.params import ByName, PathPattern
from maskcast.reading import pluralize

Format = Literal["coco", "youtube-vis", "cvat-images", "cvat-video", "labelme", "label-studio"]
FilesByName = Mapping[str, SequenceFiles]
LabelledFrames = Mapping[str, Mapping[int, ImportedFrame]]
RENAME_REMEDY = "source.rename: {{{!r}: {}}}"
NEW_CLASS_REMEDY = "add it to source.classes"
_BACKGROUND_NAME = re.compile(r".*background.*|bg|other|none|void|unlabell?ed", re.IGNORECASE)  # names of class 0


class AnnotationsSource(LabelledSource):
    """Sequences of images, or videos, with masks in files of labels, cut into windows."""

    layout: Literal["annotations"] = "annotations"
    format: Format
    """Format of the label files; docs/labels.md says how each is read."""
    labels: tuple[PathPattern, ...] = Field(min_length=1)
    """The label files: paths below the data set's folder; `*` stands for any text, e.g.
    `"*/_annotations.coco.json"`."""
    images: Pattern = "{clip}"
    """Folder of a sequence's frames, or its video, or its images by `{frame}`; see `frame_folders`. A frame of a
    label file is the image whose path ends in its name; a frame of a video is found by clip and number, counted
    from 0."""
    rename: ByName[str, str] = Field(default_factory=dict)
    """Class, `background` or `ignore` (no label) for a name in the label files: `{car: vehicle}`."""
    empty: Empty = "unlabelled"
    """What a frame is that the label file lists without any object: `unlabelled` (nobody has looked at it) or
    `background` (it holds no object)."""
    instances: bool = False
    """Whether clips have, beside the classes (`mask`), a label map `objects` of kind instances, with the number
    that the file gives each object in all frames. A clip in which a frame has no labels has no `objects`."""

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        if not isinstance(self.classes, str):
            try:
                ClassNames(self.classes, get_format(self.format), self.rename, RENAME_REMEDY, NEW_CLASS_REMEDY)
            except LabelError as error:
                raise ValueError(str(error)) from None
        return self

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the windows of all sequences (see `SourceConfig.listing`)."""
        listing = self.empty_listing(raw, instances=self.instances)
        classes = listing.maps[0].classes
        names = ClassNames(classes, get_format(self.format), self.rename, RENAME_REMEDY, NEW_CLASS_REMEDY)
        footage, labels = gather_labels(raw, self, listing.skipped)
        labelled = labelled_frames(labels, self.empty)
        if not labelled:
            raise LabelError(
                f"{raw}: {', '.join(self.labels)} labels no frame of {pluralize(len(footage), 'sequence')} by "
                f"source.images {self.images!r}{_first_unpaired(labels)}; fix source.images, or source.empty "
                "where frames are background"
            )
        unknown = UnknownClasses(names)
        for sequence_labels in labelled.values():
            _check(sequence_labels.values(), names, classes[0], instances=self.instances)
            for frame in sequence_labels.values():
                unknown.add(frame)
        listing.notes += names.unused_renames()
        splits = sequence_splits(list(footage), labelled, self, seed)
        for name, split in splits.items():
            frame_labels = labelled.get(name, {})
            if not frame_labels and is_labelled(split):
                reason = "has no labels; put it into unlabeled, or into hidden if nothing may learn from it"
                listing.skipped.append((name, reason))
                continue
            painters = {k: partial(_paint, frame, names) for k, frame in frame_labels.items()}
            listing.add(*clips(name, footage[name], split, self, listing, painters))
        listing.notes += [*_notes(self, footage, labels, labelled), *unused_labels(splits, labelled)]
        listing.warnings += unknown.warnings(raw)
        listing.warnings += rate_warnings(footage, self.fps, labelled) if self.frames > 1 else ()
        listed = [path for pattern in self.labels for path in match_label_files(raw, pattern)]
        listing.warnings += [warning] if (warning := unlisted_warning(raw, self.format, listed)) else []
        return listing


def gather_labels(
    raw: Path, source: AnnotationsSource, skipped: list[tuple[str, str]], read: ReadFrames | None = None
) -> tuple[FilesByName, PairedLabels]:
    """Returns the sequences, and the frames of the label files by sequence; records what is left out in `skipped`.

    ``read`` returns the frames of a label file, where these are known already.

    Raises:
        MaskcastError: there are no images or no files, or one is damaged or contradicts the images.
    """
    files = dict.fromkeys(path for pattern in source.labels for path in match_label_files(raw, pattern))
    label_folders = {folder for file in files for folder in file.parents}
    footage: dict[str, SequenceFiles] = {}
    for name, images in sorted(
        find_sequences(raw, source.images).items(), key=lambda one: natural_sort_key(one[0])
    ):
        if images.folder in label_folders and not images.images:
            continue  # a folder of label files only
        try:
            footage[name] = pair_files(images, None, raw, suffix="", offset=None, labelled=False)
        except MaskcastError as error:
            skipped.append((name, str(error)))
    if not footage:
        why = f" ({': '.join(skipped[0])})" if skipped else ""
        raise MaskcastError(
            f"{raw}: nothing matches images {source.images!r}{why}; fix source.images or the data set's root"
        )
    form = get_format(source.format)
    matches = match_frames(raw, files, form, footage, fixed_folder(source.images), read)
    labels = pair_labels(matches, form.duplicate_remedy)
    for file, unpaired in labels.unpaired.items():
        name = file.relative_to(raw).as_posix()
        skipped.append((name, f"no image of {pluralize(len(unpaired), 'frame')}, first {unpaired[0]}"))
    return footage, labels


def labelled_frames(labels: PairedLabels, empty: Empty) -> LabelledFrames:
    """Returns the labelled frames of each sequence that has any, by their index in the sequence."""
    known = {
        name: {k: one for k, one in found.items() if not one.is_unlabelled(empty)}
        for name, found in labels.frames.items()
    }
    return {name: found for name, found in known.items() if found}


def _check(frames: Iterable[ImportedFrame], names: ClassNames, background: str, *, instances: bool) -> None:
    """Refuses classes and objects that contradict the params or each other, before any mask is read."""
    classes: dict[int, str] = {}
    for frame in frames:
        for name, number in frame.objects:
            class_id = names.id_of(name, frame.where)
            if class_id == 0 and name == background and not _BACKGROUND_NAME.fullmatch(background):
                raise LabelError(
                    f"{frame.where}: {name!r} has objects, but is the first of source.classes, which "
                    f"must be the background; write classes: [background, {name}, ...]"
                )
            if not instances or class_id in (0, IGNORE):
                continue
            if number is None:
                raise LabelError(
                    f"{frame.where}: {name!r} has no object id that is the same in all frames; add one "
                    "(docs/labels.md says where), or leave out source.instances"
                )
            if classes.setdefault(number, name) != name:
                raise LabelError(
                    f"{frame.where}: object {number} is {name!r} here and {classes[number]!r} in another frame of "
                    "its sequence; fix one of them"
                )


def _notes(
    source: AnnotationsSource, footage: FilesByName, labels: PairedLabels, known: LabelledFrames
) -> Iterator[str]:
    """Yields notes for the owner of the data, one line each."""
    without_region = [one for found in labels.frames.values() for one in found.values() if one.empty]
    if num_empty := sum(not one.left_out for one in without_region):
        what = "background" if source.empty == "background" else "without labels"
        yield f"{pluralize(num_empty, 'frame')} listed without objects: {what} (source.empty: {source.empty})"
    if num_left_out := len(without_region) - num_empty:
        yield f"{pluralize(num_left_out, 'frame')} with only annotations without area: without labels"
    total, num_labelled = sum(len(footage[name].masks) for name in known), sum(map(len, known.values()))
    if num_labelled < total:
        frames, sequences = pluralize(total, "frame"), pluralize(len(known), "labelled sequence")
        yield f"{num_labelled} of {frames} in {sequences} have labels"
    yield from sequence_notes(footage)


def _first_unpaired(labels: PairedLabels) -> str:
    lost = next((where for found in labels.unpaired.values() for where in found), "")
    return f" (no image: {lost})" if lost else ""


def _paint(frame: ImportedFrame, names: ClassNames, size: Size, image: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of a frame (see `ReadLabels`); regions in front cover those behind."""
    own_size = frame.size or size
    check_mask_size(frame.where, own_size, image, size, may_be_scaled=True)
    classes_HW, objects_HW = np.zeros(own_size, np.uint8), np.full(own_size, NO_OBJECT, np.int64)
    for region in frame.regions(own_size):
        class_id = names.id_of(region.class_name, frame.where)
        classes_HW[region.mask_HW] = class_id
        number = None if class_id in (0, IGNORE) else region.instance
        objects_HW[region.mask_HW] = NO_OBJECT if number is None else number
    return classes_HW, objects_HW
