"""The command `init`: inspects a folder of data and writes params.yaml for it."""

import argparse
from pathlib import Path

DESCRIPTION = "Inspects a folder of videos, or of frames with masks or labels, and writes params.yaml for it."
EPILOG = """\
It reports what it found: layout, mask values, sequences, sizes, splits, and how long `dvc repro` will take on this
machine. In the file, a comment gives the reason for each value that comes from the data. If several sequences have
masks and the Hugging Face hub is reachable, the masker starts from ImageNet weights; HF_HUB_OFFLINE=1 keeps it
from asking the hub. docs/your-data.md has examples for several kinds of data.

examples:
  maskcast init ~/videos/street --force
  maskcast init ~/videos/street --params street.yaml
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0."""
    from maskcast.models.encoders.pretrained import pin_revision
    from maskcast.proposal.plan import check_overwrite, plan_params, write_params
    from maskcast.proposal.report import check_project, format_plan, is_for_photographs
    from maskcast.proposal.values import ENCODER

    check_overwrite(args.params, force=args.force)
    photographs = is_for_photographs(args.params)
    plan = plan_params(args.folder, lambda: pin_revision(ENCODER), photographs=photographs)
    check_project(plan, args.params)
    write_params(args.params, plan.text(args.folder))
    print(format_plan(plan, args.folder, args.params))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the data")
    parser.add_argument(
        "--params",
        metavar="FILE",
        type=Path,
        default=Path("params.yaml"),
        help="file to write (default: params.yaml)",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
