"""What every forecaster in the union of configs must do, whatever its architecture."""

import inspect
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.labels import single_map
from maskcast.models.base import save_model
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.base import Forecaster, Predictor
from maskcast.models.forecasting.baselines import ConstantVelocity, Persistence
from maskcast.models.forecasting.batches import Batch, Window
from maskcast.models.forecasting.configs import FlowConfig, ForecasterConfig
from maskcast.models.forecasting.table import load_forecaster

CLASSES, FRAMES, HEIGHT, WIDTH = 4, 10, 26, 38  # the size is no multiple of any stride
ARCHITECTURES: list[type[ModelConfig]] = list(get_args(get_args(ForecasterConfig)[0]))
SMALL: dict[str, Any] = {"hidden": 8, "stride": 4, "loss_stride": 1}
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "plain": {"motion": "none"},
    "two-layers": {"layers": 2, "stride": 8},
    "frames": {"input": "frames"},
    "whole": {"whole": True},
    "several": {"several": True},
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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Two clips of squares that move, masks and frames."""
    masks = np.zeros((2, FRAMES, HEIGHT, WIDTH), np.uint8)
    for t in range(FRAMES):
        masks[0, t, 4:12, 2 + 2 * t : 10 + 2 * t] = 1
        masks[0, t, 15:22, 24 - t : 32 - t] = 2
        masks[1, t, 3 + t : 10 + t, 20:28] = 3
    root = tmp_path_factory.mktemp("clips") / "clips"
    with ClipWriter(root, height=HEIGHT, width=WIDTH, maps=single_map(list("0123"))) as writer:
        for k, clip in enumerate(masks):
            frames = np.repeat(clip[..., None] * 60, 3, axis=-1)
            writer.add(str(k), split="train", kind="labelled", frames=frames, masks={"mask": clip})
    return ClipStore(root)


def read(model: Predictor, store: ClipStore, start: int = 0, stop: int = FRAMES) -> torch.Tensor:
    """Returns some frames of both clips as the model reads them."""
    parts = [model.input.read(store, clip, slice(start, stop)) for clip in store.clips]
    return torch.from_numpy(np.stack(parts))


def learn(model: Forecaster, store: ClipStore, start: int, stop: int) -> Batch:
    """Returns some frames of both clips as the model learns from them."""
    source = model.batch_source(store, list(store.clips))
    return source.batch([Window(clip, slice(start, stop), False) for clip in (0, 1)])


def build(config: Any) -> Any:
    torch.manual_seed(0)
    return config.build(CLASSES)


def disturbed(model: Any) -> Any:
    """Returns the model with noise on every weight: an untrained one moves and corrects nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def repeated(context: torch.Tensor, horizon: int) -> torch.Tensor:
    """Returns the last frame or mask, again and again."""
    return context[:, -1:].expand(-1, horizon, *context.shape[2:])


@pytest.mark.parametrize("model", [Persistence(), ConstantVelocity()])
def test_baselines_have_the_same_forecast(model: Predictor, store: ClipStore) -> None:
    context = read(model, store)
    context[0, -1, :3] = 255  # unknown: counts as background
    masks, confidence = model.forecast_with_confidence(context, 3)
    assert masks.shape == (2, 3, HEIGHT, WIDTH) and masks.dtype == torch.uint8 and masks.max() < CLASSES
    assert confidence is None and torch.equal(masks, model.forecast(context, 3))


@pytest.mark.parametrize("config", CASES)
def test_forecast_gives_bytes_of_the_same_form_and_leaves_the_context_alone(config: Any, store: ClipStore) -> None:
    model = build(config).eval()
    context = read(model, store)
    before = context.clone()
    for horizon in (1, 5):
        out = model.forecast(context, horizon)
        assert out.dtype == torch.uint8 and out.shape == (2, horizon, *context.shape[2:])
        assert not out.requires_grad
    assert torch.equal(context, before)
    assert list(inspect.signature(model.forecast).parameters)[1:] == ["horizon"]


@pytest.mark.parametrize("config", CASES)
def test_unknown_pixels_count_as_background(config: Any, store: ClipStore) -> None:
    model = disturbed(build(config).eval())
    if model.input.needs_masker:  # frames have no unknown pixels: 255 is a colour
        assert model.input.channels == (3,)
        return
    context = read(model, store)
    unknown, background = context.clone(), context.clone()
    unknown[:, :, :6], background[:, :, :6] = 255, 0
    assert torch.equal(model.forecast(unknown, 3), model.forecast(background, 3))


@pytest.mark.parametrize("config", [case for case in CASES if not isinstance(case.values[0], FlowConfig)])
def test_shapes_that_do_not_depend_on_data_give_the_same_forecast(
    config: Any, store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a traced graph computes (see ``registry/export.py``), without the seconds of tracing it.

    `flow` is no graph, as tests/unit/test_export.py holds.
    """
    model = disturbed(build(config).eval())
    context = read(model, store)
    wanted = model.forecast(context, 4)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = model.forecast(context, 4)
    assert len(wanted.unique()) > 2 and found.dtype == torch.uint8
    assert (found != wanted).float().mean() <= 1e-4


@pytest.mark.parametrize("config", CASES)
def test_confidence_comes_with_the_same_forecast(config: Any, store: ClipStore) -> None:
    model = build(config).eval()
    context = read(model, store)
    out, confidence = model.forecast_with_confidence(context, 3)
    assert torch.equal(out, model.forecast(context, 3))
    if model.input.needs_masker:
        assert confidence is None  # the masker has one
    else:
        assert confidence.dtype == torch.uint8 and confidence.shape == out.shape and confidence.max() > 128


@pytest.mark.parametrize("config", CASES)
def test_reset_to_persistence_it_repeats_what_it_saw_last(config: Any, store: ClipStore) -> None:
    model = disturbed(build(config).eval())
    context = read(model, store, 0, 6)
    assert not torch.equal(model.forecast(context, 3), repeated(context, 3))
    model.reset_to_persistence()
    assert torch.equal(model.forecast(context, 3), repeated(context, 3))


@pytest.mark.parametrize("config", CASES)
def test_reset_to_constant_velocity_objects_keep_it_if_they_move(config: Any, store: ClipStore) -> None:
    model = disturbed(build(config).eval())
    seen = read(model, store)[:1]
    seen[:, :, 15:22] = 0  # the other object is alone with its straight line
    model.reset_to_constant_velocity()
    found, moves = model.forecast(seen[:, :6], 3), getattr(model, "motion", None) is not None
    if isinstance(config, FlowConfig):  # what moves is found to parts of a pixel: edges differ
        wrong, of_a_copy = (float((each != seen[:, 6:9]).float().mean()) for each in (found, seen[:, 5:6]))
        assert wrong < 0.6 * of_a_copy
        return
    assert torch.equal(found, seen[:, 6:9] if moves else repeated(seen[:, :6], 3))


@pytest.mark.parametrize("config", CASES)
def test_preparing_changes_nothing_that_is_learned(config: Any, store: ClipStore) -> None:
    model = build(config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.prepare(store, list(store.clips))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("config", CASES)
def test_learning_reaches_every_parameter_and_the_loaded_model_forecasts_the_same(
    config: Any, store: ClipStore, tmp_path: Path
) -> None:
    model = build(config)
    context, target = learn(model, store, 0, 5), learn(model, store, 5, FRAMES)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    learnable = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    moved = {name: weights.detach().clone() for name, weights in learnable.items()}
    for _ in range(3):  # heads start at 0: what is below them gets its gradient from the second step on
        loss, _ = model.loss(context, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = [name for name, weights in learnable.items() if torch.equal(moved[name], weights)]
    assert not still
    save_model(tmp_path, model, config, num_classes=CLASSES, meta={})
    loaded, description = load_forecaster(tmp_path)
    assert description["num_classes"] == CLASSES
    seen = read(model, store, 0, 5)
    assert torch.equal(model.eval().forecast(seen, 4), loaded.forecast(seen, 4))


ONE_CLIP = [
    case
    for case in CASES
    # what `flow` learns is how sure it is
    if not (str(case.id).endswith(("two-layers", "whole")) or isinstance(case.values[0], FlowConfig))
]


@pytest.mark.parametrize("config", ONE_CLIP)
def test_one_clip_is_learned(config: Any, store: ClipStore) -> None:
    model = build(config)
    seen, coming = read(model, store, 0, 6), read(model, store, 6, FRAMES)
    context, target = learn(model, store, 0, 6), learn(model, store, 6, FRAMES)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def error() -> float:
        """Returns the share of wrong pixels, or the squared error of frames."""
        wrong = model.forecast(seen, FRAMES - 6).float() - coming.float()
        return float((wrong.square() if model.input.needs_masker else wrong.ne(0).float()).mean())

    before = error()
    for _ in range(60):
        loss, _ = model.loss(context, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    assert error() < 0.7 * before
