"""Masks without foreground are said: a perfect score on background alone is no success."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_evaluate import Spy, evaluation, run
from tests.unit.test_evaluate import models as models  # a fixture
from tests.unit.test_forecaster_stages import TRAINING
from tests.unit.test_source_frame_folders import write_sequence
from tests.unit.test_train_masker import outputs, params

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.dry_run_notes import NOTES_FILE
from maskcast.errors import MaskcastError
from maskcast.evaluation.map_scores import map_scores
from maskcast.evaluation.masker import MaskerScores
from maskcast.evaluation.metrics import macro_jaccard
from maskcast.evaluation.scores import ForecastScores
from maskcast.labels import MASK, LabelMap, single_map
from maskcast.progress import listening
from maskcast.report.clip_by_clip import clip_by_clip
from maskcast.report.label_maps import write_label_maps
from maskcast.report.page import Page
from maskcast.runner.run import run_stage
from maskcast.stages.evaluate import Evaluate
from maskcast.stages.pretrain_forecaster import PretrainForecaster, pretrain_forecaster
from maskcast.stages.train_masker import train_masker

CLASSES = ["background", "red", "blue"]
NOTES = {"notes": ["44 masks, all well"]}


def bare_store(root: Path, *, frames: bool = True) -> ClipStore:
    """A training clip with a square, and a validation clip without."""
    with ClipWriter(root, height=32, width=48, maps=single_map(CLASSES), meta=NOTES) as writer:
        for split in ("train", "val"):
            masks = np.zeros((22, 32, 48), np.uint8)
            masks[:, 10:20, 20:30] = split == "train"
            pictures = np.full((22, 32, 48, 3), 90, np.uint8) if frames else None
            writer.add(split, split=split, kind="labelled", masks={MASK: masks}, frames=pictures)
    return ClipStore(root)


def test_scores_of_background_alone_are_no_scores(tmp_path: Path) -> None:
    store = bare_store(tmp_path / "clips")
    one = evaluation(store, store, Spy())
    scores = one.scores
    table = scores["forecaster"].table()
    assert {name for name, value in table.items() if np.isnan(value)} >= {
        *("jaccard_last", "jaccard_mean", "jaccard_h12", "jaccard_last_absent_zero", "dice_last")
    }
    assert table["accuracy_last"] == 1
    assert not [name for name in one.flat if name.startswith(("jaccard", "dice"))]


def test_a_clip_without_an_object_has_no_score_of_its_own() -> None:
    """Only background could be right in it: it counted as 1, above each clip in which something is forecast."""
    square = np.zeros((2, 8, 8), np.uint8)
    square[:, 2:6, 2:6] = 1
    half, bare = np.where(np.arange(8) < 4, square, 0).astype(np.uint8), np.zeros_like(square)
    scores = ForecastScores(2, 1, 2)
    for clip, truth in (("square", square), ("bare", bare)):
        scores.add(clip, truth, half if clip == "square" else bare)
    (jaccard,) = (macro_jaccard(matrix, absent="omit") for matrix in scores.matrix_hKK[:1])
    own = (8 / 16 + 48 / 56) / 2
    per_clip = {"jaccard_last": {"square": own}, "jaccard_mean": {"square": own}}
    assert scores.per_clip() | per_clip == scores.per_clip() and scores.per_clip()["j_and_f"].keys() == {"square"}
    assert scores.table()["jaccard_mean"] == jaccard > own  # pooled: the pixels of both clips
    videos = {"square": "a", "bare": "b"}
    assert [(row.clips, row.videos) for row in clip_by_clip({"forecaster": scores}, videos)] == [(1, 1)] * 3


def test_a_score_that_no_clip_has_is_left_out_of_the_comparison() -> None:
    """The clip with an object has no label in the last frame, the other one no object."""
    square = np.zeros((2, 8, 8), np.uint8)
    square[0, 2:6, 2:6], square[1] = 1, 255
    scores = ForecastScores(2, 1, 2)
    scores.add("square", square, np.where(square == 1, 1, 0).astype(np.uint8))
    scores.add("bare", bare := np.zeros_like(square), bare)
    assert [row.score for row in clip_by_clip({"forecaster": scores}, {"square": "a", "bare": "b"})] == [
        *("jaccard_mean", "j_and_f")
    ]


def test_a_masker_is_not_praised_for_background() -> None:
    label_map, counts = LabelMap("mask", ("background", "red")), np.array([[90, 0], [0, 0]])
    assert map_scores(label_map, counts) == {"jaccard": pytest.approx(np.nan, nan_ok=True), "accuracy": 1.0}
    table = MaskerScores(label_map, ("a",), counts).table()
    assert np.isnan([table["jaccard"], table["jaccard_no_background"]]).all()
    assert map_scores(label_map, np.array([[90, 9], [1, 0]]))["jaccard"] == pytest.approx(0.45)


def test_a_map_without_foreground_has_no_score_in_the_table_of_maps(tmp_path: Path) -> None:
    store = bare_store(tmp_path / "clips")
    (tmp_path / "report").mkdir()
    scores = {"mask": MaskerScores(store.label_map, ("val",), np.diag([90, 0, 0]))}
    page = write_label_maps(tmp_path / "report", scores, store, store, [])
    assert "| mask | classes | 1 | n/a | 1.0000 |" in (tmp_path / "report/maps.md").read_text()
    assert "nan" not in page


def test_evaluate_says_it_in_its_last_lines_and_on_its_page(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = bare_store(tmp_path / "clips")
    page = Page("evaluate")
    with listening(page):
        flat = run(tmp_path / "out", models, store.root, store.root, pictures=1, context="truth")
    page.write(tmp_path / "page.html", flat, Evaluate(), {})
    assert "jaccard_last" not in flat
    said = capsys.readouterr().err
    assert "warning: split 'val': no true mask has foreground, so Jaccard is undefined" in said
    shown = (tmp_path / "page.html").read_text()
    assert "No true mask has foreground, so Jaccard is undefined (n/a)." in shown
    assert "how the data were read: 44 masks, all well" in shown
    assert "<summary>Neither in truth nor forecast: " in shown
    assert "objects, calibration error n/a" in shown and " nan" not in shown  # no object is forecast, either
    assert "jaccard_last" not in json.loads((tmp_path / "out/report/evaluation.json").read_text())["scores"]


def test_training_does_not_begin_without_something_to_validate_on(tmp_path: Path) -> None:
    store = bare_store(tmp_path / "clips")
    with pytest.raises(MaskcastError, match=r"no validation clip has foreground in its mask, .* split val"):
        train_masker(clips=store.root, params=params(), **outputs(tmp_path / "out"))
    bare = bare_store(tmp_path / "other")
    (tmp_path / "none").mkdir()
    stores = {"clips": bare.root, "masks": bare.root, "masker": tmp_path / "none"}
    with pytest.raises(MaskcastError, match="no future frame of the validation clips has foreground"):
        pretrain_forecaster(
            **stores,
            params=PretrainForecaster.model_validate({"training": TRAINING, "model": {"arch": "objects"}}),
            pretrained=tmp_path / "pretrained",
            metrics=tmp_path / "metrics.json",
        )


def prepared(tmp_path: Path, **source: object) -> ClipStore:
    values = {
        "source": {"layout": "frame_folders", "frames": 5, "splits": {"val": ["cat"]}} | source,
        "workers": 1,
    }
    run_stage("prepare_clips", values, raw=tmp_path / "raw", clips=tmp_path / "clips")
    return ClipStore(tmp_path / "clips")


def test_prepare_clips_says_which_split_has_none_and_how_masks_were_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sequence(tmp_path / "raw", "dog")
    write_sequence(tmp_path / "raw", "cat", value=0)
    store = prepared(tmp_path)
    notes = store.meta["notes"]
    assert notes[0] == (
        "10 masks (8-bit grey), values 0, 255: every value but 0 is foreground (8.3% of the pixels)"
    )
    assert notes[1].startswith("warning: no mask of split 'val' has foreground, so its scores are meaningless")
    said = capsys.readouterr().err
    assert all(f"  {note}\n" in said for note in notes)


ANIMALS = ["background", "cat", "dog", "cow", "hen", "pig", "ram", "yak"]
REMEDY = "choose other clips for the splits in source.splits (names or shares)"


@pytest.mark.parametrize(
    ("values", "splits", "expected"),
    [
        (
            {"a": 1, "b": 1, "c": 2},
            {"val": ["c"]},
            [
                "1 class of mask occurs in val but not in train (dog), so nothing is learned of it",
                "1 class of mask occurs in train but not in val (cat), so no score covers it",
            ],
        ),
        (
            {"a": 1, **{name: 2 + k for k, name in enumerate("bcdefg")}},
            {"val": ["b", "c", "d"], "test": ["e", "f", "g"]},
            [
                "6 classes of mask occur in val and test but not in train (dog, cow, hen, pig, ram, ...), so "
                "nothing is learned of them",
                "1 class of mask occurs in train but not in val and test (cat), so no score covers it",
            ],
        ),
        ({"a": 1, "b": 2, "c": 1, "d": 2}, {"val": ["c"], "test": ["d"]}, []),
    ],
)
def test_prepare_clips_says_which_classes_a_split_lacks(
    values: dict[str, int],
    splits: dict[str, list[str]],
    expected: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in values.items():
        write_sequence(tmp_path / "raw", name, value=value)
    notes = prepared(tmp_path, classes=ANIMALS, encoding="index", splits=splits).meta["notes"]
    assert not any("warning" in note for note in notes)  # new words there would start all trainings again
    warnings = [line[len("  warning: ") :] for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert [warning.split("; choose")[0] for warning in warnings] == expected
    assert all(f"; {REMEDY}" in warning for warning in warnings)


def test_a_dry_run_does_not_judge_classes_by_its_few_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(NOTES_FILE, str(tmp_path / "notes"))
    for name, value in {"a": 1, "b": 2}.items():
        write_sequence(tmp_path / "raw", name, value=value)
    prepared(tmp_path, classes=ANIMALS, encoding="index", splits={"val": ["a"]})
    assert "warning" not in capsys.readouterr().err


def test_a_set_with_foreground_everywhere_is_not_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("dog", "cat"):
        write_sequence(tmp_path / "raw", name)
    prepared(tmp_path)
    assert "warning" not in capsys.readouterr().err
