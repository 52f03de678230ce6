"""pretrain_encoder: frames without labels -> an encoder that other models start from."""

from pathlib import Path
from typing import TYPE_CHECKING

from maskcast.labels import first_of_classes
from maskcast.models.encoders.configs import NoMethod
from maskcast.progress import first_process, report_file, say
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.training.tasks.encoder_params import EncoderTraining

if TYPE_CHECKING:
    from maskcast.data.clips import ClipStore
    from maskcast.models.encoders.siamese import Normalised
    from maskcast.training.tasks.encoder import EncoderTask

PICTURED = 8  # pairs of views


class PretrainEncoder(EncoderTraining):
    """Params of pretrain_encoder."""


@stage
def pretrain_encoder(*, unlabeled: InPath, encoder: OutPath, metrics: OutPath, params: PretrainEncoder) -> None:
    """Trains an encoder without labels on clips, or images in a folder or archive; the last weights are kept.

    Raises:
        MaskcastError: when there are no frames, an archive is damaged, the queue does not fit, training diverges
            or collapses.
    """
    import json
    from copy import deepcopy
    from functools import partial

    from maskcast.data.unlabeled import ClipFrames, open_frames
    from maskcast.digest import fingerprint
    from maskcast.models.base import count_parameters
    from maskcast.models.encoders.table import save_encoder
    from maskcast.runner.outputs import resume_dir
    from maskcast.training.finish import Scores, finish_training
    from maskcast.training.tasks.encoder import EncoderTask

    if isinstance(params.method, NoMethod):
        save_encoder(encoder, None, params.model, {"method": "none"})
        metrics.write_text(json.dumps({"epochs": 0}) + "\n", encoding="utf-8")
        say("encoder: not trained (method none)")
        return
    frames = open_frames(unlabeled, resume_dir(encoder))
    task = EncoderTask(frames, params, params.method, fingerprint(params, unlabeled=unlabeled))
    _report_views(task, resume_dir(encoder) / "views.png")
    start = deepcopy(task.siamese.encoder)
    trained = task.siamese.encoder
    meta = {"method": params.method.name, "mean": trained.mean.tolist(), "std": trained.std.tolist()}

    def results(scores: Scores) -> Scores:
        result = {
            "embedding_spread": scores["embedding_spread"],
            "epochs": scores["epochs"],
            "train_seconds": scores["train_seconds"],
            "parameters": count_parameters(trained),
            "frames": len(frames),
        }
        return result | (_probed(trained, start, frames.store) if isinstance(frames, ClipFrames) else {})

    finish_training(
        "pretrain_encoder",
        task,
        params.training,
        resume_dir(encoder),
        out=encoder,
        save=partial(save_encoder, encoder=trained.encoder, config=params.model, meta=meta),
        metrics=metrics,
        results=results,
    )


def _probed(trained: "Normalised", start: "Normalised", store: "ClipStore") -> dict[str, float]:
    """Returns the scores of the trained encoder and of the random one that it started as; none without classes."""
    from maskcast.evaluation.probe import can_probe, probe
    from maskcast.models.base import best_device

    classes = first_of_classes(store.maps.values())
    if classes is None or not can_probe(store.of(classes.name)):
        return {}
    store = store.of(classes.name)
    device = best_device()
    scores = probe(trained.to(device), store)
    scores |= {f"{name}_random": value for name, value in probe(start.to(device), store).items()}
    trained.to("cpu")
    say(
        f"encoder: linear probe {scores['linear_probe']:.3f} (random {scores['linear_probe_random']:.3f}), "
        f"kNN {scores['knn']:.3f} (random {scores['knn_random']:.3f}), mean class accuracy"
    )
    return scores


def _report_views(task: "EncoderTask", path: Path) -> None:
    """Draws pairs of views, one above the other, into a folder that outlives the run's upload."""
    if not first_process():
        return
    import numpy as np
    from PIL import Image

    views_2BHWC = task.batch(0).own[:, :PICTURED].numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in views_2BHWC])).save(path)
    report_file(path, "encoder")
