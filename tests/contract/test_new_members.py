"""A new source, segmenter or forecaster is one module and one line: it passes the contract suite of its family,
and all stages take it, from `prepare_clips` to `predict`.

The toys are put into a copy of the package. The source has two label maps, the segmenter a state.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

SOURCE = '''"""A toy: squares, with their classes and their opacity as two label maps."""

from functools import partial
from typing import Literal

import numpy as np
from tests.conftest import moving_squares

from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.labels import LabelMap

MAPS = (
    LabelMap("squares", ("background", "red", "blue")),
    LabelMap("matte", ("background", "foreground"), "alpha"),
)
KINDS = {"train": "labelled", "val": "labelled", "unlabeled": "unlabelled", "hidden": "hidden"}


def load(seed: int, kind: str) -> Arrays:
    frames, squares = moving_squares(seed, 22, 16, 24)
    masks = {"squares": squares, "matte": np.array([0, 250, 120], np.uint8)[squares]}
    return Arrays(frames, masks if kind == "labelled" else {})


class ToySource(SourceConfig):
    """Moving squares."""

    layout: Literal["toy"] = "toy"

    def listing(self, raw, *, height, width, seed):
        clips = [
            RawClip(f"{split}_{k}", split, kind, partial(load, 10 * number + k, kind))
            for number, (split, kind) in enumerate(KINDS.items())
            for k in range(2)
        ]
        return Listing(clips, MAPS)
'''
FORECASTER = '''"""A toy: two masks to the next one by a convolution, again and again."""

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
SEGMENTER = (ROOT / "tests/toy_segmenter.py").read_text(encoding="utf-8").replace('"memory"', '"toy"')
STAGES = """
import sys
from pathlib import Path
from maskcast.data.clip_store.reader import ClipStore
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.table import load_masker
from maskcast.runner.run import run_stage

folder = Path(sys.argv[1])
out = {name: folder / name for name in ("raw", "clips", "masker", "masks", "pretrained", "forecaster")}
out["raw"].mkdir()
training = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"}


def run(stage, params, inputs, **outputs):
    paths = {name: out[name] for name in inputs.split()} | {name: folder / path for name, path in outputs.items()}
    run_stage(stage, params, **paths)


run("prepare_clips", {"source": {"layout": "toy"}, "workers": 1}, "raw", clips="clips")
model, window = {"arch": "toy"}, {"frames": 6, "chunk": 2, "burn_in": 2}
learned = {"training": training, "model": model, "window": window, "augment": {"crop": [16, 16]}}
run("train_masker", learned, "clips", masker="masker", metrics="masker.json")
run("generate_masks", {"consistent_frames": 11}, "clips masker", masks="masks", metrics="masks.json")
seen, told = "clips masks masker", {"label_map": "squares"}
run("pretrain_forecaster", {"training": training, "model": {"arch": "toy"}, **told}, seen,
    pretrained="pretrained", metrics="pretrained.json")
run("finetune_forecaster", {"training": training, **told}, f"{seen} pretrained",
    forecaster="forecaster", metrics="forecaster.json")
run("evaluate", {"pictures": 1, **told}, f"{seen} forecaster", metrics="metrics.json", report="report")
run("predict", told, f"{seen} forecaster", predictions="predictions")

assert [one.name for one in load_masker(out["masker"])[0].maps] == ["squares", "matte"]
assert load_forecaster(out["forecaster"])[1]["model"] == {"arch": "toy"}
masks, forecast = ClipStore(out["masks"]), ClipStore(folder / "predictions")
assert set(masks.maps) == {"squares", "matte"} and set(forecast.maps) == {"squares"}
assert masks.of("matte").masks(masks.get("hidden_0")).shape == (22, 16, 24)
assert forecast.masks(forecast.get("hidden_0")).shape == (11, 16, 24)
"""


def one_line(path: Path, place: str, more: str) -> None:
    """Writes ``more`` before the one place in a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(place) == 1, f"{path} has {place!r} {text.count(place)} times"
    path.write_text(text.replace(place, more + place), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its tests with the toys in it."""
    root = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "artifacts", "integration")
    for folder in ("src/maskcast", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)
    package = root / "src/maskcast"
    for module, text, table, config in (
        ("data/sources/toy", SOURCE, "data/sources/table.py", "ToySource"),
        ("models/segmentation/toy", SEGMENTER, "models/segmentation/configs.py", "MemoryConfig"),
        ("models/forecasting/toy", FORECASTER, "models/forecasting/configs.py", "ToyConfig"),
    ):
        (package / f"{module}.py").write_text(text, encoding="utf-8")
        import_line = f"from maskcast.{module.replace('/', '.')} import {config}\n\n"
        before, union, after = (package / table).read_text(encoding="utf-8").partition("\n_Own = ")
        assert union, f"{table} has no union _Own"
        opening = "(" if after.startswith("(") else ""
        members = f"{opening}{config} | {after.removeprefix('(').lstrip()}"
        (package / table).write_text(f"{before}\n{import_line}{union}{members}", encoding="utf-8")
    cases = root / "tests/contract"
    one_line(cases / "test_sources.py", '    "synthetic": write_nothing', '    "toy": lambda raw: {},\n')
    toy = '    "toy": TypeAdapter(SegmenterConfig).validate_python({"arch": "toy"}),\n'
    one_line(cases / "test_segmenters.py", '    "memory": MemoryConfig()', toy)
    return root


def run(root: Path, *arguments: str | Path) -> str:
    environment = os.environ | {
        "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
    }
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("suite", "case"), [("sources", "toy or case"), ("segmenters", "toy or case"), ("forecasters", "ToyConfig")]
)
def test_a_toy_passes_the_contract_suite_of_its_family(copy: Path, suite: str, case: str) -> None:
    file = f"tests/contract/test_{suite}.py"
    said = run(copy, "-m", "pytest", file, "-q", "-k", case, "-p", "no:cacheprovider")
    assert " passed" in said and "skipped" not in said


def test_all_stages_take_the_toys(copy: Path, tmp_path: Path) -> None:
    run(copy, "-c", STAGES, tmp_path)
    assert (tmp_path / "report/forecast.png").is_file()
