"""Consistency through time, on clips drawn by hand: classes 1, 2 and 3 on a background of 0."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from maskcast.models.objects import consistency
from maskcast.models.objects.consistency import Regions, agree, find_regions, make_consistent

SIZE, CLASSES = (40, 60), 4


def blank(frames: int) -> np.ndarray:
    return np.zeros((frames, *SIZE), np.uint8)


def consistent(
    masks_THW: np.ndarray, sure: float | np.ndarray = 0.7, report: consistency.Report = consistency.no_report
) -> tuple[np.ndarray, np.ndarray]:
    """Makes masks consistent whose classes have the probability `sure`; the rest is nearly all background's."""
    sure_THW = np.broadcast_to(np.float32(sure), masks_THW.shape).copy()
    return make_consistent(
        masks_THW,
        sure_THW,
        [regions_of(*one) for one in zip(masks_THW, sure_THW, strict=True)],
        report=report,
    )


def regions_of(mask_HW: np.ndarray, sure_HW: np.ndarray, doubt: int = 0) -> Regions:
    inside = mask_HW > 0
    probabilities_PK = np.full((int(inside.sum()), CLASSES), 0.001)
    probabilities_PK[:, doubt] = 1 - 0.001 * (CLASSES - 2) - sure_HW[inside]
    probabilities_PK[np.arange(len(probabilities_PK)), mask_HW[inside]] = sure_HW[inside]
    return find_regions(mask_HW, probabilities_PK)


def square(masks_THW: np.ndarray, frame: int, top: int, left: int, class_id: int, side: int = 10) -> None:
    masks_THW[frame, top : top + side, left : max(left + side, 0)] = class_id


def test_masks_that_agree_are_left_alone():
    masks = blank(5)
    for t in range(5):
        square(masks, t, 5, 5 + 4 * t, 1)
        square(masks, t, 25, 40 - 4 * t, 2)
    found, confidence = consistent(masks)
    np.testing.assert_array_equal(found, masks)
    assert (confidence == np.float32(0.7)).all()


def test_a_part_goes_to_the_object_that_it_may_be_of_and_another_object_does_not():
    mask = blank(1)[0]
    mask[10:22, 10:22] = 1
    mask[10:22, 18:22] = 3  # a third of the object
    half = regions_of(mask, np.full(SIZE, 0.6), doubt=1)
    assert half.area_R.tolist() == [144]
    np.testing.assert_allclose(half.centre_R2, [[15.5, 15.5]])
    assert half.evidence_RK.argmax() == 1
    assert regions_of(mask, np.full(SIZE, 0.6), doubt=0).area_R.tolist() == [96, 48]


def test_a_sliver_goes_to_the_object_and_tells_how_sure_that_is():
    masks = blank(4)
    for t in range(4):
        square(masks, t, 10, 10 + t, 1)
    truth, sure = masks.copy(), np.full(masks.shape, 0.9, np.float32)
    masks[2, 10:12, 12:14] = 3
    sure[masks == 3] = 0.5
    frames = [regions_of(*one, doubt=int(k == 2)) for k, one in enumerate(zip(masks, sure, strict=True))]
    found, confidence = make_consistent(masks, sure, frames)
    np.testing.assert_array_equal(found, truth)
    assert (confidence[masks != 3] == np.float32(0.9)).all()
    expected = (0.9 * 96 + 0.498 * 4) / 100  # the mean over the whole object
    np.testing.assert_allclose(confidence[masks == 3], expected, atol=2e-3)


def test_in_few_frames_a_class_needs_less_to_be_there():
    """An object covers 1 % of each picture, a speck of another class a tenth of that."""
    masks = blank(11)
    for t in range(11):
        square(masks, t, 10, 10 + t, 1, side=5)
        masks[t, 30, 50:52] = 3
    for frames in (1, 4, 11):
        found, _ = consistent(masks[:frames], 0.6)
        np.testing.assert_array_equal(found, np.where(masks[:frames] == 1, 1, 0))


@pytest.mark.parametrize(
    ("sure", "seen", "kept"),
    [
        (0.95, range(1, 10), True),
        (0.95, range(2, 8), True),  # most of the frames
        (0.95, (0, 2, 4, 5, 7, 9), True),  # out of sight in between
        (0.95, range(3, 8), False),
        (0.6, range(1, 10), False),
    ],
)
def test_a_small_object_is_kept_if_it_is_certain_and_in_most_frames(
    sure: float, seen: Sequence[int], kept: bool
) -> None:
    """A ball of 2x2 pixels passes a person; in 11 frames, a class needs 38.4 pixels."""
    masks, told = blank(11), []
    for t in range(11):
        square(masks, t, 5, 5, 1, side=20)
        if t in seen:
            square(masks, t, 35 - t, 30 + 2 * t, 2, side=2)
    found, _ = consistent(masks, np.where(masks == 2, np.float32(sure), 0.7), lambda *one: told.append(one))
    np.testing.assert_array_equal(found, masks if kept else np.where(masks == 2, 0, masks))
    assert [one[:2] for one in told] == [(1, True), (2, kept)]
    assert told[1][2] == pytest.approx(sure)


def test_one_frame_does_not_show_that_a_small_object_lasts() -> None:
    masks = blank(1)
    square(masks, 0, 20, 20, 2, side=1)
    assert not consistent(masks, 0.99)[0].any()


def test_a_class_that_flips_is_outvoted_by_probability_not_by_frames():
    masks, sure = blank(5), np.full((5, *SIZE), 0.45)
    for t in range(5):
        square(masks, t, 10, 8 * t, 2 if t in (1, 3) else 3)
    sure[[1, 3]] = 0.95
    found, _ = consistent(masks, sure)
    np.testing.assert_array_equal(found, np.where(masks > 0, 2, 0))
    found, _ = consistent(masks)
    np.testing.assert_array_equal(found, np.where(masks > 0, 3, 0))


def test_two_objects_that_cross_keep_their_classes():
    masks = blank(9)
    for t in range(9):
        square(masks, t, 10, 2 + 5 * t, 1)
        square(masks, t, 14, 45 - 5 * t, 2)  # passes in front
    truth = masks.copy()
    flipped = masks[1] == 2
    masks[1][flipped] = 3
    found, _ = consistent(masks)
    np.testing.assert_array_equal(found, truth)


def test_an_object_that_enters_is_one_from_its_first_sight_on():
    masks = blank(6)
    for t in range(6):
        square(masks, t, 20, -8 + 6 * t, 2)
        square(masks, t, 2, 45, 1)
    truth = masks.copy()
    masks[0][truth[0] == 2] = 3
    found, _ = consistent(masks)
    np.testing.assert_array_equal(found, truth)


def test_an_object_that_comes_in_the_last_frames_needs_the_share_of_these():
    """A class needs 38.4 of the 2400 pixels of a picture in 11 frames, 6.98 in two: 18 do for what stays."""
    masks = blank(11)
    for t in range(11):
        square(masks, t, 10, 10, 1)
    for t in (9, 10):
        square(masks, t, 30, 5 * t - 45, 2, side=3)
    truth = masks.copy()
    for t in (4, 5):
        square(masks, t, 25, 50, 3, side=3)
    found, _ = consistent(masks)
    np.testing.assert_array_equal(found, truth)


def test_tracks_may_share_a_class_and_frames_may_be_empty():
    masks = blank(4)
    for t in (0, 1, 3):  # nothing is seen in frame 2
        square(masks, t, 3, 5, 1)
        square(masks, t, 25, 40, 1)
    found, _ = consistent(masks)
    np.testing.assert_array_equal(found, masks)
    empty, confidence = consistent(blank(3))
    assert not empty.any() and confidence.shape == empty.shape


@pytest.mark.parametrize(("total", "windows"), [(6, [[0, 1, 2, 3], [2, 3, 4, 5]]), (3, [[0, 1, 2]])])
def test_a_clip_agrees_window_by_window(
    total: int, windows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def told(masks: np.ndarray, confidence: np.ndarray, regions: list[int]) -> tuple[np.ndarray, np.ndarray]:
        seen.append(regions)
        return masks + len(seen), confidence + len(seen)

    monkeypatch.setattr(consistency, "make_consistent", told)
    masks, sure = consistency.make_windows_consistent(
        np.zeros(total, np.uint8), np.zeros(total), list(range(total)), 4
    )  # type: ignore[arg-type]
    assert seen == windows and masks.tolist() == sure.tolist() == [1 + (t >= 4) for t in range(total)]


def test_what_is_left_of_a_clip_agrees_with_the_frames_before_it() -> None:
    masks = blank(6)
    for t, class_id in enumerate((1, 1, 1, 1, 2, 2)):
        square(masks, t, 10, 10 + t, class_id, side=20)
    inside = masks > 0
    sure = np.where(np.arange(6)[:, None, None] < 4, np.float32(0.9), np.float32(0.6))
    probabilities = np.zeros((*masks.shape, CLASSES), np.float32)
    probabilities[..., 0] = 1
    for t in range(6):
        probabilities[t][inside[t]] = (
            np.eye(CLASSES)[masks[t][inside[t]]] * sure[t] + 0.4 * (t > 3) * np.eye(CLASSES)[3]
        )
    np.testing.assert_array_equal(agree(masks, probabilities, 4), inside.astype(np.uint8))
    np.testing.assert_array_equal(agree(masks[4:], probabilities[4:], 4), masks[4:])  # by themselves they err


def test_regions_are_numbered_as_in_the_whole_picture() -> None:
    """Each class is looked for in its box; OpenCV's numbers of the whole picture are what old masks rest on."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        blobs = rng.integers(0, 5, (9, 13)).astype(np.uint8)
        mask_HW = cv2.resize(blobs, (39, 27), interpolation=cv2.INTER_NEAREST)
        mask_HW[rng.random(mask_HW.shape) < 0.2] = 0
        wanted_HW, count = np.zeros(mask_HW.shape, np.int32), 0
        for class_id in range(1, 5):
            found, whole_HW = cv2.connectedComponents((mask_HW == class_id).astype(np.uint8), connectivity=8)
            wanted_HW += np.where(whole_HW > 0, whole_HW + count, 0)
            count += found - 1
        sure_PK = np.eye(5, dtype=np.float32)[mask_HW[mask_HW > 0]]  # nothing is merged
        np.testing.assert_array_equal(find_regions(mask_HW, sure_PK).labels_HW, wanted_HW)
