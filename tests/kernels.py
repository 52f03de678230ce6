"""Holds the kernels for GPUs against PyTorch's operations; on a CPU where TRITON_INTERPRET=1 is set.

TRITON_INTERPRET=1 python -m tests.kernels
"""

import copy
from collections.abc import Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.inference import worker
from maskcast.inference.segment import segment_whole
from maskcast.labels import single_map
from maskcast.models import encoders, segmentation
from maskcast.models.arithmetic import arithmetic
from maskcast.models.forecasting import pixels
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.forecasting.label_codec import PatchEmbedding
from maskcast.models.forecasting.pixels import Draw, Pixels
from maskcast.models.kernels.decoding import most_probable
from maskcast.models.kernels.gates import gated
from maskcast.models.kernels.norm_relu import norm_relu
from maskcast.models.kernels.patches import patch_sums
from maskcast.models.kernels.still_loss import still_loss
from maskcast.models.kernels.suppression import keep_by_nms
from maskcast.models.kernels.upsampling import up_joined
from maskcast.models.objects import tracks, warp
from maskcast.models.recurrent.cells import ConvLSTMCell
from maskcast.models.segmentation import loss_chunks, loss_kernels, losses
from maskcast.models.segmentation.configs import MaskLossConfig, UNetConfig
from maskcast.models.segmentation.unet import UNet

LOSSES: list[dict[str, Any]] = [
    {},
    {"ce": 1, "dice": 0, "focal": 0},
    {"ce": 0, "dice": 0, "focal": 1},
    {"ce": 0, "dice": 1, "focal": 0},
    {"focal_form": "softmax", "focal_gamma": 1.5},
    {"ce": 0, "dice": 0, "focal_form": "softmax", "focal_gamma": 0},
    {"focal_gamma": 0.5, "dice_classes": "present", "dice_smooth": 1.0},
]


def close(found: Tensor, wanted: Tensor, most: float) -> None:
    """Compares by the norm of the difference; what was not written is NaN and never close."""
    error = float((found.detach().double() - wanted.detach().double()).norm() / wanted.detach().double().norm())
    assert error < most, (error, most)


def close_grads(found: Iterable[Tensor], wanted: Iterable[Tensor], most: float) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        close(mine.grad, theirs.grad, most)


def check_loss(device: str, config: MaskLossConfig, layout: torch.memory_format, dtype: torch.dtype) -> None:
    z = (3 * torch.randn(3, 5, 7, 11, device=device)).to(dtype).to(memory_format=layout)
    y = torch.randint(0, 5, (3, 7, 11), dtype=torch.uint8, device=device)
    y[0, :2], y[y == 3] = 255, 2  # ignored pixels, and a class that is absent
    found, wanted = (each.clone().requires_grad_() for each in (z, z.double()))
    for walk, logits in ((loss_kernels, found), (loss_chunks, wanted)):
        losses._fused_backend = lambda _, walk=walk: walk  # type: ignore[assignment, misc]
        (2.5 * losses.MaskLoss(config)(logits, y)).backward()
    losses._fused_backend = lambda _: loss_kernels  # type: ignore[assignment]
    exact = dtype == torch.float32
    close(losses.MaskLoss(config)(z, y), losses.MaskLoss(config)(z.float(), y), 1e-5 if exact else 1e-2)
    close_grads([found], [wanted], 2e-6 if exact else 5e-3)


def check_norm(device: str, dtype: torch.dtype, channels: int) -> None:
    x = (2 * torch.randn(3, channels, 9, 13, device=device) + 5).to(dtype)
    norm = nn.BatchNorm2d(channels).to(device)
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)
        norm.bias.uniform_(-1, 1)
    plain = copy.deepcopy(norm).double()
    grad = torch.randn_like(x)
    small = 1e-5 if dtype == torch.float32 else 1e-2
    found, wanted = x.clone().requires_grad_(), x.double().requires_grad_()
    for _ in range(2):
        y, z = norm_relu(found, norm), F.relu(plain(wanted))
        close(y, z, small)
    y.backward(grad)
    z.backward(grad.double())
    close_grads([found, *norm.parameters()], [wanted, *plain.parameters()], small)
    for name, values in plain.named_buffers():
        close(norm.get_buffer(name), values, small)
    norm.eval()
    plain.eval()
    with torch.no_grad():
        close(norm_relu(x, norm), F.relu(plain(x.double())), small)
    found, wanted = x.clone().requires_grad_(), x.double().requires_grad_()  # of a norm that is frozen
    norm_relu(found, norm).backward(grad)
    F.relu(plain(wanted)).backward(grad.double())
    close_grads([found], [wanted], small)


def check_upsampling(device: str, dtype: torch.dtype, height: int, width: int) -> None:
    small = torch.randn(2, 6, height, width, device=device).to(dtype).requires_grad_()
    skip = torch.randn(2, 3, 2 * height, 2 * width, device=device).to(dtype).requires_grad_()
    wanted, beside = (each.detach().double().requires_grad_() for each in (small, skip))
    found = up_joined(small, skip)
    larger = F.interpolate(wanted, scale_factor=2, mode="bilinear", align_corners=True)
    plain = torch.cat([larger, beside], 1)
    most = 1e-5 if dtype == torch.float32 else 1e-2
    close(found, plain, most)
    grad = torch.randn_like(found)
    found.backward(grad)
    plain.backward(grad.double())
    close_grads([small, skip], [wanted, beside], most)


def check_decoding(device: str, classes: int, layout: torch.memory_format) -> None:
    logits = (3 * torch.randn(2, classes, 5, 7, device=device)).to(memory_format=layout)
    logits[0, :2, 0, 0] = 9.0  # alike: the first counts
    ids, sure = most_probable(logits)
    probability = logits.double().softmax(1).amax(1)
    assert ids.dtype == torch.uint8 and ids[0, 0, 0] == 0 and torch.equal(ids.long(), logits.argmax(1))
    close(sure, probability, 1e-6)


def check_still_loss(device: str, dtype: torch.dtype, fine: int, layout: torch.memory_format) -> None:
    """Against the logits of all pixels; the last rows and columns of the features lie beyond the picture."""
    clips, steps, classes, width, (height, across) = 2, 3, 5, 16, (5 * fine - 1, 7 * fine - 1)
    features = torch.randn(clips * steps, width * fine**2, 5, 7, device=device).to(dtype)
    given = [torch.randn(classes, width), torch.randn(clips, classes), torch.tensor(1.5)]
    last = torch.randint(0, classes, (clips, height, across), dtype=torch.uint8, device=device)
    target = torch.randint(0, classes, (clips, steps, height, across), dtype=torch.uint8, device=device)
    target[0, 1, :2] = 255
    own = [each.to(device).requires_grad_() for each in (features.to(memory_format=layout), *given)]
    plain = [each.detach().double().requires_grad_() for each in own]
    found, count = still_loss(*own, last, target)
    x, vectors, base, bonus = plain
    x = x.unflatten(1, (fine**2, width)).transpose(1, 2).flatten(1, 2)  # as pixel_shuffle has them
    x = F.pixel_shuffle(x, fine)[..., :height, :across].unflatten(0, (clips, steps))
    same = (
        F.one_hot(last.long(), classes).movedim(-1, 1)[:, None]
        * (torch.arange(classes, device=device) > 0)[:, None, None]
    )
    logits = torch.einsum("bsehw,ke->bskhw", x, vectors) + base[:, None, :, None, None] + bonus * same
    wanted = F.cross_entropy(logits.flatten(0, 1), target.long().flatten(0, 1), ignore_index=255, reduction="sum")
    assert int(count) == int((target != 255).sum())
    close(found, wanted, 1e-6 if dtype == torch.float32 else 1e-2)
    (0.3 * found).backward()
    (0.3 * wanted).backward()
    close_grads(own, plain, 1e-5 if dtype == torch.float32 else 1e-2)
    assert all(mine.grad is not None and mine.grad.stride() == mine.stride() for mine in own)


def check_still_forecaster(device: str, residual: bool) -> None:
    """A forecaster whose loss writes no logits against itself."""
    config = ConvLSTMConfig(stride=4, hidden=4, motion="none", residual=residual, loss_steps=3, loss_stride=1)
    model = config.build(5).to(device)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    masks = torch.randint(0, 5, (2, 6, 7, 10), dtype=torch.uint8, device=device)
    masks[0, 3:, :2], masks[1, :3] = 255, masks[1, :3].clamp(max=2)
    for module in (tracks, warp):
        module.shapes_are_fixed = lambda: True  # type: ignore[assignment]
    Pixels.draw = lambda *_, **__: Draw(warp.ALL, warp.ALL, warp.ALL)  # type: ignore[method-assign, assignment]
    found = []
    for kernels in (False, True):
        pixels.has_kernels = lambda _, kernels=kernels: kernels  # type: ignore[assignment, misc]
        model.zero_grad()
        loss, _ = model.loss(masks[:, :3], masks[:, 3:])
        loss.backward()
        grads = [weights.grad.flatten() for weights in model.parameters() if weights.grad is not None]
        found.append([loss, torch.cat(grads)])
    for own, wanted, most in zip(found[1], found[0], (1e-5, 1e-3), strict=True):
        close(own, wanted, most)


def check_gates(device: str, dtype: torch.dtype, hidden: int, *, sees: bool) -> None:
    cell = ConvLSTMCell(3, hidden, 3).to(device)
    blind, state = torch.randn(4 * hidden, 1, 1), torch.randn(2, hidden, 3, 7)
    seen, remembered = torch.randn(2, 2, 3, 4 * hidden, 3, 7).to(dtype).unbind(0)
    own = [each.to(device) for each in (seen[:, 1] if sees else blind, remembered[:, 2], state)]
    own = [each.detach().requires_grad_() for each in own]
    with torch.no_grad():
        for weights in cell.norm.parameters():
            weights.add_(torch.randn_like(weights))
    plain, norm = copy.deepcopy(cell).double(), cell.norm
    others = [each.detach().double().requires_grad_() for each in own]
    assert isinstance(norm, nn.GroupNorm)
    found, wanted = gated(*own, norm), plain.gated(*others)
    grads = [torch.randn_like(each) for each in found]
    for outputs, given in ((found, grads), (wanted, [grad.double() for grad in grads])):
        torch.autograd.backward(outputs, given)
    most = 1e-5 if dtype == torch.float32 else 1e-2
    assert found[0].dtype == dtype and found[1].dtype == torch.float32
    for mine, theirs in zip(found, wanted, strict=True):
        close(mine, theirs, most)
    close_grads([*own, *norm.parameters()], [*others, *plain.norm.parameters()], most)


def check_patches(device: str, dtype: torch.dtype, classes: int, channels: int, stride: int) -> None:
    stem = PatchEmbedding(classes, 3, channels, stride).to(device)
    ids = torch.randint(0, classes, (2, 5 * stride, 7 * stride), dtype=torch.uint8, device=device)
    table = stem._table().detach().to(dtype).requires_grad_()
    bias = torch.randn(channels, device=device, requires_grad=True)
    found = patch_sums(ids, table, bias, stride)
    weight, shift = table.detach().double().requires_grad_(), bias.detach().double().requires_grad_()
    kernel = weight.view(stride, stride, classes, channels).permute(3, 2, 0, 1)
    wanted = F.conv2d(F.one_hot(ids.long(), classes).movedim(-1, 1).double(), kernel, shift, stride=stride)
    most = 1e-6 if dtype == torch.float32 else 5e-3
    close(found, wanted, most)
    grad = torch.randn_like(found)
    found.backward(grad)
    wanted.backward(grad.double())
    close_grads([table, bias], [weight, shift], most)


def check_suppression(device: str, count: int, most: float) -> None:
    """Against a loop over the boxes, best first."""
    corner = 30 * torch.rand(2, count, 2, device=device)
    boxes = torch.cat([corner, corner + 20 * torch.rand(2, count, 2, device=device)], 2)
    valid = torch.rand(2, count, device=device) < 0.9
    found = keep_by_nms(boxes, valid, most)
    for image in range(2):
        own = boxes[image].cpu()
        both = torch.minimum(own[:, None, 2:], own[None, :, 2:]) - torch.maximum(
            own[:, None, :2], own[None, :, :2]
        )
        shared, area = both.clamp(min=0).prod(-1), (own[:, 2:] - own[:, :2]).prod(-1)
        overlaps = shared > most * (area[:, None] + area - shared)
        wanted: list[int] = []
        for k in valid[image].nonzero().flatten().tolist():
            if not overlaps[wanted, k].any():
                wanted.append(k)
        assert found[image].nonzero().flatten().tolist() == wanted and 0 < len(wanted) < 0.9 * count


def check_network(device: str) -> None:
    """A U-Net whose blocks use the kernels against itself without them."""
    network = UNet(2, 3).to(device)
    x = torch.randn(2, 3, 16, 16, device=device).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(network)
    found, gradients = [], []
    for one, kernels in ((plain, False), (network, True)):
        for module in (encoders.unet, segmentation.unet):
            module.has_kernels = lambda _, kernels=kernels: kernels  # type: ignore[assignment, misc]
        logits = one(x)
        logits.square().mean().backward()
        found.append(logits.detach())
        gradients.append(torch.cat([weights.grad.flatten() for weights in one.parameters()]))
    close(found[1], found[0], 1e-4)
    close(gradients[1], gradients[0], 1e-3)


def check_masking(device: str) -> None:
    """Inference whose masks a kernel decodes against the same without it."""
    segmenter = UNetConfig(width=2).build(single_map(list("abc"))).to(device).eval()
    frames = torch.randint(0, 256, (3, 16, 24, 3), dtype=torch.uint8).numpy()
    found = []
    for kernels in (False, True):
        worker.has_kernels = lambda _, kernels=kernels: kernels  # type: ignore[assignment, misc]
        (one,) = segment_whole(worker.Worker(segmenter, "fp32"), frames, batch_size=2).values()
        found.append(one)
    assert found[0].confidence is not None and found[1].confidence is not None
    assert (found[0].masks != found[1].masks).mean() < 0.01
    close(torch.from_numpy(found[1].confidence), torch.from_numpy(found[0].confidence), 1e-4)


def check_all(device: str) -> None:
    """Checks every kernel at small sizes that no block divides."""
    with arithmetic(torch.device(device), "fp32"):
        _check_all(device)


def _check_all(device: str) -> None:
    torch.manual_seed(0)
    types = (torch.float32, torch.bfloat16)
    for given in LOSSES:
        check_loss(device, MaskLossConfig.model_validate(given), torch.channels_last, torch.float32)
    check_loss(device, MaskLossConfig(), torch.contiguous_format, torch.float32)
    check_loss(device, MaskLossConfig(), torch.channels_last, torch.bfloat16)
    for classes, layout in product((2, 49, 130), (torch.contiguous_format, torch.channels_last)):
        check_decoding(device, classes, layout)
    check_masking(device)
    check_network(device)
    check_suppression(device, 70, 0.3)
    check_patches(device, torch.float32, 5, 70, 2)
    check_patches(device, torch.bfloat16, 49, 6, 1)
    check_gates(device, torch.float32, 70, sees=True)
    check_gates(device, torch.bfloat16, 16, sees=False)
    check_gates(device, torch.bfloat16, 6, sees=True)
    for residual in (True, False):
        check_still_forecaster(device, residual)
    check_still_loss(device, torch.float32, 2, torch.contiguous_format)
    check_still_loss(device, torch.bfloat16, 1, torch.channels_last)
    for dtype, channels in product(types, (4, 70)):
        check_norm(device, dtype, channels)
    for dtype, (height, width) in product(types, ((2, 3), (6, 4))):
        check_upsampling(device, dtype, height, width)


if __name__ == "__main__":
    check_all("cpu")
