"""The content of `cluster.yaml`."""

import json
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from maskcast.errors import MaskcastError
from maskcast.params import Params, flatten, load_params_file, validate
from maskcast.runner.node_resources import NODE_RESOURCES, parse_node_resources
from maskcast.validation_errors import HIDE_INPUT
from pipelines.kubernetes_types import DNS_LABEL, Cores, Image, Secret, Size, bytes_of
from pipelines.mounts import FilesByFolder, Workspace, check_mounts
from pipelines.options import example_file
from pipelines.pod_metadata import KUEUE, QUEUE_LABEL, Annotations, Labels
from pipelines.pod_resources import LARGEST, Kind, Pod, Pods
from pipelines.variables import Environment, SecretKeys, check_variables

PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")
EXAMPLE = re.compile(r"@sha256:0{64}$")  # of the sample file
PLACEHOLDER = "{{"  # starts one of Argo or kfp, which they replace anywhere in a text
PLACEHOLDER_PROBLEM = "{{ starts a placeholder of Argo or kfp; use another value"


class Serving(Params):
    """How `maskcast models deploy` runs a registered model on KServe."""

    artifacts: str | None = Field(None, pattern="^s3://[^/]+")
    """S3 address of the MLflow server's artifacts (its `--artifacts-destination`), if it proxies them."""
    service_account: str = Field("maskcast-serving", pattern=DNS_LABEL)
    """Service account with which KServe reads S3."""
    cpu: Cores = "2"
    """Cores of a pod."""
    memory: Size = "8Gi"
    """Memory of a pod: twice the 2 GiB that a network may allocate for a request, 1 GiB of waiting bodies, and the
    answer; larger requests are refused."""
    min_replicas: int = Field(1, ge=1)
    """Minimum number of pods."""
    max_replicas: int = Field(4, ge=1)
    """Maximum number of pods."""
    timeout_s: int = Field(60, ge=1)
    """Timeout of a request in seconds."""

    @model_validator(mode="after")
    def _min_is_at_most_max(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise PydanticCustomError(
                HIDE_INPUT,
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}; change one",
            )
        return self


class Cluster(Params):
    """The content of `cluster.yaml`; it contains names of secrets, never their values."""

    image: Image
    """Image of all stages, pinned: registry/name@sha256:... (`submit` requires the digest)."""
    namespace: str = Field("kubeflow-user", pattern=DNS_LABEL)
    """Namespace of the runs."""
    service_account: str = Field("maskcast-runner", pattern=DNS_LABEL)
    """Service account of the pods."""
    pipeline_root: str | None = Field(None, pattern=r"^[a-z0-9]+://[^/\s]\S*$")
    """Root address of artifacts, e.g. s3://bucket/maskcast; null uses the cluster's default."""
    env: Environment = Field(default_factory=dict)
    """Environment of all stages: addresses (MLFLOW_TRACKING_URI, AWS_ENDPOINT_URL_S3), never a secret."""
    secrets: dict[Secret, SecretKeys] = Field(default_factory=dict)
    """Secrets by name, each with the keys that become environment variables of the same names, or, for a secret
    that others made, with {variable: key}."""
    files: FilesByFolder = Field(default_factory=dict)
    """Folders with the files of a ConfigMap or a secret, e.g. {/certificates: {config_map: company-ca}}. Kubeflow
    names the volumes of a pod after them: their names must have no dots and differ, also from the workspace's
    claim."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the image."""
    image_pull_secrets: tuple[Secret, ...] = ()
    """Names of the secrets with credentials for the image's registry."""
    workspace: Workspace | None = None
    """Volume for checkpoints; null keeps them in the pod."""
    data: str | None = Field(None, pattern="^(workspace|s3://[^/]+.*[^/])$")
    """Where outputs of 64 MiB and more are stored: `workspace` or s3://bucket/prefix; null passes them on as
    artifacts, which every stage downloads and uploads."""
    queue: str | None = Field(None, pattern=DNS_LABEL)
    """Kueue's LocalQueue in the namespace, which admits pods and TrainJobs by its quota; null uses none."""
    priority: str | None = Field(None, pattern=DNS_LABEL)
    """Kueue's WorkloadPriorityClass, which orders the queue; null uses the default."""
    labels: Labels = Field(default_factory=dict)
    """Labels of all pods, TrainJobs and the workspace's claim, e.g. {team: vision, cost-centre: "17"}."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of all pods, e.g. {karpenter.sh/do-not-disrupt: "true"}."""
    run_timeout_s: int | None = Field(None, ge=1, le=LARGEST)
    """Seconds after which a whole run is stopped; null leaves only the pods' `timeout_s`."""
    keep_pods_s: int | None = Field(None, ge=1, le=LARGEST)
    """Seconds that pods are kept after a run; null uses Kubeflow's setting (an hour by default)."""
    pods: Pods = Pods()
    """Resources of each kind of pod."""
    stages: dict[str, Pod] = Field(default_factory=dict)
    """Overrides for the pod of a stage, e.g. train_masker: {gpus: 4}, by stage or by its name in a pipeline."""
    serving: Serving = Serving()
    """How a registered model is deployed."""

    _file: Path = PrivateAttr(Path("cluster.yaml"))

    @property
    def file(self) -> Path:
        """The file with this description, for errors."""
        return self._file

    @property
    def image_problem(self) -> tuple[str, str] | None:
        """The reason why nodes cannot or must not run the image, and the remedy; None if the image is valid."""
        if EXAMPLE.search(self.image):
            short = self.image.partition("@")[0]
            return f"{short} is an example and does not exist", "set `image:` in your cluster file (--cluster)"
        if not PINNED.search(self.image):
            remedy = f"pin it in {self.file}: registry/name@sha256:... (see `docker buildx imagetools inspect`)"
            return f"{self.image} is not pinned by its digest", remedy
        return None

    def check_image(self) -> None:
        """Checks that nodes can run the image, and that it cannot change.

        Raises:
            MaskcastError: names the remedy.
        """
        if problem := self.image_problem:
            raise MaskcastError(f"{self.file}: image {'; '.join(problem)}")

    @model_validator(mode="after")
    def _has_workspace_for_data(self) -> Self:
        if self.data == "workspace" and self.workspace is None:
            raise PydanticCustomError(HIDE_INPUT, "data: workspace requires the key `workspace`; add it")
        return self

    @model_validator(mode="after")
    def _has_no_placeholder(self) -> Self:
        for key, value in flatten(self.model_dump(mode="json")).items():
            if PLACEHOLDER in f"{key} {value}":
                raise PydanticCustomError(HIDE_INPUT, "{problem}", {"problem": f"{key}: {PLACEHOLDER_PROBLEM}"})
        return self

    @model_validator(mode="after")
    def _mounts_do_not_clash(self) -> Self:
        check_mounts(self.files, self.workspace)
        return self

    @model_validator(mode="after")
    def _sets_each_variable_once_and_none_of_others(self) -> Self:
        check_variables(self.env, self.secrets)
        return self

    @property
    def data_variables(self) -> dict[str, str]:
        """Environment variables with the location of large outputs (see ``maskcast.runner.references``)."""
        if self.data is None:
            return {}
        cache = {} if self.workspace is None else {"MASKCAST_DATA_CACHE": f"{self.workspace.mount_path}/data"}
        if self.data == "workspace":
            return {"MASKCAST_DATA": cache["MASKCAST_DATA_CACHE"]}
        return {"MASKCAST_DATA": self.data} | cache

    @property
    def queue_labels(self) -> dict[str, str]:
        """Labels with the queue and the priority for Kueue."""
        labels = {QUEUE_LABEL: self.queue, f"{KUEUE}/priority-class": self.priority}
        return {label: value for label, value in labels.items() if value}

    @property
    def metadata_variables(self) -> dict[str, str]:
        """The variable with which a stage passes its labels and annotations to the nodes of its TrainJob."""
        if not self.labels and not self.annotations:
            return {}
        given = {"labels": self.labels, "annotations": self.annotations}
        return {"MASKCAST_POD_METADATA": json.dumps(given, sort_keys=True)}

    def scheduling_variables(self, pod: Pod) -> dict[str, str]:
        """The variable with which a stage passes its node selector and tolerations to the nodes of its TrainJob.

        Kueue adds its own to the pod that waits. That pod may have no GPUs, although the nodes have some.
        """
        tolerations = [toleration.model_dump(exclude_none=True) for toleration in pod.tolerations]
        given = {"nodeSelector": self.node(pod).labels, "tolerations": tolerations}
        if not any(given.values()):
            return {}
        return {"MASKCAST_POD_SCHEDULING": json.dumps({key: value for key, value in given.items() if value})}

    def node(self, pod: Pod) -> Pod:
        """Returns the resources of a node of a TrainJob, which are those of its stage's pod or of ``env``."""
        limits = parse_node_resources(self.env.get(NODE_RESOURCES))
        if limits is None:
            return pod
        gpus = limits.get(pod.gpu_resource, "0")
        update = {"cpu": limits.get("cpu", "0"), "memory": limits.get("memory", "0")}
        return pod.model_copy(update=update | {"gpus": int(gpus) if gpus.isdecimal() else 0})

    def pod(self, name: str, stage: str, kind: Kind) -> Pod:
        """Returns the pod settings of a stage: those of its kind, with overrides by stage, then by name.

        Raises:
            MaskcastError: the shared memory is larger than the memory of which it is a part.
        """
        pod: Pod = getattr(self.pods, kind)
        for override in (self.stages[key] for key in dict.fromkeys((stage, name)) if key in self.stages):
            pod = pod.model_copy(update={key: getattr(override, key) for key in override.model_fields_set})
        on_nodes = NODE_RESOURCES in self.env  # the nodes of a TrainJob get its volumes, but another memory
        if pod.shared_memory and not on_nodes and bytes_of(pod.shared_memory) > bytes_of(pod.memory):
            raise MaskcastError(
                f"{self.file}: pods.{kind} or stages.{name}: shared_memory {pod.shared_memory} is above memory "
                f"{pod.memory}, of which it is a part; change one"
            )
        return pod


def load_cluster(path: Path) -> Cluster:
    """Returns the cluster described by a YAML file.

    Raises:
        MaskcastError: names the file and the faulty key.
    """
    remedy = f"copy {example_file()}, edit the copy, and give it with --cluster"
    cluster = validate(Cluster, load_params_file(path, "cluster file", remedy), f"{path}: ")
    cluster._file = path
    return cluster
