"""The forecasting pipeline: from raw videos to evaluated forecasts of masks.

The same DAG as `dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py compares them.
"""

import components as stage
from pipelines.placement import Placement


def forecasting(
    on: Placement,
    fetch_dataset: dict,
    prepare_clips: dict,
    pretrain_encoder: dict,
    train_masker: dict,
    generate_masks: dict,
    pretrain_forecaster: dict,
    finetune_forecaster: dict,
    evaluate: dict,
    predict: dict,
    register_models: dict,
) -> None:
    """Learn to segment and forecast video from few labels."""
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
    on.cpu(stage.register_models(clips=clips, **models, params=register_models))
