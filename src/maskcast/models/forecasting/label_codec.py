"""Encoders of class ids to network inputs, and decoders of network states to class logits.

Shapes: N pictures, K classes, E embedding width, C channels of the state, S stride, H height, W width, I rows and
J columns of the requested pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.arithmetic import at_least_float32, has_kernels
from maskcast.models.encoders.base import edge_padded
from maskcast.models.objects.picks import Pick, picked_pixels
from maskcast.models.recurrent.cells import set_to_zero

MAX_CLASSES = 256  # most classes that the kernels support
HEAD_WIDTH = 16  # channels of the head at full or half resolution
EMBEDDING = 16  # width of a class embedding, and of the corrections that are compared with it


class PatchEmbedding(nn.Module):
    """Patch features of class ids: an embedding and a convolution of size and stride S, as one table lookup.

    The table, of every class at every place of a patch, is the product of both. Each pixel then costs one row of
    it, and no float image of K or E channels is needed.
    """

    def __init__(self, num_classes: int, embedding: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.num_classes = stride, num_classes
        self.embedding = nn.Parameter(torch.randn(num_classes, embedding))
        self.patch = nn.Parameter(torch.randn(stride**2, embedding, channels) / (embedding * stride**2) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, ids_NHW: Tensor) -> Tensor:
        """Returns features (N, channels, H/S, W/S) of class ids below K; H and W are multiples of S."""
        n, height, width = ids_NHW.shape
        s = self.stride
        if self.num_classes <= MAX_CLASSES and has_kernels(ids_NHW):
            from maskcast.models.kernels.patches import patch_sums

            return patch_sums(ids_NHW, self._table(), self.bias, s)
        patches = ids_NHW.view(n, height // s, s, width // s, s).permute(0, 1, 3, 2, 4).reshape(-1, s * s)
        place = torch.arange(s * s, device=ids_NHW.device) * self.num_classes
        table = self._table().flatten(0, 1)
        if torch.compiler.is_compiling():  # other runtimes lack embedding_bag
            out = table[patches.long() + place].sum(1) + self.bias
        else:
            out = F.embedding_bag(patches.long() + place, table, mode="sum") + self.bias
        return out.view(n, height // s, width // s, -1).permute(0, 3, 1, 2)

    def soft(self, probability_NKHW: Tensor) -> Tensor:
        """Returns the same for class probabilities, through which gradients flow."""
        s = self.stride
        weight = self._table().view(s, s, self.num_classes, -1).permute(3, 2, 0, 1)
        return F.conv2d(probability_NKHW, weight, self.bias, stride=s)

    def _table(self) -> Tensor:
        """Returns the (S * S, K, channels) contribution of every class at every place of a patch."""
        return self.embedding @ self.patch


class EmbeddedClasses(nn.Module):
    """Encodes classes by learned embeddings, and decodes states by comparing them with learned embeddings.

    The head upsamples the state by pixel shuffle to half resolution (or keeps its own, if that is finer),
    concatenates it with the classes of a guide image, and upsamples again. Its last convolution is initialised to
    0.
    """

    def __init__(self, num_classes: int, hidden: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride, self.fine = hidden, stride, min(stride, 2)
        self.num_classes = num_classes
        self.stem = PatchEmbedding(num_classes, EMBEDDING, hidden, stride)
        self.guide = nn.Embedding(num_classes, HEAD_WIDTH)
        self.up = nn.Conv2d(hidden, HEAD_WIDTH * (stride // self.fine) ** 2, 1)
        self.join = nn.Conv2d(2 * HEAD_WIDTH, 2 * HEAD_WIDTH, 3, padding=1)
        self.out = nn.Conv2d(2 * HEAD_WIDTH, EMBEDDING * self.fine**2, 3, padding=1)
        self.classes = nn.Parameter(torch.randn(num_classes, EMBEDDING) / EMBEDDING**0.5)
        self.reset()

    def reset(self) -> None:
        """Resets all corrections to 0."""
        set_to_zero(self.out)

    def encode(self, ids_NHW: Tensor) -> Tensor:
        """Returns the network's input (N, C, H/S, W/S) for class ids."""
        return self.stem(_pad(ids_NHW, self.stride))

    def encode_soft(self, probability_NKHW: Tensor) -> Tensor:
        """Returns the same for class probabilities."""
        return self.stem.soft(edge_padded(probability_NKHW, self.stride))

    def correct(self, state_NCHW: Tensor, guide_NHW: Tensor, rows: Pick, columns: Pick, class_K: Tensor) -> Tensor:
        """Returns float32 logits (N, K, I, J) of the picked pixels and classes.

        Args:
            state_NCHW: of the recurrent network.
            guide_NHW: class ids at half resolution (full resolution for stride 1).
            rows: of the picture, from its top.
            columns: of the picture, from its left.
            class_K: class ids.
        """
        x = F.pixel_shuffle(self.up(state_NCHW), self.stride // self.fine)
        height, width = x.shape[-2:]
        guide = F.embedding(guide_NHW.long(), self.guide.weight).permute(0, 3, 1, 2)
        guide = F.pad(guide, (0, width - guide.shape[-1], 0, height - guide.shape[-2]))
        x = F.silu(self.join(torch.cat([x, guide.to(x.dtype)], dim=1)))
        x = picked_pixels(F.pixel_shuffle(self.out(x), self.fine), rows, columns)
        return at_least_float32(torch.einsum("neij,ke->nkij", x, self.classes[class_K]))

    def features(self, states: list[Tensor], guide_BHW: Tensor) -> Tensor:
        """Returns the vectors that ``correct`` compares with classes, for states (B, C, H/S, W/S) of S steps.

        All tensors are channels_last, which is fastest on a GPU. The vectors of each block of fine x fine pixels
        are channels of one place: (B S, fine^2 E, H / fine, W / fine).

        Args:
            states: of the recurrent network.
            guide_BHW: as in ``correct``; the same for all steps.
        """
        x_NHWC = torch.stack([state.permute(0, 2, 3, 1) for state in states], 1).flatten(0, 1)
        x_NHWC = self.up(x_NHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        times = self.stride // self.fine
        x_NHWC = x_NHWC.unflatten(-1, (HEAD_WIDTH, times, times)).permute(0, 1, 4, 2, 5, 3)
        x_NHWC = x_NHWC.flatten(3, 4).flatten(1, 2)
        guide = F.embedding(guide_BHW.long(), self.guide.weight).to(x_NHWC.dtype)
        missing = [x_NHWC.shape[axis] - guide.shape[axis] for axis in (2, 1)]
        guide = F.pad(guide, (0, 0, 0, missing[0], 0, missing[1])).repeat_interleave(len(states), 0)
        x = F.silu(self.join(torch.cat([x_NHWC, guide], -1).permute(0, 3, 1, 2)))
        assert self.out.bias is not None
        weight, bias = (
            each.unflatten(0, (-1, self.fine**2)).transpose(0, 1).flatten(0, 1)
            for each in (self.out.weight, self.out.bias)
        )
        return F.conv2d(x, weight, bias, padding=1)


class OneHotClasses(nn.Module):
    """One channel per class in, one logit per class out, at full resolution (stride 1)."""

    def __init__(self, num_classes: int, hidden: int, *, start_at_zero: bool) -> None:
        super().__init__()
        self.channels, self.stride, self.fine, self.num_classes = num_classes, 1, 1, num_classes
        self.out = nn.Conv2d(hidden, num_classes, 3, padding=1)
        if start_at_zero:
            self.reset()

    def reset(self) -> None:
        """Resets all corrections to 0."""
        set_to_zero(self.out)

    def encode(self, ids_NHW: Tensor) -> Tensor:
        """Returns the classes one-hot (N, K, H, W)."""
        return F.one_hot(ids_NHW.long(), self.num_classes).permute(0, 3, 1, 2).to(self.out.weight.dtype)

    def encode_soft(self, probability_NKHW: Tensor) -> Tensor:
        """Returns the probabilities as they are."""
        return probability_NKHW

    def correct(self, state_NCHW: Tensor, guide_NHW: Tensor, rows: Pick, columns: Pick, class_K: Tensor) -> Tensor:
        """Returns float32 logits (N, K, I, J) of the picked pixels and classes; the guide is not needed."""
        return at_least_float32(picked_pixels(self.out(state_NCHW), rows, columns)[:, class_K])


def _pad(ids_NHW: Tensor, stride: int) -> Tensor:
    """Pads the masks with background below and right, to multiples of ``stride``."""
    height, width = ids_NHW.shape[-2:]
    return F.pad(ids_NHW, (0, -width % stride, 0, -height % stride))
