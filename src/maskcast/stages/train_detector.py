"""train_detector: labelled images -> a detector that boxes and names the objects of an image."""

import json

from maskcast.curves import write_curve
from maskcast.data.detection import DetectionSet
from maskcast.digest import fingerprint
from maskcast.models.base import count_parameters, save_model
from maskcast.progress import say
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.training.loop import fit
from maskcast.training.tasks.detection import DetectorTask, DetectorTraining


class TrainDetector(DetectorTraining):
    """Params of train_detector."""


@stage
def train_detector(
    *, dataset: InPath, encoder: InPath | None = None, detector: OutPath, metrics: OutPath, params: TrainDetector
) -> None:
    """Trains a detector on the train split; the best epoch by COCO AP on the val split is kept.

    Args:
        dataset: what ``prepare_detection`` wrote.
        encoder: what ``pretrain_encoder`` wrote; without it, or where its method was ``none``, the encoder
            starts at random.
        detector: weights and description.
        metrics: JSON, flat numbers.
        params: what to train, and how.

    Raises:
        MaskcastError: when train or val holds no boxes, the encoder is of another architecture, or training
            diverges.
    """
    data = DetectionSet(dataset)
    inputs = {"dataset": dataset} | ({"encoder": encoder} if encoder else {})
    task = DetectorTask(data, params, encoder, fingerprint(params, **inputs))
    parameters = count_parameters(task.model)
    scores, curve = fit(task, params.training, resume_dir(detector))
    meta = {"classes": list(data.classes), "original_ids": list(data.original_ids)}
    save_model(detector, task.detector, params.model, num_classes=data.num_classes, meta=meta)
    write_curve(detector, "train_detector", curve)
    result = {
        "val_AP": scores["AP"],
        "val_AP50": scores["AP50"],
        "best_epoch": scores["best_epoch"],
        "epochs": scores["epochs"],
        "train_seconds": scores["train_seconds"],
        "parameters": parameters,
    }
    metrics.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(
        f"detector: validation AP {scores['AP']:.4f}, AP50 {scores['AP50']:.4f} (epoch {scores['best_epoch']:.0f})"
    )
