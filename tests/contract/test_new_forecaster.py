"""A new forecaster is one module and one line: it then passes the contract suite, and all stages take it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

TOY = '''"""A toy: two masks to the next one by a convolution, again and again."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.base import Forecaster, known


class Toy(Forecaster):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.change = nn.Conv2d(2 * num_classes, num_classes, 5, padding=2)
        self.reset_to_persistence()

    def reset_to_persistence(self) -> None:
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forecast(self, context: Tensor, horizon: int) -> Tensor:
        return self.forecast_with_confidence(context, horizon)[0]

    @torch.no_grad()
    def forecast_with_confidence(self, context: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        before, last = known(context[:, -2]), known(context[:, -1])
        masks, confidence = [], []
        for _ in range(horizon):
            likely, ids = self._next(before, last).softmax(1).max(1)
            before, last = last, ids.to(torch.uint8)
            masks.append(last)
            confidence.append((likely * 255).round().to(torch.uint8))
        return torch.stack(masks, 1), torch.stack(confidence, 1)

    def loss(self, context: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        frames = torch.cat([known(context), target], 1)
        steps = range(context.shape[1], frames.shape[1])
        losses = [
            F.cross_entropy(self._next(known(frames[:, t - 2]), known(frames[:, t - 1])), frames[:, t].long())
            for t in steps
        ]
        return torch.stack(losses).mean(), {}

    def _next(self, before: Tensor, last: Tensor) -> Tensor:
        seen = [F.one_hot(ids.long(), self.num_classes).movedim(-1, 1).float() for ids in (last, before)]
        return 2 * seen[0] + self.change(torch.cat(seen, 1))


class ToyConfig(ModelConfig):
    """A convolution from two masks to the next."""

    arch: Literal["toy"] = "toy"

    def build(self, num_classes: int) -> Toy:
        return Toy(num_classes)
'''
STAGES = """
import sys
from pathlib import Path
from tests.conftest import write_store
from maskcast.models.forecasting.table import load_forecaster
from maskcast.params import validate
from maskcast.runner.stage import get_stage

folder = Path(sys.argv[1])
clips = write_store(folder / "clips", train=2, val=1).root
inputs = {"clips": clips, "masks": clips, "masker": clips}
training = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"}


def run(name, params, **paths):
    stage = get_stage(name)
    stage.function(**inputs, **paths, params=validate(stage.params, params, name))


trained, tuned = folder / "pretrained", folder / "forecaster"
run("pretrain_forecaster", {"training": training, "model": {"arch": "toy"}}, pretrained=trained,
    metrics=folder / "pretrained.json")
run("finetune_forecaster", {"training": training}, pretrained=trained, forecaster=tuned,
    metrics=folder / "forecaster.json")
run("evaluate", {"pictures": 1}, forecaster=tuned, metrics=folder / "metrics.json", report=folder / "report")
run("predict", {"split": "val"}, forecaster=tuned, predictions=folder / "predictions")
assert load_forecaster(tuned)[1]["model"] == {"arch": "toy"}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process that finds a copy of maskcast with the toy in it."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "src/maskcast", source / "maskcast", ignore=shutil.ignore_patterns("__pycache__"))
    family = source / "maskcast/models/forecasting"
    (family / "toy.py").write_text(TOY)
    configs = (family / "configs.py").read_text()
    told = "ConvLSTMConfig | ConvGRUConfig"
    assert configs.count(told) == 1
    added = "from maskcast.models.forecasting.toy import ToyConfig\n\nForecasterConfig = "
    (family / "configs.py").write_text(
        configs.replace("ForecasterConfig = ", added).replace(told, f"ToyConfig | {told}")
    )
    return os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_passes_the_contract_suite(environment: dict[str, str]) -> None:
    suite = ROOT / "tests/contract/test_forecasters.py"
    said = run(environment, "-m", "pytest", suite, "-q", "-k", "ToyConfig", "-p", "no:cacheprovider")
    assert " passed" in said and "skipped" not in said


def test_all_stages_take_it(environment: dict[str, str], tmp_path: Path) -> None:
    run(environment, "-c", STAGES, tmp_path)
    assert (tmp_path / "predictions/index.json").is_file() and (tmp_path / "report/forecast.png").is_file()
