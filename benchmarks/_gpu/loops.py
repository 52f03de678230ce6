"""Whole loops over real clips: the product's training beside the plain one, and masks of all clips.

A loop's rate counts the second half of its steps: the first one fills caches and picks kernels.
"""

import functools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from _gpu.cases import Case
from _gpu.data import Sizes
from _gpu.measure import CARD, DEVICE, allow_tf32, forget, peak_gib, pytorch_kernels, seconds_of, wait
from _gpu.peers import NO_PEER, PEERS, Peer
from _gpu.table import Row
from maskcast.data.clips import ClipStore
from maskcast.models.segmentation.table import save_masker
from maskcast.progress import listening
from maskcast.stages.generate_masks import GenerateMasks, generate_masks
from maskcast.training.loop import fit
from maskcast.training.schedule import Schedule

PART = "loops"
BURST = 2e-3  # seconds within which reports come together
PLAIN_STEPS = 20  # of a loop that has no batches in store that might run out
AHEAD = 4  # batches that the plain loop's loader makes ahead, in a thread


def loops(case: Case, sizes: Sizes, folder: Path) -> Iterator[Callable[[], Row]]:
    """Yields calls that each measure one loop of a model; the first ones are its peers.

    Args:
        case: the model.
        sizes: how many steps.
        folder: the trained masker goes there, as ``masker``.
    """
    seconds: dict[str, float] = {}

    def plain(name: str, make: Callable[[Any, Any], Peer], tf32: bool) -> Row:
        forget()
        allow_tf32(convolutions=tf32, products=False)
        with pytorch_kernels():
            return plainly(name, make, tf32)

    def plainly(name: str, make: Callable[[Any, Any], Peer], tf32: bool) -> Row:
        task = case.task()
        peer = make(task, task.batch(0))
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(task.batch, step) for step in range(AHEAD)]
            steps = min(PLAIN_STEPS, sizes.steps)
            for step in range(2 * steps):
                if step == steps:
                    wait()
                    start = time.perf_counter()
                batch = ahead.pop(0).result()
                ahead.append(pool.submit(task.batch, step + AHEAD))
                peer.step(batch)
            wait()
            taken = (time.perf_counter() - start) / steps
            for future in ahead:
                future.cancel()
        if tf32:
            seconds["plain"] = taken / peer.samples
        found = _row(case, f"{name}{'' if tf32 else ', no TF32'}", taken, seconds, peer.samples)
        if peer.infer is not None:
            found.infer_per_s = peer.samples / seconds_of(functools.partial(peer.infer, batch), sizes.seconds)
        return found

    def ours(fixed: bool) -> Row:
        forget()
        allow_tf32(convolutions=True, products=False)
        task = case.task()
        if fixed:
            task.batch = functools.partial(_same, task.batch(0))
        training = task.params.training
        steps = min(PLAIN_STEPS, sizes.steps) if fixed else sizes.steps
        taken = _seconds_per_step(task, training, steps, folder)
        if case.name == "U-Net" and not fixed:
            shutil.rmtree(folder / "masker", ignore_errors=True)
            save_masker(folder / "masker", task.segmenter, task.params.model, {})
        seconds["fixed" if fixed else "ours"] = taken
        found = _row(case, "maskcast's loop, one batch" if fixed else "maskcast's loop", taken, seconds)
        if "fixed" in seconds and "ours" in seconds:
            found.wait = max(0.0, 100 * (1 - seconds["fixed"] / seconds["ours"]))
        return found

    name, make = PEERS.get(case.name, NO_PEER)
    yield lambda: plain(name, make, True)
    if case.name == "U-Net":
        yield lambda: plain(name, make, False)
    yield lambda: ours(True)
    yield lambda: ours(False)


def _row(case: Case, form: str, taken: float, seconds: Mapping[str, float], samples: int | None = None) -> Row:
    count = samples or case.batch
    row = Row(PART, case.name, form, count, case.unit, 1e3 * taken, count / taken)
    row.peak_gib = peak_gib()
    if "plain" in seconds:
        row.plain = seconds["plain"] / (taken / count)
    return row


def _same(batch: Any, step: int) -> Any:
    return batch


def compiled_loop(case: Case, sizes: Sizes, folder: Path) -> Row:
    """Returns the row of the product's loop, told to compile."""
    forget()
    task = case.task()
    training = task.params.training.model_copy(update={"compile": True})
    return _row(case, "maskcast's loop, compiled", _seconds_per_step(task, training, sizes.steps, folder), {})


def _seconds_per_step(task: Any, training: Schedule, steps: int, folder: Path) -> float:
    """Returns the seconds of a step of the product's loop.

    Steps are counted where the loop reports them. It may report each some steps late, and the last ones at once,
    which therefore do not count.
    """
    seen: list[tuple[float, int]] = []

    class Clock:
        def metrics(self, values: Mapping[str, float], step: int | None) -> None:
            if "train/loss" in values and step is not None:
                seen.append((time.perf_counter(), step))

        def file(self, path: Path, folder: str) -> None: ...

        def section(self, title: str, content: object) -> None: ...

    with listening(Clock()), tempfile.TemporaryDirectory(dir=folder) as resume:
        fit(task, training.model_copy(update={"steps_per_epoch": 2 * steps}), Path(resume))
    half = [one for one in seen if one[1] >= steps]
    some = [one for one in half if one[0] < half[-1][0] - BURST]
    (start, first), (end, last) = (some or half)[0], (some[1:] or half)[-1]
    return (end - start) / max(1, last - first)


def generation(folder: Path, sizes: Sizes) -> Iterator[Callable[[], Row]]:
    """Yields calls that each mask all clips: read, segment, compress, write.

    Args:
        folder: with ``clips``, and the ``masker`` that a loop before trained.
        sizes: of frames.
    """
    store = ClipStore(folder / "clips")
    frames = sum(clip.num_frames for clip in store.clips)
    rate: dict[str, float] = {}

    def ours(form: str, **params: Any) -> Row:
        forget()
        for _turn in range(2 if CARD else 1):  # the first one picks kernels
            out = Path(tempfile.mkdtemp(dir=folder)) / "masks"
            start = time.perf_counter()
            where = {"clips": folder / "clips", "masker": folder / "masker", "masks": out}
            generate_masks(**where, metrics=out.with_name("m.json"), params=GenerateMasks(**params))
            taken = time.perf_counter() - start
        speed = json.loads(out.with_name("m.json").read_text(encoding="utf-8"))
        row = Row("masks", "U-Net", form, unit="frames", ms=1e3 * taken / frames, per_s=frames / taken)
        row.peak_gib, row.plain = peak_gib(), row.per_s / rate["plain"] if row.per_s and "plain" in rate else None
        row.note = (
            f"{speed['frames_per_second']:.0f}/s without reading the model and writing the store, {frames} frames"
        )
        return row

    def plain() -> Row:
        from maskcast.models.segmentation.table import load_masker

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
        taken = time.perf_counter() - start
        rate["plain"] = len(paths) / taken
        return Row(
            "masks",
            "U-Net",
            "PNG to PNG, batch 16, fp32",
            unit="frames",
            ms=1e3 * taken / len(paths),
            per_s=rate["plain"],
            plain=1.0,
        )

    yield plain
    yield lambda: ours("generate_masks")
    yield lambda: ours("generate_masks, batch 64", batch_size=64)
    yield lambda: ours("generate_masks, batch 64, frames apart", batch_size=64, consistent_frames=None)
