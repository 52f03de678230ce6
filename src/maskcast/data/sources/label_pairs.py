"""Finds the image of each frame in a label file: by its name, or by clip and number in a video.

A name matches an image if the image's path ends in it, or if it ends in the image's path below the common folder
of all sequences; case and file ending are ignored. If several images match, the one is taken whose sequence the
path of the label file names, e.g. `clip1/labels.json`. CVAT names the frames of a video `frame_000012`, by their
number: the video is the one that the label file or its path names, else the only one that exists.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from maskcast.data.frame_names import folded
from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.data.labelling.formats.base import ImportedFrame, LabelFormat
from maskcast.data.labelling.formats.names import UPLOADED, VIDEO_FRAME
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.labels import LabelError
from maskcast.reading import parsing

Parts = tuple[str, ...]
ReadFrames = Callable[[Path], Iterable[ImportedFrame]]  # of a label file
Match = tuple[Path, ImportedFrame, tuple[str, int] | None]
# Label Studio drops the folder of an uploaded file, makes spaces underscores and removes all characters but
# letters, digits, dots, underscores and hyphens.
_REMOVED_CHARACTERS = re.compile(r"[^-\w.]")
_LAST = "\U0010ffff"  # sorts behind every name


@dataclass
class PairedLabels:
    """The frames of label files, by sequence.

    Attributes:
        frames: for each sequence the labelled frames by their index in it.
        unpaired: for each file its frames that have no image.
        files: for each sequence the label files that list frames of it.
    """

    frames: dict[str, dict[int, ImportedFrame]] = field(default_factory=lambda: defaultdict(dict))
    unpaired: dict[Path, list[str]] = field(default_factory=lambda: defaultdict(list))
    files: dict[str, set[Path]] = field(default_factory=lambda: defaultdict(set))


def pair_labels(matches: Iterable[Match], remedy: str) -> PairedLabels:
    """Returns frames of label files by their sequence, given what ``match_frames`` yields.

    Raises:
        LabelError: a frame is listed twice; ``remedy`` says what to do then.
    """
    labels = PairedLabels()
    for file, frame, match in matches:
        if match is None:
            labels.unpaired[file].append(frame.where)
            continue
        name, k = match
        if k in labels.frames[name]:
            other = labels.frames[name][k].where
            raise LabelError(f"{frame.where}: the same frame as {other}; {remedy}")
        labels.frames[name][k] = frame
        labels.files[name].add(file)
    return labels


def match_frames(
    raw: Path,
    files: Iterable[Path],
    form: LabelFormat,
    footage: Mapping[str, SequenceFiles],
    folder: str,
    read: ReadFrames | None = None,
) -> Iterator[Match]:
    """Yields each frame of label files, with its file and the sequence and index of its image, if it has one.

    Args:
        raw: folder that paths of images are relative to.
        files: label files.
        form: format of the files.
        footage: sequences by name.
        folder: common folder of all sequences, relative to ``raw``.
        read: returns the frames of a file; None is ``form.read``.

    Raises:
        LabelError: two images match, or a frame is beyond the end of its video.
        MaskcastError: a file is damaged.
    """
    images = _ImageIndex(raw, footage, folder)
    for file in files:
        parts = _parts(file.relative_to(raw).as_posix())
        path_parts = {*parts, parts[-1].removeprefix("instances_")}  # COCO names files after image folders
        with parsing(file, f"labels of {form.name}", "export them again"):
            for frame in (read or form.read)(file):
                yield file, frame, images.find(frame, path_parts)


class _Image(NamedTuple):
    backwards: Parts
    """The parts of its path, the last one first."""
    sequence: str
    frame: int


class _Images(NamedTuple):
    """Images by the last part of their paths, sorted by the others, and by their names in Label Studio."""

    by_name: Mapping[str, Sequence[_Image]]
    uploaded: Mapping[str, Sequence[_Image]]


class _ImageIndex:
    """The images of all sequences, by name.

    Many sequences may have images of one name, so no search goes through all of these.
    """

    def __init__(self, raw: Path, footage: Mapping[str, SequenceFiles], folder: str) -> None:
        self._raw, self._footage = raw, footage
        self._folder = PurePosixPath(folded(folder)).parts[::-1]
        self._sequences: dict[str, list[str]] = defaultdict(list)
        # Those in folders, by the last part of their names
        self._in_folders: dict[str, list[tuple[set[str], str]]] = defaultdict(list)
        self._of_video: set[str] = set()  # sequences whose images have the names that CVAT gives to video frames
        self._doubtful: dict[str, list[str]] = {}  # sequences whose images sort differently by name and by number
        for name, found in footage.items():
            self._sequences[folded(name)].append(name)
            if len(parts := folded(name).split("/")) > 1:
                self._in_folders[parts[-1]].append(({*parts}, name))
            names = [path.name for path in found.frames.images]
            if any(map(VIDEO_FRAME.fullmatch, names)):
                self._of_video.add(name)
            if (by_name := sorted(names)) != names:
                self._doubtful[name] = by_name[:3]
        self._all = self._images_of(footage)
        self._own: dict[str, _Images] = {}  # of sequences, as far as they were asked for

    def find(self, frame: ImportedFrame, path_parts: set[str]) -> tuple[str, int] | None:
        """Returns sequence and index of a frame, or None; ``path_parts`` has the parts of the label file's path.

        Raises:
            LabelError: two images match, or the frame is beyond the end of its video.
        """
        if not frame.ordered and (match := self._named(frame, path_parts)) is not None:
            return match
        for clip, k in frame.frame_ids:
            name = next(reversed(self._sequences.get(folded(clip), ())), None)
            if name is not None and (frame.ordered or self._footage[name].frames.video):
                return self._at(name, k, frame)
        if frame.ordered and (match := self._named(frame, path_parts)) is not None:
            return match
        candidates = self._named_by(path_parts) or self._footage
        name = next(iter(candidates))
        numbered = frame.ordered or self._footage[name].frames.video
        if len(candidates) == 1 and numbered and frame.frame_ids and any(map(VIDEO_FRAME.fullmatch, frame.names)):
            return self._at(name, frame.frame_ids[-1][1], frame)
        return None

    def _at(self, name: str, k: int, frame: ImportedFrame) -> tuple[str, int] | None:
        """Returns sequence and index of frame ``k``; images with CVAT's names are found by name instead."""
        found = self._footage[name]
        if name in self._of_video:
            same = self._images_of_one(name).by_name.get(_parts(frame.names[0])[-1], ())
            return same[0][1:] if same else None
        if name in self._doubtful:
            raise LabelError(
                f"{frame.where}: frames have numbers alone, and CVAT may have sorted the images of {name!r} by "
                f"name, {', '.join(self._doubtful[name])}, ...; export `CVAT for images 1.1` of the task"
            )
        if not 0 <= k < len(found.masks):
            raise LabelError(
                f"{frame.where}: frame {k} of {name!r}, which has {len(found.masks)}, counted from 0; give the "
                "images or the video that were labelled"
            )
        return name, k

    def _named(self, frame: ImportedFrame, path_parts: set[str]) -> tuple[str, int] | None:
        for name in frame.names:
            parts = _parts(name)
            for find in (self._fitting, self._uploaded):
                matches = find(self._all, parts)
                if len(matches) > 1:
                    own = map(self._images_of_one, self._named_by(path_parts))
                    matches = [one for images in own for one in find(images, parts)] or matches
                if len(matches) > 1:
                    first, second = ("/".join(one.backwards[::-1]) for one in matches[:2])
                    raise LabelError(
                        f"{frame.where}: {name!r} may be {first} or {second}; write the folder into the names, "
                        "or name the file of labels, or its folder, as the sequence"
                    )
                if matches:
                    return matches[0][1:]
        return None

    def _named_by(self, path_parts: set[str]) -> list[str]:
        """Returns the sequences that the path of a label file names."""
        whole = [name for part in path_parts for name in self._sequences.get(part, ())]
        return whole or [
            name for part in path_parts for parts, name in self._in_folders.get(part, ()) if parts <= path_parts
        ]

    def _images_of_one(self, name: str) -> _Images:
        if name not in self._own:
            self._own[name] = self._images_of([name])
        return self._own[name]

    def _images_of(self, names: Iterable[str]) -> _Images:
        by_name, uploaded = defaultdict[str, list[_Image]](list), defaultdict[str, list[_Image]](list)
        for name in names:
            for k, path in enumerate(self._footage[name].frames.images):
                image = _Image(_parts(path.relative_to(self._raw).as_posix())[::-1], name, k)
                by_name[image.backwards[0]].append(image)
                uploaded[_REMOVED_CHARACTERS.sub("", image.backwards[0].replace(" ", "_"))].append(image)
        for images in by_name.values():
            images.sort()
        return _Images(by_name, uploaded)

    def _fitting(self, images: _Images, wanted: Parts) -> Sequence[_Image]:
        """Returns the images whose path ends with ``wanted``, or whose path below the common folder ends it."""
        same = images.by_name.get("".join(wanted[-1:]), ())
        backwards = wanted[::-1]
        found = _between(same, backwards, (*backwards, _LAST))
        paths = [(*backwards[:end], *self._folder) for end in range(1, len(backwards))]
        below = [_between(same, path, (*path, "")) for path in paths if path[: len(backwards)] != backwards]
        return [*found, *chain.from_iterable(below)] if any(below) else found

    def _uploaded(self, images: _Images, wanted: Parts) -> Sequence[_Image]:
        match = UPLOADED.fullmatch("".join(wanted[-1:]))
        return images.uploaded.get(match[1], ()) if match else ()


def _between(images: Sequence[_Image], first: Parts, end: Parts) -> Sequence[_Image]:
    """Returns the images from ``first`` to before ``end``, of images that are sorted by their parts backwards."""
    start, stop = (bisect_left(images, parts, key=lambda image: image.backwards) for parts in (first, end))
    return images if stop - start == len(images) else images[start:stop]


def _parts(path: str) -> Parts:
    """Returns the parts of a path in lower case and one Unicode form, without the ending of an image or label."""
    path = path.rpartition("?d=")[2].replace("\\", "/")  # the form in which Label Studio refers to local files
    found = [part for part in PurePosixPath(folded(path)).parts if part not in ("/", "..")]
    if found and PurePosixPath(found[-1]).suffix in {*IMAGE_SUFFIXES, ".json", ".xml"}:
        found[-1] = PurePosixPath(found[-1]).stem
    return tuple(found)
