"""The base of segmenters: frames in, logits of every label map out, optionally with a state along the clip.

Legend: B clips, T frames, N = B T, H height, W width, C = 3 colour channels, K channels of logits.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.cuda_graphs import tensors_of
from maskcast.models.encoders.base import padded
from maskcast.plugins import class_name
from maskcast.reading import pluralize

State = tuple[Tensor, ...]

PROBE = 64  # rows and columns of the frame on which a network is measured


class Segmenter(nn.Module, ABC):
    """Base of all segmenters.

    ``mean`` and ``std``, per channel of frames scaled to [0, 1], are buffers: training sets them, and they are
    saved with the weights.

    Args:
        maps: label maps to predict, of kind ``classes`` or ``alpha``.

    Raises:
        MaskcastError: if a map is of another kind.
    """

    stateful: ClassVar[bool] = False
    """Whether a frame's logits depend on earlier frames; if not, the state is always ``()``."""

    mean: Tensor
    std: Tensor

    def __init__(self, maps: Sequence[LabelMap]) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.channels = logit_channels(self.maps)
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("std", torch.full((3,), 0.25))

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's tensors, in order. The initial state is zeros of their shapes."""
        return ()

    @cached_property
    def numbers_per_pixel(self) -> int:
        """Numbers per pixel of the largest layer of a forward pass: inputs plus outputs."""
        largest = 0

        def count_numbers(_: nn.Module, given: Any, made: Any) -> None:
            nonlocal largest
            largest = max(largest, sum(x.numel() for x in tensors_of((given, made))))

        frame = torch.zeros(1, 1, PROBE, PROBE, 3, dtype=torch.uint8, device=self.mean.device)
        with torch.inference_mode():
            _, state = self(frame)  # measured with a state, as in the middle of a clip
            hooks = [part.register_forward_hook(count_numbers) for part in self.modules() if part is not self]
            try:
                self(frame, state)
            finally:
                for hook in hooks:
                    hook.remove()
        return max(-(-largest // PROBE**2), sum(self.channels))

    @abstractmethod
    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        """Segments consecutive frames.

        Args:
            frames_BTHWC: uint8 RGB.
            state: returned for the frames before; ``()`` at the first frame.

        Returns:
            Logits (B, T, K, H, W) of each map, in the order of ``maps``: K classes, or for an alpha K = 1, whose
            sigmoid is the opacity. And the state after the last frame, tensors with B as their first axis.
        """

    def normalised(self, frames_BTHWC: Tensor) -> Tensor:
        """Returns the normalised frames, (N, C, H, W) in channels_last."""
        return ((frames_BTHWC.flatten(0, 1).float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)  # no copy

    def per_map(self, logits_BTKHW: Tensor) -> tuple[Tensor, ...]:
        """Splits the K channels into the logits of each map."""
        if len(self.channels) == 1:  # a split would change the memory format of the gradient
            return (logits_BTKHW,)
        return logits_BTKHW.split(self.channels, 2)

    def cropped(self, logits_NKHW: Tensor, frames_BTHWC: Tensor) -> tuple[Tensor, ...]:
        """Crops the logits of padded frames to the given frames, and splits them by map."""
        height, width = frames_BTHWC.shape[2:4]
        return self.per_map(logits_NKHW[..., :height, :width].unflatten(0, frames_BTHWC.shape[:2]))


class Masker(Segmenter):
    """A segmentation network that sees one frame at a time.

    It normalises frames, pads them to the sizes that the network needs, and crops the logits.

    Args:
        network: maps (N, C, H, W) float to logits (N, K, H, W), for sizes that are multiples of ``multiple``.
        multiple: divisor of height and width; frames are padded with their edge pixels.
        maps: label maps to predict.
        owner: who made the network, for errors.
    """

    fixed_shapes: Sequence[str] = ("network.forward",)
    mirror: bool = False
    """Whether logits in eval mode are averaged over a frame and its mirror image."""

    def __init__(
        self, network: nn.Module, multiple: int, maps: Sequence[LabelMap], owner: str = "the masker"
    ) -> None:
        super().__init__(maps)
        self.network, self.multiple = network.to(memory_format=torch.channels_last), multiple
        self.owner = owner

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        """Returns the logits of each map (channels_last if the network preserves it), and an empty state."""
        logits = self._logits(frames_BTHWC)
        if self.mirror and not self.training:
            turned = self._logits(frames_BTHWC.flip(3))
            logits = tuple((own + other.flip(4)) / 2 for own, other in zip(logits, turned, strict=True))
        return logits, ()

    def _logits(self, frames_BTHWC: Tensor) -> tuple[Tensor, ...]:
        padded_NCHW = padded(self.normalised(frames_BTHWC), self.multiple)
        logits_NKHW = self.network(padded_NCHW)
        if not torch.compiler.is_compiling():  # the sizes of an exported graph are variables
            expected = (len(padded_NCHW), sum(self.channels), *padded_NCHW.shape[2:])
            if not isinstance(logits_NKHW, Tensor) or logits_NKHW.shape != expected:
                raise MaskcastError(
                    f"{self.owner}: in {'training' if self.training else 'eval'} mode the network returned "
                    f"{form_of(logits_NKHW)}; return logits of shape {expected}: samples, channels, height, width"
                )
        return self.cropped(logits_NKHW, frames_BTHWC)


def run_segmenter(segmenter: Segmenter, frames_BTHWC: Tensor, state: State = ()) -> tuple[Sequence[Tensor], State]:
    """Returns the logits of each map, and the state after the frames (see ``Segmenter.forward``).

    Raises:
        MaskcastError: the segmenter, which may be of another package, returns something else.
    """
    returned: Any = segmenter(frames_BTHWC, state)
    name, is_pair = class_name(segmenter), isinstance(returned, Sequence) and len(returned) == 2
    if not is_pair or not all(isinstance(x, Sequence) for x in returned):  # a tensor is no Sequence
        raise MaskcastError(
            f"{name}.forward must return two tuples: the logits of {pluralize(len(segmenter.maps), 'label map')}, "
            f"which self.per_map makes, and the state, () if there is none; it returned {form_of(returned)}"
        )
    logits, after = returned
    check_logits(segmenter, frames_BTHWC, logits)
    clips = len(frames_BTHWC)
    if not all(isinstance(x, Tensor) and x.ndim and len(x) == clips for x in after):
        raise MaskcastError(
            f"{name}.forward returned the state {form_of(after)}; its parts must be tensors with the "
            f"{pluralize(clips, 'clip')} as their first axis"
        )
    if after and not segmenter.stateful:
        raise MaskcastError(f"{name}.forward returned a state, but stateful is False; set it to True or return ()")
    return logits, tuple(after)


def check_logits(segmenter: Segmenter, frames_BTHWC: Tensor, logits: Sequence[Any]) -> None:
    """Checks the logits of each map for some frames.

    Raises:
        MaskcastError: their number, or the shape of one, is wrong.
    """
    samples, frames, height, width = frames_BTHWC.shape[:4]
    expected = [(samples, frames, channels, height, width) for channels in segmenter.channels]
    shapes = [x.shape if isinstance(x, Tensor) else None for x in logits]
    if shapes != expected:
        names = ", ".join(repr(label_map.name) for label_map in segmenter.maps)
        raise MaskcastError(
            f"{class_name(segmenter)}.forward returned the logits {form_of(logits)}; expected for {names} "
            f"{', '.join(map(str, expected))}: samples, frames, channels, height, width"
        )


def form_of(returned: object) -> str:
    """Returns the shape of a tensor, the parts of a tuple, or the type of anything else, for errors."""
    if isinstance(returned, Tensor):
        return f"a tensor {tuple(returned.shape)}"
    if isinstance(returned, tuple | list):
        return f"({', '.join(map(form_of, returned))})"
    return "None" if returned is None else type(returned).__name__


def most_probable(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the most probable class of each pixel, its probability, and the logits with the classes last.

    Args:
        logits: (..., K, H, W).

    Returns:
        Classes (..., H, W) int64, probabilities (..., H, W) float32 and logits (..., H, W, K) float32.
    """
    # argmax over the innermost axis is four times as fast as over a strided one
    logits = logits.movedim(-3, -1).contiguous().float()
    top, ids = logits.max(-1)
    return ids, (top - logits.logsumexp(-1)).exp_(), logits


def logit_channels(maps: Sequence[LabelMap]) -> list[int]:
    """Returns the number of logit channels of each map.

    Raises:
        MaskcastError: if a map is of a kind that cannot be learnt.
    """
    for label_map in maps:
        if label_map.kind == "instances":
            raise MaskcastError(
                f"label map {label_map.name!r} has kind instances, which maskers do not support; "
                "set maps to maps of kind classes or alpha"
            )
    return [1 if label_map.kind == "alpha" else label_map.num_classes for label_map in maps]
