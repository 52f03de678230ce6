"""A pipeline that holds stages twice runs as its dvc.yaml says: names reach params, runs, pages and errors."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from safetensors.numpy import load_file
from tests.dags import CODE

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore

EXAMPLE = Path(__file__).resolve().parents[1] / "two_maskers"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands of the example were run, in order."""
    folder = tmp_path_factory.mktemp("two_maskers")
    shutil.copy(EXAMPLE / "params.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, entry in stages().items():
            if name != CODE:
                assert main(shlex.split(entry["cmd"])[1:]) == 0
    return folder


def stages() -> dict[str, Any]:
    return yaml.safe_load((EXAMPLE / "dvc_example.yaml").read_text())["stages"]


def test_each_name_has_its_own_section_of_params(ran: Path) -> None:
    first, second = (load_file(ran / f"models/{name}/model.safetensors") for name in ("masker", "second_masker"))
    assert any((first[key] != second[key]).any() for key in first)  # of another seed
    steps = {}
    for name in ("masks", "second_masks"):
        store = ClipStore(ran / "data" / name)
        clip = store.select("val")[0]
        steps[name] = len(set(store.confidence(clip).ravel().tolist()))
    assert steps["masks"] <= 8
    assert steps["second_masks"] <= 4


def test_runs_go_by_their_names_and_say_what_they_ran(ran: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{ran / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "maskcast"]
    runs = client.search_runs([experiment.experiment_id])
    stage = {"second_masker": "train_masker", "second_masks": "generate_masks"}
    names = {"train_masker", "second_masker", "generate_masks", "second_masks"}
    assert {run.info.run_name.split()[0] for run in runs} == names  # what differs follows
    for run in runs:
        name, tags = run.info.run_name.split()[0], run.data.tags
        assert (tags["maskcast.name"], tags["maskcast.stage"]) == (name, stage.get(name, name))
        assert f"{name}.html" in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert len({run.data.tags["maskcast.params_hash"] for run in runs}) == len(names)


@pytest.mark.parametrize("name", ["train_masker", "second_masker"])
def test_a_page_has_the_name_as_its_title(ran: Path, name: str) -> None:
    assert f"<title>{name}</title>" in (ran / f"results/{name}.html").read_text()


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("second_masker", {"epochs": 0}, "params.yaml: second_masker.training.epochs: input should be greater"),
        ("third_masker", {}, "params.yaml: section 'third_masker' is missing (sections: fetch_dataset, "),
        ("generate_masks", {}, "--name generate_masks: is another stage, not train_masker"),
    ],
)
def test_errors_name_the_section(
    ran: Path, tmp_path: Path, monkeypatch, capsys, name: str, key: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((EXAMPLE / "params.yaml").read_text())
    params["second_masker"]["training"] |= key
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    flags = ["--clips", str(ran / "data/clips"), "--masker", "masker", "--metrics", "metrics.json"]
    assert main(["train_masker", "--name", name, "--params", "params.yaml", *flags]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
