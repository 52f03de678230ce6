"""The pipeline of photographs: images with masks in, a scored and registered masker out.

The same DAG as `recipes/photographs/dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py
compares them.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import components as stage
from pipelines.cluster import Placement


def photographs(values: Mapping[str, dict[str, Any]], on: Placement) -> BaseComponent:
    """Returns the pipeline. Its parameters are the sections of the params file, one per stage.

    Args:
        values: the default of each section.
        on: where tasks run: ``io`` moves data, ``cpu`` computes, ``gpu`` has accelerators where it is given any.
    """

    @dsl.pipeline(name="maskcast-photographs", description="Learn to mask photographs", pipeline_config=on.config)
    def pipeline(
        fetch_dataset: dict = values["fetch_dataset"],
        prepare_clips: dict = values["prepare_clips"],
        train_masker: dict = values["train_masker"],
        generate_masks: dict = values["generate_masks"],
        evaluate_video: dict = values["evaluate_video"],
        register_segmenter: dict = values["register_segmenter"],
    ) -> None:
        raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
        clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]

        masker = on.gpu(stage.train_masker(clips=clips, params=train_masker)).outputs["masker"]
        masks = on.gpu(stage.generate_masks(clips=clips, masker=masker, params=generate_masks)).outputs["masks"]

        seen = {"clips": clips, "masks": masks, "masker": masker}
        evaluated = on.cpu(stage.evaluate_video(**seen, params=evaluate_video))
        models = {"masker": masker, "report": evaluated.outputs["report"]}
        registered = on.cpu(stage.register_segmenter(clips=clips, **models, params=register_segmenter))
        registered.set_caching_options(False)  # a cached task would register nothing

    return pipeline
