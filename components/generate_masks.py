"""KFP component of the stage generate_masks."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def generate_masks(
    clips: Input[Dataset], masker: Input[Model], masks: Output[Dataset], metrics: Output[Metrics],
    page: Output[HTML], params: dict, name: str = "generate_masks",
) -> None:
    """Masks all clips that have frames, in every split, on all accelerators of the machine."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "generate_masks", params, name=name, clips=clips.path, masker=masker.path, masks=masks.path,
        metrics=metrics.path, page=page.path
    ))
