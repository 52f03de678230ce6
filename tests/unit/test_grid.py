"""Grids of variants: the file, what runs once and what for each, Kubeflow's loop, and variants that fail."""

import os
import re
import sqlite3
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from kfp.compiler import Compiler
from tests.conftest import write_store

from components.evaluate_many import evaluate_many as evaluate_many_component
from maskcast.commands import evaluate_many
from maskcast.errors import MaskcastError
from maskcast.params import load_params_file
from maskcast.runner import dvc_queue
from maskcast.runner.dvc_calls import needs_of, read_calls
from maskcast.runner.dvc_queue import _hydra
from maskcast.runner.grid import StageSplit, load_grid, split_stages
from maskcast.runner.mlflow_client import create_database
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage
from maskcast.runner.variants import read_failure
from pipelines.cluster import load_cluster
from pipelines.compile import build, grid_plan, read_values
from pipelines.options import add_grid
from pipelines.placement import Placement

RECIPE = Path(__file__).resolve().parents[2] / "recipes/video"
SEED = "train_segmenter.training.seed"


def entries() -> dict[str, str]:
    """Returns the stages of the recipe of videos by their sections."""
    return {one.name: one.stage.name for one in read_calls(RECIPE / "dvc.yaml")[0].values()}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def test_the_grid_of_the_recipe_has_each_memory_and_the_control() -> None:
    values = load_params_file(RECIPE / "params.yaml")
    grid, variants = load_grid(RECIPE / "grid.yaml", values, entries())
    assert [one.name for one in variants] == ["control", "V1", "V2", "V3", "V4", "V5", "V6", "scales"]
    places = [one.sections.get("train_segmenter", {}).get("model", {}).get("place") for one in variants]
    assert places == [None, "logits", "logits", "decoder", "decoder", "decoder_split", "decoder_split", None]
    assert variants[0].sections["train_segmenter"]["model"] == {"arch": "unet", "width": 8}, "nothing is merged"
    assert values["train_segmenter"]["model"]["place"] == "scales", "what others begin with is left alone"
    assert grid.split == "test"


def test_a_product_multiplies_the_variants(tmp_path: Path) -> None:
    values = load_params_file(RECIPE / "params.yaml")
    sizes = [{"frames": 4, "chunk": 2}, {"frames": 8, "chunk": 8}]
    content = {"stage": "train_segmenter", "product": {SEED: [1, 2], "train_segmenter.window": sizes}}
    _, variants = load_grid(write(tmp_path / "a.yaml", content), values, entries())
    names = [one.name for one in variants]
    assert names == ["seed-1-window-1", "seed-1-window-2", "seed-2-window-1", "seed-2-window-2"]
    found = [one.sections["train_segmenter"] for one in variants]
    assert [(one["training"]["seed"], one["window"]) for one in found] == [
        (1, sizes[0]), (1, sizes[1]), (2, sizes[0]), (2, sizes[1])
    ]  # fmt: skip
    content = {"stage": "train_segmenter", "variants": {"a": None, "b": {SEED: 5}}, "product": {SEED: [1]}}
    _, variants = load_grid(write(tmp_path / "b.yaml", content), values, entries())
    assert [one.name for one in variants] == ["a-seed-1", "b-seed-1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"stage": "train_segmenter"}, "contains no variants; add some to `variants`"),
        ({"stage": "train_segmenter", "product": {SEED: []}}, "contains no variants"),
        ({"variants": {"a": None}}, "stage: missing"),
        ({"stage": "trainer", "variants": {"a": None}}, "unknown stage 'trainer'; stages: fetch_dataset, "),
        ({"stage": "evaluate_video", "variants": {"a": None}}, "evaluate_video has no output `masker`"),
        ({"stage": "train_segmenter", "variant": {}}, "variant: unknown key; did you mean 'variants'?"),
        (
            {"stage": "train_segmenter", "variants": {"a": {"trainer.x": 1}}},
            "variant 'a': trainer.x: unknown section",
        ),
        ({"stage": "train_segmenter", "variants": {"a": {"train_segmenter": 1}}}, "use section.key and a value"),
        (
            {"stage": "train_segmenter", "variants": {"ok": None, "a": {"train_segmenter.model.plaice": 1}}},
            "variant 'a': train_segmenter.model.plaice: unknown key; did you mean 'place'?",
        ),
        (
            {"stage": "train_segmenter", "variants": {"a": {"train_segmenter.training.epochs": "two"}}},
            "variant 'a': train_segmenter.training.epochs: ",
        ),
        ({"stage": "train_segmenter", "variants": {"a b": None}}, "invalid variant name 'a b'"),
        ("stage: train_segmenter\nvariants:\n  a:\n  b:\n  a:\n", "line 5: not valid YAML (duplicate key 'a')"),
        (
            {"stage": "train_segmenter", "variants": {"a": None, "a-seed-1": None}, "product": {SEED: ["1", 1]}},
            "duplicate variant name 'a-seed-1'",
        ),
        ("stage: [", "not valid YAML"),
    ],
)
def test_a_bad_grid_is_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = write(tmp_path / "grid.yaml", content)
    with pytest.raises(MaskcastError) as caught:
        load_grid(path, load_params_file(RECIPE / "params.yaml"), entries())
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def parts(tmp_path: Path, **variants: Any) -> StageSplit:
    """Returns what runs once and what for each variant, in DVC's pipeline of videos."""
    path = write(tmp_path / "grid.yaml", {"stage": "train_segmenter", "variants": variants})
    found = load_grid(path, load_params_file(RECIPE / "params.yaml"), entries())
    return split_stages(path, *found, needs_of(read_calls(RECIPE / "dvc.yaml")[0]), "prepare_clips")


def test_what_no_variant_changes_runs_once(tmp_path: Path) -> None:
    assert parts(tmp_path, a=None) == StageSplit(
        ("fetch_dataset", "prepare_clips", "train_masker"), ("train_segmenter",)
    )
    both = parts(tmp_path, a={"train_masker.training.seed": 1}, b={SEED: 1})
    assert both == StageSplit(("fetch_dataset", "prepare_clips"), ("train_masker", "train_segmenter"))
    with pytest.raises(MaskcastError, match="variant 'b': train_segmenter does not depend on evaluate_video"):
        parts(tmp_path, a=None, b={"evaluate_video.split": "val"})


def compiled(grid: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    """Returns what Kubeflow gets."""
    given = Namespace(pipeline="video", params=RECIPE / "params.yaml", grid=grid, jobs=3)
    cluster = load_cluster(RECIPE.parents[1] / "pipelines/cluster.yaml")
    values, _ = read_values(given.pipeline, given.params, overrides)
    how = grid_plan(given, values)
    assert how is not None and how.total == 3 + 8 + 1
    built = build(given.pipeline, values, Placement("image", cluster), how)
    Compiler().compile(built, str(folder / "pipeline.yaml"))
    (found, _) = yaml.load_all((folder / "pipeline.yaml").read_text(), yaml.CSafeLoader)
    return found


def test_kubeflow_loops_over_the_variants(tmp_path: Path) -> None:
    found = compiled(RECIPE / "grid.yaml", tmp_path, "train_segmenter.training.epochs=5")
    assert found["pipelineInfo"]["name"] == "maskcast-video-grid"
    tasks = found["root"]["dag"]["tasks"]
    assert sorted(tasks) == ["evaluate-many", "fetch-dataset", "for-loop-1", "prepare-clips", "train-masker"]
    assert tasks["for-loop-1"]["iteratorPolicy"] == {"parallelismLimit": 3}
    loop = found["components"]["comp-for-loop-1"]["dag"]["tasks"]
    assert [task["taskInfo"]["name"] for task in loop.values()] == ["train segmenter"]
    (executor,) = [
        each["container"]
        for each in found["deploymentSpec"]["executors"].values()
        if {"name": "MASKCAST_GRID", "value": "1"} in each["container"].get("env", [])
    ]
    assert "train_masker" in str(executor["command"])
    inputs = found["root"]["inputDefinitions"]["parameters"]
    assert sorted(inputs) == ["fetch_dataset", "prepare_clips", "train_masker", "variants"]
    items = inputs["variants"]["defaultValue"]
    assert len(items) == 8 and {item["train_segmenter"]["training"]["epochs"] for item in items} == {5.0}
    assert items[0]["train_segmenter"]["window"] == "null", "KFP's dicts hold no null"
    assert [item["name"] for item in items] == ["control", "V1", "V2", "V3", "V4", "V5", "V6", "scales"]
    # A run may be given other variants: then the comparison has their names.
    given = tasks["evaluate-many"]["inputs"]["parameters"]
    assert given["variants"] == {"componentInputParameter": "variants"} and "names" not in given


def test_kubeflow_refuses_a_grid_over_clips(tmp_path: Path) -> None:
    content = {"stage": "train_segmenter", "variants": {"a": {"prepare_clips.height": 32}}}
    with pytest.raises(MaskcastError, match="a variant changes the clips"):
        compiled(write(tmp_path / "grid.yaml", content), tmp_path)
    parser = ArgumentParser()
    add_grid(parser)
    with pytest.raises(MaskcastError, match="--jobs: got 0; give 1 or more"):
        parser.parse_args(["--jobs", "0"])


def test_variants_of_one_name_are_all_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On Kubeflow's page a user may copy an item of the loop."""
    write_store(tmp_path / "clips")
    folders = [str(tmp_path / folder) for folder in ("x", "y")]
    for folder in folders:
        Path(folder).mkdir()
        Path(folder, "FAILED.json").write_text('{"error": "e"}')
    with pytest.raises(MaskcastError, match="first a: failed: e"):
        evaluate_many.score_grid(["a", "a"], folders, str(tmp_path / "clips"), "val", "out", "page")
    assert capsys.readouterr().out.splitlines() == ["left out a: failed: e", "left out a (2): failed: e"]


def test_variants_typed_without_a_name_get_one_by_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "clips")
    models = [SimpleNamespace(path=str(tmp_path / folder)) for folder in ("x", "y")]
    for model in models:
        Path(model.path).mkdir()
        Path(model.path, "FAILED.json").write_text('{"error": "e"}')
    artifacts = {name: SimpleNamespace(path=str(tmp_path / name)) for name in ("clips", "report", "page")}
    compare = evaluate_many_component.python_func
    with pytest.raises(MaskcastError, match="first a: failed: e"):
        compare(models, variants=[{"name": "a"}, {"train_masker": {}}], **artifacts)
    assert capsys.readouterr().out.splitlines() == ["left out a: failed: e", "left out variant 2: failed: e"]


def test_a_variant_that_fails_leaves_word_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop of Kubeflow loses all where one task fails; what comes after it passes the word on."""
    (tmp_path / "raw").mkdir()
    paths = {"raw": tmp_path / "raw", "clips": tmp_path / "clips"}
    with pytest.raises(MaskcastError):
        run_stage("prepare_clips", {"source": 3}, **paths)
    assert not paths["clips"].exists(), "outside of a grid nothing changes"
    monkeypatch.setenv("MASKCAST_GRID", "1")
    assert run_stage("prepare_clips", {"source": 3}, **paths) == {}
    said = read_failure(paths["clips"])
    assert said is not None and said.startswith("prepare_clips: params.") and "params.source" in said
    after = {name: tmp_path / name for name in ("masker", "metrics", "page")}
    assert run_stage("train_masker", {}, clips=paths["clips"], **after) == {}
    assert [read_failure(out) for out in after.values()] == [said] * 3


def test_variants_keep_their_checkpoints_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setenv("MASKCAST_GRID", "1")
    monkeypatch.setenv("MASKCAST_RESUME_DIR", str(tmp_path))
    monkeypatch.setattr(
        "maskcast.runner.run._run", lambda *_: seen.append(os.environ["MASKCAST_RESUME_DIR"]) or {}
    )
    for seed in (1, 2, 1):
        run_stage("prepare_clips", {"seed": seed})
    assert seen[0] == seen[2] != seen[1] and os.environ["MASKCAST_RESUME_DIR"] == str(tmp_path)
    seen.clear()
    for start in ("first", "second", "first"):  # of stages that variants change, where this one's params are equal
        run_stage("train_masker", {}, clips=tmp_path / "clips", start=tmp_path / start)
    assert seen[0] == seen[2] != seen[1]


EQUAL = """
import sys, time
from pathlib import Path
from maskcast.runner.variants import run_variant

name, other = sys.argv[1:]

def work():
    Path(f"{name} begins").touch()
    while not Path(f"{other} waits").exists():
        time.sleep(0.01)
    time.sleep(1.5)  # without a lock the other one begins now
    assert not Path(f"{other} begins").exists() or Path(f"{other} ends").exists()
    Path(f"{name} ends").touch()
    return {"done": 1.0}

Path(f"{name} waits").touch()
assert run_variant(work, "train_masker", {}, [], [Path(name)]) == {"done": 1.0}
"""


def test_a_stage_that_two_variants_share_runs_for_one_after_the_other(tmp_path: Path) -> None:
    """Else one would find the other's checkpoints locked, and be recorded as failed."""
    environment = os.environ | {"MASKCAST_GRID": "1", "MASKCAST_RESUME_DIR": str(tmp_path / "new/resume")}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", EQUAL, *names], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        for names in (("a", "b"), ("b", "a"))
    ]
    said = "".join(each.communicate(timeout=120)[0] for each in running)
    assert [each.returncode for each in running] == [0, 0]
    assert re.fullmatch(r"train_masker: waits for a variant with equal params and inputs \(.*process.*\)\n", said)


OF_TWO_RUNS = """
import sys, time
from pathlib import Path
from maskcast.runner.variants import run_variant

name, other = sys.argv[1:]

def work():
    Path(f"{name} begins").touch()
    end = time.monotonic() + 60
    while not Path(f"{other} begins").exists():
        assert time.monotonic() < end, "the other run waits for this one"
        time.sleep(0.01)
    return {"done": 1.0}

assert run_variant(work, "train_masker", {}, [], [Path(name)]) == {"done": 1.0}
"""


def test_variants_of_two_runs_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Their checkpoints lie in folders of their runs."""
    environment = os.environ | {"MASKCAST_GRID": "1", "MASKCAST_RESUME_DIR": str(tmp_path / "resume")}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", OF_TWO_RUNS, *names], cwd=tmp_path, env=environment | {"KFP_RUN_ID": names[0]}
        )
        for names in (("a", "b"), ("b", "a"))
    ]
    assert [each.wait(120) for each in running] == [0, 0]


@pytest.mark.parametrize(
    "values",
    [
        {"a": 1, "b": 0.5, "c": 1.0e-30, "d": True, "e": None, "f": [1, [2, 3]], "g": {}, "h": []},
        {
            "a": "plain",
            "b": "it's",
            "c": 'a "b" \\ c',
            "d": "1",
            "e": "true",
            "f": "a: {b, c}",
            "g": "",
            "h": "null",
        },
        {"a": {"b": {"c": [{"d": "e"}]}}},
        {"a": "\\", "b": "a\\", "d": "\\\\", "e": "a\\'b", "f": "a\\\\'", "g": ["'\\'", "\\"], "h": "\n"},
        {"a:b": "1", "a,b": [], "a (b)": {"[{=}]": 1}, " ": 2, "a\\": 3, "1a": 4, "e1": 5, "c": {7: 6}},
    ],
)
def test_values_reach_the_params_of_an_experiment_as_they_are(tmp_path: Path, values: dict[str, Any]) -> None:
    path = write(tmp_path / "params.yaml", {"section": {"old": {"a": 1}}, "other": {"kept": 1}})
    apply_overrides(path, ["~section", f"+section={_hydra(values)}"])
    found = yaml.safe_load(path.read_text())
    assert found["other"] == {"kept": 1}
    small = found["section"].get("c")
    assert found["section"] | {"c": float(small) if "e-" in str(small) else small} == {"c": None} | values


@pytest.mark.parametrize("key", ["", "é", "it's", "1", "-.5", "1e3", "True", "null", "inf", "a\n"])
def test_a_key_that_dvc_would_read_otherwise_is_refused(key: str) -> None:
    with pytest.raises(
        MaskcastError, match=r"^params.yaml: key .* cannot be passed to a DVC experiment; name it by"
    ):
        _hydra({"a": [{key: 1}]})


def test_dvc_and_kubeflow_hand_over_the_same_params(tmp_path: Path) -> None:
    """As DVC writes them to params.yaml, and as Kubeflow's items hold them, where each number is a float."""
    stages, before = entries(), (RECIPE / "params.yaml").read_text()
    _, variants = load_grid(RECIPE / "grid.yaml", yaml.safe_load(before), stages)
    items = compiled(RECIPE / "grid.yaml", tmp_path)["root"]["inputDefinitions"]["parameters"]["variants"]
    for variant, item in zip(variants, items["defaultValue"], strict=True):
        path = write(tmp_path / "params.yaml", before)
        for name, values in variant.sections.items():
            apply_overrides(path, [f"~{name}", f"+{name}={_hydra(values)}"])
        params = get_stage("train_masker").params
        by_dvc = params.model_validate(load_params_file(path)["train_segmenter"])
        assert by_dvc == params.model_validate(item["train_segmenter"])
        assert by_dvc == params.model_validate(variant.sections.get("train_segmenter") or by_dvc.model_dump())


def test_dvc_reports_to_its_makers_only_where_a_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DVC_NO_ANALYTICS", "DVC_TEST"):
        monkeypatch.delenv(name, raising=False)
    for kind in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"DVC_{kind}_CONFIG_DIR", str(tmp_path / kind))
    monkeypatch.setattr(dvc_queue.Queue, "__init__", lambda self, folder: setattr(self, "_folder", folder))
    queue, asked = dvc_queue.Queue(tmp_path), "from dvc.analytics import is_enabled; print(is_enabled())"
    assert queue._run([sys.executable, "-c", asked]).stdout == "False\n"
    monkeypatch.setenv("DVC_NO_ANALYTICS", "")
    assert queue._run([sys.executable, "-c", asked]).stdout == "True\n"


def test_the_database_is_there_before_variants_begin_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    create_database()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select count(*) from datasets").fetchone() == (0,)
    database.close()
