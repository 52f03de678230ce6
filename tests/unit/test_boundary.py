"""F of contours by hand, and J and F against the official evaluation of DAVIS."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskcast.data.clip_store.writer import ClipWriter
from maskcast.evaluation.boundary import boundary_f
from maskcast.evaluation.video_scores import VideoScores
from maskcast.evaluation.videos import SEGMENTER, VideoEvaluation
from maskcast.inference.forecast import open_stores
from maskcast.labels import LabelMap

Box = tuple[int, int, int, int]


def framed(*boxes: Box, height: int = 60, width: int = 80) -> np.ndarray:
    """Returns a frame, 60x80 (a diagonal of 100), with boxes (top, bottom, left, right) of an object in it."""
    mask_HW = np.zeros((height, width), bool)
    for top, bottom, left, right in boxes:
        mask_HW[top:bottom, left:right] = True
    return mask_HW


def test_without_contours_f_is_one_and_with_one_of_them_zero() -> None:
    nothing, whole, box = framed(), framed((0, 60, 0, 80)), framed((10, 20, 10, 20))
    assert boundary_f(nothing, nothing) == boundary_f(whole, whole) == boundary_f(whole, nothing) == 1
    assert boundary_f(nothing, box) == boundary_f(box, nothing) == boundary_f(whole, box) == 0
    assert boundary_f(box, box) == 1


@pytest.mark.parametrize("box", [(20, 30, 20, 35), (50, 60, 62, 77)])
def test_a_shift_within_the_tolerance_costs_nothing(box: Box) -> None:
    # 0.008 of the diagonal of 100 pixels is 0.8, so one pixel counts as right
    top, bottom, left, right = box
    assert boundary_f(framed(box), framed((top, bottom, left + 1, right + 1))) == 1
    assert boundary_f(framed(box), framed((top, bottom, left + 2, right + 2))) < 1


def test_shares_of_both_contours_by_hand() -> None:
    # the contour of a box of a x b pixels inside a frame is a ring of 2 (a + b) pixels: 40 here, 40 more elsewhere
    one, other = (10, 20, 10, 20), (30, 40, 50, 60)
    assert boundary_f(framed(one), framed(one, other)) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert boundary_f(framed(one, other), framed(one)) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert boundary_f(framed(one), framed(other)) == 0
    # without 4 of 10 columns: the edge of 11 pixels that moved has 7 that are no neighbours of the other ring,
    # and of the true ring 9 pixels of that edge and, above and below it, 3 each
    recall, precision = (40 - 9 - 2 * 3) / 40, (32 - 7) / 32
    assert boundary_f(framed(one), framed((10, 20, 10, 16))) == pytest.approx(
        2 * precision * recall / (precision + recall)
    )


def test_each_object_of_each_clip_counts_the_same_and_unlabelled_pixels_nothing() -> None:
    truth = np.zeros((3, 60, 80), np.uint8)
    truth[:2, 10:20, 10:20], truth[:, 30:40, 50:60], truth[1, 30:40, 40:50] = 1, 2, 255
    found = truth.copy()
    found[1, 30:40, 40:50], found[0, :5, :5], found[0, 10:20, 10:20] = 2, 3, 0
    truth[2] = 255  # no label at all: class 2 is missed there, and it does not matter
    found[2] = 0
    scores = VideoScores(4)
    scores.add("a", truth, found)
    # class 1 is missed in one frame of two; class 2 is right; class 3 is in no truth, and left to `jaccard`
    assert scores.per_clip["a"] | {"j": 0.75, "f": 0.75, "j_and_f": 0.75} == scores.per_clip["a"]
    blank = np.zeros((1, 60, 80), np.uint8)
    scores.add("b", blank, blank)
    scores.add("c", truth[1:2], truth[1:2] % 255)
    assert np.isnan(scores.per_clip["b"]["j_and_f"])
    assert scores.table()["j"] == scores.table()["f"] == pytest.approx((0.5 + 1 + 1 + 1) / 4)


def test_label_maps_that_stand_one_below_the_other_have_contours_of_their_own() -> None:
    upper, lower = np.zeros((2, 1, 60, 80), np.uint8)
    upper[0, 50:, 10:20], lower[0, :10, 10:20] = 1, 1  # one object through the seam, as one picture
    missed = np.concatenate([upper, 0 * lower], 1)
    scores = VideoScores(2, maps=2)
    scores.add("a", np.concatenate([upper, lower], 1), missed)
    assert scores.table()["j"] == scores.table()["f"] == scores.table()["j_and_f"] == 0.5


@pytest.fixture(scope="module")
def davis(shared_data: Path) -> Path:
    """Masks of a network for DAVIS, with J and F by the official evaluation."""
    return shared_data / "fixtures/davis_jf"


def masks_of(davis: Path, sequence: str, frames: slice) -> tuple[np.ndarray, np.ndarray]:
    """Returns true and found masks (T, H, W) of a sequence."""
    files = sorted((davis / "osvos_pred" / sequence).iterdir())[frames]
    annotations = davis.parents[1] / "davis2016_val/Annotations/480p" / sequence
    truth = [np.asarray(Image.open(annotations / file.name).convert("L")) > 127 for file in files]
    found = [np.asarray(Image.open(file)) > 0 for file in files]
    return np.array(truth, np.uint8), np.array(found, np.uint8)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_frames_have_the_f_of_the_official_evaluation(davis: Path) -> None:
    rows = rows_of(davis / "expected_frame.csv")
    assert len({row["sequence"] for row in rows}) == 8
    for sequence in {row["sequence"] for row in rows}:
        expected = [float(row["F"]) for row in rows if row["sequence"] == sequence][::10]
        truth, found = masks_of(davis, sequence, np.s_[::10])
        scores = [boundary_f(*pair) for pair in zip(truth > 0, found > 0, strict=True)]
        assert scores == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sequence", ["horsejump-high", "scooter-black"])
def test_a_sequence_has_the_j_and_f_of_the_official_evaluation(davis: Path, sequence: str) -> None:
    (row,) = [row for row in rows_of(davis / "expected_seq.csv") if row["sequence"] == sequence]
    scores = VideoScores(2)
    scores.add(sequence, *masks_of(davis, sequence, np.s_[1:-1]))  # as for DAVIS, without the first and the last
    j, f = float(row["J-Mean"]), float(row["F-Mean"])
    table = scores.table()
    assert [table["j"], table["f"], table["j_and_f"]] == pytest.approx([j, f, (j + f) / 2], abs=1e-6)


@pytest.fixture(scope="module")
def girls(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Masks (T, H, W) of seven objects of DAVIS 2017, and others that are three frames late and lack object 6."""
    files = sorted((shared_data / "davis2017_multiobj/schoolgirls").glob("*.png"))
    truth = np.stack([np.asarray(Image.open(file)) for file in files])
    late = np.concatenate([truth[:1].repeat(3, 0), truth[:-3]])
    return truth, np.where(late == 6, 0, late).astype(np.uint8)


def test_objects_that_are_named_have_the_j_and_f_of_the_official_evaluation(
    girls: tuple[np.ndarray, np.ndarray],
) -> None:
    """Numbers of davis2017-evaluation, semi-supervised: no first and last frame, a missed object counts 0."""
    truth, found = girls
    scores = VideoScores(8)
    scores.add("schoolgirls", truth[1:-1], found[1:-1])
    table = scores.table()
    assert [table["j"], table["f"]] == pytest.approx([0.4829638863644991, 0.6839982000362305], abs=1e-12)


def test_objects_in_masks_of_one_class_have_the_j_and_f_of_the_official_evaluation(
    girls: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """Numbers of davis2017-evaluation, unsupervised: all frames, each true object has one found object at most."""
    truth, found = girls
    classes = ("background", "foreground")
    mask, objects = LabelMap("mask", classes), LabelMap("objects", classes, "instances")
    (height, width), own = truth.shape[1:], {"objects": dict.fromkeys(range(1, 8), 1)}
    with (
        ClipWriter(tmp_path / "clips", height=height, width=width, maps=[mask, objects]) as clips,
        ClipWriter(tmp_path / "masks", height=height, width=width, maps=[mask]) as generated,
    ):
        both = {"mask": (truth > 0).astype(np.uint8), "objects": truth.astype(np.uint16)}
        clips.add("schoolgirls", split="val", kind="labelled", masks=both, objects=own)
        some = {"mask": (found > 0).astype(np.uint8)}
        generated.add("schoolgirls", split="val", kind="labelled", masks=some)
    stores = open_stores(tmp_path / "clips", tmp_path / "masks", "objects")
    table = VideoEvaluation(stores[0], {SEGMENTER: stores[1]}, stores[0].clips).tables[SEGMENTER]
    assert [table["j"], table["f"]] == pytest.approx([0.21816568053115729, 0.29329807086287185], abs=1e-12)
