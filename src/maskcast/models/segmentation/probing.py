"""Runs a segmenter on two small frames of noise, to check what one of another package returns.

Legend: B clips, T frames, H height, W width, C = 3 colour channels.
"""

import torch
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.models.rebuilding import differ
from maskcast.models.segmentation.base import PROBE, Segmenter, run_segmenter
from maskcast.plugins import class_name
from maskcast.seed import seed_libraries


@torch.no_grad()
def probe_logits(segmenter: nn.Module) -> list[Tensor]:
    """Returns the logits of each map of two frames, one after the other."""
    assert isinstance(segmenter, Segmenter)
    logits, state = run_segmenter(segmenter, _frame(segmenter, 0))
    later, _ = run_segmenter(segmenter, _frame(segmenter, 1), state)
    return [*logits, *later]


@torch.no_grad()
def check_first_state(segmenter: Segmenter) -> None:
    """Checks that a segmenter does at the first frame what it does with a state of zeros, as exported graphs do.

    Raises:
        MaskcastError: it does something else.
    """
    if not segmenter.stateful:
        return
    frame = _frame(segmenter, 0)
    seed_libraries(0)
    logits, state = run_segmenter(segmenter, frame)
    seed_libraries(0)
    from_zeros, _ = run_segmenter(segmenter, frame, tuple(map(torch.zeros_like, state)))
    if any(map(differ, logits, from_zeros)):
        raise MaskcastError(
            f"{class_name(segmenter)}.forward returns other logits without a state than with one of zeros, "
            "which exported models begin with; begin with zeros, or keep the difference from another start"
        )


def _frame(segmenter: Segmenter, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    frame_BTHWC = torch.randint(256, (1, 1, PROBE, PROBE, 3), generator=random).to(torch.uint8)
    return frame_BTHWC.to(segmenter.mean.device)
