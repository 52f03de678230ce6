"""submit, status, cancel and schedule against a server that speaks Kubeflow's v2beta1 API."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.conftest import Done
from tests.integration.kfp_server import KfpServer, check_model, task
from tests.integration.kube_api import KubeApi

from maskcast.params import load_params_file

Cli = Callable[..., Done]
SUBMIT = ("submit", "--no-preflight")  # the cluster of the tests has little but a namespace
SCHEDULE = ("schedule", "--no-preflight", "--cron")
ROOT = Path(__file__).resolve().parents[2]


def with_tasks(state: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    return {"state": state, "run_details": {"task_details": list(tasks)}}


RUNS = [
    with_tasks("RUNNING", task("root-driver", "SUCCEEDED"), task("root", "RUNNING")),
    with_tasks("RUNNING", task("fetch-dataset-driver", "SUCCEEDED"), task("fetch-dataset", "RUNNING")),
]


def ended(state: str) -> dict[str, Any]:
    nodes = [
        task("", "SUCCEEDED"),
        task("fetch-dataset-driver", "SUCCEEDED"),
        task("executor", state),
        task("fetch-dataset", state, end="2026-01-01T00:01:05Z"),
    ]
    return {**with_tasks(state, *nodes), "finished_at": "2099-01-01T00:00:00Z"}


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_submit_makes_what_is_missing_and_starts_the_run(kfp_server: KfpServer, pipelines: Cli) -> None:
    done = pipelines(*SUBMIT, "-S", "train_masker.training.epochs=3", "--name", "first", "--experiment", "trial")
    assert done.code == 0, done.err
    assert done.out == "run-1\n"
    assert f"{kfp_server.url}/#/runs/details/run-1" in done.err
    experiment, pipeline = kfp_server.only("experiments"), kfp_server.only("pipelines")
    assert (experiment["display_name"], experiment["namespace"]) == ("trial", "team")
    assert (pipeline["display_name"], pipeline["namespace"]) == ("maskcast-forecasting", "team")
    run = kfp_server.only("runs")
    sent = {key: value for key, value in run.items() if key not in ("run_id", "created_at", "state")}
    body = check_model(sent, "V2beta1Run")
    assert body.display_name == "first"
    assert body.experiment_id == experiment["experiment_id"]
    assert body.service_account == "runner"
    assert body.pipeline_version_reference.pipeline_id == pipeline["pipeline_id"]
    assert body.pipeline_version_reference.pipeline_version_id == "version-1"
    assert body.runtime_config.pipeline_root == "s3://bucket/runs"
    values = load_params_file(ROOT / "params.yaml")
    values["train_masker"]["training"]["epochs"] = 3
    assert body.runtime_config.parameters == values


def test_without_the_cache_every_stage_runs(kfp_server: KfpServer, pipelines: Cli) -> None:
    def cached() -> set[bool]:
        (version,) = kfp_server.stored["versions"].values()
        tasks = version["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
        return {bool(task["cachingOptions"]) for task in tasks.values()}

    assert pipelines(*SUBMIT, "--no-cache").code == 0
    assert cached() == {False}


def test_runs_are_of_the_namespace_that_is_given(kfp_server: KfpServer, pipelines: Cli, kube: KubeApi) -> None:
    assert "'elsewhere' not found" in pipelines("preflight", "--namespace", "elsewhere").out


def test_a_run_is_named_after_pipeline_commit_and_time(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines(*SUBMIT)
    monkeypatch.setenv("MASKCAST_GIT_SHA", "0123456789abcdef")
    pipelines(*SUBMIT)
    monkeypatch.delenv("MASKCAST_GIT_SHA")
    monkeypatch.setenv("PATH", "")
    pipelines(*SUBMIT)
    names = [run["display_name"].split() for run in kfp_server.stored["runs"].values()]
    assert [len(name) for name in names] == [4, 4, 3]
    assert names[1][:2] == ["maskcast-forecasting", "0123456"]


def test_the_same_content_is_uploaded_once(kfp_server: KfpServer, pipelines: Cli, tmp_path: Path) -> None:
    pipelines(*SUBMIT)
    again = pipelines(*SUBMIT, "-S", "train_masker.training.epochs=2")
    assert "already uploaded" in again.err
    assert (len(kfp_server.stored["versions"]), len(kfp_server.stored["runs"])) == (1, 2)
    changed = load_params_file(ROOT / "params.yaml")
    changed["predict"]["png"] = False
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed))
    pipelines(*SUBMIT, "--params", str(tmp_path / "params.yaml"))
    assert len(kfp_server.stored["versions"]) == 2
    assert len(kfp_server.stored["pipelines"]) == len(kfp_server.stored["experiments"]) == 1
    names = {version["display_name"] for version in kfp_server.stored["versions"].values()}
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in names)


def test_a_server_for_one_user_is_asked_without_a_namespace(kfp_server: KfpServer, pipelines: Cli) -> None:
    kfp_server.multi_user = False
    done = pipelines(*SUBMIT)
    assert done.code == 0, done.err
    assert not kfp_server.only("experiments").get("namespace")
    assert pipelines("status").out.count("PENDING") == 1


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 1)])
def test_waiting_says_each_stage_and_exits_by_the_outcome(
    kfp_server: KfpServer, pipelines: Cli, state: str, code: int
) -> None:
    kfp_server.script.extend([*RUNS, ended(state)])
    done = pipelines(*SUBMIT, "--name", "trial", "--wait")
    assert done.code == code
    said = done.err.splitlines()
    assert said.index("fetch_dataset: RUNNING") < said.index(f"fetch_dataset: {state} 0:01:05")
    assert any(line.startswith(f"trial: {state}") for line in said)


def test_on_a_terminal_the_stages_are_a_live_table(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    kfp_server.script.extend([*RUNS, ended("SUCCEEDED")])
    done = pipelines(*SUBMIT, "--name", "trial", "--wait")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.err)
    assert re.search(r"fetch_dataset +PENDING *\n", plain)
    assert re.search(r"fetch_dataset +SUCCEEDED +0:01:05 *\n", plain)
    assert "\x1b[1A" in done.err  # it is drawn over


def test_status_shows_the_stages_in_order(kfp_server: KfpServer, pipelines: Cli) -> None:
    run_id = pipelines(*SUBMIT, "--name", "trial").out.strip()
    kfp_server.script.append(ended("FAILED"))
    done = pipelines("status", run_id)
    assert done.code == 1
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["fetch_dataset", "FAILED", "0:01:05"]
    stages = [line[0] for line in lines[:8]]
    assert stages.index("train_masker") < stages.index("generate_masks") < stages.index("evaluate")
    assert {line[1] for line in lines[1:8]} == {"SKIPPED"}
    assert "; fetch_dataset: its pod " in done.out  # and no command for a log that is nowhere
    assert run_id in pipelines("status").out


def test_cancel_stops_a_run_once(kfp_server: KfpServer, pipelines: Cli) -> None:
    run_id = pipelines(*SUBMIT).out.strip()
    assert pipelines("cancel", run_id).code == 0
    assert kfp_server.only("runs")["state"] == "CANCELING"
    kfp_server.script.append(ended("CANCELED"))
    asked = len(kfp_server.asked)
    done = pipelines("cancel", run_id)
    assert done.code == 0
    assert "already ended: " in done.out
    assert not any("terminate" in each for each in kfp_server.asked[asked:])


def test_schedule_is_made_listed_and_deleted(kfp_server: KfpServer, pipelines: Cli) -> None:
    done = pipelines(*SCHEDULE, "0 0 3 * * 1", "--name", "weekly", "-S", "evaluate.pictures=2")
    assert done.code == 0, done.err
    made = kfp_server.only("recurringruns")
    sent = {key: value for key, value in made.items() if key not in ("recurring_run_id", "created_at", "status")}
    body = check_model(sent, "V2beta1RecurringRun")
    assert (body.display_name, body.mode, body.max_concurrency, body.no_catchup) == ("weekly", "ENABLE", "1", True)
    assert body.trigger.cron_schedule.cron == "0 0 3 * * 1"
    assert body.service_account == "runner"
    assert body.pipeline_version_reference.pipeline_version_id == "version-1"
    assert body.runtime_config.parameters["evaluate"]["pictures"] == 2
    twice = pipelines(*SCHEDULE, "0 0 4 * * 1", "--name", "weekly")
    assert twice.code == 2
    assert done.out.strip() in twice.err
    assert "0 0 3 * * 1" in pipelines("schedule", "--list").out
    assert pipelines("schedule", "--delete", done.out.strip()).code == 0
    assert "weekly" not in pipelines("schedule", "--list").out


def test_a_schedule_beyond_the_first_page_is_known(kfp_server: KfpServer, pipelines: Cli) -> None:
    done = pipelines(*SCHEDULE, "0 0 3 * * 1", "--name", "weekly")
    made = kfp_server.only("recurringruns")
    others = {
        f"other-{n}": {**made, "recurring_run_id": f"other-{n}", "display_name": f"n{n}"} for n in range(200)
    }
    kfp_server.stored["recurringruns"] = {**others, made["recurring_run_id"]: made}
    twice = pipelines(*SCHEDULE, "0 0 4 * * 1", "--name", "weekly")
    assert twice.code == 2 and done.out.strip() in twice.err
    listed = pipelines("schedule", "--list").out
    assert "weekly" in listed and listed.count("other-") == 200


def test_a_usual_cron_expression_is_refused_before_anything_is_sent(kfp_server: KfpServer, pipelines: Cli) -> None:
    done = pipelines(*SCHEDULE, "0 3 * * 1")
    assert (done.code, kfp_server.asked) == (2, [])
    assert "prefix a standard" in done.err


def test_a_server_that_restarts_while_waiting_is_waited_for(kfp_server: KfpServer, pipelines: Cli) -> None:
    def restart() -> None:
        kfp_server.then = None
        port = kfp_server.port
        kfp_server.stop()
        kfp_server.faults.extend([503, "hang up"])
        kfp_server.script.append(ended("SUCCEEDED"))
        kfp_server.start(port)

    kfp_server.script.extend(RUNS)
    kfp_server.then = restart
    done = pipelines(*SUBMIT, "--wait")
    assert done.code == 0, done.err
    assert "answers 503: upstream connect error; retrying in 0 s (1 of 8)" in done.err
    assert "(2 of 8)" in done.err


def test_a_server_that_is_gone_while_waiting_ends_in_one_line(kfp_server: KfpServer, pipelines: Cli) -> None:
    kfp_server.script.extend(RUNS)
    kfp_server.then = kfp_server.stop
    done = pipelines(*SUBMIT, "--wait")
    assert done.code == 2
    assert "Connection refused" in done.err
    assert "The run continues: maskcast pipeline watch run-1 --cluster" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_ctrl_c_ends_the_waiting_and_not_the_run(kfp_server: KfpServer, pipelines: Cli, tmp_path: Path) -> None:
    run_id = pipelines(*SUBMIT).out.strip()
    kfp_server.script.extend(RUNS)
    command = [sys.executable, "-m", "maskcast", "pipeline", "watch", run_id, "--namespace", "team"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts with & ignores it
    try:
        waiting = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "HOME": str(tmp_path)}, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert waiting.stderr
    while waiting.stderr.readline() != "fetch_dataset: RUNNING\n":
        assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate()
    assert waiting.returncode == 130
    cancel = f"maskcast pipeline cancel {run_id} --namespace team"
    assert said == f"stopped watching; the run continues. To cancel it: {cancel}\n"
    assert kfp_server.only("runs")["state"] == "RUNNING"


def test_nothing_is_started_on_a_cluster_that_is_not_ready(
    kube: KubeApi, kfp_server: KfpServer, pipelines: Cli
) -> None:
    """The namespace has no service account: nobody has set it up."""
    for command in (["submit"], ["schedule", "--cron", "0 0 3 * * *"]):
        done = pipelines(*command)
        assert (done.code, done.out) == (2, "")
        assert "preflight failed" in done.err.splitlines()[-1]
        assert "service account" in done.err
    assert not any(each.startswith("POST") for each in kfp_server.asked)
