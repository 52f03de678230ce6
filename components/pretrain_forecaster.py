"""KFP component of the stage pretrain_forecaster."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def pretrain_forecaster(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], pretrained: Output[Model],
    metrics: Output[Metrics], page: Output[HTML], params: dict, name: str = "pretrain_forecaster",
) -> None:
    """Trains a forecaster on generated masks of the train and unlabeled splits; labels are for validation only."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "pretrain_forecaster", params, name=name, clips=clips.path, masks=masks.path, masker=masker.path,
        pretrained=pretrained.path, metrics=metrics.path, page=page.path
    ))
