"""What preflight says of each thing that is missing in a cluster, or in the way."""

import base64
import json
import re

import pytest
from kubernetes import client
from tests.integration.kube_api import KubeApi, cluster_file, node, path_of
from tests.integration.test_preflight import NS, rows_of, said, set_up


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
KEYS_OF_SECRET = (
    "{secretRef: {secretName: maskcast-s3, accessKeyKey: AWS_ACCESS_KEY_ID, secretKeyKey: AWS_SECRET_ACCESS_KEY}}"
)
CA = {"files": {"/certificates": {"config_map": "ca"}}}
PULL = {"image_pull_secrets": ["registry"]}
GPU = {"cpu": "8", "memory": "32Gi", "gpus": 1}


def test_the_keys_of_a_secret_of_others_are_those_of_the_cluster_file(kube, tmp_path, monkeypatch):
    cluster = cluster_file(tmp_path, secrets={"minio": {"AWS_ACCESS_KEY_ID": "accesskey"}})
    put_secret(kube, "minio", accesskey="x")
    set_up(kube, cluster, monkeypatch)
    assert [said(row) for row in rows_of(cluster)["secrets"]] == ["ok: minio: accesskey -> "]
    put_secret(kube, "minio", AWS_ACCESS_KEY_ID="x")
    (line,) = [said(row) for row in rows_of(cluster)["secrets"]]
    assert line == "failed: minio: missing keys accesskey -> whoever makes it must set accesskey"


@pytest.mark.parametrize(
    ("change", "config", "check", "expected"),
    [
        (lambda api: forget(api, "namespaces", NS, None), {}, "namespace", "failed: 'team' not found -> fix"),
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
            "failed: maskcast-s3: missing keys AWS_SECRET_ACCESS_KEY -> set them",
        ),
        (
            lambda api: put_secret(api, "maskcast-s3", AWS_ACCESS_KEY_ID="x\n", AWS_SECRET_ACCESS_KEY="y"),
            {},
            "secrets",
            "failed: maskcast-s3: leading or trailing whitespace in AWS_ACCESS_KEY_ID -> set them again",
        ),
        (
            None,
            CA,
            "files",
            "failed: ConfigMap ca not found in team -> `kubectl create configmap ca -n team ",
        ),
        (
            lambda api: api.put("configmaps", "ca", NS, data={"ca.pem": "x"}),
            CA,
            "files",
            "ok: ConfigMap ca: /certificates/ca.pem",
        ),
        (
            None,
            {"files": {"/gcp": {"secret": "gcp"}}},
            "files",
            "failed: secret gcp not found in team -> ",
        ),
        (lambda api: put_claim(api, "Lost", "disk"), {}, "workspace", "failed: maskcast-workspace: Lost"),
        (lambda api: put_claim(api, "Pending", None), {}, "workspace", "failed: .*: no default storage class"),
        (
            lambda api: (put_claim(api, "Pending", "fast"), put_class(api, "disk", "Immediate")),
            {},
            "workspace",
            "failed: .*: storage class 'fast' not found -> .*use one of: disk",
        ),
        (
            lambda api: (put_claim(api, "Pending", "disk"), put_class(api, "disk", "Immediate")),
            {},
            "workspace",
            "failed: .*: disk has created no volume -> `kubectl describe pvc -n team`",
        ),
        (
            lambda api: (put_claim(api, "Pending", "disk"), put_class(api, "disk", "WaitForFirstConsumer")),
            {},
            "workspace",
            "ok: .*: disk creates the volume for the first pod",
        ),
        (None, {"workspace": None}, "workspace", "ok: none: a restarted stage starts from scratch"),
        (
            lambda api: forget(api, "nodes", "gpu-1", None),
            {},
            "nodes",
            "failed: train_masker: none of 1 nodes fits; the nearest, cpu-1, .*has nvidia.com/gpu 0, requested 1",
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
            "failed: .*gpu-1, its label nvidia.com/gpu.product is not set, requested NVIDIA-H100",
        ),
        (
            lambda api: put_quota(api, **{"requests_nvidia_com/gpu": "0"}),
            {},
            "quota",
            "failed: train_masker: ResourceQuota team-quota allows nvidia.com/gpu 0, requested 1",
        ),
        (
            lambda api: put_limits(api, memory="16Gi"),
            {},
            "quota",
            "failed: .*team-limits allows memory 16Gi, requested 32Gi",
        ),
        (lambda api: put_quota(api, pods="20", limits_cpu="64"), {}, "quota", "ok: 1 quota and 0 limit ranges"),
        (None, PULL, "pull secrets", "failed: 'registry' not found in team -> `kubectl create secret docker-"),
        (
            lambda api: put_pull_secret(api, "https://index.docker.io/v1/"),
            PULL,
            "pull secrets",
            "failed: registry: credentials for docker.io, not registry.example.com",
        ),
        *(
            (
                lambda api, registry=registry: put_pull_secret(api, registry),
                PULL | {"image": f"{image}@sha256:{'1' * 64}"},
                "pull secrets",
                "ok: registry: has credentials for ",
            )
            for image, registry in (
                ("docker.io/team/maskcast", "https://index.docker.io/v1/"),
                ("team/maskcast", "https://index.docker.io/v1/"),
                ("maskcast", "docker.io"),
                ("localhost:5000/maskcast", "http://localhost:5000"),
                ("registry.example.com/maskcast", "*.example.com"),
            )
        ),
        (
            None,
            PULL | {"image": f"team/maskcast@sha256:{'1' * 64}"},
            "pull secrets",
            "failed: .* --docker-server=https://index.docker.io/v1/ ...`",
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
            "failed: you have no permission to get pods/log, which `logs`",
        ),
        (
            lambda api: forget(api, "rolebindings", "maskcast-for-maskcast-runner"),
            {},
            "rights",
            "failed: .* has no permission to create/patch workflowtaskresults, .*get secrets maskcast-s3",
        ),
        (
            None,
            OWN_S3,
            "launcher",
            "failed: ConfigMap kfp-launcher has no S3 endpoint, expected http://s3.storage.svc:8333",
        ),
        (lambda api: put_launcher(api, "s3: ["), OWN_S3, "launcher", "failed: .*has no S3 endpoint"),
        (
            lambda api: put_launcher(api, "s3: {default: {endpoint: 'minio:9000'}}"),
            OWN_S3,
            "launcher",
            "failed: .* has endpoint https://minio:9000, expected http://s3.storage.svc:8333 -> set `providers`",
        ),
        (
            lambda api: put_launcher(api, s3_provider("{secretRef: {secretName: other}}")),
            OWN_S3,
            "launcher",
            "failed: .*has the secret 'other', which pods have no permission to read -> .*artifact, maskcast-s3",
        ),
        (
            lambda api: put_launcher(api, s3_provider(KEYS_OF_SECRET)),
            OWN_S3,
            "launcher",
            "ok: ConfigMap kfp-launcher sends artifacts to http://s3.storage.svc:8333",
        ),
        (
            lambda api: put_launcher(api, s3_provider(KEYS_OF_SECRET.replace("_ID", ""))),
            OWN_S3,
            "launcher",
            "failed: .*has the keys AWS_ACCESS_KEY and AWS_SECRET.* -> set accessKeyKey: AWS_ACCESS_KEY_ID and ",
        ),
        (
            lambda api: put_launcher(
                api, "s3: {default: {endpoint: 's3.storage.svc:8333', credentials: {fromEnv: true}}}"
            ),
            OWN_S3,
            "launcher",
            "failed: .*https://s3.storage.svc:8333, expected http://s3.* -> set `disableSSL: true` in it",
        ),
        (
            None,
            OWN_S3 | {"env": {"AWS_ENDPOINT_URL": "http://s3.storage.svc:8333"}},
            "launcher",
            "failed: ConfigMap kfp-launcher has no S3 endpoint",
        ),
        (lambda api: put_launcher(api, s3_provider("{fromEnv: true}")), OWN_S3, "launcher", "ok: "),
        (None, OWN_S3, "artifacts", "not checked: s3.storage.svc is only known inside the cluster -> .*svc/s3 "),
        (None, {"pipeline_root": "gs://bucket/runs"}, "artifacts", "not checked: gs://bucket/runs: only s3://"),
        (
            None,
            {"env": {}},
            "MLflow",
            "failed: no MLflow server configured: .* -> add MLFLOW_TRACKING_URI to `env`",
        ),
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
