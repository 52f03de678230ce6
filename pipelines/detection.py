"""The detection pipeline: raw images with boxes in, a scored and registered detector out.

The same DAG as `recipes/detection/dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py
compares them.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import components as stage
from pipelines.cluster import Placement


def detection(values: Mapping[str, dict[str, Any]], on: Placement) -> BaseComponent:
    """Returns the pipeline. Its parameters are the sections of the params file, one per stage.

    Args:
        values: the default of each section.
        on: where tasks run: ``io`` moves data, ``cpu`` computes, ``gpu`` has accelerators where it is given any.
    """

    @dsl.pipeline(
        name="maskcast-detection", description="Learn to detect objects from few labels", pipeline_config=on.config
    )
    def pipeline(
        fetch_dataset: dict = values["fetch_dataset"],
        prepare_detection: dict = values["prepare_detection"],
        pretrain_encoder: dict = values["pretrain_encoder"],
        train_detector: dict = values["train_detector"],
        evaluate_detector: dict = values["evaluate_detector"],
        register_detector: dict = values["register_detector"],
    ) -> None:
        raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
        dataset = on.cpu(stage.prepare_detection(raw=raw, params=prepare_detection)).outputs["dataset"]

        encoder = on.gpu(stage.pretrain_encoder(unlabeled=dataset, params=pretrain_encoder)).outputs["encoder"]
        trained = on.gpu(stage.train_detector(dataset=dataset, encoder=encoder, params=train_detector))
        detector = trained.outputs["detector"]

        evaluated = on.gpu(stage.evaluate_detector(dataset=dataset, detector=detector, params=evaluate_detector))
        models = {"detector": detector, "report": evaluated.outputs["report"]}
        registered = on.cpu(stage.register_detector(dataset=dataset, **models, params=register_detector))
        registered.set_caching_options(False)  # a cached task would register nothing

    return pipeline
