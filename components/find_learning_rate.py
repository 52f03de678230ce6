"""KFP component of the stage find_learning_rate."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def find_learning_rate(
    metrics: Output[Metrics], curves: Output[Artifact], page: Output[HTML], params: dict,
    clips: Input[Dataset] = None, dataset: Input[Dataset] = None, masks: Input[Dataset] = None,
    masker: Input[Model] = None, pretrained: Input[Model] = None, name: str = "find_learning_rate",
) -> None:
    """Runs a learning-rate range test: trains at rising rates, suggests the one where the loss falls fastest."""
    from maskcast.runner.run import run_stage

    ports = {"clips": clips, "dataset": dataset, "masks": masks, "masker": masker, "pretrained": pretrained}
    ports |= {"curves": curves, "metrics": metrics, "page": page}
    paths = {port: artifact.path for port, artifact in ports.items() if artifact}
    metrics.metadata.update(run_stage("find_learning_rate", params, name=name, **paths))
