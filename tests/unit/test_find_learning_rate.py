"""The learning-rate range test: what it suggests, of every training, and what it says where it cannot tell."""

import csv
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import write_store
from tests.unit.test_train_masker import PARAMS
from torch import nn

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.progress import listening
from maskcast.report.page import Page
from maskcast.runner.run import run_stage
from maskcast.stages.find_learning_rate import FindLearningRate, find_learning_rate
from maskcast.training.range_test import Sweep, range_test
from maskcast.training.schedule import TrainingParams
from maskcast.training.task import Task

SHORT = {"lowest": 1e-5, "highest": 10.0, "steps": 40}


def params(**values: Any) -> FindLearningRate:
    return FindLearningRate.model_validate({"values": PARAMS, **SHORT} | values)


def sweep(
    store: ClipStore, folder: Path, given: FindLearningRate
) -> tuple[dict[str, float], list[dict[str, str]]]:
    folder.mkdir()
    out = {"curves": folder / "curves", "metrics": folder / "metrics.json"}
    find_learning_rate(clips=store.root, params=given, **out)
    with (out["curves"] / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    return json.loads(out["metrics"].read_text()), rows


def test_a_masker_learns_at_the_rate_that_is_suggested(store: ClipStore, tmp_path: Path) -> None:
    metrics, rows = sweep(store, tmp_path / "one", params())
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == pytest.approx(1e-5)
    factor = 1e6 ** (1 / 39)
    assert all(later / former == pytest.approx(factor, rel=1e-4) for former, later in pairwise(rates))
    assert 1e-4 < metrics["suggestion"] < 0.2  # 0.01 is what the tests of the stage train well at
    again, same = sweep(store, tmp_path / "two", params())
    assert (again, same) == (metrics, rows)


def test_a_sweep_for_each_weight_decay_and_batch_size(store: ClipStore, tmp_path: Path) -> None:
    given, page = params(weight_decays=[0.0, 0.1], batch_sizes=[2], steps=20), Page("find_learning_rate")
    with listening(page):
        metrics, rows = sweep(store, tmp_path / "out", given)
    titles = {"weight_decay 0, batch_size 2", "weight_decay 0.1, batch_size 2"}
    assert {row["sweep"] for row in rows} == titles
    assert metrics["sweeps"] == 2
    assert all(name.removeprefix("suggestion/") in titles for name in metrics if name != "sweeps")
    page.write(tmp_path / "page.html", metrics, given, {})
    shown = (tmp_path / "page.html").read_text()
    assert all(f"</svg>{title}</li>" in shown and f"<li>{title}: " in shown for title in titles)
    assert shown.count("<polyline") == 2 and "data:image" not in shown.partition("<body>")[2]


def test_what_a_sweep_suggests_is_computed_by_hand() -> None:
    rates = [10.0**k for k in range(-9, 1)]
    losses = [5.0, 5.0, 5.0, 4.9, 4.0, 3.5, 3.4, 3.3, 6.0, 9.0]
    found = Sweep(rates, losses, losses, diverged=False)
    assert found.steepest == pytest.approx(1e-5)  # from 4.9 to 3.5
    assert found.lowest_loss_rate == pytest.approx(1e-2)
    assert found.suggestion == pytest.approx(1e-5)
    late = Sweep(rates, losses, [5.0, 5.0, 5.0, 5.0, 5.0, 4.9, 4.8, 2.0, 6.0, 9.0], diverged=False)
    assert late.suggestion == pytest.approx(1e-3)  # a tenth of where it is lowest
    assert Sweep(rates, losses, list(range(10)), diverged=True).suggestion is None


class Steep(Task):
    """A task whose loss is x^4 from 2 on: it leaves all bounds where the rate is too high."""

    fingerprint = "steep"

    def __init__(self) -> None:
        self.model: nn.Module = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.model.weight, 2.0)  # type: ignore[arg-type]

    def batch(self, step: int) -> torch.Tensor:
        return torch.ones(1, 1)

    def loss(self, batch: torch.Tensor, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return (self.model(batch) ** 4).sum(), {}

    def validate(self) -> dict[str, float]:
        raise AssertionError("a range test validates nothing")


def schedule(**values: Any) -> TrainingParams:
    own = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "learning_rate": 1.0, "precision": "fp32"}
    return TrainingParams.model_validate(own | values)


def test_it_ends_where_the_loss_leaves_all_bounds() -> None:
    found = range_test(Steep(), schedule(clip_grad_norm=None, weight_decay=0), 1e-3, 1e3, 60)
    assert found.diverged
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 60
    assert found.smoothed[-1] > 4 * min(found.smoothed)
    assert all(loss <= 4 * min(found.smoothed[: step + 1]) for step, loss in enumerate(found.smoothed[:-1]))
    mean = 0.0
    for step, loss in enumerate(found.losses, 1):  # the mean with its start taken out
        mean = 0.95 * mean + 0.05 * loss
        assert found.smoothed[step - 1] == pytest.approx(mean / (1 - 0.95**step))


class Negative(Steep):
    """The same, but for a constant, so that the loss falls below 0 before it diverges."""

    def loss(self, batch: torch.Tensor, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        loss, numbers = super().loss(batch, step)
        return loss - 15, numbers


def test_a_loss_that_rises_after_it_fell_below_0_ends_it_too() -> None:
    found = range_test(Negative(), schedule(clip_grad_norm=None, weight_decay=0), 1e-3, 1e3, 60)
    lowest = min(found.smoothed)
    most = lowest + 3 * max(found.smoothed[0] - lowest, -lowest)
    assert lowest < 0 < found.smoothed[0] and len(found.losses) < 60
    assert found.diverged and max(found.smoothed[:-1]) <= most < found.smoothed[-1] < math.inf


class Spiky(Task):
    """A task whose loss is 1, but for one step."""

    fingerprint = "spiky"

    def __init__(self, spike: float) -> None:
        self.model, self.spike = nn.Linear(1, 1), spike

    def batch(self, step: int) -> torch.Tensor:
        return torch.ones(1, 1)

    def loss(self, batch: torch.Tensor, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return 0 * self.model(batch).sum() + (self.spike if step == 20 else 1.0), {}

    def validate(self) -> dict[str, float]:
        raise AssertionError("a range test validates nothing")


@pytest.mark.parametrize(("spike", "steps"), [(4.5, 60), (math.inf, 20), (math.nan, 20)])
def test_one_noisy_batch_does_not_end_it_but_an_infinite_loss_does(spike: float, steps: int) -> None:
    found = range_test(Spiky(spike), schedule(), 1e-6, 1.0, 60)
    assert len(found.losses) == steps and found.diverged is (steps < 60)


def test_every_training_can_be_tried(store: ClipStore, tmp_path: Path) -> None:
    values = {
        "model": {"arch": "unet", "width": 4},
        "method": {"name": "moco", "dim": 8, "hidden": 8, "queue": 16},
        "views": {"size": [16, 16]},
        "training": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 8, "learning_rate": 0.1},
    }
    metrics, _ = sweep(store, tmp_path / "encoder", params(of="pretrain_encoder", values=values, steps=20))
    assert metrics["sweeps"] == 1
    training = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 0.1}
    values = {"model": {"arch": "convlstm", "hidden": 2, "stride": 4}, "training": training}
    values |= {"context_frames": 3, "min_context_frames": 3, "horizon": 2}
    out = {"curves": tmp_path / "curves", "metrics": tmp_path / "metrics.json"}
    given = params(of="pretrain_forecaster", values=values, steps=20)
    known = write_store(tmp_path / "known", train=2, val=1).root
    find_learning_rate(clips=known, masks=known, masker=tmp_path, params=given, **out)
    assert json.loads(out["metrics"].read_text())["sweeps"] == 1


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"highest": 1e-6}, "highest 1e-06 must be above lowest 1e-05"),
        ({"steps": 5}, "steps: input should be greater than or equal to 20"),
        ({"of": "evaluate"}, "of: "),
        ({"values": {}}, "values.training is missing; give the params of train_masker"),
        ({"values": {"training": {"epoch": 1}}}, "values.training"),
        ({"batch_sizes": [2, 0]}, "values.training.batch_size: "),
        ({"of": "train_detector"}, "--dataset is missing; train_detector requires it"),
        ({"of": "pretrain_forecaster"}, "--masks is missing; pretrain_forecaster requires it"),
        ({"lowest": 1e30, "highest": 1e38}, "the loss diverged within"),
    ],
)
def test_what_cannot_be_tried_is_one_line(
    store: ClipStore, tmp_path: Path, given: dict[str, Any], line: str
) -> None:
    section = {"values": PARAMS, **SHORT} | given
    out = {name: tmp_path / name for name in ("curves", "metrics")}
    with pytest.raises(MaskcastError) as raised:
        run_stage("find_learning_rate", section, clips=store.root, **out)
    assert line in str(raised.value) and "\n" not in str(raised.value)
    assert not any(path.exists() for path in out.values())
