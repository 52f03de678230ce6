"""Scores of several label maps by hand."""

from pathlib import Path

import numpy as np
import pytest

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.evaluation.amodal import AmodalScores
from maskcast.evaluation.videos import SEGMENTER, AmodalSetting, VideoEvaluation
from maskcast.labels import LabelMap

HANDS = [LabelMap(name, ("background", "palm", "finger")) for name in ("left", "right")]


def row(*ids: int) -> np.ndarray:
    return np.array(ids, np.uint8).reshape(1, 1, -1)


def test_an_image_by_hand() -> None:
    """Left: palm 2 of 3 (one pixel missed), finger 1 of 2 (a palm's pixel taken); right: nothing there."""
    truth = {"left": row(1, 1, 1, 2, 0, 0), "right": row(0, 0, 0, 0, 0, 0)}
    found = {"left": row(1, 1, 2, 2, 0, 0), "right": row(0, 0, 0, 0, 0, 1)}
    scores = AmodalScores(HANDS, least_pixels=1)
    scores.add("a", truth, found)
    table = scores.table()
    assert table["miou"] == table["miou_left"] == table["miou_single"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert np.isnan(table["miou_right"])  # what is found in a map without an object costs nothing
    assert table["pooled"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)  # here it does
    assert scores.per_clip["a"]["miou"] == table["miou"]


def test_classes_with_few_true_pixels_are_left_out() -> None:
    truth, found = (
        {"left": row(1, 1, 1, 2), "right": row(2, 2, 0, 0)},
        {"left": row(1, 1, 0, 0), "right": row(2, 2, 2, 0)},
    )
    scores = AmodalScores(HANDS, least_pixels=2)
    scores.add("a", truth, found)
    assert scores.table()["miou_left"] == pytest.approx(2 / 3)
    assert scores.table()["miou"] == pytest.approx(2 / 3)  # of both maps, 2/3 and 2/3
    assert scores.table()["miou_interacting"] == scores.table()["miou"]  # two hands, and the clip has no word
    few = AmodalScores(HANDS, least_pixels=4)
    few.add("a", truth, found)
    assert np.isnan(few.table()["miou"]) and np.isfinite(few.table()["pooled"])


def test_what_is_seen_and_what_is_hidden_apart() -> None:
    """The right hand is in front of two pixels of the left one, of which one is found."""
    truth = {"left": row(1, 1, 2, 2, 0, 0), "right": row(0, 0, 1, 1, 1, 0)}
    found = {"left": row(1, 1, 2, 0, 0, 1), "right": row(0, 0, 1, 1, 1, 0)}
    seen = {"left": row(1, 1, 0, 0, 0, 0) > 0, "right": row(0, 0, 1, 1, 1, 0) > 0}
    scores = AmodalScores(HANDS, least_pixels=1)
    scores.add("a", truth, found, seen, "crossed")
    table = scores.table()
    assert table["miou_occluded"] == table["pooled_occluded"] == table["miou_crossed_occluded"] == 0.5
    assert table["miou_left_visible"] == pytest.approx(2 / 3) and table["miou_right_visible"] == 1
    assert np.isnan(table["miou_right_occluded"])
    by_part = {(one, part): each for one, part, each in scores.per_class()}
    assert by_part["left", "finger"] == {
        "all": 0.5,
        "visible": pytest.approx(np.nan, nan_ok=True),
        "occluded": 0.5,
    }
    assert by_part["left", "palm"]["all"] == pytest.approx(2 / 3)


def test_images_count_the_same_and_unknown_hands_do_not() -> None:
    scores = AmodalScores(HANDS, least_pixels=1)
    nobody, unknown = row(0, 0), row(255, 255)
    scores.add("a", {"left": row(1, 1), "right": nobody}, {"left": row(1, 1), "right": nobody})
    scores.add("b", {"left": row(1, 0), "right": unknown}, {"left": row(0, 0), "right": row(1, 2)}, hands="left")
    assert scores.table()["miou"] == scores.table()["miou_single"] == 0.5
    assert scores.table()["pooled"] == pytest.approx(2 / 3)


def test_the_word_of_a_clip_is_no_map_and_a_stray_pixel_is_no_object() -> None:
    both = {"left": row(1, 1, 0, 0), "right": row(0, 0, 1, 1)}
    found = {"left": row(1, 1, 0, 0), "right": row(0, 0, 0, 0)}
    for word in ("left", "right", "single", "visible"):
        scores = AmodalScores(HANDS, least_pixels=1)
        scores.add("a", both, found, hands=word)
        assert (scores.table()["miou_left"], scores.table()["miou_right"]) == (1, 0)
        assert scores.table()["miou_interacting"] == 0.5
    few = AmodalScores(HANDS, least_pixels=2)
    few.add("a", both | {"right": row(0, 0, 0, 1)}, found)
    assert few.table()["miou_single"] == 1 and "miou_interacting" not in few.table()


VISIBLE = AmodalSetting(("left", "right"), "visible", 1)


def written(root: Path, left: np.ndarray, seen: np.ndarray) -> ClipStore:
    """Writes a clip of one frame, and what is seen in it."""
    masks = {"left": left, "right": row(0, 1, 0, 0), "visible": seen}
    visible = LabelMap("visible", ("background", "left", "right"))
    with ClipWriter(root, height=1, width=4, maps=[*HANDS, visible]) as writer:
        writer.add("a", split="val", kind="labelled", frames=np.zeros((1, 1, 4, 3), np.uint8), masks=masks)
    return ClipStore(root).of("left")


def test_where_nobody_says_what_is_seen_nothing_is_hidden(tmp_path: Path) -> None:
    seen = row(1, 2, 255, 255)
    truth = written(tmp_path / "clips", row(1, 1, 1, 1), seen)
    found = written(tmp_path / "masks", row(1, 1, 0, 0), seen)
    table = VideoEvaluation(truth, {SEGMENTER: found}, truth.clips, VISIBLE).amodal_scores[SEGMENTER].table()
    assert table["miou_left_occluded"] == 1
    assert table["miou_left_visible"] == pytest.approx(1 / 3)


def test_what_is_seen_is_a_part_of_the_data_that_is_scored(tmp_path: Path) -> None:
    seen = {"a": row(1, 2, 1, 1), "b": row(1, 1, 1, 1), "again": row(1, 2, 1, 1)}
    digests = {}
    for name, each in seen.items():
        truth = written(tmp_path / name, row(1, 1, 1, 1), each)
        digests[name] = VideoEvaluation(truth, {}, truth.clips, VISIBLE).data_digest()
    assert digests["a"] == digests["again"] != digests["b"]
