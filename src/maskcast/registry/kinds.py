"""What the kinds of registered models are: a row of ``KINDS``, and the description in model.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from maskcast.params import Params
from maskcast.registry.evaluations import DETECTIONS, FORECASTS, VIDEOS, Measure
from maskcast.registry.inputs import MAX_FRAMES

ForecastKind = Literal["pipeline", "masker", "forecaster", "encoder"]
KindName = ForecastKind | Literal["detector", "segmenter"]


@dataclass(frozen=True)
class Kind:
    """A kind of registered models.

    Args:
        parts: folders of its bundle.
        purpose: its input and output, in words.
        measure: form of its evaluation; None for parts of a pipeline, which are evaluated with it.
        ports: ports of stages for parts, where they have other names.
    """

    parts: tuple[str, ...]
    purpose: str
    measure: Measure | None = None
    ports: Mapping[str, str] = field(default_factory=dict)


# In the order of registration: a pipeline comes after its parts, as its tags name their versions.
KINDS: dict[KindName, Kind] = {
    "encoder": Kind(("encoder",), "RGB frames in, one vector of features for each frame out."),
    "masker": Kind(("masker",), "RGB frames in, class masks of these frames out."),
    "forecaster": Kind(("forecaster",), "The past of a clip in, its future out."),
    "pipeline": Kind(
        ("masker", "forecaster"), "RGB frames of a clip in, class masks of the frames that follow out.", FORECASTS
    ),
    "detector": Kind(("detector",), "RGB images in, boxes with scores and classes out.", DETECTIONS),
    "segmenter": Kind(
        ("segmenter",),
        "RGB frames of a video in, in order; class masks of these frames out.",
        VIDEOS,
        ports={"segmenter": "masker"},
    ),
}


class ForecastDescription(Params):
    """Contents of model.json of a pipeline or one of its parts."""

    format: Literal["maskcast-registered/1"] = "maskcast-registered/1"
    kind: ForecastKind
    """Frames to future masks, frames to masks, a past to its future, or frames to features."""
    context_frames: int = Field(ge=1, le=MAX_FRAMES)
    """Frames that were seen when the model was evaluated."""
    horizon: int = Field(ge=1, le=MAX_FRAMES)
    """Frames that it forecasts."""
    precision: Literal["bf16", "fp32"]
    """Of the masker, as when the masks were generated that the evaluation started from."""
    consistent_frames: int | None = Field(None, ge=1)
    """Of a pipeline: frames per window with one class per object, as in those masks; null: single frames."""
    height: int = Field(ge=1)
    """Rows of the frames that it was evaluated on; other sizes run, but were not evaluated."""
    width: int = Field(ge=1)
    """Columns of these frames."""
    frame_stride: int | None = Field(None, ge=1)
    """Distance of consecutive frames in the video they come from; null if unknown or different."""
    frame_rate: float | None = Field(None, gt=0)
    """Frames per second of these clips; null if unknown or different."""
    classes: tuple[str, ...]
    """Class names by id, background first."""
    label_map: str | None = None
    """The label map of these classes; null if the clips of the evaluation had only one."""


class DetectorDescription(Params):
    """Contents of model.json of a detector."""

    format: Literal["maskcast-registered/1"] = "maskcast-registered/1"
    kind: Literal["detector"] = "detector"
    """Frames to boxes."""
    precision: Literal["bf16", "fp32"]
    """As in its evaluation."""
    classes: tuple[str, ...]
    """Class names by id; there is no background class."""


class SegmenterDescription(Params):
    """Contents of model.json of a masker of videos, which may keep state between frames."""

    format: Literal["maskcast-registered/1"] = "maskcast-registered/1"
    kind: Literal["segmenter"] = "segmenter"
    """Frames of a video to their masks."""
    precision: Literal["bf16", "fp32"]
    """As in its evaluation."""
    height: int = Field(ge=1)
    """Rows of the frames that it was evaluated on; other sizes run, but were not evaluated."""
    width: int = Field(ge=1)
    """Columns of these frames."""
    classes: tuple[str, ...]
    """Class names by id, background first."""
    label_map: str
    """The label map of these classes; the model may have others."""


Description = ForecastDescription | DetectorDescription | SegmenterDescription
