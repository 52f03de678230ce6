"""What is submitted: nothing that may change, nothing secret, nothing of this machine."""

import argparse
import re
from pathlib import Path

import pytest
import yaml

from maskcast.errors import MaskcastError
from pipelines.client.package import Package, make_package
from pipelines.cluster import Cluster, load_cluster

ROOT = Path(__file__).resolve().parents[2]
IMAGE = f"registry.example.com/maskcast@sha256:{'ab' * 32}"
CLUSTER = {
    "image": IMAGE,
    "namespace": "team",
    "pipeline_root": "s3://bucket/runs",
    "env": {"MLFLOW_TRACKING_URI": "http://mlflow.mlflow.svc:5000", "AWS_DEFAULT_REGION": "us-east-1"},
    "secrets": {
        "maskcast-s3": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
        "maskcast-mlflow": ["MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"],
    },
    "image_pull_secrets": ["registry"],
    "workspace": {"claim": "maskcast-workspace"},
    "pods": {"gpu": {"gpus": 1, "shared_memory": "8Gi", "retries": 2}},
}


def package(folder: Path, *overrides: str, params: Path = ROOT / "params.yaml", **changes: object) -> Package:
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(CLUSTER | changes))
    cluster: Cluster = load_cluster(file)
    flags = {"cluster": file, "pipeline": "forecasting", "params": params, "set": list(overrides), "grid": None}
    given = argparse.Namespace(**flags, no_cache=False)
    return make_package(given, cluster)


def test_what_is_submitted_holds_no_credential_no_local_path_and_no_mutable_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for keys in CLUSTER["secrets"].values() for name in keys]
    names += ["KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE", "MLFLOW_TRACKING_TOKEN", "AWS_SESSION_TOKEN"]
    for name in names:
        monkeypatch.setenv(name, f"the value of {name}")
    made = package(tmp_path)
    text = f"{made.ir}\n{made.parameters}"
    assert "the value of" not in text
    assert all(name in text for keys in CLUSTER["secrets"].values() for name in keys)  # read from the secrets
    for folder in (ROOT, Path.cwd(), Path.home(), tmp_path):
        assert folder == Path("/") or str(folder) not in text
    images = re.findall(r"^\s*image: (\S+)$", made.ir, re.MULTILINE)
    assert set(images) == {IMAGE}
    pipeline, platform = yaml.load_all(made.ir, yaml.CSafeLoader)
    executors = pipeline["deploymentSpec"]["executors"]
    assert len(images) == len(executors) == len(platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])


@pytest.mark.parametrize("image", ["registry.example.com/maskcast:latest", "maskcast"])
def test_an_image_that_may_change_is_refused(tmp_path: Path, image: str) -> None:
    with pytest.raises(MaskcastError, match=r"cluster\.yaml: image .* is not pinned .* pin it") as caught:
        package(tmp_path, image=image)
    assert image in str(caught.value)


def test_data_on_this_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(MaskcastError, match=r"fetch_dataset\.uri: .*/videos is on this machine"):
        package(tmp_path, f"fetch_dataset.uri={tmp_path / 'videos'}")
    with pytest.raises(MaskcastError, match=r"fetch_dataset\.uri: .*/videos is on this machine"):
        package(tmp_path, f"fetch_dataset.uri=file://{tmp_path / 'videos'}")
    with pytest.raises(MaskcastError, match=r"fetch_dataset\.uri: .*/videos is on this machine"):
        package(tmp_path, f"fetch_dataset.uri=file://{tmp_path}/%76ideos")
    with pytest.raises(MaskcastError, match="http://host/videos: unknown address; write s3://bucket/prefix"):
        package(tmp_path, "fetch_dataset.uri=http://host/videos")


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match=r"train_masker\.trainig: unknown key"):
        package(tmp_path, "train_masker.trainig.epochs=3")


def test_values_of_a_run_are_not_compiled_in(tmp_path: Path) -> None:
    usual, other = package(tmp_path), package(tmp_path, "train_masker.training.epochs=3")
    assert (usual.version, usual.ir) == (other.version, other.ir)
    assert re.fullmatch("[0-9a-f]{12}", usual.version)  # servers put the pipeline's name before it
    assert other.parameters["train_masker"]["training"]["epochs"] == 3
    usual.parameters["train_masker"]["training"]["epochs"] = 3
    assert usual.parameters == other.parameters


def test_another_image_or_other_defaults_are_another_version(tmp_path: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["evaluate"]["pictures"] = 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    image = IMAGE.replace("ab", "cd")
    versions = {
        package(tmp_path).version,
        package(tmp_path, image=image).version,
        package(tmp_path, params=tmp_path / "params.yaml").version,
    }
    assert len(versions) == 3
