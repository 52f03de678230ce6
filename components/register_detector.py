"""KFP component of the stage register_detector."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def register_detector(
    dataset: Input[Dataset], detector: Input[Model], report: Input[Artifact], registration: Output[Artifact],
    page: Output[HTML], params: dict, name: str = "register_detector",
) -> None:
    """Registers the detector and checks it against the gate."""
    from maskcast.runner.run import run_stage

    run_stage(
        "register_detector", params, name=name, dataset=dataset.path, detector=detector.path, report=report.path,
        registration=registration.path, page=page.path
    )
