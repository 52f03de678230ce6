"""The state of each stage, from the nodes a server lists."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kfp_server_api.models import (
    V2beta1PipelineTaskDetail,
    V2beta1PipelineVersionReference,
    V2beta1Run,
    V2beta1RunDetails,
    V2beta1RuntimeStatus,
)

from pipelines.client.stages import StageState, run_state, stage_states, task_names
from pipelines.client.watch import exit_code

SPEC = {
    "root": {
        "dag": {
            "tasks": {
                "evaluate": {
                    "dependentTasks": ["train-masker", "prepare-clips"],
                    "taskInfo": {"name": "evaluate"},
                },
                "prepare-clips": {"taskInfo": {"name": "prepare clips"}},
                "train-masker": {"dependentTasks": ["prepare-clips"], "taskInfo": {"name": "train masker"}},
            }
        }
    }
}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NEVER = datetime(1, 1, 1, tzinfo=UTC)


def node(name: str, state: str | None, minutes: float = 1, start: datetime = NOON) -> V2beta1PipelineTaskDetail:
    end = start + timedelta(minutes=minutes) if minutes else NEVER
    return V2beta1PipelineTaskDetail(display_name=name, state=state, start_time=start, end_time=end)


def run_of(*nodes: V2beta1PipelineTaskDetail, **fields: Any) -> V2beta1Run:
    details = V2beta1RunDetails(task_details=list(nodes))
    return V2beta1Run(
        **{"run_id": "r", "pipeline_spec": SPEC, "run_details": details, "state": "RUNNING"} | fields
    )


def states(run: V2beta1Run) -> list[StageState]:
    return stage_states(run, task_names(None, run))  # nothing is asked: the spec is in the run


def test_stages_come_in_the_order_of_the_pipeline_before_any_has_started() -> None:
    found = states(run_of(run_details=None, state=None))
    assert [each.name for each in found] == ["prepare_clips", "train_masker", "evaluate"]
    assert {each.state for each in found} == {"PENDING"}
    assert {each.took for each in found} == {None}


def test_the_spec_comes_from_the_version_that_ran() -> None:
    asked = []

    def get_pipeline_version(pipeline_id: str, version_id: str) -> Any:
        asked.append((pipeline_id, version_id))
        return SimpleNamespace(pipeline_spec={"pipeline_spec": SPEC, "platform_spec": {}})

    reference = V2beta1PipelineVersionReference(pipeline_id="p", pipeline_version_id="v")
    client: Any = SimpleNamespace(get_pipeline_version=get_pipeline_version)
    found = task_names(client, run_of(pipeline_spec=None, pipeline_version_reference=reference))
    assert (len(found), asked) == (3, [("p", "v")])


def test_nodes_of_kubeflow_itself_are_left_out() -> None:
    nodes = [node(name, "SUCCEEDED") for name in ("root", "root-driver", "executor", "", "prepare-clips-driver")]
    found = states(run_of(*nodes, node("prepare-clips", "SUCCEEDED", minutes=65)))
    assert found[0] == StageState("prepare_clips", "prepare-clips", "SUCCEEDED", timedelta(minutes=65))
    assert [each.state for each in found[1:]] == ["PENDING", "PENDING"]


def test_a_stage_that_goes_on_has_taken_until_now() -> None:
    started = datetime.now(UTC) - timedelta(minutes=10)
    (first, *_) = states(run_of(node("prepare-clips", "RUNNING", minutes=0, start=started)))
    assert first.took is not None
    assert timedelta(minutes=10) <= first.took < timedelta(minutes=11)


def test_the_last_attempt_counts() -> None:
    later = NOON + timedelta(hours=1)
    again = [node("prepare-clips(1)", "SUCCEEDED", start=later), node("prepare-clips(0)", "FAILED")]
    assert states(run_of(*again))[0].state == "SUCCEEDED"


def test_a_pod_that_could_not_be_described_has_failed() -> None:
    assert states(run_of(node("prepare-clips-driver", "FAILED"), state="FAILED"))[0].state == "FAILED"
    assert states(run_of(node("prepare-clips-driver", "RUNNING")))[0].state == "PENDING"


def test_what_an_ended_run_never_started_is_skipped() -> None:
    found = states(run_of(node("prepare-clips", "FAILED"), state="FAILED"))
    assert [each.state for each in found] == ["FAILED", "SKIPPED", "SKIPPED"]


@pytest.mark.parametrize(
    ("state", "code"),
    [("SUCCEEDED", 0), ("RUNNING", 0), (None, 0), ("FAILED", 1), ("CANCELED", 1), ("SKIPPED", 1)],
)
def test_the_exit_code_is_the_outcome(state: str | None, code: int) -> None:
    assert exit_code(run_state(run_of(state=state))) == code


def entry(state: str | None, minute: int = 0) -> V2beta1RuntimeStatus:
    return V2beta1RuntimeStatus(state=state, update_time=NOON + timedelta(minutes=minute))


@pytest.mark.parametrize(
    ("history", "state"),
    [
        (["PENDING", None, "RUNNING", "CANCELING", "FAILED"], "CANCELED"),
        (["PENDING", "RUNNING", "FAILED"], "FAILED"),
        (["RUNNING", "CANCELING", "FAILED", "RUNNING", "FAILED"], "FAILED"),  # started again, and failed by itself
        ([], "FAILED"),
    ],
)
def test_a_run_was_cancelled_where_its_history_says_so(history: list[str | None], state: str) -> None:
    run = run_of(state="FAILED", state_history=[entry(each) for each in history])
    assert run_state(run) == state
    failed = run_of(node("prepare-clips", "FAILED"), state="FAILED", state_history=run.state_history)
    assert states(failed)[0].state == state


def test_what_waits_shows_no_time() -> None:
    assert states(run_of(node("prepare-clips", "PENDING", minutes=0)))[0].took is None


def test_a_stage_that_took_no_time_came_from_the_cache() -> None:
    cached = V2beta1PipelineTaskDetail(
        display_name="prepare-clips", state="SUCCEEDED", start_time=NOON, end_time=NOON
    )
    assert states(run_of(cached))[0] == StageState("prepare_clips", "prepare-clips", "CACHED")


def test_while_a_run_is_tried_again_what_succeeded_before_keeps_its_time() -> None:
    before = node("prepare-clips", "SUCCEEDED", minutes=0)
    before.state_history = [entry("RUNNING"), entry("SUCCEEDED", minute=7)]
    assert states(run_of(before))[0].took == timedelta(minutes=7)
    before.state_history = []
    assert states(run_of(before))[0].took is None
