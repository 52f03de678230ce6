"""KFP component of the stage predict."""

from kfp.dsl import Dataset, Input, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def predict(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], forecaster: Input[Model],
    predictions: Output[Dataset], params: dict, name: str = "predict",
) -> None:
    """Forecasts clips whose true future is not labelled."""
    from maskcast.runner.run import run_stage

    run_stage(
        "predict", params, name=name, clips=clips.path, masks=masks.path, masker=masker.path,
        forecaster=forecaster.path, predictions=predictions.path
    )
