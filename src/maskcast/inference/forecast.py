"""Runs a forecaster on the clips of a store, from context that is available in use: generated masks or frames.

Legend: B clips, T context frames, h horizon, N frames, H height, W width, C = 3 channels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from maskcast.data.clip_store.instances import ObjectClasses
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.errors import MaskcastError
from maskcast.inference.consistent_frames import later_frames_text
from maskcast.inference.predicted_objects import PredictedObjects
from maskcast.inference.predictions import quantise
from maskcast.inference.segment import segment_future
from maskcast.inference.worker import Worker
from maskcast.labels import MASK, MIRROR_SWAPS
from maskcast.models.forecasting import checked
from maskcast.models.forecasting.base import Forecaster, Predictor
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.base import Segmenter
from maskcast.reading import pluralize

Context = Literal["generated", "truth"]


@dataclass(frozen=True)
class BatchForecast:
    """Forecasts, uint8: masks (B, h, H, W), their confidence, and frames if the forecaster makes them."""

    masks: np.ndarray
    confidence: np.ndarray | None = None  # (B, h, H, W), 255 = certain; baselines have none
    frames: np.ndarray | None = None  # (B, h, H, W, C)


@dataclass(frozen=True)
class ForecastSetting:
    """The settings of forecasting.

    Args:
        masker: segments forecast frames; may be None for forecasters of masks.
        context_frames: number of context frames.
        horizon: number of frames to forecast.
        device: of the models.
    """

    masker: Segmenter | None
    context_frames: int
    horizon: int
    device: torch.device


def open_stores(clips: Path, masks: Path, label_map: str | None) -> tuple[ClipStore, ClipStore]:
    """Opens a clip store and the store of its generated masks, both with the label map to forecast.

    A map of kind instances is read as one with a class per object (``clip_store.instances``). The objects of
    generated masks come from their map of instances, or else are the connected parts of their classes. Generated
    masks that do not say what a flip swaps swap what the clips do.

    Args:
        clips: written by prepare_clips.
        masks: written by generate_masks for these clips.
        label_map: name of the map; None for the only one.

    Raises:
        MaskcastError: a store lacks the map, the map cannot be forecast, or the stores do not match.
    """
    prepared = ClipStore(clips, label_map)
    forecast_map = prepared.label_map
    if forecast_map.kind == "alpha":
        raise MaskcastError(
            f"{clips}: label map {forecast_map.name!r} has kind {forecast_map.kind}, which forecasters "
            "do not support; set label_map to a map of kind classes or instances"
        )
    instances = forecast_map.kind == "instances"
    prepared, generated = prepared.of(forecast_map.name), ClipStore(masks, None if instances else label_map)
    if instances:
        prepared = ObjectClasses(prepared)
        same_store = generated.digest == prepared.digest
        generated = prepared if same_store else PredictedObjects(generated, prepared)
    else:
        generated = generated.of(generated.label_map.name)
    for key in ("classes", "height", "width"):
        expected, got = getattr(prepared, key), getattr(generated, key)
        if expected != got:
            values = f"{len(expected)} and {len(got)}" if key == "classes" else f"{expected} and {got}"
            raise MaskcastError(
                f"{masks}: {key} differ from those of {clips} ({values}); run generate_masks on these clips again"
            )
    if MIRROR_SWAPS in prepared.meta:
        generated.meta.setdefault(MIRROR_SWAPS, prepared.meta[MIRROR_SWAPS])
    return prepared, generated


def check_consistent_frames(masks: ClipStore, context_frames: int) -> None:
    """Checks that generated masks of the context were made without later frames.

    Raises:
        MaskcastError: a window of consistent frames extends beyond the context's end.
    """
    if text := later_frames_text(masks.meta.get("consistent_frames"), context_frames):
        raise MaskcastError(f"{masks.root}: made with {text}")


def load_models(
    forecaster: Path, masker: Path, clips: ClipStore, device: torch.device
) -> tuple[Forecaster, Segmenter | None]:
    """Loads a forecaster and, if it forecasts frames, the masker for these.

    Raises:
        MaskcastError: a model is malformed, or lacks the label map of `clips` or has another number of classes.
    """
    model, description = load_forecaster(forecaster)
    trained_map, wanted_map = description["meta"].get("label_map", MASK), clips.label_map.name
    if trained_map != wanted_map:
        raise MaskcastError(
            f"{forecaster}: label map is {trained_map!r}, expected {wanted_map!r} of {clips.root}; "
            "set label_map to another map or train a forecaster for this one"
        )
    _check_classes(forecaster, description["num_classes"], clips)
    masker_model = masker_for(model, masker, clips)
    return model.to(device), None if masker_model is None else masker_model.to(device)


def masker_for(model: Predictor, folder: Path, clips: ClipStore) -> Segmenter | None:
    """Returns the masker if the model's forecasts need one, else None.

    Raises:
        MaskcastError: it is malformed, or lacks the label map of `clips` or has another number of classes.
    """
    if not model.input.needs_masker:
        return None
    from maskcast.models.segmentation.table import load_masker, map_index  # takes seconds to import

    masker, _ = load_masker(folder)
    remedy = f"set label_map to one of these or train a masker on {clips.root}"
    place = map_index(folder, masker, clips.label_map.name, remedy)
    _check_classes(folder, masker.maps[place].num_classes, clips)
    return masker


def forecast_clips(
    model: Predictor,
    setting: ForecastSetting,
    clips: ClipStore,
    masks: ClipStore,
    batches: Sequence[Sequence[Clip]],
) -> Iterator[tuple[Sequence[Clip], BatchForecast]]:
    """Checks that all clips have a context, and returns an iterator over the forecasts of each batch.

    Args:
        model: a forecaster or a baseline.
        setting: settings of forecasting.
        clips: the prepared clips.
        masks: store of the context masks: generated ones, or ``clips`` for the true ones.
        batches: clips of ``clips``.

    Raises:
        MaskcastError: a clip lacks frames or masks, or is too short; the message names the first one.
    """
    source = model.input.source(clips, masks)
    for clip in (clip for batch in batches for clip in batch):
        _check_context(model, clips, source, clip, setting.context_frames)
    worker = None if setting.masker is None else Worker(setting.masker, "fp32")
    return ((batch, _forecast(model, setting, source, batch, worker)) for batch in batches)


def _forecast(
    model: Predictor, setting: ForecastSetting, source: ClipStore, batch: Sequence[Clip], worker: Worker | None
) -> BatchForecast:
    context_slice = slice(setting.context_frames)
    context_BT = np.stack([model.input.read(source, source.get(clip.id), context_slice) for clip in batch])
    context = torch.from_numpy(context_BT).to(setting.device)
    if not model.input.needs_masker:
        masks, confidence = checked.forecast_with_confidence(model, context, setting.horizon)
        return BatchForecast(masks.cpu().numpy(), None if confidence is None else confidence.cpu().numpy())
    assert worker is not None
    frames = checked.forecast(model, context, setting.horizon).cpu().numpy()
    name = source.label_map.name
    masked = [
        segment_future(worker, *context_and_forecast, batch_size=setting.horizon)[name]
        for context_and_forecast in zip(context_BT, frames, strict=True)
    ]
    confidences = np.stack([quantise(one.confidence, 256) for one in masked if one.confidence is not None])
    return BatchForecast(np.stack([one.masks for one in masked]), confidences, frames)


def _check_context(model: Predictor, clips: ClipStore, source: ClipStore, clip: Clip, frames: int) -> None:
    if source is not clips and clip.id not in source:
        raise MaskcastError(
            f"{source.root}: has no generated masks of clip {clip.id!r}; {clips.remedy_without_masks(clip)}"
        )
    context_clip = source.get(clip.id)
    if not model.input.is_in(source, context_clip):
        raise MaskcastError(
            f"{source.root}: clip {clip.id!r} has no {model.input}, which this forecaster needs; "
            "prepare clips with them or use another forecaster"
        )
    if context_clip.num_frames < frames:
        raise MaskcastError(
            f"{source.root}: clip {clip.id!r} has {pluralize(context_clip.num_frames, 'frame')}, the context "
            f"needs {frames}; lower context_frames in each section that has it, or prepare longer clips"
        )


def _check_classes(folder: Path, num_classes: int, clips: ClipStore) -> None:
    if num_classes != clips.num_classes:
        raise MaskcastError(
            f"{folder}: was trained for {num_classes} classes, {clips.root} has {clips.num_classes}; "
            "train it on these clips or use the clips it was trained on"
        )
