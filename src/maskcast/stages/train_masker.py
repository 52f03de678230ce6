"""train_masker: labelled clips -> a masker that gives the class of every pixel of a frame."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from maskcast.data.augment.frames import AugmentParams, augment
from maskcast.data.clip_index import FrameIndex
from maskcast.data.clips import Clip, ClipStore
from maskcast.data.statistics import frame_statistics
from maskcast.digest import fingerprint
from maskcast.distributed import all_counts, own_part, rank
from maskcast.errors import MaskcastError
from maskcast.evaluation.metrics import accuracy, confusion, macro_jaccard
from maskcast.inference.segment import predict_masks
from maskcast.models.base import best_device, count_parameters, save_model
from maskcast.models.encoders.table import load_into
from maskcast.models.segmentation.configs import MaskLossConfig, SegmenterConfig, UNetConfig
from maskcast.models.segmentation.losses import MaskLoss
from maskcast.params import Params
from maskcast.progress import report_file
from maskcast.report.overlays import masker_strip
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.seed import derive, rng
from maskcast.training.finish import Scores, finish_training
from maskcast.training.schedule import TrainingParams

PICTURES = 4


class TrainMasker(Params):
    """Params of train_masker."""

    model: SegmenterConfig = UNetConfig()
    """Architecture and its sizes."""
    loss: MaskLossConfig = MaskLossConfig()
    """Terms of the loss, their weights and reductions."""
    augment: AugmentParams = AugmentParams()
    """How training frames are varied."""
    training: TrainingParams
    """Schedule; a sample of ``batch_size`` is one frame."""
    val_frame_step: int = Field(default=1, ge=1)
    """Validate on every n-th frame of the validation clips."""


@stage
def train_masker(
    *, clips: InPath, encoder: InPath | None = None, masker: OutPath, metrics: OutPath, params: TrainMasker
) -> None:
    """Trains a masker on the labelled clips of the train split; the best epoch by validation Jaccard is kept.

    Raises:
        MaskcastError: when train or val holds no labelled clips with frames, the encoder is of another
            architecture than ``model``, or training diverges.
    """
    store = ClipStore(clips)
    inputs = {"clips": clips} if encoder is None else {"clips": clips, "encoder": encoder}
    task = MaskerTask(store, params, fingerprint(params, **inputs), encoder)
    meta = {"classes": list(store.classes), "height": store.height, "width": store.width}

    def results(scores: Scores) -> Scores:
        return {
            "val_jaccard": scores["jaccard"],
            "val_accuracy": scores["accuracy"],
            "best_epoch": scores["best_epoch"],
            "epochs": scores["epochs"],
            "train_seconds": scores["train_seconds"],
            "parameters": count_parameters(task.model),
        }

    finish_training(
        "train_masker",
        task,
        params.training,
        resume_dir(masker),
        out=masker,
        save=partial(save_model, model=task.model, config=params.model, num_classes=store.num_classes, meta=meta),
        metrics=metrics,
        results=results,
        summary="masker: validation Jaccard {jaccard:.4f} after {epochs:.0f} epochs",
    )
    _report_pictures(store, task, resume_dir(masker) / "pictures")


class MaskerTask:
    """Frames drawn at random from all labelled training clips, each as likely as any other."""

    monitor = "jaccard"

    def __init__(
        self, store: ClipStore, params: TrainMasker, fingerprint: str, encoder: Path | None = None
    ) -> None:
        self.store, self.params, self.fingerprint = store, params, fingerprint
        self.train = _with_frames(store, "train")
        self.val = _with_frames(store, "val")
        self._index = FrameIndex(self.train)
        torch.manual_seed(derive(params.training.seed))
        masker = params.model.build(store.num_classes)
        loaded = params.model.load_pretrained(masker)
        start = encoder and load_into(
            params.model.encoder_of(masker), encoder, params.model.encoder_config, "train_masker.model"
        )
        if loaded and start:
            raise MaskcastError(
                f"{encoder}: train_masker.model.encoder_weights is another encoder to start from; set it to null"
            )
        if start:  # its weights belong to these colours
            mean, std = start["meta"]["mean"], start["meta"]["std"]
        else:
            mean, std = frame_statistics(store, self.train)
        masker.mean.copy_(torch.as_tensor(mean))
        masker.std.copy_(torch.as_tensor(std))
        self.model: nn.Module = masker
        self.criterion = MaskLoss(params.loss)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns this process's frames_BHWC and masks_BHW, uint8, augmented: a pure function of (seed, step)."""
        samples = [self._sample(step, index) for index in own_part(self.params.training.batch_size)]
        frames, masks = zip(*samples, strict=True)
        return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(masks))

    def _sample(self, step: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        random = rng(self.params.training.seed, step, index)
        k, t = self._index.at(int(random.integers(len(self._index))))
        clip = self.train[k]
        mask_HW = self.store.masks(clip, slice(t, t + 1))[0]
        return augment(self.store.frames(clip)[t], mask_HW, self.params.augment, random)

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of a batch."""
        if rank():
            torch.manual_seed(
                derive(self.params.training.seed, step, rank())
            )  # or dropout repeats on each process
        frames_BHWC, masks_BHW = batch
        return self.criterion(self.model(frames_BHWC), masks_BHW), {}

    def validate(self) -> dict[str, float]:
        """Returns macro Jaccard (absent classes left out) and accuracy over the pooled validation frames."""
        matrix = np.zeros((self.store.num_classes,) * 2, np.int64)
        for k in own_part(len(self.val)):
            clip = self.val[k]
            target, prediction = self.store.masks(clip)[:: self.params.val_frame_step], self.predict(clip)
            matrix += confusion(target, prediction, self.store.num_classes)
        matrix = all_counts(matrix, self.model)
        return {"jaccard": macro_jaccard(matrix, absent="omit"), "accuracy": accuracy(matrix)}

    def predict(self, clip: Clip) -> np.ndarray:
        """Returns masks (T, H, W) of every ``val_frame_step``-th frame, under the conditions of generate_masks."""
        frames = self.store.frames(clip)[:: self.params.val_frame_step]
        size, precision = self.params.training.batch_size, self.params.training.precision
        parts = [
            predict_masks(self.model, frames[i : i + size], precision)[0] for i in range(0, len(frames), size)
        ]
        return np.concatenate(parts)


def _with_frames(store: ClipStore, split: str) -> Sequence[Clip]:
    labelled = store.select(split, "labelled")
    found = store.where(lambda group: (group.split, group.kind) == (split, "labelled") and group.has_frames)
    if not found:
        raise MaskcastError(
            f"{store.root}: none of the {len(labelled)} labelled clips of split {split!r} has frames; "
            "prepare clips with frames to train a masker"
        )
    return found


def _report_pictures(store: ClipStore, task: MaskerTask, folder: Path) -> None:
    """Draws some validation clips into a folder that outlives the run's upload."""
    folder.mkdir(parents=True, exist_ok=True)
    task.model.to(best_device())
    step = task.params.val_frame_step
    for index, clip in enumerate(task.val[:PICTURES]):
        strip = masker_strip(store.frames(clip)[::step], store.masks(clip)[::step], task.predict(clip), clip.id)
        strip.save(folder / f"val_{index}.png")
        report_file(folder / f"val_{index}.png", "masker")
