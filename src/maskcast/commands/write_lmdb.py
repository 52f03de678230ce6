"""The command `write-lmdb`: writes masks of two hands as an LMDB in a .tar.gz."""

import argparse
from pathlib import Path

from maskcast.errors import MaskcastError
from maskcast.labels import SPLITS
from maskcast.reading import pluralize
from maskcast.runner.outputs import atomic_outputs, check_not_exists, remove

DESCRIPTION = "Writes the masks of both hands, <path>__l and <path>__r, as an LMDB with a list of images."
EPILOG = """\
The archive holds test.lmdb and im_path.pt. It is written completely or not at all.

example:
  maskcast write-lmdb --masks data/masks --split hidden \\
      --output submission.tar.gz
"""
ARCHIVE = "hands.tar.gz"


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0."""
    out: Path = args.output
    if not out.name.endswith(".tar.gz"):
        raise MaskcastError(f"{out}: --output must end in .tar.gz")
    check_not_exists(out, "output", "file")
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.data.hand_export import pack, write_hands

    work = out.with_name(out.name + ".work")  # removed by the next run, if this one is killed
    with atomic_outputs({"output": out}, {"output": work}, _unpacked):
        count = write_hands(work / "hands", ClipStore(args.masks), args.split)
        pack(work / "hands", work / ARCHIVE, out.name.removesuffix(".tar.gz"))
    print(f"wrote the masks of {pluralize(count, 'image')}: {out}")
    return 0


def _unpacked(work: Path, out: Path) -> None:
    (work / ARCHIVE).rename(out)
    remove(work)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "--masks",
        metavar="STORE",
        type=Path,
        required=True,
        help="masks with maps left and right, e.g. those of generate_masks",
    )
    parser.add_argument("--split", metavar="SPLIT", choices=SPLITS, help="only clips of this split (default: all)")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="new .tar.gz file")
