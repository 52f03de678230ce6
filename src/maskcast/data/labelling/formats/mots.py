"""MOTS as PNG: a folder per clip, a 16-bit image per frame; pixel = class * 1000 + object, or 10000 (ignored).

``labels.txt`` names the classes, one per line, in the order of their numbers from 1, as CVAT writes it. Without
this file they are those of KITTI MOTS: car and pedestrian. KITTI MOTS counts frames from 0, like this package;
MOTSChallenge counts from 1.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np

from maskcast.data.images import Size, write_image
from maskcast.data.labelling.formats.base import (
    IGNORED,
    Export,
    FrameId,
    ImportedFrame,
    LabelFormat,
    Region,
    checked_size,
)
from maskcast.data.labelling.formats.names import clip_name, frame_ids_of
from maskcast.data.masks.panoptic import MOTS_VOID, OBJECTS_PER_CLASS
from maskcast.data.masks.stored import read_mask
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.progress import say
from maskcast.reading import read_text

MAX_CLASSES = 64  # 65 * 1000 + 999 exceeds 16 bits
LABELS = "labels.txt"
KITTI = ("car", "pedestrian")
DecodeValue = Callable[[int, str], tuple[str, int | None]]


class Mots(LabelFormat):
    """The common part of both MOTS formats."""

    tool = "MOTS"
    has_ambiguous_start = True
    first = 0  # number of a clip's first frame in the files
    named: Collection[str] = ()  # videos whose frames have the numbers of their images in the raw data
    classes: Sequence[str] = ()  # classes of the files

    def read(self, path: Path) -> Iterator[ImportedFrame]:
        """Yields the frames of a file, or of a folder of files (see `LabelFormat.read`)."""
        self.classes = self.class_names(path)
        yield from super().read(path)

    def detect_first_frame(
        self,
        path: Path,
        lengths: Mapping[str, int],
        videos: Mapping[str, int],
        own_numbers: Mapping[str, Collection[int]],
        first: int | None,
    ) -> None:
        """Determines the number of a clip's first frame (see `LabelFormat.detect_first_frame`)."""
        frame_numbers = list(self.frame_numbers(path))
        numbers_of: dict[str, set[int]] = defaultdict(set)
        for _, name, t in frame_numbers:
            numbers_of[name].add(t)
        # a number beyond the last frame shows that images are named as in the raw data
        self.named = {
            name
            for name, own in own_numbers.items()
            if first is None and _are_own(numbers_of[name], own, videos[name])
        }
        frame_numbers = [each for each in frame_numbers if each[1] not in self.named]
        file_with_0 = next((file for file, _, t in frame_numbers if t == 0), None)
        # beyond the end if counted from 0
        lists_last = any(t == lengths.get(clip) for _, clip, t in frame_numbers)
        # a video may go on after its clips, so only all of its frames show how it counts
        listed = {(name, t) for _, name, t in frame_numbers}
        lists_whole = any(
            all((name, t) in listed for t in range(1, 1 + length))
            for name, length in videos.items()
            if name not in lengths
        )
        # an error that reading reports
        lists_beyond = any(t > lengths.get(clip, t) for _, clip, t in frame_numbers)
        if first == 1 and file_with_0 is not None:
            raise MaskcastError(f"--first-frame 1: {file_with_0} has a frame 0; remove the option")
        if first is None and file_with_0 is None and not lists_beyond:
            first = 1 if lists_last or lists_whole else self.default_first_frame(path, frame_numbers)
        self.first = first or 0

    def counted_from_0(self, frame_ids: Sequence[FrameId]) -> tuple[list[FrameId], list[str]]:
        """Returns the clips and frames that numbers of the files refer to, and the names of the frames' images."""
        named = [f"{quote(name)}/{t}.png" for name, t in frame_ids if name in self.named]
        return [(name, t - self.first) for name, t in frame_ids if name not in self.named], named

    def class_names(self, path: Path) -> Sequence[str]:
        """Returns the names of the classes 1, 2, ...."""
        return read_labels(path) or KITTI

    @abstractmethod
    def frame_numbers(self, path: Path) -> Iterator[tuple[Path, str, int]]:
        """Yields file, clip and number of each frame that is listed with objects."""

    @abstractmethod
    def default_first_frame(self, path: Path, frame_numbers: Sequence[tuple[Path, str, int]]) -> int:
        """Returns the number of a clip's first frame if neither a frame 0 nor a clip's last frame is listed."""


def _are_own(numbers: set[int], own: Collection[int], length: int) -> bool:
    """Whether numbers of frames are those of images in the raw data, of which later ones may be in no clip."""
    shown = {t for t in numbers if t <= max(own)}
    return bool(shown) and shown <= set(own) and max(numbers) >= length


class MotsPng(Mots):
    """MOTS as PNG."""

    name = "mots"
    files = ("*.png",)

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``instances/<clip>/<frame>.png`` and ``instances/labels.txt``."""
        root = folder / "instances"
        root.mkdir()
        check_class_count(export.classes)
        write_labels(root, export.classes)
        for clip, t, regions in export.frames():
            values_HW = np.zeros(export.sizes[clip], np.uint16)
            for region in regions:
                values_HW[region.mask_HW] = encode_value(region, export.classes)
            place = root / clip_name(clip)
            place.mkdir(exist_ok=True)
            write_image(place / f"{t:06d}.png", values_HW)

    def files_in(self, path: Path) -> list[Path]:
        """Returns the label images, without the images of frames (see `LabelFormat.files_in`)."""
        found = super().files_in(path)
        return [one for one in found if one == path or "images" not in one.relative_to(path).parts[:-1]]

    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the single frame of a PNG (see `LabelFormat.read`)."""
        yield self._frame(file, partial(decode_value, self.classes))

    def _frame(self, file: Path, decode: DecodeValue) -> ImportedFrame:
        """Returns the frame of an image of ids."""
        frame_ids, names = self.counted_from_0(frame_ids_of_file(file))
        return replace(frame_of_ids(file, frame_ids, decode, include_zero=False), names=names)

    def frame_numbers(self, path: Path) -> Iterator[tuple[Path, str, int]]:
        """Yields all clips and frames that the names of the images may refer to (see `Mots.frame_numbers`)."""
        return ((file, clip, t) for file in self.files_in(path) for clip, t in frame_ids_of_file(file))

    def default_first_frame(self, path: Path, frame_numbers: Sequence[tuple[Path, str, int]]) -> int:
        """Assumes names written by maskcast, which count from 0, and says so."""
        if frame_numbers:
            say("no image is of frame 0 or of a clip's last frame: counted from 0 (--first-frame 1: from 1)")
        return 0


def frame_ids_of_file(file: Path) -> list[FrameId]:
    """Returns the clips and frames that the image ``<clip>/<frame>.png`` may refer to."""
    return frame_ids_of(f"{file.parent.name}/{file.name}")


def frame_of_ids(
    file: Path, frame_ids: Sequence[FrameId], decode: DecodeValue, *, include_zero: bool
) -> ImportedFrame:
    """Returns the frame of an image of ids.

    Args:
        file: the image.
        frame_ids: clips and frames that its name may refer to.
        decode: returns class name and object number of a pixel value, given also the file name for errors; can be
            pickled.
        include_zero: whether 0 has a class, too; it is never an object.

    Raises:
        MaskcastError: the image is damaged, coloured or lossy, or holds an id that does not exist.
    """
    values_HW = _ids(file)
    objects = [decode(value, str(file)) for value in np.unique(values_HW).tolist() if value]
    size = checked_size(values_HW.shape[0], values_HW.shape[1], str(file))
    return ImportedFrame(str(file), frame_ids, size, objects, partial(_regions, file, decode, include_zero))


def _regions(file: Path, decode: DecodeValue, include_zero: bool, size: Size) -> Iterator[Region]:
    values_HW = _ids(file)
    for value in np.unique(values_HW).tolist():
        if value or include_zero:
            name, instance = decode(value, str(file))
            yield Region(name, values_HW == value, instance)


def _ids(file: Path) -> np.ndarray:
    """Returns the ids of an image, (H, W) int32."""
    mask = read_mask(file)
    values_HW = mask.grey()
    if values_HW is None or mask.lossy:
        raise MaskcastError(f"{file}: has {mask.format}, expected ids; export ids as PNG, 8 or 16 bits grey")
    return values_HW


def check_class_count(classes: Sequence[str]) -> None:
    """Refuses more classes than 16 bits have room for."""
    if len(classes) > MAX_CLASSES:
        raise MaskcastError(
            f"MOTS supports at most {MAX_CLASSES} classes, the map has {len(classes)}; use another format"
        )


def write_labels(root: Path, classes: Sequence[str]) -> None:
    """Writes the class names."""
    (root / LABELS).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def read_labels(path: Path) -> tuple[str, ...]:
    """Returns the class names from ``labels.txt`` in or beside ``path``, or nothing."""
    inside = [file for file in list_files(path) if file.name == LABELS]
    for file in [*inside, *(folder / LABELS for folder in path.parents[:2])]:
        if file.is_file():
            lines = read_text(file, "UTF-8", "write a class name a line").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return ()


def encode_value(region: Region, classes: Sequence[str]) -> int:
    """Returns the pixel value of a region."""
    if region.class_name == IGNORED:
        return MOTS_VOID
    instance = 1 if region.instance is None else region.instance
    if not 0 < instance < OBJECTS_PER_CLASS:
        raise MaskcastError(
            f"MOTS supports objects 1 to {OBJECTS_PER_CLASS - 1}, a clip has object {instance}; use another format"
        )
    return OBJECTS_PER_CLASS * (1 + classes.index(region.class_name)) + instance


def decode_value(names: Sequence[str], value: int, where: str) -> tuple[str, int | None]:
    """Returns class name and object number of a pixel value.

    Raises:
        MaskcastError: there is no such class.
    """
    if value == MOTS_VOID:
        return IGNORED, None
    class_id, instance = divmod(value, OBJECTS_PER_CLASS)
    if not 0 < class_id <= len(names):
        raise MaskcastError(
            f"{where}: value {value} is of class {class_id}; allowed: 1 to {len(names)} ({', '.join(names)}): "
            f"list all classes in {LABELS}"
        )
    return names[class_id - 1], instance
