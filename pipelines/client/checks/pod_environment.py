"""Sets the environment variables of the pods in this process, as far as possible."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from maskcast.diagnostics.checks import NotCheckedError
from maskcast.errors import MaskcastError
from pipelines.client.checks import Subject
from pipelines.client.checks.namespace import secret_values


@contextmanager
def pod_environment(subject: Subject) -> Iterator[None]:
    """Gives this process the environment of the pods until the block ends.

    Values of secrets come from the cluster if they may be read, else from this machine's environment. For
    addresses that are known only inside the cluster, this machine's value is used; it may be that of a forwarded
    port. This machine's value is also used for files that only pods have, and for proxies, as pods are in another
    network.
    """
    values = {
        name: value
        for name, value in subject.cluster.env.items()
        if not (
            (name in os.environ and _only_in_cluster(value))
            or name.upper().endswith("_PROXY")
            or _is_mounted(subject, value)
        )
    }
    for name, keys in subject.cluster.secrets.items():
        try:
            found = (secret_values(subject, name) if subject.api else None) or {}
        except MaskcastError:  # the check of secrets reports it
            continue
        values |= {variable: found[key] for variable, key in keys.items() if key in found}
    if "AWS_ACCESS_KEY_ID" in values:
        values.setdefault("AWS_SESSION_TOKEN", "")  # this machine's token belongs to other keys
    previous = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def require_reachable(subject: Subject, variables: Sequence[str], authority: str) -> None:
    """Ends the check of a server that only pods can reach: by its address, or with a certificate that they have.

    Args:
        subject: what is checked.
        variables: variables of the server's address; the first that is set counts.
        authority: variable of the file with the certificates that it is trusted by.

    Raises:
        NotCheckedError: says how to check it from this machine.
    """
    variable = next((name for name in variables if os.environ.get(name)), variables[0])
    address = os.environ.get(variable, "")
    if (
        address.startswith("https:")
        and authority not in os.environ
        and _is_mounted(subject, subject.cluster.env.get(authority, ""))
    ):
        raise NotCheckedError(
            f"pods trust {address} by {subject.cluster.env[authority]}, a file of `files`; to check it, set "
            f"{authority} to a copy on this machine"
        )
    if _only_in_cluster(address):
        host = urlsplit(address).hostname or ""
        service, _, rest = host.partition(".")
        forward = f"kubectl port-forward -n {rest.partition('.')[0]} svc/{service} ..."
        raise NotCheckedError(
            f"{host} is only known inside the cluster; to check it, run `{forward}` and set {variable} to the "
            "forwarded address"
        )


def require_secrets(subject: Subject, variables: Sequence[str]) -> None:
    """Ends the check of a server whose credentials only pods have, in a secret that cannot be read from here.

    Args:
        subject: what is checked.
        variables: variables of the credentials.

    Raises:
        NotCheckedError: says how to check it from this machine.
    """
    if any(name in os.environ for name in variables):
        return
    for secret, keys in subject.cluster.secrets.items():
        if missing := [name for name in variables if name in keys]:
            raise NotCheckedError(
                f"only pods have {' and '.join(missing)}, in the secret {secret}; to check it, set them on this "
                "machine"
            )


def _is_mounted(subject: Subject, value: str) -> bool:
    """Whether a value is the path of a file that `files` mounts into pods."""
    return any(PurePosixPath(value).is_relative_to(folder) for folder in subject.cluster.files)


def _only_in_cluster(address: str) -> bool:
    """Whether an address names a service of a cluster and is unknown on this machine."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:  # the address may be any text
        return False
    if not host.endswith((".svc", ".svc.cluster.local")):
        return False
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        return True
    return False
