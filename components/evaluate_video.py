"""KFP component of the stage evaluate_video."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def evaluate_video(
    clips: Input[Dataset], masks: Input[Dataset], metrics: Output[Metrics], params: dict,
    report: Output[Artifact], page: Output[HTML], base_masks: Input[Dataset] = None, masker: Input[Model] = None,
    name: str = "evaluate_video",
) -> None:
    """Scores video masks: Jaccard, J&F, flicker, video consistency, beside the single-frame base."""
    from maskcast.runner.run import run_stage

    paths = {"clips": clips.path, "masks": masks.path, "metrics": metrics.path, "report": report.path}
    paths["page"] = page.path
    paths |= {port: given.path for port, given in (("base_masks", base_masks), ("masker", masker)) if given}
    metrics.metadata.update(run_stage("evaluate_video", params, name=name, **paths))
