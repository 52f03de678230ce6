"""A copy of the project with params small enough for a test, for tests that run the whole pipeline."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tests.conftest import write_detection_set
from tests.dags import Call, calls

ROOT = Path(__file__).resolve().parents[2]
STAGES = list(calls(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]))
SMALL_SSL = {"name": "densecl", "queue": 8, "hidden": 8, "dim": 4, "sub_batches": 1}


class Project:
    """The files of this repository in a folder of their own.

    Args:
        folder: where commands run.
        root: where the project lies, if that is another folder.

    Attributes:
        packages: what `add_packages` was given.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.folder = folder
        self.packages: Path | None = None
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))
        }
        self.environment = environment | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str((root or folder) / "src"),
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

    def calls(self) -> dict[str, Call]:
        """Returns what the stages of its dvc.yaml call."""
        return calls(yaml.safe_load((self.folder / "dvc.yaml").read_text())["stages"])

    def dvc(self, *words: str) -> str:
        return self.run("dvc", *words)

    def add_packages(self, folder: Path) -> None:
        """Lets commands import what was installed into a folder before what is installed here."""
        self.packages = folder
        self.environment["PYTHONPATH"] += f"{os.pathsep}{folder}"

    def add_programs(self, folder: Path) -> None:
        """Lets commands be found in a folder before they are where this Python's are."""
        self.environment["PATH"] = f"{folder}{os.pathsep}{self.environment['PATH']}"

    def commit(self, message: str) -> None:
        """Commits everything that Git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def detection(self) -> "Project":
        """Returns the recipe of the detection pipeline in it, with small params and data."""
        recipe = Project(self.folder / "recipes/detection", self.folder)
        raw = write_detection_set(recipe.folder / "release", train=6, val=3, unlabeled=3)
        params = shrink_detection(recipe.params(), raw)
        (recipe.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        return recipe

    def video(self) -> "Project":
        """Returns the recipe of the pipeline of videos in it, with small params."""
        return self._recipe("video", shrink_video)

    def few_labels(self) -> "Project":
        """Returns the recipe of few labels in it, with small params."""
        return self._recipe("few-labels", shrink_few_labels)

    def hands(self) -> "Project":
        """Returns the recipe of two hands in it, with small params."""
        return self._recipe("hands", shrink_hands)

    def photographs(self) -> "Project":
        """Returns the recipe of photographs in it, with small params."""
        return self._recipe("photographs", shrink_photographs)

    def _recipe(self, name: str, shrink: Callable[[dict[str, Any]], dict[str, Any]]) -> "Project":
        recipe = Project(self.folder / "recipes" / name, self.folder)
        params = shrink(recipe.params())
        (recipe.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        return recipe

    @classmethod
    def copy_to(cls, folder: Path) -> "Project":
        """Returns the project as it is in the working tree, with small params."""
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        compiled = (path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.pyc"))
        for file in (*listed.splitlines(), *compiled):
            if (ROOT / file).exists():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                # With its time, by which Python knows that what is compiled is of this source.
                shutil.copy2(ROOT / file, folder / file, follow_symlinks=False)
        (folder / "dvc.lock").unlink(missing_ok=True)
        params = shrink(yaml.safe_load((folder / "params.yaml").read_text()))
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        return cls(folder)


def shrink(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the shipped params with counts and sizes that take seconds."""
    source = {"layout": "synthetic", "train": 3, "val": 2, "unlabeled": 3, "hidden": 2, "motion": 2}
    params["prepare_clips"] |= {"source": source, "height": 32, "width": 48, "workers": 1}
    for name in ("pretrain_encoder", "train_masker", "pretrain_forecaster", "finetune_forecaster"):
        params[name]["training"] |= {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "warmup_steps": 0}
    params["pretrain_encoder"]["method"] = SMALL_SSL
    params["pretrain_encoder"]["model"] = params["train_masker"]["model"] = {"arch": "unet", "width": 4}
    # The gate must pass: two steps teach a masker no class, and a forecaster nothing better than the baselines.
    params["evaluate"] |= {"pictures": 1, "context": "truth"}
    params["register_models"]["gate"]["beats"] = []
    return params


def shrink_video(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the params of the recipe of videos with counts and sizes that take seconds."""
    source = params["prepare_clips"]["source"]
    source |= {"figures": {"videos": 4, "backgrounds": 4}, "seconds": 0.5, "splits": {"val": 0.25, "test": 0.25}}
    params["prepare_clips"] |= {"height": 32, "width": 48, "workers": 1}
    base = {"arch": "unet", "width": 4}
    params["train_masker"]["model"] = params["train_segmenter"]["model"]["base"] = base
    params["train_segmenter"]["window"] = {"frames": 4, "chunk": 2}
    for name in ("train_masker", "train_segmenter"):
        params[name]["training"] |= {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "warmup_steps": 0}
    params["evaluate_video"]["pictures"] = 1
    return params


def shrink_few_labels(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the params of the recipe of few labels with counts and sizes that take seconds."""
    source = {"layout": "synthetic", "train": 2, "val": 2, "unlabeled": 2, "attributes": True}
    params["prepare_clips"] |= {"source": source, "height": 32, "width": 48, "workers": 1}
    short = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "warmup_steps": 0}
    params["pretrain_encoder"] |= {"model": {"arch": "unet", "width": 4}, "method": SMALL_SSL}
    params["pretrain_encoder"]["training"] |= short
    for name in ("train_masker", "second_masker"):
        params[name]["training"] |= short
        params[name] |= {"model": {"arch": "unet", "width": 4}, "augment": {}}
    params["train_masker"]["unlabeled"] = {"batch_size": 2, "burn_in_steps": 1}
    params["second_masker"]["generated"] = {"threshold": 0}
    return params


def shrink_hands(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the params of the recipe of two hands with counts and sizes that take seconds."""
    params["prepare_clips"] |= {"height": 64, "width": 64, "workers": 1}
    params["prepare_clips"]["source"] |= {"train": 3, "val": 2, "test": 3, "unlabeled": 3}
    short = {"epochs": 2, "steps_per_epoch": 1, "batch_size": 2, "warmup_steps": 0}
    for name in ("first", "second"):
        params[name] |= {"model": {"arch": "unet", "width": 4}, "training": params[name]["training"] | short}
    params["second"]["phases"] = [{"epochs": 1, "generated": 1}, {"epochs": 1, "generated": 0}]
    params["second"]["adversarial"] = {"width": 2}
    params["evaluate_video"]["amodal"]["least_pixels"] = 1
    params["evaluate_video"]["pictures"] = 1
    return params


def shrink_photographs(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the params of the recipe of photographs with counts and sizes that take seconds."""
    params["prepare_clips"] |= {"height": 32, "width": 48, "workers": 1}
    params["prepare_clips"]["source"] |= {"train": 3, "val": 2, "unlabeled": 2}
    params["train_masker"] |= {"model": {"arch": "unet", "width": 4}, "augment": {}}
    params["train_masker"]["training"] |= {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "warmup_steps": 0}
    params["evaluate_video"]["pictures"] = 1
    return params


def shrink_detection(params: dict[str, Any], raw: Path) -> dict[str, Any]:
    """Returns the params of the detection recipe for a few images in ``raw``; every edge of the DAG matters."""
    files = {split: {"annotations": f"{split}.json", "images": f"images/{split}"} for split in ("train", "val")}
    params["fetch_dataset"]["uri"] = str(raw)
    params["prepare_detection"] = {"source": {"layout": "coco"} | files, "unlabeled": "unlabeled/*.png"}
    params["pretrain_encoder"] |= {"model": {"arch": "smp", "encoder": "tu-test_resnet"}, "method": SMALL_SSL}
    params["train_detector"]["model"] |= {"encoder": "tu-test_resnet", "width": 16, "proposals": 40, "rois": 16}
    params["train_detector"] |= {"unlabeled": {"batch_size": 1, "burn_in_steps": 1, "threshold": 0.05}}
    phases = {"phases": [{"learning_rate": 0.01, "epochs": 1}]}
    for name, length in (("pretrain_encoder", {"epochs": 1}), ("train_detector", phases)):
        params[name]["training"] |= {"steps_per_epoch": 2, "batch_size": 2, "warmup_steps": 0} | length
    params["evaluate_detector"]["pictures"] = 1
    return params
