"""Sequences of frames with a mask image per frame, as in DAVIS, CamVid and Cityscapes.

Shapes: T frames, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from maskcast.data.images import Size, check_mask_size
from maskcast.data.masks.choice import Encoding, choose_rule
from maskcast.data.masks.panoptic import COLOUR_DIVISOR, PanopticEncoding
from maskcast.data.masks.rules import MaskRule, has_colours, value_table
from maskcast.data.masks.stored import ReadMode
from maskcast.data.masks.survey import survey_masks
from maskcast.data.sources.base import Listing
from maskcast.data.sources.cutting import LabelledSource, clips, is_labelled, sequence_splits, unused_labels
from maskcast.data.sources.load_window import NO_OBJECT
from maskcast.data.sources.patterns import FRAME, Pattern, find_sequences, match_names, path_of, without_masks
from maskcast.data.sources.sequence_files import (
    SequenceFiles,
    pair_files,
    rate_warnings,
    sequence_notes,
)
from maskcast.errors import MaskcastError
from maskcast.labels import (
    IGNORE,
    LOOKBACK,
    LabelError,
    natural_sort_key,
)
from maskcast.params import ByName
from maskcast.reading import pluralize


def _text_keys(values: Any) -> Any:
    return {str(key): name for key, name in values.items()} if isinstance(values, Mapping) else values


Values = Annotated[ByName[str, str], BeforeValidator(_text_keys)]


class FrameFoldersSource(LabelledSource):
    """Sequences of images, or videos, with mask images, cut into windows.

    Masks are paired with frames by name, and their values are held against `classes` before one of them is used.
    """

    layout: Literal["frame_folders"] = "frame_folders"
    images: Pattern = "JPEGImages/480p/{clip}"
    """Folder of a sequence's frames, or its video, e.g. `"{clip}.mp4"`; `{clip}` stands for the sequence's name.
    If a folder holds other images as well, give the frames' file names with `{frame}` for the part that differs,
    e.g. `"leftImg8bit/train/{clip}/{frame}_leftImg8bit.png"` or `"{clip}/{frame}/rgb.png"`; `{frame}` without
    `{clip}` is one sequence. `{clip}` in several folders, e.g. `"{clip}/{clip}/rgb"`, gives names of several
    parts, e.g. `scene 1/left`. With `"images/{clip}.jpg"` each image is a sequence of its own, as for photographs.
    Images are rotated as EXIF says, scaled to 8 bits from their declared bit depth, and lose their alpha
    channel."""
    masks: Pattern = "Annotations/480p/{clip}"
    """Folder of the sequence's mask images, or their file names with `{frame}`, e.g.
    `"gtFine/train/{clip}/{frame}_gtFine_labelIds.png"`. Losses and metrics ignore frames without a mask."""
    mask_suffix: str | None = None
    """Suffix that a mask's name adds to its frame's, e.g. `_L` if `001_L.png` is the mask of `001.png`."""
    offset: int | None = None
    """Pairs by number: mask N belongs to frame N - offset. Frames of a video count from 0, so use 1 if its first
    mask is `00001.png`. null pairs images by name, and masks with frames of a video from 0 if there is a mask
    0."""
    encoding: Encoding = "auto"
    """What pixel values mean. `index`: class ids; `binary`: one foreground class, whatever its values; `auto`:
    whichever the values of the whole set allow, and an error if they allow both or neither."""
    ignore: int | None = Field(default=None, ge=0, le=65535)
    """Pixel value of the mask images that means no label."""
    values: Values | None = None
    """Class of each pixel value, or `ignore` for no label, if values are not class ids: `{0: background, 255:
    person}`. For colours: `{"#000000": ignore, "#804080": road}`."""
    label_divisor: int | None = Field(default=None, ge=2, le=COLOUR_DIVISOR)
    """Set this if a pixel value is class * label_divisor + object: 1000 in Cityscapes' instanceIds and MOTS, 100
    in VIPSeg. A value below it, or below the number of classes, is a class without an object. 65536 is for colours
    whose red is the class and whose green and blue are the object, 0 for none, as in KITTI-STEP. `classes`,
    `values` and `ignore` then refer to class numbers; `ignore` may also be a whole pixel value, except for
    colours."""
    instances: bool = False
    """Whether each mask value is an object of its own, as in DAVIS 2017. Clips then have, beside the classes
    (`mask`), a label map `objects` of kind instances. `values` or `label_divisor` give the class of each object;
    without them all objects have the second of two classes. A clip in which a frame has no mask has no
    `objects`."""
    lookback: int = Field(default=0, ge=0)
    """With `split_by: time`, how many frames at the start of a clip of `val`, `test` or `hidden` may be from the
    split before: a forecaster sees them as context and forecasts later ones. Not for maskers, which would be
    validated on frames that they trained on."""

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.lookback and self.split_by != "time":
            raise ValueError("lookback is for split_by: time; whole sequences have no split before them")
        if self.lookback >= self.span:
            raise ValueError(
                f"lookback {self.lookback} must be below the {pluralize(self.span, 'frame')} that a window spans"
            )
        if self.mask_suffix and FRAME in self.masks:
            raise ValueError("mask_suffix is for a folder of masks; with {frame} write it into masks")
        if self.values is not None and (self.encoding != "auto" or self.ignore is not None):
            raise ValueError(
                "values define everything; remove encoding and ignore, and use the class `ignore` for no label"
            )
        if self.values is not None and not isinstance(self.classes, str):
            value_table(self.values, self.classes)
        if self.label_divisor is not None:
            if self.encoding == "binary":
                raise ValueError("label_divisor is for classes; leave out encoding: binary")
            if has_colours(self.values or {}):
                raise ValueError("with label_divisor, values name classes by number, e.g. {11: person}")
        elif self.instances:
            one_class = self.encoding != "index" and not isinstance(self.classes, str) and len(self.classes) == 2
            if self.values is None and not one_class:
                raise ValueError(
                    "instances: true needs values, the class of each object; or two classes, all objects the "
                    "second"
                )
            if has_colours(self.values or {}):
                raise ValueError("instances: true is for masks whose values are numbers; values names colours")
        return self

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the windows of all sequences (see `SourceConfig.listing`)."""
        sequences = find_sequences(raw, self.images)
        masks = match_names(sequences, find_sequences(raw, self.masks))
        images = without_masks(sequences, masks)
        if not images:
            raise MaskcastError(
                f"{raw}: nothing matches images {self.images!r}; fix source.images or the data set's root"
            )
        names = sorted(images, key=natural_sort_key)
        suffix = self.mask_suffix or ""
        masked = {name for name in names if name in masks and masks[name].has_masks(suffix)}
        splits = sequence_splits(names, masked or names, self, seed)  # without any mask, each says where it looked
        listing = self.empty_listing(raw, instances=self.instances)
        listing.meta |= {LOOKBACK: self.lookback} if self.lookback else {}
        footage: dict[str, SequenceFiles] = {}
        for name, split in splits.items():
            try:
                footage[name] = pair_files(
                    images[name],
                    masks.get(name),
                    raw / path_of(self.masks, name),
                    suffix=suffix,
                    offset=self.offset,
                    labelled=is_labelled(split),
                )
            except MaskcastError as error:
                listing.skipped.append((name, str(error)))
                continue
            listing.skipped += [(f"{name}/masks", footage[name].unpaired)] if footage[name].unpaired else []
        labelled = {name: one.masked for name, one in footage.items()}
        rule = self.rule([mask for own in labelled.values() for mask in own.values()], listing.maps[0].classes)
        listing.notes += [rule.description] if rule.description else []
        if masked and (without := [n for n in names if splits[n] == "unlabeled" and n not in masked]):
            listing.notes.append(f"no masks of {pluralize(len(without), 'sequence')}: unlabeled ({without[0]})")
        of_masks = {name for name, files in masks.items() if files.has_masks(suffix)}  # and no video `cats.mp4`
        if lost := sorted(of_masks - sequences.keys(), key=natural_sort_key):
            listing.notes.append(f"no frames for the masks of {pluralize(len(lost), 'sequence')} ({lost[0]})")
        listing.notes += [*sequence_notes(footage), *unused_labels(splits, masked)]
        listing.warnings += rate_warnings(footage, self.fps, labelled) if self.frames > 1 else ()
        for name, one in footage.items():
            own = {i: partial(_read_mask, rule, mask) for i, mask in labelled[name].items()}
            listing.add(*clips(name, one, splits[name], self, listing, own, lookback=self.lookback))
        return listing

    def rule(self, paths: Sequence[Path], classes: Sequence[str]) -> MaskRule:
        """Returns the rule for what pixel values mean, which holds for all masks of the set.

        Raises:
            LabelError: if the values contradict these params, or allow more than one reading.
        """
        try:
            table = None if self.values is None else value_table(self.values, classes)
        except ValueError as error:  # only for a classes file: names in the params were checked before
            raise LabelError(f"source.{error}; fix source.values or the classes file") from None
        by_number = self.encoding == "index" or self.values or self.instances or self.label_divisor
        stored: ReadMode | None = "stored" if by_number else None
        coloured = has_colours(self.values or {}) or self.label_divisor == COLOUR_DIVISOR
        split = None
        if self.label_divisor is not None:
            split = PanopticEncoding(self.label_divisor, max(table) + 1 if table else len(classes), self.ignore)
        survey = survey_masks(paths, self.ignore, "colours" if coloured else stored, split)
        return choose_rule(
            survey,
            encoding=self.encoding if split is None else "index",
            ignore=self.ignore,
            num_classes=len(classes),
            table=table,
            objects=self.instances and split is None,
        )


def _read_mask(rule: MaskRule, mask: Path, size: Size, image: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of a frame (see `ReadLabels`); objects have the values of the mask as numbers."""
    classes_HW, values_HW = rule.read_objects(mask)
    check_mask_size(mask, classes_HW.shape, image, size, may_be_scaled=True)
    is_object = (classes_HW > 0) & (classes_HW != IGNORE) & (values_HW > 0)
    return classes_HW, np.where(is_object, values_HW.astype(np.int32), NO_OBJECT)
