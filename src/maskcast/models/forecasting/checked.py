"""Calls forecasters: without a gradient, and with a check of what those of other packages return.

Shapes: B clips, T context frames, h horizon, H height, W width; frames have a last axis of 3 colours.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from maskcast.errors import MaskcastError
from maskcast.models.forecasting.base import Predictor
from maskcast.plugins import class_name

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@torch.no_grad()
def forecast(model: Predictor, context: Tensor, horizon: int) -> Tensor:
    """Returns the forecast (B, h, ...) uint8 after a context (B, T, ...) uint8 (see ``Predictor.forecast``).

    Raises:
        MaskcastError: the model returns no tensor of integers in 0..255 of this shape.
    """
    return _as_bytes(model, "forecast", "", context, model.forecast(context, horizon), horizon)


@torch.no_grad()
def forecast_with_confidence(model: Predictor, context: Tensor, horizon: int) -> tuple[Tensor, Tensor | None]:
    """Returns masks (B, h, H, W) uint8 and their confidence (see ``Predictor.forecast_with_confidence``).

    Raises:
        MaskcastError: the model returns no pair, masks that are no such tensor, or a confidence that is neither
            None nor such a tensor.
    """
    if type(model).forecast_with_confidence is Predictor.forecast_with_confidence:
        return forecast(model, context, horizon), None  # so that an error names the method that exists
    method, pair = "forecast_with_confidence", cast(Any, model.forecast_with_confidence(context, horizon))
    if not isinstance(pair, Sequence) or len(pair) != 2:  # a tensor is no Sequence
        raise MaskcastError(
            f"{class_name(model)}.{method} returns {_text(pair)}; return a pair: the masks, and "
            "their confidence or None"
        )
    masks, confidence = pair
    masks = _as_bytes(model, method, "masks ", context, masks, horizon)
    if confidence is not None:
        confidence = _as_bytes(model, method, "a confidence ", context, confidence, horizon)
    return masks, confidence


@torch.no_grad()
def future(model: Predictor, context: Tensor, horizon: int, seed: int) -> Tensor:
    """Returns a drawn future (B, h, ...) uint8 after a context (B, T, ...) uint8 (see ``Predictor.future``).

    Raises:
        MaskcastError: the model returns no tensor of integers in 0..255 of this shape.
    """
    return _as_bytes(model, "future", "", context, model.future(context, horizon, seed), horizon)


def _as_bytes(model: Predictor, method: str, what: str, context: Tensor, returned: Any, horizon: int) -> Tensor:
    """Returns what a method has returned as uint8.

    Raises:
        MaskcastError: it is no tensor of integers in 0..255, or has another shape.
    """
    shape, given = (len(context), horizon, *context.shape[2:]), _text(returned)
    integers = isinstance(returned, Tensor) and returned.dtype in INTEGERS
    if integers and returned.dtype != torch.uint8 and returned.shape == shape:
        least, most = map(int, returned.aminmax())
        given, integers = f"values in {least}..{most}", 0 <= least <= most <= 255
    if not integers or returned.shape != shape:
        scale = ", 255 for a certain pixel" if "confidence" in what else ""
        raise MaskcastError(f"{class_name(model)}.{method} returns {what}{given}; return uint8 {shape}{scale}")
    as_bytes: Tensor = returned.to(torch.uint8)
    return as_bytes


def _text(returned: object) -> str:
    """Returns type and shape of a tensor, or else the type."""
    if isinstance(returned, Tensor):
        return f"{str(returned.dtype).removeprefix('torch.')} {tuple(returned.shape)}"
    return type(returned).__name__
