"""Training a segmenter: on single frames, or on windows of clips where it has a state.

Legend: B samples, T frames of a sample, H height, W width, C = 3 channels, K channels of logits.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.data.augment.frames import augment
from maskcast.data.clip_table import FRAMES, labels_of
from maskcast.data.clips import Clip, ClipStore
from maskcast.data.relabelling import TrainingIndex
from maskcast.data.statistics import frame_statistics
from maskcast.distributed import all_counts, own_part, rank
from maskcast.errors import MaskcastError
from maskcast.evaluation.map_scores import counts_of, map_scores, no_counts
from maskcast.inference.found import Found, joined, length, sliced
from maskcast.inference.segment import segment
from maskcast.labels import LabelMap
from maskcast.models.encoders.table import is_trained, load_into
from maskcast.models.segmentation.base import Segmenter, State
from maskcast.models.segmentation.losses import AlphaLoss, MaskLoss
from maskcast.seed import derive, rng
from maskcast.training.tasks.segmentation_params import SegmentationTraining, WindowParams

PICTURED = 4  # validation clips


class Windows(NamedTuple):
    """Frames of some clips with their masks, uint8."""

    frames_BTHWC: Tensor
    masks: tuple[Tensor, ...]
    """(B, T, H, W) of each map."""


class Shown(NamedTuple):
    """Masks (T, H, W) of one map."""

    label_map: LabelMap
    truth: np.ndarray
    found: np.ndarray


class _SegmentationTask:
    """Windows with labels drawn at random from all labelled training clips, each as likely as any other.

    Args:
        store: the clips.
        params: what to train, and how.
        fingerprint: names params and data.
        encoder: what ``pretrain_encoder`` wrote, to start from.

    Raises:
        MaskcastError: if there is no such map, no clip with frames, masks of all maps and the length of a window,
            or the encoder does not fit.
    """

    monitor: str | None = "jaccard"

    def __init__(
        self, store: ClipStore, params: SegmentationTraining, fingerprint: str, encoder: Path | None = None
    ) -> None:
        self.store, self.params, self.fingerprint = store, params, fingerprint
        self.maps = chosen_maps(store, params.maps)
        self._masks = [store.of(label_map.name) for label_map in self.maps]
        self._frames = 1 if params.window is None else params.window.total
        self.train, self.val = (self._clips(split) for split in ("train", "val"))
        self._need_foreground()
        self._index = TrainingIndex(store, self.train, self.maps, self._frames)
        if not len(self._index):
            raise MaskcastError(
                f"{store.root}: none of the {len(self.train)} training clips has the {self._frames} frames of "
                "window.burn_in + window.frames; lower these or prepare longer clips"
            )
        torch.manual_seed(derive(params.training.seed))
        self.segmenter: Segmenter = params.model.build(self.maps)
        mean, std = self._start(encoder) or frame_statistics(store, self.train)
        self.segmenter.mean.copy_(torch.as_tensor(mean))
        self.segmenter.std.copy_(torch.as_tensor(std))
        self.model: nn.Module = self.segmenter
        self.criteria = [AlphaLoss() if one.kind == "alpha" else MaskLoss(params.loss) for one in self.maps]

    def batch(self, step: int) -> Windows:
        """Returns this process's windows, augmented: a pure function of (seed, step)."""
        samples = [self._sample(step, index) for index in own_part(self.params.training.batch_size)]
        frames, *masks = (torch.from_numpy(np.stack(layer)) for layer in zip(*samples, strict=True))
        return Windows(frames, tuple(masks))

    def validate(self) -> dict[str, float]:
        """Returns ``jaccard`` and ``accuracy`` over the pooled validation frames, the mean over the maps.

        Where there are several maps, the scores of each carry its name, too.
        """
        counts = [no_counts(label_map) for label_map in self.maps]
        for k in own_part(len(self.val)):
            clip = self.val[k]
            for frames, found in self.found(clip):
                for n, label_map in enumerate(self.maps):
                    truth = self._masks[n].masks(clip, frames)
                    counts[n] += counts_of(label_map, truth, found[label_map.name].masks)
        each = {
            one.name: map_scores(one, all_counts(sums, self.model))
            for one, sums in zip(self.maps, counts, strict=True)
        }
        if len(each) == 1:
            return next(iter(each.values()))
        mean = {score: float(np.mean([one[score] for one in each.values()])) for score in ("jaccard", "accuracy")}
        return mean | {f"{score}_{name}": value for name, one in each.items() for score, value in one.items()}

    def found(self, clip: Clip) -> Iterator[tuple[slice, Found]]:
        """Yields what is found in every ``val_frame_step``-th frame of a clip, as generate_masks would find it.

        A model with state sees the frames between, too.

        Yields:
            Which frames of the clip, and what is found in them.
        """
        step = self.params.val_frame_step
        seen, kept = (1, step) if self.segmenter.stateful else (step, 1)
        training, first = self.params.training, 0
        for piece in segment(
            self.segmenter,
            [self.store.frames(clip)[::seen]],
            batch_size=training.batch_size,
            precision=training.precision,
        ):
            skip, stop = -first % kept, first + length(piece)
            if first + skip < stop:
                yield slice((first + skip) * seen, stop * seen, step), sliced(piece, slice(skip, None, kept))
            first = stop

    def examples(self) -> Iterator[tuple[str, np.ndarray, list[Shown]]]:
        """Yields the ids of some validation clips, their frames (T, H, W, C), and the masks of each map."""
        every = slice(None, None, self.params.val_frame_step)
        for clip in self.val[:PICTURED]:
            found = joined([piece for _, piece in self.found(clip)])
            shown = [
                Shown(one, store.masks(clip, every), found[one.name].masks)
                for one, store in zip(self.maps, self._masks, strict=True)
            ]
            yield clip.id, self.store.frames(clip)[every], shown

    def _loss(self, logits: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Returns the sum of the losses of all maps, of logits (B, T, K, H, W) and masks (B, T, H, W)."""
        parts = [
            criterion(logits_BTKHW.flatten(0, 1), masks_BTHW.flatten(0, 1))
            for criterion, logits_BTKHW, masks_BTHW in zip(self.criteria, logits, masks, strict=True)
        ]
        total: Tensor = sum(parts[1:], parts[0])
        return total

    def _seed(self, step: int) -> None:
        if rank():  # or dropout repeats on each process
            torch.manual_seed(derive(self.params.training.seed, step, rank()))

    def _sample(self, step: int, index: int) -> list[np.ndarray]:
        """Returns the frames (T, H, W, C) of a window and its masks (T, H, W) of each map."""
        random = rng(self.params.training.seed, step, index)
        k, t = self._index.at(int(random.integers(len(self._index))))
        clip = self.train[k]
        window = slice(t, t + self._frames)
        masks = {one: store.masks(clip, window) for one, store in zip(self.maps, self._masks, strict=True)}
        frames_THWC, masks = augment(self.store.frames(clip)[window], masks, self.params.augment, random)
        return [frames_THWC, *masks.values()]

    def _clips(self, split: str) -> Sequence[Clip]:
        labelled = self.store.select(split, "labelled")
        needed = {FRAMES, *(labels_of(one.name) for one in self.maps)}
        found = self.store.where(
            lambda group: (group.split, group.kind) == (split, "labelled") and needed <= set(group.layers)
        )
        if not found:
            what = (
                "frames"
                if len(self.maps) == 1
                else f"frames and masks of {', '.join(one.name for one in self.maps)}"
            )
            raise MaskcastError(
                f"{self.store.root}: none of the {len(labelled)} labelled clips of split {split!r} has {what}; "
                f"prepare clips with {what} to train a masker"
            )
        return found

    def _need_foreground(self) -> None:
        """Makes sure, before any training, that validation has something to tell models apart by."""
        every = slice(None, None, self.params.val_frame_step)
        for one, store in zip(self.maps, self._masks, strict=True):
            counts = no_counts(one)
            for clip in self.val:
                truth = store.masks(clip, every)
                counts += counts_of(one, truth, truth)
                if not math.isnan(map_scores(one, counts)["jaccard"]):
                    break
            else:
                raise MaskcastError(
                    f"{store.root}: no validation clip has foreground in its {one.name}, so no score can tell one "
                    "masker from another; give split val clips with foreground"
                )

    def _start(self, encoder: Path | None) -> tuple[list[float], list[float]] | None:
        """Loads pretrained weights; returns mean and std of the colours that they belong to, where known."""
        config = self.params.model
        self.pretrained = config.load_pretrained(self.segmenter)
        if encoder is None or not is_trained(encoder):
            if self.pretrained is None:
                return None
            self.fingerprint = self.pretrained.renamed(self.fingerprint)
            return self.pretrained.colours
        if config.encoder_config is None:
            raise MaskcastError(
                f"{encoder}: train_masker.model {config.arch!r} starts from no encoder; "
                "set pretrain_encoder.method to none, or choose another model"
            )
        start = load_into(config.encoder_of(self.segmenter), encoder, config.encoder_config, "train_masker.model")
        if self.pretrained is not None:
            raise MaskcastError(
                f"{encoder}: train_masker.model.encoder_weights is another encoder to start from; set it to null"
            )
        return None if start is None else (start["meta"]["mean"], start["meta"]["std"])


class FrameTask(_SegmentationTask):
    """Trains a segmenter without state: a window is one frame."""

    def loss(self, batch: Windows, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of a batch."""
        self._seed(step)
        logits, _ = self.segmenter(batch.frames_BTHWC)
        return self._loss(logits, batch.masks), {}


class WindowTask(_SegmentationTask):
    """Trains a segmenter with state by truncated back-propagation through time.

    A window starts without state, or after ``burn_in`` frames without a gradient, so that a step depends on
    nothing but its number.
    """

    def __init__(
        self,
        store: ClipStore,
        params: SegmentationTraining,
        window: WindowParams,
        fingerprint: str,
        encoder: Path | None = None,
    ) -> None:
        super().__init__(store, params, fingerprint, encoder)
        self.window = window

    def chunks(self, batch: Windows) -> int:
        """Returns the number of chunks of a window."""
        return len(self._starts)

    def losses(self, batch: Windows, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yields the loss of each chunk, times its share of the window's frames.

        The state goes on from chunk to chunk, no gradient does.
        """
        self._seed(step)
        state: State = ()
        if self.window.burn_in:
            with torch.no_grad():
                _, state = self.segmenter(batch.frames_BTHWC[:, : self.window.burn_in], state)
        for start in self._starts:
            chunk = slice(start, min(start + self.window.chunk, self.window.total))
            logits, state = self.segmenter(batch.frames_BTHWC[:, chunk], state)
            state = tuple(each.detach() for each in state)
            share = (chunk.stop - chunk.start) / self.window.frames
            yield share * self._loss(logits, [masks_BTHW[:, chunk] for masks_BTHW in batch.masks]), {}

    @property
    def _starts(self) -> range:
        return range(self.window.burn_in, self.window.total, self.window.chunk)


def segmentation_task(
    store: ClipStore, params: SegmentationTraining, fingerprint: str, encoder: Path | None = None
) -> FrameTask | WindowTask:
    """Returns the task that fits the model."""
    if params.window is None:
        return FrameTask(store, params, fingerprint, encoder)
    return WindowTask(store, params, params.window, fingerprint, encoder)


def chosen_maps(store: ClipStore, names: Sequence[str] | None) -> tuple[LabelMap, ...]:
    """Returns the label maps of a store that have these names, or all that can be learnt.

    Raises:
        MaskcastError: if there is no such map, or none that can be learnt.
    """
    if names is not None:
        return tuple(store.of(name).label_map for name in names)
    found = tuple(one for one in store.maps.values() if one.kind != "instances")
    if not found:
        raise MaskcastError(f"{store.root}: has no label map of kind classes or alpha; prepare clips with one")
    return found
