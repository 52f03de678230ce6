"""Register the detector and hold it against the gate."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import Field

from maskcast.data.detection import DetectionSet
from maskcast.models.base import read_description
from maskcast.params import Params
from maskcast.registry.artifact import shrink_clip, write_artifact
from maskcast.registry.bundle import DetectorDescription, write_bundle
from maskcast.registry.card import model_card
from maskcast.registry.evaluations import DETECTIONS, EvaluationRecord, read_evaluation
from maskcast.registry.gate import DetectionGate
from maskcast.registry.outcome import write_outcome
from maskcast.registry.register import NAME, Artifact, Origin, register
from maskcast.registry.runtime import load_bundle
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.runner.tracking import user_errors_of_server


class RegisterDetector(Params):
    """Params of register_detector."""

    name: str = Field("maskcast-detector", pattern=NAME)
    """Name of the registered model; runs that compete for one champion share it."""
    gate: DetectionGate = DetectionGate()
    """What the detector must reach to become a candidate."""


@stage
def register_detector(
    *,
    dataset: InPath,
    detector: InPath,
    report: InPath,
    registration: OutPath,
    page: OutPath | None = None,
    params: RegisterDetector,
) -> None:
    """Register the detector and hold it against the gate.

    The detector becomes a version in MLflow's registry; weights that are there already keep their version. Where
    the gate passes, the alias ``candidate`` points to the version.

    Args:
        dataset: what was evaluated on; one of its images becomes the input example.
        detector: what ``train_detector`` wrote.
        report: what ``evaluate_detector`` wrote about it.
        registration: JSON: the version, and the verdict with its numbers.
        page: HTML: the verdict, and the model beside the champion.
        params: name and gate.

    Raises:
        MaskcastError: the report is of another detector or of no detector, the gate names an unknown score, or the
            MLflow server does not do its part.
    """
    record = read_evaluation(report, (DETECTIONS,))
    record.check_models(detector=detector)
    example_HWC = DetectionSet(dataset).split(record.facts["split"]).image(0)
    origin = Origin.of("register_detector", params, {"dataset": dataset, "detector": detector, "report": report})
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch, user_errors_of_server():
        artifact = _write(Path(scratch, "detector"), detector, record, shrink_clip(example_HWC[None]), origin.tags)
        verdict, versions = register(
            {"detector": artifact}, record, {"detector": params.name}, params.gate, origin
        )
        write_outcome(params.name, record, verdict, versions, origin, registration, page)


def _write(
    folder: Path, detector: Path, record: EvaluationRecord, example_BHWC: np.ndarray, tags: Mapping[str, str]
) -> Artifact:
    """Writes the artifact, loads it back and runs it on the example."""
    parts = {"detector": detector}
    classes = read_description(detector)["meta"]["classes"]
    about = DetectorDescription(precision=record.facts["precision"], classes=classes)
    digest = write_bundle(folder / "data", about, parts)
    model = load_bundle(folder / "data", digest)
    model.predict(example_BHWC)
    card = model_card(about, parts, record, tags)
    write_artifact(folder, card, example_BHWC, (model.shape_in, model.shape_out), model.dtype_out)
    return Artifact(folder, digest, card)
