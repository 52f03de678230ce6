"""Self-supervised training of a whole masker, which predicts an image (``models/encoders/dense.py``).

Legend: B samples of a batch, T = 1 frame per sample, H height, W width, C = 3 channels (RGB).
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.data.augment.views import same_views
from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.clip_store.statistics import MOST_FRAMES, colour_statistics
from maskcast.data.unlabeled import Frames
from maskcast.distributed import rank_indices, seed_own_draws
from maskcast.labels import LabelMap
from maskcast.models.encoders.configs import DenseConfig, NextFrameConfig
from maskcast.models.encoders.dense import PretextSample, pretext_sample, sums
from maskcast.models.encoders.siamese import Normalised
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.models.segmentation.table import build_segmenter
from maskcast.seed import rng, seed_libraries
from maskcast.training.feeding import to_device
from maskcast.training.task import Task
from maskcast.training.tasks.encoder_params import EncoderTraining

COLOURS = LabelMap("colours", ("red", "green", "blue"))  # predicted instead of classes


class DenseTask(Task):
    """Predicts images from views of frames, which are drawn uniformly at random.

    Args:
        frames: training data.
        params: of the stage.
        method: the one in ``params``.
        network: the one in ``params``.
        fingerprint: identifies params, data and code.
    """

    def __init__(
        self,
        frames: Frames,
        params: EncoderTraining,
        method: DenseConfig,
        network: SegmenterModelConfig,
        fingerprint: str,
    ) -> None:
        self.frames, self.params, self.method, self.fingerprint = frames, params, method, fingerprint
        self._network = network
        seed_libraries(params.training.seed)
        self.segmenter = build_segmenter(network, (COLOURS,))
        if (pretrained := network.load_pretrained(self.segmenter)) is not None:
            self.fingerprint = pretrained.renamed(fingerprint)
        sample = map(frames.frame, evenly_spaced(len(frames), MOST_FRAMES))
        pretrained_colours = pretrained and pretrained.colours
        self.colours = tuple(np.array(x, np.float32) for x in pretrained_colours or colour_statistics(sample))
        for buffer, values in zip((self.segmenter.mean, self.segmenter.std), self.colours, strict=True):
            buffer.copy_(torch.from_numpy(values))
        self.encoder = Normalised(network.encoder_of(self.segmenter), *map(torch.from_numpy, self.colours))
        self.model: nn.Module = self.segmenter

    @property
    def same_each_step(self) -> bool:
        """Whether a step can be recorded (``models/cuda_graphs.py``)."""
        return self._network.same_each_step

    def batch(self, step: int) -> PretextSample:
        """Returns this process's samples: a pure function of (seed, step)."""
        each = self.frames.each(partial(self._sample, step), rank_indices(self.params.training.batch_size))
        return PretextSample(*(torch.from_numpy(np.stack(part)) for part in zip(*each, strict=True)))

    def loss(self, batch: PretextSample, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the mean squared error over the whole batch."""
        seed_own_draws(self.params.training.seed, step)
        error, target_square, weight = self._sums(batch)
        return error / weight, {"explained": 1 - (error / target_square).detach()}

    def validate(self) -> dict[str, float]:
        """Returns ``explained``, the share of the targets' mean square that is predicted, on a batch of its own.

        Where frames do not move, all targets are 0, and there is no such score.
        """
        batch = to_device(self.batch(self.params.training.steps), self.segmenter.mean.device)
        error, target_square, _ = self._sums(batch)
        return {"explained": 1 - (error / target_square).item()} if target_square else {}

    def pictures(self, count: int) -> np.ndarray:
        """Returns the inputs of some samples and their targets as images, (2, count, H, W, C) uint8."""
        input_BHWC, target_BHWC, _ = (np.asarray(part)[:count] for part in self.batch(0))
        return np.clip(np.stack([input_BHWC, 127.5 + 64 * target_BHWC]), 0, 255).astype(np.uint8)

    def _sums(self, batch: PretextSample) -> tuple[Tensor, Tensor, Tensor]:
        (predicted_BTCHW,), _ = self.segmenter(torch.as_tensor(batch.seen)[:, None])
        return sums(predicted_BTCHW[:, 0], batch)

    def _sample(self, step: int, index: int) -> PretextSample:
        random = rng(self.params.training.seed, step, index)
        drawn = int(random.integers(len(self.frames)))
        if isinstance(self.method, NextFrameConfig):
            pair = self.frames.pair(drawn, self.method.distance)
        else:
            pair = (self.frames.frame(drawn),) * 2
        view_HWC, later_HWC = same_views(*pair, self.params.views, random)
        return pretext_sample(self.method, view_HWC, later_HWC, (self.colours[0], self.colours[1]), random)
