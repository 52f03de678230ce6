"""Training a segmenter: on single frames, or on windows of clips where it has a state.

Legend: B samples, T frames of a sample, H height, W width, C = 3 channels, K channels of logits.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from maskcast.data.clips import ClipStore
from maskcast.data.statistics import frame_statistics
from maskcast.distributed import rank
from maskcast.errors import MaskcastError
from maskcast.models.encoders.table import is_trained, load_into
from maskcast.models.segmentation.base import Segmenter, State
from maskcast.models.segmentation.losses import AlphaLoss, MaskLoss
from maskcast.models.segmentation.recurrent import RecurrentSegmenter
from maskcast.models.segmentation.table import start_from_masker
from maskcast.seed import derive
from maskcast.training.tasks.segmentation_params import SegmentationTraining, WindowParams
from maskcast.training.tasks.segmentation_validation import Validation
from maskcast.training.tasks.segmentation_windows import LabelledWindows, Windows, chosen_maps


class _SegmentationTask:
    """What both trainings share: windows to learn from, validation, and the weights to start from.

    Args:
        store: the clips.
        params: what to train, and how.
        fingerprint: names params and data.
        encoder: what ``pretrain_encoder`` wrote, to start from.
        start: what ``train_masker`` wrote, to start from.

    Raises:
        MaskcastError: if there is no such map, no clips to learn from or to validate on, or what it is to start
            from does not fit.
    """

    monitor: str | None = "jaccard"

    def __init__(
        self,
        store: ClipStore,
        params: SegmentationTraining,
        fingerprint: str,
        encoder: Path | None = None,
        start: Path | None = None,
    ) -> None:
        self.store, self.params, self.fingerprint = store, params, fingerprint
        self.maps = chosen_maps(store, params.maps)
        self.windows = LabelledWindows(store, self.maps, params)
        self.validation = Validation(store, self.maps, params)
        torch.manual_seed(derive(params.training.seed))
        self.segmenter: Segmenter = params.model.build(self.maps)
        colours = self._start(encoder)
        if start is not None:
            self._check_only_start(start, encoder)
            start_from_masker(self.segmenter, start)
        else:
            mean, std = colours or frame_statistics(store, self.windows.clips)
            self.segmenter.mean.copy_(torch.as_tensor(mean))
            self.segmenter.std.copy_(torch.as_tensor(std))
        self.model: nn.Module = self.segmenter
        self.criteria = [AlphaLoss() if one.kind == "alpha" else MaskLoss(params.loss) for one in self.maps]

    def batch(self, step: int) -> Windows:
        """Returns this process's windows, augmented: a pure function of (seed, step)."""
        return self.windows.batch(step)

    def validate(self) -> dict[str, float]:
        """Returns ``jaccard`` and ``accuracy`` over the pooled validation frames; see ``Validation.scores``."""
        return self.validation.scores(self.segmenter)

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

    def _check_only_start(self, start: Path, encoder: Path | None) -> None:
        if self.pretrained is not None or (encoder is not None and is_trained(encoder)):
            raise MaskcastError(
                f"{start}: the encoder is another start; give no --encoder, and no encoder_weights in the model"
            )


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
        start: Path | None = None,
    ) -> None:
        super().__init__(store, params, fingerprint, encoder, start)
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
            masks = [masks_BTHW[:, chunk] for masks_BTHW in batch.masks]
            loss, state = self._chunk_loss(batch.frames_BTHWC[:, chunk], masks, state)
            state = tuple(each.detach() for each in state)
            share = (chunk.stop - chunk.start) / self.window.frames
            yield share * loss, {}

    def _chunk_loss(self, frames_BTHWC: Tensor, masks: Sequence[Tensor], state: State) -> tuple[Tensor, State]:
        """Returns the loss of a chunk, that of its frames alone added, and the state after it."""
        if not self.window.alone:
            logits, state = self.segmenter(frames_BTHWC, state)
            return self._loss(logits, masks), state
        assert isinstance(self.segmenter, RecurrentSegmenter)
        logits, alone, state = self.segmenter.with_frames_alone(frames_BTHWC, state)
        return self._loss(logits, masks) + self.window.alone * self._loss(alone, masks), state

    @property
    def _starts(self) -> range:
        return range(self.window.burn_in, self.window.total, self.window.chunk)


def segmentation_task(
    store: ClipStore,
    params: SegmentationTraining,
    fingerprint: str,
    encoder: Path | None = None,
    start: Path | None = None,
) -> FrameTask | WindowTask:
    """Returns the task that fits the model."""
    if params.window is None:
        return FrameTask(store, params, fingerprint, encoder, start)
    return WindowTask(store, params, params.window, fingerprint, encoder, start)
