"""Whole loops over real clips: the product's training beside the plain one, and masks of all clips.

A loop's rate counts the second half of its steps: the first one fills caches and picks kernels.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _gpu.cases import Case
from _gpu.data import Sizes
from _gpu.measure import allow_tf32, forget, peak_gib, pytorch_kernels, seconds_of, wait
from _gpu.peers import NO_PEER, PEERS, Peer
from _gpu.table import Row
from maskcast.models.segmentation.table import save_masker
from maskcast.progress import listening
from maskcast.training.loop import fit
from maskcast.training.schedule import Schedule

BURST = 2e-3  # seconds: reports within this time count as simultaneous
PLAIN_STEPS = 10  # timed steps of a loop without a stock of batches that might run out
LOOP_SECONDS = 3.0  # maximum time per loop, at the pace of the plain loop
BY_MUON = ("U-Net", "DeepLabV3+", "ConvLSTM stride 4", "simvp")  # convolutional networks
AHEAD = 4  # number of batches that the plain loop's loader makes ahead, in a thread


class Loops:
    """The training loops of a model.

    Args:
        case: the model.
        sizes: has the maximum number of steps.
        folder: folder for the trained masker, named ``masker``.
    """

    def __init__(self, case: Case, sizes: Sizes, folder: Path) -> None:
        self.case, self.sizes, self.folder = case, sizes, folder
        self._seconds: dict[str, float] = {}  # per step for each loop so far; for the plain loop, per sample

    def rows(self) -> Iterator[Callable[[], Row]]:
        """Yields functions that each measure one loop, the plain ones first."""
        yield functools.partial(self.plain, True)
        if self.case.name == "U-Net":
            yield functools.partial(self.plain, False)
        yield functools.partial(self.ours, True)
        yield functools.partial(self.ours, False)
        if self.case.name in BY_MUON:
            yield self.by_muon

    def plain(self, tf32: bool) -> Row:
        """Returns the row of the plain loop, with PyTorch's default or without TF32."""
        forget()
        allow_tf32(convolutions=tf32, products=False)
        name, make = PEERS.get(self.case.name, NO_PEER)
        with pytorch_kernels():
            task = self.case.task()
            peer = make(task, task.batch(0))
            taken = _plain_seconds(task, peer, min(PLAIN_STEPS, self.sizes.steps))
            if tf32:
                self._seconds["plain"] = taken / peer.samples
            found = self._row(f"{name}{'' if tf32 else ', no TF32'}", taken, peer.samples)
            if peer.infer is not None:
                infer = functools.partial(peer.infer, task.batch(0))
                found.infer_per_s = peer.samples / seconds_of(infer, self.sizes.seconds)
        return found

    def ours(self, fixed: bool) -> Row:
        """Returns the row of maskcast's loop, with a new batch per step or a fixed batch."""
        forget()
        task = self.case.task()
        if fixed:
            task.batch = functools.partial(_same, task.batch(0))
        steps = min(PLAIN_STEPS, self._steps()) if fixed else self._steps()
        taken = _seconds_per_step(task, task.params.training, steps, self.folder)
        if self.case.name == "U-Net" and not fixed:
            save_masker(self.folder / "masker", task.segmenter, task.params.model, {})
        self._seconds["fixed" if fixed else "ours"] = taken
        found = self._row("maskcast's loop, one batch" if fixed else "maskcast's loop", taken, self.case.batch)
        if "fixed" in self._seconds and "ours" in self._seconds:
            found.wait = max(0.0, 100 * (1 - self._seconds["fixed"] / self._seconds["ours"]))
        return found

    def by_muon(self) -> Row:
        """Returns the row of maskcast's loop with the optimiser Muon."""
        forget()
        task = self.case.task()
        training = task.params.training.model_copy(update={"optimizer": "muon"})
        taken = _seconds_per_step(task, training, self._steps(), self.folder)
        return self._row("maskcast's loop, Muon", taken, self.case.batch)

    def _steps(self) -> int:
        pace = self.case.batch * self._seconds.get("plain", 0.1)
        return min(self.sizes.steps, max(PLAIN_STEPS, int(LOOP_SECONDS / pace)))

    def _row(self, form: str, taken: float, samples: int) -> Row:
        row = Row("loops", self.case.name, form, samples, self.case.unit, 1e3 * taken, samples / taken)
        row.peak_gib = peak_gib()
        if "plain" in self._seconds:
            row.plain = self._seconds["plain"] / (taken / samples)
        return row


def _plain_seconds(task: Any, peer: Peer, steps: int) -> float:
    """Returns the seconds per step of a plain loop, whose loader is one thread that makes batches ahead."""
    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(task.batch, step) for step in range(AHEAD)]
        for step in range(2 * steps):
            if step == steps:
                wait()
                start = time.perf_counter()
            batch = ahead.pop(0).result()
            ahead.append(pool.submit(task.batch, step + AHEAD))
            peer.step(batch)
        wait()
        for future in ahead:
            future.cancel()
        return (time.perf_counter() - start) / steps


def _same(batch: Any, step: int) -> Any:
    return batch


def train_masker(case: Case, sizes: Sizes, folder: Path) -> None:
    """Trains a masker as the loops do, and saves it as ``masker``."""
    task = case.task()
    _seconds_per_step(task, task.params.training, sizes.steps, folder)
    save_masker(folder / "masker", task.segmenter, task.params.model, {})


def compiled_loop(case: Case, sizes: Sizes, folder: Path) -> Row:
    """Returns the row of maskcast's loop with compilation."""
    forget()
    task = case.task()
    training = task.params.training.model_copy(update={"compile": True})
    taken = _seconds_per_step(task, training, sizes.steps, folder)
    return Row("compiled", case.name, "maskcast's loop", case.batch, case.unit, 1e3 * taken, case.batch / taken)


def _seconds_per_step(task: Any, training: Schedule, steps: int, folder: Path) -> float:
    """Returns the seconds per step of maskcast's loop.

    Steps are counted when the loop reports them. Reports may be a few steps late, and the last ones come at once,
    so these are not counted.
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
