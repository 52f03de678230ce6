"""The forecaster by optical flow: where things go, how long flow lasts, how sure it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, single_map
from maskcast.models import limits
from maskcast.models.forecasting.configs import FlowConfig
from maskcast.models.forecasting.flow_forecaster import (
    DEFAULT_PACE,
    MAX_FUTURE_FRAMES,
    MIN_PROBABILITY,
    FlowForecaster,
    flow_back,
)

HEIGHT, WIDTH, SEEN, HORIZON = 48, 72, 6, 6


def scene(*velocities: float, classes: int = 3) -> np.ndarray:
    """Returns masks (T, H, W) of stripes and a square that all move right, at a velocity for each frame."""
    place = np.cumsum(velocities)
    masks = np.zeros((len(velocities), HEIGHT, WIDTH), np.uint8)
    for mask_HW, x in zip(masks, place, strict=True):
        left = int(x)
        mask_HW[:12] = 1
        mask_HW[20:34, 10 + left : 26 + left] = 2
    return masks % classes


def moving(speed: float = 2.0, frames: int = SEEN + HORIZON) -> np.ndarray:
    return scene(*[speed] * frames)


def stopping() -> np.ndarray:
    """It moves while it is seen, and hardly after."""
    return scene(*[2.0] * SEEN, *[0.0] * HORIZON)


def jittering() -> np.ndarray:
    """What seems to move comes back: a copy is the best forecast."""
    return scene(0.0, *[2.0, -2.0] * (HORIZON // 2 + SEEN // 2), 0.0)[1:-1]


def build(classes: int = 3) -> FlowForecaster:
    torch.manual_seed(0)
    model = FlowConfig().build(classes)
    assert isinstance(model, FlowForecaster)
    return model.eval()


def wrong(found: Tensor, truth: np.ndarray) -> float:
    return float((found.numpy() != truth).mean())


def store_of(root: Path, *clips: np.ndarray) -> ClipStore:
    with ClipWriter(root, height=HEIGHT, width=WIDTH, maps=single_map(list("abc"))) as writer:
        for k, masks in enumerate(clips):
            frames = np.repeat(masks[..., None], 3, axis=-1)
            writer.add(str(k), split="train", kind="labelled", frames=frames, masks={"mask": masks})
    return ClipStore(root)


def test_flow_is_that_of_the_masks() -> None:
    flow_HW2 = flow_back(moving()[:SEEN])
    inside = flow_HW2[22:32, 24:34]  # of the square in the last frame
    assert np.abs(inside - [-2, 0]).max() < 0.3
    assert np.abs(flow_HW2[:6]).max() < 0.2  # the stripe rests
    assert not flow_back(moving()[:1]).any()


def test_what_moves_on_is_forecast_and_what_rests_stays() -> None:
    masks = moving()
    model = build()
    model.reset_to_constant_velocity()
    found = model.forecast(torch.from_numpy(masks[None, :SEEN]), HORIZON)[0]
    copied = np.repeat(masks[SEEN - 1 : SEEN], HORIZON, axis=0)
    assert wrong(found, masks[SEEN:]) < 0.3 * float((copied != masks[SEEN:]).mean())


def test_clips_do_not_change_each_other_and_void_is_background() -> None:
    clips = torch.from_numpy(np.stack([moving(), moving(-1.0)])[:, :SEEN])
    model = build()
    both = model.forecast(clips, 3)
    assert torch.equal(both[1:], model.forecast(clips[1:], 3))
    void = clips.masked_fill(clips == 0, IGNORE)
    assert torch.equal(model.forecast(void, 3), both)


@pytest.mark.parametrize(("clip", "paces"), [(moving, (0.95, 1.0)), (stopping, (0.0, 0.5)), (jittering, (0.0,))])
def test_how_long_flow_lasts_is_measured(clip: object, paces: tuple[float, ...], tmp_path: Path) -> None:
    assert callable(clip)
    store, model = store_of(tmp_path / "clips", clip(), clip()), build()
    model.prepare(store, store.clips)
    assert round(float(model.pace), 2) in paces


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 9), (8, 8), (1, 2000), (2000, 4), (15, 2000), (8, 40000)])
@pytest.mark.parametrize("seen", [1, 2, 3])
def test_masks_of_any_shape_are_forecast(size: tuple[int, int], seen: int) -> None:
    context = torch.randint(3, (1, seen, *size), dtype=torch.uint8)
    model = build()
    found, confidence = model.forecast_with_confidence(context, 2)
    assert found.shape == confidence.shape == (1, 2, *size)
    assert set(found.unique().tolist()) <= set(context[:, -1].unique().tolist())
    assert model.loss(context, found)[0].isfinite()


def test_clips_in_which_nothing_can_be_measured_leave_the_usual_pace(tmp_path: Path) -> None:
    unknown = np.full((4, HEIGHT, WIDTH), IGNORE, np.uint8)
    store, model = store_of(tmp_path / "clips", moving()[:1], moving()[:2], unknown), build()
    model.prepare(store, store.clips)
    assert float(model.pace) == pytest.approx(DEFAULT_PACE)
    model.prepare(store, store.clips[:1])
    assert float(model.pace) == pytest.approx(DEFAULT_PACE)


def test_of_a_long_clip_some_frames_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, model, read = store_of(tmp_path / "clips", moving(0.1, 300)), build(), []
    whole = ClipStore.masks

    def masks(self: ClipStore, clip: Clip, frames: slice) -> np.ndarray:
        found = whole(self, clip, frames)
        read.append(len(found))
        return found

    monkeypatch.setattr(ClipStore, "masks", masks)
    model.prepare(store, store.clips)
    assert MAX_FUTURE_FRAMES < read[0] < MAX_FUTURE_FRAMES + 10


def test_pixels_are_as_sure_as_their_class_is_around_them() -> None:
    """Of 200 classes as of two: each is blurred alone."""
    mask_HW = torch.randint(200, (HEIGHT, WIDTH), dtype=torch.uint8)
    model = build(255)
    found, confidence = model.forecast_with_confidence(mask_HW[None, None], 1)
    assert torch.equal(found[0, 0], mask_HW)  # one frame has no flow
    share_L = (32 * model.level_L.detach()).softmax(0)
    likely_HW = torch.zeros(HEIGHT, WIDTH)
    for k in mask_HW.unique():
        level = (mask_HW == k)[None, None].float()
        for share in share_L:
            likely_HW[mask_HW == k] += (
                share * F.interpolate(level, (HEIGHT, WIDTH), mode="bilinear")[0, 0][mask_HW == k]
            )
            level = F.avg_pool2d(level, 2, ceil_mode=True, count_include_pad=False)
    assert (confidence[0, 0] - 255 * likely_HW).abs().max() < 0.51


def test_a_class_that_the_last_mask_lacks_has_a_small_probability() -> None:
    context, target = torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    assert build().loss(context, target)[0].item() == pytest.approx(-np.log(MIN_PROBABILITY))
    assert build().loss(context, target.fill_(IGNORE))[0].item() == 0


def test_it_learns_to_doubt_what_it_cannot_foresee(tmp_path: Path) -> None:
    masks = stopping()
    context, target = torch.from_numpy(masks[None, :SEEN]), torch.from_numpy(masks[None, SEEN:])
    model = build()
    model.reset_to_constant_velocity()  # it is wrong about this clip, the more the later
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def doubt() -> tuple[float, float]:
        confidence = model.forecast_with_confidence(context, HORIZON)[1].float() / 255
        return float(1 - confidence[0, 0].mean()), float(1 - confidence[0, -1].mean())

    before = doubt()
    losses = []
    for _ in range(40):
        loss, parts = model.loss(context, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(parts["cross_entropy"]))
    after = doubt()
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert after[1] > 2 * before[1] and after[1] > after[0]


def test_frames_that_are_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_NUMBERS", 1000)
    with pytest.raises(MaskcastError, match=r"masks of 48 x 72: 3456 pixels, this model supports at most"):
        build().forecast(torch.from_numpy(moving()[None, :SEEN]), 2)
