"""The rules of preflight that need no server: which node takes which pod, and what `setup` grants."""

import os
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from maskcast.diagnostics.checks import CheckResult, NotCheckedError, results_of
from maskcast.errors import MaskcastError
from pipelines.client import preflight as command
from pipelines.client.checks import Subject
from pipelines.client.checks.nodes import tolerates, unfit_reasons
from pipelines.client.checks.pod_environment import pod_environment, require_reachable
from pipelines.client.kube import ForbiddenError
from pipelines.client.manifests import rules
from pipelines.cluster import Cluster
from pipelines.pod_resources import Pod, Toleration

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "registry.example.com/maskcast@sha256:" + "ab" * 32


def taint(key: str, value: str | None = None, effect: str = "NoSchedule") -> SimpleNamespace:
    return SimpleNamespace(key=key, value=value, effect=effect)


@pytest.mark.parametrize(
    ("toleration", "against", "expected"),
    [
        ({"key": "gpu", "operator": "Exists"}, taint("gpu", "yes"), True),
        ({"key": "gpu", "value": "yes"}, taint("gpu", "yes"), True),
        ({"key": "gpu", "value": "no"}, taint("gpu", "yes"), False),
        ({"key": "gpu"}, taint("gpu"), True),
        ({"key": "other", "operator": "Exists"}, taint("gpu"), False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, taint("gpu"), False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, taint("gpu"), True),
        ({"operator": "Exists"}, taint("gpu", effect="NoExecute"), True),
    ],
)
def test_tolerations_follow_the_rules_of_kubernetes(toleration, against, expected):
    assert tolerates(Toleration(**toleration), against) is expected


def node(allocatable, *, labels=None, taints=None, ready="True", unschedulable=None) -> SimpleNamespace:
    return SimpleNamespace(
        metadata=SimpleNamespace(labels=labels),
        spec=SimpleNamespace(taints=taints, unschedulable=unschedulable),
        status=SimpleNamespace(
            allocatable=allocatable, conditions=[SimpleNamespace(type="Ready", status=ready)] if ready else None
        ),
    )


LARGE = {"cpu": "8", "memory": "65Gi", "nvidia.com/gpu": "4"}


@pytest.mark.parametrize(
    ("pod", "on", "reasons"),
    [
        ({"cpu": "8", "memory": "64Gi", "gpus": 4}, node(LARGE), []),
        ({"cpu": "7910m"}, node({"cpu": "7.91", "memory": "8388608Ki"}), []),
        ({"cpu": "8"}, node({"cpu": "7910m", "memory": "8Gi"}), ["has cpu 7910m, requested 8"]),
        ({"memory": "8Gi"}, node({"cpu": "4", "memory": "8G"}), ["has memory 8G, requested 8Gi"]),
        ({"gpus": 1, "gpu_resource": "amd.com/gpu"}, node(LARGE), ["has amd.com/gpu 0, requested 1"]),
        ({}, node(None), ["has cpu 0, requested 2", "has memory 0, requested 8Gi"]),
        ({}, node(LARGE, ready="Unknown"), ["is not ready"]),
        ({}, node(LARGE, ready=None), ["is not ready"]),
        ({}, node(LARGE, unschedulable=True), ["is unschedulable"]),
        ({}, node(LARGE, taints=[taint("old", effect="PreferNoSchedule")]), []),
        ({}, node(LARGE, taints=[taint("gpu")]), ["its taint gpu:NoSchedule is not tolerated"]),
        ({"tolerations": [{"key": "gpu"}]}, node(LARGE, taints=[taint("gpu")]), []),
        (
            {"node_selector": {"zone": "a"}},
            node(LARGE, labels={"zone": "b"}),
            ["its label zone is b, requested a"],
        ),
        ({"gpus": 1, "gpu_type": "H200"}, node(LARGE, labels={"nvidia.com/gpu.product": "H200"}), []),
        ({"gpu_type": "H200"}, node(LARGE), []),
    ],
)
def test_a_node_fits_or_says_why_not(pod, on, reasons):
    assert unfit_reasons(Pod(**pod), on) == reasons


def test_the_role_grants_no_more_than_is_used():
    cluster = Cluster(image=IMAGE, secrets={"s3": ("AWS_ACCESS_KEY_ID",), "mlflow": ("MLFLOW_TRACKING_TOKEN",)})
    granted = {(rule["apiGroups"][0], rule["resources"][0]): rule for rule in rules(cluster)}
    assert not any("*" in part for rule in granted.values() for parts in rule.values() for part in parts)
    assert granted["", "secrets"]["verbs"] == ["get"]
    assert granted["", "secrets"]["resourceNames"] == ["mlpipeline-minio-artifact", "s3"]
    assert granted["", "configmaps"]["resourceNames"] == ["kfp-launcher"]
    assert ("", "pods/exec") not in granted
    writing = {
        resource for (_, resource), rule in granted.items() if {"create", "patch", "delete"} & {*rule["verbs"]}
    }
    assert writing == {"workflowtaskresults", "workflowtasksets/status", "trainjobs"}


def subject(**config) -> Subject:
    return Subject(Cluster(image=IMAGE, **config), {}, "synthetic", None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotCheckedError("far away; go there"), CheckResult("it", "not checked", "far away", "go there")),
        (ForbiddenError("nodes is forbidden"), CheckResult("it", "not checked", "nodes is forbidden")),
        (MaskcastError("is\n  broken; fix it; soon"), CheckResult("it", "failed", "is broken", "fix it; soon")),
        (RuntimeError("out of order"), CheckResult("it", "failed", "RuntimeError: out of order", "fix the cause")),
    ],
)
def test_an_error_ends_a_check_and_keeps_the_rows_before_it(error, expected):
    def check():
        yield CheckResult("it", "ok", "first")
        raise error

    assert list(results_of("it", check, "failed")) == [CheckResult("it", "ok", "first"), expected]


def test_the_environment_is_that_of_the_pods_for_a_while(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://localhost:8333")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    before = dict(os.environ)
    env = {"AWS_ENDPOINT_URL_S3": "https://s3.example.com", "MLFLOW_TRACKING_URI": "http://mlflow.tools.svc:5000"}
    with pod_environment(subject(env=env)):
        assert os.environ["AWS_ENDPOINT_URL_S3"] == "https://s3.example.com"
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://localhost:5000"  # where the port is forwarded to
    assert dict(os.environ) == before


def test_files_and_proxies_are_those_of_this_machine(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/home/me/ca.pem")
    monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    names = ("AWS_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH", "SSL_CERT_FILE")
    env = dict.fromkeys(names, "/certificates/ca.pem") | {"HTTPS_PROXY": "http://proxy:3128", "ANY": "x"}
    given = subject(env=env, files={"/certificates": {"config_map": "company-ca"}})
    before = {**os.environ}
    with pod_environment(given):
        assert dict(os.environ) == before | {"ANY": "x"}
        with pytest.raises(
            NotCheckedError, match=r"/certificates/ca\.pem, a file of `files`; to check it, set MLFLOW"
        ):
            require_reachable(given, ("MLFLOW_TRACKING_URI",), "MLFLOW_TRACKING_SERVER_CERT_PATH")
        require_reachable(given, ("MLFLOW_TRACKING_URI",), "AWS_CA_BUNDLE")


def test_temporary_keys_of_the_pods_keep_their_session_token(monkeypatch):
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
    for name in keys:
        monkeypatch.setenv(name, "of this machine")
    found = lambda subject, name: {key: keys[key] for key in subject.cluster.secrets[name]}  # noqa: E731
    monkeypatch.setattr("pipelines.client.checks.pod_environment.secret_values", found)
    for named in (list(keys), list(keys)[:2]):
        with pod_environment(replace(subject(secrets={"s3": named}, env={"ANY": "http://[a"}), api="there")):
            assert os.environ["AWS_SESSION_TOKEN"] == ("c" if named[2:] else "")


def test_only_a_failure_makes_the_exit_code_1(monkeypatch, capsys, tmp_path):
    (tmp_path / "cluster.yaml").write_text(f"image: {IMAGE}\n")
    rows = [CheckResult("a", "ok", "[red]fine[/red]"), CheckResult("b", "not checked", "far away")]
    monkeypatch.setattr(command, "preflight", lambda *_: rows)
    parser = ArgumentParser()
    command.add_arguments(parser)
    given = parser.parse_args(["--cluster", f"{tmp_path}/cluster.yaml", "--params", f"{ROOT}/params.yaml"])
    assert command.run(given) == 0
    assert "[red]fine[/red]" in capsys.readouterr().out  # text is no markup
    rows.append(CheckResult("c", "failed", "is gone", "fix it"))
    assert command.run(given) == 1
