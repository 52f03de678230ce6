"""Plain implementations: training as it is usually written, in eager fp32, with the loss read back at each step.

PyTorch's defaults apply unless stated otherwise, so convolutions may use TF32. Each peer is a function (task,
batch on the host) -> step and inference. A step receives a batch on the host, as from a DataLoader.

Legend: B samples, T frames, H height, W width, K classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from _gpu.cases import CONTEXT, HORIZON
from _gpu.measure import DEVICE

PATCH = 4  # OpenSTL's patch size for its ConvLSTM on larger pictures


class Peer(NamedTuple):
    """A plain implementation.

    Args:
        step: trains on a batch.
        infer: runs inference on a batch; None if it is not measured.
        samples: samples per step; fewer than in the batch if memory is too small.
    """

    step: Callable[[Any], float]
    infer: Callable[[Any], object] | None
    samples: int


def plain_masker(task: Any, batch: Any) -> Peer:
    """The usual way with smp: frames normalised in float32 on the CPU, int64 masks, one-hot losses, Adam."""
    network = task.segmenter.network.to(DEVICE, memory_format=torch.contiguous_format).train()
    mean, std = task.segmenter.mean.cpu(), task.segmenter.std.cpu()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def normalised(batch: Any) -> Tensor:
        frames = (batch.frames_BTHWC[:, 0].float() / 255 - mean) / std
        return frames.permute(0, 3, 1, 2).contiguous().to(DEVICE)

    def step(batch: Any) -> float:
        images, target = normalised(batch), batch.masks[0][:, 0].long().to(DEVICE)
        optimizer.zero_grad()
        loss = one_hot_loss(network(images), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    @torch.no_grad()
    def infer(batch: Any) -> object:
        network.eval()
        return network(normalised(batch)).argmax(1).cpu()

    return Peer(step, infer, len(batch.frames_BTHWC))


def one_hot_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Returns 0.2 CE + 0.4 Dice + 0.4 focal loss, each with one-hot targets."""
    onehot = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    weight = torch.ones(logits.shape[1], 1, 1, device=logits.device)
    weight[0] = 0.3
    weighted = onehot * weight
    ce = -(weighted * F.log_softmax(logits, 1)).sum() / weighted.sum()
    p, axes = logits.softmax(1), (0, 2, 3)
    present = onehot.sum(axes) > 0
    dice = ((1 - 2 * (p * onehot).sum(axes) / (p + onehot).sum(axes).clamp_min(1e-7)) * present).mean()
    bce = F.binary_cross_entropy_with_logits(logits, onehot, reduction="none")
    focal = ((1 - torch.exp(-bce)) ** 2 * bce).mean(axes).sum()
    return 0.2 * ce + 0.4 * dice + 0.4 * focal


class OpenStlConvLSTM(nn.Module):
    """OpenSTL's ConvLSTM (chengtan9907/OpenSTL, `ConvLSTM_Model`): one-hot patches in and out, fed back, MSE.

    The cell convolves input and state separately at each step, with kernel size 5 and without normalisation.
    """

    def __init__(self, classes: int, hidden: int) -> None:
        super().__init__()
        self.classes, self.hidden = classes, hidden
        channels = classes * PATCH**2
        self.x = nn.Conv2d(channels, 4 * hidden, 5, padding=2, bias=False)
        self.h = nn.Conv2d(hidden, 4 * hidden, 5, padding=2, bias=False)
        self.last = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        """Returns predictions for all frames but the first; after the context, its own predictions are input."""
        batch, _, _, height, width = frames_BTCHW.shape
        h = c = torch.zeros(batch, self.hidden, height, width, device=frames_BTCHW.device)
        found: list[Tensor] = []
        for t in range(CONTEXT + HORIZON - 1):
            x = frames_BTCHW[:, t] if t < CONTEXT else found[-1]
            i, f, g, o = (self.x(x) + self.h(h)).chunk(4, 1)
            c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            found.append(self.last(h))
        return torch.stack(found, 1)


def plain_convlstm(task: Any, batch: Any) -> Peer:
    """OpenSTL's ConvLSTM on the same masks, converted to one-hot on the GPU; Adam, MSE over all steps."""
    classes, hidden = task.model.num_classes, task.model.dynamics.cells[0].hidden
    model = OpenStlConvLSTM(classes, hidden).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(batch: Any) -> float:
        masks_BTHW = torch.cat(list(batch), 1).to(DEVICE)
        onehot = F.one_hot(masks_BTHW.long().clamp_max(classes - 1), classes).movedim(-1, 2).float()
        frames = F.pixel_unshuffle(onehot, PATCH)
        optimizer.zero_grad()
        loss = F.mse_loss(model(frames), frames[:, 1:])
        loss.backward()
        optimizer.step()
        return loss.item()

    return Peer(step, None, len(batch[0]))


def plain_detector(task: Any, batch: Any) -> Peer:
    """Torchvision's reference loop (references/detection/engine.py): float images, a dict of losses, SGD."""
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    config = task.params.model
    sizes = {"min_size": config.min_size, "max_size": config.max_size}
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=task.data.num_classes + 1, **sizes
    ).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def images_of(batch: Any) -> list[Tensor]:
        return [(image.permute(2, 0, 1).float() / 255).to(DEVICE) for image in batch["images"]]

    def step(batch: Any) -> float:
        model.train()
        images = images_of(batch)
        targets = [
            {"boxes": boxes[labels >= 0].to(DEVICE), "labels": labels[labels >= 0].to(DEVICE) + 1}
            for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)
        ]
        losses = model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        value = loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return value

    @torch.no_grad()
    def infer(batch: Any) -> object:
        model.eval()
        return [{name: part.cpu() for name, part in found.items()} for found in model(images_of(batch))]

    return Peer(step, infer, len(batch["images"]))


def plain_task(task: Any, batch: Any) -> Peer:
    """The product's own model and loss in a plain loop, for models without a peer."""
    from _gpu.measure import on_device

    task.model.to(DEVICE).train()
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=1e-3)

    def step(batch: Any) -> float:
        optimizer.zero_grad()
        loss, _ = task.loss(on_device(batch), 0)
        loss.backward()
        optimizer.step()
        return loss.item()

    samples: int = task.params.training.batch_size
    return Peer(step, None, samples)


PEERS: dict[str, tuple[str, Callable[[Any, Any], Peer]]] = {
    "U-Net": ("plain smp loop, fp32", plain_masker),
    "DeepLabV3+": ("plain smp loop, fp32", plain_masker),
    "ConvLSTM stride 4": ("OpenSTL's ConvLSTM, fp32", plain_convlstm),
    "Faster R-CNN": ("torchvision's loop, fp32", plain_detector),
}
NO_PEER = ("plain loop, fp32", plain_task)
