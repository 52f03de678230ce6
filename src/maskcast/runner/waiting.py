"""What a pod waits for, by what the Kubernetes API tells of it."""

import re
import time
from collections.abc import Iterable
from typing import Any

from maskcast.progress import say

PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
STARTING = ("ContainerCreating", "PodInitializing")


class Told:
    """Says each line of what holds something up once, after it has had time to start.

    Args:
        title: of what is held up.
        patience_s: seconds until then.
    """

    def __init__(self, title: str, patience_s: float) -> None:
        self.title, self.said, self.patient_until = title, set[str](), time.monotonic() + patience_s

    def say_new(self, lines: Iterable[str]) -> None:
        """Says the lines that it has not said yet."""
        if time.monotonic() < self.patient_until:
            return
        for line in lines:
            if line not in self.said:
                self.said.add(line)
                say(f"{self.title}: {line}")


def waits_for(pod: Any) -> str | None:
    """Returns what a pod waits for that does not come by itself, or None.

    Args:
        pod: as the `kubernetes` package has it.
    """
    status = pod.status
    for condition in status.conditions or []:
        if condition.reason == "Unschedulable":
            return f"no node fits: {_scheduler(condition.message)}"
    for container in [*(status.init_container_statuses or []), *(status.container_statuses or [])]:
        waiting = container.state and container.state.waiting
        if waiting is None or not waiting.reason or waiting.reason in STARTING:
            continue
        said = " ".join((waiting.message or waiting.reason).split())
        if waiting.reason in PULLING:
            return f"image cannot be pulled: {container.image}: {said.rsplit(': ', 1)[-1]}"
        if match := re.search(r'(secret|configmap) "?([\w.-]+)"? not found', said):
            return f"{match[1]} {match[2]} is missing"
        if match := re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) (?:\S+/)?([\w.-]+)", said):
            return f"{match[2].lower()} {match[3]} has no key {match[1]}"
        return f"{waiting.reason}: {said}" if said != waiting.reason else said
    return None


def is_queued(pod: Any) -> bool:
    """Returns whether a queue (Kueue) holds a pod back until there is quota; that comes by itself."""
    return any(each.reason == "SchedulingGated" for each in pod.status.conditions or [])


def _scheduler(message: str | None) -> str:
    """Returns the reasons of `0/3 nodes are available: 1 Insufficient cpu, ... . preemption: ...`."""
    text = " ".join((message or "the scheduler does not say why").split())
    return text.split(": ", 1)[-1].split(". ")[0].removesuffix(".")
