"""The servers of docker/compose.yaml without containers: MLflow with accounts, on PostgreSQL and SeaweedFS."""

import json
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
import yaml
from tests.conftest import lacking
from tests.servers import START_S, free_ports, wait_for_answer

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "mlflow"
SERVER_NAME = "mlflow.example.com"  # docs/servers.md
S3_HOST = "seaweedfs.invalid"
# Only MLflow resolves this name, as only containers resolve compose's `seaweedfs`.
RESOLVER = f"""
import socket

resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: resolve(
    "127.0.0.1" if host == "{S3_HOST}" else host, *rest, **more
)
"""


class TeamServers:
    """PostgreSQL and MLflow as processes of their own; MLflow can be killed and started again.

    What MLflow gets is what its container gets: the command of the Dockerfile, the environment of compose.yaml and
    secrets from docker/env.sh; only the addresses differ.

    Args:
        s3_port: of the S3 server on this machine.
        keys: environment with its keys.
    """

    def __init__(self, s3_port: int, keys: dict[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="maskcast-servers-"))  # pytest's are closed to other users
        self.folder.chmod(0o755)
        database, mlflow = free_ports(2)
        self.uri = f"http://127.0.0.1:{mlflow}"
        subprocess.run([ROOT / "docker/env.sh", self.folder / "env"], check=True, capture_output=True)
        lines = (self.folder / "env").read_text().splitlines()
        self.secrets = dict(line.split("=", 1) for line in lines)
        own = {"PGHOST": "127.0.0.1", "PGPORT": str(database)} | keys
        own |= {"AWS_ENDPOINT_URL_S3": f"http://{S3_HOST}:{s3_port}", "PYTHONPATH": str(self.folder / "resolver")}
        own |= {"MLFLOW_AUTH_CONFIG_PATH": str(ROOT / "docker/mlflow-auth.ini"), "OMP_NUM_THREADS": "1"}
        own |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
        self._env = kept | _compose_environment(self.secrets | {"MLFLOW_SERVER_NAME": SERVER_NAME}) | own
        (self.folder / "resolver").mkdir()
        (self.folder / "resolver/sitecustomize.py").write_text(RESOLVER)
        self._database = self._start_database()
        self._mlflow: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts MLflow and waits until it answers."""
        port = self.uri.rpartition(":")[2]
        command = [sys.executable, "-m", *_container_command()]
        command += ["--host", "127.0.0.1", "--port", port, "--workers", "1"]
        log = self.folder / "mlflow.log"
        with log.open("ab") as out:
            self._mlflow = subprocess.Popen(
                command, cwd=self.folder, env=self._env, stdout=out, stderr=out, start_new_session=True
            )
        wait_for_answer(f"{self.uri}/health", self._mlflow, log)

    def kill(self) -> None:
        """Kills MLflow and its workers, at once and without a word to them."""
        if self._mlflow is not None:
            os.killpg(self._mlflow.pid, signal.SIGKILL)
            self._mlflow.wait()
            self._mlflow = None

    def stop(self) -> None:
        """Stops everything and throws away what it stored."""
        self.kill()
        self._database.send_signal(signal.SIGINT)
        self._database.wait(START_S)
        shutil.rmtree(self.folder)

    def account(self, name: str) -> dict[str, str]:
        """Makes an account, as an administrator does, and returns what its owner sets in the environment."""
        password = f"password-of-{name}-1"
        admin = ("admin", self.secrets["MLFLOW_AUTH_ADMIN_PASSWORD"])
        user = {"username": name, "password": password}
        made = requests.post(f"{self.uri}/api/2.0/mlflow/users/create", auth=admin, json=user, timeout=START_S)
        assert made.ok, made.text
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": name,
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    def _start_database(self) -> "subprocess.Popen[bytes]":
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        binary = shutil.which("postgres") or (found and found[-1])
        if not binary:
            lacking("PostgreSQL is missing: apt-get install postgresql")
        programs = Path(binary).resolve().parent
        # PostgreSQL does not run as root; Debian's package makes this user.
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        place = self.folder / "postgres"
        place.mkdir()
        password = place / "password"
        password.write_text(self.secrets["POSTGRES_PASSWORD"])
        if user:
            for path in (place, password):
                shutil.chown(path, "postgres", "postgres")
        data = place / "data"
        initdb = [programs / "initdb", "-D", data, "-U", self._env["PGUSER"], f"--pwfile={password}", "--no-sync"]
        subprocess.run([*initdb, "--auth=scram-sha-256"], cwd=place, check=True, stdout=subprocess.DEVNULL, **user)
        with (self.folder / "postgres.log").open("wb") as log:
            listen = ["-h", "127.0.0.1", "-p", self._env["PGPORT"], "-k", ""]
            command = [programs / "postgres", "-D", data, *listen]
            database = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, **user)
        deadline = time.monotonic() + START_S
        create = ["psql", "--quiet", "--dbname=postgres", f"--command=create database {DATABASE}"]
        while subprocess.run([programs / create[0], *create[1:]], env=self._env, capture_output=True).returncode:
            late = time.monotonic() > deadline
            assert database.poll() is None and not late, (self.folder / "postgres.log").read_text()
            time.sleep(0.1)
        return database


def _container_command() -> list[str]:
    """Returns what the image runs: CMD of the target mlflow."""
    target = (ROOT / "docker/Dockerfile").read_text().partition(" AS mlflow\n")[2]
    (command,) = re.findall(r"^CMD (\[.*?\])$", target.replace("\\\n", ""), re.MULTILINE)
    return json.loads(command)


def _compose_environment(secrets: dict[str, str]) -> dict[str, str]:
    """Returns the environment of compose.yaml's mlflow, with values for its variables."""
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    return {
        name: interpolate(str(value), secrets)
        for name, value in compose["services"]["mlflow"]["environment"].items()
    }


def interpolate(text: str, values: dict[str, str]) -> str:
    """Replaces ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?error}``, as compose does."""

    class Template(string.Template):
        braceidpattern = r"(?a:[A-Z_0-9]+(?::[-?][^}]*)?)"

    class Values(dict[str, str]):
        def __missing__(self, key: str) -> str:
            name, _, default = key.partition(":")
            if name in values:
                return values[name]
            assert default.startswith("-"), f"{name}: neither in the file of docker/env.sh, nor has it a default"
            return default[1:]

    return Template(text).substitute(Values())
