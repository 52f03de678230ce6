"""Every file of values that is shipped fits the stages it is for, also those that no pipeline names.

What values mean does not follow from the order of keys, which KFP changes from process to process.
"""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import yaml
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from tests.conftest import ROOT
from tests.dags import calls

from maskcast.params import ByName, Params, deep_merge, validate
from maskcast.runner.stage import get_stage, stage_names
from pipelines.values import for_kfp

PARAMS = [path for path in ROOT.glob("recipes/*/*.yaml") if path.name != "dvc.yaml"]
BUDGET = ROOT / "recipes/few-labels/budget.py"
PLANS = [BUDGET.with_name(name) for name in ("budget.yaml", "quick.yaml", "gpu.yaml")]
BY_NAME = get_args(ByName)[-1]
HANDS = ROOT / "recipes/hands/arms.yaml"
CHANGES = {  # files whose sections change those of params.yaml
    ROOT / f"recipes/clevrer-frames/{name}.yaml": ["train_masker"]
    for name in ("attributes", "gpu", "muon", "unlabeled")
} | {
    ROOT / "recipes/reference/gpu.yaml": ["prepare_clips", "train_masker"],
    ROOT / "recipes/few-labels/compare.yaml": ["train_masker"],
}
GRID = ROOT / "recipes/video/grid.yaml"  # variants: tests/unit/test_grid.py
FILES = sorted({ROOT / "params.yaml", *PARAMS} - {*PLANS, GRID, HANDS})


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def check(stage: str, values: dict[str, Any], where: Path) -> None:
    """Makes sure that values are right, and mean the same where KFP hands them over."""
    params, place = get_stage(stage).params, str(where.relative_to(ROOT))
    handed_over = MessageToDict(ParseDict(for_kfp(values), Struct()))
    assert validate(params, handed_over, place) == validate(params, values, place)


def unordered(kind: Any, where: str, seen: set[Any]) -> Iterator[str]:
    """Yields the places below a type where a mapping is left in the order in which its keys came."""
    if get_origin(kind) is Annotated and BY_NAME in get_args(kind)[1:]:
        return
    if kind is dict or get_origin(kind) is dict:
        yield where
    if isinstance(kind, type) and issubclass(kind, Params) and kind not in seen:
        seen.add(kind)
        for name, each in get_type_hints(kind, include_extras=True).items():
            yield from unordered(each, f"{where}.{name}", seen)
    for each in get_args(kind):
        yield from unordered(each, where, seen)


def test_no_stage_has_a_param_in_which_the_order_of_keys_tells_something() -> None:
    found = [place for name in stage_names() for place in unordered(get_stage(name).params, name, set())]
    assert found == ["find_learning_rate.values"]  # a section of another stage, which is held against its params


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES])
def test_each_section_fits_its_stage(path: Path) -> None:
    sections = read(path)
    assert sections
    named = calls(read(path.parent / "dvc.yaml")["stages"])  # a stage may stand there under another name
    for name, values in sections.items():
        if name in CHANGES.get(path, ()):
            values = deep_merge(read(path.parent / "params.yaml")[name], values)
        check(named[name].stage.name if name in named else name, values, path)


def test_what_the_steps_of_hands_are_made_with_fits_its_stages() -> None:
    params = read(HANDS.with_name("params.yaml"))
    for arm in read(HANDS)["arms"].values():
        for name in arm.keys() & params.keys():
            check("train_masker", deep_merge(params[name], arm[name]), HANDS)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_what_a_label_budget_compares_fits_its_stages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BUDGET.parent)  # as Python does for a script
    script, values = runpy.run_path(str(BUDGET)), read(path.with_name("params.yaml"))
    base, second = values["train_masker"], values["second_masker"]
    plan = script["Plan"].model_validate(read(path))
    assert path.name in script["PLANS"]
    check("pretrain_encoder", plan.pretrain_encoder, path)
    for name, arm in plan.arms.items():
        values = deep_merge(base, arm.train_masker)
        check("train_masker", values, path)
        assert (arm.second_masker is not None) == name.startswith(("semi-supervised", "both"))
        if arm.second_masker is not None:
            check("train_masker", deep_merge(second, arm.second_masker), path)


def test_what_the_tables_of_forecasters_are_made_with_fits_its_stages() -> None:
    path = ROOT / "benchmarks/forecasting.yaml"
    values = read(path)
    assert values.keys() == {"stores", "scores", "forecasters", "videos"}
    for part, stage in (
        ("stores", "prepare_clips"),
        ("scores", "evaluate"),
        ("forecasters", "pretrain_forecaster"),
    ):
        for section in values[part].values():
            check(stage, section, path)
    for sections in values["videos"].values():
        for stage, section in sections.items():
            check(stage, section, path)
