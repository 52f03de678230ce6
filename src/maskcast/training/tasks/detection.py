"""Trains a detector on labelled images and, optionally, on unlabelled ones with its own pseudo labels.

Semi-supervised training follows Unbiased Teacher (Liu et al. 2021, arXiv 2102.09480): the teacher is the running
average of the student. Its confident boxes on a weakly augmented view of an unlabelled image (geometry only) are
the pseudo labels of a strongly augmented view (``StrongParams``). As in the paper, pseudo labels train the
classification of proposals and of boxes, but not the box regression. Unlike the paper, boxes are classified by
cross-entropy, not by focal loss.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.data.augment.boxes import Sample, augment_boxes, resized_size, strong_view, transform
from maskcast.data.augment.mirror import swapped_ids
from maskcast.data.clip_store.frame_index import in_batches
from maskcast.data.detection.dataset import DetectionSet
from maskcast.data.images import read_image
from maskcast.data.trained_frames import hashes_of_files
from maskcast.distributed import all_gather, all_sum, rank_indices, seed_own_draws, world_size
from maskcast.errors import MaskcastError
from maskcast.evaluation.coco.evaluator import evaluate
from maskcast.evaluation.coco.files import read_truth
from maskcast.inference.detect import detect
from maskcast.models.detection.base import Detector
from maskcast.seed import rng, seed_libraries
from maskcast.training.ema import EmaModel
from maskcast.training.task import Task
from maskcast.training.tasks.detection_params import DetectorTraining, UnlabeledParams
from maskcast.training.tasks.detection_sampler import ImageSampler

BOX_MULTIPLE = 16  # boxes of an image are padded to multiples of it, so that there are few shapes to record
UNLABELED_KEY = 1  # random key for drawing unlabelled images, different from that of labelled ones


class DetectorTask(Task):
    """Trains on randomly drawn images; validates on the whole validation split with COCO's metrics.

    Args:
        data: the detection set.
        params: of the stage.
        encoder: folder that ``pretrain_encoder`` wrote.
        fingerprint: identifies everything that the run depends on.

    Raises:
        MaskcastError: if a split holds no boxes, ``params`` use unlabelled images but there are none, or the
            encoder is of another architecture.
    """

    monitor = "AP"

    def __init__(
        self, data: DetectionSet, params: DetectorTraining, encoder: Path | None, fingerprint: str
    ) -> None:
        self.data, self.params, self.fingerprint = data, params, fingerprint
        self.train, self.val = data.split("train"), data.split("val")
        self.truth = read_truth(self.val.truth, "bbox")
        for name, split in (("train", self.train), ("val", self.val)):
            if not any(len(split.boxes(n)) for n in range(len(split))):
                raise MaskcastError(
                    f"{data.root}: no image of split {name!r} has a box; prepare the set with annotated images"
                )
        if params.unlabeled is not None and not data.unlabeled:
            raise MaskcastError(
                f"{data.root}: no unlabelled images, which train_detector.unlabeled needs; set it to null, or "
                "prepare_detection.unlabeled to the images"
            )
        if params.unlabeled is not None:
            self.burn_in_steps = params.unlabeled.burn_in_steps
        self._swapped_K = swapped_ids(data.classes, data.mirror_swaps)
        self._sampler = ImageSampler(self.train, data.num_classes, params.repeat_threshold)
        seed_libraries(params.training.seed)
        detector = params.model.build(data.num_classes)
        self.pretrained = params.model.start_from(detector, encoder)
        if self.pretrained is not None:
            self.fingerprint = self.pretrained.renamed(fingerprint)
        self.averaged = EmaModel(detector, params.ema)
        self.model: nn.Module = self.averaged

    @property
    def detector(self) -> Detector:
        """The detector that is validated and kept."""
        return self.averaged.final

    def frame_hashes(self, split: Literal["train", "val"]) -> Sequence[np.ndarray]:
        """Returns the hash (1,) of each labelled image of a split."""
        return hashes_of_files((self.train if split == "train" else self.val).paths)

    @property
    def same_each_step(self) -> bool:
        """Whether a step can be recorded (``models/cuda_graphs.py``): not with unlabelled images."""
        return self.params.unlabeled is None and self.averaged.live.same_each_step

    def batch(self, step: int) -> dict[str, list[Tensor]]:
        """Returns this process's images, boxes and labels, and weak and strong views of unlabelled images.

        Rows with label -1 are padding.
        """
        views = [self._labelled(step, index) for index in rank_indices(self.params.training.batch_size)]
        rows = -(-max(len(view.labels_N) for view in views) // BOX_MULTIPLE) * BOX_MULTIPLE

        def filled(each: np.ndarray, value: int) -> Tensor:
            rest = [(0, rows - len(each)), *[(0, 0)] * (each.ndim - 1)]
            return torch.from_numpy(np.pad(each, rest, constant_values=value))

        batch = {
            "images": [torch.from_numpy(view.image_HWC) for view in views],
            "boxes": [filled(view.boxes_N4, 0) for view in views],
            "labels": [filled(view.labels_N, -1) for view in views],
        }
        unlabeled = self.params.unlabeled
        if unlabeled is not None and step >= unlabeled.burn_in_steps:
            pairs = [self._unlabelled(step, index, unlabeled) for index in range(unlabeled.batch_size)]
            weak, strong = zip(*pairs, strict=True)
            batch |= {"weak": list(map(torch.from_numpy, weak)), "strong": list(map(torch.from_numpy, strong))}
        return batch

    def _labelled(self, step: int, index: int) -> Sample:
        random = rng(self.params.training.seed, step, index)
        n = self._sampler.draw(random)
        sample = Sample(self.train.image(n), self.train.boxes(n), self.train.labels(n))
        return augment_boxes(sample, self._size(sample.image_HWC), self.params.augment, random, self._swapped_K)

    def _unlabelled(self, step: int, index: int, unlabeled: UnlabeledParams) -> tuple[np.ndarray, np.ndarray]:
        random = rng(self.params.training.seed, step, index, UNLABELED_KEY)
        image = read_image(self.data.unlabeled[int(random.integers(len(self.data.unlabeled)))])
        sample = Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        weak = transform(sample, self._size(image), self.params.augment, random).image_HWC
        return weak, strong_view(weak, unlabeled.strong, random)

    def _size(self, image_HWC: np.ndarray) -> tuple[int, int]:
        height, width = image_HWC.shape[:2]
        return resized_size(height, width, self.params.model.min_size, self.params.model.max_size)

    def loss(self, batch: dict[str, list[Tensor]], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Returns the loss of a batch and its parts.

        With several processes, each draws proposals for its own images; the loss is the mean over the processes.
        """
        seed_own_draws(self.params.training.seed, step)
        student = self.averaged.live
        losses = student.losses(batch["images"], batch["boxes"], batch["labels"])
        total = torch.stack(list(losses.values())).sum()
        logged: dict[str, float | Tensor] = {
            name.removeprefix("loss_"): value.detach() for name, value in losses.items()
        }
        if self.params.unlabeled is not None and "weak" in batch:
            pseudo, boxes = self._pseudo_loss(student, batch, self.params.unlabeled)
            total = total + self.params.unlabeled.weight * pseudo
            logged |= {"pseudo": pseudo.detach(), "pseudo_boxes": boxes}
        return all_sum(total) / world_size(), logged

    def end_step(self, step: int) -> None:
        """Updates the running average of the weights."""
        self.averaged.update(step + 1)

    def _pseudo_loss(
        self, student: Detector, batch: dict[str, list[Tensor]], unlabeled: UnlabeledParams
    ) -> tuple[Tensor, float]:
        """Returns the loss of the pseudo labels, and their number per image."""
        with torch.no_grad():
            detections = [keep_confident(image, unlabeled.threshold) for image in self.detector(batch["weak"])]
        boxes, labels = [image["boxes"] for image in detections], [image["labels"] for image in detections]
        losses = student.losses(batch["strong"], boxes, labels)
        return losses["loss_objectness"] + losses["loss_classifier"], sum(map(len, boxes)) / len(boxes)

    def validate(self) -> dict[str, float]:
        """Returns COCO's AP and AP50 over the validation split."""
        batches = in_batches(range(len(self.val)), self.params.val_batch_size)
        own_batches = [batches[k] for k in rank_indices(len(batches))]
        detections = all_gather(list(detect(self.detector, self.val, own_batches, self.params.training.precision)))
        summary = evaluate(self.truth, detections, "bbox").summary
        return {name: summary[name] for name in ("AP", "AP50")}


def keep_confident(detections: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """Returns the detections of an image whose score is at least ``threshold``."""
    is_confident = detections["scores"] >= threshold
    return {name: values[is_confident] for name, values in detections.items()}
