"""Clips whose last frames nobody labelled: scores, training and pages go by the frames that have labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import write_store
from tests.unit.test_evaluate import Spy, evaluation, run
from tests.unit.test_evaluate import models as models  # a fixture
from tests.unit.test_forecaster_stages import TRAINING

from maskcast.curves import read_curves
from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.evaluation.futures import score_futures
from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.labels import IGNORE, MASK
from maskcast.progress import listening
from maskcast.report.page import Page
from maskcast.runner.run import run_stage
from maskcast.stages.evaluate import Evaluate
from maskcast.training.tasks.improvement import is_significantly_better, scores_by_video

KNOWN = {"val_0": [0, 5, 10, 15, 20], "val_1": [2, 3], "val_2": [0, 10, 20], "val_3": [12]}


def partly(root: Path, whole: ClipStore, known: dict[str, list[int]]) -> ClipStore:
    """The same clips; of some, labels of these frames alone."""
    meta = {LABELLED_FRAMES: [MASK]}
    with ClipWriter(root, height=whole.height, width=whole.width, maps=[whole.label_map], meta=meta) as writer:
        for clip in whole.clips:
            masks = {MASK: whole.masks(clip).copy()} if clip.maps else {}
            if clip.id in known:
                masks[MASK][[t for t in range(clip.num_frames) if t not in known[clip.id]]] = IGNORE
            some = {LABELLED_FRAMES: {MASK: known[clip.id]}} if clip.id in known else {}
            writer.add(
                clip.id, split=clip.split, kind=clip.kind, frames=whole.frames(clip), masks=masks, meta=some
            )
    return ClipStore(root)


def test_the_last_frame_is_the_last_that_has_labels_and_means_are_over_those(tmp_path: Path) -> None:
    whole = write_store(tmp_path / "whole", val=4)
    store = partly(tmp_path / "clips", whole, KNOWN)
    scores = evaluation(store, whole, Spy(), "generated").scores["forecaster"]
    table, clips = scores.table(), [whole.get(name) for name in KNOWN]

    def jaccard(t: int, *which: int) -> float:
        pairs = [(whole.masks(clips[n])[t], whole.masks(clips[n])[10]) for n in which]
        return macro_jaccard(np.sum([confusion(*pair, 3) for pair in pairs], axis=0), absent="omit")

    wanted = {"jaccard_h13": jaccard(12, 3), "jaccard_h16": jaccard(15, 0), "jaccard_h21": jaccard(20, 0, 2)}
    assert {name: table[name] for name in wanted} == pytest.approx(wanted)
    assert all(np.isnan(table[f"jaccard_h{n}"]) for n in (12, 14, 15, 17, 18, 19, 20, 22))
    assert table["jaccard_last"] == table["jaccard_h21"]
    assert table["jaccard_last_absent_zero"] == pytest.approx(jaccard(20, 0, 2))  # all classes occur
    assert table["jaccard_mean"] == pytest.approx(np.mean(list(wanted.values())))


def test_the_page_speaks_of_frames_with_labels_and_ranks_clips_that_have_some(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_store(tmp_path / "whole", val=4)
    store = partly(tmp_path / "clips", whole, KNOWN)
    page = Page("evaluate")
    with listening(page):
        flat = run(tmp_path / "out", models, store.root, whole.root, pictures=6, futures=2)
    page.write(tmp_path / "page.html", flat, Evaluate(), {})
    shown = (tmp_path / "page.html").read_text()
    assert f"Jaccard {flat['jaccard_last']:.3f} at frame 21: " in shown
    assert "Clips ranked by their own Jaccard at frame 21." in shown
    assert (
        "Jaccard of each class at frame 21, worst first;" in shown
        and "of frame 21 that are not background," in shown
    )
    assert "frame 21 of 22, forecast, Jaccard " in shown and "frame 22 of 22, forecast, no score" in shown
    assert "Jaccard nan" not in shown and "nan below" not in shown
    strips = sorted(path.stem.partition("_")[2] for path in (tmp_path / "out/report/strips").iterdir())
    assert strips == ["val_0", "val_2"]  # the others have no label there
    assert "Jaccard, frame 21" in (tmp_path / "out/report/scores.md").read_text()
    assert {"jaccard_last_mean_of_2", "jaccard_mean_mean_of_2", "jaccard_mean_best_of_2"} <= flat.keys()


def test_forecasts_start_from_true_masks_where_there_are_some(tmp_path: Path) -> None:
    """Else they would start from background, in silence."""
    whole = write_store(tmp_path / "whole", val=1)
    store = partly(tmp_path / "clips", whole, {"val_0": [*range(5), *range(6, 22)]})
    with pytest.raises(MaskcastError, match=r"clip 'val_0' has no labels in frame 6, .* set context to generated"):
        evaluation(store, store, Spy(), "truth")
    later = partly(tmp_path / "later", whole, {"val_0": list(range(15))})
    assert 0 < evaluation(later, later, Spy(), "truth").scores["forecaster"].table()["jaccard_last"] < 1


def test_futures_are_scored_where_there_are_labels() -> None:
    truth = np.zeros((3, 4, 4), np.uint8)
    truth[:, :2] = 1
    right = truth.copy()
    truth[[0, 2]] = IGNORE
    unknown, wrong = np.full_like(truth, IGNORE), np.zeros_like(truth)
    found = score_futures([(truth, [right, wrong]), (unknown, [wrong, right])], 2, 2, 3)
    assert found["jaccard_mean_best_of_2"] == found["jaccard_last_best_of_2"] == 1
    assert found["jaccard_mean_mean_of_2"] == found["jaccard_last_mean_of_2"] == pytest.approx((1 + 0.25) / 2)


def test_forecasters_are_validated_where_there_are_labels(tmp_path: Path, models: dict[str, Path]) -> None:
    whole = write_store(tmp_path / "whole", train=2, val=4)
    store = partly(tmp_path / "clips", whole, KNOWN | {"train_0": [0, 10, 20]})
    stores = {"clips": store.root, "masks": whole.root, "masker": models["masker"]}
    scores = run_stage(
        "pretrain_forecaster",
        {"training": TRAINING, "model": {"arch": "objects", "hidden": 4}},
        **stores,
        pretrained=tmp_path / "pretrained",
        metrics=tmp_path / "metrics.json",
    )
    tuned = run_stage(
        "finetune_forecaster",
        {"training": TRAINING},
        **stores,
        pretrained=tmp_path / "pretrained",
        forecaster=tmp_path / "forecaster",
        metrics=tmp_path / "tuned.json",
    )
    for found in (scores, tuned, json.loads((tmp_path / "metrics.json").read_text())):
        named = {name: found[name] for name in found if "val_jaccard" in name}
        assert len(named) >= 6 and all(0 < value <= 1 for value in named.values())
    for curve in read_curves(tmp_path / "forecaster").values():
        assert all(np.isfinite(value) for epoch in curve for value in epoch.values())


def test_a_video_without_labels_is_no_evidence() -> None:
    clips = [("a", "a_1", 0.1, 0.3), ("a", "a_2", np.nan, np.nan), ("b", "b_1", np.nan, np.nan)]
    np.testing.assert_array_equal(scores_by_video(clips), [[0.1, 0.3], [np.nan, np.nan]])
    start = np.full((4, 2), 0.5)
    gained = start + np.array([[0.03, 0.0], [0.02, 0.0], [np.nan, np.nan], [np.nan, np.nan]])
    assert is_significantly_better(gained, start) and not is_significantly_better(gained[1:], start[1:])
    assert not is_significantly_better(gained[2:], start[2:])
    # 0.025 with a standard error of 0.0125, which videos without labels do not make smaller
    assert not is_significantly_better(
        start + np.array([[0.0375, 0], [0.0125, 0], [np.nan, 0], [np.nan, 0]]), start
    )
