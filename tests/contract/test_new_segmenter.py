"""A new segmenter is one module and one line: it then passes the contract suite, and all stages take it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

STAGES = """
import sys
from pathlib import Path
from tests.conftest import write_store
from maskcast.models.segmentation.table import load_masker
from maskcast.params import validate
from maskcast.runner.stage import get_stage

folder = Path(sys.argv[1])
clips = write_store(folder / "clips", train=2, val=1, unlabeled=1).root
masker, masks, forecaster = folder / "masker", folder / "masks", folder / "forecaster"
training = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"}


def run(name, params, **paths):
    stage = get_stage(name)
    stage.function(**paths, params=validate(stage.params, params, name))


window = {"frames": 4, "chunk": 2, "burn_in": 1}
run("train_masker", {"model": {"arch": "memory"}, "training": training, "window": window}, clips=clips,
    masker=masker, metrics=folder / "masker.json")
run("generate_masks", {"consistent_frames": 11}, clips=clips, masker=masker, masks=masks,
    metrics=folder / "masks.json")
given = {"clips": clips, "masks": masks, "masker": masker}
frames = {"arch": "convlstm", "input": "frames", "hidden": 4, "stride": 4}
run("pretrain_forecaster", {"training": training, "model": frames}, **given, pretrained=folder / "pretrained",
    metrics=folder / "pretrained.json")
run("finetune_forecaster", {"training": training}, **given, pretrained=folder / "pretrained",
    forecaster=forecaster, metrics=folder / "forecaster.json")
given["forecaster"] = forecaster
run("evaluate", {"pictures": 1}, **given, metrics=folder / "metrics.json", report=folder / "report")
run("predict", {"split": "val"}, **given, predictions=folder / "predictions")
assert load_masker(masker)[1]["model"] == {"arch": "memory", "width": 8}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process that finds a copy of maskcast with the toy in it."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "src/maskcast", source / "maskcast", ignore=shutil.ignore_patterns("__pycache__"))
    family = source / "maskcast/models/segmentation"
    shutil.copy(ROOT / "tests/toy_segmenter.py", family / "memory.py")
    configs = (family / "configs.py").read_text()
    told = "UNetConfig | SmpConfig"
    assert configs.count(told) == 1
    added = "from maskcast.models.segmentation.memory import MemoryConfig\n\nSegmenterConfig = "
    (family / "configs.py").write_text(
        configs.replace("SegmenterConfig = ", added).replace(told, f"MemoryConfig | {told}")
    )
    return os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_passes_the_contract_suite(environment: dict[str, str]) -> None:
    suite = ("tests/contract/test_segmenters.py", "-k", "memory or union", "-q", "-p", "no:cacheprovider")
    told = run(environment, "-m", "pytest", *suite)
    assert "passed" in told and "skipped" not in told


def test_every_stage_takes_it(environment: dict[str, str], tmp_path: Path) -> None:
    run(environment, "-c", STAGES, tmp_path)
    assert (tmp_path / "predictions/index.json").is_file()
