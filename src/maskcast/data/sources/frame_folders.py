"""Folders of frames with a mask image per frame: the layouts of DAVIS and CamVid, among others.

DAVIS: `images: JPEGImages/480p/{clip}`, `masks: Annotations/480p/{clip}`, binary. CamVid by sequence:
`images: "{clip}/images"`, `masks: "{clip}/labels"`, index, `ignore: 11`. `images` may also name a video file, e.g.
`"{clip}_orig.mp4"`; its masks are matched by their numbers, all others by their file names.

Shapes: T frames, H rows, W columns.
"""

import glob
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from maskcast.data.images import image_files, read_frames, read_labels, window_starts
from maskcast.data.sources.base import Arrays, LabelError, Listing, RawClip, SourceConfig
from maskcast.data.video import count_frames, read_video
from maskcast.errors import MaskcastError
from maskcast.junk import is_junk
from maskcast.labels import IGNORE, KIND_OF_SPLIT, MASK, SPLITS, id_key, single_map
from maskcast.params import is_false
from maskcast.seed import rng


def _pattern(value: str) -> str:
    path = PurePosixPath(value)
    if value.count("{clip}") != 1 or path.is_absolute() or ".." in path.parts:
        raise ValueError("must be a relative path with {clip} once, e.g. JPEGImages/480p/{clip}")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]


class FrameFoldersSource(SourceConfig):
    """Sequences of images with mask images, cut into windows."""

    layout: Literal["frame_folders"] = "frame_folders"
    images: Pattern = "JPEGImages/480p/{clip}"
    """Folder of a sequence's frames, or its video file; `{clip}` stands for the sequence's name."""
    masks: Pattern = "Annotations/480p/{clip}"
    """Folder of its mask images; frames without one are ignored by losses and metrics."""
    encoding: Literal["index", "binary"] = "binary"
    """`index`: palette or grey images of class ids; `binary`: 0 is class 0, 128 and more class 1."""
    ignore: int | None = Field(default=None, ge=0, le=255)
    """Value in the mask images that means no label."""
    classes: tuple[str, ...] = Field(default=("background", "foreground"), min_length=2, max_length=IGNORE)
    """Class names by id."""
    things: bool = Field(default=False, exclude_if=is_false)
    """Whether every class is a kind of object, such as a car, and none is stuff, such as road: an object has one
    class in all frames, so that generated masks of a clip may agree (`generate_masks.consistent_frames`)."""
    frames: int = Field(default=22, ge=1)
    """Frames of a clip."""
    stride: int = Field(default=1, ge=1)
    """Distance of a clip's frames in the sequence."""
    window_step: int = Field(default=22, ge=1)
    """Distance of consecutive clips' first frames in the sequence."""
    split_by: Literal["sequence", "time"] = "sequence"
    """`time`: every sequence is cut into a part for each split, `train` first, then as `splits` lists them."""
    splits: dict[str, float | tuple[str, ...]] = Field(default={"val": 0.2})
    """Share or names of the sequences of each split, or shares of every sequence's time; the rest is `train`."""
    lookback: int = Field(default=0, ge=0)
    """By time, frames at a window's beginning that may be of the split before: a forecaster is shown them and must
    forecast others. Not for maskers, which would be validated on frames that they learned from."""

    @property
    def span(self) -> int:
        """Frames of the sequence from a window's first to its last."""
        return (self.frames - 1) * self.stride + 1

    @model_validator(mode="after")
    def _new_frames(self) -> Self:
        if self.lookback and self.split_by != "time":
            raise ValueError("lookback is for split_by: time; whole sequences have no split before them")
        if self.lookback >= self.span:
            raise ValueError(f"lookback {self.lookback} must be below the {self.span} frames that a window spans")
        return self

    def list(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the windows of all sequences (see `SourceConfig.list`)."""
        sequences = _find_sequences(raw, self.images)
        by_time = self.split_by == "time"
        splits = assign_splits(sorted(sequences, key=id_key), {} if by_time else self.splits, seed)
        listing = Listing([], single_map(self.classes, things=self.things))
        for name, split in splits.items():
            try:
                masks = _mask_files(raw, self.masks, name, required=KIND_OF_SPLIT[split] == "labelled")
                images, pairs = _matched(sequences[name], masks)
            except MaskcastError as error:
                listing.skipped.append((name, str(error)))
                continue
            whole = range(len(pairs))
            for part_split, part in (time_parts(whole, self.splits) if by_time else {split: whole}).items():
                kind, first = KIND_OF_SPLIT[part_split], max(0, part.start - self.lookback)
                starts = window_starts(part.stop - first, self.frames, self.stride, self.window_step)
                if not starts:
                    what = f"has {len(part)} frames" + (f" for {part_split}" if by_time else "")
                    listing.skipped.append((name, f"{what}, a window needs {self.span}"))
                for start in (first + offset for offset in starts):
                    window = range(start, start + self.span, self.stride)
                    load = partial(
                        load_window,
                        images if isinstance(images, Path) else [images[i] for i in window],
                        window,
                        [pairs[i] for i in window] if kind == "labelled" else None,
                        self.encoding,
                        self.ignore,
                        len(self.classes),
                    )
                    meta = {"video": name, "start": start, "stride": self.stride}
                    listing.clips.append(RawClip(f"{name}_{start:05d}", part_split, kind, load, meta))
        return listing


def load_window(
    images: Path | Sequence[Path],
    window: range,
    masks: Sequence[Path | None] | None,
    encoding: str,
    ignore: int | None,
    num_classes: int,
) -> Arrays:
    """Reads one window: the images of a folder, or the frames `window` of a video, and their masks.

    Raises:
        LabelError: on a mask of another size, or with a class that does not exist.
        MaskcastError: on files that cannot be read or images that differ in size.
    """
    frames = read_video(images, window) if isinstance(images, Path) else read_frames(images)
    if masks is None:
        return Arrays(frames)
    labels = np.full(frames.shape[:3], IGNORE, np.uint8)
    for index, path in enumerate(masks):
        if path is None:
            continue
        label = _classes_of(path, encoding, ignore, num_classes)
        if label.shape != labels.shape[1:]:
            raise LabelError(
                f"{path}: the mask is {label.shape}, its frame {labels.shape[1:]}; export them at one size"
            )
        labels[index] = label
    return Arrays(frames, {MASK: labels})


def assign_splits(names: Sequence[str], splits: dict[str, float | tuple[str, ...]], seed: int) -> dict[str, str]:
    """Gives every name a split: by list where named, else by share in an order drawn with the seed, else `train`.

    Raises:
        MaskcastError: on an unknown split, a name that is not there or stands twice, or shares that sum above 1.
    """
    found: dict[str, str] = {}
    shares = _shares(splits)
    for split, members in splits.items():
        for name in members if isinstance(members, tuple) else ():
            if name not in names or name in found:
                problem = "stands in two splits" if name in found else "is not among the sequences"
                raise MaskcastError(f"splits.{split}: {name!r} {problem} ({', '.join(names[:20])}); mend the list")
            found[name] = split
    rest = [name for name in names if name not in found]
    order = [rest[i] for i in rng(seed).permutation(len(rest))]
    for split, share in shares.items():
        count = min(len(order), max(round(share * len(rest)), 1 if share else 0))
        found.update(dict.fromkeys(order[:count], split))
        order = order[count:]
    return {name: found.get(name, "train") for name in names}


def time_parts(frames: range, splits: dict[str, float | tuple[str, ...]]) -> dict[str, range]:
    """Cuts a sequence into consecutive parts: `train`, which takes what the shares leave, then the listed splits.

    Raises:
        MaskcastError: on an unknown split, names instead of a share, or shares that sum above 1.
    """
    shares = _shares(splits)
    if named := [split for split in splits if split not in shares or split == "train"]:
        raise MaskcastError(
            f"splits.{named[0]}: with split_by: time every split but train takes a share of the sequence, e.g. 0.2"
        )
    parts, end = {}, frames.stop
    for split, share in reversed(shares.items()):
        begin = max(frames.start, end - round(share * len(frames)))
        parts[split], end = range(begin, end), begin
    parts["train"] = range(frames.start, end)
    return {split: part for split, part in reversed(parts.items()) if part}


def _shares(splits: dict[str, float | tuple[str, ...]]) -> dict[str, float]:
    """Returns the splits that take a share, after checks of all."""
    for split in splits:
        if split not in SPLITS:
            raise MaskcastError(f"splits.{split}: no such split; allowed: {', '.join(SPLITS)}")
    shares = {split: share for split, share in splits.items() if not isinstance(share, tuple)}
    if any(share < 0 for share in shares.values()) or sum(shares.values()) > 1:
        raise MaskcastError(f"splits: shares must be at least 0 and sum to at most 1, got {shares}; lower them")
    return shares


def _find_sequences(raw: Path, pattern: str) -> dict[str, Path]:
    """Returns the folder or video of each sequence by the name that stands for `{clip}`."""
    before, after = pattern.split("{clip}")
    found = {}
    for text in sorted(glob.glob(f"{glob.escape(before)}*{glob.escape(after)}", root_dir=raw)):
        name = text[len(before) : len(text) - len(after)]
        if name and not is_junk(name):
            found[name] = raw / text
    if not found:
        raise MaskcastError(
            f"{raw}: nothing matches images {pattern!r}; mend source.images or the data set's root"
        )
    return found


def _mask_files(raw: Path, pattern: str, name: str, *, required: bool) -> dict[str, Path]:
    folder = raw / pattern.replace("{clip}", name)
    if not required:
        return {}
    files = {path.stem: path for path in image_files(folder)} if folder.is_dir() else {}
    if not files:
        raise MaskcastError(f"{folder}: no mask images; mend source.masks or put the sequence into unlabeled")
    return files


def _matched(sequence: Path, masks: dict[str, Path]) -> tuple[Path | Sequence[Path], Sequence[Path | None]]:
    """Returns the images (or the video) of a sequence and one mask or None per frame."""
    if sequence.is_file():
        numbered = {
            int(re.findall(r"\d+", stem)[-1]): path for stem, path in masks.items() if re.search(r"\d", stem)
        }
        pairs = [numbered.get(index) for index in range(count_frames(sequence))]
        images: Path | Sequence[Path] = sequence
    else:
        images = image_files(sequence)
        pairs = [masks.get(path.stem) for path in images]
    if masks and not any(pairs):
        raise MaskcastError(f"{sequence}: no frame has a mask of its name, e.g. {next(iter(masks.values()))}")
    return images, pairs


def _classes_of(path: Path, encoding: str, ignore: int | None, num_classes: int) -> np.ndarray:
    labels = read_labels(path)
    void = labels == ignore if ignore is not None else np.zeros(labels.shape, bool)
    classes = (labels >= 128).astype(np.uint8) if encoding == "binary" else labels
    wrong = classes[~void & (classes >= num_classes)]
    if wrong.size:
        raise LabelError(
            f"{path}: class id {wrong.max()} is not in 0..{num_classes - 1}; mend source.classes or source.ignore"
        )
    return np.where(void, np.uint8(IGNORE), classes)
