"""Patterns for label files and their frames: Roboflow's names, folders of several splits, and wider patterns."""

import re
import string
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, combinations, groupby, takewhile
from pathlib import Path

from maskcast.data.inspection.image_groups import ImageGroup
from maskcast.data.inspection.split_lists import split_of_name
from maskcast.data.sources.label_lists import match_label_files
from maskcast.data.sources.patterns import CLIP, FRAME, SequencePaths, all_paths, find_sequences
from maskcast.errors import MaskcastError

_ROBOFLOW = re.compile(r"(.+?)(?:([_-])([A-Z]*\d+))?_(jpe?g|png)\.rf\..+", re.IGNORECASE)


def roboflow_pattern(raw: Path, groups: Sequence[ImageGroup]) -> str | None:
    """Returns the pattern of frames with Roboflow's names, `street_mp4-12_jpg.rf.0f3a.jpg`; None for other names.

    Photographs have no frame number before the first ending in at least some names.
    """
    paths = [path for group in groups for path in group.files]
    matches = [_ROBOFLOW.fullmatch(path.stem) for path in paths]
    if not paths or not all(matches):
        return None
    seen: dict[tuple[str, str], Path] = {}
    for path, match in zip(paths, matches, strict=True):
        assert match is not None
        if (twin := seen.setdefault((match[1], match[3]), path)) != path:
            raise MaskcastError(
                f"{path}: shows the frame of {twin.name} once more, as augmented sets do; export a version "
                "without augmentation from Roboflow"
            )
    first, ending = matches[0], paths[0].suffix
    assert first is not None
    forms = {match[4] for match in matches if match}
    folders = {path.relative_to(raw).parent.parts for path in paths}
    if len(set(map(len, folders))) > 1:
        raise MaskcastError(
            f"{raw}: frames of Roboflow lie in folders of several depths ({_two_of(folders)}); give one folder "
            "with train, valid and test, as Roboflow exports it"
        )
    folder = "".join(f"{one[0] if len(set(one)) == 1 else '*'}/" for one in zip(*folders, strict=True))
    name = f"{{clip}}{first[2]}{{frame}}" if all(match and match[3] for match in matches) else "{clip}"
    return f"{folder}{name}_{first[4] if len(forms) == 1 else '*'}.rf.*{ending}"


def _two_of(folders: set[tuple[str, ...]]) -> str:
    """Returns the shallowest and the deepest folder, as text."""
    ordered = sorted(folders, key=lambda parts: (len(parts), parts))
    return ", ".join("/".join(parts) or "." for parts in (ordered[0], ordered[-1]))


def across_splits(raw: Path, images: str) -> str:
    """Returns a pattern with `*` for a folder named after a split, if folders of other splits are beside it."""
    parts = images.split("/")
    for place, part in enumerate(takewhile(lambda part: not {*"{*"} & {*part}, parts[:-1])):
        parent = raw.joinpath(*parts[:place])
        if (
            split_of_name(part)
            and sum(one.is_dir() and split_of_name(one.name) is not None for one in parent.iterdir()) > 1
        ):
            wide = with_folders(images, [place], "*")
            with suppress(MaskcastError):  # two files would have the same name
                paths = all_paths(find_sequences(raw, wide))
                if all(split_of_name(path.relative_to(parent).parts[0]) for path in paths):
                    return wide
    return images


def wider_patterns(raw: Path, images: str) -> Iterator[str]:
    """Yields patterns with `*` for folders that find more sequences; the fewest and deepest folders first.

    Where sequences have one name in several of these folders, the folder becomes a part of the name: `{clip}`.
    """
    parts, most = images.split("/"), 0
    folders = [
        place for place, part in enumerate(parts[:-1] if CLIP in parts[-1] else parts) if not {*"{*"} & {*part}
    ]
    if CLIP not in images:
        folders = [place for place in folders if place < min(k for k, part in enumerate(parts) if FRAME in part)]
    with suppress(MaskcastError):  # two files have the same name
        most = len(find_sequences(raw, images))
    for places in chain.from_iterable(combinations(folders[::-1], 1 + more) for more in range(len(folders))):
        with suppress(MaskcastError):
            wide, sequences = widened(raw, images, places)
            if len(sequences) > most:
                yield wide


def widened(raw: Path, pattern: str, places: Collection[int]) -> tuple[str, Mapping[str, SequencePaths]]:
    """Returns a pattern with `*` for some folders, or with `{clip}` where names of sequences would be the same.

    With it come the sequences that it finds.

    Args:
        raw: folder of the data.
        pattern: the pattern.
        places: indices of the folders in its path.

    Raises:
        MaskcastError: if two files would have the same name.
    """
    wide, deep = (with_folders(pattern, places, other) for other in ("*", CLIP))
    if CLIP not in pattern:
        return wide, find_sequences(raw, wide)
    of_deep = find_sequences(raw, deep)
    with suppress(MaskcastError):
        of_wide = find_sequences(raw, wide)
        if len(of_wide) == len(of_deep):
            return wide, of_wide
    return deep, of_deep


def with_folders(pattern: str, places: Collection[int], other: str) -> str:
    """Returns a pattern with another text for some folders."""
    return "/".join(other if place in places else part for place, part in enumerate(pattern.split("/")))


def label_patterns(raw: Path, files: Sequence[Path]) -> list[str]:
    """Returns patterns that match exactly these label files, and later ones like them: one, or one a folder.

    Files that no pattern tells from others are returned by their paths.
    """
    paths = [file.relative_to(raw) for file in files]
    if (common := _common_pattern(raw, paths)) is not None:
        return [common]
    found: dict[str, None] = {}
    for _, group in groupby(paths, key=lambda path: path.parent):
        own = list(group)
        pattern = _common_pattern(raw, own)
        found |= dict.fromkeys([path.as_posix() for path in own] if pattern is None else [pattern])
    return list(found)


def _common_pattern(raw: Path, paths: Sequence[Path]) -> str | None:
    """Returns a pattern that matches exactly several files of one depth, or None."""
    if len(paths) < 2 or len({len(path.parts) for path in paths}) > 1:
        return None
    folders = [
        part[0] if len(set(part)) == 1 else "*" for part in zip(*(path.parts[:-1] for path in paths), strict=True)
    ]
    for name in _name_patterns(sorted({path.name for path in paths})):
        pattern = "/".join([*folders, name])
        with suppress(MaskcastError):  # the pattern matches no file
            if {*match_label_files(raw, pattern)} == {raw / path for path in paths}:
                return pattern
    return None


def _name_patterns(names: Sequence[str]) -> Iterator[str]:
    """Yields patterns of file names, the widest first; those of one name, or of names with one extension."""
    if len(names) == 1:
        yield names[0]
        return
    start = _common_start(names).rstrip(string.digits)
    ending = _common_start([name[::-1] for name in names])[::-1].lstrip(string.ascii_letters + string.digits)
    if "." in ending:
        yield f"*{ending[ending.rindex('.') :]}"
        yield f"*{ending}"
        yield f"{start}*{ending}"


def _common_start(texts: Sequence[str]) -> str:
    return "".join(one[0] for one in takewhile(lambda one: len(set(one)) == 1, zip(*texts, strict=False)))
