"""The image as users get it: stages run as any user on a read-only file system, and it says what it holds."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.conftest import write_store
from tests.integration.images import LOCK, ROOT, Done, base, docker

from maskcast.models.segmentation.table import load_masker
from maskcast.runner.stage import stage_names

UID = 31337  # of no user that the image or this machine knows
STANDS_ON_TORCHVISION = {"hf-xet", "huggingface-hub", "segmentation-models-pytorch", "timm"}
Run = Callable[..., Done]


@pytest.fixture(scope="module")
def run(image: str) -> Run:
    """Runs a command in the image as a random user, without network, nothing writable but /tmp and ``folder``."""

    def run(*command: str, folder: Path | None = None, stdin: str | None = None) -> Done:
        flags = ["--interactive", "--network=none", "--read-only", "--tmpfs=/tmp", f"--user={UID}:{UID}"]
        if folder is not None:
            flags.append(f"--volume={folder}:{folder}")
        return docker("run", "--rm", "--env=OMP_NUM_THREADS=1", *flags, image, *command, stdin=stdin)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the container's user may write to."""
    tmp_path.chmod(0o777)
    return tmp_path


def test_every_stage_explains_itself(run: Run) -> None:
    done = run("sh", "-euc", 'for name; do maskcast "$name" --help; done', "sh", *stage_names())
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^usage: maskcast (\w+)", done.stdout, re.MULTILINE) == stage_names()
    assert done.stderr == ""


def test_the_doctor_misses_nothing(run: Run) -> None:
    done = run("maskcast", "doctor")
    assert done.returncode == 0, done.stdout


def test_without_a_command_it_lists_the_stages(run: Run) -> None:
    done = run()
    assert "usage: maskcast COMMAND" in done.stdout and "train_masker" in done.stdout


def test_a_stage_trains(run: Run, folder: Path) -> None:
    write_store(folder / "clips")
    section = {
        "model": {"arch": "unet", "width": 8},
        "training": {"epochs": 2, "steps_per_epoch": 30, "batch_size": 4, "learning_rate": 1e-2},
        "val_frame_step": 8,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_masker": section}))
    ports = [f"--{name}={folder / name}" for name in ("clips", "masker", "metrics", "page")]
    command = ["maskcast", "train_masker", f"--params={folder / 'params.yaml'}", *ports]
    status = "import mlflow; print(mlflow.search_runs(['1'], output_format='list')[0].info.status)"
    done = run("sh", "-euc", f'"$@"; python -c "{status}"', "sh", *command, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "tracking:" not in done.stderr  # the run is kept: MLflow's file lies in /tmp
    assert done.stdout.splitlines()[-1] == "FINISHED"
    assert json.loads((folder / "metrics").read_text())["val_jaccard"] > 0.5
    assert load_masker(folder / "masker")[1]["meta"]["classes"] == ["background", "red", "blue"]
    assert {(folder / name).stat().st_uid for name in ("masker", "metrics", "page")} == {UID}
    assert sorted(path.name for path in folder.iterdir()) == ["clips", "masker", "metrics", "page", "params.yaml"]


def test_a_model_of_a_package_that_is_left_out_is_refused(run: Run, folder: Path) -> None:
    write_store(folder / "clips")
    training = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "learning_rate": 1e-2}
    section = {"model": {"arch": "smp_unet"}, "training": training}
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_masker": section}))
    ports = [f"--{name}={folder / name}" for name in ("clips", "masker", "metrics", "page")]
    done = run("maskcast", "train_masker", f"--params={folder}/params.yaml", *ports, folder=folder)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: arch 'smp_unet' needs segmentation_models_pytorch, which is not installed; choose 'unet', "
        "or use an image with torchvision (docs/images.md)"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["clips", "params.yaml"]


def test_data_comes_through_a_dvc_pointer(run: Run, folder: Path) -> None:
    repository, remote = folder / "repository", folder / "remote"
    (repository / "data").mkdir(parents=True)
    (repository / "data/a.txt").write_text("a")

    def dvc(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=repository, check=True, capture_output=True)

    dvc("init", "--no-scm")
    dvc("remote", "add", "--default", "team", str(remote))
    dvc("add", "data")
    dvc("push")
    for written in ("data", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(repository / written)
    subprocess.run(["chmod", "--recursive", "a+rwX", repository, remote], check=True)
    (folder / "params.yaml").write_text(f"fetch_dataset: {{uri: 'dvc:{repository}/data.dvc'}}")
    flags = [f"--params={folder / 'params.yaml'}", f"--raw={folder / 'raw'}"]
    done = run("maskcast", "fetch_dataset", *flags, folder=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "raw/a.txt").read_text() == "a"


def test_a_private_git_repository_is_read_with_the_password_of_the_environment(run: Run) -> None:
    script = "from scmrepo.git.credentials import Credential as C; c = C(url='https://a').fill(); "
    environment = ["env", "GIT_USERNAME=ann", r"GIT_PASSWORD=a  *\n$HOME"]
    done = run(*environment, "python", "-c", f"{script} print(c.username, c.password)")
    assert done.stdout == "ann a  *\\n$HOME\n", done.stderr


def test_a_mistake_is_one_line(run: Run, folder: Path) -> None:
    (folder / "params.yaml").write_text("predict: {}")
    flags = ["--clips=/tmp/absent", "--masks=/tmp", "--masker=/tmp", "--forecaster=/tmp", "--predictions=/tmp/out"]
    done = run("maskcast", "predict", f"--params={folder}/params.yaml", *flags, folder=folder)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: /tmp/absent: input does not exist (--clips of predict); run the stage that writes it"
    ]


def test_it_says_where_it_comes_from(image: str) -> None:
    config = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]
    assert config["User"] == "65532:65532"
    assert not config.get("Entrypoint") and not config.get("Healthcheck")
    commit = config["Labels"]["org.opencontainers.image.revision"]
    command = ["git", "cat-file", "-t", commit.removesuffix("-dirty")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "commit\n"
    assert f"MASKCAST_GIT_SHA={commit}" in config["Env"]
    assert image == f"maskcast:{commit[:12]}{'-dirty' * commit.endswith('-dirty')}"
    assert config["Labels"]["maskcast.lock.sha256"] == hashlib.sha256(LOCK.read_bytes()).hexdigest()


def test_the_bill_of_materials_is_what_the_lock_and_the_image_hold(run: Run) -> None:
    listing = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = pins(run("python", "-c", listing).stdout)
    bill = json.loads(run("cat", "/opt/maskcast/sbom.cdx.json").stdout)
    assert bill["bomFormat"] == "CycloneDX"
    main = bill["metadata"]["component"]
    listed = {normal(part["name"]): part["version"] for part in [main, *bill["components"]]}
    assert listed == installed
    core = {name: version for name, version in pins(LOCK.read_text()).items() if not in_cuda_image_alone(name)}
    assert installed.keys() - core.keys() == {"maskcast", "torch"}
    assert core.items() <= installed.items()


def test_every_package_finds_what_it_needs(run: Run) -> None:
    """Leaving packages of the lock out leaves none behind that needs them; kfp's executor needs none of kfp's."""
    script = """
from importlib.metadata import distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
found = {canonicalize_name(each.name): each for each in distributions()}
for name, each in found.items():
    for need in map(Requirement, each.requires or []):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            there = found.get(canonicalize_name(need.name))
            if there is None or not need.specifier.contains(there.version, prereleases=True):
                print(name, need)
"""
    lines = run("python", "-", stdin=script).stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"kfp"}
    executor = run("env", "_KFP_RUNTIME=true", "python3", "-m", "kfp.dsl.executor_main", "--help")
    assert executor.returncode == 0 and "--executor_input" in executor.stdout, executor.stderr
    assert run("sh", "-euc", "command -v sh mktemp printf python3").returncode == 0


def test_nothing_of_the_build_is_left(image: str) -> None:
    as_root = ["run", "--rm", "--network", "none", "--user", "0", image]
    compilers = ["-name", "gcc*", "-o", "-name", "g++*", "-o", "-name", "cc", "-o", "-name", "uv"]
    found = docker(*as_root, "find", "/", "-xdev", "-executable", "-type", "f", "(", *compilers, ")")
    assert (found.stdout, found.stderr) == ("", "")
    assert docker(*as_root, "find", "/", "-xdev", "-type", "f", "-perm", "-o+w").stdout == ""
    found = docker(*as_root, "find", "/build", "/opt/build", "/root/.cache", "/root/.local", "/tmp", "-type", "f")
    assert found.stdout == ""
    assert docker(*as_root, "find", "/opt/venv", "-name", "pip", "-o", "-name", "tests").stdout == ""


def test_bytecode_is_there(run: Run) -> None:
    """Nobody could write it later; without it every start would take seconds more."""
    done = run("python", "-v", "-c", "import torch, maskcast.runner.stage, mlflow")
    assert done.returncode == 0
    assert re.search(r"code object from '/opt/venv/.*/torch/__pycache__/__init__.cpython-311.pyc'", done.stderr)
    assert re.findall(r"code object from '?(/opt/\S+\.py)\b(?!c)", done.stderr) == []


def test_the_builder_is_told_where_torch_comes_from(image: str) -> None:
    done = build("runtime", "--network", "host", "--build-arg", f"BASE_IMAGE={base()}")
    assert done.returncode != 0
    assert "TORCH_INDEX: is missing: --build-arg TORCH_INDEX=<URL of a package index" in done.stdout + done.stderr


def test_a_target_that_does_not_exist_is_refused() -> None:
    done = build("runtime-tpu")
    assert done.returncode == 2
    assert done.stderr == "error: unknown target 'runtime-tpu'; choose runtime, runtime-cuda or mlflow\n"


def test_a_machine_without_a_builder_is_told_what_to_install(tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    done = build("runtime", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        "error: Docker Engine is unreachable, and neither podman nor buildah is installed; start or install one\n"
    )


def build(*arguments: str, **environment: str) -> Done:
    """Runs docker/build.sh."""
    command = [ROOT / "docker/build.sh", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def in_cuda_image_alone(name: str) -> bool:
    return name in STANDS_ON_TORCHVISION or name.startswith(("cuda-", "nvidia-", "torch", "triton"))


def pins(text: str) -> dict[str, str]:
    """Returns version by normalised name for each `name==version` in a text."""
    return {normal(name): version for name, version in re.findall(r"(?:^|(?<=\s))([\w.-]+)==(\S+)", text)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
