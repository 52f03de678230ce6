"""What runs read besides data: lists of hands, checkpoints, model folders, pipelines, squashfs files."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]


def write_hand_lists(folder: Path) -> None:
    """Writes a list of hands and a table of ids in each form that there is."""
    import torch

    entries: list[dict[str, Any]] = [
        {"img_path": f"./data/{k}.jpg", "bbox": [8.0, 2, 10, 10], "hand_type": "interacting", "frame": k}
        for k in range(3)
    ]
    arrays = [entry | {"bbox": np.array(entry["bbox"], np.float32)} for entry in entries]
    (folder / "list.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    ids = {f"{k}": 40 + k for k in range(3)}
    for name, content in (("list", entries), ("ids", ids)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    for name, tensors in (("list", arrays), ("ids", ids)):
        torch.save(tensors, folder / f"{name}.pt")


def read_hand_lists(folder: Path) -> None:
    from maskcast.data.sources.hand_lists import Sample, read_ids, read_list

    for name in ("list.jsonl", "list.json", "list.pt"):
        for found in read_list(folder / name):
            assert isinstance(found, Sample) or len(found[1]) < 1000, found
    for name in ("ids.json", "ids.pt"):
        read_ids(folder / name)


def write_checkpoint(folder: Path) -> None:
    import torch

    from maskcast.training.checkpoint import Checkpoints

    weights = torch.nn.Linear(4, 3).state_dict()
    state = {"model": weights, "progress": {"step": 7, "best": {"miou": 0.5}, "best_weights": weights}}
    Checkpoints(folder / "masker.resume", "f").save(state)


def read_checkpoint(folder: Path) -> None:
    import torch

    from maskcast.training.checkpoint import Checkpoints
    from maskcast.training.epochs import Progress

    kept = Checkpoints(folder / "masker.resume", "f")
    if (state := kept.load()) is not None:
        with kept.restoring():
            torch.nn.Linear(4, 3).load_state_dict(state["model"])
            Progress(**state["progress"])


def write_model(folder: Path) -> None:
    from tests.registered import write_parts

    write_parts(folder)


def read_model(folder: Path) -> None:
    from maskcast.models.forecasting.table import load_forecaster
    from maskcast.models.segmentation.table import load_masker

    load_masker(folder / "masker")
    load_forecaster(folder / "forecaster")


def write_pipeline(folder: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", folder)


def read_pipeline(folder: Path) -> None:
    from maskcast.runner.dvc_calls import in_order, read_calls

    calls, _ = read_calls(folder / "dvc.yaml")
    list(in_order(calls))


def write_squashfs(folder: Path) -> None:
    """Writes a squashfs file whose names and inodes are not packed, so that harm reaches them."""
    from tests.conftest import lacking

    if not (shutil.which("mksquashfs") and shutil.which("unsquashfs")):
        lacking("squashfs-tools are not installed")
    inner = folder / "inner"
    (inner / "train").mkdir(parents=True)
    (inner / "train/a.txt").write_bytes(b"a" * 500)
    (inner / "mask.npy").write_bytes(b"x" * 30)
    command = ["mksquashfs", str(inner), str(folder / "data.sqsh"), "-quiet", "-no-progress"]
    subprocess.run([*command, "-noI", "-noD", "-noF", "-noX"], check=True, capture_output=True)
    shutil.rmtree(inner)


def read_squashfs(folder: Path) -> None:
    from maskcast.stages.fetch_dataset import FetchDataset, fetch_dataset

    fetch_dataset(raw=folder / "raw", params=FetchDataset(uri=str(folder / "data.sqsh")))
