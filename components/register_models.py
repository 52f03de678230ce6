"""KFP component of the stage register_models."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def register_models(
    clips: Input[Dataset], masker: Input[Model], forecaster: Input[Model], report: Input[Artifact],
    registration: Output[Artifact], page: Output[HTML], params: dict, encoder: Input[Model] = None,
    name: str = "register_models",
) -> None:
    """Registers the models and checks the pipeline against the gate."""
    from maskcast.runner.run import run_stage

    trained = {"encoder": encoder.path} if encoder else {}
    models = {"masker": masker.path, "forecaster": forecaster.path, "report": report.path} | trained
    out = {"registration": registration.path, "page": page.path}
    run_stage("register_models", params, name=name, clips=clips.path, **models, **out)
