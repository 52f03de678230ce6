"""Path patterns: `{clip}` stands for the name of a sequence, `{frame}` for the part that names its frames.

`*` stands for any other text within a name. If `{clip}` names images, each image is a sequence of one frame. With
`{clip}` in several folders, the texts it stands for are joined by slashes: `scene 1/left` by `{clip}/{clip}/rgb`.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator

from maskcast.data.frame_names import name_key
from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.data.video_files.frames import VIDEO_SUFFIXES
from maskcast.errors import MaskcastError
from maskcast.files import is_junk

CLIP, FRAME = "{clip}", "{frame}"
_PLACEHOLDER = re.compile(r"[{*]")
SINGLE_SEQUENCE = "sequence"  # name of the sequence of a pattern without {clip}


def _pattern(value: str) -> str:
    path = PurePosixPath(value)
    clips = max((part.count(CLIP) for part in path.parts), default=0)
    if clips > 1 or (not clips and FRAME not in value) or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            "must be a relative path with {clip} once, or in several folders once each, e.g. "
            "JPEGImages/480p/{clip}; where one folder is one sequence, {frame} will do, e.g. frames/{frame}.png"
        )
    if value.count(FRAME) > 1:
        raise ValueError("may have {frame} once, e.g. {clip}/{frame}_leftImg8bit.png or {clip}/{frame}/rgb.png")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]


SequencePaths = Path | dict[str, Path]  # a folder, a video, or images by the text that stands for `{frame}`


def find_sequences(raw: Path, pattern: str) -> dict[str, SequencePaths]:
    """Returns for each sequence its folder or video, or its images by frame if the pattern names them.

    The fixed text of a pattern matches in upper and lower case. All but folders, videos and images is skipped.
    With a pattern that ends like an image, `{clip}.jpg`, images are sequences if there are no folders and videos.

    Raises:
        MaskcastError: if two files have the same frame, or the same sequence.
    """
    found: dict[str, SequencePaths] = {}
    single_images: list[tuple[str, Path]] = []
    of_images = PurePosixPath(pattern).suffix.lower() in (*IMAGE_SUFFIXES, ".*")
    for path, names in _matches(raw, PurePosixPath(pattern).parts, {}):
        clip, frame = names.get("clip", SINGLE_SEQUENCE), names.get("frame")
        if frame is None:
            if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES:
                _add(found, clip, path)
            elif of_images and path.suffix.lower() in IMAGE_SUFFIXES:
                single_images.append((clip, path))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            frames = found.setdefault(clip, {})
            assert isinstance(frames, dict)
            _add(frames, frame, path)
    if found:
        return found
    images: dict[str, Path] = {}
    for clip, path in single_images:
        _add(images, clip, path)
    return {clip: {clip: path} for clip, path in images.items()}


def match_names(images: Collection[str], masks: dict[str, SequencePaths]) -> dict[str, SequencePaths]:
    """Renames masks to the names of the sequences that they belong to.

    Names may differ in case, leading zeros or Unicode form, if only one sequence matches.
    """
    unmatched = {name for name in images if name not in masks}
    known = Counter(map(name_key, (*unmatched, *masks)))
    matched = {key: name for name in unmatched if known[key := name_key(name)] == 2} if unmatched else {}
    return {name if name in images else matched.get(name_key(name), name): files for name, files in masks.items()}


def without_masks(images: dict[str, SequencePaths], masks: dict[str, SequencePaths]) -> dict[str, SequencePaths]:
    """Returns the sequences without those that are masks of others, e.g. a folder `trainannot` beside `train`."""
    mask_owners: dict[Path | None, str] = {
        place: name
        for name, files in masks.items()
        if name in images and (path := _single_path(name, files)) is not None
        for place in (*path.parents, path)  # `01_GT/SEG` beside `01`
    }
    return {
        name: files for name, files in images.items() if mask_owners.get(_single_path(name, files), name) == name
    }


def _single_path(name: str, files: SequencePaths) -> Path | None:
    """Returns the folder, video or single image of a sequence; None if it has several images."""
    return files if isinstance(files, Path) else files.get(name) if len(files) == 1 else None


def fixed_folder(pattern: str) -> str:
    """Returns the fixed folder at the start of a pattern; empty if that is the folder of the data set."""
    return "/".join(takewhile(lambda part: not _PLACEHOLDER.search(part), PurePosixPath(pattern).parts[:-1]))


def path_of(pattern: str, name: str) -> str:
    """Returns a pattern with the name of a sequence in place of `{clip}`."""
    for part in name.split("/"):
        pattern = pattern.replace(CLIP, part, 1)
    return pattern


def _add(found: dict[str, Any], name: str, path: Path) -> None:
    if name in found:
        raise MaskcastError(f"{path}: {found[name]} has the same name by the pattern; remove one of them")
    found[name] = path


def _matches(folder: Path, parts: tuple[str, ...], names: dict[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yields the files and folders that match the parts of a pattern, with the texts of its placeholders."""
    part, rest = parts[0], parts[1:]
    if rest and not _PLACEHOLDER.search(part) and (folder / part).is_dir():  # without a look at all its siblings
        yield from _matches(folder / part, rest, names)
        return
    expression = re.escape(part)
    for name, regex in ((CLIP, "(?P<clip>.+)"), (FRAME, "(?P<frame>.+?)"), ("*", ".*")):
        expression = expression.replace(re.escape(name), regex)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = None if is_junk(path.name) else re.fullmatch(expression, path.name, re.IGNORECASE)
        if match is None:
            continue
        own = match.groupdict()
        if "clip" in names and "clip" in own:
            own["clip"] = f"{names['clip']}/{own['clip']}"
        if not rest:
            yield path, names | own
        elif path.is_dir():
            yield from _matches(path, rest, names | own)
