"""Exports masks of two hands as an LMDB with a list of image paths, as ETH's InterHand2.6M task requires.

    NAME/test.lmdb     <path>__l, <path>__r -> PNG of class ids, the same in three channels
    NAME/im_path.pt    paths of the images, in order

Legend: H height, W width.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.clip_store.table import masks_layer
from maskcast.data.lmdb_files import write_lmdb
from maskcast.data.sources.hands import MASK_KEYS
from maskcast.errors import MaskcastError
from maskcast.progress import track

LMDB, LIST = "test.lmdb", "im_path.pt"


def write_hands(folder: Path, store: ClipStore, split: str | None) -> int:
    """Writes the masks of both hands into a new folder; returns the number of images.

    Args:
        folder: created here.
        store: has label maps ``left`` and ``right`` and clips of one frame; the image path is ``meta["path"]`` of
            a clip, else its id.
        split: split of the clips; None takes all clips with both masks.

    Raises:
        MaskcastError: if the store has no such maps or clips, or a clip has several frames.
    """
    maps = [store.of(side) for side in MASK_KEYS]
    mask_layers = {masks_layer(side) for side in MASK_KEYS}
    clips = store.where(lambda group: split in (None, group.split) and mask_layers <= set(group.layers))
    if not clips:
        of_split = f"of split {split!r} " if split else ""
        raise MaskcastError(f"{store.root}: no clip {of_split}has masks of left and right; it has {store.holds()}")
    paths: list[str] = []

    def values() -> Iterator[tuple[str, bytes]]:
        for clip in track(clips, "writing masks"):
            paths.append(_path(store, clip))
            for map_store, key in zip(maps, MASK_KEYS.values(), strict=True):
                yield paths[-1] + key, _png(map_store.masks(clip)[0])

    folder.mkdir(parents=True)
    write_lmdb(folder / LMDB, values())
    import torch  # the list is a PyTorch file; nothing else here needs PyTorch

    torch.save(paths, folder / LIST)
    return len(paths)


def pack(folder: Path, archive: Path, name: str) -> None:
    """Packs a folder as ``.tar.gz``, which unpacks into a folder called ``name``."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, name)


def _path(store: ClipStore, clip: Clip) -> str:
    if clip.num_frames != 1:
        raise MaskcastError(f"{store.root}: clip {clip.id!r} has {clip.num_frames} frames; give single images")
    return str(clip.meta.get("path", clip.id))


def _png(mask_HW: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", np.repeat(mask_HW[..., None], 3, -1))[1])
