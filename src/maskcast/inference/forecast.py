"""Runs a forecaster on the clips of a store, from what is known when one forecasts: generated masks or frames.

Legend: B clips, T context frames, h horizon, N frames, H height, W width, C = 3 channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.data.clips import Clip, ClipStore
from maskcast.errors import MaskcastError
from maskcast.inference.segment import predict_masks, quantise
from maskcast.labels import IGNORE
from maskcast.models.forecasting.table import load_forecaster

Context = Literal["generated", "truth"]


class Forecaster(Protocol):
    """What trained forecasters and baselines have in common."""

    input: str

    def forecast(self, context: Tensor, horizon: int) -> Tensor:
        """Continues (B, T, H, W) uint8 masks or (B, T, H, W, C) uint8 frames by `horizon` of the same."""
        ...


@runtime_checkable
class ConfidentForecaster(Forecaster, Protocol):
    """A forecaster of masks that knows how sure it is."""

    def forecast_with_confidence(self, context: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns what `forecast` does, and the probability of each pixel's class as uint8, 255 = 1."""
        ...


@dataclass(frozen=True)
class Forecast:
    """What was forecast, uint8: masks (B, h, H, W), how sure they are, and frames of a forecaster of frames."""

    masks: np.ndarray
    confidence: np.ndarray | None = None  # (B, h, H, W), 255 = certain; baselines have none
    frames: np.ndarray | None = None  # (B, h, H, W, C)


def check_stores(clips: ClipStore, masks: ClipStore) -> None:
    """Makes sure that two stores speak of the same classes and size.

    Raises:
        MaskcastError: naming both stores and what differs.
    """
    for what in ("classes", "height", "width"):
        ours, theirs = getattr(clips, what), getattr(masks, what)
        if ours != theirs:
            told = f"{len(ours)} and {len(theirs)}" if what == "classes" else f"{ours} and {theirs}"
            raise MaskcastError(
                f"{masks.root}: its {what} differ from those of {clips.root} ({told}); "
                "run generate_masks on these clips again"
            )


def load_models(
    forecaster: Path, masker: Path, clips: ClipStore, device: torch.device
) -> tuple[Any, nn.Module | None]:
    """Loads a forecaster and, where it forecasts frames, the masker that turns them into masks.

    Raises:
        MaskcastError: a model is malformed or was trained for another number of classes than `clips` has.
    """
    model, description = load_forecaster(forecaster)
    _check_classes(forecaster, description, clips)
    if model.input == "masks":
        return model.to(device), None
    from maskcast.models.segmentation.table import load_masker  # takes seconds to import

    masking, description = load_masker(masker)
    _check_classes(masker, description, clips)
    return model.to(device), masking.to(device)


def context_source(
    forecaster: Forecaster, clips: ClipStore, masks: ClipStore | None, chosen: Sequence[Clip], frames: int
) -> ClipStore:
    """Returns the store that the context of `chosen` is read from, after checking that it is all there.

    Args:
        forecaster: tells by `input` whether it wants masks or frames.
        clips: the prepared clips.
        masks: the generated masks, or None to read the true ones of `clips`.
        chosen: clips of `clips`.
        frames: context frames.

    Raises:
        MaskcastError: naming the first clip that lacks frames, masks or length.
    """
    source = clips if forecaster.input == "frames" or masks is None else masks
    for clip in chosen:
        if source is masks and clip.id not in source:
            raise MaskcastError(
                f"{source.root}: has no generated masks of clip {clip.id!r}; run generate_masks on {clips.root}"
            )
        found = source.get(clip.id)
        if not (found.has_frames if forecaster.input == "frames" else source.has_masks(found)):
            raise MaskcastError(
                f"{source.root}: clip {clip.id!r} has no {forecaster.input}, which this forecaster starts from; "
                "prepare clips that have them or use another forecaster"
            )
        if found.num_frames < frames:
            raise MaskcastError(
                f"{source.root}: clip {clip.id!r} has {found.num_frames} frames, the context needs {frames}; "
                "lower context_frames or prepare longer clips"
            )
    return source


def forecast(
    forecaster: Forecaster,
    masker: nn.Module | None,
    source: ClipStore,
    batch: Sequence[Clip],
    *,
    context_frames: int,
    horizon: int,
    device: torch.device,
) -> Forecast:
    """Forecasts one batch of clips; the frames that a forecaster of frames returns go through `masker`."""
    layer = source.frames if forecaster.input == "frames" else source.masks
    context = torch.from_numpy(np.stack([layer(source.get(clip.id))[:context_frames] for clip in batch])).to(
        device
    )
    if forecaster.input == "masks":
        context = context.masked_fill(context == IGNORE, 0)
        if not isinstance(forecaster, ConfidentForecaster):
            return Forecast(forecaster.forecast(context, horizon).cpu().numpy())
        masks, confidence = forecaster.forecast_with_confidence(context, horizon)
        return Forecast(masks.cpu().numpy(), confidence.cpu().numpy())
    assert masker is not None
    frames = forecaster.forecast(context, horizon).cpu().numpy()
    masked = [predict_masks(masker, frames_hHWC, "fp32") for frames_hHWC in frames]
    sure = np.stack([quantise(confidence, 256) for _, confidence in masked])
    return Forecast(np.stack([masks for masks, _ in masked]), sure, frames)


def _check_classes(folder: Path, description: dict[str, Any], clips: ClipStore) -> None:
    if description["num_classes"] != clips.num_classes:
        raise MaskcastError(
            f"{folder}: was trained for {description['num_classes']} classes, "
            f"{clips.root} has {clips.num_classes}; "
            "train it on these clips or give the clips it was trained on"
        )
