"""Resources and scheduling of pods in a cluster file."""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from maskcast.params import Params
from maskcast.validation_errors import HIDE_INPUT
from pipelines.kubernetes_types import Cores, LabelKey, LabelValue, Resource, Size

LARGEST = 2**31 - 1  # Kubernetes and kfp store seconds and retries in 32 bits
Kind = Literal["io", "cpu", "gpu"]


class Toleration(Params):
    """A toleration of pods, with Kubernetes' fields."""

    key: LabelKey | None = None
    """Key of the taint; null matches all."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """`Equal`: key and value must match; `Exists`: only the key."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; null matches all."""

    @model_validator(mode="after")
    def _is_valid_in_kubernetes(self) -> Self:
        if self.key is None and self.operator == "Equal":
            raise PydanticCustomError(
                HIDE_INPUT, "Equal requires a key; add it, or set operator: Exists for all taints"
            )
        if self.operator == "Exists" and self.value is not None:
            raise PydanticCustomError(HIDE_INPUT, "Exists allows no value; remove it, or set operator: Equal")
        return self


class Pod(Params):
    """Resources and scheduling of a stage's pod."""

    cpu: Cores = "2"
    """CPU request and limit, in cores."""
    memory: Size = "8Gi"
    """Memory request and limit."""
    gpus: int = Field(0, ge=0)
    """Number of GPUs; a stage uses all of them."""
    gpu_resource: Resource = "nvidia.com/gpu"
    """Name of the GPU resource on the nodes."""
    gpu_type: LabelValue | None = None
    """Required value of the node label nvidia.com/gpu.product; null allows any."""
    shared_memory: Size | None = None
    """Size of /dev/shm, for data loaders and processes of one pod, as a part of `memory`; null leaves the 64 MB
    of the runtime."""
    timeout_s: int = Field(86400, ge=1, le=LARGEST)
    """Seconds after which the pod is stopped."""
    retries: int = Field(0, ge=0, le=LARGEST)
    """Number of restarts of a lost pod, after 30 s, 60 s, 120 s, ... (at most 10 minutes); of a failed one only if
    an administrator has set Argo's `retryPolicy: Always` (docs/runbook.md)."""
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that the pod tolerates."""

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
