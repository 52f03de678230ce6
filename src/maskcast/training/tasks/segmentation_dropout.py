"""Feature perturbation: channels of the student's features are dropped for unlabelled samples.

The features of the strong view are perturbed in the same forward pass, as in UniMatch V2 (Yang et al. 2024, arXiv
2410.10777). So it costs no extra time; the first UniMatch decodes each frame twice.

Legend: B samples, N rows of a map (frames of samples), C channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maskcast.seed import derive
from maskcast.training.tasks.segmentation_unlabeled import own_samples

DROPPED = 2**32 - 1  # random key for drawing channels, different from the rank of a process


class FeatureDropout:
    """Drops channels of an encoder's maps for the unlabelled samples, which come last in a batch.

    All frames of a sample lose the same channels. These depend on (seed, step, sample) only, so that several
    processes drop the same channels as a single one.

    Args:
        encoder: gets a forward hook; channels of its maps are dropped, not those of its input.
        share: of the channels that is dropped.
        samples: number of unlabelled samples, of all processes.
    """

    def __init__(self, encoder: nn.Module, share: float, samples: int) -> None:
        self.share, self.samples = share, samples
        self._channels: list[int] = list(encoder.out_channels)  # type: ignore[arg-type]
        self._kept: Sequence[Tensor] | None = None
        encoder.register_forward_hook(self._hook)

    def draw(self, seed: int, step: int) -> tuple[Tensor, ...]:
        """Returns which channels of each map are kept for this process's samples, (B, C) bool."""
        random, own = torch.Generator().manual_seed(derive(seed, step, DROPPED)), own_samples(self.samples)
        return tuple(
            torch.rand(self.samples, channels, generator=random)[own] >= self.share for channels in self._channels
        )

    @contextmanager
    def __call__(self, kept: Sequence[Tensor], labelled: float) -> Iterator[None]:
        """A context in which channels are dropped, except in a map's first rows, whose share is ``labelled``."""
        self._kept, self._labelled = kept, labelled
        try:
            yield
        finally:
            self._kept = None

    def _hook(self, encoder: nn.Module, inputs: tuple[Tensor, ...], maps: Sequence[Tensor]) -> list[Tensor] | None:
        if self._kept is None:
            return None
        out = []
        for map_NCHW, kept_BC in zip(maps, self._kept, strict=True):
            if map_NCHW is inputs[0]:
                out.append(map_NCHW)
                continue
            scale_NC = torch.ones(map_NCHW.shape[:2], device=map_NCHW.device)
            first = round(self._labelled * len(scale_NC))
            frames = (len(scale_NC) - first) // len(kept_BC)
            scale_NC[first:] = (kept_BC / (1 - self.share)).repeat_interleave(frames, 0)
            out.append(map_NCHW * scale_NC[..., None, None].to(map_NCHW))
        return out
