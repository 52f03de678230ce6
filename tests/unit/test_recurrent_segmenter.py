"""A masker with a memory: it starts as the masker, goes on without one, and what is frozen stays as it is."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.labels import single_map
from maskcast.models.segmentation.configs import RecurrentConfig, SmpConfig, UNetConfig
from maskcast.models.segmentation.memory import CellMemory

MAPS = single_map("abc")
UNET = UNetConfig(width=4)
VERSIONS = {  # of system 1, docs/video.md
    f"{cell} V{n}": {"place": place, "cell": cell, "sees": sees}
    for cell in ("gru", "lstm")
    for n, (place, sees) in enumerate(
        product(("logits", "decoder", "decoder_split"), ("frame", "own_outputs")), start=1
    )
}


def clip(frames: int = 5) -> Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 256, (2, frames, 21, 30, 3), dtype=torch.uint8)


def build(**values: object) -> Any:
    torch.manual_seed(0)
    return RecurrentConfig.model_validate({"base": UNET} | values).build(MAPS)


@pytest.mark.parametrize("version", [*VERSIONS.values(), {"place": "scales"}], ids=[*VERSIONS, "scales"])
def test_it_starts_as_its_base_and_then_remembers(version: dict[str, str]) -> None:
    segmenter = build(**version).eval()
    with torch.no_grad():
        (logits,), (alone,), state = segmenter.with_frames_alone(clip())
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)
        assert len(state) == len(segmenter.state_names) and all(len(each) == 2 for each in state)
        for parameter in segmenter.memories.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        (whole,), _ = segmenter(clip())
        (first,), state = segmenter(clip()[:, :3])
        (rest,), _ = segmenter(clip()[:, 3:], state)
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=1e-5, atol=1e-5)
        (forgot,), _ = segmenter(clip()[:, 3:])
        (zeros,), _ = segmenter(clip()[:, 3:], tuple(map(torch.zeros_like, state)))
    assert not torch.allclose(forgot, whole[:, 3:])
    torch.testing.assert_close(zeros, forgot)


def test_gradients_reach_the_memory_and_the_frames_before() -> None:
    segmenter = build(place="decoder").train()
    torch.nn.init.normal_(segmenter.memories[0].out.weight)
    (logits,), _ = segmenter(clip())
    logits[:, -1].sum().backward()
    assert segmenter.memories[0].cell.recurrent.weight.grad.abs().sum() > 0
    assert segmenter.network.down[0][0].weight.grad.abs().sum() > 0


def test_own_outputs_are_all_that_is_remembered() -> None:
    """By hand: the cell reads zeros, the last output and the map, from a state of zeros."""
    torch.manual_seed(0)
    memory = CellMemory(2, None, "gru", "own_outputs")
    torch.nn.init.normal_(memory.out.weight)
    x_BTCHW = torch.randn(1, 2, 2, 3, 3)
    with torch.no_grad():
        found, state = memory(x_BTCHW, ())
        hidden = memory.cell.start(x_BTCHW[:, 0])
        for read in (torch.zeros(1, 2, 3, 3), found[:, 0], x_BTCHW[:, 1]):
            hidden = memory.cell.step(memory.cell.input(read), hidden)
        torch.testing.assert_close(found[:, 1], x_BTCHW[:, 1] + memory.out(hidden[0]))
    torch.testing.assert_close(torch.stack(state, 1), found)


@pytest.mark.parametrize(
    ("frozen", "learns"), [("nothing", {"network.down", "network.up", "network.head", "memories"}),
                           ("norms", {"network.down", "network.up", "network.head", "memories"}),
     ("encoder", {"network.up", "network.head", "memories"}), ("base", {"memories"})]
)  # fmt: skip
def test_what_is_frozen_keeps_weights_and_statistics(frozen: str, learns: set[str]) -> None:
    segmenter = build(place="decoder", frozen=frozen)
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in segmenter.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the memory's output layer has to leave zero first
        segmenter.eval().train()
        (logits,), _ = segmenter(clip())
        logits[:, -1].square().sum().backward()
        optimizer.step()
    changed = {name for name, tensor in segmenter.state_dict().items() if not torch.equal(tensor, before[name])}
    parts = {".".join(name.split(".")[: 2 if name.startswith("network") else 1]) for name in changed}
    assert parts == learns
    assert any("running_mean" in name for name in changed) == (frozen not in ("norms", "base"))


def test_frozen_norms_are_found_where_others_take_their_place() -> None:
    """As on several GPUs, whose batch norms take statistics together."""
    segmenter = build(frozen="norms")
    nn.SyncBatchNorm.convert_sync_batchnorm(segmenter.network)
    norms = [part for part in segmenter.train().network.modules() if isinstance(part, nn.SyncBatchNorm)]
    assert norms and not any(norm.training for norm in norms) and segmenter.network.training


def test_scales_need_a_decoder_that_has_some() -> None:
    base = SmpConfig(arch="smp_fpn", encoder="tu-test_resnet")
    with pytest.raises(MaskcastError, match=r"model\.base\.arch 'smp_fpn' has no scales .* set model\.place to"):
        RecurrentConfig(base=base).build(MAPS)
