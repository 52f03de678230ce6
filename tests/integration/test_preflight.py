"""`preflight` against a Kubernetes API by contract."""

import base64
import json
import re
from pathlib import Path

import pytest
from kubernetes import client
from tests.integration.kube_api import KubeApi, cluster_file, kubeconfig, node, path_of

from pipelines.__main__ import main
from pipelines.checks import Row
from pipelines.cluster import load_cluster
from pipelines.preflight import preflight

NS = "team"
ROOT = Path(__file__).resolve().parents[2]
SECRETS = {"AWS_ACCESS_KEY_ID": "maskcast", "AWS_SECRET_ACCESS_KEY": "maskcast-secret"}


def set_up(api: KubeApi, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applies what `setup` applies, and binds the claim."""
    with monkeypatch.context() as environment:
        for name, value in SECRETS.items():
            environment.setenv(name, value)
        assert main(["setup", "--cluster", str(cluster), "--apply"]) == 0
    if claim := api.get("persistentvolumeclaims", "maskcast-workspace", NS):
        claim.status = client.V1PersistentVolumeClaimStatus(phase="Bound", capacity={"storage": "50Gi"})


def rows_of(cluster: Path, uri: str = "synthetic") -> dict[str, list[Row]]:
    """Returns what preflight finds, by check, for pods of two stages."""
    described = load_cluster(cluster)
    pods = {"prepare_clips": described.pods.cpu, "train_masker": described.pods.gpu}
    found: dict[str, list[Row]] = {}
    for row in preflight(described, pods, uri):
        found.setdefault(row.check, []).append(row)
    return found


def said(row: Row) -> str:
    return f"{row.state}: {row.found} -> {row.remedy}"


def test_after_setup_all_is_ok_but_what_only_the_cluster_can_reach(kube, tmp_path, monkeypatch, capsys):
    cluster = cluster_file(tmp_path)
    set_up(kube, cluster, monkeypatch)
    monkeypatch.setenv("COLUMNS", "300")
    capsys.readouterr()
    assert main(["preflight", "--cluster", str(cluster), "--params", str(ROOT / "params.yaml")]) == 0
    table = capsys.readouterr().out
    assert "failed" not in table
    assert table.count("not checked") == 1
    assert "kubectl port-forward -n mlflow svc/mlflow" in table
    assert "maskcast-runner may do all 16 things" in table
    assert (
        "train_masker, generate_masks, pretrain_forecaster, finetune_forecaster: 1 of 2 nodes fit (gpu-1)" in table
    )


def test_an_empty_namespace_fails_row_by_row_with_what_to_do(kube, tmp_path, capsys):
    cluster = cluster_file(tmp_path, image="maskcast:latest", image_pull_secrets=["registry"])
    assert main(["preflight", "--cluster", str(cluster), "--params", str(ROOT / "params.yaml")]) == 1
    rows = rows_of(cluster)
    for check in ("image", "service account", "rights", "secrets", "pull secrets", "workspace"):
        assert [row.state for row in rows[check]] == ["failed"], check
        assert rows[check][0].remedy, check
    for check in ("service account", "rights", "secrets", "workspace"):
        assert "python -m pipelines setup --apply" in rows[check][0].remedy
    for check in ("Kubernetes API", "namespace", "your rights", "nodes", "quota", "launcher", "artifacts", "data"):
        assert {row.state for row in rows[check]} == {"ok"}, check


def put_claim(api: KubeApi, phase: str, storage_class: str | None) -> None:
    spec = client.V1PersistentVolumeClaimSpec(access_modes=["ReadWriteOnce"], storage_class_name=storage_class)
    status = client.V1PersistentVolumeClaimStatus(phase=phase)
    api.put("persistentvolumeclaims", "maskcast-workspace", NS, spec=spec, status=status)


def put_class(api: KubeApi, name: str, mode: str) -> None:
    api.put("storageclasses", name, provisioner="example.com/disks", volume_binding_mode=mode)


def put_quota(api: KubeApi, **hard: str) -> None:
    spec = client.V1ResourceQuotaSpec(hard={key.replace("_", "."): value for key, value in hard.items()})
    api.put("resourcequotas", "team-quota", NS, spec=spec)


def put_limits(api: KubeApi, **most: str) -> None:
    spec = client.V1LimitRangeSpec(limits=[client.V1LimitRangeItem(type="Container", max=most)])
    api.put("limitranges", "team-limits", NS, spec=spec)


def put_secret(api: KubeApi, name: str, **values: str) -> None:
    api.put(
        "secrets", name, NS, data={key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    )


def put_pull_secret(api: KubeApi, registry: str) -> None:
    content = json.dumps({"auths": {registry: {"auth": "dXNlcjpwYXNz"}}})
    put_secret(api, "registry", **{".dockerconfigjson": content})


def put_launcher(api: KubeApi, providers: str) -> None:
    api.put("configmaps", "kfp-launcher", NS, data={"providers": providers})


def s3_provider(credentials: str) -> str:
    return f"s3: {{default: {{endpoint: 'http://s3.storage.svc:8333', credentials: {credentials}}}}}"


def forget(api: KubeApi, plural: str, name: str, namespace: str | None = NS) -> None:
    del api.objects[path_of(plural, name, namespace)]


def taint(api: KubeApi, key: str) -> None:
    taints = [client.V1Taint(key=key, effect="NoSchedule", value="yes")]
    node(api, "gpu-1", {"cpu": "32", "memory": "256Gi", "nvidia.com/gpu": "4"}, taints=taints)


OWN_S3 = {"pipeline_root": "s3://maskcast/runs", "env": {"AWS_ENDPOINT_URL_S3": "http://s3.storage.svc:8333"}}
PULL = {"image_pull_secrets": ["registry"]}
GPU = {"cpu": "8", "memory": "32Gi", "gpus": 1}


@pytest.mark.parametrize(
    ("change", "config", "check", "expected"),
    [
        (lambda api: forget(api, "namespaces", NS, None), {}, "namespace", "failed: there is no 'team' -> mend"),
        (
            lambda api: api.put("namespaces", NS, status=client.V1NamespaceStatus(phase="Terminating")),
            {},
            "namespace",
            "failed: team is Terminating",
        ),
        (
            lambda api: put_secret(api, "maskcast-s3", AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY=""),
            {},
            "secrets",
            "failed: maskcast-s3 has no AWS_SECRET_ACCESS_KEY -> set them",
        ),
        (
            lambda api: put_secret(api, "maskcast-s3", AWS_ACCESS_KEY_ID="x\n", AWS_SECRET_ACCESS_KEY="y"),
            {},
            "secrets",
            "failed: maskcast-s3: blanks or line breaks around AWS_ACCESS_KEY_ID -> set them anew",
        ),
        (lambda api: put_claim(api, "Lost", "disk"), {}, "workspace", "failed: maskcast-workspace: Lost"),
        (lambda api: put_claim(api, "Pending", None), {}, "workspace", "failed: .*: no default storage class"),
        (
            lambda api: (put_claim(api, "Pending", "fast"), put_class(api, "disk", "Immediate")),
            {},
            "workspace",
            "failed: .*: there is no storage class 'fast' -> .*name one of: disk",
        ),
        (
            lambda api: (put_claim(api, "Pending", "disk"), put_class(api, "disk", "Immediate")),
            {},
            "workspace",
            "failed: .*: disk has made no volume -> `kubectl describe pvc -n team`",
        ),
        (
            lambda api: (put_claim(api, "Pending", "disk"), put_class(api, "disk", "WaitForFirstConsumer")),
            {},
            "workspace",
            "ok: .*: disk makes the volume for the first pod",
        ),
        (None, {"workspace": None}, "workspace", "ok: none: a stage that is started again begins anew"),
        (
            lambda api: forget(api, "nodes", "gpu-1", None),
            {},
            "nodes",
            "failed: train_masker: none of 1 nodes fits; the nearest, cpu-1, .*has nvidia.com/gpu 0, asked 1 -> ",
        ),
        (
            lambda api: taint(api, "nvidia.com/gpu"),
            {},
            "nodes",
            "failed: .*the nearest, gpu-1, its taint nvidia.com/gpu:NoSchedule is not tolerated",
        ),
        (
            lambda api: taint(api, "nvidia.com/gpu"),
            {"pods": {"gpu": GPU | {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}}},
            "nodes",
            "ok: train_masker: 1 of 2 nodes fit",
        ),
        (
            None,
            {"pods": {"gpu": GPU | {"gpu_type": "NVIDIA-H100"}}},
            "nodes",
            "failed: .*gpu-1, its label nvidia.com/gpu.product is not set, asked NVIDIA-H100",
        ),
        (
            lambda api: put_quota(api, **{"requests_nvidia_com/gpu": "0"}),
            {},
            "quota",
            "failed: train_masker: ResourceQuota team-quota allows nvidia.com/gpu 0, asked 1",
        ),
        (
            lambda api: put_limits(api, memory="16Gi"),
            {},
            "quota",
            "failed: .*team-limits allows memory 16Gi, asked 32Gi",
        ),
        (lambda api: put_quota(api, pods="20", limits_cpu="64"), {}, "quota", "ok: 1 quotas and 0 limit ranges"),
        (None, PULL, "pull secrets", "failed: there is no 'registry' in team -> `kubectl create secret docker-"),
        (
            lambda api: put_pull_secret(api, "https://index.docker.io/v1/"),
            PULL,
            "pull secrets",
            "failed: registry: credentials for index.docker.io, not registry.example.com",
        ),
        (
            lambda api: put_secret(api, "registry", a="b"),
            PULL,
            "pull secrets",
            "failed: .*credentials for no registry",
        ),
        (lambda api: put_pull_secret(api, "registry.example.com"), PULL, "pull secrets", "ok: registry: has cred"),
        (
            lambda api: api.denied.add("get pods/log"),
            {},
            "your rights",
            "failed: you may not get pods/log, as `logs`",
        ),
        (
            lambda api: forget(api, "rolebindings", "maskcast-to-maskcast-runner"),
            {},
            "rights",
            "failed: maskcast-runner may not create/patch workflowtaskresults, .*get secrets maskcast-s3",
        ),
        (None, OWN_S3, "launcher", "failed: ConfigMap kfp-launcher names no S3 server, not s3.storage.svc:8333"),
        (lambda api: put_launcher(api, "s3: ["), OWN_S3, "launcher", "failed: .*names no S3 server"),
        (
            lambda api: put_launcher(api, "s3: {default: {endpoint: 'minio:9000'}}"),
            OWN_S3,
            "launcher",
            "failed: ConfigMap kfp-launcher names minio:9000, not s3.storage.svc:8333 -> set `providers`",
        ),
        (
            lambda api: put_launcher(api, s3_provider("{secretRef: {secretName: other}}")),
            OWN_S3,
            "launcher",
            "failed: .*takes keys from secret 'other', which pods may not read -> .*artifact, maskcast-s3",
        ),
        (
            lambda api: put_launcher(api, s3_provider("{secretRef: {secretName: maskcast-s3}}")),
            OWN_S3,
            "launcher",
            "ok: ConfigMap kfp-launcher sends artifacts to s3.storage.svc:8333",
        ),
        (lambda api: put_launcher(api, s3_provider("{fromEnv: true}")), OWN_S3, "launcher", "ok: "),
        (None, OWN_S3, "artifacts", "not checked: s3.storage.svc is known in the cluster alone -> .*svc/s3 "),
        (None, {"pipeline_root": "gs://bucket/runs"}, "artifacts", "not checked: gs://bucket/runs: only s3://"),
        (None, {"env": {}}, "MLflow", "failed: pods know of no server: .* -> add MLFLOW_TRACKING_URI to `env`"),
        (None, {"env": {"MLFLOW_TRACKING_URI": "databricks"}}, "MLflow", "not checked: databricks: only http"),
    ],
)
def test_each_thing_that_is_missing_has_its_row(kube, tmp_path, monkeypatch, change, config, check, expected):
    cluster = cluster_file(tmp_path, **config)
    set_up(kube, cluster, monkeypatch)
    if change is not None:
        change(kube)
    found = [said(row) for row in rows_of(cluster)[check]]
    assert any(re.match(expected, line) for line in found), found


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
    states = {name: {row.state for row in found} for name, found in rows.items() if name not in (check, "MLflow")}
    assert all(found == {"ok"} for found in states.values()), states


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (lambda url: kubeconfig(url, "stale"), r"does not know you \(401\) -> log in to the cluster again"),
        (
            lambda url: kubeconfig("http://127.0.0.1:9"),
            "does not answer .*refused.* -> check `kubectl cluster-info`",
        ),
        (lambda url: "clusters: [", "names no cluster .* -> set KUBECONFIG"),
        (lambda url: None, "kubeconfig: names no cluster .* -> set KUBECONFIG"),
        (lambda url: kubeconfig(f"{url}/elsewhere"), "answers, but not as Kubernetes does -> mend KUBECONFIG"),
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
    assert [said(row) for row in rows["nodes"]] == ["not checked: needs the Kubernetes API -> "]
    assert rows["image"][0].state == rows["data"][0].state == "ok"


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
        (["--cluster", "nowhere.yaml"], "error: nowhere.yaml: no such params file"),
        (["-S", "fetch_dataset.url=s3://bucket"], "error: .*fetch_dataset.url: unknown key; did you mean 'uri'"),
        (["--params", "nowhere.yaml"], "error: nowhere.yaml: no such params file"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, line):
    files = ["--cluster", str(cluster_file(tmp_path)), "--params", str(ROOT / "params.yaml")]
    assert main(["preflight", *files, *arguments]) == 2
    out, err = capsys.readouterr()
    assert re.match(line, err), err
    assert (out, err.count("\n")) == ("", 1)
