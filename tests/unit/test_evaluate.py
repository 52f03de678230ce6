"""Evaluation: known forecasts give known scores, and context is what the masker saw."""

import csv
import hashlib
import json
import shutil
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.conftest import write_store
from torch import Tensor

from maskcast import forking
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.evaluation.boundary import boundary_f
from maskcast.evaluation.forecasts import ForecastEvaluation, data_digest
from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.evaluation.scores import ForecastScores
from maskcast.evaluation.videos import VideoEvaluation
from maskcast.labels import MASK, single_map
from maskcast.models.base import save_model
from maskcast.models.forecasting.base import Predictor
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.forecasting.input import Input
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.progress import listening
from maskcast.report.clip_by_clip import clip_by_clip
from maskcast.report.evaluation_page import show_evaluation
from maskcast.report.page import Page
from maskcast.stages.evaluate import Evaluate, _report_mask_scores, evaluate

CLASSES = ["background", "red", "blue"]


class Spy(Predictor):
    """A forecaster that repeats a constant shift of the last mask and keeps what it was shown."""

    def __init__(self, shift: int = 0) -> None:
        self.shift, self.seen = shift, []

    def forecast(self, context: Tensor, horizon: int) -> Tensor:
        self.seen.append(context.clone())
        return torch.roll(context[:, -1:], self.shift, dims=-1).repeat(1, horizon, 1, 1)


def still_store(root: Path, *, shift: int = 0, classes: list[str] = CLASSES) -> ClipStore:
    """One labelled clip of 22 frames in which a 10 x 10 square of class 1 stands still; `shift` moves it."""
    masks = np.zeros((22, 32, 48), np.uint8)
    masks[:, 10:20, 20 + shift : 30 + shift] = 1
    with ClipWriter(root, height=32, width=48, maps=single_map(classes)) as writer:
        writer.add("video_0", split="val", kind="labelled", masks={MASK: masks})
    return ClipStore(root)


def evaluation(
    prepared: ClipStore, generated: ClipStore, model: Predictor, context: str = "generated"
) -> ForecastEvaluation:
    chosen = prepared.select("val", "labelled")
    return ForecastEvaluation(prepared, generated, chosen, model, None, context, 11, 11, 1, torch.device("cpu"))


def test_a_perfect_forecast_scores_one(tmp_path: Path) -> None:
    store = still_store(tmp_path / "clips")
    one = evaluation(store, store, Spy())
    flat = one.flat
    for name in ("jaccard_last", "jaccard_mean", "jaccard_h12", "accuracy_last", "dice_last", "coco_AP"):
        assert flat[name] == pytest.approx(1)
    assert flat["jaccard_last_persistence"] == flat["jaccard_last_constant_velocity"] == 1
    assert "calibration_error" not in flat  # without confidence there is none
    assert flat["jaccard_last_absent_zero"] == pytest.approx(2 / 3)  # class 2 never occurs
    assert flat["jaccard_last_absent_zero_no_background"] == pytest.approx(1 / 2)


def test_a_shift_scores_what_the_overlap_says(tmp_path: Path) -> None:
    store = still_store(tmp_path / "clips")
    scores = evaluation(store, store, Spy(shift=5)).scores["forecaster"].table()
    square, rest = 50 / 150, (32 * 48 - 150) / (32 * 48 - 50)
    assert scores["jaccard_last"] == pytest.approx((square + rest) / 2)
    assert scores["jaccard_last_no_background"] == pytest.approx(square)
    truth = store.masks(store.clips[0])[-1] > 0
    assert scores["j"] == pytest.approx(square)
    assert scores["f"] == pytest.approx(boundary_f(truth, np.roll(truth, 5, 1)))
    assert square < scores["f"] < 1 and scores["j_and_f"] == (scores["j"] + scores["f"]) / 2
    assert scores["accuracy_last"] == pytest.approx(1 - 100 / (32 * 48))
    assert scores["coco_AP"] == 0
    assert [scores[f"jaccard_h{n}"] for n in range(12, 23)] == pytest.approx([(square + rest) / 2] * 11)


def test_context_is_generated_masks_and_truth_only_the_target(tmp_path: Path) -> None:
    prepared, generated = still_store(tmp_path / "clips"), still_store(tmp_path / "masks", shift=5)
    spy = Spy()
    one = evaluation(prepared, generated, spy)
    scores = one.scores
    shown = generated.masks(generated.clips[0])[:11]
    np.testing.assert_array_equal(spy.seen[0][0].numpy(), shown)
    truth, found = prepared.masks(prepared.clips[0]), generated.masks(generated.clips[0])
    expected = macro_jaccard(confusion(truth[-1], found[-1], 3), absent="omit")
    assert scores["forecaster"].table()["jaccard_last"] == pytest.approx(expected)
    assert one.flat["masker_jaccard"] == pytest.approx(expected)  # every frame is alike here
    spy = Spy()
    assert evaluation(prepared, generated, spy, "truth").scores["forecaster"].table()["jaccard_last"] == 1


def test_scores_are_pooled_over_clips_and_independent_of_batches_and_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path / "clips", val=3)
    chosen, cpu = store.select("val"), torch.device("cpu")
    tables: list[dict[str, float]] = []
    for batch_size, processors in ((1, 1), (2, 2), (3, 5)):
        monkeypatch.setattr(forking, "num_cpus", lambda count=processors: count)
        one = ForecastEvaluation(store, store, chosen, Spy(), None, "truth", 11, 11, batch_size, cpu)
        scores = one.scores["forecaster"]
        assert scores.clip_ids == [clip.id for clip in chosen]
        tables.append(
            {k: v for k, v in scores.table().items() if k not in ("seconds_per_clip", "peak_memory_mib")}
        )
    np.testing.assert_equal(tables[1], tables[0])  # NaN equals NaN here
    np.testing.assert_equal(tables[2], tables[0])
    matrix = np.sum([confusion(store.masks(clip)[-1], store.masks(clip)[10], 3) for clip in chosen], axis=0)
    assert tables[0]["jaccard_last"] == pytest.approx(macro_jaccard(matrix, absent="omit"))


def test_little_is_kept_of_a_clip() -> None:
    truth = np.zeros((11, 160, 240), np.uint8)
    for k in range(1, 7):
        truth[:, 20 * k : 20 * k + 15, 30 * k : 30 * k + 20] = k
    scores = ForecastScores(49, 11, 11)
    for n in range(20):
        scores.add(f"clip {n}", truth, np.roll(truth, n, 2), truth)
        if not n:
            tracemalloc.start()
    kept = tracemalloc.get_traced_memory()[0] / 19
    tracemalloc.stop()
    assert kept < 6000  # bytes


def test_what_is_scored_is_named_without_a_copy_of_its_frames(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 160, 200, 3), np.uint8)
    masks = frames[..., 0] % 3
    with ClipWriter(tmp_path / "clips", height=160, width=200, maps=single_map(CLASSES)) as writer:
        writer.add("a", split="val", kind="labelled", masks={MASK: masks}, frames=frames)
    store = ClipStore(tmp_path / "clips")
    video = VideoEvaluation(store, {}, store.clips)
    rest, digests = (
        b"\0a\0" + masks.tobytes() + frames.tobytes(),
        {
            (tuple(CLASSES), 20, 20): partial(data_digest, store, store.clips, 20, 20),
            (MASK, tuple(CLASSES)): video.data_digest,
        },
    )
    for head, digest in digests.items():
        tracemalloc.start()
        found = digest()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found == hashlib.sha256(repr(head).encode() + rest).hexdigest()[:32] and peak < frames.nbytes


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """An untrained forecaster, which copies the last mask, and an untrained masker."""
    config, unet = ConvLSTMConfig(hidden=4, stride=8), UNetConfig(width=2)
    save_model(tmp_path / "forecaster", config.build(3), config, num_classes=3, meta={})
    save_masker(tmp_path / "masker", unet.build(single_map(CLASSES)), unet, {})
    return {"forecaster": tmp_path / "forecaster", "masker": tmp_path / "masker"}


def run(folder: Path, models: dict[str, Path], clips: Path, masks: Path, **params: Any) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    metrics, report = folder / "metrics.json", folder / "report"
    # The function itself: tracking is tested elsewhere and would take longer than the evaluation.
    evaluate(clips=clips, masks=masks, **models, metrics=metrics, report=report, params=Evaluate(**params))
    values: dict[str, float] = json.loads(metrics.read_text())
    return values


def as_generated(store: ClipStore, root: Path, masker: Path | None = None) -> Path:
    """Copies a store as one of generated masks, which name their masker, if there is one."""
    shutil.copytree(store.root, root)
    index = json.loads((root / "index.json").read_text())
    index["meta"] |= {"copied": True} if masker is None else {"masker": digest_tree(masker)}
    (root / "index.json").write_text(json.dumps(index))
    return root


def test_the_stage_writes_tables_and_pictures_twice_alike(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "clips", val=3)
    masks = as_generated(store, tmp_path / "masks", models["masker"])
    first = run(tmp_path / "a", models, store.root, masks, pictures=2)
    assert first["jaccard_last"] == first["jaccard_last_persistence"]  # an untrained network copies
    said = capsys.readouterr().err
    assert "constant_velocity" in said and "rigid_body" not in said  # which is for CLEVRER's classes alone
    assert str(tmp_path / "a" / "report" / "forecast.png") in said

    report = tmp_path / "a" / "report"
    plots = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["plots"]
    (drawn,) = (
        plot["forecast quality by horizon"]["y"] for plot in plots if "forecast quality by horizon" in plot
    )
    with (report / "per_horizon.csv").open() as file:  # DVC warns of a column that is not there
        assert {*drawn["results/report/per_horizon.csv"]} <= {*next(csv.reader(file))}
    names = {str(path.relative_to(report)) for path in report.rglob("*.*")}
    assert {"scores.md", "scores.csv", "per_class.csv", "per_clip.csv", "README.md", "forecast.png"} <= names
    assert 0 < first["calibration_error"] < first["calibration_error_objects"] < 1
    assert len(list((report / "strips").iterdir())) == 2
    with (report / "per_horizon.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["horizon"] for row in rows] == [str(n) for n in range(12, 23)]
    assert float(rows[10]["forecaster"]) == pytest.approx(first["jaccard_h22"], abs=1e-6)
    assert "generated masks" in (report / "README.md").read_text()
    with Image.open(report / "forecast.png") as picture:
        assert picture.width > 300

    with (report / "clip_by_clip.csv").open() as file:
        clips = {(row["model"], row["score"]): row for row in csv.DictReader(file)}
    own, copied = (clips[model, "jaccard_last"] for model in ("forecaster", "persistence"))
    assert own["mean"] == copied["mean"] and own["difference"] == ""
    told = [copied[name] for name in ("clips", "videos", "difference", "greater")]
    assert told == ["3", "3", "0.000000", "0"]
    assert "| persistence | jaccard_mean | " in (report / "README.md").read_text()

    second = run(tmp_path / "b", models, store.root, masks, pictures=2)
    measured = ("seconds_per_clip", "peak_memory_mib")
    assert {k: v for k, v in first.items() if not k.startswith(measured)} == {
        k: v for k, v in second.items() if not k.startswith(measured)
    }
    for name in names - {"scores.md", "scores.csv", "README.md", "evaluation.json"}:
        assert (report / name).read_bytes() == (tmp_path / "b" / "report" / name).read_bytes(), name


def test_the_page_says_in_how_many_clips_the_best_baseline_is_beaten(tmp_path: Path) -> None:
    store = still_store(tmp_path / "clips")
    evaluated = evaluation(store, store, Spy(shift=5))
    page = Page("evaluate")
    compared = clip_by_clip(evaluated.scores, evaluated.videos)
    epochs = [{"epoch": n, "loss": 1 / n, "jaccard": 0.5} for n in (1, 2)]
    curves = {"train_masker": epochs, "finetune_forecaster": epochs[:1]}
    with listening(page):
        show_evaluation(evaluated, compared, {}, None, curves)
    page.write(tmp_path / "page.html", {}, Evaluate(), {})
    text = (tmp_path / "page.html").read_text()
    assert 'aria-label="Forecast quality by horizon, macro Jaccard by frame' in text
    assert "Loss of train masker" in text and "Loss of finetune forecaster" not in text  # one epoch is no course
    less = f"{compared[0].interval[0] - 1:+.3f}"
    assert f"above it in 0 of 1 clip; the mean difference is {less}." in text
    assert "Clip by clip: how certain the differences are" in text and "not the seed of the training" in text
    assert "<p>Scored on: val, 1 clip, 11 generated masks seen, 11 forecast.</p>" in text
    assert '">Jaccard, frame 22</th>' in text and "<dt>Jaccard, frame 22: jaccard_last</dt>" in text
    assert "<dt>COCO AP: coco_&lt;name&gt;</dt>" in text and "<dt>jaccard_h&lt;n&gt;</dt>" in text
    assert "the mark the best baseline, persistence" in text  # the first of those that score alike
    assert "0.367 below</strong> the best baseline" in text
    means = evaluated.scores["forecaster"].mean(), evaluated.scores["persistence"].mean()
    gate = "jaccard_mean, which the gate of register_models compares by default, is {:.3f}; that of persistence is"
    assert f"{gate.format(means[0])} {means[1]:.3f}." in text
    assert "That of a forecaster is the mean of its Jaccard at the last frame and of its mean over all" in text


def test_a_forecast_that_is_a_copy_is_level_with_the_baselines(tmp_path: Path) -> None:
    store = still_store(tmp_path / "clips")
    evaluated = evaluation(store, store, Spy())
    page = Page("evaluate")
    with listening(page):
        show_evaluation(evaluated, [], {}, None, {})
    page.write(tmp_path / "page.html", {}, Evaluate(), {})
    text = (tmp_path / "page.html").read_text()
    assert "<strong>level with</strong> the best baseline, persistence, with 1.000" in text


def test_one_class_is_told_beside_the_score_with_background(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for classes in (CLASSES[:2], CLASSES):
        name = str(len(classes))
        stores = [still_store(tmp_path / f"{name}_{n}", shift=5 * n, classes=classes) for n in range(2)]
        evaluated = evaluation(*stores, Spy())
        page = Page("evaluate")
        with listening(page):
            show_evaluation(evaluated, [], {}, None, {})
        page.write(tmp_path / "page.html", {}, Evaluate(), {})
        _report_mask_scores(evaluated, "val")
        found[name] = (tmp_path / "page.html").read_text(), capsys.readouterr().err
    # half of the square, of 100 pixels, is found: 50 of 150
    shown, said = found["2"]
    assert " (foreground 0.333) at frame 22: " in shown and " (foreground 0.333) over all frames of the" in shown
    assert said.endswith(" (foreground 0.3333) over all frames\n")
    assert "(foreground" not in "".join(found["3"])


def test_what_is_missing_is_named(tmp_path: Path, models: dict[str, Path]) -> None:
    store = write_store(tmp_path / "clips", val=1)
    other = still_store(tmp_path / "other", classes=[*CLASSES, "green"])
    nothing, bare = write_store(tmp_path / "nothing", train=1), still_store(tmp_path / "bare")
    of_another = ClipStore(as_generated(store, tmp_path / "masks", models["forecaster"]))
    cases: list[tuple[dict[str, Any], ClipStore, ClipStore, str]] = [
        ({"split": "test"}, store, store, "'test'"),
        (
            {"horizon": 12},
            store,
            store,
            "'val_0' has 22 frames, context_frames . horizon need 23; lower them in each section",
        ),
        ({}, store, nothing, "no generated masks of clip 'val_0'; run generate_masks on"),
        ({}, bare, nothing, "no generated masks of clip 'video_0'; it has no frames in .*bare to be masked"),
        ({}, store, other, "classes differ .* .3 and 4."),
        ({}, other, other, "trained for 3 classes, .* has 4"),
        (
            {},
            store,
            store,
            "clips: holds the true masks of the clips; give generated masks, or set evaluate.context",
        ),
        ({}, store, of_another, "masks: the masks were made by another masker, and are to be scored as those of"),
    ]
    for params, clips, masks, message in cases:
        with pytest.raises(MaskcastError, match=message):
            run(tmp_path / "out", models, clips.root, masks.root, **params)
        assert not list((tmp_path / "out").iterdir())


def test_masks_that_do_not_name_their_masker_are_scored_with_a_warning(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "clips", val=1)
    for masker, warnings in ((None, 1), (models["masker"], 0)):
        masks = as_generated(store, tmp_path / f"masks_{warnings}", masker)
        scores = run(tmp_path / f"out_{warnings}", models, store.root, masks, pictures=0)
        assert scores["masker_jaccard"] == 1
        said = capsys.readouterr().err
        assert said.count(f"warning: {masks} does not say which masker made the masks: the masker") == warnings


class LastFrame(Predictor):
    """A forecaster of frames that repeats the last one, one shade too bright."""

    input = Input.FRAMES

    def forecast(self, context: Tensor, horizon: int) -> Tensor:
        return (context[:, -1:] + 1).repeat(1, horizon, 1, 1, 1)


def test_test_clips_are_scored_if_there_are_any(tmp_path: Path, models: dict[str, Path]) -> None:
    """They selected no epoch."""
    with ClipWriter(tmp_path / "clips", height=32, width=48, maps=single_map(CLASSES)) as writer:
        for split in ("val", "test"):
            masks = {MASK: np.zeros((22, 32, 48), np.uint8)}
            writer.add(f"video_{split}", split=split, kind="labelled", masks=masks)
    still_store(tmp_path / "only_val")
    truth: dict[str, Any] = {"context": "truth", "pictures": 0}
    sentence = (
        "These clips also selected the best epoch of each training, so scores on new clips are slightly lower"
    )
    for store, params, split in (
        ("clips", {}, "test"),
        ("clips", {"split": "val"}, "val"),
        ("only_val", {}, "val"),
    ):
        folder, clips = tmp_path / f"{store}_{len(params)}", tmp_path / store
        page, path = Page("evaluate"), folder.with_suffix(".html")
        with listening(page):
            run(folder, models, clips, clips, **truth, **params)
        page.write(path, {}, Evaluate(), {})
        assert json.loads((folder / "report/evaluation.json").read_text())["split"] == split
        assert "All scores are at 32x48 (height x width), the size of the clips." in path.read_text()
        for file in (path, folder / "report/README.md"):
            assert file.read_text().count(sentence) == (split == "val"), file


def test_a_forecaster_of_frames_is_scored_through_the_masker(tmp_path: Path) -> None:
    frames, masks = np.full((22, 32, 48, 3), 80, np.uint8), np.ones((22, 32, 48), np.uint8)
    with ClipWriter(tmp_path / "clips", height=32, width=48, maps=single_map(CLASSES)) as writer:
        writer.add("video_0", split="val", kind="labelled", frames=frames, masks={MASK: masks})
    store = ClipStore(tmp_path / "clips")
    masker = UNetConfig(width=2).build([store.label_map]).eval()
    with torch.no_grad():
        masker.network.head.weight.zero_()
        masker.network.head.bias.copy_(torch.tensor([0.0, 5.0, 0.0]))  # everything is class 1
    one = ForecastEvaluation(
        store, store, store.select("val"), LastFrame(), masker, "generated", 11, 11, 1, torch.device("cpu")
    )
    scores = one.scores["forecaster"].table()
    assert scores["jaccard_last"] == 1
    assert scores["frame_mse"] == pytest.approx(1 / 255**2)
    assert scores["frame_psnr"] == pytest.approx(20 * np.log10(255))
    assert np.all(one.view(0, "persistence").forecast_frames == 81)
