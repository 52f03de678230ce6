"""MoCo v2 (Chen et al. 2020, arXiv 2003.04297) and DenseCL (Wang et al. 2021, arXiv 2011.09157).

Legend: B samples of the whole batch, b of this process, C channels, D embedding length, K queue length, S cells of
the last map.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.distributed import all_sum
from maskcast.models.arithmetic import without_autocast
from maskcast.models.encoders.configs import DenseCLConfig, MocoConfig
from maskcast.models.encoders.siamese import Normalised, Siamese, Views, cells, embedding_spread, pool


class _Heads(nn.Module):
    """Heads of two layers: ``frame`` for the mean over the map, ``cell`` (1x1 convolutions) for every cell."""

    def __init__(self, channels: int, hidden: int, dim: int, *, dense: bool) -> None:
        super().__init__()
        self.frame = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        if dense:
            self.cell = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, dim, 1))


class Moco(Siamese):
    """MoCo v2; the queue of keys is a buffer."""

    head: Any
    queue_KD: Tensor

    dense = False

    def __init__(self, config: MocoConfig, encoder: Normalised) -> None:
        heads = _Heads(encoder.channels, config.hidden, config.dim, dense=self.dense)
        super().__init__(encoder, heads, config.momentum, config.sub_batches)
        self.config = config
        self.register_buffer("queue_KD", F.normalize(torch.randn(config.queue, config.dim), dim=1))

    def loss(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of the whole batch, and to log: how often the right key ranks first, and the spread."""
        self.move_target()
        query_bD = _embedded(self.head, self.encoder(views.own[0]))
        (key_BD,) = self.targets(views.shuffled[1], views.order, self._keys)
        loss, hits = info_nce(query_bD, self.own(key_BD), self.queue_KD, self.config.temperature)
        enqueue(self.queue_KD, key_BD, views.step)
        return _mean(loss, len(key_BD)), {
            "accuracy": _mean(hits, len(key_BD)),
            "embedding_spread": embedding_spread(key_BD),
        }

    def _keys(self, map_nChw: Tensor) -> list[Tensor]:
        return [_embedded(self.target[1], map_nChw)]


class DenseCL(Moco):
    """MoCo with a second head and queue for cells."""

    cell_queue_KD: Tensor

    dense = True

    def __init__(self, config: DenseCLConfig, encoder: Normalised) -> None:
        super().__init__(config, encoder)
        self.dense_weight = config.dense_weight
        self.register_buffer("cell_queue_KD", F.normalize(torch.randn(config.queue, config.dim), dim=1))

    def loss(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum of both losses, and to log: the hit rates of both, and the spread."""
        self.move_target()
        map_bChw = self.encoder(views.own[0])
        query_bD = _embedded(self.head, map_bChw)
        query_bDS = cells(self.head.cell(map_bChw))
        key_BD, key_BDS, like_BCS, mean_BD = self.targets(views.shuffled[1], views.order, self._dense_keys)
        temperature, batch = self.config.temperature, len(key_BD)
        frame_loss, frame_hits = info_nce(query_bD, self.own(key_BD), self.queue_KD, temperature)
        match_bDS = matched(cells(map_bChw), self.own(like_BCS), self.own(key_BDS))
        rows_QD, keys_QD = (x_bDS.transpose(1, 2).flatten(0, 1) for x_bDS in (query_bDS, match_bDS))
        cell_loss, cell_hits = info_nce(rows_QD, keys_QD, self.cell_queue_KD, temperature)
        enqueue(self.queue_KD, key_BD, views.step)
        enqueue(self.cell_queue_KD, mean_BD, views.step)
        cell_count = batch * query_bDS.shape[2]
        frame_part = (1 - self.dense_weight) * _mean(frame_loss, batch)
        return frame_part + self.dense_weight * _mean(cell_loss, cell_count), {
            "accuracy": _mean(frame_hits, batch),
            "cell_accuracy": _mean(cell_hits, cell_count),
            "embedding_spread": embedding_spread(key_BD),
        }

    def _dense_keys(self, map_nChw: Tensor) -> list[Tensor]:
        """Returns keys of frames and cells, features for matching cells, and the mean of the cells' keys."""
        heads: Any = self.target[1]
        dense_nDhw = heads.cell(map_nChw)
        mean_nD = F.normalize(pool(dense_nDhw).float(), dim=1)
        return [*self._keys(map_nChw), cells(dense_nDhw), cells(map_nChw), mean_nD]


def info_nce(query_QD: Tensor, key_QD: Tensor, queue_KD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Returns the loss of each query and whether its own key is the most similar, float (Q,) each.

    The loss is ``-log exp(q.k / t) / (exp(q.k / t) + sum over the queue of exp(q.n / t))``; all are normalised.
    """
    own_Q1 = (query_QD * key_QD).sum(1, keepdim=True)
    with without_autocast(query_QD.device):  # as precise as that of the own key
        others_QK = query_QD @ queue_KD.t().clone()  # a copy, as the queue is updated before backward
    logits_QK = torch.cat([own_Q1, others_QK], 1) / temperature
    loss_Q = F.cross_entropy(logits_QK, logits_QK.new_zeros(len(logits_QK), dtype=torch.long), reduction="none")
    return loss_Q, (logits_QK.argmax(1) == 0).float()


def matched(query_bCS: Tensor, like_bCS: Tensor, key_bDS: Tensor) -> Tensor:
    """Returns for each cell of the query the key of the cell with the most similar features, (b, D, S)."""
    with without_autocast(query_bCS.device):  # in bf16 the most similar cells often tie
        best_bS = (query_bCS.detach().transpose(1, 2) @ like_bCS).argmax(2)
    return key_bDS.gather(2, best_bS[:, None].expand(-1, key_bDS.shape[1], -1))


@torch.no_grad()
def enqueue(queue_KD: Tensor, key_BD: Tensor, step: Tensor) -> None:
    """Replaces the oldest keys in the queue, whose length is a multiple of the batch, by those of a step."""
    start = step * len(key_BD) % len(queue_KD)
    queue_KD.index_copy_(0, start + torch.arange(len(key_BD), device=start.device), key_BD)


def _embedded(heads: Any, map_BChw: Tensor) -> Tensor:
    """Returns the normalised embedding of each frame, (B, D)."""
    return F.normalize(heads.frame(pool(map_BChw)).float(), dim=1)


def _mean(own: Tensor, count: int) -> Tensor:
    return all_sum(own.sum()) / count
