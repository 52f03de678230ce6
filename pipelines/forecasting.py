"""The forecasting pipeline: raw videos in, evaluated forecasts of future masks out.

The same DAG as `dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py compares them.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import components as stage
from pipelines.cluster import Placement


def forecasting(values: Mapping[str, dict[str, Any]], on: Placement) -> BaseComponent:
    """Returns the pipeline. Its parameters are the sections of the params file, one per stage.

    Args:
        values: the default of each section.
        on: where tasks run: ``io`` moves data, ``cpu`` computes, ``gpu`` has accelerators where it is given any.
    """

    @dsl.pipeline(
        name="maskcast-forecasting",
        description="Learn to segment and forecast video from few labels",
        pipeline_config=on.config,
    )
    def pipeline(
        fetch_dataset: dict = values["fetch_dataset"],
        prepare_clips: dict = values["prepare_clips"],
        pretrain_encoder: dict = values["pretrain_encoder"],
        train_masker: dict = values["train_masker"],
        generate_masks: dict = values["generate_masks"],
        pretrain_forecaster: dict = values["pretrain_forecaster"],
        finetune_forecaster: dict = values["finetune_forecaster"],
        evaluate: dict = values["evaluate"],
        predict: dict = values["predict"],
        register_models: dict = values["register_models"],
    ) -> None:
        raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
        clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]

        encoder = on.gpu(stage.pretrain_encoder(unlabeled=clips, params=pretrain_encoder)).outputs["encoder"]
        masker = on.gpu(stage.train_masker(clips=clips, encoder=encoder, params=train_masker)).outputs["masker"]
        masks = on.gpu(stage.generate_masks(clips=clips, masker=masker, params=generate_masks)).outputs["masks"]

        seen = {"clips": clips, "masks": masks, "masker": masker}
        pretrained = on.gpu(stage.pretrain_forecaster(**seen, params=pretrain_forecaster)).outputs["pretrained"]
        forecaster = on.gpu(
            stage.finetune_forecaster(**seen, pretrained=pretrained, params=finetune_forecaster)
        ).outputs["forecaster"]

        report = on.cpu(stage.evaluate(**seen, forecaster=forecaster, params=evaluate)).outputs["report"]
        on.cpu(stage.predict(**seen, forecaster=forecaster, params=predict))
        models = {"encoder": encoder, "masker": masker, "forecaster": forecaster, "report": report}
        registered = on.cpu(stage.register_models(clips=clips, **models, params=register_models))
        registered.set_caching_options(False)  # a cached task would register nothing

    return pipeline
