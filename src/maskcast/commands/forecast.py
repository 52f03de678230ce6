"""The command `forecast`: forecasts the masks that follow a video, with a registered model."""

import argparse
from pathlib import Path

from maskcast.errors import MaskcastError, convert_system_errors
from maskcast.locks import LockedError
from maskcast.progress import say, track
from maskcast.reading import pluralize
from maskcast.registry.store import ADDRESS_HELP

DESCRIPTION = "Forecasts the masks that follow a video, and draws them over it."
EPILOG = """\
A VIDEO is a video file, a folder of images (frames in the numeric order of their names), a folder of either, or an
s3:// address of any of these; the word `sample` is a simulated clip that comes with maskcast. The context is the
last frames of the video, with the number, stride and size that the model was evaluated with; --stride and --start
choose other frames. If the frame rate of a video file is variable, or differs by more than 10 % from that of the
model's clips, frames are taken by time, with a warning.

The output has a folder for each video, with its name:
  masks/         clip store (see its README.md): the forecast masks, at the
                 model's size, and those of each sampled future
  overlay.mp4    the context frames under their masks, then the forecast
  overlay.gif    the same
  forecast.json  record of the model, the frames and the classes

Videos that this model has already forecast are skipped, so an interrupted command resumes when it is run again. Of
several videos, those that another process is forecasting are skipped, too. If a video cannot be forecast, this is
reported, the others are processed, and the exit code is 1.

Without --model, the small pipeline that comes with maskcast is used. It was trained on simulated clips and knows
only CLEVRER's classes.

examples:
  maskcast forecast sample
  maskcast forecast street.mp4 --model models:/maskcast@champion \\
      --output forecasts
  maskcast forecast s3://videos/today --model models:/maskcast/3 \\
      --output forecasts --stride 5
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code: 0, or 1 if a video could not be forecast."""
    from maskcast.registry.loading import load_address, pipeline_of
    from maskcast.serving.forecasts import check_options, forecast_video
    from maskcast.serving.videos import find_videos

    loaded = pipeline_of(load_address(args.model))
    stride, start, samples = args.stride, args.start, args.samples
    check_options(loaded, stride, start, samples, "--")
    failed, skipped = 0, 0
    videos = find_videos(args.videos, args.output)
    say(f"{loaded.title} forecasts {pluralize(len(videos), 'video')}")
    for video in track(videos, "forecast"):
        try:
            with convert_system_errors(args.output):
                skipped += not forecast_video(video, loaded, args.output / video.name, stride, start, samples)
        except (MaskcastError, OSError) as error:
            if videos[1:] and isinstance(error, LockedError):
                skipped += 1
                say(f"{video.name}: skipped, as it is being forecast by {error.holder}")
                continue
            failed += 1
            say(f"error: {video.name}: {error}")
    print(f"{len(videos) - failed - skipped} forecast, {skipped} skipped, {failed} failed: {args.output}")
    if len(videos) > failed:
        say(
            f"videos: {args.output}/*/overlay.mp4"
            if videos[1:]
            else f"video: {args.output}/{videos[0].name}/overlay.mp4"
        )
    return 1 if failed else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="file, folder or s3:// address, or `sample`")
    parser.add_argument(
        "--model", metavar="ADDRESS", help=f"{ADDRESS_HELP} (default: the model that comes with maskcast)"
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("forecasts"),
        help="gets a folder for each video (default: %(default)s)",
    )
    parser.add_argument(
        "--stride", metavar="N", type=int, help="distance between context frames (default: the model's)"
    )
    parser.add_argument(
        "--start", metavar="N", type=int, help="first context frame, from 0 (default: context ends at the last)"
    )
    parser.add_argument(
        "--samples",
        metavar="K",
        type=int,
        default=0,
        help="number of sampled futures, drawn beside the forecast (default: %(default)s)",
    )
