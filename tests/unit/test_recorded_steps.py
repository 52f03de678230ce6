"""A step that is recorded as a CUDA graph neither sends to the GPU nor waits for it: held here without one.

PyTorch's fake tensors have a device, a type and a shape, and no values; each operation on them is looked at.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from maskcast.labels import single_map
from maskcast.models.encoders.configs import DenseCLConfig, MocoConfig, UNetEncoderConfig
from maskcast.models.encoders.siamese import Normalised, Views
from maskcast.models.forecasting.configs import ObjectsConfig
from maskcast.models.segmentation import losses
from maskcast.models.segmentation.configs import MaskLossConfig, UNetConfig
from maskcast.models.segmentation.losses import AlphaLoss


class Crossings(TorchDispatchMode):
    """Keeps the operations by which host and device would meet."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {each.device.type for each in (*args, out) if isinstance(each, Tensor)}
        copies = str(func).startswith(("aten._to_copy", "aten.copy_")) and len(devices) > 1
        sends = str(func).startswith("aten.scalar_tensor") and devices == {"cuda"}  # as `torch.where` a number
        if copies or sends or str(func).startswith(("aten._local_scalar_dense", "aten.nonzero")):
            self.found.append(str(func))
        return out


def on_gpu(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")


def masks() -> tuple[Any, Callable[[Any], Tensor]]:
    model = UNetConfig(width=2).build(single_map(list("abc")))

    def loss(model: Any) -> Tensor:
        (logits,), _ = model(torch.zeros(2, 1, 16, 16, 3, dtype=torch.uint8, device="cuda"))
        sums = logits.new_zeros(13, dtype=torch.float64)  # a kernel's
        weighed, coefficients = losses._weighed(sums, MaskLossConfig())
        alpha = AlphaLoss()(logits[:, 0, :1], torch.zeros(2, 16, 16, dtype=torch.uint8, device="cuda"))
        return logits.mean() + alpha + weighed.float() + coefficients.sum().float()

    return model, loss


def objects() -> tuple[Any, Callable[[Any], Tensor]]:
    def loss(model: Any) -> Tensor:
        context, target = (torch.zeros(2, frames, 3, 8, device="cuda") for frames in (11, 5))
        total: Tensor = model.loss(context, target)[0]
        return total

    return ObjectsConfig(hidden=8).build(4), loss


def encoder(method: Any) -> Callable[[], tuple[Any, Callable[[Any], Tensor]]]:
    def made() -> tuple[Any, Callable[[Any], Tensor]]:
        def loss(model: Any) -> Tensor:
            views = torch.zeros(2, 4, 16, 16, 3, dtype=torch.uint8, device="cuda")
            step = torch.zeros((), dtype=torch.long, device="cuda")
            order = torch.zeros(4, dtype=torch.long, device="cuda")
            total: Tensor = model.loss(Views(views, views, order, step), step)[0]
            return total

        network = UNetEncoderConfig(width=2).build()
        return method.build(Normalised(network, torch.full((3,), 0.5), torch.full((3,), 0.25))), loss

    return made


@pytest.mark.parametrize(
    "made",
    [
        masks,
        objects,
        encoder(MocoConfig(queue=8, sub_batches=2)),
        encoder(DenseCLConfig(queue=8, sub_batches=2)),
    ],
    ids=["masks", "objects", "moco", "densecl"],
)
def test_host_and_device_do_not_meet(
    made: Callable[[], tuple[Any, Callable[[Any], Tensor]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskcast.models.encoders import unet as encoder_unet
    from maskcast.models.segmentation import unet as segmenter_unet

    for module in (encoder_unet, segmenter_unet):
        monkeypatch.setattr(module, "has_kernels", lambda x: False)
    model, loss = made()
    with FakeTensorMode():
        for module in model.train().modules():  # Module.to cannot move what is real
            for name, weights in module._parameters.items():
                module._parameters[name] = None if weights is None else nn.Parameter(on_gpu(weights))
            for name, values in module._buffers.items():
                module._buffers[name] = None if values is None else on_gpu(values)
        with Crossings() as crossings:
            assert loss(model).device.type == "cuda"
    assert crossings.found == []
