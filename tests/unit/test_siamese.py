"""Losses, queue and slow copy of the self-supervised methods, against cases worked out by hand."""

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.errors import MaskcastError
from maskcast.models.encoders.byol import byol_loss
from maskcast.models.encoders.configs import (
    ByolConfig,
    DenoiseConfig,
    DenseCLConfig,
    MaskedConfig,
    Method,
    MocoConfig,
    NextFrameConfig,
    NoMethod,
    SiameseConfig,
    UNetEncoderConfig,
)
from maskcast.models.encoders.moco import enqueue, info_nce, matched
from maskcast.models.encoders.siamese import Normalised, Views, embedding_spread

SMALL: dict[str, Any] = {"dim": 4, "hidden": 8, "sub_batches": 2}
METHODS = {
    "moco": MocoConfig(queue=8, **SMALL),
    "densecl": DenseCLConfig(queue=8, **SMALL),
    "byol": ByolConfig(**SMALL),
}


def test_every_method_has_a_case() -> None:
    others = {one for one in get_args(get_args(Method)[0]) if not issubclass(one, SiameseConfig)}
    assert others == {NoMethod, DenoiseConfig, MaskedConfig, NextFrameConfig}  # tests/unit/test_dense.py
    assert {type(config) for config in METHODS.values()} | others == set(get_args(get_args(Method)[0]))


def build(config: Any) -> Any:
    torch.manual_seed(0)
    encoder = UNetEncoderConfig(width=2).build()
    return config.build(Normalised(encoder, torch.full((3,), 0.5), torch.full((3,), 0.25)))


def views(order: list[int]) -> Views:
    """Returns two views of four samples, their copy's part in the given order."""
    pictures = torch.randint(0, 256, (2, 4, 16, 16, 3), generator=torch.Generator().manual_seed(1))
    own = pictures.to(torch.uint8)
    return Views(own, own[:, order], torch.tensor(order), torch.tensor(0))


def test_info_nce_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    key = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    queue = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    loss, hits = info_nce(query, key, queue, temperature=0.5)
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(0) + math.exp(-2)))
    second = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(2) + math.exp(0)))
    assert loss.tolist() == pytest.approx([first, second])
    assert hits.tolist() == [1, 0]


def test_the_oldest_keys_leave_the_queue() -> None:
    queue = torch.zeros(6, 1)
    for step in range(4):
        enqueue(queue, torch.full((2, 1), step + 1.0), torch.tensor(step))
    assert queue.flatten().tolist() == [4, 4, 2, 2, 3, 3]


def test_cells_are_matched_by_their_features() -> None:
    query = torch.tensor([[[1.0, 0.0, 0.8], [0.0, 1.0, 0.6]]])  # cells (1, 0), (0, 1), (.8, .6)
    like = torch.tensor([[[0.0, 1.0, 0.6], [1.0, 0.0, 0.8]]])  # cells (0, 1), (1, 0), (.6, .8)
    keys = torch.tensor([[[10.0, 20.0, 30.0]]])
    assert matched(query, like, keys).tolist() == [[[20, 10, 30]]]


def test_what_is_alike_is_found_in_float32_under_autocast() -> None:
    near = torch.tensor([1.0, 1 + 2e-3])  # equal in bfloat16
    query, like = torch.ones(1, 1, 1), near.view(1, 1, 2)
    keys = torch.tensor([[[10.0, 20.0]]])
    one = torch.ones(1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert matched(query, like, keys).tolist() == [[[20]]]
        _, hits = info_nce(one, one, near[1:].view(1, 1), temperature=1.0)
    assert hits.tolist() == [0]


def test_byol_by_hand() -> None:
    predicted = torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    target = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-3.0, 0.0]])
    assert byol_loss(predicted, target).tolist() == pytest.approx([0, 2 - math.sqrt(2), 4])


def test_the_spread_of_embeddings() -> None:
    assert embedding_spread(torch.eye(2).repeat(8, 1) * torch.tensor([1.0, -1.0])) == pytest.approx(math.sqrt(0.5))
    even = F.normalize(torch.randn(5000, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    assert embedding_spread(even) == pytest.approx(1, abs=0.02)
    assert embedding_spread(torch.ones(9, 4) / 2) == 0


@pytest.mark.parametrize("name", METHODS)
def test_the_copy_moves_by_momentum_and_learns_nothing_else(name: str) -> None:
    model = build(METHODS[name].model_copy(update={"momentum": 0.75}))
    fast = [*model.encoder.parameters(), *model.head.parameters()]
    slow = list(model.target.parameters())
    before = [parameter.clone() for parameter in slow]
    with torch.no_grad():
        for parameter in fast:
            parameter.add_(1)
    loss, _ = model.loss(views([0, 1, 2, 3]))
    loss.backward()
    for parameter, old in zip(slow, before, strict=True):
        torch.testing.assert_close(parameter, old + 0.25)
        assert parameter.grad is None and not parameter.requires_grad
    unmoved = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unmoved == []


def test_the_loss_of_moco_is_that_of_its_parts() -> None:
    model = build(MocoConfig(queue=4, **SMALL | {"sub_batches": 1}))
    seen, queue = views([2, 0, 3, 1]), model.queue_KD.clone()
    query = F.normalize(model.head.frame(model.encoder(seen.own[0]).mean((2, 3))), dim=1)
    encoder, head = model.target
    key = F.normalize(head.frame(encoder(seen.own[1]).mean((2, 3))), dim=1)
    expected = F.cross_entropy(
        torch.cat([(query * key).sum(1, keepdim=True), query @ queue.t()], 1) / 0.2,
        torch.zeros(4, dtype=torch.long),
    )
    loss, logged = model.loss(seen)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(model.queue_KD, key)
    assert 0 <= logged["accuracy"] <= 1


def test_keys_come_back_in_the_order_of_the_batch() -> None:
    """One sample is one key, whichever place it has among the shuffled ones of its sub-batch."""
    model = build(METHODS["moco"])
    for order in ([0, 1, 2, 3], [1, 0, 3, 2]):
        (mean,) = model.targets(views(order).shuffled[1], torch.tensor(order), lambda part: [part.mean((2, 3))])
        if order == [0, 1, 2, 3]:
            expected = mean
    torch.testing.assert_close(mean, expected)


def test_sub_batches_have_norms_of_their_own() -> None:
    """What a sub-batch gives does not depend on the other one."""
    model = build(METHODS["moco"])
    seen = views([0, 1, 2, 3]).shuffled[1]
    changed = seen.clone()
    changed[2:] = 255 - changed[2:]
    pairs = [model.targets(x, torch.arange(4), lambda part: [part.mean((2, 3))])[0] for x in (seen, changed)]
    torch.testing.assert_close(pairs[0][:2], pairs[1][:2])
    assert not torch.allclose(pairs[0][2:], pairs[1][2:])


def test_dense_weight_0_is_moco() -> None:
    dense, plain = build(METHODS["densecl"].model_copy(update={"dense_weight": 0.0})), build(METHODS["moco"])
    plain.load_state_dict(
        {name: tensor for name, tensor in dense.state_dict().items() if name in plain.state_dict()}
    )
    assert dense.loss(views([0, 1, 2, 3]))[0].item() == pytest.approx(plain.loss(views([0, 1, 2, 3]))[0].item())


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_which_views_belong_together(name: str) -> None:
    """Views that are one colour each: the loss falls well below what it was."""
    model = build(METHODS[name].model_copy(update={"momentum": 0.9, "sub_batches": 1}))
    colours = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220], [200, 200, 30]], dtype=torch.uint8)
    pictures = colours[None, :, None, None].expand(2, 4, 16, 16, 3)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    losses = []
    for step in range(40):
        loss, _ = model.loss(Views(pictures, pictures, torch.arange(4), torch.tensor(step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.75 if name == "byol" else 1.1) * max(losses[:4])


@pytest.mark.parametrize(
    ("queue", "line"),
    [
        (100, r"method.queue 100 must be a multiple of training.batch_size 32; choose e.g. 96"),
        (320, r"method.queue 320 must be below the 300 frames .*; set it to 288 at most"),
    ],
)
def test_a_queue_that_does_not_fit(queue: int, line: str) -> None:
    with pytest.raises(MaskcastError, match=line):
        MocoConfig(queue=queue).check(batch_size=32, frames=300)


def test_a_normalised_encoder_pads_to_its_stride() -> None:
    class Means(nn.Module):
        output_stride, out_channels = 4, [3]

        def forward(self, x: Tensor) -> list[Tensor]:
            return [F.avg_pool2d(x, 4)]

    frames = torch.full((1, 6, 9, 3), 255, dtype=torch.uint8)
    found = Normalised(Means(), torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 1.0]))(frames)
    assert found.shape == (1, 3, 2, 3)
    assert found[0, :, 0, 0].tolist() == [1, 1, 0]
