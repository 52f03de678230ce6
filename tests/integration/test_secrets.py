"""Planted secrets are in no line, tag, page, database or pipeline that any command leaves."""

import argparse
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from tests.conftest import write_store
from tests.integration.conftest import CLUSTER

from maskcast.__main__ import main
from maskcast.commands.completion import all_parsers, tree

ROOT = Path(__file__).resolve().parents[2]
PLANTED = ("pl4nted", "s3cr3t", "gh0token", "k3y-of-s3")
ENVIRONMENT = {
    "MLFLOW_TRACKING_PASSWORD": "pl4nted/and@more",
    "AWS_SECRET_ACCESS_KEY": "k3y-of-s3/with+signs",
    "GITHUB_TOKEN": "gh0token0123456789",
    "MASKCAST_IMAGE": "https://ann:s3cr3t@registry/maskcast",  # becomes a tag of each run, and stands on its page
    "DVC_EXP_NAME": "of pl4nted/and@more",
}
PARAMS = {
    "fetch_dataset": {"uri": "synthetic"},
    "train_masker": {
        "model": {"arch": "unet", "width": 4},
        "training": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 0.01},
    },
}
SERVERS = (  # that do not answer, that are none, with what a password may hold
    "http://ann:s3cr3t@127.0.0.1:9",
    "http://ann:s3cr3t/w@rd@127.0.0.1:9",
    "https://gh0token0123456789@127.0.0.1:9",
    "ann:s3cr3t@127.0.0.1:9",
    "postgresql://ann:s3cr3t@127.0.0.1:9/x",
    "sqlite:////no/such/place?password=s3cr3t",
)
ADDRESSES = (
    "dvc:https://gh0token0123456789@127.0.0.1:9/a/b#c",
    "dvc:https://ann:s3cr3t/w@rd@127.0.0.1:9/a/b#c",
    "dvc:http://127.0.0.1:9/a/b?token=s3cr3t#c",
    "s3://ann:s3cr3t@bucket/x",
    "s3://bucket/pl4nted/and@more",
    "https://ann:s3cr3t@host/x.zip",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_"))]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("maskcast.storage.s3.ATTEMPTS", 1)
    monkeypatch.setattr("maskcast.runner.tracking.FLUSH_S", 0.1)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    write_store(tmp_path / "clips", train=2, val=2)
    return tmp_path


def found(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


def test_no_secret_is_left_anywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    params = folder.parent / "params.yaml"  # what the user wrote is the user's
    said = []

    def run(*words: str, code: int | None = None) -> None:
        got = main(words)
        out, err = capfd.readouterr()
        said.append(f"{words[:2]}: {out}{err}")
        assert code in (None, got), said[-1]

    def fetch(uri: str) -> None:
        params.write_text(yaml.safe_dump(PARAMS | {"fetch_dataset": {"uri": uri}}))
        run("fetch_dataset", "--params", str(params), "--raw", "raw", code=2)

    params.write_text(yaml.safe_dump(PARAMS))
    train = ["train_masker", "--params", str(params), "--clips", "clips", "--masker", "masker"]
    train += ["--metrics", "metrics.json", "--page", "page.html"]
    run(*train, code=0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    for endpoint in ("http://127.0.0.1:9", "http://ann:s3cr3t/w@rd@127.0.0.1:9", "ann:s3cr3t@127.0.0.1:9"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        fetch("s3://bucket/x")
    for uri in ADDRESSES:
        fetch(uri)
    params.write_text(yaml.safe_dump(PARAMS))
    for server in SERVERS[:4] + SERVERS[5:]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        run("models", "list", code=2)
        run("forecast", "x.mp4", "--model", "models:/maskcast@champion", "--output", "o", code=2)
        if server != SERVERS[0]:
            run(*train)
    assert not [each for each in said if found(each)]
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert {"mlflow.db", "page.html"} <= {path.name for path in kept}
    assert not [path for path in kept if found(path.read_bytes().decode("latin-1"))]


def test_no_secret_is_compiled_into_a_pipeline(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    clusters = (
        CLUSTER.replace("http://mlflow.mlflow.svc:5000", "http://ann:s3cr3t/w@rd@mlflow:5000"),
        CLUSTER.replace("http://mlflow.mlflow.svc:5000", "http://mlflow:5000/?token=s3cr3t"),
        CLUSTER.replace("http://mlflow.mlflow.svc:5000", "http://mlflow:5000/gh0token0123456789"),
    )
    words = ["pipeline", "compile", "--params", str(folder / "params.yaml")]
    words += ["--out", str(folder / "out.yaml"), "--cluster", str(folder / "cluster.yaml")]
    for text in clusters:
        (folder / "cluster.yaml").write_text(text)
        assert main(words) == 2
    (folder / "cluster.yaml").write_text(CLUSTER)
    for uri in ("dvc:https://gh0token0123456789@host/a#b", "s3://bucket/pl4nted/and@more"):
        assert main([*words, "-S", f"fetch_dataset.uri={uri}"]) == 2
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert not found(out + err)
    assert not found((folder / "out.yaml").read_text())


TOLD = "http://ann:s3cr3t@127.0.0.1:9/pl4nted/and@more"  # as an address, a path, a name: whatever a flag takes
# prints a script; needs Docker, and compiles first as `compile` does
ENDLESS = ("completion", "pipeline run-local")


def leaves() -> dict[str, argparse.ArgumentParser]:
    """Returns the parsers of all commands and stages by their words, without those that only lead to others."""
    found = {parser.prog.removeprefix("maskcast "): parser for parser in all_parsers(tree())}
    groups = {name for name in found if any(other.startswith(f"{name} ") for other in found)}
    return {name: one for name, one in found.items() if name not in groups | {"maskcast", *ENDLESS}}


def filled(parser: argparse.ArgumentParser) -> list[str]:
    """Returns a value for every argument of a command that takes one: an address with a password where it can."""
    words, positional = [], []
    for action in parser._actions:
        if action.nargs == 0 or action.dest in ("help", "wait"):
            continue
        value = str(next(iter(action.choices))) if action.choices else "1" if action.type in (int, float) else TOLD
        if action.dest == "set" or "-S" in action.option_strings:
            value = f"fetch_dataset.uri={TOLD}"
        (words if action.option_strings else positional).extend([*action.option_strings[-1:], value])
    return [*words, "--", *positional] if positional else words


def test_no_command_and_no_stage_says_a_secret_that_it_was_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cr3t@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("maskcast.runner.kube.ACCOUNT", folder / "nowhere")
    monkeypatch.setenv("KUBECONFIG", str(folder / "nowhere"))
    for name in ("dvc.yaml", "params.yaml"):  # a project, for `maskcast pipeline`
        shutil.copy(ROOT / name, folder)
    (folder / "pipelines").symlink_to(ROOT / "pipelines")
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    commands = leaves()
    assert {"models list", "segment", "serve", "pipeline submit", "train_masker", "evaluate_many"} <= {
        name.replace("evaluate-many", "evaluate_many") for name in commands
    }
    for name, parser in commands.items():
        before = {path for path in folder.rglob("*") if path.is_file()}
        try:
            code = main([*name.split(), *filled(parser)])
        except SystemExit as stop:  # argparse: a flag that no address can be
            code = stop.code
        out, err = capfd.readouterr()
        assert not found(out + err), f"{name} ({code}): {out}{err}"
        assert "Traceback" not in out + err, f"{name} ({code}): {out}{err}"
        new = {path for path in folder.rglob("*") if path.is_file()} - before
        assert not [path for path in new if found(path.read_bytes().decode("latin-1"))], name
        if name == "new":  # `dry-run` will try the stages of this project: some will do
            dvc_yaml = folder / TOLD / "dvc.yaml"
            stages = yaml.safe_load(dvc_yaml.read_text())["stages"]
            few = {stage: stages[stage] for stage in ("fetch_dataset", "prepare_clips")}
            dvc_yaml.write_text(yaml.safe_dump({"stages": few}))
