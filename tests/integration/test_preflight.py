"""`preflight` against a Kubernetes API by contract."""

import re
from pathlib import Path

import pytest
from kubernetes import client
from tests.integration.kube_api import KubeApi, cluster_file, kubeconfig

from maskcast.__main__ import main
from maskcast.diagnostics.checks import CheckResult
from pipelines.client.connection import NoServerError
from pipelines.client.preflight import preflight
from pipelines.cluster import load_cluster

NS = "team"
ELSEWHERE = ("MLflow", "Kubeflow", "retries")  # which these tests leave out
ROOT = Path(__file__).resolve().parents[2]
SECRETS = {"AWS_ACCESS_KEY_ID": "maskcast", "AWS_SECRET_ACCESS_KEY": "maskcast-secret"}


def set_up(api: KubeApi, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applies what `setup` applies, and binds the claim."""
    with monkeypatch.context() as environment:
        for name, value in SECRETS.items():
            environment.setenv(name, value)
        assert main(["pipeline", "setup", "--cluster", str(cluster), "--apply"]) == 0
    if claim := api.get("persistentvolumeclaims", "maskcast-workspace", NS):
        claim.status = client.V1PersistentVolumeClaimStatus(phase="Bound", capacity={"storage": "50Gi"})


def rows_of(cluster: Path, uri: str = "synthetic") -> dict[str, list[CheckResult]]:
    """Returns what preflight finds, by check, for pods of two stages."""
    described = load_cluster(cluster)
    pods = {"prepare_clips": described.pods.cpu, "train_masker": described.pods.gpu}
    found: dict[str, list[CheckResult]] = {}
    for row in preflight(described, pods, uri, NoServerError("no server; give --host"), "kubeflow"):
        found.setdefault(row.check, []).append(row)
    return found


def said(row: CheckResult) -> str:
    return f"{row.state}: {row.found} -> {row.remedy}"


def test_after_setup_all_is_ok_but_what_only_the_cluster_can_reach(kube, tmp_path, monkeypatch, capsys):
    cluster = cluster_file(tmp_path)
    set_up(kube, cluster, monkeypatch)
    monkeypatch.setenv("COLUMNS", "300")
    capsys.readouterr()
    assert main(["pipeline", "preflight", "--cluster", str(cluster), "--params", str(ROOT / "params.yaml")]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "failed" not in table
    assert table.count("not checked") == 3
    assert "no Kubeflow server: give --host or --port-forward" in table
    assert "kubectl port-forward -n mlflow svc/mlflow" in table
    assert "maskcast-runner has all 17 permissions" in table
    assert (
        "train_masker, generate_masks, pretrain_forecaster, finetune_forecaster: 1 of 2 nodes fit (gpu-1)" in table
    )


def test_an_empty_namespace_fails_row_by_row_with_what_to_do(kube, tmp_path, capsys):
    cluster = cluster_file(tmp_path, image="maskcast:latest", image_pull_secrets=["registry"])
    assert main(["pipeline", "preflight", "--cluster", str(cluster), "--params", str(ROOT / "params.yaml")]) == 1
    rows = rows_of(cluster)
    for check in ("image", "service account", "rights", "secrets", "pull secrets", "workspace"):
        assert [row.state for row in rows[check]] == ["failed"], check
        assert rows[check][0].remedy, check
    for check in ("service account", "rights", "secrets", "workspace"):
        assert "maskcast pipeline setup --apply" in rows[check][0].remedy
    for check in ("Kubernetes API", "namespace", "your rights", "nodes", "quota", "launcher", "artifacts", "data"):
        assert {row.state for row in rows[check]} == {"ok"}, check


def test_the_pod_that_compares_a_grid_is_checked_as_the_cluster_file_sizes_it(kube, tmp_path, capsys):
    cluster = cluster_file(tmp_path, stages={"evaluate_many": {"memory": "900Gi"}})
    recipe = ROOT / "recipes/video"
    given = ["--cluster", cluster, "--pipeline", "video", "--params", recipe / "params.yaml"]
    unfit = "evaluate_many: none of "
    main(["pipeline", "preflight", *map(str, given)])
    assert unfit not in capsys.readouterr().out
    assert main(["pipeline", "preflight", *map(str, given), "--grid", str(recipe / "grid.yaml")]) == 1
    assert unfit in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "check"),
    [
        ("GET .*/nodes$", "nodes"),
        ("GET .*/namespaces/team$", "namespace"),
        ("GET .*/secrets/", "secrets"),
        ("POST .*/localsubjectaccessreviews$", "rights"),
        ("GET .*/resourcequotas$", "quota"),
    ],
)
def test_what_you_may_not_ask_is_not_checked_and_stops_nothing(kube, tmp_path, monkeypatch, path, check):
    cluster = cluster_file(tmp_path)
    set_up(kube, cluster, monkeypatch)
    kube.refused[path] = 403
    rows = rows_of(cluster)
    assert [row.state for row in rows[check]] == ["not checked"]
    assert "is forbidden" in rows[check][0].found
    states = {
        name: {row.state for row in found} for name, found in rows.items() if name not in (check, *ELSEWHERE)
    }
    assert all(found == {"ok"} for found in states.values()), states


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (lambda url: kubeconfig(url, "stale"), r"rejects the credentials \(401\) -> log in to the cluster again"),
        (
            lambda url: kubeconfig("http://127.0.0.1:9"),
            "is unreachable .*refused.* -> check `kubectl cluster-info`",
        ),
        (lambda url: "clusters: [", "no cluster configured .* -> set KUBECONFIG"),
        (lambda url: None, "kubeconfig: no cluster configured .* -> set KUBECONFIG"),
        (lambda url: kubeconfig(f"{url}/elsewhere"), "is not a Kubernetes API -> fix KUBECONFIG"),
    ],
)
def test_without_the_api_the_rest_is_still_checked(kube, tmp_path, config, expected):
    content = config(kube.url)
    (tmp_path / "kubeconfig").unlink()
    if content is not None:
        (tmp_path / "kubeconfig").write_text(content)
    rows = rows_of(cluster_file(tmp_path))
    assert re.search(expected, said(rows["Kubernetes API"][0])), rows["Kubernetes API"]
    assert rows["Kubernetes API"][0].state == "failed"
    (left_out,) = rows["the cluster"]  # said once, not for each of its checks
    assert said(left_out).startswith("not checked: requires that API: namespace, service account, rights, ")
    assert not rows.keys() & {"namespace", "nodes", "quota"}
    assert rows["image"][0].state == rows["data"][0].state == "ok"


def test_a_server_that_answers_in_the_place_of_the_api_is_said(kube, tmp_path):
    kube.refused["GET /version"] = 200
    rows = rows_of(cluster_file(tmp_path))
    found = said(rows["Kubernetes API"][0])
    assert re.match("failed: the server is not a Kubernetes API .*build_date.* -> fix KUBECONFIG", found), found


def test_an_api_that_fails_on_one_thing_fails_one_row(kube, tmp_path, monkeypatch):
    cluster = cluster_file(tmp_path)
    set_up(kube, cluster, monkeypatch)
    kube.refused["GET .*/nodes$"] = 503
    rows = rows_of(cluster)
    assert said(rows["nodes"][0]).startswith("failed: the Kubernetes API answers 503: no")
    assert rows["namespace"][0].state == "ok"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--cluster", "nowhere.yaml"], "error: nowhere.yaml: no such cluster file; copy pipelines/cluster.yaml"),
        (["-S", "fetch_dataset.url=s3://bucket"], "error: .*fetch_dataset.url: unknown key; did you mean 'uri'"),
        (["--params", "nowhere.yaml"], "error: nowhere.yaml: no such params file"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, line):
    files = ["--cluster", str(cluster_file(tmp_path)), "--params", str(ROOT / "params.yaml")]
    assert main(["pipeline", "preflight", *files, *arguments]) == 2
    out, err = capsys.readouterr()
    assert re.match(line, err), err
    assert (out, err.count("\n")) == ("", 1)


def test_the_sample_cluster_file_is_said_to_be_an_example(
    kube: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["pipeline", "preflight"]) == 1
    table = capsys.readouterr().out
    assert [line for line in table.splitlines() if len(line) > 80] == []
    rows = " ".join(table.split())
    assert "registry.example.com/maskcast is an example and does not exist -> set `image:` in" in rows
    assert main(["pipeline", "submit", "--no-preflight", "--host", "http://127.0.0.1:9"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: pipelines/cluster.yaml: image registry.example.com/maskcast is an example")


@pytest.mark.parametrize(
    "command", ["compile", "submit", "status", "setup", "preflight", "logs run", "cancel run"]
)
def test_every_command_names_the_cluster_file_that_is_missing(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pipeline", *command.split(), "--cluster", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere.yaml: no such cluster file; copy ")
