"""What true masks lose in the size of the clips, measured on few of them and said once."""

from functools import partial

import numpy as np
import pytest

from maskcast.data.images import resize_masks
from maskcast.data.mask_ceiling import MAX_MASKS, masks_to_measure, round_trip
from maskcast.data.sources.base import Arrays, RawClip
from maskcast.evaluation.mask_ceiling import MaskCeilings
from maskcast.labels import IGNORE, MASK, LabelMap

MAP = LabelMap(MASK, ("background", "car", "pole"))


def clips(*kinds: str) -> list[RawClip]:
    return [RawClip(str(k), "train", kind, partial(Arrays, None, {})) for k, kind in enumerate(kinds)]


@pytest.mark.parametrize(("labelled", "others"), [(1, 0), (3, 2), (200, 1), (777, 300)])
def test_masks_are_drawn_evenly_from_labelled_clips(labelled: int, others: int) -> None:
    listed = clips(*["unlabelled"] * others, *["labelled"] * labelled)
    counts = list(masks_to_measure(listed))
    assert not any(counts[:others])
    assert sum(counts) == MAX_MASKS
    assert max(counts[others:]) - min(counts[others:]) <= 1


def test_the_score_is_that_of_masks_that_were_reduced_and_enlarged() -> None:
    masks_THW = np.zeros((6, 40, 60), np.uint8)
    masks_THW[:, 4:30, 5:33] = 1
    masks_THW[:, :, 50] = 2  # a column that is lost, or grows
    masks_THW[3] = IGNORE
    size = (10, 15)
    counts = round_trip(masks_THW, size, 3, 4)
    assert counts.sum() == 4 * 40 * 60
    again_HW = resize_masks(resize_masks(masks_THW[:1], *size), 40, 60)[0]
    pairs = [(again_HW == k, masks_THW[0] == k) for k in range(3)]
    jaccard = [(found & true).sum() / (found | true).sum() for found, true in pairs]
    ceilings = MaskCeilings([MAP])
    for count in (1, 3):
        ceilings.add({MASK: round_trip(masks_THW, size, 3, count)})
    ceilings.add({})
    (note,) = ceilings.notes(*size)
    assert f"of mask at 10x15, enlarged again, have Jaccard {np.mean(jaccard):.3f} at the source's size" in note
    assert f"(lowest: pole {jaccard[2]:.2f}, car {jaccard[1]:.2f}, background {jaccard[0]:.2f})" in note


def test_nothing_is_said_of_masks_that_lose_nothing() -> None:
    masks_THW = np.zeros((2, 40, 60), np.uint8)
    masks_THW[:, :20] = 1
    ceilings = MaskCeilings([MAP])
    assert not list(ceilings.notes(10, 15))
    ceilings.add({MASK: round_trip(masks_THW, (10, 15), 3, 200)})
    assert not list(ceilings.notes(10, 15))


def test_a_class_that_the_map_lacks_is_left_to_the_writer_which_names_it() -> None:
    masks_THW = np.zeros((1, 32, 32), np.uint8)
    masks_THW[:, 4:20, 4:20] = 5
    counts_KK = round_trip(masks_THW, (16, 16), 3, 1)
    assert counts_KK.sum() == counts_KK[0, 0] == 32 * 32 - 16 * 16
