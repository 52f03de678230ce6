"""The team's servers say the same to compose and to Kubernetes, and no secret stands in a file of the project."""

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions
from tests.integration.team_servers import interpolate

DOCKER = Path(__file__).resolve().parents[2] / "docker"
SERVICES = ("postgres", "seaweedfs", "mlflow")


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """What docker/env.sh writes."""
    subprocess.run([DOCKER / "env.sh", tmp_path / "env"], check=True, capture_output=True)
    return dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())


def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / "kubernetes.yaml").read_text()))


def containers() -> dict[str, dict[str, Any]]:
    specs = [each["spec"]["template"]["spec"] for each in manifests() if "template" in each["spec"]]
    return {spec["containers"][0]["name"]: spec["containers"][0] for spec in specs}


def test_passwords_are_random_private_and_never_overwritten(tmp_path: Path, secrets: dict[str, str]) -> None:
    file = tmp_path / "env"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    again = subprocess.run([DOCKER / "env.sh", file], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert "already exists" in again.stderr
    assert file.read_bytes() == before
    values = [value for name, value in secrets.items() if name != "AWS_ACCESS_KEY_ID"]
    assert len(set(values)) == len(values)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in values)
    ignored = subprocess.run(["git", "check-ignore", "docker/.env"], cwd=DOCKER.parent, capture_output=True)
    assert ignored.returncode == 0


def test_compose_finds_every_variable_and_waits_for_every_server(secrets: dict[str, str]) -> None:
    text = interpolate((DOCKER / "compose.yaml").read_text().replace("$$", ""), secrets)
    assert "$" not in text
    services = yaml.safe_load(text)["services"]
    assert tuple(services) == SERVICES
    assert all(service["healthcheck"]["test"][0] == "CMD" for service in services.values())
    waited = {name: each["condition"] for name, each in services["mlflow"]["depends_on"].items()}
    assert waited == {"postgres": "service_healthy", "seaweedfs": "service_healthy"}
    assert services["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    assert f" AS {services['mlflow']['build']['target']}\n" in (DOCKER / "Dockerfile").read_text()
    kept = yaml.safe_load(text)["volumes"]
    assert {mount.split(":")[0] for name in kept for mount in services[name]["volumes"]} == kept.keys()


@pytest.mark.parametrize("version", all_versions()[-2:])
def test_the_manifests_are_valid(version: str) -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_kubernetes_gets_what_compose_gets(secrets: dict[str, str]) -> None:
    found = containers()
    assert tuple(found) == SERVICES
    for name, service in compose().items():
        env = {each["name"]: each for each in found[name]["env"]}
        assert env.keys() - {"PGDATA"} == service["environment"].keys()
        for variable, value in service["environment"].items():
            by_name = env[variable].get("valueFrom", {}).get("secretKeyRef")
            secret = re.match(r"\$\{(\w+):\?", value)
            if secret:
                assert by_name == {"name": "mlflow-server", "key": secret[1]}
                assert secret[1] in secrets
            elif "$" not in value:
                assert env[variable]["value"] == value
        if "build" not in service:
            assert found[name]["image"] == service["image"].partition(":-")[2].rstrip("}")
            assert found[name].get("command", ["weed"])[1:] == service.get("command", [])
        assert found[name]["readinessProbe"]
        assert found[name]["securityContext"]["allowPrivilegeEscalation"] is False
    names = {each["metadata"]["name"] for each in manifests() if each["kind"] == "Service"}
    assert names == set(SERVICES)
