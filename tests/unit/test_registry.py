"""The registry without a server: the gate, what a registered model is made of, and changed ones."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.conftest import ROOT
from tests.registered import write_registered

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.evaluation import definitions
from maskcast.evaluation.bootstrap_params import Bootstrap
from maskcast.evaluation.paired import paired_difference
from maskcast.evaluation.scores import ForecastScores
from maskcast.evaluation.video_scores import VideoScores
from maskcast.inference.segment import segment_whole
from maskcast.inference.worker import Worker
from maskcast.labels import single_map
from maskcast.models.base import save_model
from maskcast.models.detection.configs import FasterRcnnConfig
from maskcast.models.detection.table import load_detector
from maskcast.models.encoders.configs import UNetEncoderConfig
from maskcast.models.encoders.table import load_encoder, save_encoder
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import load_masker, save_masker
from maskcast.params import validate
from maskcast.registry import artifact
from maskcast.registry.artifact import load_artifact, write_artifact
from maskcast.registry.bundle import (
    DIGESTS,
    bundle_digest,
    read_bundle,
    write_bundle,
)
from maskcast.registry.card import model_card
from maskcast.registry.evaluations import (
    DETECTIONS,
    FORECASTS,
    EvaluationRecord,
    read_evaluation,
    why_incomparable,
)
from maskcast.registry.forecast_models import FRAMES_AT_ONCE
from maskcast.registry.gate import judge
from maskcast.registry.gate_params import DetectionGate, ForecastGate
from maskcast.registry.kinds import Description, DetectorDescription, ForecastDescription
from maskcast.registry.loading import load_address
from maskcast.registry.runtime import load_bundle
from maskcast.report import evaluation_files
from maskcast.runner.stage import get_stage

CLASSES = ["background", "red", "blue"]
SMALL: dict[str, Any] = {"hidden": 4, "stride": 4, "loss_stride": 1}
ABOUT: dict[str, Any] = {"context_frames": 4, "horizon": 3, "height": 32, "width": 48, "classes": CLASSES}
DETECTOR = FasterRcnnConfig(
    version=1,
    encoder="tu-test_resnet",
    width=8,
    min_size=32,
    max_size=64,
    anchor_sizes=(8, 16, 24, 32, 48),
    proposals=40,
)
COLOURS: dict[str, Any] = {"method": "moco", "mean": [0.25, 0.5, 0.75], "std": [0.5, 0.25, 0.125]}


def record(per_clip: dict[str, float], **facts: Any) -> EvaluationRecord:
    known = {"data": "d", "definitions": "m", "context": "generated", "split": "val"} | facts
    scores = {"jaccard_mean": float(np.mean(list(per_clip.values()))), "clips": float(len(per_clip))}
    return EvaluationRecord("report", FORECASTS, known, scores, {"jaccard_mean": per_clip}, {})


def gate(**given: Any) -> ForecastGate:
    """A gate that asks for no better score than the baselines', unless it is given some."""
    return ForecastGate(**{"beats": ()} | given)


@pytest.mark.parametrize("classes", [("background", "hand"), ("background", "red", "blue")])
def test_a_card_tells_the_score_of_the_one_class_beside_the_background(
    classes: tuple[str, ...], tmp_path: Path
) -> None:
    masker = UNetConfig(width=2)
    save_masker(tmp_path, masker.build(single_map(classes)), masker, {"height": 32, "width": 48})
    whole = {"jaccard_last": 0.75, "masker_jaccard": 0.85}
    whole |= {f"{name}_no_background": value - 0.25 for name, value in whole.items()}
    scored = replace(record({"a": 0.7}), scores={"clips": 1.0, **whole})
    about = ForecastDescription(
        kind="masker", precision="fp32", frame_rate=29.97, **ABOUT | {"classes": classes, "context_frames": 1}
    )
    card = model_card(about, {"masker": tmp_path}, scored, {})
    assert ", 1 context frame (generated masks), 3 forecast" in card
    assert ("| 0.7500 | 0.5000 |" in card) == (len(classes) == 2) == ("0.8500 (foreground 0.6000)." in card)


def test_an_equal_difference_has_no_width() -> None:
    theirs = {f"c{k}": k / 10 for k in range(5)}
    ours = {clip: value + 0.25 for clip, value in theirs.items()}
    found = paired_difference(ours, theirs, Bootstrap(), "clip")
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert (found.count, found.of) == (5, "clip")


@pytest.mark.parametrize(("confidence", "low", "high"), [(0.95, 0.0, 1.0), (0.4, 0.0, 1.0), (0.2, 0.5, 0.5)])
def test_the_bootstrap_of_two_clips_is_the_one_counted_by_hand(confidence: float, low: float, high: float) -> None:
    """Differences 0 and 1: the resampled mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.

    The expanded tail is 0 at 95 %, 0.15 at 40 % and 0.32 at 20 %.
    """
    found = paired_difference({"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 0.0}, Bootstrap(confidence=confidence), "clip")
    assert (found.mean, found.low, found.high) == (0.5, low, high)


def test_the_same_seed_gives_the_same_interval_and_pairs_are_matched_by_clip() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = ({f"c{k}": float(value) for k, value in enumerate(rng.random(20))} for _ in range(2))
    first = paired_difference(ours, theirs, Bootstrap(), "clip")
    assert first == paired_difference(ours, dict(reversed(theirs.items())), Bootstrap(), "clip")
    assert first != paired_difference(ours, theirs, Bootstrap(seed=1), "clip")
    assert first.low < first.mean < first.high


def test_thresholds_decide() -> None:
    ours = record({"a": 0.5, "b": 0.7})
    verdict = judge(ours, None, None, gate(least={"jaccard_mean": 0.6}))
    assert verdict.passed
    assert verdict.line == "passed: jaccard_mean 0.6000 >= 0.6; no champion to compare with"
    verdict = judge(ours, None, None, gate(least={"jaccard_mean": 0.61}))
    assert not verdict.passed
    assert verdict.as_json()["thresholds"] == [
        {"score": "jaccard_mean", "value": 0.6, "least": 0.61, "passed": False}
    ]
    with pytest.raises(
        MaskcastError, match=r"gate\.least: 'jaccard_h99' was not measured; scores: clips, jaccard_mean"
    ):
        judge(ours, None, None, gate(least={"jaccard_h99": 0.5}))


@pytest.mark.parametrize(
    ("theirs", "passed", "line"),
    [
        (0.59, True, "passed: jaccard_mean 0.6000 > 0.5900 of persistence; no champion to compare with"),
        (0.6, False, "failed: jaccard_mean 0.6000, required > 0.6000 of persistence"),
        (0.7, False, "failed: jaccard_mean 0.6000, required > 0.7000 of persistence"),
    ],
)
def test_who_is_no_better_than_copying_does_not_pass_unless_it_is_allowed(
    theirs: float, passed: bool, line: str
) -> None:
    ours = record({"a": 0.5, "b": 0.7})
    ours.scores["jaccard_mean_persistence"] = theirs
    verdict = judge(ours, None, None, gate(beats=["persistence"]))
    assert (verdict.passed, verdict.line) == (passed, line)
    assert verdict.as_json()["thresholds"] == [
        {
            "score": "jaccard_mean",
            "value": 0.6,
            "baseline": "persistence",
            "theirs": theirs,
            "difference": None,
            "passed": passed,
        }
    ]
    assert judge(ours, None, None, gate()).passed


def test_by_default_constant_velocity_must_be_beaten_too() -> None:
    ours = record({"a": 0.7, "b": 0.784})
    ours.scores.update(jaccard_mean_persistence=0.7, jaccard_mean_constant_velocity=0.95)
    verdict = judge(ours, None, None, ForecastGate())
    assert verdict.line == (
        "failed: jaccard_mean 0.7420, required > 0.9500 of constant_velocity; "
        "passed: jaccard_mean 0.7420 > 0.7000 of persistence"
    )


@pytest.mark.parametrize(("value", "passed"), [(0.0304, False), (0.0475, False), (0.0476, True)])
def test_a_model_must_score_more_than_one_class_everywhere(value: float, passed: bool, tmp_path: Path) -> None:
    """Baselines start from the masker's masks, so they do not notice a masker that learned nothing."""
    facts = {"format": FORECASTS.format, "data": "d", "definitions": "m", "context": "generated"}
    scores = {"jaccard_mean": value, "jaccard_mean_persistence": 0.0235}
    told = {"scores": scores, "one_class": {"jaccard_mean": 0.0475, "jaccard_last": 0.9}}
    (tmp_path / "evaluation.json").write_text(json.dumps(facts | told))
    (tmp_path / "per_clip.csv").write_text(f"clip,model,jaccard_last,jaccard_mean\na,forecaster,,{value}\n")
    ours = read_evaluation(tmp_path)
    verdict = judge(ours, None, None, gate(beats=["persistence"]))
    assert verdict.passed is passed
    sign = " >" if passed else ", required >"
    lines = [
        f"jaccard_mean {value:.4f}{sign} 0.0475 of one class everywhere",
        f"jaccard_mean {value:.4f} > 0.0235 of persistence",
    ]
    assert verdict.line.startswith(
        "passed: " + "; ".join(lines) if passed else "failed: " + "; passed: ".join(lines)
    )
    assert verdict.as_json()["thresholds"][0]["baseline"] == "one class everywhere"
    assert judge(ours, None, None, gate()).passed is passed  # whatever it beats


def test_older_evaluations_say_nothing_of_one_class() -> None:
    assert judge(record({"a": 0.0}), None, None, gate()).line == "passed: no champion to compare with"


def test_one_class_everywhere_is_the_most_frequent_of_all_frames() -> None:
    """Frame 1 has 6 pixels of class 0 and 2 of 1, frame 2 has 3 and 5: class 0 scores 6/8 and 3/8, halved by 1."""
    truth = np.array([[[0] * 6 + [1] * 2], [[0] * 3 + [1] * 5]], np.uint8)
    scores = ForecastScores(3, 4, 2)
    scores.add("a", truth, np.full_like(truth, 2))
    assert scores.one_class() == pytest.approx({"jaccard_last": 3 / 16, "jaccard_mean": 9 / 32})
    video = VideoScores(3)
    video.add("a", truth, np.full_like(truth, 2))
    assert video.one_class() == pytest.approx({"jaccard": 9 / 32})
    for nothing in (ForecastScores(3, 4, 2), VideoScores(3)):
        nothing.add("a", np.zeros_like(truth), truth)
        assert nothing.one_class() == {}


def test_a_champion_of_other_data_is_not_comparable() -> None:
    verdict = judge(record({"a": 0.9}), 2, None, gate())
    assert (verdict.passed, verdict.line) == (
        False,
        "failed: not comparable with champion 2: scored on other clips; run `maskcast models evaluate champion` "
        "and register again, set gate.allow_incomparable, or run `maskcast models promote NUMBER --force --reason "
        "TEXT` (docs/registry.md)",
    )
    told = verdict.as_json()
    assert (told["champion"], told["elsewhere"], told["incomparable"]) == (2, 2, "scored on other clips")
    allowed = judge(record({"a": 0.9}), 2, None, gate(allow_incomparable=True))
    assert allowed.line == "passed: not comparable with champion 2: scored on other clips; allowed"


def test_a_baseline_that_was_not_scored_is_said() -> None:
    ours = replace(record({"a": 0.5}), baselines={"persistence": {}, "constant_velocity": {}})
    with pytest.raises(
        MaskcastError,
        match=r"^register_models\.gate\.beats: 'rigid_body' has no jaccard_mean in report; baselines that "
        r"were scored: persistence, constant_velocity$",
    ):
        judge(ours, None, None, gate(beats=["rigid_body"]))


def gated(stage: str, **gate: Any) -> None:
    validate(get_stage(stage).params, {"gate": gate}, f"params.yaml: {stage}")


@pytest.mark.parametrize(
    ("stage", "gate", "line"),
    [
        ("register_models", {"least": {"jacard_last": 0.5}}, "'jacard_last' is .*; did you mean 'jaccard_last'"),
        ("register_models", {"least": {"jaccard_last_base": 0.5}}, "'jaccard_last_base' is not a score"),
        (
            "register_detector",
            {"least": {"AP_": 0.5}},
            "'AP_' is not a score that is measured; .*allowed: AP, AP50",
        ),
        ("register_segmenter", {"most": {"flickr": 0.5}}, "'flickr' is .*; did you mean 'flicker'"),
    ],
)
def test_a_score_that_nothing_measures_is_refused_as_params_are_read(
    stage: str, gate: dict[str, dict[str, float]], line: str
) -> None:
    key = next(iter(gate))
    with pytest.raises(MaskcastError, match=rf"^params\.yaml: {stage}\.gate\.{key}: {line}"):
        gated(stage, **gate)


def test_a_baseline_that_is_none_is_refused_as_params_are_read() -> None:
    with pytest.raises(MaskcastError, match=r"gate\.beats\[0\]: .*; did you mean 'persistence'\?"):
        gated("register_models", beats=["persistance"])


@pytest.mark.parametrize(
    ("stage", "definitions"),
    [
        ("register_models", evaluation_files.meanings(futures=5)),
        ("register_detector", definitions.DETECTIONS),
        ("register_segmenter", definitions.AMODAL_VIDEOS),
        ("register_segmenter", definitions.DAVIS | definitions.FOREGROUND),
    ],
)
def test_a_gate_takes_every_score_that_is_defined(stage: str, definitions: dict[str, str]) -> None:
    names = [name for key in definitions for name in key.split(", ") if " of an " not in name]
    stands_for = {"<n>": "5", "<map>": "left", "<hands>": "interacting", "<name>": "AP50"}
    stands_for |= {"<last or mean>": "last", "<mean or best>": "best"}
    stands_for["<score>"] = "jaccard" if stage == "register_models" else "miou"
    for name in names:
        for place, text in stands_for.items():
            name = name.replace(place, text)
        gated(stage, least={name: 0.0})


@pytest.mark.parametrize("kind", ["pipeline", "detector"])
def test_a_gate_takes_every_score_that_was_measured(kind: str) -> None:
    (path,) = (ROOT / "tests/artifacts").glob(f"*/registered/{kind}-evaluation/evaluation.json")
    stage = "register_models" if kind == "pipeline" else "register_detector"
    gated(stage, least=json.loads(path.read_text())["scores"])


def test_a_score_that_no_clip_has_is_refused(tmp_path: Path) -> None:
    facts = {"format": "maskcast-evaluation/1", "data": "d", "definitions": "m", "context": "generated"}
    (tmp_path / "evaluation.json").write_text(json.dumps(facts | {"scores": {"jaccard_last": 0.5}}))
    (tmp_path / "per_clip.csv").write_text("clip,model,jaccard_last,jaccard_mean\na,forecaster,0.5,\n")
    ours = read_evaluation(tmp_path)
    for champion in (None, ours):
        with pytest.raises(
            MaskcastError, match=r"gate\.score: no clip of .* has the score jaccard_mean; .*: jaccard_last$"
        ):
            judge(ours, 1, champion, gate())
    assert judge(ours, 1, ours, gate(score="jaccard_last")).passed


@pytest.mark.parametrize(("worse_by", "passed"), [(-0.1, True), (0.009, True), (0.011, False)])
def test_the_champion_may_be_better_by_the_margin_and_no_more(worse_by: float, passed: bool) -> None:
    champion = {f"c{k}": 0.5 + k / 100 for k in range(9)}
    ours = record({clip: value - worse_by for clip, value in champion.items()})
    verdict = judge(ours, 3, record(champion), gate(margin=0.01))
    assert verdict.passed is passed
    assert verdict.champion == 3
    assert verdict.as_json()["difference"]["mean"] == pytest.approx(-worse_by)
    assert ("low >= -0.01" in verdict.line, "low, required >= -0.01" in verdict.line) == (passed, not passed)


@pytest.mark.parametrize(("theirs", "told"), [("bf16 on cuda", True), ("fp32 on cpu", False), (None, False)])
def test_the_verdict_tells_of_scores_in_another_arithmetic(theirs: str | None, told: bool) -> None:
    champion = record({"a": 0.5}, **({"arithmetic": theirs} if theirs else {}))
    verdict = judge(record({"a": 0.5}, arithmetic="fp32 on cpu"), 1, champion, gate())
    text = ", computed in other arithmetic (fp32 on cpu) than the champion (bf16 on cuda)"
    assert (verdict.passed, verdict.line.endswith(text)) == (True, told)


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (record({"a": 0.1}, data="other"), "on other clips .d and other."),
        (record({"a": 0.1}, definitions="other"), "by other definitions of the scores"),
        (record({"a": 0.1}, context="truth"), "from another kind of context"),
        (record({"b": 0.1}), "of different clips"),
    ],
)
def test_what_cannot_be_compared_is_said_and_passes_only_when_allowed(theirs: EvaluationRecord, why: str) -> None:
    ours = record({"a": 0.9})
    verdict = judge(ours, 2, theirs, gate())
    assert not verdict.passed
    assert verdict.difference is None
    assert re.search(f"failed: not comparable with champion 2: .*{why}", verdict.line)
    assert judge(ours, 2, theirs, gate(allow_incomparable=True)).passed
    assert why_incomparable(ours, ours) is None


def detections(per_image: dict[str, float], **facts: Any) -> EvaluationRecord:
    known = {"data": "d", "definitions": "m", "split": "val"} | facts
    return EvaluationRecord("report", DETECTIONS, known, {"AP": 0.5}, {"AP": per_image}, {})


def test_detectors_are_compared_image_by_image_and_never_with_forecasts() -> None:
    """Differences 0 and 1/2 over two images: the lowest resampled mean is 0, with probability 1/4."""
    ours, theirs = detections({"7": 0.5, "9": 1.0}), detections({"7": 0.5, "9": 0.5})
    verdict = judge(ours, 2, theirs, DetectionGate(least={"AP": 0.4}))
    assert verdict.line == (
        "passed: AP 0.5000 >= 0.4; AP 0.5000 > 0.0000 of no detection; "
        "AP against champion 2: +0.2500 [+0.0000, +0.5000] over 2 images, greater in 1, "
        "low >= -0.01, which may be chance with fewer than 6 images"
    )
    nothing = replace(ours, scores={"AP": 0.0})
    assert (
        judge(nothing, None, None, DetectionGate()).line == "failed: AP 0.0000, required > 0.0000 of no detection"
    )
    many = {str(k): 0.5 for k in range(6)}
    assert judge(detections(many), 2, detections(many), DetectionGate()).line.endswith("low >= -0.01")
    assert not judge(theirs, 2, ours, DetectionGate(margin=0.4)).passed
    assert judge(theirs, 2, ours, DetectionGate(margin=0.5)).passed
    for other, why in (
        (detections({"7": 0.5, "9": 0.5}, data="other"), "scored on other images"),
        (detections({"7": 0.5, "9": 0.5}, definitions="other"), "by other definitions of the scores"),
        (detections({"7": 0.5}), "scores per image are of different images"),
        (record({"7": 0.5, "9": 0.5}), "scored by evaluate_detector and by evaluate"),
    ):
        assert why in judge(ours, 2, other, DetectionGate()).line
        assert not judge(ours, 2, other, DetectionGate()).passed
    with pytest.raises(
        MaskcastError, match=r"register_detector\.gate\.score: no image of report has the score f1; .*: AP$"
    ):
        judge(ours, None, None, DetectionGate(score="f1"))


def test_a_report_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match=r"evaluation\.json: no such evaluation"):
        read_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"format": "other", "scores": {}}')
    (tmp_path / "per_clip.csv").write_text("clip,model,jaccard_last,jaccard_mean\n")
    with pytest.raises(MaskcastError, match=r"evaluation\.json: not a maskcast-evaluation/1 .* of clips or maskc"):
        read_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text(json.dumps({"format": FORECASTS.format, "scores": {}}))
    with pytest.raises(
        MaskcastError, match=r"not a maskcast-detection-evaluation/1 .* run evaluate_detector again"
    ):
        read_evaluation(tmp_path, (DETECTIONS,))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    masker = UNetConfig(width=4)
    save_masker(folder / "masker", masker.build(single_map(CLASSES)), masker, {})
    configs = {"forecaster": ConvLSTMConfig(**SMALL), "frames": ConvLSTMConfig(input="frames", **SMALL)}
    for name, config in configs.items():
        save_model(folder / name, config.build(3), config, num_classes=3, meta={"classes": CLASSES})
    encoder = UNetEncoderConfig(width=4)
    save_encoder(folder / "encoder", encoder.build(), encoder, COLOURS)
    detector = DETECTOR.build(2)
    with torch.no_grad():  # two classes as sure as can be: boxes are found
        detector.network.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([-9.0, 2.0, 3.0]))
    save_model(folder / "detector", detector, DETECTOR, num_classes=2, meta={"classes": CLASSES[1:]})
    return {name: folder / name for name in ("masker", *configs, "encoder", "detector")}


ABOUTS: dict[str, Description] = {
    "pipeline": ForecastDescription(kind="pipeline", **ABOUT, precision="fp32"),
    "detector": DetectorDescription(precision="fp32", classes=tuple(CLASSES[1:])),
}


@pytest.fixture
def bundle(parts: dict[str, Path], tmp_path: Path) -> Path:
    write_bundle(tmp_path / "data", ABOUTS["pipeline"], parts)
    return tmp_path / "data"


def clip(frames: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8)


def test_the_pipeline_masks_and_forecasts(bundle: Path, parts: dict[str, Path]) -> None:
    found = load_bundle(bundle).predict(clip())
    masker, _ = load_masker(parts["masker"])
    masks = segment_whole(Worker(masker, "fp32"), clip(), batch_size=4)["mask"].masks
    expected = load_forecaster(parts["forecaster"])[0].forecast(torch.from_numpy(masks[None]), 3)[0].numpy()
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    assert np.array_equal(load_bundle(bundle).predict(np.stack([clip()] * 2)), np.stack([expected] * 2))


def test_a_forecaster_of_frames_is_masked_afterwards(parts: dict[str, Path], tmp_path: Path) -> None:
    about = ForecastDescription(kind="pipeline", **ABOUT, precision="bf16", consistent_frames=2)
    write_bundle(tmp_path / "data", about, {"masker": parts["masker"], "forecaster": parts["frames"]})
    frames = load_forecaster(parts["frames"])[0].forecast(torch.from_numpy(clip()[None]), 3)[0].numpy()
    masker, _ = load_masker(parts["masker"])
    expected = segment_whole(Worker(masker, "fp32"), frames, batch_size=3)["mask"].masks
    assert np.array_equal(load_bundle(tmp_path / "data").predict(clip()), expected)


def test_the_encoder_gives_the_mean_of_its_last_map(parts: dict[str, Path], tmp_path: Path) -> None:
    write_bundle(tmp_path / "data", ForecastDescription(kind="encoder", **ABOUT, precision="bf16"), parts)
    model, frames = load_bundle(tmp_path / "data"), clip(FRAMES_AT_ONCE + 1)
    scaled = (frames.astype(np.float32) / 255 - COLOURS["mean"]) / COLOURS["std"]
    with torch.no_grad():
        maps = load_encoder(parts["encoder"])[0](torch.from_numpy(scaled).float().permute(0, 3, 1, 2))
    found = model.predict(frames)
    assert (found.dtype, found.shape) == (np.float32, (len(frames), 32))
    assert (model.dtype_out, model.shape_out) == ("float32", (-1, 32))
    np.testing.assert_allclose(found, maps[-1].mean((2, 3)).numpy(), rtol=1e-4, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0
    np.testing.assert_allclose(model.predict(frames[0]), found[0], rtol=1e-4, atol=1e-5)
    assert model.predict(frames[:1, :1, :1]).shape == (1, 32)  # of any size
    with pytest.raises(MaskcastError, match=r"frames: got uint8 of shape \(17, 16, 24, 2\); give uint8 of shape"):
        model.predict(frames[..., :2])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_detector_gives_rows_of_boxes_filled_up_with_zeros(parts: dict[str, Path], tmp_path: Path) -> None:
    write_bundle(tmp_path / "data", ABOUTS["detector"], parts)
    model, frames = load_bundle(tmp_path / "data"), clip(FRAMES_AT_ONCE + 1)
    assert (model.dtype_out, model.shape_out) == ("float32", (-1, 100, 6))
    found = model.predict(frames)
    assert (found.dtype, found.shape) == (np.float32, (len(frames), 100, 6))
    with torch.no_grad():
        wanted = load_detector(parts["detector"])[0](
            [torch.from_numpy(frame) for frame in frames[:FRAMES_AT_ONCE]]
        )
    for rows, one in zip(found, wanted, strict=False):
        count = len(one["boxes"])
        assert 0 < count < 100
        assert np.array_equal(rows[:count, :4], one["boxes"].numpy())
        assert np.array_equal(rows[:count, 4], one["scores"].numpy())
        assert np.array_equal(rows[:count, 5], one["labels"].numpy())
        assert not rows[count:].any()
    assert {0.0, 1.0} == set(np.unique(found[found[..., 4] > 0][:, 5]))
    assert np.array_equal(model.predict(frames[-1]), found[-1])
    with pytest.raises(MaskcastError, match=r"frames: got uint8 of shape \(17, 16, 24, 2\); give uint8 of shape"):
        model.predict(frames[..., :2])


def test_what_a_detector_is_says_nothing_of_masks(parts: dict[str, Path], tmp_path: Path) -> None:
    write_bundle(tmp_path / "data", ABOUTS["detector"], parts)
    assert read_bundle(tmp_path / "data") == ABOUTS["detector"]
    values = json.loads((tmp_path / "data/model.json").read_text())
    assert values.keys() == {"format", "kind", "precision", "classes"}
    for changed, message in (
        (values | {"horizon": 3}, r"model\.json: horizon: unknown key"),
        (values | {"kind": "masker"}, r"model\.json: context_frames: missing"),
        (values | {"kind": "oracle"}, r"model\.json.*'oracle'"),
    ):
        (tmp_path / "data/model.json").write_text(json.dumps(changed))
        rewrite_digests(tmp_path / "data")
        with pytest.raises(MaskcastError, match=message):
            read_bundle(tmp_path / "data")


def test_an_encoder_that_was_not_trained_is_none(parts: dict[str, Path], tmp_path: Path) -> None:
    about = ForecastDescription(kind="encoder", **ABOUT, precision="fp32")
    save_encoder(tmp_path / "none", None, UNetEncoderConfig(width=4), {"method": "none"})
    with pytest.raises(MaskcastError, match=r"none/model\.safetensors: file not found"):
        write_bundle(tmp_path / "untrained", about, {"encoder": tmp_path / "none"})
    write_bundle(tmp_path / "data", about, parts)
    shutil.copy(tmp_path / "none/config.json", tmp_path / "data/encoder/config.json")
    with pytest.raises(MaskcastError, match=r"encoder/config\.json: differs from what was registered"):
        load_bundle(tmp_path / "data")
    rewrite_digests(tmp_path / "data")
    with pytest.raises(MaskcastError, match=r"encoder/config\.json: mean or std of colours is missing"):
        load_bundle(tmp_path / "data")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (clip().astype(np.float32), "got float32 of shape .4, 16, 24, 3.; give uint8 of shape"),
        (clip()[..., :1], r"shape \(any, any, any, any, 3\)"),
        (clip()[0], "or one sample without the first axis"),
        (clip()[:0], r"got uint8 of shape \(0, 16, 24, 3\); .*, and at least one of each$"),
        ("no clip", "frames: got"),
    ],
)
def test_what_is_no_clip_is_refused(bundle: Path, data: Any, message: str) -> None:
    with pytest.raises(MaskcastError, match=message):
        load_bundle(bundle).predict(data)


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def rewrite_digests(bundle: Path) -> None:
    """What somebody does who may write everything in a bundle."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != DIGESTS)
    (bundle / DIGESTS).write_text(json.dumps({f.relative_to(bundle).as_posix(): sha256_of(f) for f in files}))


def change_byte(part: Path, payload: Path) -> None:
    path = part / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def slip_in_pickle(part: Path, payload: Path) -> None:
    (part.parent / "python_model.pkl").write_bytes(pickle.dumps(Payload(payload)))


def replace_by_pickle(part: Path, payload: Path) -> None:
    (part / "model.safetensors").write_bytes(pickle.dumps(Payload(payload)))


def replace_by_torch_pickle(part: Path, payload: Path) -> None:
    torch.save(Payload(payload), part / "model.safetensors")


def name_other_class(part: Path, payload: Path) -> None:
    path = part / "config.json"
    config = json.loads(path.read_text())
    config["model"] = {"arch": "os.mkdir", "path": str(payload)}
    path.write_text(json.dumps(config))


def give_another_part(part: Path, payload: Path) -> None:
    path = part / "config.json"
    config = json.loads(path.read_text())
    config["model"] = {"arch": "unet"}
    path.write_text(json.dumps(config))


def remove_weights(part: Path, payload: Path) -> None:
    (part / "model.safetensors").unlink()


TAMPERINGS = [
    (change_byte, r"{part}/model\.safetensors: differs from what was registered", None),
    (
        slip_in_pickle,
        r"python_model\.pkl: unexpected file, not part of the model",
        r"python_model\.pkl: missing or unexpected; .*files of a {kind}",
    ),
    (replace_by_pickle, r"{part}/model\.safetensors: differs", "not a file of weights in safetensors"),
    (replace_by_torch_pickle, r"{part}/model\.safetensors: differs", "not a file of weights in safetensors"),
    (name_other_class, r"{part}/config\.json: differs", r"{part}/config\.json: model: .*'(os\.mkdir|fasterrcnn)'"),
    (give_another_part, r"{part}/config\.json: differs", r"{part}/config\.json: model: .*'(unet|fasterrcnn)'"),
    (
        remove_weights,
        r"{part}/model\.safetensors: is missing",
        r"{part}/model\.safetensors: missing or unexpected; .*files of a {kind}",
    ),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("kind", "part"), [("pipeline", "forecaster"), ("detector", "detector")])
@pytest.mark.parametrize(("tamper", "message", "with_new_digests"), TAMPERINGS)
def test_a_changed_bundle_is_refused_and_runs_nothing(
    parts: dict[str, Path],
    tmp_path: Path,
    kind: str,
    part: str,
    tamper: Any,
    message: str,
    with_new_digests: str | None,
) -> None:
    bundle, payload = tmp_path / "data", tmp_path / "payload"
    digest = write_bundle(bundle, ABOUTS[kind], parts)
    tamper(bundle / part, payload)
    with pytest.raises(MaskcastError, match=message.format(part=part)):
        load_bundle(bundle)
    rewrite_digests(bundle)
    with pytest.raises(MaskcastError, match=r"digests\.json: differs from what was registered"):
        load_bundle(bundle, digest)
    if with_new_digests is not None:
        with pytest.raises(MaskcastError, match=with_new_digests.format(part=part, kind=kind)):
            load_bundle(bundle)
    assert not payload.exists()


def test_the_digest_names_the_weights(parts: dict[str, Path], bundle: Path, tmp_path: Path) -> None:
    about = ForecastDescription(kind="pipeline", **ABOUT, precision="fp32")
    assert write_bundle(tmp_path / "again", about, parts) == bundle_digest(bundle)
    other = about.model_copy(update={"horizon": 4})
    assert write_bundle(tmp_path / "other", other, parts) != bundle_digest(bundle)
    assert load_file(bundle / "masker/model.safetensors").keys()


def test_what_is_not_installed_is_not_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "REQUIREMENTS", ("numpy", "no-such-package"))
    write_artifact(tmp_path, "# card\n", clip()[None, :, :2, :2], ((-1, -1), (-1, 3)))
    pins = (tmp_path / "requirements.txt").read_text().split()
    assert [pin.partition("==")[0] for pin in pins] == ["maskcast", "numpy"]


def test_an_artifact_with_another_loader_is_refused(bundle: Path, tmp_path: Path) -> None:
    write_artifact(tmp_path, "# card\n", clip()[None, :, :2, :2], ((-1, -1, -1, -1, 3), (-1, 3, -1, -1)))
    digest = bundle_digest(bundle)
    assert load_artifact(tmp_path, digest)[0].predict(clip()).shape == (3, 16, 24)
    path = tmp_path / "MLmodel"
    sound = yaml.safe_load(path.read_text())
    flavor = sound["flavors"]["python_function"]
    for changed in (
        {"python_function": flavor | {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"}},
        {"python_function": flavor | {"code": "code"}},
        {"python_function": flavor, "pytorch": {"model_data": "data"}},
    ):
        path.write_text(yaml.safe_dump(sound | {"flavors": changed}))
        with pytest.raises(MaskcastError, match="MLmodel: has another loader"):
            load_artifact(tmp_path, digest)
    path.write_text("- no model")
    with pytest.raises(MaskcastError, match="MLmodel: not a description of a model"):
        load_artifact(tmp_path, digest)


def test_a_load_hashes_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_registered(tmp_path)
    hashed: list[str] = []
    monkeypatch.setattr(
        "maskcast.registry.bundle.sha256_of", lambda path: (hashed.append(path.name), sha256_of(path))[1]
    )
    assert load_address(str(folder)).about.kind == "pipeline"
    parts = 2 * ["config.json", "model.safetensors"]
    assert sorted(hashed) == sorted(["digests.json", "model.json", *parts])


def test_a_device_in_the_place_of_a_file_is_not_read(tmp_path: Path) -> None:
    folder = write_registered(tmp_path)
    (folder / "data/model.json").unlink()
    (folder / "data/model.json").symlink_to("/dev/null")  # of /dev/zero the digest would never be known
    with pytest.raises(MaskcastError, match=r"model\.json: is missing; fetch or register the model again"):
        load_address(str(folder))


@pytest.mark.parametrize("example", ["[1, 2, 3]", "[]", "7"])
def test_an_example_that_is_no_clip_is_refused(example: str, tmp_path: Path) -> None:
    folder = write_registered(tmp_path)
    (folder / "input_example.json").write_text(example)  # no digest covers it
    with pytest.raises(MaskcastError, match=r"input_example\.json: "):
        load_address(str(folder))


def test_a_part_that_is_missing_is_named(tmp_path: Path, parts: dict[str, Path]) -> None:
    about = ForecastDescription(kind="forecaster", **ABOUT, precision="fp32")
    with pytest.raises(MaskcastError, match=r"nothing/config\.json: file not found"):
        write_bundle(tmp_path / "data", about, {"forecaster": tmp_path / "nothing"})
