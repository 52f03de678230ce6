"""Estimates centre and size of whole objects of which the border or a nearer object hides a part.

An observation is what one frame shows of an object. Completion is learned from whole observations, of which a part
is hidden artificially (``cutting``). It needs neither a camera nor a simulator's truth, only masks in which some
objects are seen whole.

Shapes: B clips, T frames, N objects, F frames of all clips, K classes, M observations, S side of a window in
cells, H height, W width.
"""

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.labels import IGNORE
from maskcast.models.arithmetic import shapes_are_fixed
from maskcast.models.objects.tracks import Tracks, unpack_tracks
from maskcast.models.recurrent.cells import set_to_zero

CELLS = 32  # cells of a window along each axis
# side of a window, in units of the observation's larger standard deviation: about twice the visible part
SIDE = 8.0
KIND = 8  # width of a class embedding, which holds shape and size
WIDTH, HIDDEN = 16, 96
SCALE_BIAS = -2.0  # log of the expected error of an untrained network, in units of the observation
BATCH_SIZE = 1024  # observations per forward pass


class Completion(nn.Module):
    """Completes cut observations of the classes that it has learned.

    It is trained before the motion of objects, and frozen afterwards.

    Args:
        num_classes: K; a learned embedding of each class tells the shape and size of hidden parts.
    """

    known_K: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # per class, so that it is initialised anew for other classes
        self.register_buffer("known_K", torch.zeros(num_classes, dtype=torch.bool))
        channels = [3, WIDTH, 2 * WIDTH, 2 * WIDTH]
        layers = [nn.Conv2d(*some, 3, 2, 1) for some in pairwise(channels)]
        self.look = nn.Sequential(*(part for layer in layers for part in (layer, nn.SiLU())))
        self.kind = nn.Embedding(num_classes, KIND)
        nn.init.normal_(self.kind.weight, std=0.1)
        seen = channels[-1] * (CELLS // 2 ** len(layers)) ** 2
        self.head = nn.Sequential(
            nn.Linear(seen + KIND + 5, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, 6),
        )
        set_to_zero(self.head[-1])
        self.requires_grad_(False)

    def forward(
        self, window_M3SS: Tensor, class_M: Tensor, centre_M2: Tensor, std_M2: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns centre and size of the whole objects and the scale of the centre's error (Laplace), (M, 2) each.

        Args:
            window_M3SS: surroundings of each observation (``windows``).
            class_M: its class, or its object number (``parts``).
            centre_M2: centre of the visible part.
            std_M2: size of the visible part.
        """
        unit_M1 = std_M2.amax(-1, keepdim=True).clamp(min=1e-4)
        measures = torch.cat([centre_M2, unit_M1.log() + 3, std_M2 / unit_M1], -1)
        appearance = self.look(window_M3SS.to(centre_M2.dtype)).flatten(1)
        kind = self.kind(class_M % len(self.known_K))
        shift, growth, scale = self.head(torch.cat([appearance, kind, measures], 1)).split(2, dim=-1)
        return centre_M2 + shift * unit_M1, std_M2 * growth.exp(), (scale + SCALE_BIAS).exp() * unit_M1

    @torch.no_grad()
    def complete(self, ids_BTHW: Tensor, object_BN: Tensor, tracks: Tracks) -> Tracks:
        """Returns the tracks of whole objects; ``doubt_BTN2`` is their uncertainty, 0 if nothing cuts them."""
        shape = tracks.centre_BTN2.shape
        frame_M = torch.arange(shape[0] * shape[1], device=ids_BTHW.device).repeat_interleave(shape[2])
        class_M = object_BN[:, None].expand(shape[:3]).flatten()
        centre_M2, std_M2 = tracks.centre_BTN2.flatten(0, 2), tracks.std_BTN2.flatten(0, 2)
        observations = [frame_M, class_M, centre_M2, std_M2]
        centre_M2, std_M2, doubt_M2 = centre_M2.clone(), std_M2.clone(), torch.zeros_like(centre_M2)
        trained = tracks.visible_BTN.flatten() & self.known_K[class_M % len(self.known_K)]
        fixed = shapes_are_fixed()
        all_M = torch.arange(trained.shape[0], device=trained.device)
        chunks = [all_M] if fixed else all_M[trained].split(BATCH_SIZE)
        for chunk in chunks:
            window = windows(ids_BTHW.flatten(0, 1), *(observation[chunk] for observation in observations))
            cut = is_cut(window) & trained[chunk]
            if not fixed:
                chunk, window, cut = chunk[cut], window[cut], cut[cut]
            estimates = self(window, *(observation[chunk] for observation in observations[1:]))
            for values, estimate in zip((centre_M2, std_M2, doubt_M2), estimates, strict=True):
                values[chunk] = torch.where(cut[:, None], estimate, values[chunk])
        return replace(
            tracks, centre_BTN2=centre_M2.view(shape), std_BTN2=std_M2.view(shape), doubt_BTN2=doubt_M2.view(shape)
        )


def windows(ids_FHW: Tensor, frame_M: Tensor, class_M: Tensor, centre_M2: Tensor, std_M2: Tensor) -> Tensor:
    """Returns the surroundings of each observation (M, 3, S, S), bool: object, other objects, unknown pixels."""
    framed_FHW = F.pad(ids_FHW, (1, 1, 1, 1), value=IGNORE)  # the outside of the image counts as unknown
    height, width = ids_FHW.shape[1:]
    cells_S = (torch.arange(CELLS, device=ids_FHW.device) + 0.5) / CELLS - 0.5
    place_M2S = centre_M2[..., None] + cells_S * (SIDE * std_M2.amax(-1))[:, None, None]
    row_MS = (place_M2S[:, 0] * height + (height - 1) / 2).round().long().clamp(-1, height) + 1
    column_MS = (place_M2S[:, 1] * height + (width - 1) / 2).round().long().clamp(-1, width) + 1
    row_MS = row_MS + frame_M[:, None] * (height + 2)
    pixel_MSS = row_MS[..., None] * (width + 2) + column_MS[:, None]
    ids_MSS = framed_FHW.flatten().index_select(0, pixel_MSS.flatten()).view(pixel_MSS.shape)
    outside_MSS = ids_MSS == IGNORE
    own_MSS = (ids_MSS == class_M[:, None, None]) & ~outside_MSS
    return torch.stack([own_MSS, (ids_MSS > 0) & ~own_MSS & ~outside_MSS, outside_MSS], 1)


def is_cut(window_M3SS: Tensor) -> Tensor:
    """Returns (M,) bool: whether an object touches the border or another object, which may hide a part of it."""
    framed_MSS = F.pad(window_M3SS[:, 0], (1, 1, 1, 1))
    # dilation by "or"; max pooling of floats takes twice as long
    rows_MSS = framed_MSS[:, :-2] | framed_MSS[:, 1:-1] | framed_MSS[:, 2:]
    near_MSS = rows_MSS[..., :-2] | rows_MSS[..., 1:-1] | rows_MSS[..., 2:]
    return (near_MSS & window_M3SS[:, 1:].any(1)).flatten(1).any(1)


def pack_whole(completion: Completion, ids_THW: Tensor, packed_TS8: Tensor) -> Tensor:
    """Returns packed tracks of whole objects with their uncertainty, (T, S, 10), see ``PACKED`` and ``DOUBT``."""
    objects, tracks = unpack_tracks(packed_TS8[None])
    whole = completion.complete(ids_THW[None], objects, tracks)
    assert whole.doubt_BTN2 is not None
    sizes = whole.centre_BTN2[0], whole.std_BTN2[0]
    return torch.cat([packed_TS8[..., :2], *sizes, packed_TS8[..., 6:], whole.doubt_BTN2[0]], -1)
