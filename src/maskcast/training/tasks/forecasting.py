"""Trains and fine-tunes a forecaster on windows of clips; validation forecasts as at prediction time.

Legend: B windows, T context frames, h horizon, H height, W width; frames have C = 3 colours as last axis.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.data.augment.mirror import check_swaps_of_one_map
from maskcast.data.clip_store.frame_index import in_batches, spread
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.trained_frames import hashes_of_scored, hashes_of_trained
from maskcast.distributed import all_gather, all_reduce_counts, rank_indices
from maskcast.dry_run_notes import is_dry_run
from maskcast.errors import MaskcastError
from maskcast.evaluation.horizons import HorizonCounts
from maskcast.evaluation.metrics import foreground_jaccard, foreground_text, jaccard_of_frames, mean_where_labelled
from maskcast.inference.forecast import ForecastSetting, check_consistent_frames, forecast_clips
from maskcast.labels import MASK
from maskcast.models.base import count_parameters, device_of, save_model
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.base import Forecaster, Predictor
from maskcast.models.forecasting.baselines import baselines_of
from maskcast.models.forecasting.batches import Batch, Window
from maskcast.models.forecasting.table import build_forecaster
from maskcast.models.rebuilding import check_rebuilt
from maskcast.models.segmentation.base import Segmenter
from maskcast.plugins import class_name, is_plugin
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.seed import rng
from maskcast.training.finish import Scores, finish_training
from maskcast.training.step_metrics import STEP_NUMBERS, Logged
from maskcast.training.task import Task
from maskcast.training.tasks.forecasting_params import ForecastTraining
from maskcast.training.tasks.forecasting_windows import WindowSampler
from maskcast.training.tasks.improvement import is_significantly_better, scores_by_video

FOREGROUND = "jaccard_last_no_background"  # reported if there is one class besides the background
SCORES = ("jaccard_last", "jaccard_mean", FOREGROUND)
UNTRAINED = ("persistence", "constant_velocity")  # baselines without training that a forecaster should surpass


class ForecastTask(Task):
    """Trains on windows of the training clips; validates on whole clips, as at prediction time.

    Args:
        model: to train.
        config: of the model.
        params: of the stage.
        clips: store of frames and true masks.
        masks: store of generated masks.
        target: store of the target masks of training windows: ``masks`` or ``clips``.
        train: the training clips in ``target``.
        labelled: the labelled frames of each training clip in ``target``; None if all are.
        masker: segments forecast frames; None if the model forecasts masks.
        fingerprint: identifies everything that the run depends on.

    Raises:
        MaskcastError: if there are no usable training or validation clips, or context masks were made with later
            frames.
    """

    model: Forecaster
    monitor = "jaccard"

    def __init__(
        self,
        model: Forecaster,
        config: ModelConfig,
        params: ForecastTraining,
        *,
        clips: ClipStore,
        masks: ClipStore,
        target: ClipStore,
        train: Sequence[Clip],
        masker: Segmenter | None,
        fingerprint: str,
        labelled: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.model, self.params, self.masker, self.fingerprint = model, params, masker, fingerprint
        self.config, self.clips, self.masks = config, clips, masks
        if not model.input.needs_masker:
            check_consistent_frames(masks, params.context_frames)
        if params.flip and not model.input.needs_masker:
            check_swaps_of_one_map(clips.label_map, clips.mirror_swaps, str(clips.root))
            if masks.mirror_swaps != clips.mirror_swaps:
                raise MaskcastError(
                    f"{masks.root}: mirror_swaps differ from those of {clips.root}; run generate_masks on these "
                    "clips again, or set flip to 0"
                )
        context_store, target_store = (model.input.source(clips, store) for store in (masks, target))
        self._train = [clips.get(clip.id) for clip in train if clip.id in clips]
        self._context = model.batch_source(context_store, [context_store.get(clip.id) for clip in train])
        self._target = self._context  # one source, so that the tracks of a clip are computed once
        if target_store is not context_store:
            target_clips = [target_store.get(clip.id) for clip in train]
            self._target = model.target_source(target_store, target_clips, context_store)
        self._windows = WindowSampler(
            [clip.num_frames for clip in train],
            context=params.context_frames,
            min_context=params.min_context_frames,
            horizon=params.horizon,
            seed=params.training.seed,
            labelled=None if model.input.needs_masker else labelled,
        )
        self.val = _validation_clips(clips, params)
        self.start_scores_M2: np.ndarray | None = None
        """Scores of the validation videos with the initial weights, which only surely better weights replace."""

    @property
    def same_each_step(self) -> bool:
        """Whether a step can be recorded (``models/cuda_graphs.py``)."""
        return self.model.same_each_step

    def batch(self, step: int) -> tuple[Batch, Batch]:
        """Returns this process's context (B, T, ...) and target (B, h, ...)."""
        windows = self._windows.draw(step, self.params.training.batch_size)
        middle, stop = windows.context, windows.context + windows.horizon
        context, target = [], []
        for index in rank_indices(len(windows.clips)):
            k, start = windows.clips[index], windows.starts[index]
            mirrored = rng(self.params.training.seed, step, index).random() < self.params.flip
            context.append(Window(k, slice(start, start + middle), mirrored))
            target.append(Window(k, slice(start + middle, start + stop), mirrored))
        return self._context.batch(context), self._target.batch(target)

    def loss(self, batch: tuple[Batch, Batch], step: int) -> tuple[Tensor, Logged]:
        """Returns the loss of a batch and its terms; all processes draw the same steps and pixels.

        Raises:
            MaskcastError: the forecaster, which may be of another package, returns something else.
        """
        returned: Any = self.model.loss(*batch)
        is_pair = isinstance(returned, Sequence) and len(returned) == 2 and isinstance(returned[1], Mapping)
        if not is_pair or not isinstance(returned[0], Tensor) or returned[0].numel() != 1:
            raise MaskcastError(
                f"{class_name(self.model)}.loss must return a pair: the loss, a tensor of one number, and a "
                "dict of its terms, which may be empty"
            )
        loss, terms = returned
        for name, value in terms.items():
            number = isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
            if not number or not isinstance(name, str) or name in STEP_NUMBERS:
                given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise MaskcastError(
                    f"{class_name(self.model)}.loss returns a term {name!r} ({given}); terms are numbers or "
                    f"tensors of one number, under names other than {', '.join(STEP_NUMBERS)}"
                )
        return loss.reshape(()), {
            name: value.detach().reshape(()) if isinstance(value, Tensor) else float(value)
            for name, value in terms.items()
        }

    def validate(self) -> dict[str, float]:
        """Returns the macro Jaccard (absent classes left out) of forecasts from generated context masks.

        ``jaccard_last`` is that of the last future frame, ``jaccard_mean`` the mean over all future frames, and
        ``jaccard`` the mean of both. Future frames that are labelled in no clip do not count. With one class
        besides the background, ``jaccard_last_no_background`` is the Jaccard of that class.
        """
        scores, self.videos_M2 = self._evaluate(self.model)
        return scores

    def score(self, model: Predictor) -> dict[str, float]:
        """Returns the scores of ``validate`` for any forecaster."""
        return self._evaluate(model)[0]

    def improves_on_start(self) -> bool:
        """Whether the model, as last validated, is surely better than the initial weights."""
        return self.start_scores_M2 is None or is_significantly_better(self.videos_M2, self.start_scores_M2)

    def frame_hashes(self, split: Literal["train", "val"]) -> Sequence[np.ndarray]:
        """Returns hashes (N,) of frames of each training clip, or of each validation clip."""
        if split == "train":
            return hashes_of_trained(self.clips, self._train)
        return hashes_of_scored(self.clips, self.val)

    def check_rebuilt(self) -> None:
        """Checks what a forecaster of another package is when it is built anew: it forecasts a validation clip."""
        if not is_plugin(self.config):
            return
        setting = self._setting(self.model.eval())

        def forecast(model: nn.Module) -> list[Tensor]:
            assert isinstance(model, Forecaster)
            ((_, made),) = forecast_clips(model, setting, self.clips, self.masks, [self.val[:1]])
            layers = [made.masks, made.confidence, made.frames]
            return [torch.from_numpy(layer) for layer in layers if layer is not None]

        rebuild = partial(build_forecaster, self.config, self.clips.num_classes)
        check_rebuilt(self.model, self.config, rebuild, forecast)

    def _setting(self, model: Predictor) -> ForecastSetting:
        """Returns the settings of the validation's forecasts."""
        device = device_of(self.model)
        masker = self.masker.to(device) if self.masker is not None and model.input.needs_masker else None
        return ForecastSetting(masker, self.params.context_frames, self.params.horizon, device)

    def _evaluate(self, model: Predictor) -> tuple[dict[str, float], np.ndarray]:
        """Returns the scores, and the mean ``jaccard`` and ``jaccard_last`` of the clips of each video (M, 2).

        If all clips are of one video, each clip counts as a video.
        """
        params, setting = self.params, self._setting(model)
        batches = in_batches(self.val, params.val_batch_size)
        own_batches = [batches[k] for k in rank_indices(len(batches))]
        counts = HorizonCounts(self.clips.num_classes, params.horizon)
        own_steps: list[tuple[str, str, list[float]]] = []
        for batch, forecast in forecast_clips(model, setting, self.clips, self.masks, own_batches):
            for clip, masks_hHW in zip(batch, forecast.masks, strict=True):
                truth_hHW = self.clips.masks(clip)[params.context_frames :][: params.horizon]
                per_step = jaccard_of_frames(counts.count(truth_hHW, masks_hHW))
                own_steps.append((clip.video, clip.id, per_step))
        counts.matrix_hKK = all_reduce_counts(counts.matrix_hKK, device_of(self.model))
        if not counts.foreground:
            raise MaskcastError(
                f"{self.clips.root}: no future frame of the validation clips has foreground in its true masks, so "
                "forecasters cannot be compared; add clips with foreground to split val"
            )
        last, mean = counts.per_horizon()[counts.last], counts.mean()
        scores = {"jaccard": (last + mean) / 2, "jaccard_last": last, "jaccard_mean": mean}
        if one_class := foreground_jaccard(counts.matrix_hKK[counts.last]):
            scores[FOREGROUND] = one_class["jaccard_no_background"]
        by_clip = [
            (video, clip, (per_step[counts.last] + mean_where_labelled(per_step)) / 2, per_step[counts.last])
            for video, clip, per_step in own_steps
        ]
        return scores, scores_by_video(all_gather(by_clip))


def train_forecaster(
    name: str,
    task: ForecastTask,
    config: ModelConfig,
    clip_counts: Mapping[str, float],
    *,
    resume: Path,
    out: Path,
    metrics: Path,
    start: Path | None = None,
) -> None:
    """Trains a forecaster and writes model, learning curve and metrics (see ``finish_training``).

    Args:
        name: of the stage.
        task: model and data.
        config: of the model.
        clip_counts: numbers of training clips used and left out, for the metrics.
        resume: folder for the checkpoint.
        out: folder for the model.
        metrics: JSON file of flat numbers.
        start: folder of the trained model to start from; its weights are kept if no epoch is better.
    """
    params = task.params
    baselines = _baseline_scores(task)
    say(f"validation keeps the epoch with the best {task.monitor}, the mean of jaccard_last and jaccard_mean")
    label_map = task.clips.label_map.name
    meta = {
        "classes": list(task.clips.classes),
        **({} if label_map == MASK else {"label_map": label_map}),  # MASK is the default, so it is not written
        "context_frames": params.context_frames,
        "horizon": params.horizon,
    }

    def results(scores: Scores) -> Scores:
        windows = scores["epochs"] * params.training.steps_per_epoch * params.training.batch_size
        return {
            **{f"val_{name}": scores[name] for name in SCORES if name in scores},
            **clip_counts,
            **baselines,
            "best_epoch": scores["best_epoch"],
            "epochs": scores["epochs"],
            "train_seconds": scores["train_seconds"],
            "sequences_per_second": windows / max(scores["train_seconds"], 1e-9),
            "parameters": count_parameters(task.model),
        }

    def summary(scores: Scores) -> str:
        jaccard = f"{scores['jaccard_last']:.4f}{foreground_text(scores, FOREGROUND)}"
        return f"forecaster: validation Jaccard {jaccard} at the last frame"

    scores = finish_training(
        name,
        task,
        params.training,
        resume,
        out=out,
        save=partial(save_model, model=task.model, config=config, num_classes=task.clips.num_classes, meta=meta),
        metrics=metrics,
        results=results,
        summary=summary,
        start=start,
    )
    best_score, best_name = max((baselines.get(f"{name}_val_jaccard_last", -1.0), name) for name in UNTRAINED)
    if not is_dry_run() and scores["jaccard_last"] <= best_score:
        remedy = "train longer or on more clips"
        if not task.model.learns_masks:
            remedy = (
                "training does not change the masks of this forecaster, so try another, e.g. "
                "pretrain_forecaster.model.arch: objects (docs/forecasting.md)"
            )
        say(
            f"warning: the untrained baseline {best_name} scores {best_score:.4f}; {remedy}, or check the masks: "
            "forecasts cannot be better than them"
        )


def _baseline_scores(task: ForecastTask) -> dict[str, float]:
    """Returns the validation scores of the baselines that apply to these clips, by metric name."""
    scores: dict[str, float] = {}
    for name, baseline in baselines_of(task.clips, task.val).items():
        baseline_scores = task.score(baseline)
        reported = {score: baseline_scores[score] for score in SCORES if score in baseline_scores}
        scores |= {f"{name}_val_{score}": value for score, value in reported.items()}
        say(f"{name}: {', '.join(f'{score} {value:.4f}' for score, value in reported.items())}")
    return scores


def _validation_clips(store: ClipStore, params: ForecastTraining) -> list[Clip]:
    clips = store.select("val", "labelled")
    needed = params.context_frames + params.horizon
    for clip in clips:
        if clip.num_frames < needed:
            raise MaskcastError(
                f"{store.root}: validation clip {clip.id!r} has {pluralize(clip.num_frames, 'frame')}, "
                f"context_frames + horizon is {needed}; lower them in each section that has them, or prepare "
                "longer clips"
            )
    return spread(clips, params.val_clips or len(clips), ends=False)
