"""The command `write-annotations`: writes the list of clips that the competition layout requires."""

import argparse
from pathlib import Path

from maskcast.data.sources import annotations_txt as annotations

DESCRIPTION = "Writes FOLDER/annotations.txt: one line 'video_<id> 0 <last frame> 0' per video."
EPILOG = """\
example:
  maskcast write-annotations 0 1000 data/train 22
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0."""
    print(annotations.write_annotations(args.start, args.end, args.folder, args.frames))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("start", type=int, help="first video id")
    parser.add_argument("end", type=int, help="one past the last video id")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the videos")
    parser.add_argument("frames", type=int, help="frames per video (22, or 11 for hidden ones)")
