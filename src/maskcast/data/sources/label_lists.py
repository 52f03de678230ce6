"""Label files by the patterns of the params, and files like them that no pattern names."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from maskcast.errors import MaskcastError
from maskcast.files import is_origin, list_files, match_files
from maskcast.reading import pluralize

MAX_COMPARED = 20  # listed files whose kind is looked at
PART = 1 << 20  # bytes at both ends of a file in which its kind is looked for
MARKS = {  # by format: texts that only files with masks have; files with the same ones are of one kind
    "coco": (b'"segmentation"', b'"segments_info"', b'"keypoints"'),
    "youtube-vis": (b'"segmentations"', b'"masklet"'),
    "cvat-images": (b"<image ",),
    "cvat-video": (b"<track",),
    "labelme": (b'"imagePath"',),
    "label-studio": (b'"annotations"', b'"data"', b'"result"'),
}
# If a data set has several files for the same frames, the better one: made by people, or complete.
PREFERRED = (
    (re.compile(r"_auto(?=\.json$)"), "_manual"),  # SA-V
    (re.compile(r"^((un)?common_classes|first_frame_annotations)(?=\.json$)"), "all_classes"),  # BURST
)


def match_label_files(raw: Path, pattern: str) -> list[Path]:
    """Returns the files that match a path or pattern below a folder.

    Raises:
        MaskcastError: no file matches.
    """
    found = [path for path in match_files(raw, pattern) if path.is_file() and not is_origin(raw, path)]
    if not found:
        raise MaskcastError(f"{raw / pattern}: label file not found; fix source.labels or the data set's root")
    return found


def preferred_files(path: Path) -> Iterator[Path]:
    """Yields the files that are preferred to this one, if they exist."""
    for name, other in PREFERRED:
        if name.search(path.name):
            yield path.with_name(name.sub(other, path.name))


def unlisted_warning(raw: Path, form: str, files: Sequence[Path]) -> str | None:
    """Returns a warning about label files like the listed ones that are not listed, or None.

    Only both ends of a file are read, not parsed.

    Args:
        raw: folder of the data.
        form: format of the label files.
        files: the listed files.
    """
    listed = set(files)
    suffixes = {file.suffix.lower() for file in files}
    others = [path for path in list_files(raw, *suffixes) if path not in listed]
    kinds = {_kind(path, MARKS[form]) for path in islice(files, MAX_COMPARED)} if others else set()
    kinds.discard(frozenset())
    unlisted = [
        path for path in others if not listed & {*preferred_files(path)} and _kind(path, MARKS[form]) in kinds
    ]
    if not unlisted:
        return None
    first = unlisted[0].relative_to(raw).as_posix()
    same_name = unlisted[0].name in {file.name for file in files}
    pattern = f"**/{unlisted[0].name if same_name else f'*{unlisted[0].suffix}'}"
    return (
        f"warning: {pluralize(len(unlisted), 'label file', 'is', 'are')} not used: not in source.labels, "
        f"but like the files that are ({first}); add the path, or a pattern, e.g. {pattern!r}"
    )


def _kind(path: Path, marks: Iterable[bytes]) -> frozenset[bytes]:
    """Returns the marks that both ends of a file contain; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(PART)
            size = path.stat().st_size
            if size > PART:
                file.seek(max(PART, size - PART))
                content += file.read(PART)
    except OSError:
        return frozenset()
    return frozenset(mark for mark in marks if mark in content)
