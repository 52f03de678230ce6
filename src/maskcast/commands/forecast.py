"""The command `forecast`: what follows in any video, by a registered model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.commands.parser import command_parser
from maskcast.data.clip_writer import ClipWriter
from maskcast.data.images import resize_frames
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.labels import MASK, single_map
from maskcast.progress import say, track
from maskcast.registry.loading import HELP, LoadedPipeline, load_pipeline
from maskcast.runner.outputs import outputs_whole
from maskcast.serving.film import draw_film, write_gif, write_mp4
from maskcast.serving.videos import Video, find_videos

RECORD = "forecast.json"
FETCHED = ".fetched"
EPILOG = """\
A VIDEO is a video file, a folder of images (frames in the numeric order of their names), a folder of either, or an
s3:// address of any of these. What is seen are its last frames, as many, as far apart and of the size as the model
was evaluated on; --stride and --start choose others.

For every video the output holds a folder of its name:
  masks/         clip store (see its README.md): the forecast masks, at the model's size
  overlay.mp4    the frames that were seen under their masks, then the forecast
  overlay.gif    the same
  forecast.json  which model, which frames, which classes
A video that this model has forecast already is passed over, so a command that was stopped goes on when it is given
again. A video that cannot be forecast is said, the others are done, and the exit code is 1.

examples:
  python -m maskcast forecast street.mp4 --model models:/maskcast@champion --output forecasts
  python -m maskcast forecast s3://videos/today --model models:/maskcast/3 --output forecasts --stride 5
"""


def forecast(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code: 0, or 1 where some video could not be forecast."""
    parser = command_parser("forecast", "Forecasts the masks that follow a video, and draws them.", EPILOG)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="file, folder or s3:// address")
    parser.add_argument("--model", metavar="ADDRESS", required=True, help=HELP)
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, required=True, help="one folder a video is put there"
    )
    parser.add_argument(
        "--stride", metavar="N", type=int, help="distance of the frames seen (default: the model's)"
    )
    parser.add_argument(
        "--start", metavar="N", type=int, help="first frame seen, from 0 (default: end at the last)"
    )
    given = parser.parse_args(arguments)
    loaded = load_pipeline(given.model)
    stride = given.stride if given.stride is not None else loaded.about.frame_stride
    if stride is None or stride < 1:
        known = (
            "the clips that the model was evaluated on do not tell theirs" if stride is None else "got no distance"
        )
        raise MaskcastError(f"--stride: {known}; give the frames' distance in the video, 1 or more")
    if given.start is not None and given.start < 0:
        raise MaskcastError(f"--start: got {given.start}; frames count from 0")
    failed, there = 0, 0
    videos = find_videos(given.videos, given.output / FETCHED, given.output)
    say(f"{loaded.title} forecasts {len(videos)} videos")
    for video in track(videos, "forecast"):
        try:
            there += not _forecast(video, loaded, given.output / video.name, stride, given.start)
        except MaskcastError as error:
            failed += 1
            say(f"error: {video.name}: {error}")
    print(f"{len(videos) - failed - there} forecast, {there} there already, {failed} failed: {given.output}")
    return 1 if failed else 0


def _forecast(video: Video, loaded: LoadedPipeline, output: Path, stride: int, start: int | None) -> bool:
    """Forecasts one video unless that has been done; returns whether it had to."""
    about = loaded.about
    indices = _frames_seen(video, about.context_frames, stride, start)
    record = {
        "format": "maskcast-forecast/1",
        "model": {"name": loaded.name, "version": loaded.version, "digest": loaded.digest},
        "video": {"name": video.path.name, "digest": digest_tree(video.path)},
        "frames_seen": list(indices),
        "frames_forecast": [indices[-1] + stride * step for step in range(1, about.horizon + 1)],
        "height": about.height,
        "width": about.width,
        "classes": list(about.classes),
    }
    if _read(output / RECORD) == record:
        return False
    partial = output.with_name(output.name + ".partial")
    with outputs_whole({"output": output}, {"output": partial}):
        frames_THWC = video.read(indices)
        clip_THWC = resize_frames(frames_THWC, about.height, about.width)
        seen_THW, future_hHW = loaded.model.watch(clip_THWC)
        partial.mkdir()
        _write_masks(partial / "masks", video.name, future_hHW, record)
        film = draw_film(frames_THWC, seen_THW, future_hHW, f"{video.name} · {loaded.title}")
        write_mp4(partial / "overlay.mp4", film)
        write_gif(partial / "overlay.gif", film)
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return True


def _frames_seen(video: Video, frames: int, stride: int, start: int | None) -> range:
    """Returns the indices of the frames that the model sees.

    Raises:
        MaskcastError: the video has too few.
    """
    total, span = video.count(), (frames - 1) * stride + 1
    first = total - span if start is None else start
    if first < 0 or first + span > total:
        raise MaskcastError(
            f"{video.path}: has {total} frames, {span if start is None else first + span} are needed for "
            f"{frames} of them {stride} apart; give a longer video, a smaller --stride or an earlier --start"
        )
    return range(first, first + span, stride)


def _write_masks(folder: Path, name: str, masks_hHW: np.ndarray, record: dict[str, Any]) -> None:
    meta = {key: record[key] for key in ("model", "frames_seen")}
    with ClipWriter(
        folder, height=record["height"], width=record["width"], maps=single_map(record["classes"]), meta=meta
    ) as writer:
        first = {"first_frame": len(record["frames_seen"])}
        writer.add(name, split="hidden", kind="hidden", masks={MASK: masks_hHW}, meta=first)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
