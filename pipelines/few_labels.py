"""The pipeline of few labels: a masker, and a second round that goes on from it with its masks.

The same DAG as `recipes/few-labels/dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py
compares them.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import components as stage
from pipelines.cluster import Placement


def few_labels(values: Mapping[str, dict[str, Any]], on: Placement) -> BaseComponent:
    """Returns the pipeline. Its parameters are the sections of the params file, one per stage.

    Args:
        values: the default of each section.
        on: where tasks run: ``io`` moves data, ``cpu`` computes, ``gpu`` has accelerators where it is given any.
    """

    @dsl.pipeline(
        name="maskcast-few-labels",
        description="Learn to segment in rounds, from few labels",
        pipeline_config=on.config,
    )
    def pipeline(
        fetch_dataset: dict = values["fetch_dataset"],
        prepare_clips: dict = values["prepare_clips"],
        pretrain_encoder: dict = values["pretrain_encoder"],
        train_masker: dict = values["train_masker"],
        generate_masks: dict = values["generate_masks"],
        second_masker: dict = values["second_masker"],
    ) -> None:
        raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
        clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]

        encoder = on.gpu(stage.pretrain_encoder(unlabeled=clips, params=pretrain_encoder)).outputs["encoder"]
        first = on.gpu(stage.train_masker(clips=clips, encoder=encoder, params=train_masker)).outputs["masker"]
        masks = on.gpu(stage.generate_masks(clips=clips, masker=first, params=generate_masks)).outputs["masks"]
        on.gpu(
            stage.train_masker(clips=clips, start=first, masks=masks, params=second_masker, name="second_masker")
        )

    return pipeline
