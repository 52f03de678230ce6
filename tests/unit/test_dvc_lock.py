"""What runs record of the stages before them, from DVC's lock."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.registry.lineage import _data_lines
from maskcast.registry.store import Registry
from maskcast.runner.dvc_lock import dvc_hashes, locked_stages, params_of_data
from maskcast.runner.provenance import DATA_PARAMS, MAX_TAG, run_tags

LOCK = """
schema: '2.0'
stages:
  fetch_dataset:
    cmd: maskcast fetch_dataset --params params.yaml --raw data/raw
    params: {params.yaml: {fetch_dataset: {uri: 'https://me:word@host/videos'}}}
    outs: [{path: data/raw, md5: aa.dir}]
  prepare_clips:
    cmd: maskcast prepare_clips --params params.yaml --raw data/raw --clips data/clips
    deps: [{path: code/prepare_clips, md5: bb}, {path: data/raw, md5: aa.dir}]
    params: {params.yaml: {prepare_clips: {limit: 6}}}
    outs: [{path: data/clips, md5: cc.dir}]
  hidden:
    cmd: maskcast prepare_clips --name hidden --params params.yaml --raw data/raw --clips data/hidden
    deps: [{path: data/raw, md5: aa.dir}]
    params: {params.yaml: {hidden: {limit: 2}}}
    outs: [{path: data/hidden, md5: dd.dir}]
  train_masker:
    cmd: maskcast train_masker --params params.yaml --clips data/clips --masker models/masker
    deps: [{path: data/clips, md5: cc.dir}]
    params: {params.yaml: {train_masker: {training: {epochs: 3}}}}
    outs: [{path: models/masker, md5: ee.dir}]
"""


class NoParams(Params):
    pass


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "evaluate")
    Path("dvc.lock").write_text(LOCK)
    return tmp_path


def test_params_of_data_are_those_of_the_stages_without_runs_before_an_input() -> None:
    fetched = {"fetch_dataset": {"uri": "https://me:word@host/videos"}}
    clips = fetched | {"prepare_clips": {"limit": 6}}
    assert params_of_data(locked_stages(), {"clips": Path("data/clips")}) == clips
    assert params_of_data(locked_stages(), {"masker": Path("models/masker")}) == clips
    assert params_of_data(locked_stages(), {"clips": Path("data/hidden")}) == fetched | {"hidden": {"limit": 2}}
    assert params_of_data(locked_stages(), {"clips": Path("elsewhere")}) == {}
    assert dvc_hashes(locked_stages(), {"clips": Path("data/clips"), "masks": Path("elsewhere")}) == {
        "clips": "cc.dir"
    }


def test_a_run_has_them_as_tags_without_secrets_and_within_mlflows_limit(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data/clips").write_text("clips")
    inputs = {"clips": Path("data/clips")}
    tags = run_tags("evaluate", NoParams(), inputs)
    assert tags[f"{DATA_PARAMS}prepare_clips"] == json.dumps({"limit": 6})
    assert "word" not in tags[f"{DATA_PARAMS}fetch_dataset"]
    Path("dvc.lock").write_text(LOCK.replace("limit: 6", f"names: {'x' * MAX_TAG}"))
    assert len(run_tags("evaluate", NoParams(), inputs)[f"{DATA_PARAMS}prepare_clips"]) == MAX_TAG


def test_values_that_json_lacks_are_text(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data/clips").write_text("clips")
    Path("dvc.lock").write_text(LOCK.replace("limit: 6", "until: 2026-01-31"))
    tags = run_tags("evaluate", NoParams(), {"clips": Path("data/clips")})
    assert tags[f"{DATA_PARAMS}prepare_clips"] == '{"until": "2026-01-31"}'


def test_single_keys_that_dvc_tracks_stand_in_their_sections() -> None:
    tracked = "{prepare_clips.height: 96, prepare_clips.source.fps: 5, prepare_clips.source.frames: 9, seed: 1}"
    Path("dvc.lock").write_text(LOCK.replace("{prepare_clips: {limit: 6}}", tracked))
    found = params_of_data(locked_stages(), {"clips": Path("data/clips")})
    assert found["prepare_clips"] == {"height": 96, "source": {"fps": 5, "frames": 9}}
    assert found["seed"] == 1


def test_lineage_prints_params_that_are_no_section() -> None:
    tags = {f"{DATA_PARAMS}prepare_clips.height": "96", "maskcast.name": "train_masker"}
    lines = _data_lines([SimpleNamespace(data=SimpleNamespace(tags=tags), info=SimpleNamespace(run_name="a"))])
    assert lines == ["prepare_clips.height: made data of train_masker, has no run of its own", "  96"]


def test_outside_of_dvc_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    assert locked_stages() == []


@pytest.mark.parametrize("stage", ["register_models", "register_detector"])
def test_without_a_registry_the_error_names_the_command_that_registers_what_was_pulled(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaskcastError, match="does not exist; run the pipeline, change"):
        Registry("maskcast").versions()
    Path("dvc.lock").write_text(f"{LOCK}  {stage}:\n    cmd: maskcast {stage} --params params.yaml\n")
    with pytest.raises(MaskcastError, match=f"does not exist; run `dvc repro -f -s {stage}`, change"):
        Registry("maskcast").versions()
