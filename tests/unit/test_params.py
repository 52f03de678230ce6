"""Params: values as YAML and KFP give them are accepted, typos and nonsense are named."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from maskcast.errors import MaskcastError
from maskcast.params import ByName, Params, flatten, load_params_file, params_hash, section, validate
from maskcast.runner.stage import get_stage
from maskcast.training.schedule import TrainingParams

UNET = {"arch": "unet", "width": 8}


class Small(Params):
    arch: Literal["small"]
    width: int = Field(default=8, ge=1)


class Large(Params):
    arch: Literal["large"]
    depth: int = 3


Model = Annotated[Small | Large, Field(discriminator="arch")]


class Spare(Params):
    spare: Model | None = None
    spares: tuple[Model, ...] = ()


class Phase(Params):
    rate: float


class Example(Params):
    epochs: int
    sides: tuple[int, ...] = ()
    rate: float = 0.1
    limit: float | None = None
    flip: bool = True
    repeat: bool | int = 1
    mode: Literal["soft", "hard"] = "soft"
    images: str = ""
    model: Annotated[Small | Large, Field(discriminator="arch")] = Small(arch="small")
    phases: tuple[Phase, ...] = ()

    @model_validator(mode="after")
    def _slow(self) -> Self:
        if self.rate > self.epochs:
            raise ValueError("rate: more than epochs")
        return self


def test_kfp_floats_are_integers() -> None:
    assert validate(Example, {"epochs": 3.0}, "p").epochs == 3


class Shares(Params):
    of: ByName[str, float]
    others: dict[str, Any] = Field(default_factory=dict)


def test_the_order_of_keys_says_nothing() -> None:
    """KFP hands ``{val: .., test: ..}`` over in either order, and clips changed places."""
    keys = ["val", "test", "map_10", "train", "map_2", "hidden", "unlabeled"]
    ordered = ["train", "val", "test", "unlabeled", "hidden", "map_2", "map_10"]
    for given in (keys, keys[::-1]):
        assert list(validate(Shares, {"of": dict.fromkeys(given, 0.1)}, "p").of) == ordered


def test_the_largest_numbers_and_what_another_section_holds_are_left_alone() -> None:
    assert validate(Example, {"epochs": 2**62, "limit": 1e38}, "p").limit == 1e38
    assert validate(Shares, {"of": {}, "others": {"seed": 10**30}}, "p").others == {"seed": 10**30}
    with pytest.raises(MaskcastError, match=r"p\.of: .*between"):
        validate(Shares, {"of": {"a": 1e300}}, "p")


def test_steps_of_a_training_are_counted_before_it_begins() -> None:
    values = {"epochs": 2**40, "steps_per_epoch": 2**40, "batch_size": 1, "learning_rate": 1}
    with pytest.raises(MaskcastError, match=r"p: steps_per_epoch of all epochs are .* steps, above"):
        validate(TrainingParams, values, "p")
    with pytest.raises(MaskcastError, match=r"p\.batch_size: input should be less than or equal to 1000000, got"):
        validate(TrainingParams, values | {"batch_size": 10**9, "epochs": 1}, "p")


@pytest.mark.parametrize(
    ("stage", "values", "key"),
    [
        ("evaluate", {"futures": 10**9}, "futures"),
        ("predict", {"horizon": 10**9}, "horizon"),
        ("register_models", {"gate": {"resamples": 10**9}}, "gate.resamples"),
        ("pretrain_encoder", {"views": {"candidates": 10**9}}, "views.candidates"),
        ("train_masker", {"unlabeled": {"batch_size": 10**9, "burn_in_steps": 0}}, "unlabeled.batch_size"),
        ("train_detector", {"unlabeled": {"batch_size": 10**9, "burn_in_steps": 0}}, "unlabeled.batch_size"),
        ("generate_masks", {"batch_size": 10**9}, "batch_size"),
        ("find_learning_rate", {"steps": 10**9}, "steps"),
        ("prepare_clips", {"source": {"layout": "synthetic", "motion": 10**9}}, "source.synthetic.motion"),
        ("pretrain_forecaster", {"model": {"arch": "simvp", "blocks": 10**9}}, "model.simvp.blocks"),
        ("train_detector", {"unlabeled": {"strong": {"patches": 10**9}}}, "unlabeled.strong.patches"),
    ],
)
def test_what_would_never_end_is_refused(stage: str, values: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        get_stage(stage).params.model_validate(values)
    faults = {".".join(map(str, fault["loc"])): fault["msg"] for fault in caught.value.errors()}
    assert faults[key].startswith("Input should be less than or equal to ")


def test_the_word_false_is_false() -> None:
    assert validate(Example, {"epochs": 1, "flip": "False"}, "p").flip is False


def test_what_may_be_true_or_a_number_is_what_it_was_given_as() -> None:
    assert validate(Example, {"epochs": 1, "repeat": True}, "p").repeat is True


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "p.epochs: missing"),
        ({"epochs": 3.5}, "p.epochs: .*3.5"),
        ({"epochs": "many"}, "p.epochs: .*'many'"),
        ({"epochs": 1, "rate": float("nan")}, "p.rate: .*finite"),
        ({"epochs": 1, "epoch": 2}, "p.epoch: unknown key; did you mean 'epochs'"),
        ({"epochs": 1, "flip": "perhaps"}, "p.flip: .*perhaps"),
        ({"epochs": 1, "repeat": "often"}, "p.repeat: .*got 'often'"),
        ({"epochs": 1, "repeat": [1]}, "p.repeat: .*got \\[1\\]"),
        ({"epochs": True}, "p.epochs: .* valid integer, got 'true'"),
        ({"epochs": 1, "limit": False}, "p.limit: .* valid number, got 'false'"),
        ({"epochs": 1, "mode": "soft", "images": False}, "p.images: must be text, .* False; put it in quotes"),
        ({"epochs": 1, "images": date(2001, 1, 2)}, "p.images: must be text, .*2001.*; put it in quotes"),
        ({"epoch": 2}, "p.epoch: unknown key; did you mean 'epochs'.*and 1 more"),
        ({"epochs": 1, "depth": 2}, "p.depth: unknown key; did you mean 'model.depth'"),
        ({"epochs": 1, "model": {"arch": "tiny"}}, "p.model.arch: no arch 'tiny'; allowed: small, large"),
        ({"epochs": 1, "model": {"arch": "Smal"}}, "p.model.arch: no arch 'Smal'; did you mean 'small'"),
        ({"epochs": 1, "model": {"width": 1}}, "p.model.arch: missing; add it, one of: small, large"),
        ({"epochs": 1, "model": {"arhc": "small"}}, "p.model.arhc: unknown key; did you mean 'arch'"),
        ({"epochs": 1, "model": "small"}, "p.model: needs keys .arch and more., got 'small'"),
        ({"epochs": 1, "model": {"arch": "small", "width": 0}}, "p.model.width: .*than or equal to 1"),
        ({"epochs": 1, "model": {"arch": "small", "wdth": 4}}, "p.model.wdth: unknown key; did you mean 'width'"),
        ({"epochs": 1, "model": {"arch": "small", "depth": 4}}, "p.model.depth: .*belongs to arch: large;"),
        ({"epochs": 1, "mode": "softt"}, "p.mode: input .* 'hard', got 'softt'; did you mean 'soft'"),
        ({"epochs": 1, "phases": [{"rate": 1}, {"rat": 1}]}, r"p.phases\[1\].rat: .*did you mean 'rate'"),
        ({"epochs": 1, "phases": 3}, r"p.phases: input should be a valid list, got 3"),
        (
            {"epochs": 2**63},
            "p.epochs: input should be between -4611686018427387904 and 4611686018427387904, got",
        ),
        ({"epochs": 10**30}, "p.epochs: .*, got 10{30}; change it"),
        ({"epochs": 10**400}, "p.epochs: .*, got 10*"),
        ({"epochs": 1, "limit": -1e300}, r"p.limit: input should be between -1e\+38 and 1e\+38, got -1e\+300"),
        ({"epochs": 1, "limit": "1e300"}, "p.limit: .*between"),  # as YAML has it
        ({"epochs": 1, "limit": 10**30, "sides": [1, 10**30]}, "p.sides: .*between"),
        ({"epochs": 1, "rate": 9}, "p: rate: more than epochs$"),
        ({"epochs": 1, "images": {"clip": None}}, 'p.images: needs quotes, .*: "{clip}"$'),
    ],
)
def test_bad_values_name_the_key(values: dict, said: str) -> None:
    with pytest.raises(MaskcastError, match=said) as caught:
        validate(Example, values, "p")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spare", "said"),
    [
        ({"arch": "Smal"}, "p.spare.arch: no arch 'Smal'; did you mean 'small'"),
        ({"arch": "small", "depth": 4}, "p.spare.depth: .*belongs to arch: large; allowed: arch, width"),
        ({"width": 1}, "p.spare.arch: missing; add it, one of: small, large"),
    ],
)
def test_bad_values_beside_null_and_in_lists_name_the_key(spare: dict, said: str) -> None:
    with pytest.raises(MaskcastError, match=said):
        validate(Spare, {"spare": spare}, "p")
    with pytest.raises(MaskcastError, match=said.replace("p.spare", r"p.spares\[1\]")):
        validate(Spare, {"spares": [{"arch": "small"}, spare]}, "p")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "line 1: not valid YAML"),
        ("- 1\n- 2\n", "a params file must map names to values"),
        ("a: \x00", "not valid YAML"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "line 4: not valid YAML .duplicate key 'b'."),
        ("a: {clip}/{frame}.png\n", "line 1: not valid YAML .*; put text that begins with { in quotes"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(MaskcastError, match=said):
        load_params_file(tmp_path / "params.yaml")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match="no such params file"):
        load_params_file(tmp_path / "params.yaml")


def test_sections() -> None:
    assert section({"a": None}, "a", "f") == {}
    with pytest.raises(MaskcastError, match=r"section 'b' is missing \(sections: a\)"):
        section({"a": {}}, "b", "f")
    with pytest.raises(MaskcastError, match=r"section 'train' is missing .*; did you mean 'trian'\?"):
        section({"trian": {}}, "train", "f")
    with pytest.raises(MaskcastError, match="must map keys"):
        section({"a": 3}, "a", "f")


def test_hash_names_values_not_their_spelling() -> None:
    first, second = (validate(Example, values, "p") for values in ({"epochs": 3}, {"epochs": 3.0, "rate": 0.1}))
    assert params_hash(first) == params_hash(second)
    assert params_hash(first) != params_hash(validate(Example, {"epochs": 4}, "p"))


def test_fingerprints_have_all_values_but_those_that_change_no_result() -> None:
    values = {
        "training": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 8, "learning_rate": 0.1, "processes": 2}
    }
    params = get_stage("train_masker").params.model_validate(values | {"model": UNET, "phases": [{"epochs": 1}]})
    shown = flatten(params.model_dump(mode="json"))
    names = ("training.optimizer", "attributes", "mirror", "ema", "loss.dice_over")
    assert [shown[name] for name in names] == ["adamw", True, False, None, "batch"]
    assert shown["phases"][0]["adversarial"] is None
    assert not {"training.processes", "training.nodes", "training.time_limit"} & shown.keys()


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
