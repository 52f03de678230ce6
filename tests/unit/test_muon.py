"""Muon: orthogonal steps of convolutions by hand, AdamW for the rest, exact resume."""

from pathlib import Path

import pytest
import torch
from tests.pretended_gpu import pretended_gpu
from torch import Tensor, nn

from maskcast.models.cuda_graphs import WARM_UP_CALLS
from maskcast.seed import rng
from maskcast.training.loop import fit
from maskcast.training.optimizers import orthogonal
from maskcast.training.schedule import TrainingParams
from maskcast.training.task import Task

PARAMS = TrainingParams(
    epochs=3,
    steps_per_epoch=4,
    batch_size=8,
    learning_rate=0.02,
    warmup_steps=2,
    checkpoint_every=2,
    optimizer="muon",
)
EXACT = {"rtol": 1e-5, "atol": 1e-6}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    own = nn.Conv2d(6, 6, 3, padding=1, groups=6)  # of each channel by itself
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), own, nn.BatchNorm2d(6), pool, nn.Flatten(), nn.Linear(6, 1)
    )


class Brightness(Task):
    """Learns the mean of pictures."""

    monitor = "score"
    fingerprint = "a"

    def __init__(self, killed_at: int = -1) -> None:
        self.model: nn.Module = network()
        self.killed_at = killed_at

    def batch(self, step: int) -> Tensor:
        return torch.from_numpy(rng(1, step).normal(size=(8, 3, 8, 8))).float()

    def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        if step == self.killed_at:
            raise KeyboardInterrupt
        return (self.model(batch)[:, 0] - batch.mean((1, 2, 3))).square().mean(), {}

    def validate(self) -> dict[str, float]:
        return {"score": -float(self.loss(self.batch(10**6), -2)[0])}


@pytest.mark.parametrize("shape", [(16, 27), (27, 16), (8, 8), (1, 9), (48, 512)])
def test_singular_values_become_about_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix_MN = torch.from_numpy(rng(3).normal(size=shape)).float()
    found_MN = orthogonal(matrix_MN)
    values = torch.linalg.svdvals(found_MN)
    assert values.min() > 0.6 and values.max() < 1.25
    u_MK, _, v_KN = torch.linalg.svd(matrix_MN, full_matrices=False)
    turned_KK = u_MK.T @ found_MN @ v_KN.T
    torch.testing.assert_close(turned_KK, turned_KK.diag().diag(), rtol=0, atol=1e-4)
    assert turned_KK.diag().min() > 0.6  # along the matrix, not against it


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(4, 9)), torch.zeros(4, 9))


def test_two_steps_by_hand() -> None:
    conv = nn.Conv2d(2, 5, 3, bias=False)
    params = PARAMS.model_copy(update={"weight_decay": 0.1})
    optimizer = params.make_optimizer(conv)
    expected = conv.weight.detach().clone()
    momentum = torch.zeros(5, 18)
    for step in range(2):
        gradient = torch.from_numpy(rng(step).normal(size=(5, 18))).float()
        conv.weight.grad = gradient.reshape(5, 2, 3, 3).clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum
        expected = expected * (1 - 0.02 * 0.1)
        expected -= (0.02 * 0.2 * 18**0.5 * orthogonal(ahead)).reshape(5, 2, 3, 3)
        torch.testing.assert_close(conv.weight.detach(), expected, **EXACT)


def test_what_is_no_convolution_over_all_channels_goes_by_adamw() -> None:
    models = {}
    for name in ("muon", "adamw"):
        models[name] = network()
        optimizer = PARAMS.model_copy(update={"optimizer": name}).make_optimizer(models[name])
        for _ in range(3):
            for number, parameter in enumerate(models[name].parameters()):
                parameter.grad = torch.from_numpy(rng(number).normal(size=parameter.shape)).float()
            optimizer.step()
    same = {
        name: torch.equal(weights, models["adamw"].state_dict()[name])
        for name, weights in models["muon"].state_dict().items()
    }
    assert [name for name, equal in same.items() if not equal] == ["0.weight"]


def test_steps_that_a_gpu_records_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(device: str) -> tuple[dict[str, Tensor], int]:
        model = network().to(device)
        optimizer = PARAMS.make_optimizer(model)
        for step in range(WARM_UP_CALLS + 4):
            for parameter in model.parameters():
                parameter.grad = torch.from_numpy(rng(step).normal(size=parameter.shape)).float().to(device)
            optimizer.step()
        return {name: weights.cpu() for name, weights in model.state_dict().items()}, len(optimizer._recorded)

    on_cpu, recorded_there = trained("cpu")
    with pretended_gpu(monkeypatch):
        on_gpu, recorded = trained("cuda")
    assert (recorded_there, recorded) == (0, 1)
    assert all(torch.equal(weights, on_cpu[name]) for name, weights in on_gpu.items())


def test_frozen_weights_stay() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    optimizer = PARAMS.make_optimizer(model)
    model(torch.ones(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("killed_at", [0, 3, 6, 11])
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path: Path, killed_at: int) -> None:
    unbroken, resumed = Brightness(), Brightness()
    expected = fit(unbroken, PARAMS, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        fit(Brightness(killed_at), PARAMS, tmp_path / "killed")
    found = fit(resumed, PARAMS, tmp_path / "killed")
    assert found.curve == expected.curve
    for name, weights in unbroken.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name
