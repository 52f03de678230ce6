"""Everything about Kubernetes: the content of `cluster.yaml`, and how it is applied to a task."""

import json
import re
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from kfp import dsl, kubernetes
from kfp.dsl import PipelineConfig, PipelineTask
from kfp.dsl.base_component import BaseComponent
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from maskcast.errors import MaskcastError
from maskcast.params import Params, load_params_file, validate
from maskcast.redaction import has_user
from maskcast.validation_errors import HIDE_INPUT
from pipelines.options import example_file
from pipelines.pod_metadata import KUEUE, Annotations, Labels

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
LARGEST = 2**31 - 1  # Kubernetes and kfp store seconds and retries in 32 bits
LOOKS_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY", re.IGNORECASE)
PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")
EXAMPLE = re.compile(r"@sha256:0{64}$")  # of the sample file
Kind = Literal["io", "cpu", "gpu"]


def _cores(text: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?|[0-9]+m", text) or not re.search("[1-9]", text):
        raise PydanticCustomError("cores", "write a number of cores above 0, e.g. 4, 0.5 or 500m")
    return text


def _size(text: str) -> str:
    # Units that both Kubernetes and kfp accept; a number without a unit would mean bytes.
    if not re.fullmatch(r"[1-9][0-9]*([KMGT]i|[MGT])", text):
        raise PydanticCustomError("size", "write a whole number with a unit (Mi, Gi, Ti), e.g. 512Mi or 8Gi")
    return text


def _as_text(value: Any) -> Any:
    """Returns a number from YAML as text, as Kubernetes requires."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Cores = Annotated[str, BeforeValidator(_as_text), AfterValidator(_cores)]
Size = Annotated[str, BeforeValidator(_as_text), AfterValidator(_size)]


def _of_form(form: str, remedy: str) -> AfterValidator:
    """Checks the form of a text early: Kubernetes would refuse the pod long after the run was submitted."""

    def check(text: str) -> str:
        if not re.fullmatch(form, text, re.ASCII):
            raise PydanticCustomError("form", remedy)
        return text

    return AfterValidator(check)


_DOMAIN, _NAME = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_IN_LABELS = "at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
Variable = Annotated[
    str, _of_form("[-._A-Za-z][-._A-Za-z0-9]*", "write letters, digits, `_`, `-` and `.`, e.g. AWS_REGION")
]
Secret = Annotated[str, _of_form(_DOMAIN, "write lower-case letters, digits, `-` and `.`, e.g. maskcast-s3")]
LabelKey = Annotated[
    str, _of_form(f"({_DOMAIN}/)?{_NAME}", f"write NAME or domain.example.com/NAME, where NAME has {_IN_LABELS}")
]
LabelValue = Annotated[str, _of_form(f"({_NAME})?", f"write {_IN_LABELS}")]
Resource = Annotated[str, _of_form(f"{_DOMAIN}/{_NAME}", "write domain/NAME, e.g. nvidia.com/gpu")]
Image = Annotated[
    str,
    _of_form(
        r"([\w.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:\w[\w.-]*)?(@sha256:[0-9a-f]{64})?",
        "write registry/name@sha256: and 64 digits from 0 to f; a name has lower-case letters",
    ),
]


class Toleration(Params):
    """A taint that pods may run on, as Kubernetes spells it."""

    key: LabelKey | None = None
    """Key of the taint; null matches all."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the value must be equal or the key be there."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; null matches all."""

    @model_validator(mode="after")
    def _as_kubernetes_takes_it(self) -> Self:
        if self.key is None and self.operator == "Equal":
            raise PydanticCustomError(
                HIDE_INPUT, "Equal needs a key; add it, or write operator: Exists for all taints"
            )
        if self.operator == "Exists" and self.value is not None:
            raise PydanticCustomError(HIDE_INPUT, "Exists takes no value; remove it, or write operator: Equal")
        return self


class Pod(Params):
    """What a stage's pod asks for."""

    cpu: Cores = "2"
    """Cores, requested and at most."""
    memory: Size = "8Gi"
    """Memory, requested and at most."""
    gpus: int = Field(0, ge=0)
    """GPUs of the pod; a stage uses all it gets."""
    gpu_resource: Resource = "nvidia.com/gpu"
    """Name of the GPU resource on the nodes."""
    gpu_type: LabelValue | None = None
    """Value of the node label nvidia.com/gpu.product to run on; null takes any."""
    shared_memory: Size | None = None
    """Size of /dev/shm, for data loaders and processes of one pod, as a part of `memory`; null leaves the 64 MB
    of the runtime."""
    timeout_s: int = Field(86400, ge=1, le=LARGEST)
    """Seconds after which the pod is stopped."""
    retries: int = Field(0, ge=0, le=LARGEST)
    """How often a failed pod is started again, after 30 s, 60 s, 120 s, ... (at most 10 minutes)."""
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that the pod may run on."""

    @property
    def labels(self) -> dict[str, str]:
        """Required labels of nodes: the node selector and the GPU type."""
        gpu_type = {"nvidia.com/gpu.product": self.gpu_type} if self.gpus and self.gpu_type else {}
        return gpu_type | self.node_selector


class Pods(Params):
    """The three kinds of pods."""

    io: Pod = Pod(retries=3)
    """Moves data: fetch_dataset."""
    cpu: Pod = Pod()
    """Computes: prepares data, evaluates and predicts."""
    gpu: Pod = Pod()
    """Trains, masks and detects."""


class Workspace(Params):
    """A volume that outlives a pod: a training stage that is started again goes on from its checkpoint."""

    claim: str = Field(pattern=DNS_LABEL)
    """Name of the PersistentVolumeClaim."""
    mount_path: str = Field("/workspace", pattern="^/+[^/:][^:]*$")
    """Where pods see it."""
    size: Size = "50Gi"
    """Size that `setup` asks for."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """Access that `setup` asks for; ReadWriteOnce does where all pods run on one node."""
    storage_class: str | None = None
    """Storage class that `setup` asks for; null takes the cluster's default."""


class Serving(Params):
    """How `maskcast models deploy` runs a registered model on KServe."""

    artifacts: str | None = Field(None, pattern="^s3://[^/]+")
    """Where the MLflow server keeps what it hands out as mlflow-artifacts:/ (its `--artifacts-destination`)."""
    service_account: str = Field("maskcast-serving", pattern=DNS_LABEL)
    """Service account by which KServe reads S3."""
    cpu: Cores = "2"
    """Cores of a pod."""
    memory: Size = "8Gi"
    """Memory of a pod: twice the 2 GiB that a network may hold of a request, 1 GiB of bodies that wait, and what
    comes of one; larger requests are refused."""
    min_replicas: int = Field(1, ge=1)
    """Pods at least."""
    max_replicas: int = Field(4, ge=1)
    """Pods at most."""
    timeout_s: int = Field(60, ge=1)
    """Seconds that a request may take."""

    @model_validator(mode="after")
    def _least_is_within_most(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise PydanticCustomError(
                HIDE_INPUT,
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}; change one",
            )
        return self


class Cluster(Params):
    """A cluster as `cluster.yaml` describes it. Names of secrets stand here, their values never."""

    image: Image
    """Image of all stages, pinned: registry/name@sha256:... (`submit` takes nothing else)."""
    namespace: str = Field("kubeflow-user", pattern=DNS_LABEL)
    """Namespace of the runs."""
    service_account: str = Field("maskcast-runner", pattern=DNS_LABEL)
    """Service account of the pods."""
    pipeline_root: str | None = Field(None, pattern=r"^[a-z0-9]+://[^/\s]\S*$")
    """Where artifacts go, e.g. s3://bucket/maskcast; null takes the cluster's default."""
    env: dict[Variable, str] = Field(default_factory=dict)
    """Environment of all stages: addresses (MLFLOW_TRACKING_URI, AWS_ENDPOINT_URL_S3), never a secret."""
    secrets: dict[Secret, tuple[Variable, ...]] = Field(default_factory=dict)
    """Secrets by name, each with the keys that become environment variables of the same names."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the image."""
    image_pull_secrets: tuple[Secret, ...] = ()
    """Names of the secrets that pull it."""
    workspace: Workspace | None = None
    """Volume for checkpoints; null keeps them in the pod."""
    data: str | None = Field(None, pattern="^(workspace|s3://[^/]+.*[^/])$")
    """Where outputs of 64 MiB and more stay and are read from: `workspace` or s3://bucket/prefix; null passes them
    on as artifacts, which every stage downloads and uploads."""
    queue: str | None = Field(None, pattern=DNS_LABEL)
    """Kueue's LocalQueue in the namespace, which admits pods and TrainJobs by its quota; null takes none."""
    priority: str | None = Field(None, pattern=DNS_LABEL)
    """Kueue's WorkloadPriorityClass, which orders what waits in a queue; null takes the default's."""
    labels: Labels = Field(default_factory=dict)
    """Labels of all pods, TrainJobs and the workspace's claim, e.g. {team: vision, cost-centre: "17"}."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of all pods, e.g. {karpenter.sh/do-not-disrupt: "true"}."""
    run_timeout_s: int | None = Field(None, ge=1, le=LARGEST)
    """Seconds after which a whole run is stopped; null lets the pods' own `timeout_s` do."""
    keep_pods_s: int | None = Field(None, ge=1, le=LARGEST)
    """Seconds that a run's pods stay after its end; null leaves that to Kubeflow (an hour, as it is installed)."""
    pods: Pods = Pods()
    """What each kind of pod asks for."""
    stages: dict[str, Pod] = Field(default_factory=dict)
    """Keys of a pod that differ for one stage, e.g. train_masker: {gpus: 4}, or one name of it in a pipeline."""
    serving: Serving = Serving()
    """How a registered model is deployed."""

    _file: Path = PrivateAttr(Path("cluster.yaml"))

    @property
    def file(self) -> Path:
        """The file with this description, for errors."""
        return self._file

    @property
    def fault_of_image(self) -> tuple[str, str] | None:
        """The reason why nodes cannot or must not run the image, and the remedy; None if there is none."""
        if EXAMPLE.search(self.image):
            short = self.image.partition("@")[0]
            return f"{short} is an example that nobody can pull", "set `image:` in your cluster file (--cluster)"
        if not PINNED.search(self.image):
            remedy = f"pin it in {self.file}: registry/name@sha256:... (`docker buildx imagetools inspect` tells)"
            return f"{self.image} may change after it was submitted", remedy
        return None

    def check_image(self) -> None:
        """Checks that nodes can run the image, and that it cannot change.

        Raises:
            MaskcastError: names the remedy.
        """
        if fault := self.fault_of_image:
            raise MaskcastError(f"{self.file}: image {'; '.join(fault)}")

    @field_validator("env")
    @classmethod
    def _no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if LOOKS_SECRET.search(name) or has_user(value):
                raise PydanticCustomError(HIDE_INPUT, f"{name} must come from a secret; name it under `secrets`")
        return env

    @model_validator(mode="after")
    def _has_place_for_data(self) -> Self:
        if self.data == "workspace" and self.workspace is None:
            raise PydanticCustomError(HIDE_INPUT, "data: workspace needs `workspace` with a claim; name one")
        return self

    @model_validator(mode="after")
    def _sets_each_variable_once(self) -> Self:
        names = [*self.env, *(key for keys in self.secrets.values() for key in keys)]
        for name in names:
            if names.count(name) > 1:
                raise PydanticCustomError(
                    HIDE_INPUT, f"{name} stands more than once in `env` and `secrets`; name it in one place"
                )
        return self

    @property
    def data_variables(self) -> dict[str, str]:
        """Variables that tell stages where large outputs are kept (see ``maskcast.runner.references``)."""
        if self.data is None:
            return {}
        kept = {} if self.workspace is None else {"MASKCAST_DATA_CACHE": f"{self.workspace.mount_path}/data"}
        if self.data == "workspace":
            return {"MASKCAST_DATA": kept["MASKCAST_DATA_CACHE"]}
        return {"MASKCAST_DATA": self.data} | kept

    @property
    def queue_labels(self) -> dict[str, str]:
        """Labels that tell Kueue the queue and the priority."""
        labels = {f"{KUEUE}/queue-name": self.queue, f"{KUEUE}/priority-class": self.priority}
        return {label: value for label, value in labels.items() if value}

    @property
    def metadata_variables(self) -> dict[str, str]:
        """The variable with which a stage passes its labels and annotations to the nodes of its TrainJob."""
        if not self.labels and not self.annotations:
            return {}
        given = {"labels": self.labels, "annotations": self.annotations}
        return {"MASKCAST_POD_METADATA": json.dumps(given, sort_keys=True)}

    def pod(self, name: str, stage: str, kind: Kind) -> Pod:
        """Returns the pod settings of a stage: those of its kind, overridden by its own, then by its name's."""
        pod: Pod = getattr(self.pods, kind)
        for own in (self.stages[key] for key in dict.fromkeys((stage, name)) if key in self.stages):
            pod = pod.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
        return pod


def load_cluster(path: Path) -> Cluster:
    """Returns the cluster described by a YAML file.

    Raises:
        MaskcastError: names the file and the faulty key.
    """
    remedy = f"copy {example_file()}, change what differs, and name the copy with --cluster"
    cluster = validate(Cluster, load_params_file(path, "cluster file", remedy), f"{path}: ")
    cluster._file = path
    return cluster


class Placement:
    """Places each task of a pipeline; without a cluster (local runs), only the image is set."""

    def __init__(self, image: str, cluster: Cluster | None = None) -> None:
        self.image, self.cluster = image, cluster
        # Stage by name in the pipeline; complete once a pipeline has been built.
        self.stages: dict[str, str] = {}
        self.pods: dict[str, Pod] = {}
        self.kinds: dict[str, Kind] = {}

    def pipeline(
        self, name: str, description: str, tasks: Callable[..., None], parameters: Mapping[str, tuple[Any, Any]]
    ) -> BaseComponent:
        """Returns the Kubeflow pipeline of tasks that this object places.

        Args:
            name: name of the pipeline.
            description: description in Kubeflow.
            tasks: function that creates the tasks, given the pipeline's parameters.
            parameters: type and default of each parameter, by name.
        """
        config, cluster = PipelineConfig(), self.cluster
        if cluster is not None:
            config = PipelineConfig(
                active_deadline_seconds=cluster.run_timeout_s, ttl_seconds_after_finished=cluster.keep_pods_s
            )

        def made(*given: Any) -> None:
            tasks(*given)

        made.__signature__ = Signature(  # type: ignore[attr-defined]
            [
                Parameter(key, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
                for key, (kind, default) in parameters.items()
            ],
            return_annotation=None,
        )
        built: BaseComponent = dsl.pipeline(name=name, description=description, pipeline_config=config)(made)
        return built

    def io(self, task: PipelineTask) -> PipelineTask:
        """Places a task that transfers data."""
        return self._place(task, "io")

    def cpu(self, task: PipelineTask) -> PipelineTask:
        """Places a task that computes on CPUs."""
        return self._place(task, "cpu")

    def gpu(self, task: PipelineTask) -> PipelineTask:
        """Places a task that uses all GPUs of its pod."""
        return self._place(task, "gpu")

    def _place(self, task: PipelineTask, kind: Kind) -> PipelineTask:
        stage = task.component_spec.name.replace("-", "_")
        name = task.inputs.get("name", stage)
        self.stages[name], self.kinds[name] = stage, kind
        task.set_container_image(self.image).set_display_name(name.replace("_", " "))
        if self.cluster is not None:
            self.pods[name] = self.cluster.pod(name, stage, kind)
            _on_cluster(task, name, self.cluster, self.pods[name])
        if stage.startswith("register_"):
            task.set_caching_options(False)  # a cached task would register nothing
        return task


def _on_cluster(task: PipelineTask, name: str, cluster: Cluster, pod: Pod) -> None:
    task.set_caching_options(PINNED.search(cluster.image) is not None)  # a tag may name other code later
    task.set_cpu_request(pod.cpu).set_cpu_limit(pod.cpu)
    task.set_memory_request(pod.memory).set_memory_limit(pod.memory)
    if pod.retries:
        task.set_retry(pod.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    if pod.gpus:
        task.set_accelerator_type(pod.gpu_resource).set_accelerator_limit(pod.gpus)
    for label, value in pod.labels.items():
        kubernetes.add_node_selector(task, label, value)
    for label, value in {**cluster.labels, **cluster.queue_labels}.items():
        kubernetes.add_pod_label(task, label, value)
    for key, value in cluster.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    for toleration in pod.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    if pod.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=pod.shared_memory
        )
    own = {"MASKCAST_IMAGE": cluster.image, **cluster.data_variables, **cluster.metadata_variables}
    for variable, value in {**own, **cluster.env}.items():
        task.set_env_variable(variable, value)
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
    for secret, keys in cluster.secrets.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys})
    if cluster.workspace:
        kubernetes.mount_pvc(task, cluster.workspace.claim, cluster.workspace.mount_path)
        task.set_env_variable("MASKCAST_RESUME_DIR", f"{cluster.workspace.mount_path}/resume/{name}")
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.set_timeout(task, pod.timeout_s)
