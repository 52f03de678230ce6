"""register_segmenter: register a video masker and check it against the gate."""

from pydantic import Field

from maskcast.params import Params
from maskcast.registry.gate_params import VideoGate
from maskcast.registry.store import NAME
from maskcast.runner.stage import InPath, OutPath, stage

EXAMPLE_FRAMES = 4


class RegisterSegmenter(Params):
    """Params of register_segmenter."""

    name: str = Field("maskcast-segmenter", pattern=NAME)
    """Name of the registered model; runs that compete for one champion share it."""
    gate: VideoGate = VideoGate()
    """What the masker must reach to become a candidate."""


@stage
def register_segmenter(
    *,
    clips: InPath,
    masker: InPath,
    report: InPath,
    registration: OutPath,
    page: OutPath | None = None,
    params: RegisterSegmenter,
) -> None:
    """Registers a video masker and checks it against the gate.

    It becomes a version in MLflow's registry; weights that are already registered keep their version. If the gate
    passes, the alias ``candidate`` points to the version.

    Args:
        clips: the evaluated clip store; frames of one of its clips become the input example.
        masker: output of ``train_masker``.
        report: report of ``evaluate_video`` about the masker.
        registration: JSON: the version, and the gate's verdict with its numbers.
        page: HTML: the verdict, and the model beside the champion.
        params: name and gate.

    Raises:
        MaskcastError: the report belongs to another model, the gate has an unknown score, or the MLflow server
            fails.
    """
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.evaluation.forecasts import scored_clips
    from maskcast.registry.artifact import ModelEntry, shrink_clip
    from maskcast.registry.evaluations import VIDEOS, read_evaluation
    from maskcast.registry.kinds import SegmenterDescription
    from maskcast.registry.register import register
    from maskcast.runner.provenance import Origin

    origin = Origin.of("register_segmenter", params, {"clips": clips, "masker": masker, "report": report})
    record = read_evaluation(report, (VIDEOS,))
    parts = {"segmenter": masker}
    record.check_models(**parts)
    store = ClipStore(clips, record.facts["label_map"])
    sizes = {name: getattr(store, name) for name in ("height", "width", "classes")}
    facts = {name: record.facts[name] for name in ("precision", "label_map")}
    example = shrink_clip(store.frames(scored_clips(store, record.facts["split"])[0])[:EXAMPLE_FRAMES])
    entry = ModelEntry(params.name, SegmenterDescription(**facts, **sizes), example)
    register([entry], parts, record, params.gate, origin, registration, page)
