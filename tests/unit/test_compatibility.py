"""Sections of a pipeline's params must fit each other, which is checked before any stage runs."""

from typing import Any

import pytest

from maskcast.diagnostics.compatibility import conflicts
from maskcast.runner.stage import get_stage

TRAINING = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 8, "learning_rate": 0.1}
PHASES = {"steps_per_epoch": 1, "batch_size": 2, "phases": [{"epochs": 1, "learning_rate": 0.1}]}
UNET, RESNET = {"arch": "unet", "width": 8}, {"arch": "smp_unet", "encoder": "resnet18"}


Section = tuple[str, dict[str, Any]]  # stage, and its params


def found(own: Section, port: str, source: Section) -> list[str]:
    """Returns the conflicts of the section ``own`` with the section ``source``, which writes an input of it."""
    params = {}
    for name, (stage, values) in {"own": own, "source": source}.items():
        the_class = get_stage(stage).params
        needs = {"training": TRAINING} if "training" in the_class.model_fields else {}
        params[name] = the_class.model_validate(needs | values)
    return [text for _, text in conflicts(params, {"own": {port: "source"}, "source": {}})]


def masker(**values: Any) -> Section:
    return "train_masker", {"model": UNET} | values


def recurrent(base: dict[str, Any]) -> Section:
    return masker(model={"arch": "recurrent", "base": base}, window={"frames": 4, "chunk": 2})


def encoder(**values: Any) -> Section:
    return "pretrain_encoder", {"model": UNET} | values


@pytest.mark.parametrize(
    ("own", "source", "message"),
    [
        (masker(), encoder(), ""),
        (recurrent(UNET), encoder(), ""),
        (masker(model=RESNET), encoder(method={"name": "none"}), ""),
        (
            masker(model=RESNET),
            encoder(),
            "source.model is {arch: unet, width: 8}, but own.model needs {arch: smp, ",
        ),
        (
            masker(model={**UNET, "width": 16}),
            encoder(),
            "own.model needs {arch: unet, width: 16}; make them equal",
        ),
        (
            masker(model=RESNET | {"encoder_weights": "pretrained"}),
            encoder(model={"arch": "smp", "encoder": "resnet18"}),
            "own.model.encoder_weights and source both initialize the encoder; set one to null or none",
        ),
        (
            ("train_detector", {"training": PHASES}),
            encoder(),
            "own.model needs {arch: smp",
        ),
    ],
)
def test_a_pretrained_encoder_is_that_of_the_model(own: Section, source: Section, message: str) -> None:
    texts = found(own, "encoder", source)
    assert len(texts) == bool(message)
    assert message in "".join(texts)


@pytest.mark.parametrize(
    ("own", "source", "fits"),
    [
        (masker(), masker(), True),
        (recurrent(UNET), masker(), True),
        (masker(model=RESNET | {"encoder_weights": "pretrained"}), masker(model=RESNET), True),
        (masker(model=RESNET, anew=True), masker(), True),
        (masker(model=RESNET), masker(), False),
        (recurrent(RESNET), masker(), False),
    ],
)
def test_a_masker_starts_from_its_own_network(own: Section, source: Section, fits: bool) -> None:
    message = "own.model differs from source.model, whose weights it loads; make them equal, or set anew: true"
    assert found(own, "start", source) == ([] if fits else [message])


def test_clips_are_long_enough_to_forecast() -> None:
    clips = "prepare_clips", {"source": {"layout": "synthetic", "frames": 20}}
    (text,) = found(("evaluate", {}), "clips", clips)
    assert text.startswith(
        "source.source.frames is 20, but own needs clips of context_frames + horizon = 22 frames;"
    )
    assert not found(("evaluate", {"horizon": 9}), "clips", clips)
    assert not found(("predict", {}), "clips", clips)  # hidden clips end with the context
    assert not found(("evaluate", {}), "clips", ("prepare_clips", {"source": {"layout": "competition"}}))


def test_masks_of_a_context_do_not_depend_on_later_frames() -> None:
    model = {"arch": "convlstm"}
    masks = "generate_masks", {"consistent_frames": 4}
    (text,) = found(("pretrain_forecaster", {"model": model}), "masks", masks)
    assert text == (
        "source.consistent_frames is 4, so masks of the 11 context frames of own depend on later frames; "
        "set it to 11 or null"
    )
    for given in (4, 8):
        forecaster = "pretrain_forecaster", {"model": model, "context_frames": given, "min_context_frames": 2}
        assert not found(forecaster, "masks", masks)
    assert not found(("pretrain_forecaster", {"model": model | {"input": "frames"}}), "masks", masks)
    assert not found(("pretrain_forecaster", {"model": model}), "masks", ("generate_masks", {}))


def test_a_source_whose_own_params_are_not_valid_is_left_out() -> None:
    assert not list(conflicts({"own": get_stage("evaluate").params()}, {"own": {"clips": "source"}}))
