"""What people read of runs that a real cluster ran, and of pods that did not start there."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from tests.integration.conftest import Done
from tests.integration.kfp_server import KfpServer, task
from tests.integration.kube_api import KubeApi
from tests.integration.recorded import SPEC, play, put_pod

from pipelines.client import watch
from pipelines.client.pods import EXECUTORS, driver_name, executor_name
from pipelines.client.stage_logs import stage_output

Cli = Callable[..., Done]
Play = Callable[[str], str]


@pytest.fixture
def recorded(shared_data: Path, kfp_server: KfpServer, kube: KubeApi) -> Play:
    kfp_server.multi_user = False
    return lambda name: play(shared_data, name, kfp_server, kube)


def rows(status: Done) -> dict[str, list[str]]:
    """Returns what stands behind the name of each stage in the table of `status`."""
    lines = [line.split() for line in status.out.splitlines() if line]
    return {line[0]: line[1:] for line in lines if line[0].replace("_", "-") in SPEC["root"]["dag"]["tasks"]}


def test_a_stage_that_failed_is_named_with_its_own_words(
    recorded: Play, kube: KubeApi, kfp_server: KfpServer, pipelines: Cli, tmp_path: Path
) -> None:
    run_id = recorded("stage_failed")
    pod = "maskcast-forecasting-m852n-retry-system-container-impl-2526599059"
    said = "Traceback ...\nmaskcast.errors.MaskcastError: fetch_dataset.uri: there is no s3://nowhere; fix it\n"
    kube.logs[pod] = [said]
    status = pipelines("status", run_id)
    assert status.code == 1
    assert rows(status)["fetch_dataset"] == ["FAILED", "0:00:51"]
    assert rows(status)["predict"] == ["SKIPPED"]
    outcome = next(line for line in status.out.splitlines() if "FAILED" in line and "; " in line)
    assert "; fetch_dataset: fetch_dataset.uri: there is no s3://nowhere; fix it. Log: " in outcome
    # the command that is printed works as it is: it names the cluster file
    assert outcome.endswith(f"Log: maskcast pipeline logs {run_id} --cluster {tmp_path / 'cluster.yaml'}")
    assert said in pipelines("logs", run_id).out
    # without a log the exit code is left, without the pod Kubeflow's archive
    del kube.logs[pod]
    assert "; fetch_dataset: exit code 1. Log:" in pipelines("status", run_id).out
    kube.objects.clear()
    assert "; fetch_dataset: its pod was deleted, and its log is lost" in pipelines("status", run_id).out
    kfp_server.archive[pod] = said
    assert (
        "; fetch_dataset: fetch_dataset.uri: there is no s3://nowhere; fix it." in pipelines("status", run_id).out
    )


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ({"GET .*/pods": 403}, 'is forbidden: User "alice" cannot do that'),
        ({"GET .*/pods": 401}, "the Kubernetes API rejects the credentials (401); log in to the cluster again"),
        (None, "no kubeconfig: ~/.kube/config does not exist; set KUBECONFIG, or log in to a cluster"),
    ],
)
def test_what_cannot_be_seen_is_not_said_to_be_deleted(
    recorded: Play,
    kube: KubeApi,
    pipelines: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    refused: dict[str, int] | None,
    reason: str,
) -> None:
    run_id = recorded("stage_failed")
    if refused:
        kube.refused |= refused
    else:
        monkeypatch.delenv("KUBECONFIG")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "~/.kube/config")
    monkeypatch.setenv("COLUMNS", "300")
    unseen = "its pod is not visible, and Kubeflow's archive has no log"
    for said in (pipelines("status", run_id).out, pipelines("watch", run_id).err):
        (line,) = (line for line in said.splitlines() if line.startswith("pods are not visible ("))
        assert reason in line and line.endswith("): waiting pods and causes are not shown")
        assert f"; fetch_dataset: {unseen}." in said
        assert "deleted" not in said and "Log:" not in said
    log = pipelines("logs", run_id)
    assert log.code == 2
    assert f"error: fetch_dataset: {unseen} (" in log.err and reason in log.err


def test_a_log_that_one_may_not_read_is_not_said_to_be_lost(recorded: Play, kube: KubeApi, pipelines: Cli) -> None:
    run_id = recorded("stage_failed")
    kube.refused["GET .*/log$"] = 403
    log = pipelines("logs", run_id)
    assert log.code == 2
    assert "error: fetch_dataset: the log of pod maskcast-forecasting-m852n-" in log.err
    assert " cannot be read (" in log.err and "is forbidden" in log.err


def test_a_driver_that_failed_is_said_though_no_stage_has_a_pod(
    recorded: Play, kfp_server: KfpServer, pipelines: Cli
) -> None:
    run_id = recorded("driver_failed")
    status = pipelines("status", run_id)
    assert status.code == 1
    assert {state for state, *_ in rows(status).values()} == {"SKIPPED"}
    lost = "the run: kfp's driver failed: its pod was deleted, and its log is lost; see the pods of ml-pipeline"
    assert f"; {lost}." in status.out
    assert "Log:" not in status.out  # nothing is printed that does not work
    assert f"error: {lost}; or see" in pipelines("logs", run_id).err
    driver = driver_name("maskcast-forecasting-ntkm5", "root")
    kfp_server.archive[driver] = (
        "I1126 08:59:44.1 1 main.go:1] hi\nF1126 08:59:45.123456   15 main.go:79] no such root\n"
    )
    assert "; the run: kfp's driver failed: no such root. Log:" in pipelines("status", run_id).out
    assert pipelines("logs", run_id).out == kfp_server.archive[driver]


def test_a_run_that_was_cancelled_reads_so(recorded: Play, pipelines: Cli) -> None:
    run_id = recorded("image_not_pulled_cancelled")
    status = pipelines("status", run_id)
    assert status.code == 1
    assert rows(status)["fetch_dataset"] == ["CANCELED", "0:01:52"]
    assert "CANCELED 0:02:1" in status.out
    assert "Log:" not in status.out
    assert "already ended: " in pipelines("cancel", run_id).out


def test_stages_from_the_cache_read_so_and_take_no_time(recorded: Play, pipelines: Cli) -> None:
    status = pipelines("status", recorded("cached"))
    assert status.code == 0
    assert [cells for name, cells in rows(status).items() if name != "register_models"] == [["CACHED"]] * 9
    assert rows(status)["register_models"] == ["SUCCEEDED", "0:00:21"]


def test_the_log_of_a_stage_from_the_cache_is_where_it_ran(
    recorded: Play, kube: KubeApi, pipelines: Cli, tmp_path: Path
) -> None:
    run_id, maker = recorded("cached"), "4ea330cb-2cb2-4814-9026-222cd308aef1"
    told = f"its log: maskcast pipeline logs {maker} train_masker --cluster {tmp_path / 'cluster.yaml'}; or see"
    assert told in pipelines("logs", run_id, "train_masker").err
    kube.objects.clear()
    untold = pipelines("logs", run_id, "train_masker")
    assert untold.code == 2
    assert "train_masker: its outputs are from the cache of an earlier run; or see" in untold.err


@pytest.mark.parametrize(
    ("name", "took"), [("killed_then_retried", "0:00:46"), ("pod_deleted_resumed", "0:01:51")]
)
def test_a_run_that_was_started_again_has_the_times_of_what_ran_again(
    recorded: Play, pipelines: Cli, name: str, took: str
) -> None:
    status = pipelines("status", recorded(name))
    assert status.code == 0
    assert rows(status)["train_masker"] == ["SUCCEEDED", took]
    assert rows(status)["fetch_dataset"] == ["CACHED"]


def test_runs_whose_pods_are_gone_have_their_states(recorded: Play, pipelines: Cli) -> None:
    status = pipelines("status", recorded("succeeded_pods_gone"))
    assert status.code == 0
    assert {state for state, _ in rows(status).values()} == {"SUCCEEDED"}
    assert len(rows(status)) == 10


def test_the_namespace_is_asked_from_the_run(
    shared_data: Path, kfp_server: KfpServer, kube: KubeApi, pipelines: Cli
) -> None:
    kfp_server.namespaces.add("elsewhere")
    run_id = play(shared_data, "stage_failed", kfp_server, kube)
    kube.logs["maskcast-forecasting-m852n-retry-system-container-impl-2526599059"] = ["error: no\n"]
    found = pipelines("logs", run_id, "--namespace", "elsewhere")  # its experiment is in `team`
    assert (found.code, found.out) == (0, "error: no\n"), found.err


def test_the_log_says_what_the_stage_said_unless_all_is_asked_for(
    recorded: Play, kfp_server: KfpServer, kube: KubeApi, pipelines: Cli, shared_data: Path
) -> None:
    run_id = recorded("succeeded_pods_gone")
    text = (shared_data / "cluster/stage_log_prepare_clips.txt").read_text().split("\n", 1)[1]
    kfp_server.archive[executor_name("maskcast-forecasting-db9zn", EXECUTORS[0], "prepare-clips")] = text
    short = pipelines("logs", run_id, "prepare_clips")
    assert short.out.splitlines() == [
        "preparing clips: 129/210 (15 s)",
        "prepared 210 clips (60 train, 20 val, 120 unlabeled, 10 hidden); left out 0 items",
    ]
    assert short.err == "prepare_clips, attempt 1, from Kubeflow's archive\n"
    assert pipelines("logs", run_id, "prepare_clips", "--all").out == text
    archived = (shared_data / "cluster/stage_log_after_pod_is_gone.txt").read_text()
    assert not [line for line in stage_output(archived).splitlines() if "launcher" in line or line[:1] in "{}"]


PODS = {
    "pod_image_not_there": "image cannot be pulled: registry.lab/maskcast@sha256:abcdefc4",
    "pod_no_node_fits": "unschedulable: 1 Insufficient cpu",
    "pod_secret_missing": "secret nothing-here not found",
}


def a_run(kfp: KfpServer, kube: KubeApi, pod: dict[str, Any], state: str, age: timedelta, **labels: str) -> str:
    """Puts a run into the servers whose masker is trained by a pod."""
    node_name = "wf(0).root(0).train-masker(0).executor(1)"
    node = task("train-masker", "RUNNING" if state == "RUNNING" else "FAILED")
    kfp.stored["runs"]["run-1"] = {
        "run_id": "run-1",
        "experiment_id": "experiment-1",
        "display_name": "mine",
        "state": state,
        "created_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:01:00Z",
        "pipeline_spec": SPEC,
        "run_details": {"task_details": [node]},
    }
    kfp.stored["experiments"]["experiment-1"] = {"experiment_id": "experiment-1", "namespace": "team"}
    metadata = {
        "labels": {"pipeline/runid": "run-1"} | labels,
        "annotations": {"workflows.argoproj.io/node-name": node_name},
        "creationTimestamp": (datetime.now(UTC) - age).isoformat().replace("+00:00", "Z"),
    }
    put_pod(kube, pod, **metadata)
    return "run-1"


def pod_of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"cluster/{name}.json").read_text())
    return found


@pytest.mark.parametrize(("name", "why"), PODS.items())
def test_a_pod_that_waits_for_what_does_not_come_is_said_after_30_s_and_given_up(
    shared_data: Path,
    kfp_server: KfpServer,
    kube: KubeApi,
    pipelines: Cli,
    name: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = a_run(kfp_server, kube, pod_of(shared_data, name), "RUNNING", timedelta(seconds=5))
    assert "waits" not in pipelines("status", run_id).out
    a_run(kfp_server, kube, pod_of(shared_data, name), "RUNNING", timedelta(seconds=31))
    monkeypatch.setenv("COLUMNS", "300")
    assert f"attempt 2, waits: {why}" in pipelines("status", run_id).out
    a_run(kfp_server, kube, pod_of(shared_data, name), "RUNNING", watch.GIVE_UP + timedelta(seconds=31))
    waited = pipelines("watch", run_id)
    assert waited.code == 1
    assert f"train_masker: waits: {why}" in waited.err
    assert f"stopped watching after 0:15:00: train_masker waits: {why}" in waited.err
    assert "; to cancel the run: maskcast pipeline cancel run-1 --cluster" in waited.err


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_pod_whose_containers_are_not_created_is_said_with_its_last_warning_and_given_up(
    shared_data: Path,
    kfp_server: KfpServer,
    kube: KubeApi,
    pipelines: Cli,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")

    def starts_since(age: timedelta) -> str:
        pod = pod_of(shared_data, "pod_image_not_there")
        for each in pod["status"]["containerStatuses"] + pod["status"].get("initContainerStatuses", []):
            each["state"] = {"waiting": {"reason": reason}}
        since = (datetime.now(UTC) - age).isoformat().replace("+00:00", "Z")
        found = {"type": "PodScheduled", "status": "True", "lastTransitionTime": since}
        pod["status"]["conditions"] = [found]
        # It waited long for a node before.
        return a_run(kfp_server, kube, pod, "RUNNING", age + timedelta(hours=1))

    run_id = starts_since(timedelta(seconds=5))
    assert "waits" not in pipelines("status", run_id).out
    starts_since(timedelta(seconds=31))
    said = pipelines("status", run_id).out
    assert "waits: containers are being created" in said and "created:" not in said
    name = pod_of(shared_data, "pod_image_not_there")["metadata"]["name"]
    for minute, message in ((2, 'configmap "ca"\nnot found'), (1, "an earlier one")):
        kube.put(
            "events",
            f"event-{minute}",
            "team",
            involved_object=client.V1ObjectReference(name=name),
            type="Warning",
            reason="FailedMount",
            message=message,
            last_timestamp=datetime(2026, 1, 1, 0, minute, tzinfo=UTC),
        )
    why = 'waits: containers are being created: FailedMount: configmap "ca" not found'
    assert why in pipelines("status", run_id).out
    starts_since(watch.GIVE_UP + timedelta(seconds=31))
    waited = pipelines("watch", run_id)
    assert waited.code == 1
    assert f"stopped watching after 0:15:00: train_masker {why}" in waited.err


def test_a_pod_in_a_queue_is_said_and_never_given_up(
    shared_data: Path, kfp_server: KfpServer, kube: KubeApi, pipelines: Cli
) -> None:
    pod = pod_of(shared_data, "pod_no_node_fits")
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    pod["status"]["conditions"] = [gated | {"message": "Scheduling is blocked due to non-empty scheduling gates"}]
    run_id = a_run(kfp_server, kube, pod, "RUNNING", watch.GIVE_UP * 10)
    kfp_server.script.extend([{}, {}, {"state": "SUCCEEDED"}])
    watched = pipelines("watch", run_id)
    assert watched.code == 0
    assert "train_masker: waits: admission by its queue" in watched.err


def test_a_pod_that_its_queue_has_admitted_is_waited_for_from_then_on(
    shared_data: Path,
    kfp_server: KfpServer,
    kube: KubeApi,
    pipelines: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pod = pod_of(shared_data, "pod_no_node_fits")
    label = {"kueue.x-k8s.io/queue-name": "team-queue"}
    run_id = a_run(kfp_server, kube, pod, "RUNNING", watch.GIVE_UP * 3, **label)
    kfp_server.script.extend([{}, {}, {"state": "SUCCEEDED"}])
    watched = pipelines("watch", run_id)
    assert watched.code == 0 and "train_masker: waits: unschedulable" in watched.err
    a_run(kfp_server, kube, pod_of(shared_data, "pod_no_node_fits"), "RUNNING", watch.GIVE_UP * 3, **label)
    monkeypatch.setattr(watch, "GIVE_UP", timedelta(seconds=0.05))
    watched = pipelines("watch", run_id)
    assert watched.code == 1 and "train_masker waits: unschedulable" in watched.err


def test_a_pod_that_was_seen_in_a_queue_is_waited_for_from_then_on(
    shared_data: Path,
    kfp_server: KfpServer,
    kube: KubeApi,
    pipelines: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gated = pod_of(shared_data, "pod_no_node_fits")
    gated["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
    run_id, look = a_run(kfp_server, kube, gated, "RUNNING", watch.GIVE_UP * 3), watch.snapshot

    def look_and_admit(*given: Any) -> Any:
        seen = look(*given)
        admitted = put_pod(kube, pod_of(shared_data, "pod_no_node_fits"), labels=pod.metadata.labels)
        admitted.metadata.annotations = pod.metadata.annotations
        admitted.metadata.creation_timestamp = pod.metadata.creation_timestamp
        return seen

    (pod,) = (each for path, each in kube.objects.items() if "/pods/" in path)
    monkeypatch.setattr(watch, "snapshot", look_and_admit)
    kfp_server.script.extend([{}, {}, {}, {"state": "SUCCEEDED"}])
    watched = pipelines("watch", run_id)
    assert "waits: admission by its queue" in watched.err and "waits: unschedulable" in watched.err
    assert watched.code == 0


def node_name(item: str, attempt: int) -> dict[str, str]:
    """Returns the annotations of a pod in a loop."""
    path = f"wf(0).root(0).{item}.train-masker(0).executor({attempt})"
    return {"workflows.argoproj.io/node-name": path}


def test_a_pod_that_fails_or_waits_in_a_loop_is_said_with_its_task(
    shared_data: Path, kfp_server: KfpServer, kube: KubeApi, pipelines: Cli
) -> None:
    run_id = a_run(kfp_server, kube, pod_of(shared_data, "pod_out_of_memory"), "FAILED", timedelta(minutes=2))
    stored = kfp_server.stored["runs"][run_id]
    stored["pipeline_spec"] = {"root": {"dag": {"tasks": {"for-loop-1": {"taskInfo": {"name": "for-loop-1"}}}}}}
    stored["run_details"] = {"task_details": [task("for-loop-1", "FAILED")]}
    (pod,) = (each for path, each in kube.objects.items() if "/pods/" in path)
    item = "for-loop-1(0).iteration-iterator(0).iteration-item(0:0)(0)"
    pod.metadata.annotations = node_name(item, attempt=0)
    said = f"for-loop-1: train_masker in pod {pod.metadata.name}: out of memory: its limit is "
    printed = pipelines("status", run_id).out
    assert said in printed and "Log: " not in printed  # `logs` would only say that a loop has none
    kube.objects.clear()
    assert "for-loop-1: one of its tasks failed, whose pod was deleted; " in pipelines("status", run_id).out
    assert "for-loop-1: it is a loop and has no log of its own; the page " in pipelines("logs", run_id).err
    stored["state"] = stored["run_details"]["task_details"][0]["state"] = "RUNNING"
    waiting = put_pod(kube, pod_of(shared_data, "pod_no_node_fits"), labels={"pipeline/runid": run_id})
    waiting.metadata.annotations = pod.metadata.annotations
    assert "waits: unschedulable" in " ".join(pipelines("status", run_id).out.split())
    # A later pod of another variant hides neither that this one waits, nor which one failed.
    other = put_pod(
        kube, pod_of(shared_data, "pod_out_of_memory"), labels={"pipeline/runid": run_id}, name="later"
    )
    other.metadata.creation_timestamp = waiting.metadata.creation_timestamp + timedelta(seconds=1)
    other.metadata.annotations = node_name(item.replace("0:0", "1:1"), attempt=0)
    other.status.phase = "Running"
    assert "waits: unschedulable" in " ".join(pipelines("status", run_id).out.split())
    other.status.phase = "Failed"
    waiting.status = client.V1PodStatus(phase="Failed", reason="Evicted", message="disk pressure")
    again = put_pod(kube, pod_of(shared_data, "pod_no_node_fits"), labels={"pipeline/runid": run_id}, name="again")
    again.metadata.creation_timestamp = waiting.metadata.creation_timestamp + timedelta(seconds=2)
    again.metadata.annotations = node_name(item, attempt=1)
    again.status = client.V1PodStatus(phase="Succeeded")
    stored["state"] = stored["run_details"]["task_details"][0]["state"] = "FAILED"
    assert "for-loop-1: train_masker in pod later: out of memory: " in pipelines("status", run_id).out


def test_memory_that_ran_out_is_said_with_what_was_asked_for(
    shared_data: Path, kfp_server: KfpServer, kube: KubeApi, pipelines: Cli
) -> None:
    pod = pod_of(shared_data, "pod_out_of_memory")
    run_id = a_run(kfp_server, kube, pod, "FAILED", timedelta(minutes=2))
    status = pipelines("status", run_id)
    assert "mine: FAILED 0:01:00; train_masker: out of memory: its limit is 100Mi. Log: " in status.out
    assert pipelines("watch", run_id).err.count("train_masker: out of memory: its limit is 100Mi") == 1


def test_a_failed_run_is_started_again(recorded: Play, kfp_server: KfpServer, pipelines: Cli) -> None:
    run_id = recorded("stage_failed")
    again = pipelines("retry", run_id)
    assert again.code == 0, again.err
    assert f"POST /runs/{run_id}:retry" in kfp_server.asked
    refused = pipelines("retry", run_id)
    assert refused.code == 2
    assert (
        f"run {run_id} is RUNNING; only failed and cancelled runs can be restarted; see maskcast pipeline watch"
        in refused.err
    )
    kfp_server.script.extend([{"state": "FAILED"}, {"state": "RUNNING"}, {"state": "SUCCEEDED"}])
    assert pipelines("retry", run_id, "--wait").code == 0
