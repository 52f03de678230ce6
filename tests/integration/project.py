"""A copy of the project with params small enough for a test, for tests that run the whole pipeline."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


class Project:
    """The files of this repository in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))
        }
        self.environment = environment | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "OMP_NUM_THREADS": "1",
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
        }

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout if "--json" in command else done.stdout + done.stderr

    def params(self) -> dict[str, Any]:
        """Returns the sections of its params file."""
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def dvc_stages(self) -> dict[str, Any]:
        """Returns the stages of its dvc.yaml."""
        return yaml.safe_load((self.folder / "dvc.yaml").read_text())["stages"]

    def dvc(self, *words: str) -> str:
        return self.run("dvc", *words)

    @classmethod
    def copy_to(cls, folder: Path) -> "Project":
        """Returns the project as it is in the working tree, with small params."""
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for file in listed.splitlines():
            if (ROOT / file).is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, folder / file)
        (folder / "dvc.lock").unlink(missing_ok=True)
        params = shrink(yaml.safe_load((folder / "params.yaml").read_text()))
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        return cls(folder)


def shrink(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the shipped params with counts and sizes that take seconds."""
    source = {"layout": "synthetic", "train": 3, "val": 2, "unlabeled": 3, "hidden": 2}
    params["prepare_clips"] |= {"source": source, "height": 32, "width": 48, "workers": 1}
    for name in ("pretrain_encoder", "train_masker", "pretrain_forecaster", "finetune_forecaster"):
        params[name]["training"] |= {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "warmup_steps": 0}
    params["pretrain_encoder"]["method"] = {"name": "densecl", "queue": 8, "hidden": 8, "dim": 4, "sub_batches": 1}
    params["pretrain_encoder"]["model"] = params["train_masker"]["model"] = {"arch": "unet", "width": 4}
    params["evaluate"]["pictures"] = 1
    return params
