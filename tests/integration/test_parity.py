"""`dvc repro`, KFP in processes and KFP in containers give equal weights, masks, detections and scores."""

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from kfp.compiler import Compiler
from safetensors.numpy import load_file
from tests.conftest import lacking
from tests.dags import Call
from tests.integration.project import Project
from tests.integration.warm import warm

from maskcast.data.clip_store.reader import ClipStore
from pipelines.compile import build, read_values
from pipelines.placement import Placement

GRID = {
    "stage": "train_masker",
    "split": "test",
    "variants": {
        "wide": {"train_masker.model": {"arch": "unet", "width": 6}},
        "fails": {"train_masker.training.learning_rate": 1e30},
        "same": {"train_masker.training.seed": 0},  # which is the default
    },
}
MEASURED_BY_THE_CLOCK = re.compile(r"second|memory")


def fingerprint(calls: Mapping[str, Call], paths: Mapping[str, Path]) -> dict[str, str]:
    """Returns a digest of what each output port holds, by ``stage.port``."""
    found = {}
    for name, call in calls.items():
        for port in call.stage.ports:
            path = paths.get(f"{name}.{port.name}")
            if path is not None and (path / "detections.json").exists():  # of a report, which has pictures, too
                path = path / "detections.json"
            elif port.name == "report":
                continue
            if port.direction == "out" and port.name not in ("raw", "page"):
                assert path is not None and path.exists(), f"{name} has no {port.name}"
                found[f"{name}.{port.name}"] = hashlib.sha256(content(path)).hexdigest()
    return found


def content(path: Path) -> bytes:
    """Returns weights tensor by tensor, clips or images and boxes, or scores but for what a clock measures."""
    if (path / "model.safetensors").exists():
        tensors = sorted(load_file(path / "model.safetensors").items())
        return b"".join(name.encode() + str(tensor.dtype).encode() + tensor.tobytes() for name, tensor in tensors)
    if (path / "dataset.json").exists():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return b"".join(file.relative_to(path).as_posix().encode() + file.read_bytes() for file in files)
    if path.is_dir():
        store = ClipStore(path)
        clips = store.select()
        arrays = [store.frames(clip).tobytes() for clip in clips if clip.frames is not None]
        maps = [store.of(name) for name in store.maps]
        arrays += [each.masks(clip).tobytes() for each in maps for clip in clips if each.has_masks(clip)]
        assert arrays
        return b"".join([*(f"{clip.id} {clip.split} {clip.kind}".encode() for clip in clips), *arrays])
    scores = json.loads(path.read_text())
    assert scores
    if isinstance(scores, list):
        return path.read_bytes()
    return json.dumps(
        {key: value for key, value in scores.items() if not MEASURED_BY_THE_CLOCK.search(key)}
    ).encode()


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, the project, and the folder in it that holds its dvc.yaml and params.yaml."""

    name: str
    project: Project
    place: Project


@pytest.fixture(scope="module")
def other_programs() -> Iterator[Path]:
    """Commands that start at once, with another hash seed than those of ``programs``."""
    with warm() as folder:
        yield folder


@pytest.fixture(scope="module", params=["forecasting", "detection", "video", "few_labels", "hands", "photographs"])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Each pipeline after `dvc repro`; the first has the torch that the image has."""
    if request.param == "forecasting":
        project = place = request.getfixturevalue("warm_first_run")
    else:
        project = Project.copy_to(tmp_path_factory.mktemp(request.param))  # torchvision fits the installed torch
        project.run("git", "init", "--quiet")
        place = getattr(project, request.param)()
        for each, commands in ((place, "programs"), (project, "other_programs")):
            each.add_programs(request.getfixturevalue(commands))
            shutil.copy(request.getfixturevalue("empty_database"), each.folder / "mlflow.db")
        place.dvc("repro")
    return Pipeline(request.param, project, place)


@pytest.fixture(scope="module")
def by_dvc(pipeline: Pipeline) -> dict[str, str]:
    """What `dvc repro` gives."""
    calls = pipeline.place.calls()
    ports = {f"{name}.{port}": path for name, call in calls.items() for port, path in call.ports.items()}
    return fingerprint(calls, {port: pipeline.place.folder / path for port, path in ports.items()})


def by_kfp(pipeline: Pipeline, folder: Path, *flags: str) -> dict[str, str]:
    """Returns what KFP's local runner gives."""
    params = str(pipeline.place.folder / "params.yaml")
    which = ["--pipeline", pipeline.name, "--params", params, "--out", str(folder)]
    said = pipeline.project.run("maskcast", "pipeline", "run-local", *which, *flags)
    known = {"forecasting": "\nforecaster  ", "detection": "maxDets=100 ] = ", "video": "\nsegmenter  "}
    known["hands"] = known["photographs"] = known["video"]
    assert known.get(pipeline.name, "second_masker ... done") in said
    (run,) = [
        path for path in folder.iterdir() if path.name.startswith(f"maskcast-{pipeline.name.replace('_', '-')}-")
    ]
    assert f"report: {run / 'pages/index.html'}" in said
    assert said.count(" ... done after ") == len(pipeline.place.calls())
    tasks = [task for task in run.iterdir() if task.name not in ("log.txt", "pages")]
    names = entries(pipeline.name, params)
    return fingerprint(
        pipeline.place.calls(), {f"{names[task.name]}.{out.name}": out for task in tasks for out in task.iterdir()}
    )


def entries(name: str, params: str) -> dict[str, str]:
    """Returns the entry of each task: one that stands twice has a task of another name."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        Compiler().compile(
            build(name, read_values(name, Path(params), []).sections, Placement("image")), str(path)
        )
        tasks = yaml.safe_load(path.read_text())["root"]["dag"]["tasks"]
    return {task: entry["taskInfo"]["name"].replace(" ", "_") for task, entry in tasks.items()}


def test_kfp_in_processes_gives_the_same(pipeline: Pipeline, by_dvc: dict[str, str], tmp_path: Path) -> None:
    assert by_kfp(pipeline, tmp_path) == by_dvc


@pytest.mark.parametrize("pipeline", ["forecasting"], indirect=True)  # an image may lack torchvision
def test_kfp_in_containers_gives_the_same(
    pipeline: Pipeline, by_dvc: dict[str, str], tmp_path: Path, image: str
) -> None:
    if pipeline.project.packages is None and "TORCH_INDEX" not in os.environ:
        lacking(
            "the torch of the image is for Python 3.11: set TORCH_INDEX to a package index that has the locked one"
        )
    assert by_kfp(pipeline, tmp_path, "--docker", image) == by_dvc
    assert not (tmp_path / "mlflow.db").exists()  # its runs are in the registry of the processes


@pytest.mark.parametrize("pipeline", ["video"], indirect=True)
def test_a_variant_of_a_grid_by_kfp_is_the_masker_of_dvc(
    pipeline: Pipeline, by_dvc: dict[str, str], tmp_path: Path
) -> None:
    """Two others stand around it: one that is wider, and one that fails and leaves them alone."""
    place = pipeline.place.folder
    (tmp_path / "grid.yaml").write_text(json.dumps(GRID))
    which = ["--pipeline", pipeline.name, "--params", str(place / "params.yaml")]
    grid = ["--grid", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "kfp")]
    pipeline.project.run("maskcast", "pipeline", "run-local", *which, *grid)
    (run,) = (tmp_path / "kfp").glob("maskcast-video-grid-*")
    wide, fails, same = (next(run.glob(f"for-loop-1-iteration-{number}/*/masker")) for number in range(3))
    assert hashlib.sha256(content(same)).hexdigest() == by_dvc["train_masker.masker"]
    assert load_file(wide / "model.safetensors").keys() and not (fails / "model.safetensors").exists()
    assert "training diverged" in (run / "evaluate-many/report/index.html").read_text()
    with (run / "evaluate-many/report/scores.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    by_evaluation = json.loads((place / "results/evaluate_video.json").read_text())
    assert list(rows) == ["wide", "same"]
    assert float(rows["same"]["jaccard"]) == pytest.approx(by_evaluation["jaccard_base"], rel=1e-4)


@pytest.mark.parametrize("pipeline", ["forecasting"], indirect=True)
def test_another_seed_gives_something_else(pipeline: Pipeline, by_dvc: dict[str, str], tmp_path: Path) -> None:
    """The comparison can fail: what depends on the masker's seed differs, what does not is equal."""
    project = pipeline.project
    other = tmp_path / "masker", tmp_path / "metrics.json"
    values = project.params()["train_masker"]
    values["training"]["seed"] = 1
    (tmp_path / "params.yaml").write_text(json.dumps({"train_masker": values}))
    flags = ["--clips", "data/clips", "--masker", str(other[0]), "--metrics", str(other[1])]
    project.run("maskcast", "train_masker", "--params", str(tmp_path / "params.yaml"), *flags)
    assert hashlib.sha256(content(other[0])).hexdigest() != by_dvc["train_masker.masker"]
    assert hashlib.sha256(content(project.folder / "models/masker")).hexdigest() == by_dvc["train_masker.masker"]
