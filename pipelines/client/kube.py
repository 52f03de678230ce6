"""The Kubernetes API, with kubectl's configuration; errors become one line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from urllib3.exceptions import HTTPError

from maskcast.diagnostics.checks import NotCheckedError
from maskcast.errors import MaskcastError, one_line
from maskcast.runner.kube import api_message
from maskcast.runner.pod_status import warnings_selector

TIMEOUT_S = (5, 10)  # seconds to connect, to read
DEFAULT_FILE = "~/.kube/config"


class NoClusterError(MaskcastError):
    """There is no kubeconfig."""


class ForbiddenError(NotCheckedError):
    """The permission for a request to the API is missing."""


def connect() -> client.ApiClient:
    """Returns a client for the cluster of KUBECONFIG's current context or, in a pod, for its own cluster.

    Raises:
        NoClusterError: there is no kubeconfig.
        MaskcastError: a kubeconfig is given, but cannot be used.
    """
    configuration = client.Configuration()
    configuration.retries = 0
    file = os.environ.get("KUBECONFIG")
    try:
        config.load_kube_config(file, client_configuration=configuration)
    except (config.ConfigException, yaml.YAMLError, OSError) as error:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            if not file and not Path(DEFAULT_FILE).expanduser().exists():
                raise NoClusterError(
                    f"no kubeconfig: {DEFAULT_FILE} does not exist; set KUBECONFIG, or log in to a cluster"
                ) from None
            raise MaskcastError(
                f"{file or DEFAULT_FILE}: no cluster configured ({error}); set KUBECONFIG, or log in to one"
            ) from None
    return client.ApiClient(configuration)


def no_namespace(name: str) -> MaskcastError:
    """Returns the error for an object whose namespace does not exist."""
    return MaskcastError(f"namespace {name!r} not found; create it with `kubectl create namespace {name}`")


def call_api(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Returns the result of an API call, or None if the object does not exist.

    Raises:
        ForbiddenError: permissions are missing.
        MaskcastError: the API is unreachable, or refuses for another reason.
    """
    try:
        return call(*arguments, **{"_request_timeout": TIMEOUT_S, **options})
    except client.ApiException as error:
        if error.status == 404:
            return None
        if error.status == 403:
            raise ForbiddenError(api_message(error)) from None
        if error.status == 401:
            raise MaskcastError(
                "the Kubernetes API rejects the credentials (401); log in to the cluster again"
            ) from None
        raise MaskcastError(
            f"the Kubernetes API answers {error.status}: {api_message(error)}; fix the cause and try again"
        ) from None
    except ValueError as error:  # raised by the client's models, for example on a login page
        raise MaskcastError(
            f"the server is not a Kubernetes API ({one_line(error)}); fix KUBECONFIG, or log in again"
        ) from None
    except HTTPError as error:
        raise MaskcastError(
            f"the Kubernetes API is unreachable ({error}); check `kubectl cluster-info` and the network"
        ) from None


def list_warnings(api: client.CoreV1Api, namespace: str, name: str) -> list[client.CoreV1Event]:
    """Returns the events of type Warning of the object with a name; empty if they cannot be listed."""
    try:
        found = call_api(api.list_namespaced_event, namespace, field_selector=warnings_selector(name))
    except MaskcastError:
        return []
    return found.items if found else []
