"""SeaweedFS as docker/compose.yaml starts it, on ports of its own."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from tests.servers import free_ports

COMPOSE = Path(__file__).resolve().parents[2] / "docker/compose.yaml"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "maskcast",
    "AWS_SECRET_ACCESS_KEY": "maskcast-secret",
    "AWS_REGION": "us-east-1",
}
GROWTH = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # volumes for a bucket, by default 7: tests make many buckets
PORTS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


@dataclass(frozen=True)
class SeaweedFS:
    """A running server.

    Attributes:
        process: of the server.
        ports: by the name of its part.
        log: file that it writes to.
    """

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    def stop(self) -> None:
        """Kills it: what it stored is thrown away, and a gentle stop takes 20 s."""
        self.process.kill()
        self.process.wait()
        for port in self.ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def start_seaweedfs(folder: Path) -> SeaweedFS:
    """Starts a server as docker/compose.yaml does; only folder, ports and keys differ."""
    service = yaml.safe_load(COMPOSE.read_text())["services"]["seaweedfs"]
    flags = [flag for flag in service["command"] if not flag.startswith("-dir=")]
    env = {name: value for name, value in service["environment"].items() if not value.startswith("$")}
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    for name, port in ports.items():
        part, _, grpc = name.partition(".")
        flags.append(f"-{part}.port{grpc and '.grpc'}={port}")
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert weed, "weed is missing: install maskcast[dev]"
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [weed, "-logtostderr", *flags, f"-dir={folder}"],
            stdout=output,
            stderr=output,
            env={**os.environ, **CREDENTIALS, **GROWTH, **env},
        )
    return SeaweedFS(process, ports, log)
