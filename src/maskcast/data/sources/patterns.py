"""Path patterns: `{clip}` stands for the name of a sequence, `{frame}` for the part that names its frames.

`*` stands for any other text within a name. If `{clip}` names images, each image is a sequence of one frame. With
`{clip}` in several folders, the texts it stands for are joined by slashes: `scene 1/left` by `{clip}/{clip}/rgb`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from maskcast.data.frame_names import name_key, unique_by_name, unsupported_suffixes
from maskcast.data.images import IMAGE_SUFFIXES, image_files
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


@dataclass(frozen=True)
class SequencePaths:
    """What a pattern finds of a sequence, or of its masks: a folder, a video or images.

    Attributes:
        folder: the folder.
        video: the video.
        frames: images by the text that stands for `{frame}`.
    """

    folder: Path | None = None
    video: Path | None = None
    frames: dict[str, Path] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """The folder, the video, or the images."""
        return [path for path in (self.folder, self.video, *self.frames.values()) if path is not None]

    @property
    def unsupported(self) -> str:
        """Suffixes of files in the folder that are no supported images; empty if there are none."""
        return "" if self.folder is None else unsupported_suffixes(self.folder)

    @cached_property
    def images(self) -> Sequence[Path]:
        """The images, or those of the folder, which is listed once."""
        return [*self.frames.values()] if self.folder is None else image_files(self.folder)

    def by_name(self, suffix: str = "", exclude: Collection[Path] = ()) -> dict[str, Path]:
        """Returns the images by what stands for `{frame}`, or those of the folder by name.

        Args:
            suffix: of a folder, only names that end in it are returned, and it is removed from them.
            exclude: images to leave out.

        Raises:
            MaskcastError: if two images have the same name.
        """
        named, excluded = [*self.frames.items()], set(exclude)
        if self.folder is not None:
            found = [path for path in self.images if path.stem.endswith(suffix)]
            named = [(path.stem.removesuffix(suffix), path) for path in found]
        return unique_by_name((name, path) for name, path in named if path not in excluded)

    def has_masks(self, suffix: str) -> bool:
        """Whether these are masks whose names end in ``suffix``, or a folder of files that may be masks."""
        named = any(path.stem.endswith(suffix) for path in self.images)
        return named or (not self.images and bool(self.unsupported))


def find_sequences(raw: Path, pattern: str) -> dict[str, SequencePaths]:
    """Returns for each sequence its folder or video, or its images by frame if the pattern names them.

    The fixed text of a pattern matches in upper and lower case. All but folders, videos and images is skipped.
    With a pattern that ends like an image, `{clip}.jpg`, images are sequences if there are no folders and videos.

    Raises:
        MaskcastError: if two files have the same frame, or the same sequence.
    """
    places, frames = dict[str, Path](), defaultdict[str, dict[str, Path]](dict)
    single_images: list[tuple[str, Path]] = []
    of_images = PurePosixPath(pattern).suffix.lower() in (*IMAGE_SUFFIXES, ".*")
    for path, names in _matches(raw, PurePosixPath(pattern).parts, {}):
        clip, frame = names.get("clip", SINGLE_SEQUENCE), names.get("frame")
        is_image = path.suffix.lower() in IMAGE_SUFFIXES
        if frame is not None and is_image:
            _add(frames[clip], frame, path)
        elif frame is None and (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
            _add(places, clip, path)
        elif frame is None and of_images and is_image:
            single_images.append((clip, path))
    if not places and not frames:
        for clip, path in single_images:
            _add(frames[clip], clip, path)
    of_places = {
        clip: SequencePaths(path) if path.is_dir() else SequencePaths(video=path) for clip, path in places.items()
    }
    return of_places | {clip: SequencePaths(frames=images) for clip, images in frames.items()}


def all_paths(found: Mapping[str, SequencePaths]) -> Iterator[Path]:
    """Yields the folders, videos and images that a pattern finds."""
    for files in found.values():
        yield from files.paths


def match_names(images: Collection[str], masks: dict[str, SequencePaths]) -> dict[str, SequencePaths]:
    """Renames masks to the names of the sequences that they belong to.

    Names may differ in case, leading zeros or Unicode form, if only one sequence matches.
    """
    unmatched = {name for name in images if name not in masks}
    known = Counter(map(name_key, (*unmatched, *masks)))
    matched = {key: name for name in unmatched if known[key := name_key(name)] == 2} if unmatched else {}
    return {name if name in images else matched.get(name_key(name), name): files for name, files in masks.items()}


def without_masks(images: dict[str, SequencePaths], masks: dict[str, SequencePaths]) -> dict[str, SequencePaths]:
    """Returns the sequences without those that are masks of others, e.g. a folder `trainannot` beside `train`.

    With `{clip}_{frame}.png` the masks `mask_s0_0019.png` are a sequence, too.
    """
    mask_owners: dict[Path | None, str] = {
        place: name
        for name, files in masks.items()
        if name in images and (path := _single_path(name, files)) is not None
        for place in (*path.parents, path)  # `01_GT/SEG` beside `01`
    }
    image_owners = {
        path: name for name, files in masks.items() if name in images for path in files.frames.values()
    }
    return {
        name: files
        for name, files in images.items()
        if mask_owners.get(_single_path(name, files), name) == name
        and ({name, None} & (own := {image_owners.get(path) for path in files.frames.values()}) or not own)
    }


def _single_path(name: str, files: SequencePaths) -> Path | None:
    """Returns the folder, video or single image of a sequence; None if it has several images."""
    return files.folder or files.video or (files.frames.get(name) if len(files.frames) == 1 else None)


def fixed_folder(pattern: str) -> str:
    """Returns the fixed folder at the start of a pattern; empty if that is the folder of the data set."""
    return "/".join(takewhile(lambda part: not _PLACEHOLDER.search(part), PurePosixPath(pattern).parts[:-1]))


def path_of(pattern: str, name: str) -> str:
    """Returns a pattern with the name of a sequence in place of `{clip}`."""
    for part in name.split("/"):
        pattern = pattern.replace(CLIP, part, 1)
    return pattern


def _add(found: dict[str, Path], name: str, path: Path) -> None:
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
