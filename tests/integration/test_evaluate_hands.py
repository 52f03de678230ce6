"""Masks of two hands are scored, shown and registered."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.two_hands import HANDS, write_two_hands

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.runner.run import run_stage

AMODAL = {"amodal": {"maps": ["left", "right"], "visible": "visible", "least_pixels": 4}}


def masks_of(store: ClipStore, root: Path, wrong: float, masker: Path, maps: list[LabelMap] | None = None) -> Path:
    """Writes masks of both hands with a share of the pixels set to palm."""
    random = np.random.default_rng(0)
    size, meta = {"height": store.height, "width": store.width}, {"masker": digest_tree(masker)}
    with ClipWriter(root, **size, maps=maps or HANDS[:2], meta=meta) as writer:
        for clip in store.select("val"):
            masks = {one.name: store.of(one.name).masks(clip).copy() for one in writer.maps.values()}
            for mask in masks.values():
                mask[random.random(mask.shape) < wrong] = 1
            writer.add(clip.id, split="val", kind="labelled", masks=masks)
    return root


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> dict[str, Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = write_two_hands(tmp_path / "clips", 32, train=1, val=3, unlabeled=0)
    config = UNetConfig(width=2)
    save_masker(tmp_path / "masker", config.build(HANDS[:2]), config, {"height": 32, "width": 32})
    masks_of(store, tmp_path / "masks", 0.01, tmp_path / "masker")
    masks_of(store, tmp_path / "base_masks", 0.2, tmp_path)
    return {name: tmp_path / name for name in ("clips", "masks", "base_masks", "masker")}


def evaluate(made: dict[str, Path], out: Path, params: dict[str, Any]) -> dict[str, float]:
    out.mkdir()
    outputs = {"metrics": out / "metrics.json", "report": out / "report", "page": out / "page.html"}
    return run_stage("evaluate_video", params, **made, **outputs)


def test_both_hands_are_scored_shown_and_registered(made: dict[str, Path], tmp_path: Path) -> None:
    scores = evaluate(made, tmp_path / "out", AMODAL | {"pictures": 2})
    assert scores["miou"] > scores["miou_base"] and scores["jaccard"] > 0.8
    assert scores["miou_gain"] == pytest.approx(scores["miou"] - scores["miou_base"])
    assert scores["miou_occluded_gain"] == pytest.approx(scores["miou_occluded"] - scores["miou_occluded_base"])
    assert {"miou_left", "miou_right", "miou_single", "miou_interacting", "pooled_visible"} <= scores.keys()
    report, page = tmp_path / "out/report", (tmp_path / "out/page.html").read_text()
    assert (report / "per_class.csv").read_text().startswith('map,class,"all, segmenter"')
    assert (report / "per_clip.csv").read_text().startswith("clip,jaccard,flicker,mvc8,j,f,j_and_f,miou,miou_vis")
    for words in (
        "truth left",
        "segmenter right",
        "error of base left",
        "of occluded pixels",
        "Pooled Jaccard of each",
    ):
        assert words in page
    clip = page[page.index('<article class="clip"') : page.index("</article>")]
    kinds = ("frame", "truth", "segmenter", "base", "error of segmenter", "error of base")
    captions = re.findall("<figcaption>([^<]*)", clip)
    assert '<div class="panels threes">' in clip
    assert captions == [f"{kind} {hand}" for hand in ("left", "right") for kind in kinds]
    assert "miou_occluded" in (report / "README.md").read_text() and not (report / "film.webp").exists()

    paths = {"clips": made["clips"], "masker": made["masker"], "report": report}
    gate = {"gate": {"least": {"miou_gain": 0.0, "miou_occluded": 0.1}}}
    run_stage("register_segmenter", gate, **paths, registration=tmp_path / "registered.json")
    verdict = json.loads((tmp_path / "registered.json").read_text())
    assert verdict["passed"] and [each["score"] for each in verdict["thresholds"]] == [
        "miou_gain",
        "miou_occluded",
        "jaccard",
    ]


def test_without_what_is_seen_no_hidden_pixels_are_told(made: dict[str, Path], tmp_path: Path) -> None:
    del made["base_masks"]
    scores = evaluate(made, tmp_path / "out", {"amodal": {"maps": ["right"], "least_pixels": 4}, "pictures": 0})
    assert "miou" in scores and not any("occluded" in name or "gain" in name for name in scores)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"amodal": {"maps": ["left", "middle"]}}, "clips: no label map 'middle'; it has left, right, visible"),
        ({"amodal": {"maps": ["left", "visible"]}}, "map 'visible' has other classes than 'left'"),
        ({"amodal": {"maps": ["left"], "visible": "right"}}, "map 'right' has no class 'left'"),
        (
            AMODAL | {"label_map": "left"},
            "label_map: 'left' conflicts with amodal.maps, the maps that are scored; remove",
        ),
        ({"amodal": {"maps": ["left"], "least_pixels": 0}}, "least_pixels"),
    ],
)
def test_maps_that_do_not_fit(made: dict[str, Path], tmp_path: Path, params: dict[str, Any], said: str) -> None:
    with pytest.raises(MaskcastError, match=r"^[^\n]+$") as caught:
        evaluate(made, tmp_path / "out", params)
    assert said in str(caught.value)


def test_masks_of_one_hand_only(made: dict[str, Path], tmp_path: Path) -> None:
    masks_of(ClipStore(made["clips"]), tmp_path / "one", 0.0, made["masker"], HANDS[:1])
    with pytest.raises(MaskcastError, match=r"one: no label map 'right'; it has left"):
        evaluate(made | {"masks": tmp_path / "one"}, tmp_path / "out", AMODAL)
