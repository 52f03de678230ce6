"""The Kubernetes API, reached as kubectl reaches it; what it refuses becomes one line."""

import os
from collections.abc import Callable
from typing import Any

import yaml
from kubernetes import client, config
from urllib3.exceptions import HTTPError

from maskcast.checkup.rows import NotCheckedError
from maskcast.errors import MaskcastError, one_line
from maskcast.runner.kube import message_of

TIMEOUT_S = (5, 10)  # to connect, to read


class ForbiddenError(NotCheckedError):
    """You have no right to ask the API for this."""


def connect() -> client.ApiClient:
    """Returns a client of the cluster that KUBECONFIG's current context names or, in a pod, of its own.

    Raises:
        MaskcastError: when nothing names a cluster.
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
            raise MaskcastError(
                f"{file or '~/.kube/config'}: names no cluster ({error}); set KUBECONFIG or log in to one"
            ) from None
    return client.ApiClient(configuration)


def no_namespace(name: str) -> MaskcastError:
    """Returns what to say where something cannot be made, for want of its namespace."""
    return MaskcastError(f"there is no namespace {name!r}; `kubectl create namespace {name}`")


def ask(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Returns what a call of the API returns, or None when there is no such object.

    Raises:
        ForbiddenError: when the rights are missing.
        MaskcastError: when the API does not answer or refuses for another reason.
    """
    try:
        return call(*arguments, **{"_request_timeout": TIMEOUT_S, **options})
    except client.ApiException as error:
        if error.status == 404:
            return None
        if error.status == 403:
            raise ForbiddenError(message_of(error)) from None
        if error.status == 401:
            raise MaskcastError(
                "the Kubernetes API does not know you (401); log in to the cluster again"
            ) from None
        raise MaskcastError(f"the Kubernetes API answers {error.status}: {message_of(error)}; mend that") from None
    except ValueError as error:  # of the models of its client: a login page, for example
        raise MaskcastError(
            f"what answers is not the Kubernetes API ({one_line(error)}); mend KUBECONFIG, or log in again"
        ) from None
    except HTTPError as error:
        raise MaskcastError(
            f"the Kubernetes API does not answer ({error}); check `kubectl cluster-info` and the network"
        ) from None
