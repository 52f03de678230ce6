"""Training a forecaster, before and after fine-tuning: windows in, validation as at prediction time.

Legend: B windows, T context frames, h horizon, H height, W width; frames have colours (C = 3) as last axis.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor, nn

from maskcast.data.clip_index import evenly_spaced
from maskcast.data.clips import Clip, ClipStore
from maskcast.data.windows import WindowSampler
from maskcast.distributed import all_counts, own_part
from maskcast.errors import MaskcastError
from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.inference.forecast import Forecaster, context_source, forecast
from maskcast.models.base import count_parameters, save_model
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.baselines import baselines_of
from maskcast.models.objects.tracks import Lesson
from maskcast.params import Params
from maskcast.progress import say
from maskcast.runner.outputs import resume_dir
from maskcast.seed import rng
from maskcast.training.finish import Scores, finish_training
from maskcast.training.schedule import TrainingParams
from maskcast.training.tasks.windows import Window, layer_of


class ForecastTraining(Params):
    """What both stages that train a forecaster share."""

    training: TrainingParams
    """Schedule; a sample of ``batch_size`` is one window."""
    context_frames: int = Field(default=11, ge=1)
    """Frames seen in validation, and at most in training."""
    min_context_frames: int = Field(default=6, ge=1)
    """Frames seen at least in training."""
    horizon: int = Field(default=11, ge=1)
    """Frames forecast."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring a window left to right."""
    val_clips: int | None = Field(default=None, ge=1)
    """Validate on that many clips, spread evenly over the split; null takes all."""
    val_batch_size: int = Field(default=8, ge=1)
    """Clips forecast at once in validation."""

    @model_validator(mode="after")
    def _ordered(self) -> "ForecastTraining":
        if self.min_context_frames > self.context_frames:
            raise ValueError(
                f"min_context_frames {self.min_context_frames} is above context_frames {self.context_frames}"
            )
        return self


class ForecastTask:
    """Windows of the training clips; whole validation clips, as at prediction time.

    Args:
        model: what is trained.
        params: of the stage.
        clips: frames and true masks.
        masks: generated masks, the context of a forecaster of masks.
        target: store of a training window's future: ``masks`` or ``clips``; frames always come from ``clips``.
        train: training clips of ``target``.
        masker: turns forecast frames into masks; None for a forecaster of masks.
        fingerprint: names everything that the run depends on.

    Raises:
        MaskcastError: if there are no usable training or validation clips.
    """

    monitor = "jaccard"

    def __init__(
        self,
        model: Any,
        params: ForecastTraining,
        *,
        clips: ClipStore,
        masks: ClipStore,
        target: ClipStore,
        train: Sequence[Clip],
        masker: nn.Module | None,
        fingerprint: str,
    ) -> None:
        self.model, self.params, self.masker, self.fingerprint = model, params, masker, fingerprint
        self.clips, self.masks = clips, masks
        frames = model.input == "frames"
        self._context = layer_of(model, clips if frames else masks, train)
        self._target = layer_of(model, clips if frames else target, train)
        self._windows = WindowSampler(
            [clip.num_frames for clip in train],
            context=params.context_frames,
            min_context=params.min_context_frames,
            horizon=params.horizon,
            seed=params.training.seed,
        )
        self.val = _validation_clips(clips, params)

    def batch(self, step: int) -> tuple[Tensor | Lesson, Tensor | Lesson]:
        """Returns this process's context and target: (B, T, ...) and (B, h, ...) of what the model learns from."""
        windows = self._windows.draw(step, self.params.training.batch_size)
        middle, stop = windows.context, windows.context + windows.horizon
        context, target = [], []
        for index in own_part(len(windows.clips)):
            k, start = windows.clips[index], windows.starts[index]
            mirrored = rng(self.params.training.seed, step, index).random() < self.params.flip
            context.append(Window(k, slice(start, start + middle), mirrored))
            target.append(Window(k, slice(start + middle, start + stop), mirrored))
        return self._context.batch(context), self._target.batch(target)

    def loss(self, batch: tuple[Tensor | Lesson, Tensor | Lesson], step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of a batch and its parts; all processes draw the same steps and pixels."""
        out: tuple[Tensor, dict[str, float]] = self.model.loss(*batch)
        return out

    def validate(self) -> dict[str, float]:
        """Returns the macro Jaccard (absent classes left out) of the model's forecasts from generated context.

        ``jaccard_last`` is that of the last future frame, ``jaccard_mean`` the mean over all of them, ``jaccard``
        the mean of both.
        """
        return self.score(self.model)

    def score(self, model: Forecaster) -> dict[str, float]:
        """Returns the same for any forecaster."""
        params, device = self.params, next(self.model.parameters()).device
        masker = None if self.masker is None or model.input == "masks" else self.masker.to(device)
        source = context_source(model, self.clips, self.masks, self.val, params.context_frames)
        matrices = np.zeros((params.horizon, self.clips.num_classes, self.clips.num_classes), np.int64)
        for k in own_part(math.ceil(len(self.val) / params.val_batch_size)):
            batch = self.val[k * params.val_batch_size :][: params.val_batch_size]
            found = forecast(
                model,
                masker,
                source,
                batch,
                context_frames=params.context_frames,
                horizon=params.horizon,
                device=device,
            )
            for clip, masks_hHW in zip(batch, found.masks, strict=True):
                truth_hHW = self.clips.masks(clip)[params.context_frames :]
                for step in range(params.horizon):
                    matrices[step] += confusion(truth_hHW[step], masks_hHW[step], self.clips.num_classes)
        matrices = all_counts(matrices, self.model)
        per_step = [macro_jaccard(matrix, absent="omit") for matrix in matrices]
        last, mean = per_step[-1], float(np.mean(per_step))
        return {"jaccard": (last + mean) / 2, "jaccard_last": last, "jaccard_mean": mean}


def run(
    stage: str,
    task: ForecastTask,
    out: Path,
    config: ModelConfig,
    metrics: Path,
    extra: dict[str, float],
    before: Path | None = None,
) -> None:
    """Trains, saves the model to ``out``, and writes ``extra`` and all scores to ``metrics``.

    Args:
        stage: its name.
        task: what to train, and on what.
        out: folder for the model.
        config: it was built from.
        metrics: JSON, flat numbers.
        extra: numbers to add.
        before: the trained model that this one starts from; it is kept where no epoch is better.
    """
    params = task.params
    for name, baseline in baselines_of(task.clips, task.val).items():
        if baseline is None:
            continue
        found = task.score(baseline)
        for score in ("jaccard_last", "jaccard_mean"):
            extra[f"{name}_val_{score}"] = found[score]
        say(f"{name}: jaccard_last {found['jaccard_last']:.4f}, jaccard_mean {found['jaccard_mean']:.4f}")
    meta = {
        "classes": list(task.clips.classes),
        "context_frames": params.context_frames,
        "horizon": params.horizon,
    }

    def results(scores: Scores) -> Scores:
        windows = scores["epochs"] * params.training.steps_per_epoch * params.training.batch_size
        return {
            "val_jaccard_last": scores["jaccard_last"],
            "val_jaccard_mean": scores["jaccard_mean"],
            **extra,
            "best_epoch": scores["best_epoch"],
            "epochs": scores["epochs"],
            "train_seconds": scores["train_seconds"],
            "sequences_per_second": windows / max(scores["train_seconds"], 1e-9),
            "parameters": count_parameters(task.model),
        }

    finish_training(
        stage,
        task,
        params.training,
        resume_dir(out),
        out=out,
        save=partial(save_model, model=task.model, config=config, num_classes=task.clips.num_classes, meta=meta),
        metrics=metrics,
        results=results,
        summary="forecaster: validation Jaccard {jaccard_last:.4f} at the last frame",
        before=before,
    )


def load_masker_for(model: Any, masker: Path) -> nn.Module | None:
    """Returns the masker, frozen, where the model forecasts frames; else None."""
    if model.input == "masks":
        return None
    from maskcast.models.segmentation.table import load_masker  # takes seconds to import

    return load_masker(masker)[0].requires_grad_(False)


def _validation_clips(store: ClipStore, params: ForecastTraining) -> list[Clip]:
    found = store.select("val", "labelled")
    needed = params.context_frames + params.horizon
    if short := [clip for clip in found if clip.num_frames < needed]:
        raise MaskcastError(
            f"{store.root}: validation clip {short[0].id!r} has {short[0].num_frames} frames, "
            f"context_frames + horizon is {needed}; lower them or prepare longer clips"
        )
    return [found[k] for k in evenly_spaced(len(found), params.val_clips or len(found), ends=False)]
