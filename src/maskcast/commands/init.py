"""The command `init`: looks at a folder of data and writes params.yaml for it."""

import argparse
from pathlib import Path

DESCRIPTION = "Looks at a folder of videos, or of frames and masks or labels, and writes params.yaml for it."
EPILOG = """\
It says what it found: layout, values of masks, sequences, sizes, splits, and how long `dvc repro` will take
here. Every line of the file that comes from the data has its reason beside it. Where several sequences have
masks and the Hugging Face hub answers, the masker is initialised with ImageNet weights. HF_HUB_OFFLINE=1 asks no
hub. docs/your-data.md walks through it for several kinds of data.

examples:
  maskcast init ~/videos/street --force
  maskcast init ~/videos/street --params street.yaml
"""


def run(given: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0."""
    from maskcast.models.encoders.pretrained import pinned
    from maskcast.proposal.report import told
    from maskcast.proposal.values import ENCODER
    from maskcast.proposal.write import check_free, plan, write_params

    check_free(given.params, force=given.force)
    start = plan(given.folder, lambda: pinned(ENCODER))
    write_params(given.params, start.text(given.folder))
    print(told(start, given.folder, given.params))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the data")
    parser.add_argument(
        "--params", metavar="FILE", type=Path, default=Path("params.yaml"), help="to write (params.yaml)"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
