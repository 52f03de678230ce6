"""Promotions that were interrupted, and aliases, models and files that were changed by other means."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from tests.integration.mlflow_server import mlflow_server
from tests.servers import START_S

from maskcast.__main__ import main
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.registry.audit_trail import champion_for, decisions
from maskcast.registry.promotion import promote, rollback
from maskcast.registry.store import Registry

Register = Callable[..., int]


@pytest.fixture
def register(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers versions with files in the embedded registry; each has other weights and passed a gate."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maskcast.registry.promotion.ABANDONED_S", 0)
    shutil.copy(empty_database, tmp_path / "mlflow.db")

    def register_version(weights: str, name: str = "maskcast", **tags: str) -> int:
        folder = tmp_path / "pipeline"
        (folder / "data/masker").mkdir(parents=True, exist_ok=True)
        for path in ("MLmodel", "input_example.json", "data/masker/model.safetensors"):
            (folder / path).write_text(weights)
        digests = {"masker/model.safetensors": sha256_of(folder / "data/masker/model.safetensors")}
        (folder / "data/digests.json").write_text(json.dumps(digests))
        registry = Registry(name, creates=True)
        experiment = registry.client.get_experiment_by_name("maskcast")
        is_server = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
        location = None if is_server else (tmp_path / "mlartifacts").as_uri()
        found = experiment.experiment_id if experiment else registry.client.create_experiment("maskcast", location)
        run = registry.client.create_run(found).info
        registry.client.log_artifacts(run.run_id, str(folder), "pipeline")
        own = {"maskcast.digest": sha256_of(folder / "data/digests.json"), "maskcast.verdict": "passed"}
        own |= {f"maskcast.{tag}": value for tag, value in tags.items()}
        return registry.create(f"{run.artifact_uri}/pipeline", run.run_id, own)

    return register_version


def forced(number: int) -> None:
    promote("maskcast", str(number), "a test", force=True)


def outcomes() -> list[str]:
    return [each.outcome for each in decisions("maskcast")]


@pytest.mark.parametrize("again", [True, False])
def test_a_promotion_that_was_killed_after_its_alias_moved_is_completed(register: Register, again: bool) -> None:
    """Else the gate would compare with the champion before, and `candidate` would stay on the champion."""
    registry = Registry("maskcast")
    for weights, data in (("a", "old"), ("b", "old"), ("c", "new")):
        registry.set_alias("candidate", register(weights, data=data))
        if weights != "c":
            forced(Registry("maskcast").find("candidate").number)
    registry.set_alias("candidate", 2)
    Registry("maskcast-promotions").tag(2, {"maskcast.outcome": "open"})  # as SIGKILL leaves it
    if again:
        decision = promote("maskcast", "candidate", "", force=False)
        assert (decision.number, decision.version, decision.outcome) == (2, 2, "done")
        assert registry.aliases() == {"champion": 2, "previous": 1}
        assert outcomes() == ["done", "done"]
    forced(3)
    assert outcomes() == ["done", "done", "done"]
    assert registry.aliases() == {"champion": 3, "previous": 2}
    compared = champion_for(registry, "old")
    assert compared is not None and compared.number == 2


def test_a_reason_that_completing_a_promotion_does_not_record_is_said(
    register: Register, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forced(register("a"))
    Registry("maskcast-promotions").tag(1, {"maskcast.outcome": "open"})  # as SIGKILL leaves it
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    assert promote("maskcast", "1", "urgent", force=True).reason == "a test"
    said = "maskcast: completed decision 1 of ann; your reason was not recorded"
    assert said in capsys.readouterr().err
    Registry("maskcast-promotions").tag(1, {"maskcast.outcome": "open"})
    promote("maskcast", "1", "", force=False)
    assert "not recorded" not in capsys.readouterr().err


def test_a_failed_promotion_is_recorded_by_where_the_alias_is(
    register: Register, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, move = Registry("maskcast"), Registry.set_alias

    def refused(self: Registry, alias: str, number: int) -> None:
        if alias == "champion" and number == 2:
            raise PermissionError("403")
        move(self, alias, number)

    forced(register("a"))
    register("b")
    with monkeypatch.context() as patched, pytest.raises(PermissionError):
        patched.setattr(Registry, "set_alias", refused)
        forced(2)
    assert outcomes() == ["abandoned", "done"]  # at once: nobody waits for it

    def unremovable(self: Registry, alias: str) -> None:
        raise PermissionError("403 of an account with EDIT")

    registry.set_alias("candidate", 2)
    with monkeypatch.context() as patched:
        patched.setattr(Registry, "drop_alias", unremovable)
        forced(2)
    assert "keeps the alias candidate (403 of an account with EDIT); ask an account" in capsys.readouterr().err
    assert outcomes()[0] == "done" and registry.aliases()["champion"] == 2


def test_decisions_about_a_deleted_model_say_nothing_of_its_successor(
    register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    forced(register("a", data="d"))
    registry = Registry("maskcast")
    registry.client.delete_registered_model("maskcast")
    assert register("b", data="d") == 1
    assert champion_for(registry, "d") is None
    registry.set_alias("champion", 1)
    assert main(["models", "list"]) == 0
    assert "check: the alias champion is on version 1" in capsys.readouterr().out
    Registry("maskcast-promotions").tag(1, {"maskcast.digest": ""})  # of an older maskcast, by time alone
    assert main(["models", "list"]) == 0
    assert "check: the alias champion is on version 1" in capsys.readouterr().out
    forced(1)
    Registry("maskcast-promotions").tag(2, {"maskcast.digest": ""})
    assert main(["models", "list"]) == 0
    assert "check: " not in capsys.readouterr().out


def test_the_trail_follows_a_renamed_model(register: Register, capsys: pytest.CaptureFixture[str]) -> None:
    forced(register("a"))
    Registry("maskcast").client.rename_registered_model("maskcast", "forecasts")
    assert main(["models", "--name", "forecasts", "list"]) == 0
    said = capsys.readouterr().out
    assert "a test" in said and "check: " not in said
    register("b", "forecasts")
    promote("forecasts", "2", "renamed", force=True)
    assert [each.reason for each in decisions("forecasts")] == ["renamed", "a test"]


def test_a_champion_that_was_set_by_hand_can_be_recorded(
    register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    forced(register("a"))
    Registry("maskcast").set_alias("champion", register("b", gate='{"champion": 1}'))
    assert main(["models", "list"]) == 0
    assert "was moved without `maskcast models`; record it with `promote 2`" in capsys.readouterr().out
    assert main(["models", "promote", "2"]) == 0
    assert "version 2 is the champion, version 1 is the previous one" in capsys.readouterr().out
    assert main(["models", "list"]) == 0
    assert "check: " not in capsys.readouterr().out
    with pytest.raises(MaskcastError, match="maskcast: version 2 is already the champion"):
        promote("maskcast", "2", "", force=False)
    rollback("maskcast")
    assert Registry("maskcast").aliases() == {"champion": 1, "previous": 2}


@pytest.mark.parametrize("file", ["MLmodel", "data/digests.json", "data/masker/model.safetensors"])
def test_a_version_that_lacks_a_file_is_not_promoted(register: Register, file: str, tmp_path: Path) -> None:
    register("a")
    registry = Registry("maskcast")
    version = registry.find("1")
    assert registry.has_files(version)
    (tmp_path / "mlartifacts" / version.run_id / "artifacts/pipeline" / file).unlink()
    assert not registry.has_files(version)
    with pytest.raises(
        MaskcastError, match=rf"version 1: its file {file} is missing or changed in .*; restore it, "
    ):
        forced(1)
    assert decisions("maskcast") == []


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_reason_has_room_in_a_table(
    register: Register, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    register("a")
    assert main(["models", command, *(["1"] if command == "promote" else []), "--reason", "x" * 501]) == 2
    assert capsys.readouterr().err == "error: --reason: has 501 characters; give at most 500\n"
    assert decisions("maskcast") == []


def test_a_second_rollback_does_not_bring_back_what_was_removed(
    register: Register, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for weights in "abc":
        forced(register(weights))
    assert rollback("maskcast", "dark\nat  night").reason == "dark at night"  # one line of the list
    trail = Registry("maskcast-promotions")
    trail.tag(4, {"maskcast.outcome": "open"})  # as SIGKILL leaves it
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    assert rollback("maskcast", "it fails").number == 4
    assert "completed decision 4 of ann; your reason was not recorded" in capsys.readouterr().err
    with pytest.raises(
        MaskcastError, match=r"^maskcast: ann has rolled back to version 2 already \(decision 4\); to use another "
    ):
        rollback("maskcast")
    assert Registry("maskcast").aliases() == {"champion": 2, "previous": 3}
    forced(1)
    rollback("maskcast")  # what was promoted since can be rolled back
    assert Registry("maskcast").aliases() == {"champion": 2, "previous": 1}


def test_a_decision_names_the_account_that_mlflow_uses(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = register("a")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_username = carol\n")
    forced(number)
    assert [each.user for each in decisions("maskcast")] == ["carol"]


def test_whoever_lacks_the_right_leaves_nothing_behind(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """READ does not suffice to promote; EDIT does, but not to remove the alias `candidate`."""
    auth, password = tmp_path / "auth.ini", "password-of-all-1"
    lines = ["[mlflow]", "default_permission = READ", f"database_uri = sqlite:///{tmp_path / 'auth.db'}"]
    lines += ["admin_username = admin", f"admin_password = {password}"]
    lines += ["authorization_function = mlflow.server.auth:authenticate_request_basic_auth"]
    lines += ["auth_cache_ttl_seconds = 60"]  # as docker/mlflow-auth.ini: a hash costs a tenth of a second
    auth.write_text("\n".join(lines))
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "server.db")
    with mlflow_server(tmp_path, auth=auth) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)

        def as_admin(action: str, version: int, content: dict[str, str]) -> None:
            address = f"{uri}/api/{version}.0/mlflow/users/{action}"
            requests.post(address, auth=("admin", password), json=content, timeout=START_S).raise_for_status()

        for name in ("ann", "ben"):
            as_admin("create", 2, {"username": name, "password": password})
        Registry("maskcast").set_alias("candidate", register("a"))  # by Ann
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ben")
        assert main(["models", "promote", "--force", "--reason", "why not"]) == 2
        assert "Permission denied" in capsys.readouterr().err
        assert decisions("maskcast") == [] and Registry("maskcast").aliases() == {"candidate": 1}
        may_edit = {"resource_type": "registered_model", "resource_id": "maskcast", "permission": "EDIT"}
        as_admin("permissions/grant", 3, {"username": "ben"} | may_edit)
        assert main(["models", "promote", "--force", "--reason", "why not"]) == 0
        said = capsys.readouterr()
        assert "version 1 keeps the alias candidate" in said.err and "by ben" in said.out
        assert outcomes() == ["done"] and Registry("maskcast").aliases() == {"candidate": 1, "champion": 1}
