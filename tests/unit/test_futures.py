"""Several futures of a clip: how they are drawn, and how they are scored."""

import numpy as np
import pytest
import torch

from maskcast.data.clips import ClipStore
from maskcast.evaluation.forecasts import Evaluation
from maskcast.evaluation.futures import score_futures
from maskcast.models.forecasting.configs import ConvLSTMConfig, ObjectsConfig
from maskcast.models.objects.trajectories import Trajectory
from maskcast.stages.evaluate import Evaluate


def test_an_object_misses_its_path_by_one_draw_in_units_of_what_is_expected() -> None:
    scale = torch.arange(1, 4.0)[None, :, None, None].expand(1, 3, 400, 2) / 100
    path = Trajectory(torch.zeros(1, 3, 400, 2), torch.zeros(1, 3, 400, 2), scale)
    missed = path.drawn(torch.arange(400)[None], seed=5).centre_BhN2
    torch.testing.assert_close(missed[:, 1:], missed[:, :1] * torch.tensor([2.0, 3.0])[:, None, None])
    assert float(missed[0, 0].abs().mean()) == pytest.approx(0.01, rel=0.1)  # a Laplace distribution's scale
    few = Trajectory(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), scale[:, :, :2])
    torch.testing.assert_close(few.drawn(torch.tensor([[7, 3]]), seed=5).centre_BhN2, missed[:, :, [7, 3]])


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
    plain = ConvLSTMConfig(hidden=4, stride=4).build(5).eval()  # draws none
    assert torch.equal(plain.future(masks, 2, seed=1), plain.forecast(masks, 2))


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
    flat = Evaluation(store, store, chosen, model, None, "truth", 6, 3, 2, cpu, futures=3).flat({})
    assert 0 < flat["jaccard_last_mean_of_3"] <= flat["jaccard_last_best_of_3"] <= 1
    assert "jaccard_last_best_of_3" not in Evaluation(
        store, store, chosen, model, None, "truth", 6, 3, 2, cpu
    ).flat({})
    assert Evaluate().model_dump().keys() == Evaluate.model_fields.keys() - {"label_map", "futures"}  # as ever
