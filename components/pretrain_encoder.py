"""KFP component of the stage pretrain_encoder."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def pretrain_encoder(
    unlabeled: Input[Dataset], encoder: Output[Model], metrics: Output[Metrics], page: Output[HTML],
    params: dict, name: str = "pretrain_encoder",
) -> None:
    """Pretrains an encoder without labels on clips, or images in a folder or archive; keeps the last weights."""
    from maskcast.runner.run import run_stage

    paths = {"unlabeled": unlabeled.path, "encoder": encoder.path, "metrics": metrics.path, "page": page.path}
    metrics.metadata.update(run_stage("pretrain_encoder", params, name=name, **paths))
