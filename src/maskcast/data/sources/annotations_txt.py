"""The competition's `annotations.txt`: one line `video_<id> <first> <last> <label> ` per video, last inclusive."""

from pathlib import Path, PurePosixPath

from maskcast.errors import MaskcastError
from maskcast.reading import is_small_integer, read_text

FILE_NAME = "annotations.txt"


def write_annotations(start: int, end: int, folder: Path, num_frames: int) -> Path:
    """Writes `annotations.txt` for the videos `start` to `end` (exclusive) of `num_frames` frames each.

    The line ends in a space because the original generator writes one and readers of the format expect it.

    Raises:
        MaskcastError: the range is empty, there are no frames, or the folder does not exist.
    """
    if not 0 <= start < end or num_frames < 1:
        raise MaskcastError(
            f"annotations of videos {start} to {end}, {num_frames} frames: give 0 <= START < END and FRAMES >= 1"
        )
    if not folder.is_dir():
        raise MaskcastError(f"{folder}: folder not found; create it before writing {FILE_NAME} into it")
    path = folder / FILE_NAME
    path.write_text("".join(f"video_{i} 0 {num_frames - 1} 0 \n" for i in range(start, end)), encoding="utf-8")
    return path


def read_annotations(path: Path) -> dict[str, range]:
    """Reads the frame numbers of each video, by its folder name; lines may have more than one label column.

    Raises:
        MaskcastError: a line is not `<video> <first> <last> <label...>` or repeats a video; the message names it.
    """
    remedy = "write it with write-annotations"
    lines = read_text(path, "text file", remedy).splitlines()
    found: dict[str, range] = {}
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if not columns:
            continue
        name = PurePosixPath(columns[0]).name
        if len(columns) < 4 or not all(map(is_small_integer, columns[1:])):
            raise MaskcastError(
                f"{path}: line {number} is not '<video> <first> <last> <label>': {line[:60]!r}; fix the line"
            )
        frames = range(int(columns[1]), int(columns[2]) + 1)
        if not frames or name in found:
            raise MaskcastError(f"{path}: line {number} has an empty range or a duplicate video; fix the line")
        found[name] = frames
    return found
