"""pretrain_forecaster: train a forecaster on generated masks or on frames."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.errors import MaskcastError
from maskcast.models.forecasting.configs import ForecasterConfig, ObjectsConfig
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.runner.fingerprint import fingerprint
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import InPath, OutPath, running_name, stage
from maskcast.seed import seed_libraries
from maskcast.training.tasks.forecasting_params import ForecastTraining

if TYPE_CHECKING:
    from maskcast.training.tasks.forecasting import ForecastTask

SPLITS = ("train", "unlabeled")


class PretrainForecaster(ForecastTraining):
    """Params of pretrain_forecaster."""

    model: ForecasterConfig = ObjectsConfig()
    """Architecture and its sizes, and whether it forecasts masks or frames."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """Leaves out clips whose generated masks have a mean confidence below this."""


@stage
def pretrain_forecaster(
    *,
    clips: InPath,
    masks: InPath,
    masker: InPath,
    pretrained: OutPath,
    metrics: OutPath,
    params: PretrainForecaster,
) -> None:
    """Trains a forecaster on generated masks of the train and unlabeled splits; labels are for validation only.

    Clips of the train split with masks but no frames, such as simulated motion, are used as they are. A model that
    moves objects is initialised at constant velocity. Validation forecasts the labelled clips of the val split
    from generated masks; the best epoch is kept.

    Args:
        clips: clip store.
        masks: output of ``generate_masks`` for these clips.
        masker: masker that generated the masks.
        pretrained: the trained forecaster.
        metrics: JSON, flat numbers.
        params: architecture, training schedule, windows and loss.

    Raises:
        MaskcastError: the stores do not match, no clip is left to train on, or training diverges.
    """
    from maskcast.training.tasks.forecasting import train_forecaster

    task, counts = pretraining(clips, masks, masker, params)
    train_forecaster(
        running_name("pretrain_forecaster"),
        task,
        params.model,
        counts,
        resume=resume_dir(pretrained),
        out=pretrained,
        metrics=metrics,
    )


def pretraining(
    clips: Path, masks: Path, masker: Path, params: PretrainForecaster
) -> "tuple[ForecastTask, dict[str, float]]":
    """Returns the training task, and the numbers of training clips and of clips left out."""
    from maskcast.inference.forecast import masker_for, open_stores
    from maskcast.models.forecasting.table import build_forecaster
    from maskcast.training.tasks.forecasting import ForecastTask
    from maskcast.training.tasks.forecasting_masks import KnownMasks

    store, generated = open_stores(clips, masks, params.label_map)
    train, left_out = _confident(generated, store, params.min_confidence)
    seed_libraries(params.training.seed)
    model = build_forecaster(params.model, store.num_classes)
    model.reset_to_constant_velocity()  # a better start than objects at rest
    known = KnownMasks(generated, store)
    without_frames_clips = [] if model.input.needs_masker else list(known.alone.values())
    train += without_frames_clips
    source = model.input.source(store, known)
    model.prepare(source, [source.get(clip.id) for clip in train])
    task = ForecastTask(
        model,
        params.model,
        params,
        clips=store,
        masks=known,
        target=known,
        train=train,
        labelled=[known.known_frames(clip) for clip in train],
        masker=masker_for(model, masker, store),
        fingerprint=fingerprint(__name__, params, clips=clips, masks=masks, masker=masker),
    )
    without_frames = f", {len(without_frames_clips)} of them masks without frames" if without_frames_clips else ""
    left_out_text = f"; {left_out} left out, below min_confidence {params.min_confidence:g}" if left_out else ""
    say(f"{pluralize(len(train), 'clip')} to train on{without_frames}{left_out_text}")
    return task, {"clips": float(len(train)), "clips_left_out": float(left_out)}


def _confident(masks: ClipStore, store: ClipStore, min_confidence: float) -> tuple[list[Clip], int]:
    """Returns the clips of the training splits with sufficient confidence, and the number of less confident ones.

    Clips without masks do not count; the clips themselves, passed as their masks, may have some.

    Raises:
        MaskcastError: there are none, or a clip has another split in the clip store, e.g. that of validation.
    """
    candidates = [clip for clip in masks.clips if clip.split in SPLITS and masks.has_masks(clip)]
    for clip in candidates:
        if clip.id in store and (split := store.get(clip.id).split) not in SPLITS:
            raise MaskcastError(
                f"{masks.root}: clip {clip.id!r} has split {clip.split!r}, but split {split!r} in {store.root}; "
                "run generate_masks on these clips again"
            )
    kept = [clip for clip in candidates if clip.meta.get("mean_confidence", 1.0) >= min_confidence]
    if not kept:
        raise MaskcastError(
            f"{masks.root}: no clip of the splits {' and '.join(SPLITS)} has a mean confidence "
            f"of min_confidence = {min_confidence:g} or more; lower it or train a better masker"
        )
    return kept, len(candidates) - len(kept)
