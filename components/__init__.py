"""KFP components: one shim per stage, no logic. A shim hands its artifacts' paths to ``run_stage``.

`evaluate_many`, which compares the maskers of a grid, is a command and no stage, and has a module of its own.
"""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output, component

from components._image import IMAGE


@component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], forecaster: Input[Model],
    metrics: Output[Metrics], report: Output[Artifact], page: Output[HTML], params: dict,
    name: str = "evaluate",
) -> None:
    """Score a forecaster and its masker against two baselines, with tables and pictures."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "evaluate", params, name=name, clips=clips.path, masks=masks.path, masker=masker.path,
        forecaster=forecaster.path, metrics=metrics.path, report=report.path, page=page.path
    ))


@component(base_image=IMAGE, install_kfp_package=False)
def evaluate_detector(
    dataset: Input[Dataset], detector: Input[Model], metrics: Output[Metrics], report: Output[Artifact],
    page: Output[HTML], params: dict, name: str = "evaluate_detector",
) -> None:
    """Score a detector as COCO does, with tables, curves and pictures."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "evaluate_detector", params, name=name, dataset=dataset.path, detector=detector.path, metrics=metrics.path,
        report=report.path, page=page.path
    ))


@component(base_image=IMAGE, install_kfp_package=False)
def evaluate_video(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], metrics: Output[Metrics], params: dict,
    report: Output[Artifact], page: Output[HTML], base_masks: Input[Dataset] = None, name: str = "evaluate_video",
) -> None:
    """Score masks of videos: Jaccard, J&F, flicker, video consistency, beside the single-frame base."""
    from maskcast.runner.run import run_stage

    paths = {"clips": clips.path, "masks": masks.path, "masker": masker.path, "metrics": metrics.path}
    paths |= {"report": report.path, "page": page.path} | ({"base_masks": base_masks.path} if base_masks else {})
    metrics.metadata.update(run_stage("evaluate_video", params, name=name, **paths))


@component(base_image=IMAGE, install_kfp_package=False)
def fetch_dataset(
    raw: Output[Dataset], params: dict, name: str = "fetch_dataset",
) -> None:
    """Fetches a data set, unpacks it if it is an archive, and notes its origin and digest in `SOURCE.json`."""
    from maskcast.runner.run import run_stage

    run_stage("fetch_dataset", params, name=name, raw=raw.path)


@component(base_image=IMAGE, install_kfp_package=False)
def find_learning_rate(
    metrics: Output[Metrics], curves: Output[Artifact], page: Output[HTML], params: dict,
    clips: Input[Dataset] = None, dataset: Input[Dataset] = None, masks: Input[Dataset] = None,
    masker: Input[Model] = None, pretrained: Input[Model] = None, name: str = "find_learning_rate",
) -> None:
    """Trains for some steps at rates that grow, and suggests the one where the loss falls fastest."""
    from maskcast.runner.run import run_stage

    ports = {"clips": clips, "dataset": dataset, "masks": masks, "masker": masker, "pretrained": pretrained}
    ports |= {"curves": curves, "metrics": metrics, "page": page}
    paths = {port: artifact.path for port, artifact in ports.items() if artifact}
    metrics.metadata.update(run_stage("find_learning_rate", params, name=name, **paths))


@component(base_image=IMAGE, install_kfp_package=False)
def finetune_forecaster(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], pretrained: Input[Model],
    forecaster: Output[Model], metrics: Output[Metrics], page: Output[HTML], params: dict,
    name: str = "finetune_forecaster",
) -> None:
    """Trains a pretrained forecaster on labelled clips: generated context, true target."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "finetune_forecaster", params, name=name, clips=clips.path, masks=masks.path, masker=masker.path,
        pretrained=pretrained.path, forecaster=forecaster.path, metrics=metrics.path, page=page.path
    ))


@component(base_image=IMAGE, install_kfp_package=False)
def generate_masks(
    clips: Input[Dataset], masker: Input[Model], masks: Output[Dataset], metrics: Output[Metrics],
    page: Output[HTML], params: dict, name: str = "generate_masks",
) -> None:
    """Masks every clip that has frames, of every split and kind."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "generate_masks", params, name=name, clips=clips.path, masker=masker.path, masks=masks.path,
        metrics=metrics.path, page=page.path
    ))


@component(base_image=IMAGE, install_kfp_package=False)
def predict(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], forecaster: Input[Model],
    predictions: Output[Dataset], params: dict, name: str = "predict",
) -> None:
    """Forecast the clips whose future nobody has labelled."""
    from maskcast.runner.run import run_stage

    run_stage(
        "predict", params, name=name, clips=clips.path, masks=masks.path, masker=masker.path,
        forecaster=forecaster.path, predictions=predictions.path
    )


@component(base_image=IMAGE, install_kfp_package=False)
def prepare_clips(
    raw: Input[Dataset], clips: Output[Dataset], params: dict, name: str = "prepare_clips",
) -> None:
    """Writes the clips of a raw folder into a clip store."""
    from maskcast.runner.run import run_stage

    run_stage("prepare_clips", params, name=name, raw=raw.path, clips=clips.path)


@component(base_image=IMAGE, install_kfp_package=False)
def prepare_detection(
    raw: Input[Dataset], dataset: Output[Dataset], params: dict, name: str = "prepare_detection",
) -> None:
    """Writes images and boxes of a raw folder as a detection set."""
    from maskcast.runner.run import run_stage

    run_stage("prepare_detection", params, name=name, raw=raw.path, dataset=dataset.path)


@component(base_image=IMAGE, install_kfp_package=False)
def pretrain_encoder(
    unlabeled: Input[Dataset], encoder: Output[Model], metrics: Output[Metrics], page: Output[HTML],
    params: dict, name: str = "pretrain_encoder",
) -> None:
    """Trains an encoder without labels on clips, or images in a folder or archive; the last weights are kept."""
    from maskcast.runner.run import run_stage

    paths = {"unlabeled": unlabeled.path, "encoder": encoder.path, "metrics": metrics.path, "page": page.path}
    metrics.metadata.update(run_stage("pretrain_encoder", params, name=name, **paths))


@component(base_image=IMAGE, install_kfp_package=False)
def pretrain_forecaster(
    clips: Input[Dataset], masks: Input[Dataset], masker: Input[Model], pretrained: Output[Model],
    metrics: Output[Metrics], page: Output[HTML], params: dict, name: str = "pretrain_forecaster",
) -> None:
    """Trains a forecaster on generated masks of the train and unlabeled splits; labels serve validation only."""
    from maskcast.runner.run import run_stage

    metrics.metadata.update(run_stage(
        "pretrain_forecaster", params, name=name, clips=clips.path, masks=masks.path, masker=masker.path,
        pretrained=pretrained.path, metrics=metrics.path, page=page.path
    ))


@component(base_image=IMAGE, install_kfp_package=False)
def register_detector(
    dataset: Input[Dataset], detector: Input[Model], report: Input[Artifact], registration: Output[Artifact],
    page: Output[HTML], params: dict, name: str = "register_detector",
) -> None:
    """Register the detector and hold it against the gate."""
    from maskcast.runner.run import run_stage

    run_stage(
        "register_detector", params, name=name, dataset=dataset.path, detector=detector.path, report=report.path,
        registration=registration.path, page=page.path
    )


@component(base_image=IMAGE, install_kfp_package=False)
def register_models(
    clips: Input[Dataset], masker: Input[Model], forecaster: Input[Model], report: Input[Artifact],
    registration: Output[Artifact], page: Output[HTML], params: dict, encoder: Input[Model] = None,
    name: str = "register_models",
) -> None:
    """Register the models and hold them against the gate."""
    from maskcast.runner.run import run_stage

    trained = {"encoder": encoder.path} if encoder else {}
    models = {"masker": masker.path, "forecaster": forecaster.path, "report": report.path} | trained
    out = {"registration": registration.path, "page": page.path}
    run_stage("register_models", params, name=name, clips=clips.path, **models, **out)


@component(base_image=IMAGE, install_kfp_package=False)
def register_segmenter(
    clips: Input[Dataset], masker: Input[Model], report: Input[Artifact], registration: Output[Artifact],
    page: Output[HTML], params: dict, name: str = "register_segmenter",
) -> None:
    """Register the masker of videos and hold it against the gate."""
    from maskcast.runner.run import run_stage

    run_stage(
        "register_segmenter", params, name=name, clips=clips.path, masker=masker.path, report=report.path,
        registration=registration.path, page=page.path
    )


@component(base_image=IMAGE, install_kfp_package=False)
def train_detector(
    dataset: Input[Dataset], detector: Output[Model], metrics: Output[Metrics], page: Output[HTML],
    params: dict, encoder: Input[Model] = None, name: str = "train_detector",
) -> None:
    """Trains a detector on the train split; the best epoch by COCO AP on the val split is kept."""
    from maskcast.runner.run import run_stage

    paths = {"dataset": dataset.path, "detector": detector.path, "metrics": metrics.path, "page": page.path}
    start = {"encoder": encoder.path} if encoder else {}
    metrics.metadata.update(run_stage("train_detector", params, name=name, **paths, **start))


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
