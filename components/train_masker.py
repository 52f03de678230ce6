"""KFP component of the stage train_masker."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def train_masker(
    clips: Input[Dataset], masker: Output[Model], metrics: Output[Metrics], page: Output[HTML], params: dict,
    encoder: Input[Model] = None, start: Input[Model] = None, masks: Input[Dataset] = None,
    unlabeled: Input[Dataset] = None, name: str = "train_masker",
) -> None:
    """Trains a masker on the labelled clips of the train split; the best epoch by validation Jaccard is kept."""
    from maskcast.runner.run import run_stage

    given = {"encoder": encoder, "start": start, "masks": masks, "unlabeled": unlabeled}
    paths = {"clips": clips.path, "masker": masker.path, "metrics": metrics.path, "page": page.path}
    paths |= {port: artifact.path for port, artifact in given.items() if artifact}
    metrics.metadata.update(run_stage("train_masker", params, name=name, **paths))
