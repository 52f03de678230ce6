"""The forecast of a video: as arrays, as a rendered video, and as a folder of files.

Legend: T context frames, h horizon, H height, W width, C = 3 channels; arrays are uint8.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.images import resize_frames
from maskcast.errors import MaskcastError, convert_system_errors
from maskcast.labels import MASK, LabelMap
from maskcast.models.limits import MAX_FUTURES
from maskcast.progress import say
from maskcast.registry.forecast_models import PipelineOutput
from maskcast.registry.loading import LoadedPipeline
from maskcast.runner.outputs import atomic_output, check_deletes_none, check_replaceable
from maskcast.serving.frame_choice import ChosenFrames, choose_frames
from maskcast.serving.records import FORECAST, REVISION, check_only_written, is_done, read_record, write_record
from maskcast.serving.video_writer import draw_frames, write_video
from maskcast.serving.videos import Video, video_digest

VIDEO_FILES = ("overlay.mp4", "overlay.gif")


@dataclass(frozen=True, eq=False)  # arrays are not equal or unequal as a whole
class Forecast:
    """A pipeline's forecast of a video.

    Attributes:
        video: name of the video.
        frames: context frames (T, H, W, C) in the size of the video.
        frames_seen: indices of the context frames in the video, from 0.
        frames_forecast: indices of the forecast frames.
        label_map: name and classes of the masks; ``label_map.classes[k]`` is the name of class id k.
        observed: context masks and forecast.
        model: name and version of the pipeline.
        rate_warning: how the frame rate of the video differs from that of the model's clips; empty if it does not,
            or is unknown.
        interval: seconds from one of the frames to the next; None if unknown.
    """

    video: str
    frames: np.ndarray
    frames_seen: tuple[int, ...]
    frames_forecast: tuple[int, ...]
    label_map: LabelMap
    observed: PipelineOutput
    model: str
    rate_warning: str = ""
    interval: float | None = None

    @property
    def seen(self) -> np.ndarray:
        """Class ids (T, height, width) of the context frames, in the model's size."""
        return self.observed.seen.masks

    @property
    def masks(self) -> np.ndarray:
        """Class ids (h, height, width) of the forecast, in the model's size."""
        return self.observed.masks

    @property
    def confidence(self) -> np.ndarray | None:
        """Probability of each pixel's class (h, height, width), 255 = 1; None if the model has none."""
        return self.observed.confidence

    @property
    def futures(self) -> np.ndarray:
        """Class ids (k, h, height, width) of the k requested futures."""
        return self.observed.futures

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by id, background first."""
        return self.label_map.classes

    @property
    def warning(self) -> str:
        """How the video differs from the training data; empty if it does not, or that is unknown."""
        return "; ".join(filter(None, (self.rate_warning, self.observed.warning)))

    def film(self) -> list[Image.Image]:
        """Returns an image per frame: context with masks, then the forecast and some futures.

        Each has the number of its frame in the video, from 0, and if known its time after the last context frame.
        """
        title = f"{self.video} · {self.model}"
        numbers, last = [*self.frames_seen, *self.frames_forecast], len(self.frames_seen) - 1
        times = [f"frame {number}" for number in numbers]
        if self.interval is not None:
            times = [f"{time}, {(t - last) * self.interval:+.2f} s" for t, time in enumerate(times)]
        return draw_frames(self.frames, self.seen, [self.masks, *self.futures], self.classes, title, times)

    @convert_system_errors()
    def save_film(self, path: str | Path) -> None:
        """Writes the images of ``film`` as a video.

        Raises:
            MaskcastError: the suffix of the path is neither ``.mp4`` nor ``.gif``, or its folder is missing.
        """
        write_video(Path(path), self.film())

    def __repr__(self) -> str:
        seen, ahead = self.frames_seen, self.frames_forecast
        masks = "x".join(map(str, self.masks.shape))
        noted = f"; {self.warning}" if self.warning else ""
        return (
            f"<Forecast of {self.video} by {self.model}: frames {seen[0]} to {seen[-1]} seen, {ahead[0]} to "
            f"{ahead[-1]} forecast; masks {masks}, {len(self.classes)} classes{noted}>"
        )


def check_options(
    loaded: LoadedPipeline, stride: int | None, start: int | None, samples: int, dashes: str = ""
) -> None:
    """Checks the user's options.

    Args:
        loaded: the pipeline.
        stride: distance of the context frames; None for that of the pipeline's clips.
        start: first context frame, from 0; None uses the last frames.
        samples: number of futures to draw.
        dashes: prefix of the option names in errors.

    Raises:
        MaskcastError: the distance is unknown or not positive, another option is out of bounds, one is not an
            integer, or the model cannot sample futures.
    """
    for name, value in (("stride", stride), ("start", start), ("samples", samples)):
        if not hasattr(value, "__index__") and (value is not None or name == "samples"):
            raise MaskcastError(f"{dashes}{name}: got {value!r}; give a whole number")
    distance = loaded.about.frame_stride if stride is None else stride
    if distance is None or distance < 1:
        problem = "required, as the model's clips do not record theirs" if stride is None else f"got {stride}"
        raise MaskcastError(f"{dashes}stride: {problem}; give the distance of context frames in the video, >= 1")
    if start is not None and start < 0:
        raise MaskcastError(f"{dashes}start: got {start}; give a frame index, 0 or more")
    if not 0 <= samples <= MAX_FUTURES:
        raise MaskcastError(
            f"{dashes}samples: got {samples}; give the number of futures to draw, 0 to {MAX_FUTURES}"
        )
    if samples and not loaded.model.forecaster.network.draws_futures:
        raise MaskcastError(
            f"{dashes}samples: got {samples}, but the forecaster of {loaded.title} cannot sample futures; give 0, "
            "or use a model whose forecaster moves objects"
        )


def run_forecast(
    video: Video, loaded: LoadedPipeline, stride: int | None, start: int | None, samples: int = 0
) -> Forecast:
    """Forecasts one video.

    Args:
        video: only the context frames of it are read.
        loaded: the pipeline.
        stride: distance of the context frames; None for that of the pipeline's clips, or the same in time.
        start: first context frame, from 0; None uses the last frames.
        samples: number of futures to draw.

    Raises:
        MaskcastError: the video is damaged or too short.
    """
    return _forecast(video, loaded, choose_frames(video, loaded.about, stride, start), samples)


def _forecast(video: Video, loaded: LoadedPipeline, chosen: ChosenFrames, samples: int) -> Forecast:
    about = loaded.about
    frames_THWC = video.read(chosen.seen)
    height, width = frames_THWC.shape[1:3]
    clip_THWC = resize_frames(frames_THWC, about.height, about.width)
    observed = loaded.model.predict_all(clip_THWC, (height, width), samples)
    label_map = LabelMap(about.label_map or MASK, about.classes)
    return Forecast(
        video=video.name,
        frames=frames_THWC,
        frames_seen=tuple(chosen.seen),
        frames_forecast=tuple(chosen.future),
        label_map=label_map,
        observed=observed,
        model=loaded.title,
        rate_warning=chosen.warning,
        interval=chosen.interval,
    )


def forecast_video(
    video: Video, loaded: LoadedPipeline, output: Path, stride: int | None, start: int | None, samples: int
) -> bool:
    """Forecasts one video into a folder, unless the folder has the same forecast; returns whether it was written.

    Args:
        video: see ``run_forecast``.
        loaded: the pipeline.
        output: folder to write; an older forecast there is replaced.
        stride: see ``run_forecast``.
        start: first context frame, from 0; None uses the last frames.
        samples: number of futures to draw.

    Raises:
        MaskcastError: the video is damaged, too short or inside ``output``, or ``output`` cannot be written or has
            files that are not a forecast.
    """
    check_deletes_none(output, "output", {"the video": video.path})
    check_replaceable(output, FORECAST)
    about = loaded.about
    chosen = choose_frames(video, about, stride, start)
    record = {
        "format": "maskcast-forecast/1",
        "revision": REVISION,
        "model": loaded.identity,
        "video": {"name": video.path.name, "digest": video_digest(video.path)},
        "frames_seen": list(chosen.seen),
        "frames_forecast": list(chosen.future),
        "height": about.height,
        "width": about.width,
        "classes": list(about.classes),
        **({"samples": samples} if samples else {}),
    }
    if is_done(output / FORECAST, {"samples": None} | record):
        if warning := read_record(output / FORECAST).get("warning"):
            say(f"{video.name}: {warning}")
        return False
    check_only_written(output / FORECAST)
    with atomic_output(output) as partial:
        forecast = _forecast(video, loaded, chosen, samples)
        if forecast.warning:
            say(f"{video.name}: {forecast.warning}")
        partial.mkdir()
        _write_masks(partial / "masks", forecast, record)
        pictures = forecast.film()
        for name in VIDEO_FILES:
            write_video(partial / name, pictures)
        write_record(partial / FORECAST, record | {"warning": forecast.warning})
    return True


def _write_masks(folder: Path, forecast: Forecast, record: dict[str, Any]) -> None:
    meta = {key: record[key] for key in ("model", "frames_seen")}
    height, width = forecast.masks.shape[1:]
    name = forecast.label_map.name
    with ClipWriter(folder, height=height, width=width, maps=[forecast.label_map], meta=meta) as writer:
        first = {"first_frame": len(forecast.frames_seen)}
        writer.add(
            forecast.video,
            split="hidden",
            kind="hidden",
            masks={name: forecast.masks},
            confidence={} if forecast.confidence is None else {name: forecast.confidence},
            meta=first,
        )
        for number, masks in enumerate(forecast.futures, start=1):
            clip_id = f"{forecast.video}_future_{number}"
            writer.add(clip_id, split="hidden", kind="hidden", masks={name: masks}, meta=first)
