"""Checks of the storage of artifacts and of the data set."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import yaml
from kubernetes import client

from maskcast.diagnostics.checks import CheckResult, NotCheckedError
from maskcast.diagnostics.tracking import check_writable
from maskcast.errors import MaskcastError
from maskcast.reading import pluralize
from maskcast.storage.s3 import has_credentials, open_bucket
from maskcast.storage.store import INCOMPLETE, local_path
from pipelines.client.checks import Subject
from pipelines.client.checks.pod_environment import require_reachable, require_secrets
from pipelines.client.kube import call_api
from pipelines.client.manifests import store_secrets

S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # the first that is set counts
GIT_URL = re.compile(r"(?!file:)[a-z+]+://|[^/]+@[^/]+:")


def artifacts(subject: Subject) -> Iterator[CheckResult]:
    """Checks that an object can be written to `pipeline_root` and removed, with the pods' credentials."""
    root = subject.cluster.pipeline_root
    if root is None:
        yield CheckResult("artifacts", "ok", "Kubeflow's default store")
        return
    if not root.startswith("s3://"):
        raise NotCheckedError(f"{root}: only s3:// can be checked from here")
    _require_s3(subject)
    check_writable(root)
    yield CheckResult("artifacts", "ok", f"{root} is writable")


def launcher(subject: Subject) -> Iterator[CheckResult]:
    """Checks that Kubeflow's launcher, which transfers artifacts, is configured for a self-hosted S3 server."""
    env = subject.cluster.env
    endpoint = next(filter(None, map(env.get, S3_ENDPOINTS)), None)
    if not endpoint or not (subject.cluster.pipeline_root or "").startswith("s3://"):
        yield CheckResult("launcher", "ok", "not needed without a self-hosted S3 server")
        return
    found = call_api(client.CoreV1Api(subject.api).read_namespaced_config_map, "kfp-launcher", subject.namespace)
    provider = _s3_provider((found.data or {}).get("providers", "") if found else "")
    address = str(provider.get("endpoint") or "")
    if address and "://" not in address:  # as the launcher completes it
        is_plain = str(provider.get("disableSSL")).lower() == "true"
        address = f"http://{address}" if is_plain else f"https://{address}"
    credentials = provider.get("credentials") or {}
    reference = credentials.get("secretRef") or {}
    secret = reference.get("secretName")
    given = [reference.get(key) for key in ("accessKeyKey", "secretKeyKey")]
    variables = subject.cluster.secrets.get(str(secret), {})
    expected = [variables.get(key) for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    readable = store_secrets(subject.cluster)
    remedy = "set `providers` in it as docs/runbook.md shows"
    if address.rstrip("/") != endpoint.rstrip("/"):
        actual = f"endpoint {address}" if address else "no S3 endpoint"
        problem = f"ConfigMap kfp-launcher has {actual}, expected {endpoint}"
        if address.partition("://")[2] == endpoint.partition("://")[2]:
            remedy = f"set `disableSSL: {str(endpoint.startswith('http://')).lower()}` in it"
        yield CheckResult("launcher", "failed", problem, remedy)
    elif not credentials.get("fromEnv") and secret not in readable:
        problem = f"ConfigMap kfp-launcher has the secret {secret!r}, which pods have no permission to read"
        yield CheckResult("launcher", "failed", problem, f"{remedy}, with one of: {', '.join(readable)}")
    elif not credentials.get("fromEnv") and variables and given != expected:
        problem = f"ConfigMap kfp-launcher has the keys {given[0]} and {given[1]} of the secret {secret}"
        remedy = f"set accessKeyKey: {expected[0]} and secretKeyKey: {expected[1]} in it"
        yield CheckResult("launcher", "failed", problem, remedy)
    else:
        yield CheckResult("launcher", "ok", f"ConfigMap kfp-launcher sends artifacts to {address}")


def data(subject: Subject) -> Iterator[CheckResult]:
    """Checks that the data set is where `fetch_dataset` will read it, and that pods can read there."""
    uri, workspace = subject.data_uri, subject.cluster.workspace
    if uri == "synthetic":
        yield CheckResult("data", "ok", "synthetic: made by prepare_clips")
    elif uri.startswith("s3://"):
        _require_s3(subject)
        yield CheckResult("data", "ok", f"{uri}: {_stored(uri)}")
    elif uri.startswith("dvc:") and GIT_URL.match(uri.removeprefix("dvc:")):
        yield CheckResult("data", "ok", f"{uri}: {_in_remote(uri)}")
    elif workspace and _is_below(workspace.mount_path, uri):
        raise NotCheckedError(f"{uri} is on the workspace volume, which only pods can read")
    else:
        remedy = "copy it to s3:// or use dvc:<Git URL>#<path>, and set fetch_dataset.uri"
        yield CheckResult("data", "failed", f"{uri}: pods cannot read this machine's files", remedy)


def _require_s3(subject: Subject) -> None:
    """Ends the check of S3 where only pods can reach it, or have keys."""
    require_reachable(subject, S3_ENDPOINTS, "AWS_CA_BUNDLE")
    if not has_credentials():
        require_secrets(subject, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


def _is_below(folder: str, uri: str) -> bool:
    path = None if uri.startswith("dvc:") else local_path(uri)
    return path is not None and path.is_relative_to(folder)


def _stored(uri: str) -> str:
    with open_bucket(uri) as bucket:
        if bucket.has_above(INCOMPLETE):
            raise MaskcastError(
                f"{uri}: incomplete upload (in progress or interrupted); upload the data set again"
            )
        sizes = [item.size for item in bucket.items().values()]
    return f"{pluralize(len(sizes), 'object')}, {sum(sizes) / 1e6:.1f} MB"


def _in_remote(uri: str) -> str:
    """Lists the files of a DVC pointer and reads the first byte of one, like a clone without cache."""
    from dvc.api import DVCFileSystem  # type: ignore[import-untyped]
    from dvc.scm import CloneError  # type: ignore[import-untyped]

    repository, _, path = uri.removeprefix("dvc:").partition("#")
    try:
        with closing(DVCFileSystem(url=repository)) as files:  # closes a temporary clone and databases
            found = sorted(files.find(path))
            if found:
                with files.open(found[0], "rb") as file:
                    file.read(1)
    except CloneError as error:
        raise MaskcastError(f"{uri}: cannot be cloned ({_root(error)}); check URL and access") from None
    except Exception as error:  # DVC passes on any error of its indexes and remotes
        raise MaskcastError(
            f"{uri}: not in its remote ({_root(error)}); run `dvc push`, or check your access"
        ) from None
    if not found:
        raise MaskcastError(f"{uri}: {path!r} not found in {repository}; fix the path or push the commit")
    return f"in its remote, {pluralize(len(found), 'file')}"


def _root(error: BaseException) -> str:
    """Returns the root cause of an error, as text."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def _s3_provider(providers: str) -> dict[str, Any]:
    """Returns the S3 provider in ConfigMap kfp-launcher, or an empty dict."""
    try:
        return dict(yaml.safe_load(providers)["s3"]["default"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}
