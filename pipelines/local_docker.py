"""Runs the stages of a local run in containers that reach what processes on this machine would reach.

They get the same registry of models, the settings of servers, proxies and certificates in the environment, and the
files that these name.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import local

from maskcast.errors import MaskcastError
from maskcast.runner.mlflow_client import check_database
from maskcast.runner.mlflow_uri import TRACKING_URI, database_file, sqlite_uri, tracking_uri

# Other variables of DVC and the hub name folders of this machine.
PASSED_ON = re.compile(
    r"(AWS|MLFLOW|OMP)_|DVC_(?!SITE_CACHE_DIR$)|(GIT_USERNAME|GIT_PASSWORD|HF_TOKEN|HF_ENDPOINT)$"
    r"|((HTTPS?|ALL|NO)_PROXY|(https?|all|no)_proxy|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|SSL_CERT_FILE|SSL_CERT_DIR)$"
)
AWS_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
NAMES_FILE = re.compile(r"_(FILE|PATH|BUNDLE|DIR)$")


def docker_runner(image: str, out: Path, mounts: Sequence[Path]) -> Any:
    """Returns Kubeflow's runner of containers, once the image is there.

    Args:
        image: image of the containers.
        out: folder of the runs, which the runner mounts.
        mounts: folders that are mounted read-only, under the same path.

    Raises:
        MaskcastError: Docker is unreachable, the image is missing, or the embedded database cannot be used.
    """
    import docker

    try:
        engine = docker.from_env()
        engine.ping()
    except docker.errors.DockerException as error:
        raise MaskcastError(
            f"Docker Engine is unreachable at {os.environ.get('DOCKER_HOST', 'its default socket')} ({error}); "
            "start it, or omit --docker to run in processes"
        ) from None
    try:
        try:
            engine.images.get(image)
        except docker.errors.ImageNotFound:
            engine.images.pull(image)
    except docker.errors.DockerException as error:
        raise MaskcastError(
            f"--docker {image}: not found, and cannot be pulled ({error}); build it (`make image`) or fix the name"
        ) from None
    environment, bound = surroundings(os.environ, out, mounts)
    return local.DockerRunner(
        environment=environment,
        mounts=[
            docker.types.Mount(str(path), str(path), type="bind", read_only=not writable)
            for path, writable in bound.items()
        ],
        network_mode="host",  # MLflow and S3 servers of this machine keep their addresses
        read_only=True,
        tmpfs={"/tmp": ""},
        user=f"{os.getuid()}:{os.getgid()}",
        working_dir=str(out),
    )


def surroundings(
    variables: Mapping[str, str], out: Path, mounts: Sequence[Path]
) -> tuple[dict[str, str], dict[Path, bool]]:
    """Returns the environment of the containers, and what is mounted under its own path.

    Args:
        variables: environment of this process.
        out: folder of the runs, which the runner mounts.
        mounts: folders that are mounted read-only.

    Returns:
        Environment variables, and for each mounted path whether it is writable.

    Raises:
        MaskcastError: the embedded database cannot be used.
    """
    environment = {name: value for name, value in variables.items() if PASSED_ON.match(name)}
    for name, path in AWS_FILES.items():  # which boto3 reads without variables, but containers have another home
        if Path(path).expanduser().is_file():
            environment.setdefault(name, path)
    bound = dict.fromkeys(mounts, False)
    for name in filter(NAMES_FILE.search, environment):
        named = Path(environment[name]).expanduser().absolute()
        if environment[name] and named.exists():
            environment[name], bound[named] = str(named), False
    uri = tracking_uri()
    if database := database_file(uri):
        check_database(uri, read_only=False)
        environment[TRACKING_URI] = sqlite_uri(database)
        bound[database.parent] = True  # the folder, for its journal and the runs' files
    bound.pop(out, None)
    return environment, bound
