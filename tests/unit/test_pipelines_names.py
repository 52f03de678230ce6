"""A pipeline that holds a stage twice: each name has its values, its pod and its row."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskcast.__main__ import main
from maskcast.errors import MaskcastError
from pipelines import PIPELINES
from pipelines.client.package import make_package
from pipelines.cluster import load_cluster
from pipelines.compile import build, read_values, stages_of
from pipelines.placement import Placement

PARAMS = Path(__file__).resolve().parents[1] / "two_maskers/params.yaml"
IMAGE = f"registry.example.com/maskcast@sha256:{'ab' * 32}"
CLUSTER = {
    "image": IMAGE,
    "workspace": {"claim": "work"},
    "pods": {"gpu": {"gpus": 1, "memory": "16Gi"}},
    "stages": {"train_masker": {"memory": "32Gi"}, "second_masker": {"gpus": 4}},
}


@pytest.fixture(autouse=True)
def _with_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINES, "two_maskers", "tests.two_maskers.pipeline:two_maskers")


def placed(folder: Path, **changes: Any) -> Placement:
    """Returns where the stages of the pipeline run on a cluster."""
    (folder / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER | changes))
    on = Placement(IMAGE, load_cluster(folder / "cluster.yaml"))
    build("two_maskers", read_values("two_maskers", PARAMS, ()).sections, on)
    return on


def test_the_pipeline_says_which_stage_a_section_is_of() -> None:
    names = ("fetch_dataset", "prepare_clips", "train_masker", "generate_masks")
    named = {"second_masker": "train_masker", "second_masks": "generate_masks"}
    assert stages_of("two_maskers") == {name: name for name in names} | named


def test_a_pod_is_that_of_its_kind_then_of_its_stage_then_of_its_name(tmp_path: Path) -> None:
    pods = placed(tmp_path).pods
    found = {name: (pod.gpus, pod.memory) for name, pod in pods.items()}
    assert found["train_masker"] == (1, "32Gi")
    assert found["second_masker"] == (4, "32Gi")
    assert found["generate_masks"] == found["second_masks"] == (1, "16Gi")


def test_a_stage_of_the_cluster_is_one_or_a_name_of_one(tmp_path: Path) -> None:
    said = "stages.third_masker: unknown stage 'third_masker'; stages: .*second_masker"
    with pytest.raises(MaskcastError, match=said):
        placed(tmp_path, stages={"third_masker": {"gpus": 1}})


def test_each_name_has_a_task_with_its_display_name_and_checkpoints_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER))
    out = tmp_path / "out.yaml"
    which = ["--pipeline", "two_maskers", "--params", str(PARAMS), "--cluster", str(tmp_path / "cluster.yaml")]
    assert main(["pipeline", "compile", *which, "--out", str(out)]) == 0
    pipeline, _ = yaml.load_all(out.read_text(), yaml.CSafeLoader)
    shown = {}
    for task in pipeline["root"]["dag"]["tasks"].values():
        component = pipeline["components"][task["componentRef"]["name"]]
        container = pipeline["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        shown[task["taskInfo"]["name"]] = environment["MASKCAST_RESUME_DIR"]
    assert shown["train masker"] == "/workspace/resume/train_masker"
    assert shown["second masker"] == "/workspace/resume/second_masker"
    assert len(set(shown.values())) == len(shown) == 6


def test_a_run_is_given_other_values_by_name(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER))
    given = argparse.Namespace(
        cluster=tmp_path / "cluster.yaml",
        pipeline="two_maskers",
        params=PARAMS,
        set=["second_masker.training.epochs=3"],
        grid=None,
        no_cache=False,
    )
    parameters = make_package(given, load_cluster(given.cluster)).parameters
    assert parameters["second_masker"]["training"]["epochs"] == 3
    assert parameters["train_masker"]["training"]["epochs"] == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("second_masker.training.epochs=0", "second_masker.training.epochs: input should be greater"),
        ("second_masker.confidence_levels=4", "second_masker.confidence_levels: unknown key"),
        (
            "third_masker.training.epochs=1",
            "unknown section 'third_masker'; did you mean 'train_masker'. allowed: fetch_dataset, ",
        ),
    ],
)
def test_a_section_is_checked_as_its_stage_checks_it(override: str, said: str) -> None:
    with pytest.raises(MaskcastError, match=said):
        read_values("two_maskers", PARAMS, [override])
