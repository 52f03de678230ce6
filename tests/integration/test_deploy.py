"""`maskcast models deploy`: from an alias to an InferenceService, and its container as KServe starts it."""

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.conftest import moving_squares
from tests.integration.images import docker
from tests.integration.kube_api import CRD, SERVICES, KubeApi, check_service, cluster_file, path_of
from tests.integration.recorded import put_pod
from tests.registered import HEIGHT, HORIZON, SEEN, WIDTH, write_registered
from tests.servers import START_S, free_ports

from maskcast.__main__ import main
from maskcast.registry.bundle import bundle_digest
from maskcast.registry.store import Registry
from pipelines.client.inference_service import storage_annotations
from pipelines.cluster import load_cluster

SERVICE = f"/apis/serving.kserve.io/v1beta1/namespaces/team/{SERVICES}/maskcast"
PROXIED = "mlflow-artifacts:/1/run/artifacts/pipeline"
SOURCES = ("s3://bucket/one/pipeline", PROXIED, PROXIED, "s3://bucket/four/pipeline")
SERVING = {"serving": {"artifacts": "s3://mlflow/team"}}
S3 = {"AWS_ENDPOINT_URL_S3": "https://s3.example.com:8333", "AWS_DEFAULT_REGION": "eu-1"}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[None]:
    """Registers four versions: in S3, behind the MLflow server twice, and in S3 again."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        registry = Registry("maskcast", creates=True)
        for number, source in enumerate(SOURCES, 1):
            assert registry.create(source, None, {"maskcast.digest": str(number) * 64}) == number
        registry.set_alias("champion", 1)
        registry.set_alias("candidate", 2)
        yield


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    return cluster_file(tmp_path, env={"MLFLOW_TRACKING_URI": "http://mlflow.mlflow.svc:5000"} | S3, **SERVING)


def models(*words: str | Path) -> int:
    return main(["models", *map(str, words)])


def keys_are_there(kube: KubeApi) -> Any:
    return kube.put("secrets", "maskcast-s3", "team", data={"AWS_ACCESS_KEY_ID": "YQ=="})


def served(pods: Any) -> tuple[str, str]:
    """Returns name and number of what pods serve, and where their weights come from."""
    (container,) = pods["containers"]
    arguments = dict(zip(container["args"][2::2], container["args"][3::2], strict=True))
    env = {each["name"]: each.get("value") for each in container["env"]}
    return arguments.get("--as", arguments["--model"]), str(env.get("STORAGE_URI"))


def test_an_alias_becomes_a_service_whose_weights_kserve_fetches(kube, versions, cluster, capsys) -> None:
    secret = keys_are_there(kube)
    assert models("deploy", "champion", "--cluster", cluster) == 0
    assert capsys.readouterr().out == "InferenceService/maskcast in team: maskcast version 1 gets all requests\n"
    predictor = kube.objects[SERVICE]["spec"]["predictor"]
    assert served(predictor) == ("maskcast/1", "s3://bucket/one/pipeline")
    assert predictor["containers"][0]["args"][-4:] == ["--model", "/mnt/models", "--as", "maskcast/1"]
    (port,) = predictor["containers"][0]["ports"]
    assert predictor["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port["containerPort"]),
        "prometheus.io/path": "/metrics",
    }
    account = kube.get("serviceaccounts", predictor["serviceAccountName"], "team")
    assert [each.name for each in account.secrets] == ["maskcast-s3"]
    assert secret.data == {"AWS_ACCESS_KEY_ID": "YQ=="}
    assert secret.metadata.annotations == {
        "serving.kserve.io/s3-endpoint": "s3.example.com:8333",
        "serving.kserve.io/s3-usehttps": "1",
        "serving.kserve.io/s3-region": "eu-1",
    }


def test_kserve_is_told_the_certificate_of_the_s3_server(tmp_path) -> None:
    env = S3 | {"AWS_CA_BUNDLE": "/certificates/ca.pem"}
    named = {"config_map": "company-ca"}
    for files, expected in (
        ({"/certificates": named}, ["/certificates/ca.pem", "company-ca"]),
        ({}, [None, None]),
    ):
        notes = storage_annotations(load_cluster(cluster_file(tmp_path, env=env, files=files, **SERVING)))
        assert [notes.get(f"serving.kserve.io/s3-cabundle{key}") for key in ("", "-configmap")] == expected


def test_kserve_is_told_the_region_that_maskcast_itself_takes(tmp_path) -> None:
    for env, region in (({}, "eu-1"), ({"AWS_REGION": "eu-2"}, "eu-2")):
        notes = storage_annotations(load_cluster(cluster_file(tmp_path, env=S3 | env, **SERVING)))
        assert notes["serving.kserve.io/s3-region"] == region


def test_the_pods_have_the_labels_and_files_of_the_cluster_file(kube, versions, tmp_path, capsys) -> None:
    keys_are_there(kube)
    labels, notes = {"team": "vision"}, {"karpenter.sh/do-not-disrupt": "true"}
    files = {"/certificates": {"config_map": "ca"}, "/gcp": {"secret": "gcp"}}
    cluster = cluster_file(tmp_path, env=S3, labels=labels, annotations=notes, files=files, **SERVING)
    assert models("deploy", "champion", "--cluster", cluster) == 0
    pods = kube.objects[SERVICE]["spec"]["predictor"]
    assert pods["labels"] == labels
    assert pods["annotations"].items() > notes.items()
    assert pods["annotations"]["prometheus.io/scrape"] == "true"
    mounts = {each["name"]: each["mountPath"] for each in pods["containers"][0]["volumeMounts"]}
    sources = {mounts[each.pop("name")]: each for each in pods["volumes"]}
    assert sources["/certificates"] == {"configMap": {"name": "ca"}}
    assert sources["/gcp"] == {"secret": {"secretName": "gcp"}}


def test_where_only_the_registry_has_the_weights_the_pod_asks_it(kube, versions, tmp_path, capsys) -> None:
    cluster = cluster_file(tmp_path, secrets={"maskcast-mlflow": ["MLFLOW_TRACKING_PASSWORD"]})
    assert models("deploy", "2", "--cluster", cluster) == 0
    predictor = kube.objects[SERVICE]["spec"]["predictor"]
    assert served(predictor) == ("models:/maskcast/2", "None")
    env = predictor["containers"][0]["env"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow.mlflow.svc:5000"} in env
    reference = {"secretKeyRef": {"name": "maskcast-mlflow", "key": "MLFLOW_TRACKING_PASSWORD"}}
    assert {"name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": reference} in env
    assert "serviceAccountName" not in predictor
    capsys.readouterr()
    assert models("deploy", "3", "--canary", "10", "--cluster", cluster) == 2
    assert capsys.readouterr().err == (
        "error: --canary: requires weights in S3, but those of maskcast version 2 come from the registry; set "
        "serving.artifacts in the cluster file to the S3 address of the MLflow server's artifacts\n"
    )


def test_a_canary_gets_its_share_and_then_all_without_a_restart(kube, versions, cluster, capsys) -> None:
    keys_are_there(kube)
    assert models("deploy", "champion", "--cluster", cluster) == 0
    before = kube.objects[SERVICE]["spec"]["predictor"]
    assert models("deploy", "candidate", "--canary", "20", "--cluster", cluster) == 0
    spec = kube.objects[SERVICE]["spec"]
    assert spec["predictor"] == before
    (canary,) = spec["canary"]
    assert canary["trafficPercent"] == 20
    assert served(canary["predictor"]) == ("maskcast/2", "s3://mlflow/team/1/run/artifacts/pipeline")

    assert models("deploy", "2", "--cluster", cluster) == 0
    spec = kube.objects[SERVICE]["spec"]
    assert "canary" not in spec
    assert spec["predictor"]["name"] == canary["predictor"]["name"]  # its pods go on
    assert spec["predictor"]["containers"] == canary["predictor"]["containers"]
    assert capsys.readouterr().out.splitlines() == [
        "InferenceService/maskcast in team: maskcast version 1 gets all requests",
        "InferenceService/maskcast in team: maskcast version 2 gets 20 % of the requests",
        "InferenceService/maskcast in team: maskcast version 2 gets all requests",
    ]


def test_a_canary_is_taken_back_and_the_previous_version_deployed_again(kube, versions, cluster, capsys) -> None:
    keys_are_there(kube)
    assert models("deploy", "1", "--cluster", cluster) == 0
    before = kube.objects[SERVICE]["spec"]
    assert models("deploy", "2", "--canary", "5", "--cluster", cluster) == 0
    assert models("undeploy", "--canary", "--cluster", cluster) == 0
    assert kube.objects[SERVICE]["spec"] == before
    assert models("deploy", "4", "--cluster", cluster) == 0
    assert kube.objects[SERVICE]["spec"]["predictor"]["name"] == before["predictor"]["name"]  # pods roll over
    assert models("deploy", "1", "--canary", "5", "--cluster", cluster) == 0  # its name is taken by version 4
    assert kube.objects[SERVICE]["spec"]["canary"][0]["predictor"]["name"] == "v1-canary"
    assert models("deploy", "champion", "--cluster", cluster) == 0
    assert served(kube.objects[SERVICE]["spec"]["predictor"])[0] == "maskcast/1"
    assert models("undeploy", "--cluster", cluster) == 0
    assert SERVICE not in kube.objects
    assert capsys.readouterr().out.splitlines()[-1] == "InferenceService/maskcast in team: deleted"


def test_a_dry_run_prints_what_is_applied(kube, versions, cluster, capsys) -> None:
    keys_are_there(kube)
    assert models("deploy", "champion", "--cluster", cluster) == 0
    kube.objects[SERVICE]["status"] = {"url": "http://maskcast.example.com"}
    capsys.readouterr()
    assert models("deploy", "4", "--cluster", cluster, "--dry-run") == 0
    *_, printed = yaml.safe_load_all(capsys.readouterr().out)
    assert printed.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert not {"resourceVersion", "uid"} & printed["metadata"].keys()
    assert models("deploy", "4", "--cluster", cluster) == 0
    assert printed["spec"] == kube.objects[SERVICE]["spec"]


def test_a_dry_run_prints_what_kubectl_takes_and_needs_no_cluster(versions, cluster, monkeypatch, capsys) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert models("deploy", "champion", "--cluster", cluster, "--dry-run") == 0
    printed = capsys.readouterr()
    account, service = yaml.safe_load_all(printed.out)
    assert account["kind"] == "ServiceAccount"
    check_service(service)
    note, command = printed.err.splitlines()
    assert note.startswith("InferenceService maskcast: not read from the cluster, printed as a new one (")
    assert command.startswith("address of the S3 server for KServe: kubectl annotate --overwrite -n team secret ")


def test_it_waits_until_the_service_answers(kube, versions, cluster, monkeypatch, capsys, shared_data) -> None:
    clock = [0.0]
    slept = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda s: clock.append(clock.pop() + s))
    monkeypatch.setattr("pipelines.client.kserve.time", slept)
    monkeypatch.setattr("maskcast.runner.pod_status.time", slept)
    monkeypatch.setattr("pipelines.client.kserve.POLL_S", 300.0)
    keys_are_there(kube)
    pod = json.loads((shared_data / "cluster/pod_image_not_there.json").read_text())
    labels = {"serving.kserve.io/inferenceservice": "maskcast"}
    put_pod(kube, pod, name="maskcast-v1-predictor-0", namespace="team", labels=labels)
    assert models("deploy", "champion", "--wait", "--cluster", cluster) == 2
    why = "maskcast-v1-predictor-0: image cannot be pulled: registry.lab/maskcast@sha256:"
    waits, error = capsys.readouterr().err.splitlines()
    assert waits.startswith(f"InferenceService/maskcast waits: {why}")
    assert error.startswith(f"error: InferenceService maskcast is not ready after 15 minutes: {why}")
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ContainerCreating"}}
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]
    put_pod(kube, pod, name="maskcast-v1-predictor-0", namespace="team", labels=labels)
    assert models("deploy", "champion", "--wait", "--cluster", cluster) == 2
    assert "maskcast-v1-predictor-0: containers are being created" in capsys.readouterr().err
    kube.objects[SERVICE]["status"] = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "url": "http://maskcast-team.example.com",
    }
    assert models("deploy", "champion", "--wait", "--cluster", cluster) == 0
    ready = "InferenceService/maskcast: ready at http://maskcast-team.example.com"
    assert capsys.readouterr().out.splitlines()[-1] == ready


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["deploy", "9"], "maskcast: version or alias '9' not found; versions: 4; 3; 2, candidate; 1, champion"),
        (
            ["deploy", "2", "--canary", "5"],
            "--canary: InferenceService maskcast not found in namespace team; deploy without --canary first",
        ),
        (["undeploy"], "InferenceService maskcast not found in namespace team; give another with --service"),
    ],
)
def test_what_goes_wrong_is_one_line(kube, versions, cluster, capsys, words, line) -> None:
    assert models(*words, "--cluster", cluster) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(line)
    assert SERVICE not in kube.objects


def test_the_cluster_says_why_not(kube, versions, cluster, capsys) -> None:
    def said(*words: str) -> str:
        assert models(*words, "--cluster", cluster) == 2
        return capsys.readouterr().err.splitlines()[-1]

    missing = "error: secret maskcast-s3 not found in namespace team; "
    assert said("deploy", "1") == f"{missing}create it with `maskcast pipeline setup --apply`"
    keys_are_there(kube)
    kube.refused[f"POST .*{SERVICES}"] = 403
    assert said("deploy", "1").startswith("error: POST /apis/serving.kserve.io/v1beta1/namespaces/team/")
    kube.refused.clear()
    assert models("deploy", "1", "--cluster", cluster) == 0
    kube.kserve = "0.19"
    assert said("deploy", "2", "--canary", "5") == (
        "error: --canary: requires KServe 0.20 or later in Standard mode, and the cluster's is "
        "older; upgrade KServe, or deploy without --canary"
    )
    assert said("deploy", "1", "--canary", "5").endswith("already gets all requests; give another version")
    assert said("undeploy", "--canary").endswith("has no canary; omit --canary to delete the service")
    del kube.objects[SERVICE]
    kube.kserve = None
    assert said("deploy", "1").startswith("error: KServe is not installed")
    kube.refused[CRD] = 403  # who may not read definitions deploys all the same
    assert models("deploy", "1", "--cluster", cluster) == 0
    del kube.objects[path_of("namespaces", "team")]
    del kube.objects[SERVICE]
    assert "namespace 'team' not found" in said("deploy", "1")


def test_the_container_serves_as_kserve_starts_it(image: str, versions, cluster, tmp_path, capsys) -> None:
    """The weights are mounted read-only where KServe puts them; probes and port are the manifest's."""
    artifact = shutil.copytree(write_registered(tmp_path), tmp_path / "models")
    digest = bundle_digest(artifact / "data")
    Registry("maskcast").tag(1, {"maskcast.digest": digest})
    assert models("deploy", "champion", "--cluster", cluster, "--dry-run") == 0
    *_, service = yaml.safe_load_all(capsys.readouterr().out)
    (container,) = service["spec"]["predictor"]["containers"]
    (port,) = free_ports(1)
    arguments = [
        str(port) if each == str(container["ports"][0]["containerPort"]) else each for each in container["args"]
    ]
    env = [f"--env={each['name']}={each['value']}" for each in container["env"]]
    flags = ["--detach", "--network=host", "--read-only", "--tmpfs=/tmp", "--user=31337:31337", "--cap-drop=ALL"]
    started = docker("run", *flags, f"--volume={artifact}:/mnt/models:ro", *env, image, *arguments)
    assert started.returncode == 0, started.stderr
    name, address = started.stdout.strip(), f"http://127.0.0.1:{port}"
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            answers(f"{address}{container[probe]['httpGet']['path']}", name)
        with urllib.request.urlopen(f"{address}/version", timeout=60) as answer:
            told = json.load(answer)
        assert (told["name"], told["version"], told["digest"]) == ("maskcast", "1", digest)
        clips = moving_squares(3, SEEN, HEIGHT, WIDTH)[0][None]
        frames = {"name": "frames", "shape": clips.shape, "datatype": "UINT8", "data": clips.ravel().tolist()}
        body = json.dumps({"inputs": [frames]}).encode()
        with urllib.request.urlopen(f"{address}/v2/models/maskcast/infer", body, timeout=60) as answer:
            assert json.load(answer)["outputs"][0]["shape"] == [1, HORIZON, HEIGHT, WIDTH]
    finally:
        log = docker("logs", name)
        docker("rm", "--force", name)
    assert "error" not in log.stderr, log.stderr
    arguments[arguments.index(digest)] = "0" * 64  # somebody replaced the weights
    done = docker("run", "--rm", *flags[1:], f"--volume={artifact}:/mnt/models:ro", image, *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: /mnt/models: digest mismatch: {digest}, expected {'0' * 64}; serve the registered model"
    )


def answers(url: str, container: str) -> None:
    """Waits as a kubelet does until a probe answers 200."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"{url} does not answer: {docker('logs', container).stderr}")
