"""pretrain_encoder: frames without labels -> an encoder that other models start from.

Legend: B samples of a batch, H height, W width, C = 3 channels (RGB).
"""

import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor, nn

from maskcast.data.augment.views import ViewParams, two_views
from maskcast.data.clip_index import evenly_spaced
from maskcast.data.clips import ClipStore
from maskcast.data.statistics import MOST_FRAMES, colour_statistics
from maskcast.data.unlabeled import ClipFrames, Frames, open_frames
from maskcast.digest import fingerprint
from maskcast.distributed import own_part
from maskcast.errors import MaskcastError
from maskcast.evaluation.probe import can_probe, probe
from maskcast.models.base import best_device, count_parameters
from maskcast.models.encoders.configs import (
    ByolConfig,
    DenseCLConfig,
    EncoderConfig,
    MethodConfig,
    MocoConfig,
    UNetEncoderConfig,
)
from maskcast.models.encoders.siamese import Normalised, Views
from maskcast.models.encoders.table import save_encoder
from maskcast.params import Params
from maskcast.progress import first_process, report_file, say
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.seed import derive, rng
from maskcast.training.finish import Scores, finish_training
from maskcast.training.schedule import SgdCosine

COLLAPSED = 0.01  # spread of a batch's embeddings; 1 is even
PICTURED = 8  # pairs of views


class NoMethod(Params):
    """Trains nothing: what starts from the encoder starts at random."""

    name: Literal["none"]


class PretrainEncoder(Params):
    """Params of pretrain_encoder."""

    model: EncoderConfig = UNetEncoderConfig()
    """Architecture and its sizes."""
    method: Annotated[MocoConfig | DenseCLConfig | ByolConfig | NoMethod, Field(discriminator="name")] = (
        DenseCLConfig()
    )
    """What is learned without labels."""
    views: ViewParams = ViewParams()
    """How the two views of a sample are made."""
    max_frame_distance: int = Field(default=0, ge=0)
    """The second view is of a frame of the same clip at most so many frames away."""
    training: SgdCosine
    """Schedule; a sample of ``batch_size`` is two views of one frame, or of two frames of a clip."""

    @model_validator(mode="after")
    def _sub_batches_fit(self) -> Self:
        if not isinstance(self.method, NoMethod):
            batch, parts = self.training.batch_size, self.method.sub_batches
            if batch % parts:
                raise ValueError(f"training.batch_size {batch} is no multiple of method.sub_batches {parts}")
            processes = self.training.processes * self.training.nodes
            if parts % processes:
                raise ValueError(f"method.sub_batches {parts} is no multiple of the {processes} processes")
            if batch // parts < 2:
                raise ValueError(f"method.sub_batches {parts} leaves one sample of {batch} a part; lower it")
        return self


@stage
def pretrain_encoder(*, unlabeled: InPath, encoder: OutPath, metrics: OutPath, params: PretrainEncoder) -> None:
    """Trains an encoder without labels on clips, or images in a folder or archive; the last weights are kept.

    Raises:
        MaskcastError: when there are no frames, an archive is damaged, the queue does not fit, training diverges
            or collapses.
    """
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
        if isinstance(frames, ClipFrames) and can_probe(frames.store):
            result |= _probed(trained, start, frames.store)
        return result

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


class EncoderTask:
    """Two views of frames drawn at random, each frame as likely as any other."""

    monitor = None

    def __init__(self, frames: Frames, params: PretrainEncoder, method: MethodConfig, fingerprint: str) -> None:
        self.frames, self.params, self.method, self.fingerprint = frames, params, method, fingerprint
        method.check(params.training.batch_size, len(frames))
        torch.manual_seed(derive(params.training.seed))
        encoder = params.model.build()
        some = map(frames.frame, evenly_spaced(len(frames), MOST_FRAMES))
        mean, std = map(torch.from_numpy, colour_statistics(some))
        self.siamese = method.build(Normalised(encoder, mean, std))
        self.model: nn.Module = self.siamese
        self._threads = ThreadPoolExecutor(frames.threads, thread_name_prefix="views")

    def batch(self, step: int) -> Views:
        """Returns this process's views: a pure function of (seed, step)."""
        size, parts = self.params.training.batch_size, self.method.sub_batches
        own = list(own_part(size))
        shuffled = rng(self.params.training.seed, step).permutation(size).reshape(parts, -1)
        order = shuffled[own_part(parts)].flatten().tolist()
        needed = sorted({*own, *order})
        pairs = dict(zip(needed, self._threads.map(partial(self._pair, step), needed), strict=True))
        own_views, shuffled_views = (
            torch.from_numpy(np.stack([pairs[k] for k in part], 1)) for part in (own, order)
        )
        return Views(own_views, shuffled_views, torch.tensor(order))

    def _pair(self, step: int, index: int) -> np.ndarray:
        """Returns both views of a sample, (2, H, W, C)."""
        random = rng(self.params.training.seed, step, index)
        drawn = int(random.integers(len(self.frames)))
        first = self.frames.frame(drawn)
        distance = self.params.max_frame_distance
        second = self.frames.near(drawn, distance, random) if distance else first
        return np.stack(two_views(first, second, self.params.views, random))

    def loss(self, batch: Views, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of a batch."""
        loss, logged = self.siamese.loss(batch, step)
        self._spread = logged["embedding_spread"]
        return loss, logged

    def validate(self) -> dict[str, float]:
        """Returns the spread of the last batch's embeddings; nothing else is known without labels.

        Raises:
            MaskcastError: if all embeddings have become one.
        """
        if self._spread < COLLAPSED:
            raise MaskcastError(
                f"pretrain_encoder: collapsed: the embeddings of a batch spread {self._spread:.2g} (1 is even, "
                f"below {COLLAPSED} is one point); lower learning_rate, raise momentum, or choose method moco"
            )
        return {"embedding_spread": self._spread}


def _probed(trained: Normalised, start: Normalised, store: ClipStore) -> dict[str, float]:
    """Returns the scores of the trained encoder and of the random one that it started as."""
    device = best_device()
    scores = probe(trained.to(device), store)
    scores |= {f"{name}_random": value for name, value in probe(start.to(device), store).items()}
    trained.to("cpu")
    say(
        f"encoder: linear probe {scores['linear_probe']:.3f} (random {scores['linear_probe_random']:.3f}), "
        f"kNN {scores['knn']:.3f} (random {scores['knn_random']:.3f}), mean class accuracy"
    )
    return scores


def _report_views(task: EncoderTask, path: Path) -> None:
    """Draws pairs of views, one above the other, into a folder that outlives the run's upload."""
    if not first_process():
        return
    views_2BHWC = task.batch(0).own[:, :PICTURED].numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in views_2BHWC])).save(path)
    report_file(path, "encoder")
