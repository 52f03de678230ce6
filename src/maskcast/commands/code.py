"""The command `code`: one file of module digests per stage; DVC reruns a stage whose file changed."""

import argparse
from pathlib import Path

from maskcast.runner.code_digests import module_digests
from maskcast.runner.outputs import atomic_output
from maskcast.runner.stage import stage_names

DESCRIPTION = "Records the digests of the modules that each stage imports."
EPILOG = """\
The files have the format of `sha256sum`: in src, `sha256sum --check ../code/evaluate` verifies one.

example:
  maskcast code --out code
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0.

    Raises:
        MaskcastError: the folder cannot be written.
    """
    with atomic_output(args.out, "out") as partial:
        partial.mkdir()
        for stage in stage_names():
            lines = [f"{digest}  {path}\n" for path, digest in module_digests(f"maskcast.stages.{stage}").items()]
            (partial / stage).write_text("".join(lines), encoding="utf-8")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, required=True, help="folder to write; replaced as a whole"
    )
