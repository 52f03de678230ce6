"""Masks of videos are scored, shown and registered: the pipeline's last stages on a small store."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import ROOT, write_store

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.labels import MASK
from maskcast.models.segmentation.configs import RecurrentConfig, UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.registry.loading import load_address
from maskcast.runner.run import run_stage

GATE = {"gate": {"least": {"jaccard_gain": 0.0}, "most": {"flicker_ratio": 0.7}}}


def masks_of(store: ClipStore, root: Path, wrong: float, masker: Path, *, length: int = 22) -> ClipStore:
    """Writes masks with a share of the pixels of each frame set to another class, as a masker's."""
    random = np.random.default_rng(0)
    size, meta = {"height": store.height, "width": store.width}, {"masker": digest_tree(masker)}
    with ClipWriter(root, **size, maps=[store.label_map], meta=meta) as writer:
        for clip in store.select("val"):
            masks = store.masks(clip)[:length].copy()
            masks[random.random(masks.shape) < wrong] = 1
            sure = np.full(masks.shape, 255, np.uint8)
            writer.add(clip.id, split="val", kind="labelled", masks={MASK: masks}, confidence={MASK: sure})
    return ClipStore(root)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> dict[str, Path]:
    """Clips, masks that are better than those of the base, and a masker; MLflow keeps its files here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = write_store(tmp_path / "clips", train=1, val=2)
    config = RecurrentConfig(base=UNetConfig(width=2), place="logits")
    save_masker(tmp_path / "masker", config.build([store.label_map]), config, {"height": 32, "width": 48})
    masks_of(store, tmp_path / "masks", 0.01, tmp_path / "masker")
    masks_of(store, tmp_path / "base_masks", 0.1, tmp_path)
    return {name: tmp_path / name for name in ("clips", "masks", "base_masks", "masker")}


def evaluate(made: dict[str, Path], out: Path, **params: Any) -> dict[str, float]:
    out.mkdir()
    outputs = {"metrics": out / "metrics.json", "report": out / "report", "page": out / "page.html"}
    return run_stage("evaluate_video", params, **made, **outputs)


def register(made: dict[str, Path], out: Path, gate: dict[str, Any] = GATE) -> dict[str, Any]:
    paths = {"clips": made["clips"], "masker": made["masker"], "report": out / "report"}
    run_stage(
        "register_segmenter", gate, **paths, registration=out / "registered.json", page=out / "registered.html"
    )
    return json.loads((out / "registered.json").read_text())


def test_masks_are_scored_shown_and_registered(made: dict[str, Path], tmp_path: Path) -> None:
    scores = evaluate(made, tmp_path / "out", pictures=2)
    assert scores["clips"] == 2 and scores["frames"] == 44
    assert (
        scores["jaccard_gain"] == pytest.approx(scores["jaccard"] - scores["jaccard_base"])
        and scores["mvc16"] > 0.8
    )
    assert (
        scores["flicker_ratio"] == pytest.approx(scores["flicker"] / scores["flicker_base"])
        and scores["flicker"] > 0
    )
    assert 0.5 < scores["j_and_f_base"] < scores["j_and_f"] == pytest.approx((scores["j"] + scores["f"]) / 2)
    report = tmp_path / "out/report"
    record = json.loads((report / "evaluation.json").read_text())
    assert record["segmenter"] == digest_tree(made["masker"]) and record["label_map"] == MASK
    assert (report / "per_clip.csv").read_text().startswith("clip,jaccard,flicker,mvc8,j,f,j_and_f,jaccard_base,")
    page = (tmp_path / "out/page.html").read_text()
    size = "All scores are at 32x48 (height x width), the size of the clips."
    assert "<p>Scored on: val, 2 clips.</p>" in page
    assert size in page and size in (report / "README.md").read_text() and record["size"] == [32, 48]
    assert page.count('type="range"') == 2 and "compared with its base +0." in page
    assert "film.webp, 22 of 22 frames of val_" in page
    assert page.count("These clips also selected the best epoch of each training") == 1
    assert f"{scores['j_and_f']:.4f}" in page and "contour accuracy F of DAVIS" in page
    asked = r"\| jaccard \| \+(0\.\d{4}) \[\+.* over 2 clips, greater in 2 \| yes \|"
    gained = re.search(asked, (report / "README.md").read_text())
    assert gained is not None and "The segmenter minus its base, each clip scored separately" in page
    per_clip = np.genfromtxt(report / "per_clip.csv", delimiter=",", names=True)
    assert float(gained[1]) == pytest.approx((per_clip["jaccard"] - per_clip["jaccard_base"]).mean(), abs=1e-4)
    assert (report / "film.webp").read_bytes()[8:12] == b"WEBP"

    verdict = register(made, tmp_path / "out")
    assert verdict["passed"] and [each["score"] for each in verdict["thresholds"]] == [
        "jaccard_gain",
        "flicker_ratio",
        "jaccard",
    ]
    loaded = load_address("models:/maskcast-segmenter@candidate")
    assert (
        loaded.about.kind == "segmenter" and loaded.model.predict(loaded.example).shape == loaded.example.shape[:3]
    )
    strict = {"gate": {"most": {"flicker_ratio": 0.01}}}
    assert not register(made, tmp_path / "out", strict)["passed"]
    with pytest.raises(
        MaskcastError, match=r"register_segmenter\.gate\.most: 'miou' was not measured; scores: acc"
    ):
        register(made, tmp_path / "out", {"gate": {"most": {"miou": 1.0}}})


def test_without_a_base_there_is_no_gain(made: dict[str, Path], tmp_path: Path) -> None:
    del made["base_masks"]
    scores = evaluate(made, tmp_path / "out", pictures=0)
    assert "jaccard" in scores and not {"jaccard_base", "jaccard_gain", "flicker_ratio"} & set(scores)
    assert not (tmp_path / "out/report/film.webp").exists()
    assert "Compared with the base" not in (tmp_path / "out/report/README.md").read_text()
    (made["masker"] / "config.json").write_text((made["masker"] / "config.json").read_text() + "\n")
    with pytest.raises(
        MaskcastError, match=r"has scores of another segmenter, not of .*; run evaluate_video on it"
    ):
        register(made, tmp_path / "out")


def test_of_photographs_nothing_is_told_that_needs_time(made: dict[str, Path], tmp_path: Path) -> None:
    videos = ClipStore(made["clips"])
    with ClipWriter(tmp_path / "photographs", height=32, width=48, maps=[videos.label_map]) as writer:
        for clip in videos.select("val"):
            frames, masks = videos.frames(clip)[:1], {MASK: videos.masks(clip)[:1]}
            writer.add(clip.id, split="val", kind="labelled", frames=frames, masks=masks)
    made["clips"] = tmp_path / "photographs"
    made["masks"] = masks_of(ClipStore(made["clips"]), tmp_path / "their_masks", 0.01, made["masker"]).root
    del made["base_masks"]
    scores = evaluate(made, tmp_path / "out", pictures=2)
    assert scores["frames"] == 2 and "flicker" not in scores
    assert "flicker" not in (tmp_path / "out/report/scores.md").read_text()
    page = (tmp_path / "out/page.html").read_text()
    assert "flicker -" not in page and "Drag a slider" not in page and "From the best clip to the worst." in page
    assert '<th scope="col">flicker</th>' not in page and '<th scope="col">j_and_f</th>' in page


def test_masks_that_lack_clips_or_frames_are_refused(made: dict[str, Path], tmp_path: Path) -> None:
    store = ClipStore(made["clips"])
    masks_of(store, tmp_path / "short", 0.0, made["masker"], length=20)
    with pytest.raises(
        MaskcastError, match=r"short: masks of clip 'val_0' have shape \(20, 32, 48\), its true masks"
    ):
        evaluate(made | {"masks": tmp_path / "short"}, tmp_path / "a")
    with pytest.raises(MaskcastError, match=r"masks: has no masks of clip 'train_0'; run generate_masks on"):
        evaluate(made, tmp_path / "b", split="train")


def test_masks_are_scored_as_those_of_their_masker_alone(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for masks, message in (
        (made["clips"], "clips: holds the true masks of the clips; give the masks of a model"),
        (made["base_masks"], "base_masks: the masks were made by another masker, and are to be scored as those"),
    ):
        with pytest.raises(MaskcastError, match=message):
            evaluate(made | {"masks": masks}, tmp_path / masks.name / "out")
    with pytest.raises(MaskcastError, match="clips: holds the true masks of the clips"):
        evaluate(made | {"base_masks": made["clips"]}, tmp_path / "base")
    del made["masker"]
    evaluate(made, tmp_path / "other", pictures=0)
    record = json.loads((tmp_path / "other/report/evaluation.json").read_text())
    assert "segmenter" not in record
    assert "equal the truth" not in capsys.readouterr().err


def test_the_documented_way_to_score_another_models_masks(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As written in docs/video.md, for a model that copies the labels of a clip, which is said."""
    for link in ("clips", "masks"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / link).symlink_to(made[link])
    text = (ROOT / "docs/video.md").read_text().split("## Masks of another model")[1]
    program = text.split("```python\n")[1].split("```")[0]
    store = ClipStore(made["clips"])
    truth = {store.frames(clip).tobytes(): store.masks(clip) for clip in store.clips}
    exec(program, {"my_model": lambda frames: truth[frames.tobytes()]})
    del made["masker"], made["base_masks"]
    scores = evaluate(made | {"masks": tmp_path / "data/mine"}, tmp_path / "out", pictures=0)
    assert scores["jaccard"] == 1.0
    assert "warning: " in (said := capsys.readouterr().err)
    assert "data/mine: 44 masks equal the truth in every pixel; if labels were copied, the scores are" in said
    with pytest.raises(MaskcastError, match=r"data/mine: the masks do not say which masker made them, and are"):
        evaluate(made | {"masks": tmp_path / "data/mine", "masker": tmp_path / "masker"}, tmp_path / "named")
