"""finetune_forecaster: finetune a forecaster on true masks, with generated masks as context."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.runner.fingerprint import fingerprint
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import InPath, OutPath, running_name, stage
from maskcast.seed import seed_libraries
from maskcast.training.tasks.forecasting_params import ForecastTraining

if TYPE_CHECKING:
    from maskcast.training.tasks.forecasting import ForecastTask


class FinetuneForecaster(ForecastTraining):
    """Params of finetune_forecaster."""


@stage
def finetune_forecaster(
    *,
    clips: InPath,
    masks: InPath,
    masker: InPath,
    pretrained: InPath,
    forecaster: OutPath,
    metrics: OutPath,
    params: FinetuneForecaster,
) -> None:
    """Finetunes a pretrained forecaster on labelled clips: generated masks as context, true masks as targets.

    The loss is computed on the whole horizon, which is forecast from the context alone: the network's own states
    are carried along, and with ``feedback`` also its own forecasts.

    Clips with masks but no frames are left to ``pretrain_forecaster``, because no masks can be generated for them.
    If no epoch is better in validation, the pretrained weights are kept (``best_epoch`` 0).

    For another number of classes than in pretraining, the weights of classes are reinitialized. Training then
    starts from a forecaster that repeats the last mask, or from the pretrained motion or constant velocity if they
    are significantly better on the validation videos. An epoch must be significantly better than this start, which
    each epoch is tested for by itself: of many epochs without a gain, one may pass by chance.

    Args:
        clips: clip store.
        masks: output of ``generate_masks`` for these clips.
        masker: masker that generated the masks.
        pretrained: output of ``pretrain_forecaster``.
        forecaster: the trained forecaster.
        metrics: JSON, flat numbers.
        params: training schedule, windows and loss.

    Raises:
        MaskcastError: the stores do not match, no labelled clip can be used, or training diverges.
    """
    from maskcast.models.forecasting.table import config_of
    from maskcast.training.tasks.forecasting import train_forecaster

    task, description, count = finetuning(clips, masks, masker, pretrained, params)
    train_forecaster(
        running_name("finetune_forecaster"),
        task,
        config_of(description),
        {"clips": float(count)},
        resume=resume_dir(forecaster),
        out=forecaster,
        metrics=metrics,
        start=pretrained,
    )


def finetuning(
    clips: Path, masks: Path, masker: Path, pretrained: Path, params: FinetuneForecaster
) -> "tuple[ForecastTask, dict[str, Any], int]":
    """Returns the training task, the pretrained forecaster's description, and the number of training clips."""
    from maskcast.data.clip_store.labelled_frames import labelled_frames
    from maskcast.inference.forecast import masker_for, open_stores
    from maskcast.models.forecasting.table import adapt_forecaster, config_of
    from maskcast.training.tasks.forecasting import ForecastTask

    store, generated = open_stores(clips, masks, params.label_map)
    seed_libraries(params.training.seed)
    model, description, reinitialized = adapt_forecaster(pretrained, store.num_classes)
    if reinitialized:
        say(
            f"{pretrained}: trained on other classes: {', '.join(reinitialized)} reinitialized, other weights kept"
        )
    labelled = store.select("train", "labelled")
    train = [clip for clip in labelled if clip.has_frames or clip.id in generated]
    if not train:
        raise MaskcastError(f"{clips}: no labelled training clip has frames; prepare clips with frames")
    if missing := [clip for clip in train if clip.id not in generated]:
        raise MaskcastError(
            f"{masks}: has no generated masks of clip {missing[0].id!r}; run generate_masks on {clips}"
        )
    task = ForecastTask(
        model,
        config_of(description),
        params,
        clips=store,
        masks=generated,
        target=store,
        train=train,
        labelled=[labelled_frames(store, clip) for clip in train],
        masker=masker_for(model, masker, store),
        fingerprint=fingerprint(__name__, params, clips=clips, masks=masks, masker=masker, pretrained=pretrained),
    )
    if reinitialized:
        _choose_start(task)
    return task, description, len(train)


def _choose_start(task: "ForecastTask") -> None:
    """Sets the start of a forecaster: the last masks, or constant velocity or pretrained motion if better.

    Both this choice and the choice of the best epoch require a significant improvement.
    """
    from maskcast.training.tasks.improvement import is_significantly_better

    candidates, model = [], task.model
    starts = {
        "known motion": None,
        "constant velocity": model.reset_to_constant_velocity,
        "the last masks": model.reset_to_persistence,
    }
    for name, reset in starts.items():
        if reset is not None:
            reset()
        candidates.append((task.validate()[task.monitor], name, deepcopy(model.state_dict()), task.videos_M2))
    persistence_M2 = candidates[-1][-1]
    better = [each for each in candidates[:-1] if is_significantly_better(each[-1], persistence_M2)]
    _, chosen, weights, task.start_scores_M2 = max([*better, candidates[-1]], key=lambda each: each[0])
    model.load_state_dict(weights)
    scores_text = ", ".join(f"{name} {score:.4f}" for score, name, *_ in candidates)
    say(f"{task.monitor} in validation: {scores_text}; starting from {chosen}")
