"""The detection pipeline: from raw images with boxes to an evaluated and registered detector.

The same DAG as `recipes/detection/dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py
compares them.
"""

import components as stage
from pipelines.placement import Placement


def detection(
    on: Placement,
    fetch_dataset: dict,
    prepare_detection: dict,
    pretrain_encoder: dict,
    train_detector: dict,
    evaluate_detector: dict,
    register_detector: dict,
) -> None:
    """Learn to detect objects from few labels."""
    raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
    dataset = on.cpu(stage.prepare_detection(raw=raw, params=prepare_detection)).outputs["dataset"]

    encoder = on.gpu(stage.pretrain_encoder(unlabeled=dataset, params=pretrain_encoder)).outputs["encoder"]
    trained = on.gpu(stage.train_detector(dataset=dataset, encoder=encoder, params=train_detector))
    detector = trained.outputs["detector"]

    evaluated = on.gpu(stage.evaluate_detector(dataset=dataset, detector=detector, params=evaluate_detector))
    models = {"detector": detector, "report": evaluated.outputs["report"]}
    on.cpu(stage.register_detector(dataset=dataset, **models, params=register_detector))
