"""train_detector: train a detector, which predicts boxes and classes of objects, on labelled images."""

from typing import Any

from maskcast.runner.stage import InPath, OutPath, running_name, stage
from maskcast.training.tasks.detection_params import DetectorTraining


class TrainDetector(DetectorTraining):
    """Params of train_detector."""


@stage
def train_detector(
    *, dataset: InPath, encoder: InPath | None = None, detector: OutPath, metrics: OutPath, params: TrainDetector
) -> None:
    """Trains a detector on the train split; the best epoch by COCO AP on the val split is kept.

    Args:
        dataset: output of ``prepare_detection``.
        encoder: output of ``pretrain_encoder``; without it, or if its method was ``none``, the encoder is randomly
            initialised.
        detector: the trained detector.
        metrics: JSON, flat numbers.
        params: architecture, training schedule and augmentation.

    Raises:
        MaskcastError: train or val has no boxes, the encoder has another architecture, or training diverges.
    """
    from functools import partial

    from maskcast.data.detection.dataset import DetectionSet
    from maskcast.models.base import count_parameters, save_model
    from maskcast.runner.fingerprint import fingerprint
    from maskcast.runner.outputs import resume_dir
    from maskcast.training.finish import Scores, finish_training
    from maskcast.training.tasks.detection import DetectorTask

    data = DetectionSet(dataset)
    task = DetectorTask(data, params, encoder, fingerprint(__name__, params, dataset=dataset, encoder=encoder))
    meta: dict[str, Any] = {"classes": list(data.classes), "original_ids": list(data.original_ids)}
    if task.pretrained is not None:
        meta["encoder_weights"] = task.pretrained.record

    def results(scores: Scores) -> Scores:
        return {
            "val_AP": scores["AP"],
            "val_AP50": scores["AP50"],
            "best_epoch": scores["best_epoch"],
            "epochs": scores["epochs"],
            "train_seconds": scores["train_seconds"],
            "parameters": count_parameters(task.model),
        }

    finish_training(
        running_name("train_detector"),
        task,
        params.training,
        resume_dir(detector),
        out=detector,
        save=partial(
            save_model, model=task.detector, config=params.model, num_classes=data.num_classes, meta=meta
        ),
        metrics=metrics,
        results=results,
        summary="detector: validation AP {AP:.4f}, AP50 {AP50:.4f} (epoch {best_epoch:.0f})".format_map,
    )
