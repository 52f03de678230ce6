"""register_detector: register the detector and check it against the gate."""

from pydantic import Field

from maskcast.params import Params
from maskcast.registry.gate_params import DetectionGate
from maskcast.registry.store import NAME
from maskcast.runner.stage import InPath, OutPath, stage


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
    """Registers the detector and checks it against the gate.

    The detector becomes a version in MLflow's registry; weights that are already registered keep their version. If
    the gate passes, the alias ``candidate`` points to the version.

    Args:
        dataset: the evaluated detection set; one of its images becomes the input example.
        detector: output of ``train_detector``.
        report: report of ``evaluate_detector`` about the detector.
        registration: JSON: the version, and the gate's verdict with its numbers.
        page: HTML: the verdict, and the model beside the champion.
        params: name and gate.

    Raises:
        MaskcastError: the report belongs to another model, the gate has an unknown score, or the MLflow server
            fails.
    """
    from maskcast.data.detection.dataset import DetectionSet
    from maskcast.models.base import read_description
    from maskcast.registry.artifact import ModelEntry, shrink_clip
    from maskcast.registry.evaluations import DETECTIONS, read_evaluation
    from maskcast.registry.kinds import DetectorDescription
    from maskcast.registry.register import register
    from maskcast.runner.provenance import Origin

    parts = {"detector": detector}
    origin = Origin.of("register_detector", params, {"dataset": dataset, **parts, "report": report})
    record = read_evaluation(report, (DETECTIONS,))
    record.check_models(**parts)
    example_HWC = DetectionSet(dataset).split(record.facts["split"]).image(0)
    classes = read_description(detector)["meta"]["classes"]
    about = DetectorDescription(precision=record.facts["precision"], classes=classes)
    entry = ModelEntry(params.name, about, shrink_clip(example_HWC[None]))
    register([entry], parts, record, params.gate, origin, registration, page)
