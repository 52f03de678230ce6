"""KFP component of the stage evaluate."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], forecaster: Input[Model],
    metrics: Output[Metrics], report: Output[Artifact], page: Output[HTML], params: dict,
    name: str = "evaluate",
) -> None:
    """Scores a forecaster and its masker, beside baselines, with tables and pictures."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "evaluate", params, name=name, clips=clips.path, masks=masks.path, masker=masker.path,
        forecaster=forecaster.path, metrics=metrics.path, report=report.path, page=page.path
    ))
