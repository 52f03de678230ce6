"""Masks in the size of the video: those of logits that are interpolated for every class and pixel."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskcast.data.images import resize_masks
from maskcast.inference.enlarging import enlarge_classes
from maskcast.inference.predictions import ClassLogits

SIZES = [(2, (67, 121)), (3, (34, 48)), (49, (100, 130)), (5, (9, 11)), (4, (17, 24))]


def enlarged(logits_IJK: np.ndarray, height: int, width: int) -> np.ndarray:
    mask_IJ = logits_IJK.argmax(-1).astype(np.uint8)
    classes = np.unique(mask_IJ)
    return enlarge_classes(mask_IJ, ClassLogits(classes, logits_IJK[..., classes]), height, width)


@pytest.mark.parametrize(("num_classes", "size"), SIZES)
def test_masks_are_those_of_all_logits_interpolated(num_classes: int, size: tuple[int, int]) -> None:
    rows, columns = 17, 24
    random = np.random.default_rng(num_classes)
    coarse = random.normal(size=(6, 7, num_classes)).astype(np.float32)
    layers_KIJ = [cv2.resize(layer, (columns, rows)) for layer in coarse.transpose(2, 0, 1)]
    logits_IJK = np.stack(layers_KIJ, -1)
    best = np.unique(logits_IJK.argmax(-1))
    logits_KIJ = torch.from_numpy(logits_IJK[..., best]).permute(2, 0, 1)
    whole_KHW = F.interpolate(logits_KIJ[None], size=size, mode="bilinear")[0]
    np.testing.assert_array_equal(enlarged(logits_IJK, *size), best[whole_KHW.argmax(0).numpy()])


def test_a_class_that_is_nowhere_the_best_appears_nowhere() -> None:
    left, right = [4.0, 3.0, 0.0], [0.0, 3.0, 4.0]
    logits_IJK = np.array([[left, right]], np.float32)
    np.testing.assert_array_equal(enlarged(logits_IJK, 1, 8), [[0, 0, 0, 0, 2, 2, 2, 2]])


def test_a_disc_is_closer_to_the_truth_than_its_mask_enlarged() -> None:
    y, x = np.mgrid[:480, :854]
    truth_HW = ((y - 200) ** 2 + (x - 400) ** 2 < 120**2).astype(np.uint8)
    share_IJ = cv2.resize(truth_HW.astype(np.float32), (240, 136), interpolation=cv2.INTER_AREA)
    scores_IJK = np.stack([1 - share_IJ, share_IJ], -1)
    nearest_HW = resize_masks((share_IJ > 0.5).astype(np.uint8)[None], 480, 854)[0]

    def jaccard(mask_HW: np.ndarray) -> float:
        return float((truth_HW & mask_HW).sum() / (truth_HW | mask_HW).sum())

    assert jaccard(enlarged(scores_IJK, 480, 854)) > jaccard(nearest_HW) + 0.007
