"""The stages of the forecaster on stores with several label maps."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import moving_squares

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.inference.segment import segment_whole
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.base import save_model
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.params import validate
from maskcast.registry.bundle import write_bundle
from maskcast.registry.forecast_models import MaskerModel
from maskcast.registry.graphs import PipelineGraph
from maskcast.registry.kinds import ForecastDescription
from maskcast.registry.runtime import load_bundle
from maskcast.runner.stage import get_stage

COLOURS = LabelMap("colours", ("background", "red", "blue"))
ANY = LabelMap("any", ("background", "square"))
MATTE = LabelMap("matte", ("background", "foreground"), "alpha")
IDS = LabelMap("ids", ("background", "square"), "instances")
TRAINING = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"}
MODEL = {"arch": "convlstm", "hidden": 4, "stride": 8}


def layers(masks: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the masks of every map that a masker knows."""
    square = (masks > 0).astype(np.uint8)
    return {"colours": masks, "any": square, "matte": 255 * square}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Clips with four maps, and the masks of a masker that knows three, wrong in ways that can be counted."""
    with (
        ClipWriter(tmp_path / "clips", height=32, width=48, maps=[COLOURS, ANY, MATTE, IDS]) as clips,
        ClipWriter(tmp_path / "masks", height=32, width=48, maps=[COLOURS, ANY, MATTE]) as generated,
    ):
        for n, split in enumerate(("train", "val", "val")):
            frames, masks = moving_squares(n, 22, 32, 48)
            true = layers(masks)
            if n == 2:
                del true["any"]  # not every clip has every map
            wrong = layers(masks)
            wrong["any"] = np.zeros_like(masks)
            wrong["matte"] = wrong["matte"] // 2
            clips.add(f"v_{n}", split=split, kind="labelled", frames=frames, masks=true)
            generated.add(f"v_{n}", split=split, kind="labelled", masks=wrong)
    torch.manual_seed(0)
    unet, config = UNetConfig(width=2), ConvLSTMConfig(hidden=4, stride=8)
    save_masker(tmp_path / "masker", unet.build([COLOURS, ANY, MATTE]), unet, {})
    meta = {"label_map": "colours"}
    save_model(tmp_path / "forecaster", config.build(3), config, num_classes=3, meta=meta)
    return {name: tmp_path / name for name in ("clips", "masks", "masker", "forecaster")}


def run(name: str, params: dict[str, Any], inputs: dict[str, Path], **paths: Path) -> None:
    stage = get_stage(name)
    taken = {port.name for port in stage.ports if port.direction == "in"} & inputs.keys()
    ports = {port: inputs[port] for port in taken} | paths
    stage.function(**ports, params=validate(stage.params, params, name))


@pytest.mark.parametrize("kind", ["masks", "frames"])
def test_a_forecaster_learns_the_map_it_is_told_and_remembers_its_name(
    inputs: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    params = {"training": TRAINING, "label_map": "colours"}
    trained, tuned, out = tmp_path / "trained", tmp_path / "tuned", tmp_path / "out"
    model = MODEL | {"input": kind}
    run("pretrain_forecaster", params | {"model": model}, inputs, pretrained=trained, metrics=tmp_path / "a.json")
    inputs["pretrained"] = trained
    run("finetune_forecaster", params, inputs, forecaster=tuned, metrics=tmp_path / "b.json")
    for folder in (trained, tuned):
        _, description = load_forecaster(folder)
        assert description["meta"]["label_map"] == "colours" and description["num_classes"] == 3
    inputs["forecaster"] = tuned
    run("predict", {"split": "val", "label_map": "colours"}, inputs, predictions=out)
    predictions = ClipStore(out)
    assert predictions.label_map == COLOURS and len(predictions.clips) == 2


def test_the_masker_is_scored_and_shown_in_every_map(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report"
    shown: dict[str, str] = {}
    monkeypatch.setattr("maskcast.report.evaluation_page.report_section", shown.__setitem__)
    run("evaluate", {"label_map": "colours"}, inputs, metrics=tmp_path / "scores.json", report=report)
    scores = json.loads((tmp_path / "scores.json").read_text())
    store = ClipStore(inputs["clips"], "any")
    squares = store.masks(store.get("v_1"))
    background = float(1 - squares.mean())
    assert scores["masker_jaccard"] == scores["masker_accuracy"] == 1
    assert scores["masker_accuracy_any"] == pytest.approx(background)  # nothing found, of the clip that has it
    assert scores["masker_jaccard_any"] == pytest.approx(background / 2)
    assert scores["masker_jaccard_matte"] == pytest.approx(127 / 255)
    assert "masker_jaccard_ids" not in scores
    with (report / "masker_per_class.csv").open() as file:
        rows = {(row["label_map"], row["class"]): row for row in csv.DictReader(file)}
    assert rows.keys() == {("colours", name) for name in COLOURS.classes} | {("any", name) for name in ANY.classes}
    assert int(rows["any", "square"]["target_pixels"]) == squares.sum()
    assert float(rows["any", "square"]["jaccard"]) == 0 and float(rows["colours", "red"]["jaccard"]) == 1
    drawn = {path.name for path in (report / "maps").iterdir()}
    assert drawn == {"colours_v_1.png", "colours_v_2.png", "any_v_1.png", "matte_v_1.png", "matte_v_2.png"}
    assert "| matte | alpha | 2 | 0.4980 |" in (report / "maps.md").read_text()
    keys = dict(re.findall('<ul class="legend" aria-label="Colours of ([a-z]*)">(.*?)</ul>', shown["Label maps"]))
    for name, classes in (("colours", COLOURS.classes), ("any", ANY.classes)):
        assert re.findall("</svg>([^<]*)</li>", keys[name]) == list(classes[1:])
    record = json.loads((report / "evaluation.json").read_text())
    assert record["label_map"] == "colours" and record["scores"] == scores
    assert re.fullmatch("(masks (bf16|fp32) on (cpu|cuda), )?forecasts fp32 on (cpu|cuda)", record["arithmetic"])
    assert "label map colours" in (report / "README.md").read_text()


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (None, r"clips: has the label maps colours, any, matte, ids; choose one \(label_map, or --map\)"),
        ("colour", r"clips: no label map 'colour'; it has colours, any, matte, ids"),
        ("matte", r"clips: label map 'matte' has kind alpha, which forecasters do not support"),
        ("any", r"forecaster: label map is 'colours', expected 'any' of .*clips;"),
    ],
)
def test_a_map_that_cannot_be_forecast_is_named(
    inputs: dict[str, Path], tmp_path: Path, label_map: str | None, message: str
) -> None:
    for stage, outputs in (("evaluate", ("metrics", "report")), ("predict", ("predictions",))):
        with pytest.raises(MaskcastError, match=message) as raised:
            paths = {name: tmp_path / name for name in outputs}
            run(stage, {"split": "val", "label_map": label_map}, inputs, **paths)
        assert "\n" not in str(raised.value)


def test_a_registered_pipeline_masks_by_the_map_that_it_forecasts(inputs: dict[str, Path], tmp_path: Path) -> None:
    facts = {"context_frames": 11, "horizon": 11, "precision": "fp32", "height": 32, "width": 48}
    about = ForecastDescription(kind="pipeline", **facts, classes=COLOURS.classes, label_map="colours")
    save_masker(
        tmp_path / "masker", (masker := UNetConfig(width=2).build([ANY, COLOURS])), UNetConfig(width=2), {}
    )
    write_bundle(tmp_path / "bundle", about, inputs)
    model = load_bundle(tmp_path / "bundle")
    frames = moving_squares(0, 11, 32, 48)[0]
    seen, future = model.predict_masks(frames)
    wanted = segment_whole(Worker(masker.eval(), "fp32"), frames, batch_size=16)
    np.testing.assert_array_equal(seen, wanted["colours"].masks)
    assert not np.array_equal(seen, wanted["any"].masks)
    graph = PipelineGraph(model).eval()
    with torch.inference_mode():
        np.testing.assert_array_equal(graph(torch.from_numpy(frames)[None]).numpy()[0], future)
    with pytest.raises(MaskcastError, match=r"label map 'hands' not found \(maps: any, colours\)"):
        MaskerModel(tmp_path / "masker", "fp32", "hands")


def test_a_masker_without_the_map_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    config, unet = ConvLSTMConfig(hidden=4, stride=8, input="frames"), UNetConfig(width=2)
    meta = {"label_map": "colours"}
    save_model(tmp_path / "forecaster", config.build(3), config, num_classes=3, meta=meta)
    save_masker(tmp_path / "masker", unet.build([ANY]), unet, {})
    with pytest.raises(MaskcastError, match=r"masker: label map 'colours' not found \(maps: any\); .* on .*clips"):
        run("predict", {"split": "val", "label_map": "colours"}, inputs, predictions=tmp_path / "out")
