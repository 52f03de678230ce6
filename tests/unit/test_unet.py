import pytest
import torch
from torch import Tensor, nn

from maskcast.labels import single_map
from maskcast.models.base import count_parameters
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.unet import UNet


def formula(w: int, num_classes: int) -> int:
    """Weights of the 3x3 convolutions, scale and shift of the norm after each, and the 1x1 head with its bias."""
    convs = [
        (3, w),
        (w, w),
        (w, 2 * w),
        (2 * w, 2 * w),
        (2 * w, 4 * w),
        (4 * w, 4 * w),
        (4 * w, 8 * w),
        (8 * w, 8 * w),
    ]
    convs += [(12 * w, 4 * w), (4 * w, 4 * w), (6 * w, 2 * w), (2 * w, 2 * w), (3 * w, w), (w, w)]
    return sum(9 * a * b + 2 * b for a, b in convs) + w * num_classes + num_classes


@pytest.mark.parametrize(("width", "num_classes"), [(64, 49), (16, 49), (3, 2)])
def test_number_of_parameters(width: int, num_classes: int) -> None:
    assert count_parameters(UNet(width, num_classes)) == formula(width, num_classes)


def test_the_classic_size_has_7_79_million_parameters() -> None:
    assert count_parameters(UNetConfig().build(single_map(map(str, range(49))))) == 7_788_849


def test_skips_meet_features_of_their_own_size() -> None:
    torch.manual_seed(0)
    network = UNet(2, 3).eval()
    seen: list[tuple[int, ...]] = []

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(tuple(args[0].shape[1:]))

    for block in (*network.down, *reversed(network.up)):
        block.register_forward_pre_hook(note)
    network(torch.zeros(1, 3, 32, 48))
    assert seen == [
        (3, 32, 48), (2, 16, 24), (4, 8, 12), (8, 4, 6),
        (24, 8, 12), (12, 16, 24), (6, 32, 48),
    ]  # fmt: skip


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = UNet(2, 3)
    network(torch.randn(2, 3, 16, 24)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
