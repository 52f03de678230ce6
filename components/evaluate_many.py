"""KFP component that compares the maskers of a grid: the command `evaluate-many`, which is not a stage."""

from typing import List  # noqa: UP035  (kfp reads it)

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def evaluate_many(
    models: Input[List[Model]], clips: Input[Dataset], report: Output[Artifact], page: Output[HTML],  # noqa: UP006
    variants: list, split: str = "val",
) -> None:
    """Scores and measures the maskers of a grid on the same clips."""
    from maskcast.commands.evaluate_many import score_grid

    names, folders = [variant.get("name") for variant in variants], [model.path for model in models]
    score_grid(names, folders, clips.path, split, report.path, page.path)
