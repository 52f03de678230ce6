"""KFP component of the stage prepare_detection."""

from kfp.dsl import Dataset, Input, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def prepare_detection(
    raw: Input[Dataset], dataset: Output[Dataset], params: dict, name: str = "prepare_detection",
) -> None:
    """Converts images and boxes to a detection set: COCO format, classes 0..K-1, boxes inside images."""
    from maskcast.runner.run import run_stage

    run_stage("prepare_detection", params, name=name, raw=raw.path, dataset=dataset.path)
