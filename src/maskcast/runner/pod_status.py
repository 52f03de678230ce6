"""Why a pod is waiting, according to the Kubernetes API."""

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from maskcast.progress import say

IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
STARTUP_REASONS = ("ContainerCreating", "PodInitializing")
PATIENCE = timedelta(seconds=30)
"""Waits shorter than this are a normal start of a pod, and not reported."""


class WaitReporter:
    """Reports each reason for waiting once, after some time has passed.

    Args:
        title: name of what is waiting.
        delay_s: seconds before anything is reported.
    """

    def __init__(self, title: str, delay_s: float) -> None:
        self.title, self.reported, self.quiet_until = title, set[str](), time.monotonic() + delay_s

    def report_new(self, lines: Iterable[str]) -> None:
        """Reports the lines that are new."""
        if time.monotonic() < self.quiet_until:
            return
        for line in lines:
            if line not in self.reported:
                self.reported.add(line)
                say(f"{self.title}: {line}")


def why_pending(pod: Any, warnings: Callable[[str], Iterable[Any]]) -> str | None:
    """Returns what a pod waits for, or None if it does not wait, or no longer than a start normally takes.

    Args:
        pod: object of the `kubernetes` package.
        warnings: see `slow_start`.
    """
    if (why := waiting_reason(pod)) is None and (slow := slow_start(pod, warnings)) is not None:
        why, _ = slow
    return why


def waiting_reason(pod: Any) -> str | None:
    """Returns what a pod waits for that needs action, or None.

    Args:
        pod: object of the `kubernetes` package.
    """
    status = pod.status
    for condition in status.conditions or []:
        if condition.reason == "Unschedulable":
            return f"unschedulable: {_scheduler(condition.message)}"
    for container in [*(status.init_container_statuses or []), *(status.container_statuses or [])]:
        waiting = container.state and container.state.waiting
        if waiting is None or not waiting.reason or waiting.reason in STARTUP_REASONS:
            continue
        message = " ".join((waiting.message or waiting.reason).split())
        if waiting.reason in IMAGE_REASONS:
            return f"image cannot be pulled: {container.image}: {message.rsplit(': ', 1)[-1]}"
        if match := re.search(r'(secret|configmap) "?([\w.-]+)"? not found', message):
            return f"{match[1]} {match[2]} not found"
        if match := re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) (?:\S+/)?([\w.-]+)", message):
            return f"{match[2].lower()} {match[3]} has no key {match[1]}"
        return f"{waiting.reason}: {message}" if message != waiting.reason else message
    return None


def slow_start(pod: Any, warnings: Callable[[str], Iterable[Any]]) -> tuple[str, datetime] | None:
    """Returns what is said of a pod whose containers are long not created, and since when; None for another pod.

    Args:
        pod: object of the `kubernetes` package.
        warnings: lists the events of type Warning of the object with a name; they alone say what is missing, e.g.
            a volume.
    """
    since = _starting_since(pod)
    if since is None or datetime.now(UTC) - since < PATIENCE:
        return None
    newest = max(warnings(pod.metadata.name), key=_time_of, default=None)
    cause = newest and f"{newest.reason}: {' '.join((newest.message or '').split())}"
    return ": ".join(filter(None, ["containers are being created", cause])), since


def warnings_selector(name: str) -> str:
    """Returns the field selector of the events of type Warning of the object with a name."""
    return f"involvedObject.name={name},type=Warning"


def _time_of(event: Any) -> datetime:
    time: datetime = event.last_timestamp or event.event_time or event.metadata.creation_timestamp
    return time


def _starting_since(pod: Any) -> datetime | None:
    """Returns when a node was found for a pod whose containers are not yet created, or None for another pod."""
    status = pod.status
    containers = [*(status.init_container_statuses or []), *(status.container_statuses or [])]
    waiting = [each.state.waiting for each in containers if each.state and each.state.waiting]
    if not any(each.reason in STARTUP_REASONS for each in waiting):
        return None
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "True":
            since: datetime = condition.last_transition_time
            return since
    return None


def is_queued(pod: Any) -> bool:
    """Whether a queue (Kueue) holds a pod back until quota is free, which needs no action."""
    return any(each.reason == "SchedulingGated" for each in pod.status.conditions or [])


def _scheduler(message: str | None) -> str:
    """Returns the reasons in a message `0/3 nodes are available: 1 Insufficient cpu, ... . preemption: ...`."""
    text = " ".join((message or "no reason given by the scheduler").split())
    return text.split(": ", 1)[-1].split(". ")[0].removesuffix(".")
