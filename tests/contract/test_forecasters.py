"""What every forecaster in the table must do, whatever its architecture."""

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from maskcast.models.base import save_model
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.baselines import ConstantVelocity, Persistence
from maskcast.models.forecasting.table import ForecasterConfig, load_forecaster
from maskcast.models.objects.tracks import Lesson, pack_tracks, stack_tracks

CLASSES = 4
ARCHITECTURES: list[type[ModelConfig]] = list(get_args(get_args(ForecasterConfig)[0]))
SMALL: dict[str, Any] = {"hidden": 8, "stride": 4, "loss_stride": 1}
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "plain": {"motion": "none"},
    "two-layers": {"layers": 2, "stride": 8},
    "frames": {"input": "frames"},
}
CASES = [
    pytest.param(
        arch(**{key: value for key, value in (SMALL | changes).items() if key in arch.model_fields}),
        id=f"{arch.__name__}-{name}",
    )
    for arch in ARCHITECTURES
    for name, changes in CHANGES.items()
    if changes.keys() <= arch.model_fields.keys()
]


def clips(model: Any, frames: int = 10) -> torch.Tensor:
    """Returns two clips of squares that move, as masks or as frames; 26x38 is no multiple of any stride."""
    masks = torch.zeros(2, frames, 26, 38, dtype=torch.uint8)
    for t in range(frames):
        masks[0, t, 4:12, 2 + 2 * t : 10 + 2 * t] = 1
        masks[0, t, 15:22, 24 - t : 32 - t] = 2
        masks[1, t, 3 + t : 10 + t, 20:28] = 3
    return masks if model.input == "masks" else masks[..., None].mul(60).repeat(1, 1, 1, 1, 3)


def learn_from(model: Any, pictures: torch.Tensor) -> Any:
    """Returns what the model learns from, of clips of what it forecasts."""
    if "tracks" not in model.learns_from:
        return pictures
    tracks = stack_tracks([pack_tracks(clip, CLASSES) for clip in pictures])
    return tracks if model.learns_from == "tracks" else Lesson(tracks, pictures[: model.pixels.clips])


def build(config: Any) -> Any:
    torch.manual_seed(0)
    return config.build(CLASSES)


def disturbed(model: Any) -> Any:
    """Returns the model with noise on every weight: an untrained one moves and corrects nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("model", [Persistence(), ConstantVelocity()])
def test_baselines_have_the_same_forecast(model: Any) -> None:
    context = clips(model)
    assert model.forecast(context, 3).shape == (2, 3, 26, 38) and model.forecast(context, 3).dtype == torch.uint8


@pytest.mark.parametrize("config", CASES)
def test_forecast_gives_bytes_of_the_same_form_and_leaves_the_context_alone(config: Any) -> None:
    model = build(config).eval()
    context = clips(model)
    before = context.clone()
    for horizon in (1, 5):
        out = model.forecast(context, horizon)
        assert out.dtype == torch.uint8 and out.shape == (2, horizon, *context.shape[2:])
        assert not out.requires_grad
    assert torch.equal(context, before)
    assert list(inspect.signature(model.forecast).parameters)[1:] == ["horizon"]


@pytest.mark.parametrize("config", CASES)
def test_shapes_that_do_not_depend_on_data_give_the_same_forecast(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a traced graph computes (see ``registry/export.py``), without the seconds of tracing it."""
    model = disturbed(build(config).eval())
    context = clips(model)
    wanted = model.forecast(context, 4)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = model.forecast(context, 4)
    assert len(wanted.unique()) > 2 and found.dtype == torch.uint8
    assert (found != wanted).float().mean() <= 1e-4


@pytest.mark.parametrize("config", [case for case in CASES if "frames" not in str(case.id)])
def test_confidence_comes_with_the_same_masks(config: Any) -> None:
    model = build(config).eval()
    context = clips(model)
    masks, confidence = model.forecast_with_confidence(context, 3)
    assert torch.equal(masks, model.forecast(context, 3))
    assert confidence.dtype == torch.uint8 and confidence.shape == masks.shape and confidence.max() > 128


@pytest.mark.parametrize("config", [case for case in CASES if "frames" not in str(case.id)])
def test_at_rest_the_last_mask_is_forecast(config: Any) -> None:
    model = disturbed(build(config).eval())
    context = clips(model, 6)
    last = context[:, -1:].expand(-1, 3, -1, -1)
    assert not torch.equal(model.forecast(context, 3), last)
    model.rest()
    assert torch.equal(model.forecast(context, 3), last)


@pytest.mark.parametrize("config", [case for case in CASES if "frames" not in str(case.id)])
def test_coasting_objects_keep_their_velocity(config: Any) -> None:
    model = disturbed(build(config).eval())
    seen = clips(model, 9)
    seen[0, :, 15:22] = 0  # the other object is alone with its straight line
    model.coast()
    moves = model.motion is not None
    assert torch.equal(
        model.forecast(seen[:1, :6], 3), seen[:1, 6:] if moves else seen[:1, 5:6].expand(-1, 3, -1, -1)
    )


@pytest.mark.parametrize("config", CASES)
def test_learning_reaches_every_parameter_and_the_loaded_model_forecasts_the_same(
    config: Any, tmp_path: Path
) -> None:
    model = build(config)
    seen = clips(model)
    lessons = learn_from(model, seen[:, :5]), learn_from(model, seen[:, 5:])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    moved = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(3):  # heads start at 0: what is below them gets its gradient from the second step on
        loss, _ = model.loss(*lessons)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = [name for name, parameter in model.named_parameters() if torch.equal(moved[name], parameter)]
    assert not still
    save_model(tmp_path, model, config, num_classes=CLASSES, meta={})
    loaded, description = load_forecaster(tmp_path)
    assert description["num_classes"] == CLASSES
    assert torch.equal(model.eval().forecast(seen[:, :5], 4), loaded.forecast(seen[:, :5], 4))


@pytest.mark.parametrize("config", [case for case in CASES if "two-layers" not in str(case.id)])
def test_one_clip_is_learned(config: Any) -> None:
    model = build(config)
    seen = clips(model)
    context, target = seen[:, :6], seen[:, 6:]
    lessons = learn_from(model, context), learn_from(model, target)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    before = (model.forecast(context, 4).int() - target.int()).ne(0).float().mean()
    for _ in range(60):
        loss, _ = model.loss(*lessons)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    after = model.eval().forecast(context, 4)
    if model.input == "masks":
        assert after.ne(target).float().mean() < 0.7 * before
    else:
        copied = seen[:, 5:6].float() - target.float()
        assert (after.float() - target.float()).square().mean() < 0.7 * copied.square().mean()
