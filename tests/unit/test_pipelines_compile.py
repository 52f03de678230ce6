"""compile: what a cluster gets, and what is said about a cluster file or a value that is wrong."""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from docker.errors import APIError, ImageNotFound
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from kfp.dsl.base_component import BaseComponent

from maskcast.__main__ import main
from maskcast.errors import MaskcastError
from maskcast.runner.stage import get_stage
from pipelines.cluster import load_cluster
from pipelines.compile import refuse_secrets, stages_of
from pipelines.local_docker import PASSED_ON
from pipelines.placement import Placement

ROOT = Path(__file__).resolve().parents[2]
DIGEST = f"registry.example.com/maskcast@sha256:{'a' * 64}"


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def compiled(tmp_path: Path, cluster: dict[str, Any], *flags: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the two documents of the IR: the pipeline, and what Kubernetes does with it."""
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({"image": DIGEST, **cluster}))
    out = tmp_path / "pipeline.yaml"
    cluster_file = str(tmp_path / "cluster.yaml")
    assert main(["pipeline", "compile", "--cluster", cluster_file, "--out", str(out), *flags]) == 0
    pipeline, platform = yaml.load_all(out.read_text(), yaml.CSafeLoader)
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_a_task_asks_for_what_its_pod_says(tmp_path: Path) -> None:
    cluster = {
        "env": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
        "secrets": {"team-s3": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]},
        "image_pull_policy": "Always",
        "image_pull_secrets": ["pull"],
        "workspace": {"claim": "work"},
        "pods": {
            "gpu": {
                "cpu": "8",
                "memory": "32Gi",
                "gpus": 2,
                "gpu_type": "NVIDIA-A100-SXM4-80GB",
                "shared_memory": "4Gi",
                "timeout_s": 600,
                "node_selector": {"pool": "ml"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            }
        },
        "stages": {"train_masker": {"gpus": 4}, "evaluate": {"gpus": 1}},
    }
    pipeline, platform = compiled(tmp_path, cluster)
    executors = pipeline["deploymentSpec"]["executors"]
    container = executors["exec-train-masker"]["container"]
    assert container["image"] == DIGEST
    assert container["resources"]["resourceCpuLimit"] == container["resources"]["resourceCpuRequest"] == "8"
    assert container["resources"]["resourceMemoryLimit"] == "32Gi"
    assert container["resources"]["accelerator"]["resourceCount"] == "4"
    assert executors["exec-generate-masks"]["container"]["resources"]["accelerator"]["resourceCount"] == "2"
    assert executors["exec-evaluate"]["container"]["resources"]["accelerator"]["resourceCount"] == "1"
    assert "accelerator" not in executors["exec-prepare-clips"]["container"]["resources"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert env["MASKCAST_IMAGE"] == DIGEST
    assert env["MASKCAST_RESUME_DIR"] == "/workspace/resume/train_masker"
    pod = platform["exec-train-masker"]
    assert pod["activeDeadlineSeconds"] == "600"
    assert pod["imagePullPolicy"] == "Always"
    assert pod["imagePullSecret"][0]["secretName"] == "pull"
    assert pod["nodeSelector"]["labels"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "pool": "ml"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
    assert pod["pvcMount"][0]["mountPath"] == "/workspace"
    assert pod["securityContext"] == {"runAsNonRoot": True}
    keys = pod["secretAsEnv"][0]["keyToEnv"]
    assert {entry["secretKey"]: entry["envVar"] for entry in keys} == {
        "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
    }
    assert pod["fieldPathAsEnv"] == [{"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}]


def test_a_secret_of_several_lines_is_refused() -> None:
    """As YAML has a text block, no line of which alone looks like a secret."""
    key = "-----BEGIN PRIVATE KEY-----\n    MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n    -----END PRIVATE KEY-----\n"
    with pytest.raises(
        MaskcastError, match=r"^few_labels: the pipeline would contain a secret of several lines; "
    ):
        refuse_secrets(f"defaultValue: |\n    {key}", "few_labels")
    refuse_secrets("defaultValue: |\n    a text\n    of two lines\n", "few_labels")


def test_a_secret_of_others_has_keys_of_other_names(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
    _, platform = compiled(tmp_path, {"secrets": {"minio": keys}})
    (secret,) = platform["exec-train-masker"]["secretAsEnv"]
    assert secret["secretName"] == "minio"
    assert {entry["envVar"]: entry["secretKey"] for entry in secret["keyToEnv"]} == keys


def test_a_queue_admits_pods_by_their_labels_and_a_run_has_limits(tmp_path: Path) -> None:
    cluster = {"queue": "team-queue", "priority": "low", "run_timeout_s": 7200, "keep_pods_s": 86400}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({"image": DIGEST, **cluster}))
    out = tmp_path / "pipeline.yaml"
    assert main(["pipeline", "compile", "--cluster", str(tmp_path / "cluster.yaml"), "--out", str(out)]) == 0
    _, platform = yaml.load_all(out.read_text(), yaml.CSafeLoader)
    kubernetes = platform["platforms"]["kubernetes"]
    labels = {"kueue.x-k8s.io/queue-name": "team-queue", "kueue.x-k8s.io/priority-class": "low"}
    executors = kubernetes["deploymentSpec"]["executors"].values()
    assert [each["podMetadata"]["labels"] for each in executors] == [labels] * len(executors)
    assert kubernetes["pipelineConfig"] == {"activeDeadlineSeconds": 7200, "resourceTtlOnCompletion": 86400}


LABELS = {"team": "vision", "cost-centre": "017", "sidecar.istio.io/inject": "false", "example.com/empty": ""}
NOTES = {"karpenter.sh/do-not-disrupt": "true", "example.com/owner": "Vision & Co, floor 3"}


@pytest.mark.parametrize("flags", [(), ("--native",)])
def test_every_pod_has_the_files_of_the_cluster(tmp_path: Path, flags: tuple[str, ...]) -> None:
    files = {"/certificates": {"config_map": "company-ca"}, "/secrets/gcp": {"secret": "gcp"}}
    file, out = tmp_path / "cluster.yaml", tmp_path / "pipeline.yaml"
    variables = {
        "GOOGLE_APPLICATION_CREDENTIALS": "/secrets/gcp/key.json",
        "SSL_CERT_FILE": "/certificates/ca.pem",
    }
    file.write_text(yaml.safe_dump({"image": DIGEST, "files": files, "env": variables}))
    assert main(["pipeline", "compile", "--cluster", str(file), "--out", str(out), *flags]) == 0
    *_, last = yaml.load_all(out.read_text(), yaml.CSafeLoader)
    platform = last["spec"]["platformSpec"] if flags else last
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert len(pods) == len(stages_of("forecasting"))
    for pod in pods:
        (config_map,), (secret,) = pod["configMapAsVolume"], pod["secretAsVolume"]
        assert (config_map["configMapName"], config_map["mountPath"]) == ("company-ca", "/certificates")
        assert (secret["secretName"], secret["mountPath"]) == ("gcp", "/secrets/gcp")


@pytest.mark.parametrize("flags", [(), ("--native",)])
def test_every_pod_has_the_labels_and_annotations_of_the_cluster(tmp_path: Path, flags: tuple[str, ...]) -> None:
    cluster = {"labels": LABELS, "annotations": NOTES, "queue": "team-queue"}
    plain, marked = tmp_path / "plain.yaml", tmp_path / "marked.yaml"
    for out, more in ((plain, {}), (marked, cluster)):
        file = tmp_path / "cluster.yaml"
        file.write_text(yaml.safe_dump({"image": DIGEST, **more}))
        assert main(["pipeline", "compile", "--cluster", str(file), "--out", str(out), *flags]) == 0
    *_, last = yaml.load_all(marked.read_text(), yaml.CSafeLoader)
    pods = (last["spec"]["platformSpec"] if flags else last)["platforms"]["kubernetes"]["deploymentSpec"][
        "executors"
    ]
    assert len(pods) == len(stages_of("forecasting"))
    for pod in pods.values():
        assert pod["podMetadata"] == {
            "labels": {**LABELS, "kueue.x-k8s.io/queue-name": "team-queue"},
            "annotations": NOTES,
        }
    if not flags:  # what KFP's cache compares: command, arguments, image, inputs and outputs, but no environment
        ours, theirs = (next(yaml.load_all(file.read_text(), yaml.CSafeLoader)) for file in (plain, marked))
        for pipeline in (ours, theirs):
            for executor in pipeline["deploymentSpec"]["executors"].values():
                executor["container"].pop("env")
        assert ours == theirs


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"labels": {"cost-centre": 17}},
            'labels: cost-centre: value must be a string; put it in quotes, e.g. "17"',
        ),
        ({"annotations": {"a/b": True}}, "annotations: a/b: value must be a string; put it in quotes"),
        ({"labels": {"team": "null"}}, None),
        (
            {"labels": {"team": "Vision & Co"}},
            "labels: team: 'Vision & Co' is not a valid label value; use at most 63",
        ),
        ({"labels": {"team": "a" * 64}}, "is not a valid label value"),
        ({"labels": {"team": "vision\n"}}, "is not a valid label value"),
        ({"labels": {"my team": "a"}}, "labels: my team: not a valid key; use NAME or"),
        ({"labels": {"Example.com/team": "a"}}, "not a valid key"),
        ({"labels": {"a/b/c": "a"}}, "not a valid key"),
        ({"labels": {"/team": "a"}}, "not a valid key"),
        ({"labels": {"team-": "a"}}, "not a valid key"),
        ({"labels": {7: "a"}}, "labels: 7: key must be a string; put it in quotes"),
        ({"annotations": {f"{'a.' * 130}b/c": "a"}}, "not a valid key"),
        ({"labels": {"kueue.x-k8s.io/queue-name": "mine"}}, "reserved for Kueue; use the keys `queue` and"),
        (
            {"labels": {"pipeline/runid": "1"}},
            "pipeline/runid: reserved by Kubeflow or maskcast; use a key of your",
        ),
        ({"annotations": {"workflows.argoproj.io/node-name": "x"}}, "reserved by Kubeflow or maskcast"),
        ({"annotations": {"prometheus.io/port": "1"}}, "reserved by Kubeflow or maskcast"),
        ({"labels": {"app": "x"}}, "reserved by Kubeflow or maskcast"),
        ({"annotations": {"note": "x" * (16 << 10)}}, "annotations: larger than 16 KiB in total"),
        ({"labels": ["team"]}, "labels: "),
    ],
)
def test_labels_and_annotations_are_those_of_kubernetes(
    tmp_path: Path, given: dict[str, Any], said: str | None
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump({"image": DIGEST, **given}))
    if said is None:
        assert load_cluster(file).labels == given["labels"]
        return
    with pytest.raises(MaskcastError) as caught:
        load_cluster(file)
    error = str(caught.value)
    assert error.startswith(f"{file}: ")
    assert len(error.splitlines()) == 1
    assert said in error


@pytest.mark.parametrize(
    ("keys", "variables"),
    [
        ({}, {}),
        ({"data": "workspace", "workspace": {"claim": "files"}}, {"MASKCAST_DATA": "/workspace/data"}),
        ({"data": "s3://bucket/large"}, {"MASKCAST_DATA": "s3://bucket/large"}),
        (
            {"data": "s3://bucket/large", "workspace": {"claim": "files", "mount_path": "/files"}},
            {"MASKCAST_DATA": "s3://bucket/large", "MASKCAST_DATA_CACHE": "/files/data"},
        ),
    ],
)
def test_every_stage_is_told_where_large_data_stay(tmp_path: Path, keys: Any, variables: dict[str, str]) -> None:
    spec = compiled(tmp_path, keys)[0]
    for executor in spec["deploymentSpec"]["executors"].values():
        env = {each["name"]: each["value"] for each in executor["container"]["env"]}
        assert {name: value for name, value in env.items() if name.startswith("MASKCAST_DATA")} == variables


def test_only_stages_that_move_data_are_retried_by_default(tmp_path: Path) -> None:
    pipeline, _ = compiled(tmp_path, {})
    tasks = pipeline["root"]["dag"]["tasks"]
    assert tasks["fetch-dataset"]["retryPolicy"] == {
        "maxRetryCount": 3,
        "backoffDuration": "30s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "600s",
    }
    assert [name for name, task in tasks.items() if "retryPolicy" in task] == ["fetch-dataset"]


@pytest.mark.parametrize(("image", "cached"), [(DIGEST, True), ("maskcast:latest", False)])
@pytest.mark.parametrize(
    ("name", "registers", "params"),
    [
        ("forecasting", "register-models", "params.yaml"),
        ("detection", "register-detector", "recipes/detection/params.yaml"),
    ],
)
def test_a_digest_is_cached_and_a_tag_is_not(
    tmp_path: Path, name: str, registers: str, params: str, image: str, cached: bool
) -> None:
    pipeline, _ = compiled(tmp_path, {"image": image}, "--pipeline", name, "--params", params)
    tasks = pipeline["root"]["dag"]["tasks"]
    never = tasks.pop(registers)["cachingOptions"]  # a cached task would register nothing
    options = [task["cachingOptions"] for task in tasks.values()]
    assert options == [{"enableCache": True} if cached else {}] * len(options)
    assert never == {}


def test_values_come_from_the_file_and_from_flags(tmp_path: Path) -> None:
    flags = ["-S", "train_masker.training.epochs=3", "-S", "train_masker.training.clip_grad_norm=null"]
    pipeline, _ = compiled(tmp_path, {}, *flags)
    values = pipeline["root"]["inputDefinitions"]["parameters"]["train_masker"]["defaultValue"]
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())["train_masker"]
    shipped["training"] |= {"epochs": 3, "clip_grad_norm": "null"}
    assert values == shipped


def test_keys_that_are_numbers_reach_the_stage_as_they_are(tmp_path: Path) -> None:
    source = {
        "layout": "frame_folders",
        "classes": ["background", "person"],
        "values": {0: "background", 255: "person"},
    }
    pipeline, _ = compiled(
        tmp_path, {}, "-S", f"prepare_clips.source={yaml.safe_dump(source, default_flow_style=True)}"
    )
    handed_over = pipeline["root"]["inputDefinitions"]["parameters"]["prepare_clips"]["defaultValue"]
    read = get_stage("prepare_clips").params.model_validate(handed_over)
    assert read.source.values == {"0": "background", "255": "person"}


def test_an_integer_that_no_double_holds_reaches_the_stage_as_it_is(tmp_path: Path) -> None:
    pipeline, _ = compiled(tmp_path, {}, "-S", f"train_masker.training.seed={2**53 + 1}")
    handed_over = pipeline["root"]["inputDefinitions"]["parameters"]["train_masker"]["defaultValue"]
    as_kubeflow_has_it = MessageToDict(ParseDict(handed_over, Struct()))
    assert get_stage("train_masker").params.model_validate(as_kubeflow_has_it).training.seed == 2**53 + 1


@pytest.mark.parametrize(("cpu", "asked"), [(4, "4"), (0.5, "0.5"), ("500m", "500m")])
def test_cores_may_be_a_number(tmp_path: Path, cpu: Any, asked: str) -> None:
    pipeline, _ = compiled(tmp_path, {"pods": {"gpu": {"cpu": cpu}}})
    resources = pipeline["deploymentSpec"]["executors"]["exec-train-masker"]["container"]["resources"]
    assert resources["resourceCpuLimit"] == asked


def test_native_manifests_are_a_pipeline_and_its_version(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({"image": DIGEST, "namespace": "team"}))
    out = tmp_path / "native.yaml"
    flags = ["pipeline", "compile", "--native", "--cluster", str(tmp_path / "cluster.yaml"), "--out", str(out)]
    assert main(flags) == 0
    pipeline, version = yaml.load_all(out.read_text(), yaml.CSafeLoader)
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert {item["metadata"]["namespace"] for item in (pipeline, version)} == {"team"}
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "maskcast-forecasting"
    first = version["metadata"]["name"]
    assert main([*flags, "-S", "evaluate.pictures=1"]) == 0
    second = list(yaml.load_all(out.read_text(), yaml.CSafeLoader))[1]["metadata"]["name"]
    assert first != second
    assert main(flags) == 0
    assert list(yaml.load_all(out.read_text(), yaml.CSafeLoader))[1]["metadata"]["name"] == first


def test_the_file_has_the_root_of_the_artifacts(tmp_path: Path) -> None:
    pipeline, _ = compiled(tmp_path, {"pipeline_root": "s3://bucket/runs"})
    assert pipeline["defaultPipelineRoot"] == "s3://bucket/runs"


def test_processes_that_compile_the_same_make_one_version(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({"image": DIGEST, "namespace": "team"}))
    command = [sys.executable, "-m", "maskcast", "pipeline", "compile", "--native"]
    command += ["--cluster", str(tmp_path / "cluster.yaml"), "--out"]
    running = [
        subprocess.Popen([*command, str(tmp_path / seed)], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in "123"
    ]
    assert [each.wait() for each in running] == [0, 0, 0]
    texts = {(tmp_path / seed).read_text() for seed in "123"}
    versions = [list(yaml.load_all(text, yaml.CSafeLoader))[1] for text in texts]
    (name,) = {each["metadata"]["name"] for each in versions}
    assert re.fullmatch("maskcast-forecasting-[0-9a-f]{12}", name)  # the pipeline's name once
    assert len({json.dumps(each, sort_keys=True) for each in versions}) == 1


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ("image: [1", "line 1: not valid YAML"),
        ("namespace: team", "cluster.yaml: image: missing; add it"),
        ("image: x\nnamespace: Team_1", "cluster.yaml: namespace: string should match pattern"),
        ("image: x\npods: {gpu: {gpu: 1}}", "pods.gpu.gpu: unknown key; did you mean 'gpus'?"),
        *(
            (f"image: x\npods: {{gpu: {{memory: {size}}}}}", "pods.gpu.memory: must be an integer with a unit")
            for size in ("4 GB", "0.5Gi", "500m", "8", "8k", "0Gi")
        ),
        ("image: x\npods: {gpu: {shared_memory: 1e3}}", "shared_memory: must be an integer with a unit"),
        *(
            (f"image: x\npods: {{gpu: {{cpu: {cores}}}}}", "pods.gpu.cpu: must be a number of cores above 0")
            for cores in ("4Gi", "4k", "0", "0.0", "1e3", "0.5m")
        ),
        ("image: x\npods: {gpu: {tolerations: [{value: a}]}}", "pods.gpu.tolerations[0]: Equal requires a key"),
        (
            "image: x\npods: {gpu: {tolerations: [{key: a, operator: Exists, value: b}]}}",
            "pods.gpu.tolerations[0]: Exists allows no value",
        ),
        (
            "image: x\nstages: {train: {gpus: 1}}",
            "cluster.yaml: stages.train: unknown stage 'train'; stages: ",
        ),
        ("image: x\ndata: nfs://files", "cluster.yaml: data: string should match pattern"),
        ("image: x\ndata: workspace", "data: workspace requires the key `workspace`; add it"),
        ("image: x\nserving: {min_replicas: 0}", "serving.min_replicas: input should be"),
        *(
            (f"image: {image}", "image: must be registry/name@sha256: with 64 hexadecimal digits")
            for image in (
                "''",
                "a b",
                "Team/Name",
                "name@sha256:12",
                f"{DIGEST}:1",
                f"|\n  name@sha256:{64 * '1'}\n",
            )
        ),
        (
            "image: x\nenv: {A B: x}",
            "env.A B: must have letters, digits, `_`, `-` and `.`, e.g. AWS_REGION, got 'A B'",
        ),
        ("image: x\nsecrets: {Team_S3: [KEY]}", "secrets.Team_S3: must have lower-case letters, digits, `-` and"),
        (
            "image: x\nsecrets: {a: [my/key]}",
            "secrets.a: must have letters, digits, `_`, `-` and `.`, e.g. AWS_REGION",
        ),
        ("image: x\nsecrets: {a: {A: k, B: k}}", "secrets.a: key k has two variables; keep one"),
        ("image: x\nimage_pull_secrets: ['']", "image_pull_secrets[0]: must have lower-case letters, digits,"),
        ("image: x\npods: {gpu: {gpu_resource: gpu}}", "gpu_resource: must be domain/NAME, e.g. nvidia.com/gpu"),
        ("image: x\npods: {gpu: {gpu_type: A 100}}", "pods.gpu.gpu_type: must have at most 63 letters, digits,"),
        ("image: x\npods: {gpu: {node_selector: {a b: x}}}", "node_selector.a b: must be NAME or"),
        ("image: x\npods: {gpu: {node_selector: {a: x y}}}", "node_selector.a: must have at most 63 letters,"),
        ("image: x\npods: {gpu: {tolerations: [{key: a b}]}}", "tolerations[0].key: must be NAME or"),
        (
            "image: x\npods: {gpu: {tolerations: [{key: a, value: b c}]}}",
            "tolerations[0].value: must have at most",
        ),
        ("image: x\npods: {gpu: {retries: 3000000000}}", "retries: input should be less than or equal to 2147"),
        ("image: x\npods: {gpu: {timeout_s: 3000000000}}", "timeout_s: input should be less than or equal to"),
        ("image: x\nrun_timeout_s: 3000000000", "run_timeout_s: input should be less than or equal to 2147"),
        ("image: x\nkeep_pods_s: 3000000000", "keep_pods_s: input should be less than or equal to 2147483647"),
        ("image: x\nserving: {min_replicas: 5}", "serving: min_replicas 5 is above max_replicas 4; change one"),
        ("image: x\npipeline_root: bucket/runs", "cluster.yaml: pipeline_root: string should match pattern"),
        ("image: x\nenv: {AWS_SECRET_ACCESS_KEY: x}", "AWS_SECRET_ACCESS_KEY must come from a secret"),
        ("image: x\nenv: {AWS_ACCESS_KEY_ID: x}", "AWS_ACCESS_KEY_ID must come from a secret"),
        ("image: x\nenv: {DB: 'postgresql://me:pw@host/db'}", "DB must come from a secret"),
        ("image: x\nenv: {WANDB_API_KEY: x}", "WANDB_API_KEY must come from a secret"),
        ("image: x\nenv: {SMTP_PASS: x}", "SMTP_PASS must come from a secret"),
        ("image: x\nenv: {TLS_PASSWORD_FILE: hunter2}", "TLS_PASSWORD_FILE must come from a secret"),
        ("image: x\nenv: {HEADER: 'Bearer abcdefghijklmnop'}", "HEADER must come from a secret"),
        ("image: x\nenv: {STORE: 'AccountName=a;AccountKey=b3==;'}", "STORE must come from a secret"),
        *(
            (
                f"image: x\nenv: {{{name}: x}}",
                f"{name} is reserved for maskcast, Kubeflow and torchrun; remove it from",
            )
            for name in (
                "MASKCAST_GRID",
                "MASKCAST_IMAGE",
                "MASKCAST_RESUME_DIR",
                "KFP_RUN_ID",
                "RANK",
                "PET_RANK",
                "TORCHELASTIC_RUN_ID",
            )
        ),
        (
            "image: x\nsecrets: {a: [LOCAL_WORLD_SIZE]}",
            "LOCAL_WORLD_SIZE is reserved for maskcast, Kubeflow and torchrun",
        ),
        ("image: x\nenv: {A: '{{workflow.name}}'}", "env.A: {{ starts a placeholder of Argo or kfp; use another"),
        ("image: x\nannotations: {a/b: 'x {{pod.name}}'}", "annotations.a/b: {{ starts a placeholder of Argo"),
        (
            "image: x\nenv: {MASKCAST_NODE_RESOURCES: '{cpu: 16}'}",
            "MASKCAST_NODE_RESOURCES: '{cpu: 16}' is not a JSON object; set limits such as",
        ),
        ("image: x\nsecrets: {a: [KEY, B], b: [KEY]}", "duplicate variable KEY in `env` and `secrets`"),
        ("image: x\nenv: {KEY: x}\nsecrets: {a: [KEY]}", "duplicate variable KEY in `env` and `secrets`"),
        ("image: x\nstages: {1: {gpus: 1}}", "stages[1]: must be text, and YAML takes it for 1"),
        ("image: x\nworkspace: {claim: a, mount_path: '/a:b'}", "workspace.mount_path: string should match"),
        *(
            (
                f"image: x\nworkspace: {{claim: a, mount_path: {path}}}",
                f"workspace.mount_path: {path} would hide {of}",
            )
            for path, of in (
                ("/opt/venv", "/opt"),
                ("/tmp", "/tmp"),
                ("//usr/local", "/usr"),
                ("/data/../etc", "/etc"),
                ("/s3", "/s3 of Kubeflow"),
                ("/gcs/data", "/gcs of Kubeflow"),
                ("/minio/", "/minio of Kubeflow"),
                ("/.cache", "/.cache of Kubeflow"),
                ("/var", "/var/run of Kubeflow or Kubernetes"),
                ("/var/run/secrets/kubernetes.io/serviceaccount", "/var/run of Kubeflow or Kubernetes"),
            )
        ),
        ("image: x\nfiles: {/mnt: {config_map: ca}}", "files./mnt: /mnt would hide /mnt/models of KServe"),
        (
            "image: x\nfiles: {/a: {config_map: ca}, /b: {config_map: ca}}",
            "cluster.yaml: files./b: a pod already has a volume 'ca', as Kubeflow names it after the ConfigMap",
        ),
        ("image: x\nfiles: {/a: {config_map: ca}, /b: {secret: ca}}", "files./b: a pod already has a volume 'ca'"),
        (
            "image: x\nworkspace: {claim: ca}\nfiles: {/b: {secret: ca}}",
            "files./b: a pod already has a volume 'ca'",
        ),
        ("image: x\nfiles: {/a: {secret: shared-memory}}", "files./a: a pod already has a volume 'shared-memory'"),
        (
            "image: x\nfiles: {/a: {config_map: company.ca}}",
            "files./a.config_map: must have at most 63 lower-case",
        ),
        (
            "image: x\nfiles: {/a: {secret: a}, /a/: {secret: b}}",
            "files: /a and /a/ are the same folder; keep one",
        ),
        ("image: x\nfiles: {/a: {secret: a}, /a/b: {secret: b}}", "/a/b is in /a of `files`, which is read-only;"),
        (
            "image: x\nworkspace: {claim: a, mount_path: /w}\nfiles: {/w/: {secret: b}}",
            "files and workspace are both mounted at /w; change one",
        ),
        *(
            (f"image: x\nsecrets: {{{name}: [KEY]}}", f"secrets.{name}: must have lower-case letters")
            for name in ("a..b", "a.-b", "a" * 254)
        ),
        *(
            (
                f"image: x\npods: {{gpu: {{node_selector: {{{key}: a}}}}}}",
                "must be NAME or domain.example.com/NAME",
            )
            for key in ("a..b/x", "a.-b/x", f"{'a' * 254}/x")
        ),
        ("image: x\nfiles: {/etc/ssl: {config_map: ca}}", "/etc/ssl would hide /etc of the image"),
        ("image: x\nfiles: {/ca: {}}", "files./ca: needs one of the keys config_map and secret"),
        (
            "image: x\nworkspace: {claim: a}\nfiles: {/workspace: {secret: a}}",
            "files and workspace are both mounted at /workspace; change one",
        ),
        (
            "image: x\npods: {gpu: {memory: 4Gi, shared_memory: 5000M}}",
            "pods.gpu or stages.pretrain_encoder: shared_memory 5000M is above memory 4Gi, of which it is a part",
        ),
        (
            "image: x\npods: {gpu: {memory: 4Gi}}\nstages: {train_masker: {shared_memory: 1Ti}}",
            "stages.train_masker: shared_memory 1Ti is above memory 4Gi",
        ),
        ("image: x\nworkspace: {claim: a, mount_path: //}", "workspace.mount_path: string should match pattern"),
    ],
)
def test_a_wrong_cluster_file_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cluster: str, said: str
) -> None:
    (tmp_path / "cluster.yaml").write_text(cluster)
    out = tmp_path / "out.yaml"
    assert main(["pipeline", "compile", "--cluster", str(tmp_path / "cluster.yaml"), "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert "pw@" not in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train_masker", "use section.key=value"),
        ("train=1", "use section.key=value"),
        ("train.epochs=1", "unknown section 'train'; allowed: fetch_dataset, "),
        ("train_masker.epochs=1", "train_masker.epochs: unknown key"),
        ("train_masker.training.epochs=[1", "is not valid YAML"),
        ("train_masker.training.epochs=2001-99-99", "is not valid YAML"),
        ("train_masker.training.epochs.x=1", "'epochs' is 4 and has no keys"),
        (
            "fetch_dataset.uri='{{$.outputs.artifacts}}'",
            "fetch_dataset.uri: {{ starts a placeholder of Argo or kfp",
        ),
        ("fetch_dataset.uri='s3://b/{{workflow.name}}'", "fetch_dataset.uri: {{ starts a placeholder of Argo or"),
        ("train_masker.training.epochs=0", "training.epochs: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, said: str
) -> None:
    assert main(["pipeline", "compile", "--out", str(tmp_path / "out.yaml"), "-S", override]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_variables_that_only_an_image_or_a_user_sets_are_not_reserved(tmp_path: Path) -> None:
    env = {"MASKCAST_GIT_SHA": "0123", "TORCHELASTIC_ENABLE_FILE_TIMER": "1", "MASKCAST_PLUGIN": "mine"}
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump({"image": "x", "env": env}))
    assert load_cluster(file).env == env


@pytest.mark.parametrize(
    ("cluster", "overrides", "said"),
    [
        ({}, ["nodes=2"], "train_masker.training.nodes 2: nodes share the workspace, which "),
        (
            {"pods": {"gpu": {"gpus": 1}}},
            ["processes=8"],
            "gives them 1 of nvidia.com/gpu; change stages.train_masker",
        ),
        (
            {"workspace": {"claim": "a"}, "env": {"MASKCAST_NODE_RESOURCES": '{"nvidia.com/gpu": 4}'}},
            ["nodes=2", "processes=8"],
            "gives them 4 of nvidia.com/gpu; change MASKCAST_NODE_RESOURCES there, or lower processes",
        ),
        ({}, ["processes=2"], ""),
        ({"workspace": {"claim": "a"}, "pods": {"gpu": {"gpus": 2}}}, ["nodes=2", "processes=2"], ""),
    ],
)
def test_trainings_are_compared_with_the_cluster_before_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cluster: Any, overrides: list[str], said: str
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump({"image": DIGEST} | cluster))
    flags = [word for each in ["batch_size=16", *overrides] for word in ("-S", f"train_masker.training.{each}")]
    out = tmp_path / "out.yaml"
    code = main(["pipeline", "compile", "--cluster", str(file), "--out", str(out), *flags])
    error = capsys.readouterr().err
    assert (code, out.exists()) == ((2, False) if said else (0, True)), error
    assert said in error


def test_other_mistakes_are_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "compile", "--out", str(tmp_path / "no/folder/out.yaml")]) == 2
    assert "out.yaml: cannot be written (No such file or directory)" in capsys.readouterr().err
    assert main(["pipeline", "compile", "--out", "."]) == 2
    assert capsys.readouterr().err == "error: .: is a folder; give a file with --out\n"
    os.mkfifo(tmp_path / "pipe")  # a device as well: root would have replaced /dev/null
    assert main(["pipeline", "compile", "--out", str(tmp_path / "pipe")]) == 2
    assert "pipe: cannot be written (a pipe or device, no file)" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "params.yaml").write_text("fetch_dataset: {uri: synthetic}")
    files = ["--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "out.yaml")]
    assert main(["pipeline", "compile", *files]) == 2
    missing = "params.yaml: section 'prepare_clips' is missing (sections: fetch_dataset); add it"
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize(
    ("image", "warning"),
    [
        (f"registry.example.com/maskcast@sha256:{'0' * 64}", "registry.example.com/maskcast is an example"),
        ("registry.example.com/maskcast:1", "registry.example.com/maskcast:1 is not pinned by its digest"),
        (DIGEST, ""),
    ],
)
def test_an_image_that_submit_refuses_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], image: str, warning: str
) -> None:
    cluster, out = tmp_path / "cluster.yaml", tmp_path / "out.yaml"
    cluster.write_text(yaml.safe_dump({"image": image}))
    assert main(["pipeline", "compile", "--cluster", str(cluster), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert said.err.startswith(f"warning: {cluster}: image {warning}" if warning else "")
    assert said.err.count("\n") == bool(warning)


def test_sections_that_no_stage_reads_are_their_owner_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "x-seed: &seed 3\nx-common: {epochs: 2}\n.shared: [1]\nplots: {dpi: 90}\n"
    file = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    file.write_text(own + text)
    for params, out in ((ROOT / "params.yaml", "plain.yaml"), (file, "own.yaml")):
        assert main(["pipeline", "compile", "--params", str(params), "--out", str(tmp_path / out)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "section" in line]
    assert said == [f"warning: {file}: no stage of the pipeline reads section 'plots'; remove it if unused"]
    assert (tmp_path / "own.yaml").read_bytes() == (tmp_path / "plain.yaml").read_bytes()
    files = ["--params", str(file), "--out", str(tmp_path / "out.yaml")]
    assert main(["pipeline", "compile", *files, "-S", "x-common.epochs=3"]) == 2
    assert "-S x-common.epochs=3: unknown section 'x-common'; allowed: fetch_dataset" in capsys.readouterr().err
    file.write_text(text.replace("train_masker:", "train_maskr:"))
    assert main(["pipeline", "compile", *files]) == 2
    assert "section 'train_masker' is missing" in (said := capsys.readouterr().err)
    assert said.strip().endswith("did you mean 'train_maskr'?")


def test_containers_get_keys_and_addresses_and_no_folders_of_this_machine() -> None:
    passed_on = ["AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_URI", "GIT_USERNAME", "GIT_PASSWORD", "HF_TOKEN"]
    kept = ["HOME", "GIT_DIR", "GIT_PASSWORD_FILE", "HF_HOME", "PYTHONPATH"]
    assert [name for name in (*passed_on, *kept) if PASSED_ON.match(name)] == passed_on


@pytest.mark.parametrize("name", ["raw #1", "a: b", "[ü]", 'it\'s "raw"', "-raw"])
def test_containers_see_the_data_of_this_machine_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class SeenError(Exception):
        pass

    def run_local(built: BaseComponent, out: Path, image: str, mounts: Sequence[Path], *_: Any) -> Path:
        uri = built.component_spec.inputs["fetch_dataset"].default["uri"]
        raise SeenError(uri, *mounts)

    (tmp_path / name).mkdir()
    monkeypatch.setattr("pipelines.local.run_local", run_local)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for uri in (str(tmp_path / name), (tmp_path / name).as_uri()):
        params["fetch_dataset"]["uri"] = uri
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        with pytest.raises(SeenError) as seen:
            main(["pipeline", "run-local", "--docker", "maskcast", "--params", str(tmp_path / "params.yaml")])
        assert seen.value.args == (str(tmp_path / name), tmp_path / name)


def test_run_local_says_that_no_docker_engine_answers(tmp_path: Path) -> None:
    command = ["pipeline", "run-local", "--docker", "maskcast", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "maskcast", *command],
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/no.sock"},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 2
    assert f"Docker Engine is unreachable at unix://{tmp_path}/no.sock" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("image", ["maskcast:typo", "Maskcast"])
def test_run_local_says_that_there_is_no_such_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], image: str
) -> None:
    def get(name: str) -> None:
        raise (ImageNotFound if name.islower() else APIError)("no such image")

    engine = SimpleNamespace(ping=lambda: None, images=SimpleNamespace(get=get, pull=get))
    monkeypatch.setattr("docker.from_env", lambda: engine)
    assert main(["pipeline", "run-local", "--docker", image, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --docker {image}: not found, and cannot be pulled (no such image)")
    assert not (tmp_path / "out").exists()


def test_run_local_says_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("of somebody")
    for out in (tmp_path / "file", tmp_path / "file/folder"):
        assert main(["pipeline", "run-local", "--out", str(out)]) == 2
        assert f"{out}: cannot be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "of somebody"


def test_a_recipe_is_compiled_in_its_folder(tmp_path: Path) -> None:
    """Its params lie there; pipelines and the sample cluster file are the project's."""
    command = ["pipeline", "compile", "--pipeline", "detection", "--out", str(tmp_path / "detection.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "maskcast", *command],
        cwd=ROOT / "recipes/detection",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/detection.yaml\n"), done.stderr


def test_the_stack_that_kfp_reads_is_short_whoever_compiles() -> None:
    """KFP looks through all modules for each frame of a notebook, for each setting of each task."""
    depths = []

    def tasks() -> None:
        depths.append(len(inspect.stack()))
        raise NotImplementedError

    def build(callers: int) -> BaseComponent:
        return build(callers - 1) if callers else Placement("image").pipeline("none", "", tasks, {})

    for callers in (0, 50):
        with pytest.raises(NotImplementedError):
            build(callers)
    assert depths[0] == depths[1] < 20
