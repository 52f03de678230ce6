"""The command `write-annotations`: the list of clips that the competition layout asks for."""

from collections.abc import Sequence
from pathlib import Path

from maskcast.commands.parser import command_parser
from maskcast.data import annotations


def write_annotations(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code 0."""
    parser = command_parser(
        "write-annotations", "Writes FOLDER/annotations.txt: one line 'video_<id> 0 <last frame> 0' per video."
    )
    parser.add_argument("start", type=int, help="first video id")
    parser.add_argument("end", type=int, help="one past the last video id")
    parser.add_argument("folder", type=Path, help="folder that holds the videos")
    parser.add_argument("frames", type=int, help="frames per video (22, or 11 for hidden ones)")
    given = parser.parse_args(arguments)
    print(annotations.write_annotations(given.start, given.end, given.folder, given.frames))
    return 0
