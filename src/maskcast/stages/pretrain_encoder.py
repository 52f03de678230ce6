"""pretrain_encoder: pretrain an encoder, or a whole masker, on frames without labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskcast.errors import MaskcastError
from maskcast.labels import first_class_map
from maskcast.markup import element, figure
from maskcast.models.encoders.configs import DenseConfig, NoMethod
from maskcast.progress import is_main_process, report_file, report_section, say
from maskcast.runner.stage import InPath, OutPath, running_name, stage
from maskcast.training.tasks.encoder_params import EncoderTraining

if TYPE_CHECKING:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.data.unlabeled import Frames
    from maskcast.models.encoders.siamese import Normalised
    from maskcast.training.tasks.dense import DenseTask
    from maskcast.training.tasks.encoder import EncoderTask

NUM_PICTURES = 8  # number of drawn samples


class PretrainEncoder(EncoderTraining):
    """Params of pretrain_encoder."""


@stage
def pretrain_encoder(*, unlabeled: InPath, encoder: OutPath, metrics: OutPath, params: PretrainEncoder) -> None:
    """Pretrains an encoder without labels on clips, or images in a folder or archive; keeps the last weights.

    Dense methods also train the decoder of ``network``, and a masker starts from both.

    Args:
        unlabeled: clip store, or images in a folder or archive.
        encoder: the trained encoder.
        metrics: JSON, flat numbers.
        params: architecture, method and training schedule.

    Raises:
        MaskcastError: there are no frames, an archive is damaged, the queue size is invalid, or training diverges
            or collapses.
    """
    import json
    from copy import deepcopy

    from maskcast.data.unlabeled import ClipFrames, open_frames
    from maskcast.models.base import count_parameters
    from maskcast.models.encoders.table import save_encoder
    from maskcast.models.segmentation.pretrained import NETWORK, save_decoder
    from maskcast.runner.fingerprint import fingerprint
    from maskcast.runner.outputs import resume_dir
    from maskcast.training.finish import Scores, finish_training
    from maskcast.training.tasks.dense import DenseTask

    if isinstance(params.method, NoMethod):
        save_encoder(encoder, None, params.model, {"method": "none"})
        metrics.write_text(json.dumps({"epochs": 0}) + "\n", encoding="utf-8")
        say("encoder: not trained (method none)")
        return
    frames = open_frames(unlabeled, resume_dir(encoder))
    task = encoder_task(frames, params, fingerprint(__name__, params, unlabeled=unlabeled))
    views = resume_dir(encoder) / "views.png"
    _draw_views(task, views)
    start, trained = deepcopy(task.encoder), task.encoder
    meta: dict[str, Any] = {"method": params.method.name}
    meta |= {"mean": trained.mean.tolist(), "std": trained.std.tolist()}
    if params.network is not None:
        meta[NETWORK] = params.network.unweighted.model_dump(mode="json")

    def save(folder: Path) -> None:
        if isinstance(task, DenseTask) and params.network is not None:
            save_decoder(folder, task.segmenter, params.network)  # before the config, which has its sha256
        save_encoder(folder, trained.encoder, params.model, meta)

    def results(scores: Scores) -> Scores:
        result = {name: scores[name] for name in ("embedding_spread", "explained") if name in scores}
        result |= {
            "epochs": scores["epochs"],
            "train_seconds": scores["train_seconds"],
            "parameters": count_parameters(task.model if isinstance(task, DenseTask) else trained),
            "frames": len(frames),
        }
        return result | (_probe_scores(trained, start, frames.store) if isinstance(frames, ClipFrames) else {})

    finish_training(
        running_name("pretrain_encoder"),
        task,
        params.training,
        resume_dir(encoder),
        out=encoder,
        save=save,
        metrics=metrics,
        results=results,
    )
    if is_main_process():
        rows = "inputs of the network, and below them what it has to predict"
        if not isinstance(task, DenseTask):
            rows = "two augmented views of the same frames, or of frames near each other, one below the other"
        caption = f"{views.name}, samples of the first batch: {rows}"
        report_section("Views", figure("Samples of the first batch", caption, views.read_bytes()))


def encoder_task(frames: "Frames", params: EncoderTraining, fingerprint: str) -> "EncoderTask | DenseTask":
    """Returns the training task of the params' method.

    Raises:
        MaskcastError: the method is ``none``, or its queue or parts do not match the network.
    """
    from maskcast.training.tasks.dense import DenseTask
    from maskcast.training.tasks.encoder import EncoderTask

    if isinstance(params.method, NoMethod):
        raise MaskcastError("method none trains nothing; choose another method")
    if isinstance(params.method, DenseConfig):
        assert params.network is not None  # validated by the params
        return DenseTask(frames, params, params.method, params.network, fingerprint)
    return EncoderTask(frames, params, params.method, fingerprint)


def _probe_scores(trained: "Normalised", start: "Normalised", store: "ClipStore") -> dict[str, float]:
    """Returns probe scores of the trained encoder and of its random initialisation; empty without classes."""
    from maskcast.evaluation.probe import can_probe, probe
    from maskcast.models.base import best_device

    classes = first_class_map(store.maps.values())
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
    _report_probe(scores)
    return scores


def _report_probe(scores: Mapping[str, float]) -> None:
    """Shows whether the training has helped."""
    text = (
        f"A kNN probe tells the classes apart with a mean class accuracy of {scores['knn']:.3f}, and "
        f"{scores['knn_random']:.3f} before the training."
    )
    shown: object = text
    if scores["knn"] < scores["knn_random"]:
        remedy = "The training has made this worse: train longer or on more frames, or set method: none."
        shown = element("strong", f"{text} {remedy}")
    report_section("Scores", element("p", shown))


def _draw_views(task: "EncoderTask | DenseTask", path: Path) -> None:
    """Draws sample views in rows, into a folder that still exists when the run uploads it."""
    if not is_main_process():
        return
    import numpy as np
    from PIL import Image

    views_2BHWC = task.pictures(NUM_PICTURES)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in views_2BHWC])).save(path)
    report_file(path, "encoder")
