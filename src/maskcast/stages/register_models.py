"""register_models: register the models and check the pipeline against the gate."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from maskcast.params import Params
from maskcast.registry.gate_params import ForecastGate
from maskcast.registry.store import NAME, PIPELINE
from maskcast.runner.stage import InPath, OutPath, stage

if TYPE_CHECKING:
    import numpy as np

    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.registry.evaluations import EvaluationRecord
    from maskcast.registry.kinds import ForecastDescription, KindName


class ModelNames(Params):
    """Names of the registered models; runs that compete for one champion share them."""

    pipeline: str = Field(PIPELINE, pattern=NAME)
    """The pipeline: frames in, future masks out. This is the model that is promoted."""
    masker: str = Field("maskcast-masker", pattern=NAME)
    """The pipeline's masker on its own."""
    forecaster: str = Field("maskcast-forecaster", pattern=NAME)
    """The pipeline's forecaster on its own."""
    encoder: str = Field("maskcast-encoder", pattern=NAME)
    """The encoder that the masker started from, if one was trained."""


class RegisterModels(Params):
    """Params of register_models."""

    names: ModelNames = ModelNames()
    """Names of the registered models."""
    gate: ForecastGate = ForecastGate()
    """What the pipeline must reach to become a candidate."""


@stage
def register_models(
    *,
    clips: InPath,
    masker: InPath,
    forecaster: InPath,
    report: InPath,
    encoder: InPath | None = None,
    registration: OutPath,
    page: OutPath | None = None,
    params: RegisterModels,
) -> None:
    """Registers the models and checks the pipeline against the gate.

    Masker, forecaster and pipeline become versions in MLflow's registry, and the encoder if one was trained;
    weights that are already registered keep their version. If the gate passes, the pipeline's alias ``candidate``
    points to its version.

    Args:
        clips: the evaluated clip store; one of its clips becomes the input example.
        masker: output of ``train_masker``.
        forecaster: output of ``finetune_forecaster``.
        report: report of ``evaluate`` about masker and forecaster.
        encoder: encoder that the masker started from; omit it if the masker was randomly initialised.
        registration: JSON: the versions, and the gate's verdict with its numbers.
        page: HTML: the verdict, and a comparison with the champion; MLflow keeps the same file.
        params: names and gate.

    Raises:
        MaskcastError: the report belongs to other models, the encoder is invalid, no clip has frames, the gate has
            an unknown score, or the MLflow server fails.
    """
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.models.encoders.table import is_trained
    from maskcast.progress import say
    from maskcast.registry.artifact import ModelEntry
    from maskcast.registry.evaluations import FORECASTS, read_evaluation
    from maskcast.registry.kinds import KINDS
    from maskcast.registry.register import register
    from maskcast.runner.provenance import Origin

    parts = {"masker": masker, "forecaster": forecaster}
    inputs = {"clips": clips, **parts, "report": report} | ({"encoder": encoder} if encoder else {})
    origin = Origin.of("register_models", params, inputs)
    record = read_evaluation(report, (FORECASTS,))
    record.check_models(**parts)
    if encoder is not None:
        if is_trained(encoder):
            parts["encoder"] = encoder
        else:
            say("encoder: not trained (method none), so not registered")
    store = ClipStore(clips, record.facts.get("label_map"))
    about, examples = _about(store, record), _examples(store, record, parts)
    entries = [
        ModelEntry(getattr(params.names, kind), about[kind], examples[kind])
        for kind, each in KINDS.items()
        if parts.keys() >= set(each.parts)
    ]
    register(entries, parts, record, params.gate, origin, registration, page)


def _about(store: "ClipStore", record: "EvaluationRecord") -> "dict[KindName, ForecastDescription]":
    """Returns the description of each kind of model."""
    from maskcast.data.video_files.timing import common_rate
    from maskcast.registry.kinds import ForecastDescription

    facts = {name: record.facts[name] for name in ("context_frames", "horizon", "precision")}
    facts |= {name: getattr(store, name) for name in ("height", "width", "classes")}
    facts["label_map"] = record.facts.get("label_map")
    clips = store.select(record.facts["split"])
    strides = {clip.meta.get("stride") for clip in clips}
    facts["frame_stride"] = strides.pop() if len(strides) == 1 else None  # None: different or unknown
    facts["frame_rate"] = common_rate(clip.meta for clip in clips)
    about: dict[KindName, ForecastDescription] = {
        kind: ForecastDescription(kind=kind, **facts) for kind in ("masker", "forecaster", "encoder")
    }
    consistent = record.facts.get("consistent_frames")
    return about | {"pipeline": ForecastDescription(kind="pipeline", **facts, consistent_frames=consistent)}


def _examples(
    store: "ClipStore", record: "EvaluationRecord", parts: Mapping[str, Path]
) -> "dict[KindName, np.ndarray]":
    """Returns an input example for each kind of model, from a clip with as many frames as evaluated contexts."""
    from maskcast.errors import MaskcastError
    from maskcast.registry.artifact import shrink_clip
    from maskcast.registry.forecast_models import ForecasterModel, MaskerModel

    example = next((clip for clip in store.clips if clip.has_frames), None)
    if example is None:
        raise MaskcastError(
            f"{store.root}: no clip has frames, which the pipeline needs; prepare clips with frames"
        )
    clip_THWC = shrink_clip(store.frames(example)[: record.facts["context_frames"]])
    masker = MaskerModel(parts["masker"], record.facts["precision"], record.facts.get("label_map"))
    forecaster = ForecasterModel(parts["forecaster"], record.facts["horizon"])
    context = clip_THWC if forecaster.input.needs_masker else masker.predict(clip_THWC)
    input_frames = clip_THWC[:2]
    return {
        "pipeline": clip_THWC[None],
        "forecaster": context[None],
        "masker": input_frames,
        "encoder": input_frames,
    }
