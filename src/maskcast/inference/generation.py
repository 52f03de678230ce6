"""The masks of all clips of a store, generated so that a killed run goes on and ends with the same bytes.

Legend: T frames, H height, W width.
"""

import copy
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from maskcast.data.clip_index import FrameIndex
from maskcast.data.clip_table import frame_counts
from maskcast.data.clip_writer import ClipWriter
from maskcast.data.clips import Clip, ClipStore
from maskcast.data.finished import FinishedClip, FinishedClips
from maskcast.data.packing import LayerPacker
from maskcast.errors import MaskcastError
from maskcast.forking import Aside
from maskcast.inference.agreement import Agreement
from maskcast.inference.found import Found, MeanConfidence, length, quantise
from maskcast.inference.segment import segment_clips
from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.table import place_of_map
from maskcast.processors import num_processors
from maskcast.progress import track

WAITING = 2  # pieces per processor that wait to be compressed
SPARE = 2**16  # bytes beside the arrays of a piece, for gaps between them


def check_maps(
    folder: Path, masker: Segmenter, store: ClipStore, names: Sequence[str] | None
) -> tuple[LabelMap, ...]:
    """Returns the maps of a masker that have these names, or all, after a look whether they are those of a store.

    Raises:
        MaskcastError: if the masker has no such map, or was trained for another one than the store's of that name.
    """
    maps = masker.maps
    if names is not None:
        maps = tuple(maps[place_of_map(folder, masker, name, "name one of these (maps)")] for name in names)
    for one in maps:
        theirs = store.of(one.name).label_map
        if theirs != one:
            raise MaskcastError(
                f"{folder}: trained for {one.num_classes} classes that are not the {theirs.num_classes} of "
                f"{store.root}; train a masker on these clips"
            )
    return maps


def are_things(maps: Sequence[LabelMap], store: ClipStore) -> bool:
    """Whether the classes of all maps of classes are things, as the masker's maps say or those of the store."""
    classes = [one for one in maps if one.kind == "classes"]
    return bool(classes) and all(one.things or store.of(one.name).label_map.things for one in classes)


class Generation:
    """Generates masks of clips and writes them as a clip store.

    Args:
        store: holds the clips.
        clips: those to mask; all have frames.
        maps: the label maps to write.
        finished: clips that are done; it survives the run.
    """

    def __init__(
        self, store: ClipStore, clips: Sequence[Clip], maps: Sequence[LabelMap], finished: FinishedClips
    ) -> None:
        self.store, self.clips, self.maps, self._finished = store, clips, maps, finished
        self._index = FrameIndex(clips)

    def run(
        self,
        masker: Segmenter,
        devices: Sequence[torch.device],
        *,
        batch_size: int,
        precision: str,
        consistent_frames: int | None,
        confidence_levels: int,
    ) -> dict[str, float]:
        """Masks all clips from the first one on that is not finished; returns ``frames_per_second``, if it had to.

        Args:
            masker: knows the maps.
            devices: a copy of it works on each.
            batch_size: frames per forward pass.
            precision: ``bf16`` or ``fp32``.
            consistent_frames: see ``segment``.
            confidence_levels: steps to which a confidence is rounded.
        """
        done, started = self._finished.count(len(self.clips)), time.monotonic()
        if done == len(self.clips):
            return {}
        start = self._index.start(done)
        # Batch k holds frames k * batch_size and on of all clips laid end to end, wherever the run starts, because
        # the last bits of a convolution may depend on what it is batched with.
        first, place = self._index.at(start if masker.stateful else start - start % batch_size)
        pieces = segment_clips(
            [copy.deepcopy(masker).to(device) for device in devices],
            [self._frames(k, place if k == first else 0) for k in range(first, len(self.clips))],
            batch_size=batch_size,
            precision=precision,
            objects=consistent_frames is not None,
            confidence_levels=confidence_levels,
        )
        packer = Packer(
            self.maps, confidence_levels, consistent_frames, frame_counts(self.clips).tolist(), self._finished
        )
        pixels = batch_size * self.store.height * self.store.width
        with Packing(lanes(packer, pixels)) as packing:
            for number, found in track(pieces, "generating masks"):
                if first + number >= done:
                    packing.add(first + number, {one.name: found[one.name] for one in self.maps})
        return {"frames_per_second": (len(self._index) - start) / (time.monotonic() - started)}

    def write(self, folder: Path, meta: dict[str, Any]) -> dict[str, float]:
        """Writes the clip store; returns its metrics.

        Args:
            folder: made by this.
            meta: of the store.
        """
        totals: defaultdict[str, list[float]] = defaultdict(list)
        size = self.store.height, self.store.width
        with ClipWriter(folder, height=size[0], width=size[1], maps=self.maps, meta=meta) as writer:
            for k, clip in enumerate(self.clips):
                done = self._finished.load(k)
                for mean in done.meta.values():
                    totals[clip.kind].append(mean)
                writer.add(
                    clip.id,
                    split=clip.split,
                    kind=clip.kind,
                    masks=done.masks,
                    confidence=done.confidence,
                    meta=clip.meta | {name: round(mean, 4) for name, mean in done.meta.items()},
                )
        frames = len(self._index)
        packed = sum(file.stat().st_size for file in folder.glob("*.zst"))
        result: dict[str, float] = {"clips": len(self.clips), "frames": frames, "bytes_per_frame": packed / frames}
        return result | {f"mean_confidence_{kind}": float(np.mean(values)) for kind, values in totals.items()}

    def _frames(self, k: int, start: int) -> Iterator[np.ndarray]:
        """Yields the frames of clip ``k`` from ``start`` on."""
        yield self.store.frames(self.clips[k])[start:]


class Packer:
    """Compresses what is found in clips, once it agrees, and saves each clip that is whole.

    Args:
        maps: the label maps to write.
        levels: steps to which a confidence is rounded.
        consistent_frames: see ``segment``.
        counts: frames of each clip.
        finished: takes the clips.
    """

    def __init__(
        self,
        maps: Sequence[LabelMap],
        levels: int,
        consistent_frames: int | None,
        counts: Sequence[int],
        finished: FinishedClips,
    ) -> None:
        self.maps, self.consistent_frames = maps, consistent_frames
        self._levels, self._left, self._finished = levels, list(counts), finished
        self._growing: dict[int, _GrowingClip] = {}

    def __call__(self, number: int, found: Found) -> None:
        """Takes the next frames of a clip; those of one clip come in order."""
        if number not in self._growing:
            self._growing[number] = _GrowingClip(self.maps, self._levels, self.consistent_frames)
        self._growing[number].add(found)
        self._left[number] -= length(found)
        if not self._left[number]:
            self._finished.save(number, self._growing.pop(number).finish())


def lanes(packer: Packer, pixels: int) -> list[Packer | Aside]:
    """Returns what packs clips side by side, one for each processor.

    Where frames agree, each is a copy in a process of its own: half of the work is Python's, under whose lock two
    threads do less than one.

    Args:
        packer: packs in a thread.
        pixels: of the largest piece.
    """
    count = num_processors()
    if packer.consistent_frames is None or count == 1 or sys.platform != "linux":  # elsewhere forks are not safe
        return [packer] * count
    # a byte and a float for each pixel, and a float for each of its classes, were all pixels objects
    numbers = sum(5 + 4 * one.num_classes for one in packer.maps)
    return [Aside(packer, pixels * numbers + SPARE, "makes masks agree") for _ in range(count)]


class Packing:
    """Packs many clips side by side, each by one of the packers.

    Args:
        packers: each works in a thread of its own, at least.
    """

    def __init__(self, packers: Sequence[Packer | Aside]) -> None:
        self._packers = packers
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="packing") for _ in packers]
        self._running: deque[Future[None]] = deque()

    def add(self, number: int, found: Found) -> None:
        """Takes the next frames of a clip; those of one clip come in order."""
        lane = number % len(self._threads)
        self._running.append(self._threads[lane].submit(self._packers[lane], number, found))
        while len(self._running) > WAITING * len(self._threads):
            self._running.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._running and kind is None:
                self._running.popleft().result()
        finally:
            for thread in self._threads:
                thread.shutdown(cancel_futures=True)
            for packer in self._packers:
                if isinstance(packer, Aside):
                    packer.close()


class _GrowingClip:
    """The masks of a clip whose frames still come; memory holds them compressed."""

    def __init__(self, maps: Sequence[LabelMap], levels: int, consistent_frames: int | None) -> None:
        self._levels, self._mean = levels, MeanConfidence()
        self._agreement = None if consistent_frames is None else Agreement(consistent_frames)
        self._masks = {one.name: LayerPacker() for one in maps}
        self._sure = {one.name: LayerPacker() for one in maps if one.kind == "classes"}

    def add(self, found: Found) -> None:
        """Takes what is found in the next frames."""
        for piece in [found] if self._agreement is None else self._agreement.add(found):
            self._pack(piece)

    def _pack(self, found: Found) -> None:
        for name, packer in self._masks.items():
            packer.add(found[name].masks)
        for name, packer in self._sure.items():
            confidence = found[name].confidence
            assert confidence is not None
            sure = confidence if confidence.dtype == np.uint8 else quantise(confidence, self._levels)
            packer.add(sure)
            self._mean.add(found[name].masks, sure)

    def finish(self) -> FinishedClip:
        """Returns the clip."""
        for piece in [] if self._agreement is None else self._agreement.end():
            self._pack(piece)
        masks, sure = ({name: one.finish() for name, one in each.items()} for each in (self._masks, self._sure))
        return FinishedClip(masks, sure, {"mean_confidence": self._mean.value} if sure else {})
