"""The command `summary`: what a finished run says, and what to do next."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcast.commands.parser import command_parser

EPILOG = """\
examples:
  maskcast summary
  maskcast summary recipes/reference/results
"""


def summary(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    text = "Prints the scores of a finished run, what was gained, where the report is, and what to do next."
    parser = command_parser("summary", text, EPILOG)
    add_arguments(parser)
    given = parser.parse_args(arguments)
    from maskcast.registry.summary import summary as text_of

    print(text_of(given.results))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "results", metavar="FOLDER", nargs="?", type=Path, default=Path("results"), help="default: %(default)s"
    )
