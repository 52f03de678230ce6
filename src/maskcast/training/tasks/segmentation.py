"""Trains a segmenter: on single frames or, if it has a state, on windows of clips.

Legend: B samples, T frames per sample, H height, W width, C = 3 channels, K channels of logits.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from maskcast.data.clip_store.reader import ClipStore
from maskcast.models.segmentation.base import State, check_logits, run_segmenter
from maskcast.models.segmentation.recurrent import RecurrentSegmenter
from maskcast.training.step_metrics import Logged
from maskcast.training.task import ChunkedTask
from maskcast.training.tasks.segmentation_base import SegmentationTask
from maskcast.training.tasks.segmentation_params import SegmentationTraining, WindowParams
from maskcast.training.tasks.segmentation_windows import Windows


class FrameTask(SegmentationTask):
    """Trains a segmenter without state, for which a window is one frame."""

    def loss(self, batch: Windows, step: int) -> tuple[Tensor, Logged]:
        """Returns the loss of a batch."""
        windows = self._begin(batch, step)
        with self._feature_dropout(batch, windows):
            logits, _ = run_segmenter(self.student, windows.frames_BTHWC)
        losses = self._map_losses(windows.masks, batch, step)
        return self._loss(logits, windows.masks, losses, batch, step)


class WindowTask(SegmentationTask, ChunkedTask):
    """Trains a segmenter with state by truncated back-propagation through time.

    A window starts with the initial state, or after ``burn_in`` frames without a gradient. No state is kept
    between steps, so that a step depends on its number only.
    """

    @property
    def window(self) -> WindowParams:
        """The params of the training windows."""
        assert self.params.window is not None  # params of a model with state are checked to have it
        return self.params.window

    def chunks(self, batch: Windows) -> int:
        """Returns the number of chunks of a window."""
        return len(self._chunk_starts)

    def losses(self, batch: Windows, step: int) -> Iterator[tuple[Tensor, Logged]]:
        """Yields the part of each chunk in the loss of the windows (``segmentation_map_loss``).

        The state is passed from chunk to chunk; gradients are not.
        """
        windows = self._begin(batch, step)
        dropout = partial(self._feature_dropout, batch, windows)
        state: State = ()
        if self.window.burn_in:
            with torch.no_grad(), dropout():
                _, state = run_segmenter(self.student, windows.frames_BTHWC[:, : self.window.burn_in], state)
            torch.clear_autocast_cache()  # older PyTorch caches weights cast without a gradient
        masks = [masks_BTHW[:, self.window.burn_in :] for masks_BTHW in windows.masks]
        losses = self._map_losses(masks, batch, step)
        losses_alone = self._map_losses(masks, batch, step) if self.window.alone else []
        for start in self._chunk_starts:
            chunk = slice(start, min(start + self.window.chunk, self.window.total))
            masks = [masks_BTHW[:, chunk] for masks_BTHW in windows.masks]
            with dropout():
                logits, without_memory, state = self._chunk_logits(windows.frames_BTHWC[:, chunk], state)
            share = (chunk.stop - chunk.start) / self.window.frames
            loss, numbers = self._loss(logits, masks, losses, batch, step, share)
            if without_memory:
                loss = loss + self.window.alone * self._sum_of_maps(without_memory, losses_alone)
            state = tuple(each.detach() for each in state)
            yield loss, numbers

    def _chunk_logits(
        self, frames_BTHWC: Tensor, state: State
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], State]:
        """Returns a chunk's logits, those of its frames without memory (if they are learnt) and the last state."""
        if not self.window.alone:
            logits, state = run_segmenter(self.student, frames_BTHWC, state)
            return logits, (), state
        assert isinstance(self.student, RecurrentSegmenter)
        logits, alone, state = self.student.with_frames_alone(frames_BTHWC, state)
        for each in (logits, alone):
            check_logits(self.student, frames_BTHWC, each)
        return logits, alone, state

    @property
    def _chunk_starts(self) -> range:
        return range(self.window.burn_in, self.window.total, self.window.chunk)


def segmentation_task(
    store: ClipStore,
    params: SegmentationTraining,
    fingerprint: str,
    encoder: Path | None = None,
    start: Path | None = None,
    generated: Path | None = None,
    unlabeled: Path | None = None,
) -> FrameTask | WindowTask:
    """Returns the task for the model: `WindowTask` if it has a state, else `FrameTask`."""
    task = FrameTask if params.window is None else WindowTask
    return task(store, params, fingerprint, encoder, start, generated, unlabeled)
