"""KFP component of the stage register_segmenter."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def register_segmenter(
    clips: Input[Dataset], masker: Input[Model], report: Input[Artifact], registration: Output[Artifact],
    page: Output[HTML], params: dict, name: str = "register_segmenter",
) -> None:
    """Registers a video masker and checks it against the gate."""
    from maskcast.runner.run import run_stage

    run_stage(
        "register_segmenter", params, name=name, clips=clips.path, masker=masker.path, report=report.path,
        registration=registration.path, page=page.path
    )
