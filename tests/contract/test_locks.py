"""The images hold what `make install` installs, to the last hash, less what only development needs."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REMEDY = "run make lock"


def pins(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Returns version and hashes by name of package."""
    text = (ROOT / lock).read_text()
    found = re.findall(r"^(\S+)==(\S+) ((?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+)$", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"==", text)), f"{lock}: a package has no hash; {REMEDY}"
    return {name: (version, frozenset(re.findall(r"[0-9a-f]{64}", hashes))) for name, version, hashes in found}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", each)[0].lower() for each in requirements}  # type: ignore[index]


@pytest.mark.parametrize("lock", ["docker/requirements.lock", "docker/mlflow.lock"])
def test_an_image_holds_the_packages_of_the_project_lock(lock: str) -> None:
    installed, image = pins("requirements.lock"), pins(lock)
    differing = {name for name, pin in image.items() if installed.get(name) != pin}
    assert not differing, f"{lock} differs from requirements.lock; {REMEDY}"


def test_the_image_of_the_server_holds_accounts_database_and_artifact_store() -> None:
    assert {"mlflow", "flask-wtf", "psycopg2-binary", "boto3"} <= pins("docker/mlflow.lock").keys(), REMEDY


def test_an_image_holds_all_that_stages_need_and_no_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    image = pins("docker/requirements.lock")
    needed = names(project["dependencies"] + extras["train"] + extras["data"]) | {"kfp", "kubernetes"}
    assert needed <= image.keys(), REMEDY
    tools = names(extras["dev"] + extras["server"] + extras["cluster"]) - {"maskcast", "kfp", "kubernetes"}
    assert not tools & image.keys(), REMEDY


@pytest.mark.parametrize("name", ["uv", "cyclonedx-bom"])
def test_what_builds_an_image_is_locked_and_not_in_it(name: str) -> None:
    assert name in pins("docker/build.lock")
    assert name not in pins("docker/requirements.lock")


def test_pip_chooses_the_package_that_few_versions_of_boto3_fit_first() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"aiobotocore", "boto3"} <= names(project["optional-dependencies"]["data"])  # by name, so aiobotocore
