"""A step that is recorded as a CUDA graph neither sends to the GPU nor waits for it: held here without one.

PyTorch's fake tensors have a device, a type and a shape, and no values; each operation on them is looked at.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from threading import local
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from maskcast.labels import single_map
from maskcast.models.cuda_graphs import GraphedCallable, GraphRecorder
from maskcast.models.detection import faster_rcnn
from maskcast.models.encoders import unet as encoder_unet
from maskcast.models.forecasting import label_codec, pixels
from maskcast.models.forecasting.batches import TrackBatch
from maskcast.models.forecasting.configs import ConvLSTMConfig, SimVPConfig
from maskcast.models.forecasting.pixels import Draw, Pixels
from maskcast.models.objects import tracks, warp
from maskcast.models.recurrent import cells
from maskcast.models.segmentation import loss_chunks, losses
from maskcast.models.segmentation import unet as segmenter_unet
from maskcast.models.segmentation.configs import MaskLossConfig, MatteLossConfig, UNetConfig
from maskcast.models.segmentation.losses import AlphaLoss
from maskcast.models.segmentation.matte_losses import MatteLoss
from maskcast.models.segmentation.soft_dice import soft_dice


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


def moved(model: nn.Module) -> None:
    """Puts fakes of weights and buffers on a GPU; ``Module.to`` cannot move what is real."""
    for module in model.modules():
        for name, weights in module._parameters.items():
            module._parameters[name] = None if weights is None else nn.Parameter(on_gpu(weights))
        for name, values in module._buffers.items():
            module._buffers[name] = None if values is None else on_gpu(values)


def masks() -> tuple[Any, Callable[[Any], Tensor]]:
    model, matte = UNetConfig(width=2).build(single_map(list("abc"))), MatteLoss(MatteLossConfig())

    def loss(model: Any) -> Tensor:
        (logits,), _ = model(torch.zeros(2, 1, 16, 16, 3, dtype=torch.uint8, device="cuda"))
        sums = logits.new_zeros(13, dtype=torch.float64)  # a kernel's
        weighed, coefficients = losses._weighted_sums(sums, MaskLossConfig())
        target = torch.zeros(2, 3, 16, 16, dtype=torch.uint8, device="cuda")
        alpha = AlphaLoss()(logits[:, 0, :1], target[:, 0])
        dice = soft_dice(logits[:, 0], target[:, 0], 1e-4)
        moved(matte)  # as the first step leaves it
        mattes = matte(logits[:, :, :1].expand(-1, 3, -1, -1, -1), target)
        return logits.mean() + alpha + dice + mattes + weighed.float() + coefficients.sum().float()

    return model, loss


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs PyTorch's operations, and for kernels that they do not replace something of the same shape."""
    for module in (encoder_unet, segmenter_unet, cells, label_codec):
        monkeypatch.setattr(module, "has_kernels", lambda x: False)
    monkeypatch.setattr(losses, "_fused_backend", lambda _: loss_chunks)
    monkeypatch.setattr(pixels, "has_kernels", lambda x: True)
    monkeypatch.setattr(faster_rcnn, "has_kernels", lambda x: True)
    suppression = SimpleNamespace(keep_by_nms=lambda boxes, valid, threshold: valid)
    still_loss = SimpleNamespace(still_loss=lambda x, *_: (x.mean(), x.new_ones(())))
    for name, kernel in (("suppression", suppression), ("still_loss", still_loss)):
        monkeypatch.setitem(sys.modules, f"maskcast.models.kernels.{name}", kernel)


def test_losses_of_maps_do_not_meet_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of whole tasks are held in ``test_recorded_tasks``."""
    without_kernels(monkeypatch)
    model, loss = masks()
    with FakeTensorMode():
        moved(model.train())
        with Crossings() as crossings:
            assert loss(model).device.type == "cuda"
    assert crossings.found == []


@pytest.mark.parametrize(
    "config", [ConvLSTMConfig(hidden=4, stride=4, motion="none"), SimVPConfig(hidden=2, blocks=1, loss_stride=3)]
)
def test_fixed_shapes_and_drawn_indices_give_the_loss_of_a_cpu(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot for every class, sums over all pixels, and rows of which the last may lie beyond the picture."""
    torch.manual_seed(0)
    model, (height, width) = config.build(5), (19, 29)
    for weights in model.parameters():
        nn.init.normal_(weights, std=0.1)
    parts: list[Any] = []
    for start, frames in ((0, 6), (6, 5)):
        masks = torch.zeros(2, frames, height, width, dtype=torch.uint8)
        for t in range(frames):
            masks[0, t, 3:9, 2 + start + t : 8 + start + t], masks[1, t, 10:15, 20 - start - t :] = 1, 3
        masks[1, :, :2] = 255
        packed = tracks.stack_tracks([tracks.pack_tracks(each.where(each < 5, 0), 5) for each in masks])
        parts.append(masks if config.motion == "none" else TrackBatch(packed, masks))
    found = []
    steps, rows, columns, every = torch.tensor([1, 4]), 1, 0, config.loss_stride
    for fixed in (False, True):
        places = [torch.arange(0, side, every) + at for side, at in ((height, rows), (width, columns))]
        drawn = Draw([1, 4], slice(rows, None, every), slice(columns, None, every))
        monkeypatch.setattr(Pixels, "draw", lambda *_, **__: Draw(steps, *places) if fixed else drawn)  # noqa: B023
        for module in (tracks, warp):
            monkeypatch.setattr(module, "shapes_are_fixed", lambda: fixed)  # noqa: B023
        loss, _ = model.zero_grad() or model.loss(*parts)
        loss.backward()
        found.append([loss, *(weights.grad for weights in model.parameters() if weights.grad is not None)])
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-6)


def test_each_gpu_is_recorded_on_a_stream_of_its_own_and_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    current, recording = local(), []

    @contextmanager
    def graph(_: Any, pool: Any, stream: Any = None, **__: Any) -> Iterator[None]:
        assert stream is not None and stream.device == current.device and pool == "pool" and not recording
        recording.append(stream)
        yield
        recording.clear()

    graphs = SimpleNamespace(replay=None)
    for name, value in {
        "graph_pool_handle": lambda: "pool",
        "CUDAGraph": lambda: graphs,
        "Stream": lambda: SimpleNamespace(device=current.device),
        "current_stream": lambda: None,
        "stream": lambda _: nullcontext(),
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def work(device: int, recorder: GraphRecorder) -> None:
        current.device = device
        for _ in range(2):
            recorder(lambda: time.sleep(0.05))

    recorders = [GraphRecorder() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2), recorders))


def test_a_recording_that_fails_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not its stream, nor casts of weights that were recorded but never made; its first error is the one said."""
    layer, streams = nn.Linear(2, 2), ["default"]

    @contextmanager
    def stream(one: str) -> Iterator[None]:
        before, streams[0] = streams[0], one
        try:
            yield
        finally:
            streams[0] = before

    @contextmanager
    def graph(_: Any, pool: Any, stream: Any = None, **__: Any) -> Iterator[None]:
        streams[0], weights = stream, layer.weight.data
        layer.weight.data = torch.full_like(weights, torch.nan)  # nothing is computed
        try:
            yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture") from None
        finally:
            layer.weight.data = weights

    for name, value in {
        "graph_pool_handle": lambda: "pool",
        "CUDAGraph": lambda: None,
        "Stream": lambda: "of the recording",
        "current_stream": lambda: streams[0],
        "stream": stream,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def network(x: Tensor) -> Tensor:
        y: Tensor = layer(x)
        if streams[0] != "default":
            raise RuntimeError("operation not permitted when stream is capturing")
        return y

    recorded, found = GraphedCallable(network, warm_up_calls=1), []
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(recorded(torch.ones(1, 2)))
        assert streams == ["default"]
    assert torch.equal(found[1], found[0]) and torch.equal(found[2], found[0])
    said = "not recorded as a CUDA graph: RuntimeError: operation not permitted when stream is capturing"
    assert capsys.readouterr().err.splitlines() == [said]
