"""Several futures of a clip: how they are drawn, and how they are scored."""

import math

import numpy as np
import pytest
import torch

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.evaluation.forecasts import ForecastEvaluation
from maskcast.evaluation.futures import score_futures
from maskcast.models.forecasting.configs import ConvLSTMConfig, FlowConfig, ObjectsConfig
from maskcast.models.objects.futures import DRAW_SCALE, future
from maskcast.models.objects.motion import SCALE_BIAS, ObjectMotion
from maskcast.models.objects.plane import displaced, inverse, project
from maskcast.models.objects.tracks import SCALE_START, Tracks


def moving(num_objects: int = 2) -> tuple[ObjectMotion, torch.Tensor, Tracks]:
    """Objects that move at 0.02 a frame to the right, whose expected error grows by 0.02 a frame."""
    motion = ObjectMotion(8, 300)
    motion.reset_to_constant_velocity()
    # what a step adds to the expected error, before softplus
    motion.doubt[-1].bias.data.fill_(math.log(math.expm1(0.02)) - SCALE_BIAS)
    x = 0.02 * torch.arange(6.0)[:, None].expand(6, num_objects)
    centre = torch.stack([torch.zeros_like(x), x], -1)[None]
    seen = torch.ones(1, 6, num_objects, dtype=torch.bool)
    tracks = Tracks(seen, centre, torch.full_like(centre, 0.05), ~seen, seen[..., 0], 1.5)
    return motion, torch.arange(1, num_objects + 1)[None], tracks


def test_what_is_drawn_is_the_state_when_last_seen_as_wide_as_the_first_steps_are_in_doubt() -> None:
    motion, objects, tracks = moving(99)
    with torch.no_grad():
        expected, drawn = motion(objects, tracks, 4), future(motion, objects, tracks, 4, seed=5)
    missed = drawn.centre_BhN2 - expected.centre_BhN2
    velocity = missed[:, 1:] - missed[:, :-1]
    torch.testing.assert_close(velocity[:, 1:], velocity[:, :-1])  # it stays: nothing bends a path here
    place = missed[:, 0] - velocity[:, 0]
    for found, scale in ((place, SCALE_START), (velocity, 0.02)):
        assert float(found.abs().mean()) == pytest.approx(DRAW_SCALE * scale, rel=0.2)  # of a Laplace distribution
    fields = tracks.visible_BTN, tracks.centre_BTN2, tracks.std_BTN2, tracks.truncated_BTN
    few = Tracks(*(field[:, :, [6, 2]] for field in fields), tracks.known_BT, 1.5)
    with torch.no_grad():
        same = future(motion, objects[:, [6, 2]], few, 4, seed=5)
    torch.testing.assert_close(same.centre_BhN2, drawn.centre_BhN2[:, :, [6, 2]])


def test_a_state_is_displaced_as_is_seen_in_the_picture_however_the_plane_lies() -> None:
    homography = torch.tensor([0.3, 0.1, 0.0, 0.05, 0.2, 0.0, 0.4, -0.2])
    place, velocity, by = (
        torch.tensor([[0.1, -0.3]]),
        torch.tensor([[0.02, 0.01]]),
        torch.tensor([[0.03, 0.0, 0.0, -0.02]]),
    )
    moved, faster = displaced(homography, place, velocity, by)
    back = inverse(homography)
    torch.testing.assert_close(project(moved, back) - project(place, back), by[:, :2])
    ahead = place + faster - velocity  # where the change of velocity alone leads in a frame
    torch.testing.assert_close(project(ahead, back) - project(place, back), by[:, 2:])


def test_what_is_sure_stays() -> None:
    motion, objects, tracks = moving()
    motion.doubt[-1].bias.data.fill_(-30)
    with torch.no_grad():
        expected, drawn = motion(objects, tracks, 4), future(motion, objects, tracks, 4, seed=5)
    assert (drawn.centre_BhN2 - expected.centre_BhN2).abs().max() < 0.01  # a place is never surer than SCALE_START


def test_a_clip_has_the_same_futures_in_any_batch() -> None:
    masks = torch.zeros(2, 6, 32, 48, dtype=torch.uint8)
    for t in range(6):
        masks[0, t, 4:12, 4 + 2 * t : 12 + 2 * t] = 1
        masks[1, t, 16:24, 30 - 2 * t : 38 - 2 * t] = 3
    model = ObjectsConfig(hidden=8).build(5).eval()
    model.reset_to_constant_velocity()
    together, alone = model.future(masks, 4, seed=1), model.future(masks[1:], 4, seed=1)
    assert together.shape == (2, 4, 32, 48) and together.dtype == torch.uint8
    assert torch.equal(together[1:], alone) and torch.equal(together, model.future(masks, 4, seed=1))
    assert not torch.equal(together, model.future(masks, 4, seed=2))
    moved = ConvLSTMConfig(hidden=4, stride=4).build(5).eval()
    moved.reset_to_constant_velocity()
    moved.motion.doubt[-1].bias.data.fill_(3.0)  # in much doubt
    assert not torch.equal(moved.future(masks, 4, seed=1), moved.forecast(masks, 4))


def test_futures_of_what_cannot_draw_them_are_refused(store: ClipStore) -> None:
    cpu = torch.device("cpu")
    for config, draws in (
        (ObjectsConfig(), True),
        (ConvLSTMConfig(hidden=4), True),
        (ConvLSTMConfig(hidden=4, motion="none"), False),
        (FlowConfig(), False),
        (ConvLSTMConfig(hidden=4, input="frames"), False),
    ):
        model = config.build(store.num_classes)
        assert model.draws_futures is draws
        if not draws:
            chosen = store.select("val", "labelled")
            with pytest.raises(MaskcastError, match=r"evaluate\.futures: got 3, but this forecaster cannot"):
                ForecastEvaluation(store, store, chosen, model, None, "truth", 6, 3, 2, cpu, futures=3)


def test_the_best_is_chosen_clip_by_clip() -> None:
    truth, other = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    truth[:, :2], other[:, 2:] = 1, 1  # nothing of the other is right
    found = score_futures([(truth, [truth, other]), (truth, [other, truth])], 2, 2, 2)
    assert found["jaccard_last_best_of_2"] == found["jaccard_mean_best_of_2"] == 1.0
    half = pytest.approx(1 / 3)  # each future is right in one clip of two: 16 of 48 pixels of the unions
    assert found["jaccard_last_mean_of_2"] == found["jaccard_mean_mean_of_2"] == half


def test_evaluate_scores_futures_beside_the_forecast(store: ClipStore) -> None:
    model = ObjectsConfig(hidden=4).build(store.num_classes).eval()
    model.reset_to_constant_velocity()
    chosen = store.select("val", "labelled")
    cpu = torch.device("cpu")
    evaluation = ForecastEvaluation(store, store, chosen, model, None, "truth", 6, 3, 2, cpu, futures=3)
    flat = evaluation.flat
    assert 0 < flat["jaccard_last_mean_of_3"] <= flat["jaccard_last_best_of_3"] <= 1
    assert (
        "jaccard_last_best_of_3"
        not in ForecastEvaluation(store, store, chosen, model, None, "truth", 6, 3, 2, cpu).flat
    )
    view = evaluation.view(0, "persistence")  # and pictures show them
    context = torch.from_numpy(view.context[None])
    for seed in range(3):
        wanted = model.future(context, 3, seed)[0].numpy()
        np.testing.assert_array_equal(view.forecasts[f"future {seed + 1}"], wanted)
    assert list(view.forecasts)[:2] == ["forecaster", "persistence"]
