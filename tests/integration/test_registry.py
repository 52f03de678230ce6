"""Registering, promoting and rolling back on a real MLflow server, and on the embedded default."""

import json
import os
import pickle
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
import sqlalchemy
import torch
from tests.conftest import write_store
from tests.integration.promoters import promote_at_once
from tests.integration.workshop import NO_BASELINE, Workshop, command
from tests.registered import HORIZON, SEEN, write_parts
from tests.servers import free_ports

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.diagnostics import tracking
from maskcast.errors import MaskcastError
from maskcast.evaluation.forecasts import ForecastEvaluation
from maskcast.labels import MASK
from maskcast.models.encoders.configs import UNetEncoderConfig
from maskcast.models.encoders.table import save_encoder
from maskcast.models.forecasting.table import load_forecaster
from maskcast.registry.artifact import load_artifact
from maskcast.registry.audit_trail import decisions
from maskcast.registry.forecast_models import PipelineModel
from maskcast.registry.loading import load_address, pipeline_of
from maskcast.registry.promotion import Transaction, promote, rollback
from maskcast.registry.store import Registry
from maskcast.runner.mlflow_client import new_client
from maskcast.runner.mlflow_moved import update_locations
from maskcast.runner.mlflow_uri import tracking_uri
from maskcast.runner.run import run_stage
from maskcast.stages.evaluate import Evaluate, evaluate
from maskcast.stages.generate_masks import GenerateMasks, generate_masks
from maskcast.stages.register_models import RegisterModels, register_models

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def on_server(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs register_models and returns what it wrote."""

    def register(inputs: dict[str, Path], gate: dict[str, Any] = NO_BASELINE, **params: Any) -> dict[str, Any]:
        out = tmp_path / "registration.json"
        register_models(**inputs, registration=out, params=RegisterModels.model_validate({"gate": gate, **params}))
        return json.loads(out.read_text())

    return register


@pytest.mark.usefixtures("on_server")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_from_the_first_registration_to_the_rollback(
    workshop: Workshop, run: Run, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good, worse = (workshop.forecaster(0, 0.1), workshop.forecaster(1), workshop.forecaster(2, 0.6))
    registry = Registry("maskcast")

    first = run(bad)
    assert first["versions"] == {"maskcast": 1, "maskcast-masker": 1, "maskcast-forecaster": 1}
    assert first["passed"]
    assert first["champion"] is None
    assert re.search(
        r"gate: maskcast version 1 passed: jaccard_mean 0\.\d+ > 0\.\d+ of one class everywhere; no champion",
        capsys.readouterr().err,
    )
    assert run(bad) == first
    assert "these pipeline weights are already registered as maskcast version 1" in capsys.readouterr().err
    assert len(registry.versions()) == 1

    about = registry.client.get_registered_model("maskcast").description
    assert about == "RGB frames of a clip in, class masks of the frames that follow out."

    # MLflow's own loader runs it, and finds signature, example and requirements.
    mlflow.set_tracking_uri(server)
    model = mlflow.pyfunc.load_model("models:/maskcast@candidate")
    store = ClipStore(workshop.clips)
    clips = np.stack([store.frames(clip)[:11] for clip in store.select("val")])
    found = model.predict(clips)
    assert found.shape == (3, 11, 32, 48)
    assert found.dtype == np.uint8
    example = model.input_example
    assert example.shape[0] == 1
    assert model.metadata.signature.inputs.to_dict()[0]["tensor-spec"] == {
        "dtype": "uint8",
        "shape": (-1, -1, -1, -1, 3),
    }
    assert model.predict(example.astype(np.uint8)).shape[:2] == (1, 11)
    folder = Path(mlflow.artifacts.download_artifacts("models:/maskcast/1", dst_path=str(tmp_path / "model")))
    ours, _ = load_artifact(folder, registry.find("1").digest)
    assert np.array_equal(ours.predict(clips[0]), found[0])  # one clip without the batch axis
    card = (folder / "README.md").read_text()
    assert "constant_velocity" in card
    assert store.digest in json.dumps(dict(registry.find("1").tags))
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".pth", ".bin")]

    (folder / "data/python_model.pkl").write_bytes(pickle.dumps(print))
    with pytest.raises(MaskcastError, match=r"python_model\.pkl: unexpected file, not part of the model"):
        mlflow.pyfunc.load_model(str(folder))

    assert command(capsys, "promote")[0] == 0
    assert registry.aliases() == {"champion": 1}
    code, said = command(capsys, "promote")
    line = "version or alias 'candidate' not found; versions: 1, champion; a version gets it by passing the gate"
    assert (code, line in said) == (2, True)

    better = run(good)
    assert better["passed"]
    assert better["champion"] == 1
    assert better["difference"]["low"] > 0
    assert better["versions"] == {"maskcast": 2, "maskcast-masker": 1, "maskcast-forecaster": 2}
    drawn = ["--pictures", str(tmp_path / "differences"), "--clips", str(workshop.clips)]
    code, said = command(capsys, "compare", "champion", "candidate", *drawn)
    assert code == 0
    assert f"{better['difference']['mean']:+.4f} [" in said
    pictures = sorted((tmp_path / "differences").iterdir())
    assert any(picture.name.startswith("B_better_1_val_") for picture in pictures)
    assert said.splitlines()[-len(pictures) :] == [str(picture) for picture in pictures]
    assert command(capsys, "promote", "2", "--reason", "calmer edges")[0] == 0  # a reason is welcome
    assert registry.aliases() == {"champion": 2, "previous": 1}

    failed = run(worse)
    assert not failed["passed"]
    assert failed["difference"]["low"] < -0.01
    assert registry.aliases() == {"champion": 2, "previous": 1}
    code, said = command(capsys, "promote", "3")
    assert (code, "version 3 did not pass the gate; run register_models again, or" in said) == (2, True)
    for words in (["--force"], ["--force", "--reason", " "]):
        code, said = command(capsys, "promote", "3", *words)
        assert (code, "overrules the gate and needs a reason" in said) == (2, True)
    assert command(capsys, "promote", "3", "--force", "--reason", "a demo on Friday")[0] == 0
    assert registry.aliases() == {"champion": 3, "previous": 2}
    code, said = command(capsys, "rollback", "--reason", "drifts at night")
    assert (code, "version 2 is the champion, version 3 is the previous one" in said) == (0, True)
    assert registry.aliases() == {"champion": 2, "previous": 3}

    trail = [
        (each.action, each.version, each.champion, each.reason, each.outcome) for each in decisions("maskcast")
    ]
    assert trail == [
        ("rollback", 2, 3, "drifts at night", "done"),
        ("promote", 3, 2, "a demo on Friday", "done"),
        ("promote", 2, 1, "calmer edges", "done"),
        ("promote", 1, 0, "", "done"),
    ]
    code, said = command(capsys, "list")
    assert code == 0
    for text in (
        "champion",
        "previous",
        "passed",
        "failed",
        "a demo on Friday",
        "rollback",
        "\n\nlast decisions\n",
    ):
        assert text in said
    assert "outcome  reason" in said  # also of a version that passed the gate
    assert ", done, reason: calmer edges" in command(capsys, "lineage", "2")[1]  # its gate was not overruled
    code, said = command(capsys, "lineage", "3")
    assert code == 0
    for text in ("commit: ", "clip store: " + store.digest, "register_models: run ", ", done, reason: a demo"):
        assert text in said

    elsewhere = workshop.forecaster(3, clips=write_store(tmp_path / "other", val=2, train=1).root)
    other = run(elsewhere)
    assert (other["passed"], other["champion"], other["elsewhere"]) == (False, 2, 2)
    line = "not comparable with champion 2: scored on other clips; run `maskcast models evaluate champion` "
    assert line in capsys.readouterr().err
    assert registry.aliases() == {"champion": 2, "previous": 3}
    code, said = command(capsys, "promote", "4")
    assert (code, "version 4 did not pass the gate" in said) == (2, True)
    other = run(elsewhere, gate=NO_BASELINE | {"allow_incomparable": True})
    assert (other["passed"], other["difference"], other["versions"]["maskcast"]) == (True, None, 4)
    assert registry.aliases() == {"champion": 2, "previous": 3, "candidate": 4}
    code, said = command(capsys, "compare", "2", "4")
    assert (code, "versions 2 and 4 are not comparable: scored on other clips" in said) == (2, True)
    assert command(capsys, "promote")[0] == 0  # without --force
    assert registry.aliases() == {"champion": 4, "previous": 2}
    again = run(workshop.forecaster(4, 0.6))  # on the clips of before: held against the last champion on these
    assert (again["passed"], again["champion"]) == (False, 2)


@pytest.mark.usefixtures("on_server")
def test_of_two_who_promote_at_once_one_wins_and_the_other_is_told(
    workshop: Workshop, run: Run, programs: Path
) -> None:
    names = {"pipeline": "contest", "masker": "contest-masker", "forecaster": "contest-forecaster"}
    for seed in (11, 12, 13):
        assert run(workshop.forecaster(seed), names=names)["passed"]
    promote_at_once(programs, "contest", {}, {})

    # The worst moment, made certain: both have read the same state before either decides.
    registry = Registry("contest")
    one, two = Transaction("contest"), Transaction("contest")
    one.decide("promote", registry.find("3"), "")
    before = registry.aliases()
    with pytest.raises(
        MaskcastError, match=r"was first \(decision \d: promote version 3\); your decision has no effect"
    ):
        two.decide("promote", registry.find("previous"), "")
    assert registry.aliases() == before
    assert [each.outcome for each in decisions("contest")][:2] == ["overtaken", "done"]


@pytest.mark.usefixtures("on_server")
def test_a_decision_that_was_killed_blocks_for_a_minute_alone(
    workshop: Workshop, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"pipeline": "killed", "masker": "killed-masker", "forecaster": "killed-forecaster"}
    run(workshop.forecaster(11), names=names)
    registry, trail = Registry("killed"), Registry("killed-promotions")
    Transaction("killed").decide("promote", registry.find("1"), "")
    trail.tag(1, {"maskcast.outcome": "open"})  # as a process leaves it that is killed on its way
    with pytest.raises(MaskcastError, match=r"that is not complete \(promote version 1\); check"):
        Transaction("killed")
    now = time.time() - 3600  # the clock was ahead when it was killed
    monkeypatch.setattr("maskcast.registry.promotion.time", SimpleNamespace(time=lambda: now))
    assert promote("killed", "1", "", force=False).number == 1  # completed
    assert [each.outcome for each in decisions("killed")] == ["done"]


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names no server: mlflow.db in the working directory."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("embedded")
def test_a_registration_whose_disk_is_full_says_so_and_its_run_is_ended_by_the_next(
    workshop: Workshop, tmp_path: Path, empty_database: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    outputs = {"registration": tmp_path / "registration.json", "page": tmp_path / "page.html"}
    disk = SimpleNamespace(is_full=False)

    def execute(cursor: Any, statement: str, *_: Any) -> None:
        disk.is_full |= statement.startswith("INSERT INTO model_versions")
        if disk.is_full and not statement.startswith("SELECT"):
            raise sqlite3.OperationalError("database or disk is full")

    def register() -> None:
        run_stage("register_models", {"gate": NO_BASELINE}, **workshop.forecaster(1), **outputs)

    def statuses() -> list[str]:
        client = new_client()
        experiment = client.get_experiment_by_name("maskcast").experiment_id
        return [each.info.status for each in client.search_runs([experiment])]

    sqlalchemy.event.listen(sqlalchemy.Engine, "do_execute", execute)
    try:
        with pytest.raises(MaskcastError) as refused:
            register()
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "do_execute", execute)
    assert str(refused.value) == (
        f"sqlite:///{tmp_path}/mlflow.db: MLflow error: database or disk is full; free space on its disk, and run "
        "the same command again to resume"
    )
    assert "Traceback" not in capfd.readouterr().err
    assert statuses() == ["RUNNING"]
    register()
    assert statuses() == ["FINISHED"]
    assert not (tmp_path / "registration.json.resume").exists()


@pytest.mark.usefixtures("embedded")
def test_a_folder_that_is_copied_or_moved_keeps_its_runs_and_models(
    workshop: Workshop,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, copy, moved = (tmp_path / name for name in ("a möve", "copy", "moved"))
    home.mkdir()
    monkeypatch.chdir(home)
    run(workshop.forecaster(1))
    shutil.copytree(home, copy)
    for folder in (copy, moved):
        if folder == moved:
            home.rename(moved)
        monkeypatch.chdir(folder)
        database = (folder / "mlflow.db").read_bytes()
        code, said = command(capsys, "list")
        assert (code, "its locations were updated" in said) == (0, False)
        assert load_address("models:/maskcast/1").digest == Registry("maskcast").find("1").digest
        assert command(capsys, "download", "1", "--output", str(folder / "parts"))[0] == 0
        assert [row.state for row in tracking.mlflow()] == ["ok"]
        assert (folder / "mlflow.db").read_bytes() == database  # which may be mounted in two places
        other = home if folder == copy else copy
        before = [*(other / "mlartifacts").rglob("*")]
        capsys.readouterr()
        run(workshop.forecaster(2))
        assert f"was in {home} before; its locations were updated" in capsys.readouterr().err
        assert "updated" not in command(capsys, "list")[1]
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            assert f"{home.as_uri()}/mlartifacts" not in "\n".join(database.iterdump())  # in no table of MLflow
        assert Registry("maskcast").has_files(Registry("maskcast").find("2"))
        assert [*(other / "mlartifacts").rglob("*")] == before
    assert not home.exists()


PIPELINE_CALLS = {
    "generate_masks": "--clips clips --masker masker --masks masks --metrics masks.json",
    "evaluate": "--clips clips --masks masks --masker masker --forecaster forecaster --metrics scores.json "
    "--report report",
    "register_models": "--clips clips --masker masker --forecaster forecaster --encoder encoder --report report "
    "--registration registration.json",
}


@pytest.mark.usefixtures("embedded")
def test_the_champion_is_evaluated_on_clips_that_were_added(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gate compares on equal clips alone; the pipeline's own outputs stay as they are."""
    params = {
        "generate_masks": {},
        "evaluate": {"pictures": 0, "context": "truth"},
        "register_models": {"gate": {"beats": [], "margin": 1}},
    }
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    stages = {
        name: {"cmd": f"maskcast {name} --params params.yaml {ports}"} for name, ports in PIPELINE_CALLS.items()
    }
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (tmp_path / "encoder").mkdir()

    def repro(seed: int, clips: Path) -> dict[str, Any]:
        parts = workshop.forecaster(seed)
        for name, path in {"clips": clips, "masker": parts["masker"], "forecaster": parts["forecaster"]}.items():
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            shutil.copytree(path, tmp_path / name)
        for name in ("masks", "report"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        for name, ports in PIPELINE_CALLS.items():
            words = ports.replace("--encoder encoder ", "").split()
            assert main([name, "--params", "params.yaml", *words]) == 0
        return json.loads((tmp_path / "registration.json").read_text())

    repro(1, workshop.clips)
    assert command(capsys, "promote")[0] == 0
    more = write_store(tmp_path / "more", val=4).root
    assert repro(2, more)["incomparable"] == "scored on other clips"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "mlflow" not in path.name}
    code, said = command(capsys, "evaluate")
    assert (code, "evaluating maskcast version 1 on the data of dvc.yaml" in said) == (0, True)
    assert "evaluated maskcast version 1: jaccard_last 0." in said
    assert {path: path.stat().st_mtime_ns for path in before if "mlartifacts" not in path.parts} == {
        path: changed for path, changed in before.items() if "mlartifacts" not in path.parts
    }
    assert Registry("maskcast").aliases() == {"champion": 1}
    assert Registry("maskcast").find("2").tags["maskcast.verdict"] == "failed"
    assert command(capsys, "evaluate", "2")[0] == 0
    assert Registry("maskcast").aliases() == {"champion": 1}
    code, said = command(capsys, "--name", "maskcast-forecaster", "evaluate", "1")
    assert (code, "maskcast-forecaster version 1: is part of a pipeline; evaluate" in said) == (2, True)
    assert len(Registry("maskcast-forecaster").versions()) == 2
    found = repro(2, more)
    assert (found["passed"], found["champion"], found["difference"]["count"]) == (True, 1, 4)
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"evaluate": stages["evaluate"]}}))
    code, said = command(capsys, "evaluate", "1")
    assert (code, "dvc.yaml: 0 stages register_models, which maskcast version 1 needs; give" in said) == (2, True)


@pytest.mark.usefixtures("embedded")
def test_a_location_that_was_chosen_stays(tmp_path: Path) -> None:
    chosen, project = tmp_path / "disk" / "mlartifacts", Path.cwd() / "mlartifacts"
    client = new_client()
    run = client.create_run(client.create_experiment("maskcast", chosen.as_uri())).info
    client.log_text(run.run_id, "kept", "note.txt")
    (project / "of another run").mkdir(parents=True)
    for there in (True, False):  # a disk that is not mounted
        if not there:
            shutil.rmtree(chosen)
        update_locations(Path("mlflow.db"))
        assert new_client().get_run(run.run_id).info.artifact_uri == f"{chosen.as_uri()}/{run.run_id}/artifacts"


@pytest.mark.usefixtures("embedded")
def test_a_database_elsewhere_has_the_files_beside_it(
    workshop: Workshop, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worktrees share a registry by its address; the files must outlive the one that ran first."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared/mlflow.db")
    for name in ("shared", "worktree"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "worktree")
    run(workshop.forecaster(1))
    shutil.rmtree(tmp_path / "worktree")
    assert Registry("maskcast").has_files(Registry("maskcast").find("1"))
    assert (tmp_path / "shared/mlartifacts").is_dir()


@pytest.mark.usefixtures("embedded")
def test_the_embedded_default_and_what_commands_refuse(
    workshop: Workshop, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = f"no models: sqlite:///{tmp_path}/mlflow.db does not exist; run the pipeline, change to "
    refusals = {
        ("list",): nothing,
        ("promote",): nothing,
        ("promote", "7"): nothing,
        ("rollback",): nothing,
        ("compare", "1", "2"): nothing,
        ("lineage", "champion"): nothing,
        ("export", "champion", "--format", "onnx", "--output", "exported"): nothing,
        ("--name", "it's", "list"): "--name: \"it's\" is not the name of a model; use letters, digits, '.', '-'",
        (
            "compare",
            "1",
            "2",
            "--clips",
            "x",
        ): "compare: --clips requires --pictures FOLDER; add it, or",
        ("lineage", "1", "--clips", "x"): "lineage: --clips requires --verify; add it, or omit --clips",
        ("lineage", "1", "--repository", "x"): "lineage: --repository requires --verify; add it, or",
    }
    for words, message in refusals.items():
        code, said = command(capsys, *words)
        assert (code, said.count("\n"), message in said) == (2, 1, True), said
    assert [path.name for path in tmp_path.iterdir()] == []  # a query makes no database
    inputs = workshop.forecaster(1)
    least = {"jaccard_mean": 1.1}
    found = run(inputs, gate={"least": least})
    assert not found["passed"]
    assert (tmp_path / "mlartifacts").is_dir()
    assert Registry("maskcast").aliases() == {}
    assert run(inputs)["passed"]
    assert Registry("maskcast").aliases() == {"candidate": 1}
    assert run(inputs, gate={"least": least})["passed"] is False  # the verdict follows the gate
    assert Registry("maskcast").aliases() == {}
    code, said = command(capsys, "promote", "1")
    assert (code, "version 1 did not pass the gate" in said) == (2, True)
    assert run(inputs, gate={})["passed"] is False  # by default a copy of the last mask is no candidate
    tied = (
        r"failed: .*jaccard_mean (0\.\d{4}), required > \1 of persistence \(clip by clip \+0\.0000 .*greater in 0"
    )
    assert re.search(tied, capsys.readouterr().err)

    with pytest.raises(MaskcastError, match=r"has scores of another forecaster, not of .*; run evaluate on it"):
        run(inputs | {"forecaster": workshop.forecaster(0, 0.1)["forecaster"]})
    blind = tmp_path / "blind"
    shutil.copytree(inputs["report"], blind)
    (blind / "per_clip.csv").unlink()
    with pytest.raises(MaskcastError, match=r"per_clip\.csv: no such table of scores"):
        run(inputs | {"report": blind})


@pytest.mark.usefixtures("embedded")
def test_aliases_versions_and_decisions_that_are_deleted_by_other_means_stop_nobody(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setattr(Registry, "files", lambda *_: ("run", "pipeline"))  # as if there were some
    registry = Registry("maskcast")
    for number in (1, 2):
        registry.create("file:///nowhere", None, {"maskcast.digest": str(number)})
        promote("maskcast", str(number), "a test", force=True)
    registry.drop_alias("champion")
    rollback("maskcast")
    assert registry.aliases() == {"champion": 1}  # and nothing to go back to

    Registry("maskcast-promotions").delete(3)
    with pytest.raises(
        MaskcastError, match=r"^maskcast: conflict: decision 3 was deleted from maskcast-promotions; your decision"
    ):
        promote("maskcast", "2", "again", force=True)
    promote("maskcast", "2", "again", force=True)
    assert registry.aliases() == {"champion": 2, "previous": 1}
    about = registry.client.get_registered_model("maskcast-promotions").description
    assert about.startswith("The audit trail of maskcast: each version is a promotion or a rollback")

    registry.delete(2)
    rollback("maskcast")
    assert registry.aliases() == {"champion": 1}


@pytest.mark.usefixtures("embedded")
def test_a_rollback_says_that_a_promotion_was_killed_between_its_aliases(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setattr(Registry, "files", lambda *_: ("run", "pipeline"))  # as if there were some
    monkeypatch.setattr("maskcast.registry.promotion.ABANDONED_S", 0)
    registry, move = Registry("maskcast"), Registry.set_alias
    for number in (1, 2, 3):
        registry.create("file:///nowhere", None, {"maskcast.digest": str(number)})
    for number in (1, 2):
        promote("maskcast", str(number), "a test", force=True)

    def killed(self: Registry, alias: str, number: int) -> None:
        if alias == "champion":
            raise KeyboardInterrupt
        move(self, alias, number)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Registry, "set_alias", killed)
        promote("maskcast", "3", "a test", force=True)
    with pytest.raises(
        MaskcastError, match="version 2 is the champion and 'previous', because a decision was killed"
    ):
        rollback("maskcast")
    assert [each.outcome for each in decisions("maskcast")] == ["abandoned", "done", "done"]
    promote("maskcast", "3", "again", force=True)
    assert registry.aliases() == {"champion": 3, "previous": 2}


@pytest.mark.usefixtures("embedded")
def test_a_newer_evaluation_of_a_version_is_whole_wherever_its_registration_was_killed(
    workshop: Workshop, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(workshop.forecaster(1))
    registry, tag = Registry("maskcast"), Registry.tag
    before = registry.find("1").tags
    newer = workshop.forecaster(1, clips=write_store(tmp_path / "other", val=2, train=1).root)

    def killed(self: Registry, number: int, tags: dict[str, str]) -> None:
        names = list(tags)
        tag(self, number, {name: tags[name] for name in names[: names.index("maskcast.evaluation") + 1]})
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Registry, "tag", killed)
        run(newer)
    run(newer)
    after = registry.find("1")
    assert len(registry.versions()) == 1 and after.tags["maskcast.data"] != before["maskcast.data"]
    evaluation = registry.evaluation(after)
    assert evaluation.digest == after.tags["maskcast.evaluation"] != before["maskcast.evaluation"]
    scores = {name: value for name, value in after.tags.items() if name.startswith("maskcast.score.")}
    assert scores["maskcast.score.jaccard_mean"] == f"{evaluation.scores['jaccard_mean']:.6f}"


@pytest.mark.usefixtures("embedded")
def test_a_version_without_its_files_is_no_champion(
    workshop: Workshop,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    for seed in (21, 22):
        run(workshop.forecaster(seed), gate={"margin": 1.0})
    with monkeypatch.context() as patched:
        patched.setattr("getpass.getuser", nameless)  # as in a container of a number without a name
        code, said = command(capsys, "promote", "1", "--force", "--reason", "first")
    assert (code, f"(decision 1 by user {os.getuid()})" in said) == (0, True), said
    run_id = Registry("maskcast").find("2").run_id
    shutil.rmtree(tmp_path / "mlartifacts" / run_id / "artifacts" / "pipeline")
    code, said = command(capsys, "promote", "2", "--force", "--reason", "second")
    assert (code, said.count("\n")) == (2, 1)
    assert (
        "maskcast version 2: its file MLmodel is missing or changed in " in said and "register the same w" in said
    )
    assert Registry("maskcast").aliases()["champion"] == 1 and len(decisions("maskcast")) == 1
    with pytest.raises(MaskcastError, match="maskcast version 2: its file MLmodel is missing or changed in "):
        load_address("models:/maskcast/2")


@pytest.mark.usefixtures("embedded")
def test_what_is_gone_of_a_version_is_registered_again(workshop: Workshop, run: Run, tmp_path: Path) -> None:
    """As `mlflow gc` removes the runs that somebody has deleted, files and all."""
    champion, other = workshop.forecaster(31), workshop.forecaster(32)
    run(champion)
    promote("maskcast", "1", "a test", force=True)
    registry = Registry("maskcast")
    gone = "maskcast version 1: its evaluation is missing in run .*; restore it, or register the same weights"

    run_id = registry.evaluation_run(registry.find("1"))
    shutil.rmtree(tmp_path / "mlartifacts" / run_id / "artifacts" / "evaluation")
    with pytest.raises(MaskcastError, match=gone):
        run(other)
    run(champion)
    assert registry.evaluation(registry.find("1")).per_item
    registry.tag(1, {"maskcast.evaluation_run": "0" * 32})
    with pytest.raises(MaskcastError, match=gone):
        run(other)
    run(champion)
    registry.client.delete_model_version_tag("maskcast", "1", "maskcast.evaluation_run")
    assert run(champion)["versions"]["maskcast"] == 1
    assert run(other)["champion"] == 1

    shutil.rmtree(tmp_path / "mlartifacts" / registry.find("1").run_id / "artifacts" / "pipeline")
    number = run(champion)["versions"]["maskcast"]
    assert number > 1 and load_address(f"models:/maskcast/{number}").digest == registry.find("1").digest


@pytest.mark.usefixtures("embedded")
def test_tags_that_somebody_has_changed_are_named(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setattr(Registry, "files", lambda *_: ("run", "pipeline"))  # as if there were some
    registry, trail = Registry("maskcast"), Registry("maskcast-promotions")
    registry.create("file:///nowhere", None, {"maskcast.digest": "1"})
    registry.create("file:///nowhere", None, {"maskcast.digest": "2", "maskcast.verdict": "passed"})
    promote("maskcast", "1", "a test", force=True)

    registry.tag(2, {"maskcast.gate": "{"})
    code, said = command(capsys, "promote", "2")
    assert (code, said.count("\n")) == (2, 1)
    assert "maskcast version 2: its tag maskcast.gate was changed and is invalid; register it again" in said
    trail.tag(1, {"maskcast.version": "two"})
    for words in (["list"], ["promote", "2", "--force", "--reason", "x"], ["rollback"]):
        code, said = command(capsys, *words)
        assert (code, said.count("\n"), "promotions version 1: not a decision" in said) == (2, 1, True), said
    assert "or its tag maskcast.version was changed; fix the tag or delete this version in" in said
    trail.tag(1, {"maskcast.version": "1"})
    trail.create("models:/maskcast/1", None, {})
    code, said = command(capsys, "list")
    assert (code, "promotions version 2: not a decision" in said) == (2, True)


@pytest.mark.usefixtures("embedded")
def test_what_others_have_registered_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Registry("theirs", creates=True).create("file:///their/model", None, {})
    for words in (["lineage", "1"], ["promote", "1", "--force", "--reason", "why not"], ["compare", "1", "1"]):
        code, said = command(capsys, "--name", "theirs", *words)
        assert (code, said.count("\n"), said.startswith("error: theirs ")) == (2, 1, True), said
    with pytest.raises(MaskcastError, match="theirs version 1: was not registered by a stage of maskcast; name"):
        load_address("models:/theirs/1")


@pytest.mark.usefixtures("embedded")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_an_encoder_is_registered_where_one_was_trained(
    workshop: Workshop, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, config = workshop.forecaster(1), UNetEncoderConfig(width=4)
    three = {"maskcast": 1, "maskcast-masker": 1, "maskcast-forecaster": 1}
    save_encoder(tmp_path / "none", None, config, {"method": "none"})
    assert run(inputs | {"encoder": tmp_path / "none"})["versions"] == three
    assert "encoder: not trained (method none), so not registered" in capsys.readouterr().err
    assert Registry("maskcast-encoder").versions() == []
    with pytest.raises(MaskcastError, match=r"masker/config\.json: not an encoder"):
        run(inputs | {"encoder": inputs["masker"]})

    colours = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    save_encoder(tmp_path / "encoder", config.build(), config, {"method": "moco", **colours})
    for _ in range(2):
        assert run(inputs | {"encoder": tmp_path / "encoder"})["versions"] == three | {"maskcast-encoder": 1}
    tags = Registry("maskcast").find("1").tags
    assert {name for name in tags if name.startswith("maskcast.part.")} == {
        f"maskcast.part.maskcast-{part}" for part in ("masker", "forecaster", "encoder")
    }
    version = Registry("maskcast-encoder").find("1")
    # the pipeline's are not its own
    assert not [name for name in version.tags if name.startswith("maskcast.score.")]
    mlflow.set_tracking_uri(tracking_uri())
    model = mlflow.pyfunc.load_model("models:/maskcast-encoder/1")
    output = model.metadata.signature.outputs.to_dict()[0]["tensor-spec"]
    assert output == {"dtype": "float32", "shape": (-1, 32)}
    found = model.predict(model.input_example.astype(np.uint8))
    assert (found.dtype, found.shape) == (np.float32, (2, 32))
    loaded = load_address("models:/maskcast-encoder/1")
    assert np.array_equal(loaded.model.predict(loaded.example), found)
    code, said = command(capsys, "--name", "maskcast-encoder", "lineage", "1")
    assert (code, version.digest in said) == (0, True)


def write_flickering_store(root: Path) -> ClipStore:
    """Writes clips in which the red square is blue in every second frame, so that frames disagree on its class."""
    plain = write_store(root / "plain", val=3)
    with ClipWriter(root / "clips", height=plain.height, width=plain.width, maps=[plain.label_map]) as writer:
        for clip, rate in zip(plain.select("val"), (9.99, 10.0, 10.03), strict=True):
            frames, masks = np.array(plain.frames(clip)), plain.masks(clip)
            frames[1::2][masks[1::2] == 1] = frames[masks == 2].mean(0).astype(np.uint8)
            meta = {"stride": 3, "frame_rate": rate}
            writer.add(clip.id, split="val", kind="labelled", frames=frames, masks={MASK: masks}, meta=meta)
    return ClipStore(root / "clips")


@pytest.mark.usefixtures("embedded")
def test_a_pipeline_makes_masks_consistent_as_its_evaluation_did(run: Run, tmp_path: Path) -> None:
    clips, parts, masks = write_flickering_store(tmp_path), write_parts(tmp_path, noise=0.1), tmp_path / "masks"
    agreeing = GenerateMasks(precision="fp32", consistent_frames=2)
    metrics, report = tmp_path / "metrics.json", tmp_path / "report"
    generate_masks(clips=clips.root, masker=parts["masker"], masks=masks, metrics=metrics, params=agreeing)
    given = {"clips": clips.root, "masks": masks, **parts, "metrics": metrics, "report": report}
    with pytest.raises(
        MaskcastError, match=r"masks: made with consistent_frames 2, so masks of the 5 context frames"
    ):
        evaluate(**given, params=Evaluate(pictures=0, context_frames=5, horizon=HORIZON))
    evaluate(**given, params=Evaluate(pictures=0, context_frames=SEEN, horizon=HORIZON))
    run({"clips": clips.root, **parts, "report": report})

    loaded = load_address("models:/maskcast@candidate")
    about = pipeline_of(loaded).about
    assert (about.frame_stride, about.frame_rate) == (3, 10.0)
    model, masker = pipeline_of(loaded).model, load_address("models:/maskcast-masker/1").model
    alone = PipelineModel(model.masker, model.forecaster, None)
    scored, cpu = clips.select("val"), torch.device("cpu")
    forecaster, _ = load_forecaster(parts["forecaster"])
    evaluation = ForecastEvaluation(
        clips, ClipStore(masks), scored, forecaster, None, "generated", SEEN, HORIZON, 2, cpu
    )
    for n, clip in enumerate(scored):
        frames, view = np.array(clips.frames(clip)[:SEEN]), evaluation.view(n, "persistence")
        seen, future = model.predict_masks(frames)
        assert np.array_equal(seen, view.context)
        assert np.array_equal(future, view.forecasts["forecaster"])
        assert np.array_equal(future, model.predict(frames))
        assert not np.array_equal(seen, masker.predict(frames))
        assert np.array_equal(alone.predict_masks(frames)[0], masker.predict(frames))
        assert not np.array_equal(future, alone.predict(frames))


def test_a_server_that_is_away_is_said(
    workshop: Workshop, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_ports(1)[0]}")
    code, said = command(capsys, "list")
    assert (code, said.count("\n"), "MLflow error: " in said) == (2, 1, True)
    with pytest.raises(MaskcastError, match=r"MLflow error: .*fix the cause or MLFLOW_TRACKING_URI"):
        run(workshop.forecaster(1))
