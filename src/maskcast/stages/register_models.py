"""Register the models and hold them against the gate."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import Field

from maskcast.data.clips import ClipStore
from maskcast.errors import MaskcastError
from maskcast.models.encoders.table import is_trained
from maskcast.params import Params
from maskcast.progress import say
from maskcast.registry.artifact import shrink_clip, write_artifact
from maskcast.registry.bundle import PARTS, ForecastDescription, Kind, write_bundle
from maskcast.registry.card import model_card
from maskcast.registry.evaluations import FORECASTS, EvaluationRecord, read_evaluation
from maskcast.registry.gate import ForecastGate
from maskcast.registry.outcome import write_outcome
from maskcast.registry.register import NAME, Artifact, Origin, register
from maskcast.registry.runtime import PipelineModel, load_bundle
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.runner.tracking import user_errors_of_server


class Names(Params):
    """Names of the registered models; runs that compete for one champion share them."""

    pipeline: str = Field("maskcast", pattern=NAME)
    """Frames in, future masks out: the one that is promoted."""
    masker: str = Field("maskcast-masker", pattern=NAME)
    """Its masker alone."""
    forecaster: str = Field("maskcast-forecaster", pattern=NAME)
    """Its forecaster alone."""
    encoder: str = Field("maskcast-encoder", pattern=NAME)
    """The encoder that its masker started from, where one was trained."""

    @property
    def by_kind(self) -> dict[Kind, str]:
        """The names by what they name."""
        return {
            "pipeline": self.pipeline,
            "masker": self.masker,
            "forecaster": self.forecaster,
            "encoder": self.encoder,
        }


class RegisterModels(Params):
    """Params of register_models."""

    names: Names = Names()
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
    """Register the models and hold them against the gate.

    Masker, forecaster and pipeline become versions in MLflow's registry, and the encoder where one was trained;
    weights that are there already keep their version. Where the gate passes, the pipeline's alias ``candidate``
    points to its version.

    Args:
        clips: clip store that was evaluated on; one of its clips becomes the input example.
        masker: the masker.
        forecaster: the forecaster.
        report: what evaluate wrote about these two.
        encoder: what the masker started from; left out where it started at random.
        registration: JSON: the versions, and the verdict with its numbers.
        page: HTML: the verdict, and the model beside the champion; MLflow keeps the same file.
        params: names and gate.

    Raises:
        MaskcastError: the report is of other models, the encoder is none, no clip has frames, the gate names an
            unknown score, or the MLflow server does not do its part.
    """
    record = read_evaluation(report, (FORECASTS,))
    parts = {"masker": masker, "forecaster": forecaster}
    record.check_models(**parts)
    inputs = {"clips": clips, **parts, "report": report}
    if encoder is not None:
        inputs["encoder"] = encoder
        if is_trained(encoder):
            parts["encoder"] = encoder
        else:
            say("encoder: not trained (method none), and so not registered")
    origin = Origin.of("register_models", params, inputs)
    store = ClipStore(clips)
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch, user_errors_of_server():
        artifacts = _write(Path(scratch), parts, record, store, origin.tags)
        verdict, versions = register(artifacts, record, params.names.by_kind, params.gate, origin)
        write_outcome(params.names.pipeline, record, verdict, versions, origin, registration, page)


def _example(store: ClipStore, record: EvaluationRecord) -> np.ndarray:
    """Returns a small clip, (T, H, W, 3) uint8, of as many frames as the evaluation saw."""
    for clip in store.clips:
        if clip.has_frames:
            return shrink_clip(store.frames(clip)[: record.facts["context_frames"]])
    raise MaskcastError(f"{store.root}: no clip has frames, and the pipeline starts from frames; prepare some")


def _stride(store: ClipStore, record: EvaluationRecord) -> int | None:
    """Returns how far apart in their video a scored clip's frames are; None where clips differ or do not say."""
    strides = {clip.meta.get("stride") for clip in store.select(record.facts["split"])}
    return strides.pop() if len(strides) == 1 else None


def _write(
    folder: Path, parts: Mapping[str, Path], record: EvaluationRecord, store: ClipStore, tags: Mapping[str, str]
) -> dict[Kind, Artifact]:
    """Writes the artifact of each model, loads it back and runs it on the example."""
    artifacts: dict[Kind, Artifact] = {}
    examples: dict[Kind, np.ndarray] = {}
    example = _example(store, record)
    facts = {name: record.facts[name] for name in ("context_frames", "horizon", "precision")}
    facts |= {name: getattr(store, name) for name in ("height", "width", "classes")}
    facts["frame_stride"] = _stride(store, record)
    kinds = [kind for kind, needed in PARTS.items() if parts.keys() >= set(needed)]
    for kind in kinds:
        consistent = record.facts.get("consistent_frames") if kind == "pipeline" else None
        about = ForecastDescription(kind=kind, **facts, consistent_frames=consistent)
        digest = write_bundle(folder / kind / "data", about, parts)
        model = load_bundle(folder / kind / "data", digest)
        if isinstance(model, PipelineModel):
            seen = example if model.forecaster.input.needs_masker else model.masker.predict(example)
            examples = {"pipeline": example[None], "forecaster": seen[None]}
            examples |= {"masker": example[:2], "encoder": example[:2]}
        model.predict(examples[kind])
        card = model_card(about, parts, record, tags)
        write_artifact(folder / kind, card, examples[kind], (model.shape_in, model.shape_out), model.dtype_out)
        artifacts[kind] = Artifact(folder / kind, digest, card)
    return artifacts
