"""The command `evaluate-many`: many maskers on the same clips."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.evaluation.many import EvaluationTask, evaluate_one, find_maskers
from maskcast.evaluation.scores import ForecastScores
from maskcast.evaluation.speed import measure_speed, seconds_of
from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import PROBE, Segmenter
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.report.evaluation_page import _timing
from maskcast.report.tables import format_numbers
from maskcast.runner.run import run_stage

PERSON = LabelMap("person", ("background", "person"))
ALPHA = LabelMap("alpha", ("background", "foreground"), "alpha")


def write_masker(folder: Path, *maps: LabelMap, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = UNetConfig(width=2)
    save_masker(folder, config.build(maps), config, {"height": 16, "width": 24})
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips") / "store"
    random = np.random.default_rng(0)
    with ClipWriter(root, height=16, width=24, maps=(PERSON, ALPHA)) as writer:
        for number in range(2):
            alpha = np.zeros((9, 16, 24), np.uint8)
            alpha[:, 4:12, 6 + number : 14 + number] = 255
            frames = random.integers(0, 255, (9, 16, 24, 3), np.uint8)
            masks = {"person": (alpha > 127).astype(np.uint8), "alpha": alpha}
            writer.add(f"clip_{number}", split="val", kind="labelled", frames=frames, masks=masks)
    return root


def test_a_row_for_each_model_and_map_and_one_page(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_masker(tmp_path / "grid/both", PERSON, ALPHA, seed=4)
    write_masker(tmp_path / "grid/deep/person", PERSON, seed=1)
    write_masker(tmp_path / "grid/cats", LabelMap("cats", ("background", "cat")))
    out = tmp_path / "many"
    assert main(["evaluate-many", str(tmp_path / "grid"), "--clips", str(clips), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "left out cats: " in said and "predicts cats, but" in said
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["map"]) for row in rows] == [
        ("deep/person", "person"),
        ("both", "person"),
        ("both", "alpha"),
    ]
    assert float(rows[0]["jaccard"]) > float(rows[1]["jaccard"])  # the best comes first
    for row in rows:
        assert (row["arch"], row["device"]) == ("unet", "cpu" if not torch.cuda.is_available() else row["device"])
        assert min(float(row[cost]) for cost in ("frame_ms", "clip_ms", "memory_mib", "parameters")) > 0
        assert float(row["clip_frames"]) == 9
        classes = [
            row[name]
            for name in ("jaccard", "jaccard_frames", "j_and_f", "dice", "class_accuracy", "flicker", "mvc8")
        ]
        assert all(classes) == (row["map"] == "person") and bool(row["mad"]) == (row["map"] == "alpha")
        assert row["mvc16"] == ""  # no clip is as long
    # both have the numbers of the stage that validates maskers
    masks, metrics = tmp_path / "masks", tmp_path / "metrics.json"
    values = {"consistent_frames": None, "maps": ["person"]}
    masker = tmp_path / "grid/deep/person"
    run_stage("generate_masks", values, clips=clips, masker=masker, masks=masks, metrics=metrics)
    truth, found = ClipStore(clips, "person"), ClipStore(masks)
    pairs = [(truth.masks(clip), found.masks(found.get(clip.id))) for clip in truth.clips]
    right = np.mean([(one == other).mean() for one, other in pairs])
    assert float(rows[0]["accuracy"]) == pytest.approx(right, abs=1e-6)
    page = (out / "index.html").read_text()
    assert page.count("data:image/png") == 2 and "<strong>" in page and "Left out" in page
    keys = re.findall('aria-label="Colours of ([a-z]*)">(.*?)</ul>', page)
    assert [(name, re.findall("</svg>([^<]*)</li>", key)) for name, key in keys] == [("person", ["person"])]
    assert re.search("Scores of alpha.*Time and memory.*What the numbers mean", page, re.DOTALL)


def test_a_map_without_foreground_does_not_count_in_the_order(tmp_path: Path) -> None:
    cats, frames = LabelMap("cats", ("background", "cat")), np.zeros((2, 16, 24, 3), np.uint8)
    person = np.zeros((2, 16, 24), np.uint8)
    person[:, 4:12, 6:14] = 1
    frames[person > 0] = 255
    with ClipWriter(tmp_path / "clips", height=16, width=24, maps=(PERSON, cats)) as writer:
        masks = {"person": person, "cats": np.zeros_like(person)}
        writer.add("clip", split="val", kind="labelled", frames=frames, masks=masks)
    for name, seed in (("a", 4), ("b", 1)):
        write_masker(tmp_path / "grid" / name, PERSON, cats, seed=seed)
    words = ["evaluate-many", str(tmp_path / "grid"), "--clips", str(tmp_path / "clips")]
    assert main([*words, "--out", str(tmp_path / "many")]) == 0
    with (tmp_path / "many/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["jaccard"] for row in rows if row["map"] == "cats"} == {""}
    jaccards = {row["model"]: float(row["jaccard"]) for row in rows if row["map"] == "person"}
    assert list(jaccards) == sorted(jaccards, key=lambda name: -jaccards[name]) != sorted(jaccards)


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ((0.08333, 1.0, 0.143, 0.0003255), ["0.0833", "1.0000", "0.1430", "0.0003"]),
        ((23.754, 7.5, np.nan), ["23.75", "7.50", "n/a"]),
        ((7835.0, 12.0), ["7,835", "12"]),
        ((123456.7, 2.4), ["123,456.7", "2.4"]),
        ((0.4, 1234.5), ["0.40", "1,234.50"]),
        ((-0.031, 0.0, 52.0), ["-0.031", "0.000", "52.000"]),
        ((0.00002, 1234.5), ["0.0000", "1,234.5000"]),
        ((0.0, 0.0), ["0.0000", "0.0000"]),
        ((np.nan,), ["n/a"]),
    ],
)
def test_numbers_of_a_column_have_the_same_decimals(column: tuple[float, ...], shown: list[str]) -> None:
    assert format_numbers(column) == shown


def test_the_rate_of_a_slow_forecaster_beside_a_fast_one_is_not_0() -> None:
    scores = {name: ForecastScores(2, 1, 1) for name in ("forecaster", "persistence")}
    for one, seconds in zip(scores.values(), (25.0, 0.002), strict=True):
        one.clip_ids, one.seconds, one.peak_memory_mib = ["a"], seconds, 0.25 / seconds
    rows = re.findall(r"<td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", _timing(scores, torch.device("cpu")))
    assert rows == [("25.0000", "0.040", "0.010"), ("0.0020", "500.000", "125.000")]


def test_what_a_gpu_is_still_doing_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append(f"wait for {device}"))
    assert seconds_of(lambda: done.append("work"), torch.device("cuda")) >= 0
    assert done == ["wait for cuda", "work", "wait for cuda"]


def test_the_time_of_a_frame_is_that_of_a_session(clips: Path) -> None:
    store = ClipStore(clips)
    seen: list[tuple[int, ...]] = []

    class Watched(Segmenter):
        def __init__(self) -> None:
            super().__init__([PERSON])
            self.weight = torch.nn.Parameter(torch.zeros(3))

        def forward(self, frames_BTHWC, state=()):
            if frames_BTHWC.shape[2] != PROBE:  # a look at how large its steps are
                seen.append(tuple(frames_BTHWC.shape[:2]))
            return (torch.zeros(*frames_BTHWC.shape[:2], 2, *frames_BTHWC.shape[2:4]),), ()

    _, speed = measure_speed(lambda: Watched().eval(), store.frames(store.clips[0]), 4, "fp32")
    assert seen[:41] == [(1, 1)] * 41  # 11 to warm up, 30 that count
    assert seen[41:44] == [(1, 4), (1, 4), (1, 1)] and len(seen) == 41 + 3 * 3
    assert speed.parameters == 3 and speed.clip_frames == 9


def test_names_are_those_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_masker(tmp_path / "a/x", PERSON)
    two = write_masker(tmp_path / "b/y", PERSON)
    assert find_maskers([one, tmp_path / "b"]) == {"x": one, "y": two}
    monkeypatch.chdir(one)
    assert find_maskers([Path()]) == {"x": Path()}


def same_names(folder: Path) -> list[Path]:
    return [write_masker(folder / place / "x", PERSON) for place in "ab"]


def empty(folder: Path) -> list[Path]:
    (folder / "none").mkdir()
    return [folder / "none"]


BAD = {
    "no folder": (lambda folder: [folder / "gone"], "gone: folder not found"),
    "no model": (empty, r"none: contains no model \(config.json\)"),
    "two of one name": (same_names, "has the same name 'x' as"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_models_are_one_line(
    name: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, message = BAD[name]
    models = [str(path) for path in write(tmp_path)]
    before = sorted(tmp_path.iterdir())
    assert main(["evaluate-many", *models, "--clips", str(clips), "--out", str(tmp_path / "many")]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert re.search(message, line) and sorted(tmp_path.iterdir()) == before


def test_what_is_wrong_with_one_model_is_told(clips: Path, tmp_path: Path) -> None:
    other = write_masker(tmp_path / "other", LabelMap("person", ("background", "man")))
    damaged = write_masker(tmp_path / "damaged", PERSON)
    (damaged / "model.safetensors").write_bytes(b"x")
    for folder, message in (
        (other, "map 'person' has the classes background, man"),
        (damaged, "model.safetensors"),
    ):
        found = evaluate_one("x", folder, EvaluationTask(clips, "val"))
        assert isinstance(found, MaskcastError) and re.search(message, str(found))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "train"], "holds no labelled clips in split 'train'"),
        (["--batch-size", "0"], "--batch-size: got 0; give 1 or more"),
        (["--out", "."], "already exists"),
    ],
)
def test_bad_flags_are_one_line(
    flags: list[str], message: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masker = write_masker(tmp_path / "x", PERSON)
    words = ["evaluate-many", str(masker), "--clips", str(clips), "--out", str(tmp_path / "many"), *flags]
    assert main(words) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "many").exists()
    assert EvaluationTask(clips, "val").precision == "bf16"
