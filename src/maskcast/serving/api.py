"""The Python interface to models, exported by ``import maskcast`` (docs/python.md).

Legend: T frames, H height, W width, C = 3 channels (RGB); arrays are uint8.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskcast.errors import MaskcastError, convert_system_errors
from maskcast.inference.distribution_shift import ObservedClip, shift_warning
from maskcast.inference.session import Session
from maskcast.labels import LabelMap
from maskcast.reading import pluralize
from maskcast.registry.forecast_models import ForecasterModel, PipelineModel
from maskcast.registry.inputs import as_batch
from maskcast.registry.loading import SAMPLE, LoadedPipeline, load_address, masker_of, pipeline_of
from maskcast.serving.forecasts import Forecast, check_options, run_forecast
from maskcast.serving.videos import Frames, find_video


@convert_system_errors()
def load(address: str | Path = SAMPLE) -> "Pipeline":
    """Returns a registered pipeline, which forecasts videos.

    Args:
        address: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` of the registry that ``MLFLOW_TRACKING_URI``
            names, or the folder of a downloaded artifact; ``sample`` is the small one shipped with maskcast.

    Raises:
        MaskcastError: the model is not found, is not a pipeline, or has another digest than recorded.
    """
    return Pipeline(pipeline_of(load_address(str(address))))


class Pipeline:
    """Forecasts the masks that follow the frames of a video.

    Attributes:
        loaded: the model with description, name, version and digest.
    """

    def __init__(self, loaded: LoadedPipeline) -> None:
        self.loaded = loaded

    @property
    def label_map(self) -> LabelMap:
        """Name and classes of the masks."""
        masker = self.loaded.model.masker
        return masker.network.maps[masker.map_index]

    @property
    def segmenter(self) -> "Segmenter":
        """Its masker, which makes masks consistent over time like the pipeline."""
        return Segmenter(self.loaded.model)

    @property
    def forecaster(self) -> ForecasterModel:
        """Its forecaster: ``predict`` continues any masks, (T, H, W) or (B, T, H, W)."""
        return self.loaded.model.forecaster

    @convert_system_errors()
    def forecast(
        self,
        video: str | Path | np.ndarray,
        *,
        stride: int | None = None,
        start: int | None = None,
        samples: int = 0,
    ) -> Forecast:
        """Forecasts the continuation of a video.

        Args:
            video: a file, a folder of images, an ``s3://`` address of either, or frames (T, H, W, C); ``sample``
                is the clip shipped with maskcast.
            stride: distance of context frames in the video; None for the model's, or by time if the video has
                another frame rate than the model's clips.
            start: first context frame, from 0; None uses the last frames.
            samples: number of futures to draw in addition (``Forecast.futures``).

        Raises:
            MaskcastError: the video is not found, damaged or too short, the stride is unknown, or the model cannot
                sample futures.
        """
        check_options(self.loaded, stride, start, samples)
        if isinstance(video, np.ndarray):
            frames_THWC, _ = as_batch(video, (-1, -1, -1, 3), "video")
            return run_forecast(Frames("video", Path("video"), frames_THWC), self.loaded, stride, start, samples)
        if not isinstance(video, str | Path):
            raise MaskcastError(
                f"video: got a {type(video).__name__}; give a path, an address, or an array of frames "
                "(T, H, W, 3), e.g. np.stack(frames)"
            )
        with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
            return run_forecast(find_video(str(video), Path(scratch)), self.loaded, stride, start, samples)

    def __repr__(self) -> str:
        about = self.loaded.about
        return (
            f"<Pipeline {self.loaded.title}: {pluralize(about.context_frames, 'frame')} of "
            f"{about.height}x{about.width} seen, {about.horizon} forecast, {len(about.classes)} classes>"
        )


@dataclass(frozen=True, eq=False)  # arrays are not equal or unequal as a whole
class Segmentation:
    """The masks of some frames.

    Attributes:
        masks: class ids (T, H, W), or opacity if the map is of kind ``alpha``.
        confidence: (T, H, W), the probability of each pixel's class, 255 = 1; None for opacity.
        label_map: name, kind and classes of the masks.
        warning: how the frames differ from the masker's training data; empty if they do not.
    """

    masks: np.ndarray
    confidence: np.ndarray | None
    label_map: LabelMap
    warning: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by id, background first."""
        return self.label_map.classes

    def __repr__(self) -> str:
        masks = "x".join(map(str, self.masks.shape))
        noted = f"; {self.warning}" if self.warning else ""
        return f"<Segmentation: masks {masks}, {len(self.classes)} classes{noted}>"


class Segmenter:
    """Segments frames.

    Args:
        model: the address of a registered masker or pipeline (see ``load``), a folder that train_masker wrote, or
            a pipeline's model.

    Raises:
        MaskcastError: the model is not found, or has no masker.
    """

    @convert_system_errors()
    def __init__(self, model: str | Path | PipelineModel) -> None:
        if isinstance(model, PipelineModel):
            found, self.model = model, model.masker
        else:
            loaded = load_address(str(model), trained=True)
            found, self.model = loaded.model, masker_of(loaded).model
        self.consistent_frames = found.consistent_frames if isinstance(found, PipelineModel) else None

    def __repr__(self) -> str:
        network, one = type(self.model.network).__name__, self.label_map
        size = "x".join(map(str, self.model.size)) if self.model.size else "any size"
        return f"<Segmenter {network}: frames of {size}; {one.name}: {pluralize(one.num_classes, 'class')}>"

    @property
    def label_map(self) -> LabelMap:
        """Name, kind and classes of the masks."""
        return self.model.network.maps[self.model.map_index]

    def session(self, *, cuts: bool = True) -> Session:
        """Returns a session, which masks a video frame by frame.

        Masks are not made consistent with later frames, not even if the segmenter is a pipeline's.

        Args:
            cuts: whether to reset the state at a cut, i.e. a new shot.
        """
        return self.model.session(cuts=cuts)

    @convert_system_errors()
    def segment(self, frames: np.ndarray) -> Segmentation:
        """Masks the frames of one clip, in order and without resizing.

        Args:
            frames: (T, H, W, C), or one frame (H, W, C).

        Raises:
            MaskcastError: the type or shape is wrong.
        """
        frames_THWC, is_single = as_batch(frames, (-1, -1, -1, 3), "frames")
        masked = self.model.mask_clip(frames_THWC, self.consistent_frames)
        warning = shift_warning(
            ObservedClip(frames_THWC, masked.mean_confidence), self.model.reference, self.model.label_map
        )
        masks, confidence = masked.masks, masked.confidence
        if is_single:
            masks, confidence = masks[0], None if confidence is None else confidence[0]
        return Segmentation(masks, confidence, self.label_map, warning)
