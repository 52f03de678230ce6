"""A pipeline in which two stages stand twice: a second masker, of another seed, masks the clips, too."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import components as stage
from pipelines.cluster import Placement


def two_maskers(values: Mapping[str, dict[str, Any]], on: Placement) -> BaseComponent:
    """Returns the pipeline, as those in `pipelines` do."""

    @dsl.pipeline(name="maskcast-two-maskers", description="Train two maskers")
    def pipeline(
        fetch_dataset: dict = values["fetch_dataset"],
        prepare_clips: dict = values["prepare_clips"],
        train_masker: dict = values["train_masker"],
        second_masker: dict = values["second_masker"],
        generate_masks: dict = values["generate_masks"],
        second_masks: dict = values["second_masks"],
    ) -> None:
        raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
        clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]
        first = on.gpu(stage.train_masker(clips=clips, params=train_masker)).outputs["masker"]
        second = on.gpu(stage.train_masker(clips=clips, params=second_masker, name="second_masker")).outputs[
            "masker"
        ]
        on.gpu(stage.generate_masks(clips=clips, masker=first, params=generate_masks))
        on.gpu(stage.generate_masks(clips=clips, masker=second, params=second_masks, name="second_masks"))

    return pipeline
