"""The command `segment`: masks of videos, frame by frame, or of photographs, by a registered model or masker."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from maskcast.errors import MaskcastError, convert_system_errors
from maskcast.locks import LockedError
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.registry.store import ADDRESS_HELP

if TYPE_CHECKING:
    from maskcast.registry.loading import LoadedMasker
    from maskcast.serving.backgrounds import Background

DESCRIPTION = "Masks videos frame by frame, or photographs, and can replace the background."
EPILOG = """\
A VIDEO is a video file, a folder of frames in the numeric order of their names, a photograph, a folder of
photographs, a folder of videos, an s3:// address of one of these, or a camera: /dev/video0, or an address that
begins with rtsp://, http:// or https://. The word `sample` is a simulated clip that comes with maskcast. A camera
is read until its stream ends, or until Ctrl-C.

Frames go through the model one by one, resized to the size that it was trained on. The state of a recurrent model
is reset at each cut. The memory that the command needs does not grow with the video. All frames of a video have
the same size; photographs may have different sizes, and no state is carried from one to the next. Images in a
folder are treated as photographs if their names have no running number, their sizes differ, or neighbours are no
more alike than any two of them.

The output has a folder for each video, with its name:
  masks/NAME/    class ids of each label map, an image per frame
  mattes/NAME/   each alpha matte, an image per frame: 255 = all foreground
  overlay.mp4    the video under its masks, with its sound
  legend.png     names and colours of the classes in overlay.mp4
  composed.mp4   with --background: the foreground over it, with the sound
  segment.json   record of the model, the classes, their colours and the cuts

Videos that were already masked by this model, with the same background, are skipped, so an interrupted command
resumes when it is run again. Of several videos, those that another process is masking are skipped, too. If one of
several videos cannot be masked, this is reported, the others are masked, and the exit code is 1.

For photographs the images have the photographs' names, and overlay/ and composed/ are folders of images.

The foreground is all objects of the first label map of classes, with a hard edge; with --alpha it is the first
matte.

Without --model, the small pipeline that comes with maskcast is used. It was trained on simulated clips and knows
only CLEVRER's classes.

examples:
  maskcast segment sample
  maskcast segment photographs --model models/masker
  maskcast segment monday.mp4 tuesday.mp4 more-videos --model models/masker
  maskcast segment talk.mp4 --model models/masker --background beach.jpg --alpha
  maskcast segment /dev/video0 --model models:/maskcast@champion
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code: 0, or 1 if one of several videos could not be masked."""
    if args.alpha and args.background is None:
        raise MaskcastError("--alpha: requires --background; add it, or omit --alpha")
    from maskcast.registry.loading import load_address, masker_of
    from maskcast.serving.backgrounds import Background
    from maskcast.serving.video_stream import camera_name, is_camera
    from maskcast.serving.videos import find_videos

    background = None if args.background is None else Background(args.background)
    videos: list[tuple[str, Path | str]]
    if cameras := [address for address in args.videos if is_camera(address)]:
        if args.videos[1:]:
            raise MaskcastError(f"{cameras[0]}: a camera is read until it ends; give it alone")
        videos = [(camera_name(cameras[0]), cameras[0])]
    else:
        videos = [(video.name, video.path) for video in find_videos(args.videos, args.output)]
    loaded = masker_of(load_address(args.model, trained=True))
    say(f"{loaded.title} segments {pluralize(len(videos), 'video') if videos[1:] else args.videos[0]}")
    failed = 0
    for name, video in videos:
        try:
            with convert_system_errors(args.output):
                line = _segment(loaded, video, args.output / name, background, args.alpha)
        except (MaskcastError, OSError) as error:
            if not videos[1:]:
                raise
            if isinstance(error, LockedError):
                print(f"skipped, as it is being masked by {error.holder}: {args.output / name}", flush=True)
                continue
            failed += 1
            say(f"error: {name}: {error}")
        else:
            print(line, flush=True)
    if failed:
        say(f"{failed} of {len(videos)} videos failed")
    return 1 if failed else 0


def _segment(
    loaded: "LoadedMasker", video: Path | str, output: Path, background: "Background | None", alpha: bool
) -> str:
    """Masks a video; returns a line about it."""
    from maskcast.serving.segments import segment_video

    start = time.monotonic()
    segmenter = segment_video(loaded, video, output, background, alpha)
    if segmenter is None:
        return f"skipped, as it was masked before: {output}"
    rate, model_rate = segmenter.frames / (time.monotonic() - start), segmenter.frames / segmenter.model_s
    frames = pluralize(segmenter.frames, segmenter.unit)
    return f"{frames}, {rate:.3g} per second (the model alone {model_rate:.3g}): {output}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "videos",
        metavar="VIDEO",
        nargs="+",
        help="file, photograph, folder, s3:// address, camera or `sample`",
    )
    parser.add_argument(
        "--model",
        metavar="ADDRESS",
        help=f"{ADDRESS_HELP}, or the folder of a trained masker (default: the model that comes with maskcast)",
    )
    parser.add_argument("--background", metavar="IMAGE|VIDEO|COLOUR", help="new background, e.g. #00b140")
    parser.add_argument(
        "--alpha", action="store_true", help="cut out the foreground with the model's matte (soft edges)"
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("segmented"),
        help="gets a folder for each video (default: %(default)s)",
    )
