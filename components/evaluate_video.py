"""KFP component of the stage evaluate_video."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def evaluate_video(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], metrics: Output[Metrics], params: dict,
    report: Output[Artifact], page: Output[HTML], base_masks: Input[Dataset] = None, name: str = "evaluate_video",
) -> None:
    """Scores video masks: Jaccard, J&F, flicker, video consistency, beside the single-frame base."""
    from maskcast.runner.run import run_stage

    paths = {"clips": clips.path, "masks": masks.path, "masker": masker.path, "metrics": metrics.path}
    paths |= {"report": report.path, "page": page.path} | ({"base_masks": base_masks.path} if base_masks else {})
    metrics.metadata.update(run_stage("evaluate_video", params, name=name, **paths))
