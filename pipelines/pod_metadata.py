"""Labels and annotations of pods, checked by Kubernetes' rules."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from maskcast.validation_errors import HIDE_INPUT
from pipelines.kubernetes_types import IN_NAMES, KEY, NAME

LARGEST_ANNOTATIONS = 16 << 10  # bytes in total: a workflow has them twice per stage, and etcd's limit is 1.5 MB
KUEUE = "kueue.x-k8s.io"
QUEUE_LABEL = f"{KUEUE}/queue-name"
# Domains (with subdomains) that Kubeflow, Argo, Trainer, KServe, Kubernetes and maskcast use for their pods.
RESERVED = (
    "argoproj.io",
    "batch.kubernetes.io",
    "jobset.sigs.k8s.io",
    "kserve.io",
    "kubeflow.org",
    "pipeline",
    "prometheus.io",
)
RESERVED_KEYS = ("app", "app.kubernetes.io/part-of", "component")


def _labels(given: Any) -> Any:
    for key, value in _entries(given):
        if value and not re.fullmatch(NAME, value):
            raise PydanticCustomError(
                HIDE_INPUT,
                f"{key}: {value!r} is not a valid label value; use {IN_NAMES}, or move it to `annotations`",
            )
    return given


def _annotations(given: Any) -> Any:
    if sum(len(key.encode()) + len(value.encode()) for key, value in _entries(given)) > LARGEST_ANNOTATIONS:
        raise PydanticCustomError(HIDE_INPUT, "larger than 16 KiB in total; shorten them")
    return given


Labels = Annotated[dict[str, str], BeforeValidator(_labels)]
Annotations = Annotated[dict[str, str], BeforeValidator(_annotations)]


def _entries(given: Any) -> list[tuple[str, str]]:
    """Returns the checked keys and values of a mapping; other types are left to pydantic."""
    if not isinstance(given, dict):
        return []
    for key, value in given.items():
        if fault := _fault_of_key(key) or _fault_of_type(value):
            raise PydanticCustomError(HIDE_INPUT, f"{key}: {fault}")
    return list(given.items())


def _fault_of_key(key: Any) -> str | None:
    if not isinstance(key, str):
        return "key must be a string; put it in quotes"
    if not re.fullmatch(KEY, key):
        return f"not a valid key; use NAME or domain.example.com/NAME, where NAME has {IN_NAMES}"
    domain = key.rpartition("/")[0]
    if f".{domain}".endswith(f".{KUEUE}"):
        return "reserved for Kueue; use the keys `queue` and `priority` of the cluster file"
    if key in RESERVED_KEYS or f".{domain}".endswith(tuple(f".{reserved}" for reserved in RESERVED)):
        return "reserved by Kubeflow or maskcast; use a key of your own, e.g. example.com/NAME"
    return None


def _fault_of_type(value: Any) -> str | None:
    # Otherwise YAML would turn 017 into 15 and `on` into true, and e.g. the wrong cost centre would be charged.
    if not isinstance(value, str):
        return 'value must be a string; put it in quotes, e.g. "17" or "false"'
    return None
