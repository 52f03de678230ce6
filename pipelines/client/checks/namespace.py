"""Checks of the namespace before a run: accounts, permissions, secrets, volumes."""

import base64
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from kubernetes import client

from maskcast.diagnostics.checks import CheckResult
from pipelines.client.checks import Subject
from pipelines.client.kube import call_api
from pipelines.client.manifests import rules
from pipelines.variables import is_of_others

SETUP = "run `maskcast pipeline setup --apply`"
DOCKER_HUB = "docker.io"
HUB_ADDRESS = "https://index.docker.io/v1/"  # under which `docker login` and kubectl store its credentials
HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")


def namespace(subject: Subject) -> Iterator[CheckResult]:
    """Checks that it exists and is active; reports its Pod Security level."""
    found = call_api(client.CoreV1Api(subject.api).read_namespace, subject.namespace)
    if found is None:
        remedy = (
            f"fix `namespace` in the cluster file, or create it: `kubectl create namespace {subject.namespace}`"
        )
        yield CheckResult("namespace", "failed", f"{subject.namespace!r} not found", remedy)
    elif found.status.phase != "Active":
        yield CheckResult(
            "namespace", "failed", f"{subject.namespace} is {found.status.phase}", "wait, or use another"
        )
    else:
        level = (found.metadata.labels or {}).get("pod-security.kubernetes.io/enforce", "none")
        yield CheckResult("namespace", "ok", f"{subject.namespace}, Pod Security enforced: {level}")


def service_account(subject: Subject) -> Iterator[CheckResult]:
    """Checks that it exists."""
    name = subject.cluster.service_account
    core = client.CoreV1Api(subject.api)
    if call_api(core.read_namespaced_service_account, name, subject.namespace) is None:
        yield CheckResult("service account", "failed", f"{name!r} not found in {subject.namespace}", SETUP)
    else:
        yield CheckResult("service account", "ok", name)


def rights(subject: Subject) -> Iterator[CheckResult]:
    """Checks that the service account has all permissions that `setup` grants."""
    name = subject.cluster.service_account
    api = client.AuthorizationV1Api(subject.api)
    account = {
        "user": f"system:serviceaccount:{subject.namespace}:{name}",
        "groups": [
            "system:serviceaccounts",
            f"system:serviceaccounts:{subject.namespace}",
            "system:authenticated",
        ],
    }
    required = _granted(subject)
    denied: dict[str, list[str]] = {}
    for attributes in required:
        spec = client.V1SubjectAccessReviewSpec(**account, resource_attributes=attributes)
        metadata = client.V1ObjectMeta(namespace=subject.namespace)
        review = client.V1LocalSubjectAccessReview(metadata=metadata, spec=spec)
        answer = call_api(api.create_namespaced_local_subject_access_review, subject.namespace, review)
        if answer is None or not answer.status.allowed:
            denied.setdefault(_resource(attributes), []).append(attributes.verb)
    if denied:
        actions = ", ".join(f"{'/'.join(verbs)} {resource}" for resource, verbs in denied.items())
        yield CheckResult("rights", "failed", f"{name} has no permission to {actions}", SETUP)
    else:
        yield CheckResult("rights", "ok", f"{name} has all {len(required)} permissions that runs need")


def your_rights(subject: Subject) -> Iterator[CheckResult]:
    """Checks that the user may read the logs of pods."""
    api = client.AuthorizationV1Api(subject.api)
    denied = []
    for resource, verb in (("pods", "list"), ("pods/log", "get")):
        attributes = _attributes(subject, "", resource, verb)
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        if not call_api(api.create_self_subject_access_review, review).status.allowed:
            denied.append(f"{verb} {resource}")
    if denied:
        remedy = f"ask for the role `view` in {subject.namespace}"
        found = f"you have no permission to {', '.join(denied)}, which `logs` needs"
        yield CheckResult("your rights", "failed", found, remedy)
    else:
        yield CheckResult("your rights", "ok", "you can read the logs of pods")


def secrets(subject: Subject) -> Iterator[CheckResult]:
    """Checks that each exists and has a value for each key, without the line break that `echo` adds."""
    for name, keys in subject.cluster.secrets.items():
        values = secret_values(subject, name)
        missing = [key for key in keys.values() if not (values or {}).get(key)]
        padded = [key for key in keys.values() if values and values.get(key, "") != values.get(key, "").strip()]
        others = f"whoever makes it must set {', '.join(keys.values())}" if is_of_others(keys) else ""
        if values is None:
            remedy = others or f"set {', '.join(keys)} and {SETUP}"
            yield CheckResult("secrets", "failed", f"{name!r} not found in {subject.namespace}", remedy)
        elif missing:
            found = f"{name}: missing keys {', '.join(missing)}"
            yield CheckResult("secrets", "failed", found, others or f"set them and {SETUP}")
        elif padded:
            found = f"{name}: leading or trailing whitespace in {', '.join(padded)}"
            yield CheckResult("secrets", "failed", found, others or f"set them again and {SETUP}")
        else:
            yield CheckResult("secrets", "ok", f"{name}: {', '.join(keys.values())}")


def files(subject: Subject) -> Iterator[CheckResult]:
    """Checks that the ConfigMaps and secrets exist whose files are mounted: pods would wait for them."""
    core = client.CoreV1Api(subject.api)
    for path, source in subject.cluster.files.items():
        if source.config_map:
            what, kind = f"ConfigMap {source.config_map}", f"configmap {source.config_map}"
            found = call_api(core.read_namespaced_config_map, source.config_map, subject.namespace)
        else:
            what, kind = f"secret {source.secret}", f"secret generic {source.secret}"
            found = call_api(core.read_namespaced_secret, source.secret, subject.namespace)
        if found is None:
            remedy = f"`kubectl create {kind} -n {subject.namespace} --from-file=FILE`"
            yield CheckResult("files", "failed", f"{what} not found in {subject.namespace}", remedy)
        else:
            names = ", ".join(f"{path.rstrip('/')}/{key}" for key in sorted(found.data or {}))
            yield CheckResult("files", "ok", f"{what}: {names}")


def pull_secrets(subject: Subject) -> Iterator[CheckResult]:
    """Checks that each exists, and that one has credentials for the image's registry."""
    registry = _registry_of(subject.cluster.image)
    names = subject.cluster.image_pull_secrets
    known: set[str] = set()
    for name in names:
        values = secret_values(subject, name)
        if values is None:
            server = HUB_ADDRESS if registry == DOCKER_HUB else registry
            remedy = f"`kubectl create secret docker-registry {name} --docker-server={server} ...`"
            yield CheckResult("pull secrets", "failed", f"{name!r} not found in {subject.namespace}", remedy)
            return
        known |= _registries(values.get(".dockerconfigjson", ""))
    if not names:
        yield CheckResult("pull secrets", "ok", "none configured: nodes pull without credentials")
    elif any(fnmatchcase(registry, pattern) for pattern in known):  # e.g. *.example.com
        yield CheckResult("pull secrets", "ok", f"{', '.join(names)}: has credentials for {registry}")
    else:
        found = f"{', '.join(names)}: credentials for {', '.join(sorted(known)) or 'no registry'}, not {registry}"
        yield CheckResult("pull secrets", "failed", found, "add the secret of that registry to image_pull_secrets")


def workspace(subject: Subject) -> Iterator[CheckResult]:
    """Checks that its claim is bound, or will be when the first pod uses it."""
    wanted = subject.cluster.workspace
    if wanted is None:
        yield CheckResult("workspace", "ok", "none: a restarted stage starts from scratch")
        return
    core = client.CoreV1Api(subject.api)
    claim = call_api(core.read_namespaced_persistent_volume_claim, wanted.claim, subject.namespace)
    if claim is None:
        yield CheckResult("workspace", "failed", f"claim {wanted.claim!r} not found in {subject.namespace}", SETUP)
        return
    what = f"{wanted.claim}: {claim.status.phase}, {', '.join(claim.spec.access_modes)}"
    if claim.status.phase == "Bound":
        yield CheckResult("workspace", "ok", f"{what}, {claim.status.capacity['storage']}")
    elif claim.status.phase == "Pending":
        yield _pending(subject, what, claim.spec.storage_class_name)
    else:
        yield CheckResult(
            "workspace", "failed", what, f"`kubectl describe pvc {wanted.claim} -n {subject.namespace}`"
        )


def secret_values(subject: Subject, name: str) -> dict[str, str] | None:
    """Returns the values of a secret in the namespace, or None if it does not exist."""
    found = call_api(client.CoreV1Api(subject.api).read_namespaced_secret, name, subject.namespace)
    if found is None:
        return None
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in (found.data or {}).items()}


def _pending(subject: Subject, what: str, name: str | None) -> CheckResult:
    """Returns the row for a pending claim, which depends on its storage class."""
    classes = {
        each.metadata.name: each for each in call_api(client.StorageV1Api(subject.api).list_storage_class).items
    }
    if not name:
        return CheckResult(
            "workspace", "failed", f"{what}: no default storage class", "set workspace.storage_class"
        )
    if name not in classes:
        found = f"{what}: storage class {name!r} not found"
        return CheckResult(
            "workspace", "failed", found, f"delete the claim and use one of: {', '.join(classes) or 'none'}"
        )
    if classes[name].volume_binding_mode == "WaitForFirstConsumer":
        return CheckResult("workspace", "ok", f"{what}: {name} creates the volume for the first pod")
    remedy = f"`kubectl describe pvc -n {subject.namespace}` shows the reason"
    return CheckResult("workspace", "failed", f"{what}: {name} has created no volume", remedy)


def _granted(subject: Subject) -> list[Any]:
    """Returns an access review for each permission that `setup` grants."""
    return [
        _attributes(subject, group, resource, verb, name)
        for rule in rules(subject.cluster)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [None])
        for verb in rule["verbs"]
    ]


def _attributes(subject: Subject, group: str, resource: str, verb: str, name: str | None = None) -> Any:
    kind, _, part = resource.partition("/")
    return client.V1ResourceAttributes(
        namespace=subject.namespace, group=group, resource=kind, subresource=part or None, verb=verb, name=name
    )


def _resource(attributes: Any) -> str:
    resource = "/".join(filter(None, [attributes.resource, attributes.subresource]))
    return " ".join(filter(None, [resource, attributes.name]))


def _registries(dockerconfig: str) -> set[str]:
    """Returns the hosts for which a .dockerconfigjson has credentials."""
    try:
        addresses = json.loads(dockerconfig or "{}").get("auths", {})
    except ValueError:
        return set()
    hosts = {re.sub("^https?://", "", address).partition("/")[0] for address in addresses}
    return {DOCKER_HUB if host in HUB_HOSTS else host for host in hosts}


def _registry_of(image: str) -> str:
    """Returns the host of an image's registry; a name without a host is of Docker Hub."""
    host, slash, _ = image.partition("/")
    is_host = slash and ("." in host or ":" in host or host == "localhost")
    return host if is_host and host not in HUB_HOSTS else DOCKER_HUB
