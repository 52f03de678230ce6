"""Finds labels of frames that have none in the kind of labels which is read."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePath

from maskcast.data.frame_names import folded
from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.data.inspection.label_formats import FORMATS, label_files_by_format, label_format
from maskcast.data.inspection.unsupported_labels import unsupported_labels
from maskcast.data.labelling.formats.table import get_format
from maskcast.data.sources.label_pairs import find_images
from maskcast.data.sources.patterns import fixed_folder
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.data.video_files.frames import VIDEO_SUFFIXES
from maskcast.errors import MaskcastError
from maskcast.reading import pluralize, read_file

REMEDY = "make one kind of all labels"
MAX_BYTES = 64 << 20  # of a file whose text is searched for names of frames
_SUFFIXES = "|".join(suffix[1:] for suffix in sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
_ENDING = re.compile(rf"\.(?:{_SUFFIXES})\b", re.IGNORECASE)
_BEFORE_PATH = re.compile(r'["<>|?*,;\t\r\n]')
MAX_PATH = 260  # characters before the ending of a name


def other_labels_warnings(
    raw: Path,
    source: Mapping[str, object],
    footage: Mapping[str, SequenceFiles],
    labelled: Mapping[str, Collection[int]],
) -> list[str]:
    """Returns a line for each kind of labels that names frames without labels, and is not read.

    Args:
        raw: folder of the data.
        source: the params of the source.
        footage: the sequences.
        labelled: by sequence, the frames that have labels of the kind that is read.
    """
    missing = {name: {*range(len(one.masks))} - {*labelled.get(name, ())} for name, one in footage.items()}
    missing = {name: frames for name, frames in missing.items() if frames}
    if not missing:
        return []
    used = str(source.get("format", ""))
    what = f"labels of {FORMATS[used]}" if used else "masks"
    lines, folder = list[str](), fixed_folder(str(source["images"]))
    for form, files in _label_files(raw).items():
        if form == used:
            continue
        found: dict[Path, set[tuple[str, int]]] = defaultdict(set)
        with suppress(MaskcastError):  # of a file that is not read
            for file, frame, match in find_images(raw, files, get_format(form), footage, folder):
                if match is not None and not frame.empty and match[1] in missing.get(match[0], ()):
                    found[file].add(match)
        if found:
            first, more = next(iter(found)).relative_to(raw).as_posix(), len(found) - 1
            frames = pluralize(len(set().union(*found.values())), "frame")
            files_text = f"{first}{f' and {more} more' if more else ''} ({FORMATS[form]})"
            lines.append(
                f"{frames} without labels have some in {files_text}, which are not read beside {what}: {REMEDY}, "
                "or, where names of images say video and frame number, import these after prepare_clips "
                f"(`maskcast labels import --format {form}`, docs/labels.md)"
            )
    names = _FrameNames(footage, missing)
    for path, text in unsupported_labels(raw):
        paths = chain([path.relative_to(raw)], _paths_in(path))
        if any(map(names.is_missing, paths)) and _label_format(path) is None:
            lines.append(f"{text}. It names frames without {what}: {REMEDY}")
            break
    return lines


class _FrameNames:
    """Names of frames, and of videos or sequences, with or without labels."""

    def __init__(self, footage: Mapping[str, SequenceFiles], missing: Mapping[str, Collection[int]]) -> None:
        self._by_stem: dict[str, list[tuple[set[str], bool]]] = defaultdict(list)  # folders, whether labels miss
        for name, one in footage.items():
            folders, without = folded(name).split("/"), missing.get(name, ())
            self._by_stem[folders[-1]].append(({*folders}, len(without) == len(one.masks)))
            images = () if isinstance(one.images, Path) else one.images
            for k, path in enumerate(images):
                self._by_stem[folded(path.stem)].append(({*folders}, k in without))

    def is_missing(self, path: PurePath) -> bool:
        """Whether a path names a frame or sequence without labels, and no other outside of its folders."""
        *folders, name = map(folded, path.parts)
        for stem in (PurePath(name).stem, PurePath(PurePath(name).stem).stem):  # `0001.png.json`
            if found := self._by_stem.get(stem):
                own = [without for parts, without in found if parts <= {*folders, stem}]
                return all(own or (without for _, without in found))
        return False


def _paths_in(file: Path) -> Iterator[PurePath]:
    """Yields the paths of images and videos in a text."""
    if file.stat().st_size > MAX_BYTES:
        return
    text = read_file(file).decode(errors="replace").replace("\\/", "/").replace("\\", "/")
    for match in _ENDING.finditer(text):
        path = PurePath(_BEFORE_PATH.split(text[max(0, match.start() - MAX_PATH) : match.end()])[-1])
        if path.parts:
            yield path


def _label_format(path: Path) -> str | None:
    """Returns the format of a file that other checks know, else None."""
    with suppress(MaskcastError):
        return label_format(path)
    return None


def _label_files(raw: Path) -> Mapping[str, list[Path]]:
    with suppress(MaskcastError):  # of a file that is not read
        return label_files_by_format(raw)
    return {}
