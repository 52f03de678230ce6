"""Sections of a pipeline's params must fit each other, which is checked before any stage runs."""

from typing import Any

import pytest

from maskcast.diagnostics.conflicts import conflicts, window_warnings
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


MODEL = {"arch": "convlstm"}
SYNTHETIC = {"layout": "synthetic", "hidden": 3}


def chain(source: dict[str, Any], masks: dict[str, Any], model: dict[str, Any], last: Section) -> list[str]:
    """Returns the conflicts of a last section with the forecasting stages before it."""
    stages = {
        "prepare": ("prepare_clips", {"source": source}),
        "masks": ("generate_masks", masks),
        "first": ("pretrain_forecaster", {"model": model}),
        "last": last,
    }
    params = {}
    for name, (stage, values) in stages.items():
        the_class = get_stage(stage).params
        needs = {"training": TRAINING} if "training" in the_class.model_fields else {}
        params[name] = the_class.model_validate(needs | values)
    reads = {"clips": "prepare", "masks": "masks"}
    sources = {
        "prepare": {},
        "masks": {"clips": "prepare"},
        "first": reads,
        "last": reads | {"pretrained" if last[0] == "finetune_forecaster" else "forecaster": "first"},
    }
    return [text for section, text in conflicts(params, sources) if section == "last"]


def test_masks_of_a_context_do_not_depend_on_later_frames() -> None:
    masks = "generate_masks", {"consistent_frames": 4}
    (text,) = found(("pretrain_forecaster", {"model": MODEL}), "masks", masks)
    assert text == (
        "source has consistent_frames 4, so masks of the 11 context frames of own depend on later frames; "
        "set source.consistent_frames to 11 or null"
    )
    for given in (4, 8):
        forecaster = "pretrain_forecaster", {"model": MODEL, "context_frames": given, "min_context_frames": 2}
        assert not found(forecaster, "masks", masks)
    assert not found(("pretrain_forecaster", {"model": MODEL | {"input": "frames"}}), "masks", masks)
    assert not found(("pretrain_forecaster", {"model": MODEL}), "masks", ("generate_masks", {}))


@pytest.mark.parametrize(
    ("last", "fits"),
    [
        (("evaluate", {"context_frames": 3, "horizon": 5}), False),
        (("evaluate", {"context_frames": 3, "context": "truth"}), True),
        (("evaluate", {"context_frames": 22, "horizon": 1}), True),
        (("finetune_forecaster", {"context_frames": 6}), False),
        (("predict", {"context_frames": 3}), False),  # hidden clips have 11 frames
        (("predict", {"context_frames": 12}), True),  # none of them has later frames
        (("predict", {"context_frames": 12, "split": "val", "horizon": 5}), False),
        (("predict", {"context_frames": 3, "split": "test"}), True),  # no clips
    ],
)
@pytest.mark.parametrize("masks", [{}, {"consistent_frames": 11}], ids=["default", "written"])
def test_the_context_of_each_stage_fits_the_masks(masks: dict[str, Any], last: Section, fits: bool) -> None:
    texts = [text for text in chain(SYNTHETIC, masks, MODEL, last) if "later frames" in text]
    assert len(texts) == (not fits)
    if not fits:
        frames = last[1]["context_frames"]
        assert texts[0] == (
            f"masks has consistent_frames 11, so masks of the {frames} context frames of last depend on later "
            f"frames; set masks.consistent_frames to {frames} or null"
        )


def test_masks_that_a_forecaster_of_frames_does_not_use() -> None:
    frames = MODEL | {"input": "frames"}
    assert not chain(SYNTHETIC, {}, frames, ("finetune_forecaster", {"context_frames": 6}))
    assert not chain(SYNTHETIC, {}, frames, ("predict", {"context_frames": 3}))
    (text,) = chain(SYNTHETIC, {}, frames, ("evaluate", {"context_frames": 3}))  # its baselines use them
    assert "depend on later frames" in text


@pytest.mark.parametrize(
    ("source", "things"),
    [
        ({"layout": "clevrer"}, True),
        ({"layout": "competition"}, True),
        ({"layout": "competition", "num_classes": 5}, False),
        ({"layout": "frame_folders", "things": True}, True),
        ({"layout": "frame_folders"}, False),
    ],
)
def test_masks_of_things_are_consistent_by_default(source: dict[str, Any], things: bool) -> None:
    assert len(chain(source, {}, MODEL, ("evaluate", {"context_frames": 3}))) == things


def test_windows_that_differ_are_warnings() -> None:
    sections = {
        "pretrain_forecaster": {"model": MODEL, "context_frames": 6},
        "finetune_forecaster": {},
        "evaluate": {},
        "predict": {"horizon": 5},
    }
    params = {}
    for stage, values in sections.items():
        needs = {"training": TRAINING} if "forecaster" in stage else {}
        params[stage] = get_stage(stage).params.model_validate(needs | values)
    meant = "make it equal unless this is meant (docs/forecasting.md#other-windows)"
    assert list(window_warnings(params)) == [
        (
            "pretrain_forecaster",
            f"context_frames is 6 in pretrain_forecaster; 11 in finetune_forecaster, evaluate, predict; {meant}",
        ),
        (
            "pretrain_forecaster",
            f"horizon is 11 in pretrain_forecaster, finetune_forecaster, evaluate; 5 in predict; {meant}",
        ),
    ]
    assert not list(window_warnings({name: params[name] for name in ("finetune_forecaster", "evaluate")}))


def test_a_source_whose_own_params_are_not_valid_is_left_out() -> None:
    assert not list(conflicts({"own": get_stage("evaluate").params()}, {"own": {"clips": "source"}}))
