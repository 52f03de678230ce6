"""KFP component of the stage train_detector."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def train_detector(
    dataset: Input[Dataset], detector: Output[Model], metrics: Output[Metrics], page: Output[HTML],
    params: dict, encoder: Input[Model] = None, name: str = "train_detector",
) -> None:
    """Trains a detector on the train split; the best epoch by COCO AP on the val split is kept."""
    from maskcast.runner.run import run_stage

    paths = {"dataset": dataset.path, "detector": detector.path, "metrics": metrics.path, "page": page.path}
    start = {"encoder": encoder.path} if encoder else {}
    metrics.metadata.update(run_stage("train_detector", params, name=name, **paths, **start))
