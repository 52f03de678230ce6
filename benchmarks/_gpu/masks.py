"""Masks of all clips: read, segmented, compressed and written."""

import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from _gpu.measure import CARD, DEVICE, allow_tf32, forget, peak_gib, pytorch_kernels
from _gpu.table import Row
from maskcast.data.clip_store.reader import ClipStore
from maskcast.inference import generation
from maskcast.models.segmentation.table import load_masker
from maskcast.resources import num_cpus
from maskcast.stages.generate_masks import GenerateMasks, generate_masks


def rows(folder: Path) -> Iterator[Callable[[], Row]]:
    """Yields functions that each mask all clips of a store and return the row.

    Args:
        folder: has ``clips``, and the ``masker`` from the training loop.
    """
    store = ClipStore(folder / "clips")
    frames = sum(clip.num_frames for clip in store.clips)
    rate: dict[str, float] = {}

    def plain() -> Row:
        rate["plain"] = _plain_rate(folder)
        form = "PNG to PNG, batch 16, fp32"
        return Row("masks", "U-Net", form, unit="frames", ms=1e3 / rate["plain"], per_s=rate["plain"], plain=1.0)

    def ours(form: str, **params: Any) -> Row:
        forget()
        for _turn in range(2 if CARD else 1):  # the first run picks kernels
            out = Path(tempfile.mkdtemp(dir=folder)) / "masks"
            start = time.perf_counter()
            where = {"clips": folder / "clips", "masker": folder / "masker", "masks": out}
            generate_masks(**where, metrics=out.with_name("m.json"), params=GenerateMasks(**params))
            taken = time.perf_counter() - start
        speed = json.loads(out.with_name("m.json").read_text(encoding="utf-8"))["frames_per_second"]
        row = Row("masks", "U-Net", form, unit="frames", ms=1e3 * taken / frames, per_s=frames / taken)
        row.peak_gib = peak_gib()
        if "plain" in rate:
            row.plain = frames / taken / rate["plain"]
        row.note = f"{speed:.0f}/s while it masks, {frames} frames"
        return row

    yield plain

    def in_threads() -> Row:
        with mock.patch.object(generation, "parallel_packers", lambda packer, _: [packer] * num_cpus()):
            return ours("generate_masks, agreeing in threads")

    yield functools.partial(ours, "generate_masks")
    yield in_threads
    yield functools.partial(ours, "generate_masks, frames apart", consistent_frames=None)
    yield functools.partial(ours, "generate_masks, frames apart, 64", consistent_frames=None, batch_size=64)


def _plain_rate(folder: Path) -> float:
    """Returns the frames per second of a loop that reads a PNG per frame and writes one per mask."""
    forget()
    allow_tf32(convolutions=True, products=False)
    masker, _ = load_masker(folder / "masker")
    network: Any = masker.to(DEVICE).network
    network.to(memory_format=torch.contiguous_format)
    mean, std = masker.mean.cpu(), masker.std.cpu()
    paths = sorted((folder / "png").glob("*.png"))
    out = Path(tempfile.mkdtemp(dir=folder))
    start = time.perf_counter()
    with torch.no_grad(), pytorch_kernels():
        for first in range(0, len(paths), 16):
            some = paths[first : first + 16]
            pictures = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in some]))
            normal = ((pictures.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
            masks = network(normal.to(DEVICE)).argmax(1).to(torch.uint8).cpu().numpy()
            for path, mask in zip(some, masks, strict=True):
                Image.fromarray(mask).save(out / path.name)
    return len(paths) / (time.perf_counter() - start)
