"""The image of the tests: target `runtime` built from the working tree, with a torch for CPUs and no torchvision.

Python's official image is its base where it can be had; elsewhere Debian packages stand in for it.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from tests.conftest import lacking
from tests.servers import Handler, Server

Done = subprocess.CompletedProcess[str]
ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "docker/requirements.lock"
OFFICIAL_BASE = "python:3.11-slim"
STAND_IN_BASE = "maskcast-test-base"
INDEX_PORT = 38311  # where it is free: the index's address is part of the key of Docker's layer cache
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def build() -> str:
    """Builds the image and returns its name; what is lacking for it fails the test (with CI set) or skips it."""
    if docker("version").returncode:
        lacking("no Docker Engine answers: start one, or install dockerd and run `make test` as root")
    with _torch() as (index, requirement):
        arguments = [f"BASE_IMAGE={base()}", f"TORCH_INDEX={index}", f"CPU_TORCH={requirement}"]
        arguments = [word for argument in arguments for word in ("--build-arg", argument)]
        command = ["docker/build.sh", "runtime", "--network", "host", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout.strip()


def docker(*words: str, stdin: str | None = None) -> Done:
    """Runs the docker client."""
    try:
        return subprocess.run(["docker", *words], input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return Done(words, 127, "", str(error))


def cpu_wheel() -> Path | None:
    """Returns the CPU wheel of torch in the folders that pip's configuration names, if there is one."""
    listed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    folders = " ".join(re.findall(r"find-links='([^']*)'", listed)).split()
    return next((wheel for folder in folders for wheel in Path(folder).glob("torch-*+cpu-cp311-*.whl")), None)


@contextmanager
def _torch() -> Iterator[tuple[str, str]]:
    """Yields an index that has CPU builds of torch, and what to install from it."""
    if index := os.environ.get("TORCH_INDEX"):
        (requirement,) = re.findall(r"^torch==\S+", LOCK.read_text(), re.MULTILINE)
        yield index, requirement
    elif wheel := cpu_wheel():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "torch").mkdir()
            (Path(folder) / "torch" / wheel.name).symlink_to(wheel)
            with _served(folder) as index:
                yield index, f"torch=={wheel.name.split('-')[1].removesuffix('+cpu')}"
    else:
        lacking("no CPU build of torch: set TORCH_INDEX to a package index that has them")


@contextmanager
def _served(folder: str) -> Iterator[str]:
    class Files(Handler, SimpleHTTPRequestHandler):
        pass

    handler = functools.partial(Files, directory=folder)
    try:
        server = Server(handler, INDEX_PORT)
    except OSError:
        server = Server(handler)
    with server:
        yield f"{server.url}/"


def base() -> str:
    """Returns the name of an image with Python 3.11 to build upon; without a registry Debian packages make one."""
    for name in (OFFICIAL_BASE, STAND_IN_BASE):
        if docker("image", "inspect", name).returncode == 0:
            return name
    if docker("pull", OFFICIAL_BASE).returncode == 0:
        return OFFICIAL_BASE
    if not shutil.which("mmdebstrap"):
        lacking(f"{OFFICIAL_BASE} cannot be pulled, and there is no mmdebstrap to make a stand-in")
    # Builds must trust what this machine trusts, a proxy for example.
    certificates = f"--customize-hook=upload {CERTIFICATES} {CERTIFICATES}"
    # Nothing is left out by paths: the filter would be a Python process for each package.
    # The last two are no essential packages; the official image has them, and wheels need them.
    included = "--include=python3-venv,ca-certificates,libstdc++6,tzdata"
    bootstrap = ["mmdebstrap", "--quiet", "--variant=essential", included, certificates, "bookworm"]
    with subprocess.Popen(bootstrap, stdout=subprocess.PIPE) as packages:
        environment = f"ENV SSL_CERT_FILE={CERTIFICATES} PIP_CERT={CERTIFICATES}"
        command = ["docker", "import", "--change", environment, "-", STAND_IN_BASE]
        subprocess.run(command, stdin=packages.stdout, stdout=subprocess.DEVNULL, check=True)
    assert packages.returncode == 0, "mmdebstrap failed: its lines stand above"
    return STAND_IN_BASE
