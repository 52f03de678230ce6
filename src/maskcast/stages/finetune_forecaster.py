"""finetune_forecaster: labelled clips, masked by the frozen masker -> a forecaster finetuned on true masks."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.runner.fingerprint import fingerprint
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import InPath, OutPath, running_name, stage
from maskcast.seed import derive
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
    """Finetunes a pretrained forecaster on labelled clips: generated context, true targets.

    The whole horizon is forecast from the context alone, the network's own states (with ``feedback``, its own
    forecasts too) carried along, and the loss is taken on that.

    Clips that have masks and no frames are left to ``pretrain_forecaster``: nothing can be generated of them.
    Where no epoch is better in validation, the pretrained weights are kept (``best_epoch`` 0).

    A forecaster that was pretrained for another number of classes learns the classes anew. It begins from the
    last seen mask, unless what it learned of motion, or constant velocity, forecasts the validation videos better
    by more than their spread explains; and an epoch counts only where it is better than that start by as much.

    Args:
        clips: the clip store.
        masks: what ``generate_masks`` wrote for these clips.
        masker: the masker that made the masks.
        pretrained: what ``pretrain_forecaster`` wrote.
        forecaster: the trained forecaster.
        metrics: JSON, flat numbers.
        params: how to train.

    Raises:
        MaskcastError: when the stores do not fit, no labelled clip is there, or training diverges.
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
    """Returns what is trained, the description of what it was before, and the number of clips to learn from."""
    import torch

    from maskcast.inference.forecast import masker_for, open_stores
    from maskcast.models.forecasting.table import adapt_forecaster
    from maskcast.training.tasks.forecasting import ForecastTask

    store, generated = open_stores(clips, masks, params.label_map)
    torch.manual_seed(derive(params.training.seed))
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
        params,
        clips=store,
        masks=generated,
        target=store,
        train=train,
        masker=masker_for(model, masker, store),
        fingerprint=fingerprint(params, clips=clips, masks=masks, masker=masker, pretrained=pretrained),
    )
    if reinitialized:
        _choose_start(task)
    return task, description, len(train)


def _choose_start(task: "ForecastTask") -> None:
    """Lets a forecaster begin from the last masks, or from what is surely better: constant velocity, known motion.

    An epoch must surely surpass that start, too.
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
    better = [one for one in candidates[:-1] if is_significantly_better(one[-1], persistence_M2)]
    _, chosen, weights, task.start_scores_M2 = max([*better, candidates[-1]], key=lambda one: one[0])
    model.load_state_dict(weights)
    scores_text = ", ".join(f"{name} {score:.4f}" for score, name, *_ in candidates)
    say(f"{task.monitor} in validation: {scores_text}; starting from {chosen}")
