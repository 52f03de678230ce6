"""The command `labels`: exports masks, imports, propagates and reviews labels, and suggests frames to label."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from maskcast.commands.parser import add_commands, add_number, resolve_name
from maskcast.data.labelling.formats.table import FORMATS, get_format
from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import first_few, pluralize
from maskcast.runner.outputs import atomic_output, check_not_exists

if TYPE_CHECKING:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.data.raw_frames import RawFrames

METHODS = ("random", "foreground-random", "class-uncertainty")  # the default first
FORMAT_HELP = f"one of {', '.join(FORMATS)}"
LISTED = 5  # maximum number of sizes that are printed
DESCRIPTION = (
    "Exports masks to labelling tools, imports and propagates labels, suggests which frames to label, and which "
    "labels to review."
)
_FORMATS = "\n".join(f"  {name + ':':26s}{summary}" for name, (_, summary) in FORMATS.items())
EPILOG = f"""\
FORMAT is one of
{_FORMATS}

Frames are exported as images named <video>_<frame>.png, or <clip>_<frame>.png if the video is unknown, counted
from 0, and labels are matched by these names. Frames that a file does not list stay unlabelled; they are not
background. docs/labels.md shows the way from generated masks through CVAT or Label Studio to a masker trained on
the corrected labels.

examples:
  maskcast labels suggest --clips data/clips --masker models/masker \\
      --budget 20 --output labels/suggested
  maskcast labels export --format cvat-images --masks data/masks \\
      --clips data/clips --frames labels/suggested/frames.csv \\
      --output labels/to-cvat
  maskcast labels import --format cvat-images labels/corrected.zip \\
      --clips data/clips --output data/labelled
  maskcast labels review --clips data/labelled --masker models/masker \\
      --output labels/review
  maskcast labels propagate --clips data/labelled --frames 8 \\
      --output data/propagated
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0."""
    check_not_exists(args.output, "output")
    commands = {
        "import": _import,
        "export": _export,
        "suggest": _suggest,
        "review": _review,
        "propagate": _propagate,
    }
    command = commands[args.command]
    with atomic_output(args.output) as partial:
        summary = command(args, partial)
    print(f"{summary}: {args.output}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the commands and their flags."""
    commands = add_commands(parser)
    _import_arguments(commands.add_parser("import", help="write a clip store with the labels of a file"))
    _export_arguments(commands.add_parser("export", help="write masks as pre-annotations, with their confidence"))
    _suggest_arguments(commands.add_parser("suggest", help="suggest which frames to label next, and show them"))
    _review_arguments(commands.add_parser("review", help="list labels that a masker contradicts, and show them"))
    _propagate_arguments(
        commands.add_parser("propagate", help="propagate labels to neighbouring frames by optical flow")
    )


def _import_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", type=Path, help="file, folder or archive that the tool exported")
    command.add_argument("--format", metavar="FORMAT", required=True, help=FORMAT_HELP)
    command.add_argument("--clips", metavar="STORE", type=Path, required=True, help="the clips that were labelled")
    command.add_argument("--map", metavar="NAME", help="label map, if the store has several")
    command.add_argument(
        "--rename",
        metavar="THEIRS=OURS",
        action="append",
        default=[],
        help="map a class name of the file to one of the store; `ignore` means no label",
    )
    command.add_argument(
        "--empty",
        choices=("background", "unlabelled"),
        default="background",
        help="meaning of a frame listed without annotations (default: %(default)s)",
    )
    command.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="split of clips that had no labels (default: that of the labels of their video, else train)",
    )
    command.add_argument(
        "--first-frame",
        type=int,
        choices=(0, 1),
        help="number of a clip's first frame in MOTS files (default: from the files)",
    )
    command.add_argument("--output", metavar="STORE", type=Path, required=True, help="new clip store")


def _export_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", metavar="FORMAT", required=True, help=FORMAT_HELP)
    command.add_argument(
        "--masks", metavar="STORE", type=Path, required=True, help="masks, e.g. those of generate_masks"
    )
    command.add_argument("--clips", metavar="STORE", type=Path, help="clips, to write their frames as images, too")
    command.add_argument(
        "--raw",
        metavar="FOLDER",
        type=Path,
        help="raw data of the clips: export images and masks at their original size",
    )
    command.add_argument(
        "--params",
        metavar="FILE",
        type=Path,
        default=Path("params.yaml"),
        help="with --raw: params of prepare_clips (default: %(default)s)",
    )
    command.add_argument("--map", metavar="NAME", help="label map, if the store has several")
    command.add_argument(
        "--frames",
        metavar="CSV",
        type=Path,
        help="only these frames: columns clip, frame (default: all with masks)",
    )
    command.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="new folder")


def _suggest_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--clips", metavar="STORE", type=Path, required=True, help="clips, some of them without labels"
    )
    command.add_argument("--masker", metavar="FOLDER", type=Path, required=True, help="folder of a trained masker")
    command.add_argument("--map", metavar="NAME", help="label map, if the store has several")
    add_number(command, "--budget", 20, 1, "number of frames to suggest")
    methods = f"one of {', '.join(METHODS)} (default: %(default)s)"
    command.add_argument("--method", metavar="METHOD", choices=METHODS, default=METHODS[0], help=methods)
    add_number(command, "--spacing", 5, 1, "minimum distance between two frames of a video")
    add_number(command, "--seed", 0, 0, "random seed")
    command.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="new folder")


def _review_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--clips", metavar="STORE", type=Path, required=True, help="clips with labels")
    command.add_argument("--masker", metavar="FOLDER", type=Path, required=True, help="folder of a trained masker")
    command.add_argument("--map", metavar="NAME", help="label map, if the store has several")
    command.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="val",
        help="split of the labels, on which the masker was not trained (default: %(default)s)",
    )
    add_number(command, "--budget", 20, 1, "number of frames to list")
    command.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="new folder")


def _propagate_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--clips", metavar="STORE", type=Path, required=True, help="clips with labels in some frames"
    )
    command.add_argument("--map", metavar="NAME", help="label map, if the store has several")
    add_number(command, "--frames", 8, 1, "maximum distance from a labelled frame, in frames")
    command.add_argument(
        "--output", metavar="STORE", type=Path, required=True, help="new store of masks, for labels export"
    )


def _import(args: argparse.Namespace, out: Path) -> str:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.data.labelling.importing import import_labels

    rename = {}
    for text in args.rename:
        theirs, equals, ours = text.partition("=")
        if not (theirs and equals and ours):
            raise MaskcastError(f"--rename {text}: use THEIRS=OURS, a class of the file and one of the store")
        rename[theirs] = ours
    store = ClipStore(args.clips, args.map)
    label_format = get_format(resolve_name(args.format, "format", list(FORMATS)))
    if args.first_frame is not None and not label_format.has_ambiguous_start:
        raise MaskcastError(
            f"--first-frame: {label_format.name} identifies frames by their names; omit it (only for png, "
            "mots and mots-txt)"
        )
    report = import_labels(
        out,
        label_format,
        args.file,
        store,
        rename=rename,
        empty=args.empty,
        split=args.split,
        first=args.first_frame,
    )
    for line in report.lines(args.clips):
        say(line)
    return str(report)


def _export(args: argparse.Namespace, out: Path) -> str:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.data.labelling.exporting import export_labels, read_frames_list

    if args.raw is not None and args.clips is None:
        raise MaskcastError("--raw: give --clips, too: the clips that were prepared from the raw data")
    if args.raw is not None and not args.raw.is_dir():
        raise MaskcastError(
            f"--raw {args.raw}: no such folder; give the raw data that the clips were prepared from"
        )
    store = ClipStore(args.masks, args.map)
    frames = None if args.frames is None else read_frames_list(args.frames)
    pictures = None if args.clips is None else ClipStore(args.clips)
    raw_frames = None if args.raw is None or pictures is None else _raw_frames(args, pictures)
    label_format = get_format(resolve_name(args.format, "format", list(FORMATS)))
    report = export_labels(out, label_format, store, frames, pictures, raw_frames)
    sizes = first_few([f"{width}x{height}" for height, width in report.sizes], LISTED)
    origin = "the size of the clips" if raw_frames is None else f"the size in {args.raw}"
    say(f"images and masks are {sizes} (width x height), {origin}")
    if report.hidden:
        say(f"left out {pluralize(report.hidden, 'hidden clip')}, which cannot be labelled")
    frames_and_clips = f"{pluralize(report.frames, 'frame')} of {pluralize(report.clips, 'clip')}"
    return f"wrote {frames_and_clips} as {label_format.name}"


def _raw_frames(args: argparse.Namespace, store: "ClipStore") -> "RawFrames":
    """Returns the frames of clips at the size of the raw data that they were prepared from."""
    from maskcast.data.listing_checks import list_clips
    from maskcast.data.raw_frames import RawFrames
    from maskcast.params import load_params_file, section, validate
    from maskcast.stages.prepare_clips import PrepareClips

    name = "prepare_clips"
    values = section(load_params_file(args.params), name, str(args.params))
    params = validate(PrepareClips, values, f"{args.params}: {name}")
    listing = list_clips(params.source, args.raw, height=params.height, width=params.width, seed=params.seed)
    return RawFrames(args.raw, listing, store)


def _suggest(args: argparse.Namespace, out: Path) -> str:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.report.suggestions import Suggest, suggest

    params = Suggest(method=args.method, budget=args.budget, spacing=args.spacing, seed=args.seed)
    count = suggest(out, ClipStore(args.clips, args.map), args.masker, params)
    return f"suggested {pluralize(count, 'frame')} by {args.method}"


def _review(args: argparse.Namespace, out: Path) -> str:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.report.label_review import ReviewLabels, review

    params = ReviewLabels(split=args.split, budget=args.budget)
    count = review(out, ClipStore(args.clips, args.map), args.masker, params)
    return f"listed {pluralize(count, 'frame')} of split {args.split} to review"


def _propagate(args: argparse.Namespace, out: Path) -> str:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.data.labelling.propagated_store import write_propagated

    done = write_propagated(out, ClipStore(args.clips, args.map), args.frames)
    return (
        f"propagated the labels of {pluralize(done.labelled, 'frame')} to {done.propagated} more, of "
        f"{pluralize(done.clips, 'clip')}"
    )
