"""KFP component of the stage finetune_forecaster."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def finetune_forecaster(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], pretrained: Input[Model],
    forecaster: Output[Model], metrics: Output[Metrics], page: Output[HTML], params: dict,
    name: str = "finetune_forecaster",
) -> None:
    """Finetunes a pretrained forecaster on labelled clips: generated masks as context, true masks as targets."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "finetune_forecaster", params, name=name, clips=clips.path, masks=masks.path, masker=masker.path,
        pretrained=pretrained.path, forecaster=forecaster.path, metrics=metrics.path, page=page.path
    ))
