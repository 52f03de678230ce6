"""The forecast of a video as a folder of files.

Legend: T frames seen, h horizon, H height, W width, C = 3 channels; arrays are uint8.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.clip_writer import ClipWriter
from maskcast.data.images import resize_frames
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.labels import MASK, LabelMap
from maskcast.registry.bundle import ForecastDescription
from maskcast.registry.loading import LoadedPipeline
from maskcast.runner.outputs import outputs_whole
from maskcast.serving.film import draw_film, write_gif, write_mp4
from maskcast.serving.videos import Video

RECORD = "forecast.json"


def forecast_video(video: Video, loaded: LoadedPipeline, output: Path, stride: int, start: int | None) -> bool:
    """Forecasts one video unless that has been done; returns whether it had to.

    Args:
        video: its last frames are seen, or those from ``start`` on; no others are read.
        loaded: the pipeline.
        output: folder of what is written; an older forecast there is replaced.
        stride: distance of the frames seen.
        start: the first of them, from 0; None ends at the last frame.

    Raises:
        MaskcastError: the video is damaged or too short, or ``output`` cannot be written.
    """
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
        _write_masks(partial / "masks", video.name, future_hHW, about, record)
        film = draw_film(frames_THWC, seen_THW, future_hHW, about.classes, f"{video.name} · {loaded.title}")
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


def _write_masks(folder: Path, name: str, masks_hHW: np.ndarray, about: ForecastDescription, record: Any) -> None:
    meta = {key: record[key] for key in ("model", "frames_seen")}
    label_map = LabelMap(about.label_map or MASK, about.classes)
    with ClipWriter(folder, height=about.height, width=about.width, maps=[label_map], meta=meta) as writer:
        first = {"first_frame": len(record["frames_seen"])}
        writer.add(name, split="hidden", kind="hidden", masks={label_map.name: masks_hHW}, meta=first)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
