"""Consistency through time, on clips drawn by hand: classes 1, 2 and 3 on a background of 0."""

import numpy as np

from maskcast.consistency import find_regions, make_consistent

SIZE, CLASSES = (40, 60), 4


def blank(frames: int) -> np.ndarray:
    return np.zeros((frames, *SIZE), np.uint8)


def consistent(masks_THW: np.ndarray, share: float | np.ndarray = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Makes masks consistent that are `share` sure of each pixel's class; the others share the rest."""
    confidence_THW = np.broadcast_to(np.float32(share), masks_THW.shape).copy()
    probabilities = [
        np.where(
            np.eye(CLASSES, dtype=bool)[mask[mask > 0]],
            sure[mask > 0][:, None],
            (1 - sure[mask > 0][:, None]) / (CLASSES - 1),
        )
        for mask, sure in zip(masks_THW, confidence_THW, strict=True)
    ]
    return make_consistent(masks_THW, confidence_THW, list(map(find_regions, masks_THW, probabilities)))


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


def test_a_sliver_goes_to_what_is_likely_there():
    masks = blank(4)
    for t in range(4):
        square(masks, t, 10, 10 + t, 1)
    truth = masks.copy()
    masks[2, 10:12, 12:14] = 3
    regions = []
    for mask in masks:
        probabilities = np.full((int((mask > 0).sum()), CLASSES), 0.1)
        probabilities[:, 1] = 0.4
        probabilities[mask[mask > 0] == 3, 3] = 0.5
        regions.append(find_regions(mask, probabilities / probabilities.sum(axis=1, keepdims=True)))
    found, confidence = make_consistent(masks, np.full(masks.shape, 0.9, np.float32), regions)
    np.testing.assert_array_equal(found, truth)
    np.testing.assert_allclose(confidence[masks == 3], 0.4 / 1.1, rtol=1e-6)
    assert (confidence[masks != 3] == np.float32(0.9)).all()


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


def test_tracks_may_share_a_class_and_frames_may_be_empty():
    masks = blank(4)
    for t in (0, 1, 3):  # nothing is seen in frame 2
        square(masks, t, 3, 5, 1)
        square(masks, t, 25, 40, 1)
    found, _ = consistent(masks)
    np.testing.assert_array_equal(found, masks)
    empty, confidence = consistent(blank(3))
    assert not empty.any() and confidence.shape == empty.shape
