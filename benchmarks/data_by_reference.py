"""The bytes that a run on a cluster moves between pods: data as artifacts, and by reference on a volume.

    python benchmarks/data_by_reference.py [--params params.yaml] [--clips 60] [--least 1] [--until STAGE]

Runs the stages of dvc.yaml one after another as pods do: each has an empty disk, its inputs are copied there from
the artifact store and its outputs back, as KFP's launcher does. The second time `MASKCAST_DATA` names a volume.
Trainings are two steps long, for their bytes do not depend on it. `volume` is what is written there; what is read
there is read in place. Outputs must be equal in both. No clock, no network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from _common import ROOT, positive_int, print_table
from maskcast.digest import digest_tree
from maskcast.errors import one_line_errors
from maskcast.params import load_params_file
from maskcast.runner import references
from maskcast.runner.dvc_calls import read_calls
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage

MIB = 1 << 20
SHORT = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 8, "patience": 0, "warmup_steps": 0}
ALIKE = ("raw", "clips", "masks", "predictions")  # outputs without timings, by port


def main() -> None:
    calls, _ = read_calls(ROOT / "dvc.yaml")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml", help="of a synthetic data set")
    parser.add_argument("--clips", type=positive_int, default=60, help="number of training clips")
    parser.add_argument("--least", type=float, default=1, help="MiB from which on an output stays on the volume")
    parser.add_argument(
        "--until",
        metavar="STAGE",
        choices=[*calls],
        default="register_models",
        help="the last stage (default: %(default)s)",
    )
    args = parser.parse_args()
    params = shortened(load_params_file(args.params), args.clips)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db"),
        patch.object(references, "MIN_BYTES", int(args.least * MIB)),
    ):
        clusters = {
            method: Cluster(Path(folder, method), volume=method == "by reference")
            for method in ("artifacts", "by reference")
        }
        for cluster in clusters.values():
            for stage, call in calls.items():
                cluster.run(stage, call.ports, params[stage])
                if stage == args.until:
                    break
        before, after = clusters.values()
        assert before.digests == after.digests, "the two ways gave different data"
    rows = [
        (stage, *(f"{n / MIB:.2f}" for n in (*before.moved[stage], *after.moved[stage]))) for stage in before.moved
    ]
    sums = [[sum(each) for each in zip(*method.moved.values(), strict=True)] for method in (before, after)]
    rows.append(("all", *(f"{n / MIB:.2f}" for each in sums for n in each)))
    header = ("stage", "down", "up", "volume", "down", "up", "volume")
    print_table(f"MiB moved: as artifacts, and by reference from {args.least:g} MiB on", header, rows)
    whole, artifacts = sum(sums[1]) / sum(sums[0]), sum(sums[1][:2]) / sum(sums[0])
    print(f"by reference / artifacts: {whole:.3f}, without the volume {artifacts:.3f}")


class Cluster:
    """Runs stages like pods, and counts the bytes that they transfer.

    Args:
        folder: folder for the artifact store, the pods and the volume.
        volume: whether large outputs stay on the volume.
    """

    def __init__(self, folder: Path, *, volume: bool) -> None:
        self.store, self.volume = folder / "artifacts", folder / "volume/data" if volume else None
        self.folder = folder
        self.moved: dict[str, tuple[int, int, int]] = {}
        self.digests: dict[str, str] = {}

    def run(self, stage: str, ports: dict[str, str], params: dict[str, Any]) -> None:
        """Runs a stage; ``ports`` has the path of each port in the project's folder."""
        variables = {}
        if self.volume is not None:
            resume = self.folder / "volume/resume"
            variables = {"MASKCAST_DATA": str(self.volume), "MASKCAST_RESUME_DIR": str(resume)}
        had = size(self.volume) if self.volume else 0
        down = up = 0
        inputs = {port.name for port in get_stage(stage).ports if port.direction == "in"}
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as disk, patch.dict(os.environ, variables):
            pod = {port: Path(disk, port + Path(path).suffix) for port, path in ports.items()}
            for port in inputs & pod.keys():
                down += copied(self.store / ports[port], pod[port])
            run_stage(stage, params, name=None, where="params", **pod)
            for port in pod.keys() - inputs:
                up += copied(pod[port], self.store / ports[port])
                if port in ALIKE:
                    self.digests[f"{stage} {port}"] = digest_tree(references.resolve_reference(pod[port]))
        self.moved[stage] = down, up, (size(self.volume) - had if self.volume else 0)


def shortened(params: dict[str, Any], clips: int) -> dict[str, Any]:
    """Returns params with this many training clips, and trainings of two steps."""
    params["prepare_clips"]["source"] |= {"train": clips, "unlabeled": 0, "motion": 0, "val": 4, "hidden": 2}
    for section in params.values():
        if section and "training" in section:
            section["training"] |= SHORT
    return params


def copied(source: Path, target: Path) -> int:
    """Copies a file or folder and returns its size in bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
    return size(source)


def size(path: Path) -> int:
    """Returns the size in bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    with one_line_errors():
        main()
