"""The whole pipeline where a split has no clips: it goes on, or stops at once in prepare_clips."""

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tests.dags import calls
from tests.integration.project import ROOT, shrink

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError


def run_components(folder: Path, **counts: int) -> None:
    """Runs the components of all stages one after the other, as Kubeflow's executor does, at the paths of DVC."""
    params = shrink(yaml.safe_load((ROOT / "params.yaml").read_text()))
    params["prepare_clips"]["source"] |= counts
    for name, call in calls(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]).items():
        shim = getattr(importlib.import_module(f"components.{name}"), name).python_func
        ports = {port: SimpleNamespace(path=str(folder / path), metadata={}) for port, path in call.ports.items()}
        shim(**ports, params=params[name])


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)


def test_without_hidden_and_unlabelled_clips_every_stage_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_components(tmp_path, hidden=0, unlabeled=0)
    assert "nothing to predict: no clip of split 'hidden'" in capsys.readouterr().err
    assert len(ClipStore(tmp_path / "results/predictions").clips) == 0
    assert "jaccard_last" in json.loads((tmp_path / "results/evaluate.json").read_text())
    assert json.loads((tmp_path / "results/registration.json").read_text())["versions"]["maskcast"] == 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_without_clips_to_learn_from_or_to_score_nothing_is_prepared(tmp_path: Path, split: str) -> None:
    with pytest.raises(MaskcastError, match=rf"no clip of split '{split}' .*fix source\.train and source\.val"):
        run_components(tmp_path, **{split: 0})
    assert not (tmp_path / "data/clips").exists() and not (tmp_path / "models").exists()
