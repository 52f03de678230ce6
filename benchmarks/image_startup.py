"""Start-up of each component in an image, as Kubeflow starts it: from its process to the first line of its stage.

    python benchmarks/image_startup.py IMAGE [--rounds 5]    # `make image` prints the name; needs a Docker Engine

Commands and arguments are those of the compiled pipeline. What importing torch takes is left out; every other
import, the check of the params and the tracked run are in. CPU time tells what a busy machine adds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from _common import ROOT, positive_int, print_table
from maskcast.errors import one_line_errors

# Python runs this first in the component's process; it imports torch early, to time that separately.
PROBE = """
import dataclasses, os, time
import numpy
start, cpu_start = time.perf_counter(), time.process_time()
import torch
torch_s, torch_cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
from maskcast.runner import stage

def first_line(**arguments):
    seconds, cpu_s = time.time() - float(os.environ["STARTED"]), time.process_time()
    print("stage began:", seconds - torch_s, cpu_s - torch_cpu_s, flush=True)
    os._exit(0)

get_stage = stage.get_stage
stage.get_stage = lambda name: dataclasses.replace(get_stage(name), function=first_line)
"""


def start_up(image: str, command: list[str], folder: Path) -> tuple[float, float]:
    """Returns seconds and CPU seconds until a component's stage begins, without the import of torch."""
    flags = ["--rm", "--network=none", "--read-only", "--tmpfs=/tmp", f"--user={os.getuid()}:{os.getgid()}"]
    flags += [f"--volume={folder}:{folder}", f"--env=MLFLOW_TRACKING_URI=sqlite:///{folder / 'mlflow.db'}"]
    timed = f'export STARTED=$(date +%s.%N) PYTHONPATH={folder / "probe"}:$PYTHONPATH; exec "$@"'
    container = ["docker", "run", *flags, image, "sh", "-c", timed, "sh", *command]
    done = subprocess.run(container, stdout=subprocess.PIPE, text=True, check=True)
    seconds, cpu_s = done.stdout.split("stage began: ")[1].split()[:2]
    return float(seconds), float(cpu_s)


def commands(folder: Path) -> dict[str, list[str]]:
    """Returns Kubeflow's commands by component; inputs are empty folders."""
    compiled = folder / "pipeline.yaml"
    compile_it = [sys.executable, "-m", "maskcast", "pipeline", "compile", "--out", str(compiled)]
    subprocess.run(compile_it, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    pipeline = next(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))
    defaults = pipeline["root"]["inputDefinitions"]["parameters"]
    found = {}
    for executor, entry in pipeline["deploymentSpec"]["executors"].items():
        name = executor.removeprefix("exec-")
        component = pipeline["components"][f"comp-{name}"]
        values = {"params": defaults[name.replace("-", "_")]["defaultValue"]}
        inputs = artifacts(component["inputDefinitions"], folder / "in")
        outputs = artifacts(component["outputDefinitions"], folder / "out")
        for port in inputs:
            (folder / "in" / port).mkdir(parents=True, exist_ok=True)
        given = json.dumps(
            {
                "inputs": {"parameterValues": values, "artifacts": inputs},
                "outputs": {"artifacts": outputs, "outputFile": str(folder / "executor_output.json")},
            }
        )
        container = entry["container"]
        found[name] = [word.replace("{{$}}", given) for word in container["command"] + container["args"]]
    return found


def artifacts(definitions: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the artifacts of a component in the form of its executor input."""
    return {
        name: {
            "artifacts": [{"name": name, "uri": str(folder / name), "type": port["artifactType"], "metadata": {}}]
        }
        for name, port in definitions.get("artifacts", {}).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--rounds", type=positive_int, default=5)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "probe").mkdir()
        (folder / "probe/sitecustomize.py").write_text(PROBE, encoding="utf-8")
        for name, command in commands(folder).items():
            start_up(args.image, command, folder)  # the first run reads from disk and creates MLflow's tables
            rounds = [start_up(args.image, command, folder) for _ in range(args.rounds)]
            rows.append((name, *(f"{statistics.median(times):.2f}" for times in zip(*rounds, strict=True))))
    print_table(
        f"Start-up of a component in {args.image}, without importing torch",
        ("component", "seconds", "CPU seconds"),
        rows,
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
