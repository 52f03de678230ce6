"""Finds labels of frames that have none in the kind of labels which is read."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path, PurePath

from maskcast.data.frame_names import folded
from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.data.inspection.label_kinds import FORMAT_TITLES, OTHER, LabelFiles
from maskcast.data.labelling.formats.table import get_format
from maskcast.data.sources.label_pairs import match_frames
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
    label_files: LabelFiles | None = None,
) -> list[str]:
    """Returns a line for each kind of labels that names frames without labels, and is not read.

    Args:
        raw: folder of the data.
        source: the params of the source.
        footage: the sequences.
        labelled: by sequence, the frames that have labels of the kind that is read.
        label_files: the label files of the folder, as far as their kinds are known.
    """
    missing = {name: {*range(len(one.masks))} - {*labelled.get(name, ())} for name, one in footage.items()}
    missing = {name: frames for name, frames in missing.items() if frames}
    if not missing:
        return []
    used = str(source.get("format", ""))
    what = f"labels of {FORMAT_TITLES[used]}" if used else "masks"
    lines, folder = list[str](), fixed_folder(str(source["images"]))
    label_files, by_format = label_files or LabelFiles(raw), dict[str, list[Path]]()
    with suppress(MaskcastError):  # of a file that is not read
        by_format |= label_files.by_format
    for form, files in by_format.items():
        if form == used:
            continue
        found: dict[Path, set[tuple[str, int]]] = defaultdict(set)
        with suppress(MaskcastError):  # of a file that is not read
            read = partial(label_files.read, get_format(form))
            for file, frame, match in match_frames(raw, files, get_format(form), footage, folder, read):
                if match is not None and not frame.empty and match[1] in missing.get(match[0], ()):
                    found[file].add(match)
        if found:
            first, more = next(iter(found)).relative_to(raw).as_posix(), len(found) - 1
            frames = pluralize(len(set().union(*found.values())), "frame")
            files_text = f"{first}{f' and {more} more' if more else ''} ({FORMAT_TITLES[form]})"
            lines.append(
                f"{frames} without labels have some in {files_text}, which are not read beside {what}: {REMEDY}, "
                "or, where names of images say video and frame number, import these after prepare_clips "
                f"(`maskcast labels import --format {form}`, docs/labels.md)"
            )
    names = _FrameNames(footage, missing)
    for path, text in label_files.not_read():
        place = path.relative_to(raw)  # statistics, gaze and transcripts also have points, counts and segments
        if text != OTHER and any(map(names.is_missing, chain([place], _paths_in(path)))):
            said = f"{text}. It names frames without {what}: {REMEDY}, unless these are predictions"
            return [*lines, f"{place.as_posix()} {said}"]
    return lines


class _FrameNames:
    """Names of frames, and of videos or sequences, with or without labels."""

    def __init__(self, footage: Mapping[str, SequenceFiles], missing: Mapping[str, Collection[int]]) -> None:
        self._without: dict[str, dict[str, bool]] = defaultdict(dict)  # by stem and sequence: whether labels miss
        self._by_last: dict[str, list[tuple[str, set[str]]]] = defaultdict(list)  # sequence and its folders
        for name, one in footage.items():
            folders, without = folded(name).split("/"), missing.get(name, ())
            self._by_last[folders[-1]].append((name, {*folders}))
            self._without[folders[-1]][name] = len(without) == len(one.masks)
            for k, path in enumerate(one.frames.images):
                frames = self._without[folded(path.stem)]
                frames[name] = frames.get(name, True) and k in without
        self._all_without = {stem: all(found.values()) for stem, found in self._without.items()}
        self._named: dict[tuple[str, ...], list[str]] = {}  # by folders; frames of a sequence share these

    def is_missing(self, path: PurePath) -> bool:
        """Whether a path names a frame or sequence without labels, and no other outside of its folders."""
        *folders, name = map(folded, path.parts)
        for stem in (PurePath(name).stem, PurePath(PurePath(name).stem).stem):  # `0001.png.json`
            if found := self._without.get(stem):
                own = [found[name] for name in self._sequences_in((*folders,), stem) if name in found]
                return all(own) if own else self._all_without[stem]
        return False

    def _sequences_in(self, folders: tuple[str, ...], stem: str) -> list[str]:
        """Returns the sequences whose folders are all among those of a path, or its stem."""
        if folders not in self._named:
            known = {*folders}
            self._named[folders] = [
                name for last in known for name, parts in self._by_last.get(last, ()) if parts <= known
            ]
        own = [name for name, parts in self._by_last.get(stem, ()) if parts <= {*folders, stem}]
        return [*self._named[folders], *own]


def _paths_in(file: Path) -> Iterator[PurePath]:
    """Yields the paths of images and videos in a text."""
    if file.stat().st_size > MAX_BYTES:
        return
    text = read_file(file).decode(errors="replace").replace("\\/", "/").replace("\\", "/")
    for match in _ENDING.finditer(text):
        path = PurePath(_BEFORE_PATH.split(text[max(0, match.start() - MAX_PATH) : match.end()])[-1])
        if path.parts:
            yield path
