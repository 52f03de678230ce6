"""Self-supervised training of an encoder.

Legend: B samples of a batch, H height, W width, C = 3 channels (RGB).
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.data.augment.views import two_views
from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.clip_store.statistics import MOST_FRAMES, colour_statistics
from maskcast.data.unlabeled import Frames
from maskcast.distributed import rank_indices, seed_own_draws
from maskcast.errors import MaskcastError
from maskcast.models.encoders.configs import SiameseConfig
from maskcast.models.encoders.siamese import Normalised, Views
from maskcast.seed import rng, seed_libraries
from maskcast.training.task import Task
from maskcast.training.tasks.encoder_params import EncoderTraining

COLLAPSED = 0.01  # spread of a batch's embeddings below which they have collapsed; 1 is uniform


class EncoderTask(Task):
    """Compares two views of each sample; frames are drawn uniformly at random.

    Args:
        frames: training data.
        params: of the stage.
        method: the one in ``params``.
        fingerprint: identifies params, data and code.
    """

    same_each_step = True

    def __init__(self, frames: Frames, params: EncoderTraining, method: SiameseConfig, fingerprint: str) -> None:
        self.frames, self.params, self.method, self.fingerprint = frames, params, method, fingerprint
        method.check(params.training.batch_size, len(frames))
        seed_libraries(params.training.seed)
        encoder = params.model.build()
        some = map(frames.frame, evenly_spaced(len(frames), MOST_FRAMES))
        mean, std = map(torch.from_numpy, colour_statistics(some))
        self.siamese = method.build(Normalised(encoder, mean, std))
        self.model: nn.Module = self.siamese

    def batch(self, step: int) -> Views:
        """Returns this process's views: a pure function of (seed, step)."""
        size, parts = self.params.training.batch_size, self.method.sub_batches
        own = list(rank_indices(size))
        shuffled = rng(self.params.training.seed, step).permutation(size).reshape(parts, -1)
        order = shuffled[rank_indices(parts)].flatten().tolist()
        needed = sorted({*own, *order})
        pairs = dict(zip(needed, self.frames.each(partial(self._pair, step), needed), strict=True))
        own_views, shuffled_views = (
            torch.from_numpy(np.stack([pairs[k] for k in part], 1)) for part in (own, order)
        )
        return Views(own_views, shuffled_views, torch.tensor(order), torch.tensor(step))

    @property
    def encoder(self) -> Normalised:
        """The encoder that is trained and kept."""
        return self.siamese.encoder

    def pictures(self, count: int) -> np.ndarray:
        """Returns both views of some samples, (2, count, H, W, C) uint8."""
        return self.batch(0).own[:, :count].numpy()

    def _pair(self, step: int, index: int) -> np.ndarray:
        """Returns both views of a sample, (2, H, W, C)."""
        random = rng(self.params.training.seed, step, index)
        drawn = int(random.integers(len(self.frames)))
        first = self.frames.frame(drawn)
        distance = self.params.max_frame_distance
        second = self.frames.near(drawn, distance, random) if distance else first
        return np.stack(two_views(first, second, self.params.views, random))

    def loss(self, batch: Views, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of a batch."""
        seed_own_draws(self.params.training.seed, step)
        loss, logged = self.siamese.loss(batch)
        self._spread = logged["embedding_spread"]
        return loss, logged

    def validate(self) -> dict[str, float]:
        """Returns the spread of the last batch's embeddings, the only score without labels.

        Raises:
            MaskcastError: if the embeddings have collapsed to one point.
        """
        spread = float(self._spread)
        if spread < COLLAPSED:
            raise MaskcastError(
                f"pretrain_encoder: collapsed: the embeddings of a batch spread {spread:.2g} (1 is even, "
                f"below {COLLAPSED} is one point); lower learning_rate, raise momentum, or choose method moco"
            )
        return {"embedding_spread": spread}
