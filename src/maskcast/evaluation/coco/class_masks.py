"""COCO-style segmentation AP of class masks: each object class of a frame is one instance.

Legend: N frames, H height, W width; masks are uint8 class ids, 0 = background.
"""

from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle

from maskcast.errors import MaskcastError
from maskcast.evaluation.coco.evaluator import Truth, evaluate
from maskcast.labels import IGNORE


class SegmentationAP:
    """Collects masks frame by frame and scores all together (the standard AP is not a mean over frames).

    Args:
        num_classes: K; classes 1..K-1 are the categories.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._size: tuple[int, int] | None = None
        self._images = 0
        self._truths: list[dict[str, Any]] = []
        self._predictions: list[dict[str, Any]] = []

    def add(
        self, target_NHW: np.ndarray, prediction_NHW: np.ndarray, confidence_NHW: np.ndarray | None = None
    ) -> None:
        """Adds N frames.

        Args:
            target_NHW: True class ids; predictions on `IGNORE` pixels are ignored.
            prediction_NHW: Predicted class ids.
            confidence_NHW: uint8, 255 = certain; an instance's score is the mean over its pixels. Without it
                every score is 1, and frames rank in the order they were added.

        Raises:
            MaskcastError: The shapes differ, from each other or from those of earlier frames.
        """
        size = target_NHW.shape[1:]
        self._size = self._size or size
        if target_NHW.shape != prediction_NHW.shape or size != self._size:
            raise MaskcastError(
                f"target masks {target_NHW.shape} and predicted masks {prediction_NHW.shape} must agree, "
                f"and be {self._size} each like the frames before them"
            )
        for n, (target_HW, prediction_HW) in enumerate(zip(target_NHW, prediction_NHW, strict=True)):
            self._images += 1
            valid_HW = target_HW != IGNORE
            confidence_HW = None if confidence_NHW is None else confidence_NHW[n]
            self._truths += self._instances(target_HW * valid_HW)
            self._predictions += self._instances(prediction_HW * valid_HW, confidence_HW)

    def compute(self) -> dict[str, float]:
        """Returns AP, AP50, AP75, AP and AR by area, AR1, AR10, AR100, each in 0..1.

        AP is the mean over IoU thresholds .50:.05:.95 and over the classes that occur in the targets. A value
        without any target (COCO prints -1) is NaN.
        """
        height, width = self._size or (0, 0)
        truth = Truth(
            [{"id": n, "height": height, "width": width} for n in range(1, self._images + 1)],
            [{"id": k, "name": str(k)} for k in range(1, self.num_classes)],
            self._truths,
        )
        return dict(evaluate(truth, self._predictions, "segm").summary)

    def _instances(self, mask_HW: np.ndarray, confidence_HW: np.ndarray | None = None) -> list[dict[str, Any]]:
        """Returns a record of each class of a mask; its score is 1 without a confidence."""
        ids_P = mask_HW.ravel(order="F")  # the library encodes columns
        area_K = np.bincount(ids_P)
        ids = np.flatnonzero(area_K[1:]) + 1
        if not ids.size:
            return []
        classes_NP = ids_P == ids[:, None].astype(ids_P.dtype)
        packed = rle.encode(classes_NP.view(np.uint8).T.reshape(*mask_HW.shape, ids.size, order="F"))
        scores = np.ones(ids.size)
        if confidence_HW is not None:
            scores = np.bincount(ids_P, confidence_HW.ravel(order="F"))[ids] / area_K[ids] / 255
        return [
            {"image_id": self._images, "category_id": k, "segmentation": mask, "area": area, "score": score}
            for k, mask, area, score in zip(
                ids.tolist(), packed, area_K[ids].tolist(), scores.tolist(), strict=True
            )
        ]
