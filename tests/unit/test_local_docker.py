"""Containers of a local run reach what processes on this machine reach: registry, proxies and certificates."""

import re
from pathlib import Path

import pytest

from maskcast.errors import MaskcastError
from maskcast.runner.mlflow_client import check_database, new_client
from maskcast.runner.mlflow_uri import tracking_uri
from pipelines.local_docker import surroundings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, without an address of MLflow, and an empty home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_containers_use_the_registry_of_processes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, bound = surroundings({}, here / "kfp-local", [here / "raw"])
    assert environment == {"MLFLOW_TRACKING_URI": tracking_uri()}
    assert bound == {here / "raw": False, here: True}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")  # from a folder, as in the shell
    assert surroundings({}, here, []) == (environment, {})  # the runner mounts it already
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/absent/mlflow.db")
    with pytest.raises(MaskcastError, match=r"absent/mlflow\.db: cannot be written"):
        surroundings({}, here, [])


@pytest.mark.parametrize("name", ["x%20y", "why?"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_database_in_a_folder_that_mlflow_would_take_for_another_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, read_only: bool
) -> None:
    """MLflow makes the folder of the encoded path: an empty one beside the project, or it fails after minutes."""
    (here / name).mkdir()
    monkeypatch.chdir(here / name)
    with pytest.raises(
        MaskcastError, match=rf"{re.escape(name)}/mlflow\.db: MLflow cannot use a path with % or \?; ren"
    ):
        new_client(read_only=read_only)
    assert [path.name for path in here.iterdir()] == [name]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")
    check_database(tracking_uri(), read_only=False)


def test_a_server_needs_no_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    variables = {"MLFLOW_TRACKING_URI": "http://localhost:5000", "HOME": "/root"}
    assert surroundings(variables, here / "out", []) == ({"MLFLOW_TRACKING_URI": "http://localhost:5000"}, {})


def test_containers_get_proxies_and_the_files_of_certificates(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    ca = here / "company.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----")
    given = {
        "HTTPS_PROXY": "http://proxy.example.com:3128",
        "HTTP_PROXY": "http://proxy.example.com:3128",
        "NO_PROXY": "localhost",
        "https_proxy": "http://proxy.example.com:3128",
        "REQUESTS_CA_BUNDLE": str(ca),
        "SSL_CERT_FILE": str(ca),
        "AWS_CA_BUNDLE": str(ca),
        "MLFLOW_TRACKING_SERVER_CERT_PATH": "company.pem",
        "AWS_CONFIG_FILE": "/absent/config",
    }
    environment, bound = surroundings({**given, "LESSOPEN": "x"}, here / "out", [])
    assert environment == {**given, "MLFLOW_TRACKING_SERVER_CERT_PATH": str(ca)}
    assert bound == {ca: False}


def test_containers_read_the_profiles_of_aws_and_keep_their_own_cache_of_dvc(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    folder = here / "home/.aws"
    folder.mkdir(parents=True)
    files = {"AWS_CONFIG_FILE": folder / "config", "AWS_SHARED_CREDENTIALS_FILE": folder / "credentials"}
    for path in files.values():
        path.touch()
    given = {"AWS_PROFILE": "team", "DVC_SITE_CACHE_DIR": "/var/cache/dvc", "DVC_NO_ANALYTICS": "1"}
    environment, bound = surroundings(given, here / "out", [])
    kept = {"AWS_PROFILE": "team", "DVC_NO_ANALYTICS": "1"}
    assert environment == kept | {name: str(path) for name, path in files.items()}
    assert bound == dict.fromkeys(files.values(), False)
    other = here / "mine"
    other.touch()
    environment, bound = surroundings({"AWS_SHARED_CREDENTIALS_FILE": str(other)}, here / "out", [])
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == str(other)
    assert bound == {other: False, files["AWS_CONFIG_FILE"]: False}
