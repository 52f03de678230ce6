"""The artifact store as docker/compose.yaml starts it: room on a small disk, and only S3 for other machines."""

import json
import shutil
import socket
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import yaml
from tests.integration.conftest import S3
from tests.integration.seaweedfs import SeaweedFS

MANIFESTS = Path(__file__).resolve().parents[2] / "docker/kubernetes.yaml"
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # a client's first bytes in HTTP/2
SETTINGS = 4  # type of the frame with which a server answers


def test_the_claimed_disk_has_volumes_for_the_log_and_the_buckets(seaweedfs: SeaweedFS, s3: S3) -> None:
    """The filer's log takes a volume a minute after the start; a bucket then needs one of the others."""
    with urllib.request.urlopen(f"http://127.0.0.1:{seaweedfs.ports['master']}/dir/status") as response:
        topology = json.load(response)["Topology"]
    volume_bytes = shutil.disk_usage(seaweedfs.log.parent).free / topology["Max"]
    sets = [each for each in yaml.safe_load_all(MANIFESTS.read_text()) if each["metadata"]["name"] == "seaweedfs"]
    (claim,) = (claim for each in sets for claim in each["spec"].get("volumeClaimTemplates", ()))
    claimed = claim["spec"]["resources"]["requests"]["storage"]
    assert claimed.endswith("Gi")
    assert int(claimed.removesuffix("Gi")) * 2**30 / volume_bytes >= 50
    assert topology["Free"] > 0
    s3.client.put_object(Bucket=s3.bucket, Key="key", Body=b"x")


def test_only_s3_listens_for_other_machines(seaweedfs: SeaweedFS) -> None:
    """No other part asks for keys: through the filer, anyone could replace a registered model."""
    listening = [
        each.laddr
        for each in psutil.Process(seaweedfs.process.pid).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    ]
    assert {each.port for each in listening} == set(seaweedfs.ports.values())
    remote = {each.port for each in listening if each.ip != "127.0.0.1"}
    assert remote == {seaweedfs.ports["s3"], seaweedfs.ports["s3.grpc"]}


def test_grpc_of_s3_answers_nobody(seaweedfs: SeaweedFS) -> None:
    """It could add keys, and cannot be bound to another address than S3."""
    assert not answers_in_http2(seaweedfs.ports["s3.grpc"])
    assert answers_in_http2(seaweedfs.ports["filer.grpc"])


def answers_in_http2(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(HELLO)
        with suppress(ConnectionError):
            answer = client.recv(9)
            return len(answer) == 9 and answer[3] == SETTINGS
    return False
