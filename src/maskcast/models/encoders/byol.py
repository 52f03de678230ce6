"""BYOL (Grill et al. 2020, arXiv 2006.07733): predicts the target network's embedding of the other view."""

from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.distributed import all_sum
from maskcast.models.encoders.configs import ByolConfig
from maskcast.models.encoders.siamese import Normalised, Siamese, Views, embedding_spread, pool


class Byol(Siamese):
    """BYOL with the loss of both directions."""

    def __init__(self, config: ByolConfig, encoder: Normalised) -> None:
        super().__init__(
            encoder, _mlp(encoder.channels, config.hidden, config.dim), config.momentum, config.sub_batches
        )
        self.predictor = _mlp(config.dim, config.hidden, config.dim)

    def loss(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the sum of both directions' losses (each between 0 and 4), and the spread to log."""
        self.move_target()
        losses = []
        for mine, other in ((0, 1), (1, 0)):
            (target_BD,) = self.targets(views.shuffled[other], views.order, self._projections)
            predicted_bD = self.predictor(self.head(pool(self.encoder(views.own[mine]))))
            own_b = byol_loss(predicted_bD.float(), self.own(target_BD))
            losses.append(all_sum(own_b.sum()) / len(target_BD))
        return losses[0] + losses[1], {"embedding_spread": embedding_spread(target_BD)}

    def _projections(self, map_nChw: Tensor) -> list[Tensor]:
        return [F.normalize(self.target[1](pool(map_nChw)).float(), dim=1)]


def byol_loss(predicted_bD: Tensor, target_bD: Tensor) -> Tensor:
    """Returns ``2 - 2 cos(predicted, target)`` of each row, (b,)."""
    # torch's cosine_similarity copies a number from the host, which a recorded step must not
    return 2 - 2 * (F.normalize(predicted_bD, dim=1) * F.normalize(target_bD, dim=1)).sum(1)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
