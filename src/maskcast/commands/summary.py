"""The command `summary`: the scores of a finished run, and what to do next."""

import argparse
from pathlib import Path

DESCRIPTION = "Prints the scores of a run beside its baselines, the path of the report, and what to do next."
EPILOG = """\
examples:
  maskcast summary
  maskcast summary recipes/reference/results
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from maskcast.registry.summary import summary

    print(summary(args.results))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "results",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        default=Path("results"),
        help="folder of the results (default: %(default)s)",
    )
