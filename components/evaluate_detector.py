"""KFP component of the stage evaluate_detector."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def evaluate_detector(
    dataset: Input[Dataset], detector: Input[Model], metrics: Output[Metrics], report: Output[Artifact],
    page: Output[HTML], params: dict, name: str = "evaluate_detector",
) -> None:
    """Scores a detector with the COCO metrics, with tables, curves and pictures."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "evaluate_detector", params, name=name, dataset=dataset.path, detector=detector.path, metrics=metrics.path,
        report=report.path, page=page.path
    ))
