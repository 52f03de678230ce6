"""Generates the masks of all clips of a store; a killed run can resume and ends with the same bytes.

Legend: T frames, H height, W width.
"""

import copy
import time
from collections import defaultdict, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from maskcast.data.clip_store.finished import FinishedClips
from maskcast.data.clip_store.frame_index import FrameIndex
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.clip_store.table import frame_counts
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.inference.clip_packing import CLASS_COUNTS, Packer, ParallelPacking, parallel_packers
from maskcast.inference.excluded_classes import ClassCounts
from maskcast.inference.label_propagation import LabelPropagator
from maskcast.inference.segment import frame_by_frame, segment_clips
from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.table import map_index
from maskcast.progress import say, track

NUM_DOUBTFUL = 4  # clips


def check_maps(
    folder: Path, masker: Segmenter, store: ClipStore, names: Sequence[str] | None
) -> tuple[LabelMap, ...]:
    """Returns a masker's label maps with these names, or all, after comparing them with the store's.

    Raises:
        MaskcastError: if the masker has no such map, or the store's map of that name differs.
    """
    maps = masker.maps
    if names is not None:
        maps = tuple(maps[map_index(folder, masker, name, "set maps to one of these")] for name in names)
    for label_map in maps:
        store_map = store.of(label_map.name).label_map
        if store_map != label_map:
            raise MaskcastError(
                f"{folder}: trained for {label_map.num_classes} classes that are not the "
                f"{store_map.num_classes} of {store.root}; train a masker on these clips"
            )
    return maps


def all_things(maps: Sequence[LabelMap], store: ClipStore) -> bool:
    """Whether all classes of all class maps are things, according to the masker's or the store's maps."""
    classes = [one for one in maps if one.kind == "classes"]
    return bool(classes) and all(one.things or store.of(one.name).label_map.things for one in classes)


class Generation:
    """Generates masks of clips and writes them as a clip store.

    Args:
        store: holds the clips.
        clips: the clips to mask; all have frames.
        maps: the label maps to write.
        finished: store of finished clips, which survives the run.

    Attributes:
        doubtful: after ``run``, the clips with the least confident masks, those without labels first.
    """

    def __init__(
        self, store: ClipStore, clips: Sequence[Clip], maps: Sequence[LabelMap], finished: FinishedClips
    ) -> None:
        self.store, self.clips, self.maps, self._finished = store, clips, maps, finished
        self._index = FrameIndex(clips)
        self.doubtful: list[Clip] = []

    def run(
        self,
        folder: Path,
        meta: dict[str, Any],
        masker: Segmenter,
        devices: Sequence[torch.device],
        *,
        batch_size: int,
        precision: str,
        consistent_frames: int | None,
        confidence_levels: int,
        propagator: LabelPropagator | None = None,
    ) -> dict[str, float]:
        """Masks all clips that are not finished, writes the clip store, and returns metrics.

        Args:
            folder: of the new clip store.
            meta: of the store.
            masker: predicts the maps.
            devices: a copy of the masker is used on each.
            batch_size: frames per forward pass.
            precision: ``bf16`` or ``fp32``.
            consistent_frames: see ``segment``.
            confidence_levels: number of steps to which confidence is rounded.
            propagator: replaces masks by labels when a clip is complete; None keeps all masks.
        """
        size, frames = (self.store.height, self.store.width), len(self._index)
        speed: dict[str, float] = {}
        with (
            ClipWriter(folder, height=size[0], width=size[1], maps=self.maps, meta=meta) as writer,
            _WriterThread(self.clips, self._finished, writer, propagator) as writer_thread,
        ):
            done, started = self._finished.count(len(self.clips)), time.monotonic()
            if done < len(self.clips):
                counts = frame_counts(self.clips).tolist()
                packer = Packer(self.maps, confidence_levels, consistent_frames, counts, self._finished)
                replicas = [copy.deepcopy(masker).to(device) for device in devices]
                with closing(self._packed(done, replicas, packer, batch_size, precision)) as packed:
                    for _ in packed:
                        if propagator is None:
                            writer_thread.write_finished()
                speed["frames_per_second"] = (frames - self._index.start(done)) / (time.monotonic() - started)
        if consistent_frames is not None:
            warning = writer_thread.class_counts.warning(self.maps, consistent_frames)
            if warning is not None:
                say(warning)
        self.doubtful = writer_thread.doubtful
        written = sum(file.stat().st_size for file in folder.glob("*.zst"))
        result = {"clips": len(self.clips), "frames": frames, "bytes_per_frame": written / frames}
        return result | writer_thread.means | speed

    def _packed(
        self, done: int, replicas: Sequence[Segmenter], packer: Packer, batch_size: int, precision: str
    ) -> Generator[None]:
        """Masks clips from the first unfinished one on; yields after each piece that is passed to packing."""
        start = self._index.start(done)
        # Batch k always begins at frame k * batch_size of all clips laid end to end, also in a resumed run,
        # because the last bits of a convolution may depend on the other frames of its batch.
        first, first_frame = self._index.at(start if replicas[0].stateful else start - start % batch_size)
        pieces = segment_clips(
            replicas,
            [self._frames(k, first_frame if k == first else 0) for k in range(first, len(self.clips))],
            batch_size=batch_size,
            precision=precision,
            objects=packer.consistent_frames is not None,
            confidence_levels=packer.levels,
        )
        pixels = batch_size * self.store.height * self.store.width
        with ParallelPacking(parallel_packers(packer, pixels)) as packing:
            frames_left = len(self._index) - self._index.start(first) - first_frame
            for piece in track(frame_by_frame(pieces), "masking frames", frames_left):
                if piece is not None and first + piece[0] >= done:
                    packing.add(first + piece[0], {one.name: piece[1][one.name] for one in self.maps})
                    yield

    def _frames(self, k: int, start: int) -> Iterator[np.ndarray]:
        """Yields the frames of clip ``k`` from ``start`` on."""
        yield self.store.frames(self.clips[k])[start:]


class _WriterThread:
    """Writes finished clips in their order, in a thread of its own.

    Args:
        clips: all of them.
        finished: store of finished clips.
        writer: of the clip store.
        propagator: see ``Generation.run``.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        finished: FinishedClips,
        writer: ClipWriter,
        propagator: LabelPropagator | None,
    ) -> None:
        self._clips, self._finished, self._writer, self._propagator = clips, finished, writer, propagator
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._running: deque[Future[None]] = deque()
        self._started = 0
        self._totals: defaultdict[str, list[float]] = defaultdict(list)
        self.class_counts = ClassCounts()
        self._doubtful: list[tuple[bool, float, int]] = []  # of a clip: has it labels, mean confidence, number

    @property
    def doubtful(self) -> list[Clip]:
        """The clips with the least confident masks, those without labels first."""
        return [self._clips[k] for _, _, k in self._doubtful]

    @property
    def means(self) -> dict[str, float]:
        """``mean_confidence_<kind>`` of the written clips of each kind."""
        return {f"mean_confidence_{kind}": float(np.mean(values)) for kind, values in self._totals.items()}

    def write_finished(self) -> None:
        """Starts to write the clips finished since the last call; raises errors of earlier writes."""
        while self._running and self._running[0].done():
            self._running.popleft().result()
        while self._started < len(self._clips) and self._finished.has(self._started):
            self._start_next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                while self._started < len(self._clips):  # a missing clip raises an error
                    self._start_next()
                writes = self._running if self._propagator is None else track(self._running, "propagating labels")
                for write in writes:
                    write.result()
        finally:
            self._thread.shutdown(cancel_futures=True)

    def _start_next(self) -> None:
        self._running.append(self._thread.submit(self._write, self._started))
        self._started += 1

    def _write(self, k: int) -> None:
        clip, done = self._clips[k], self._finished.load(k)
        if self._propagator is not None:
            done = self._propagator(clip, done)
        meta = dict(done.meta)
        self.class_counts.merge(meta.pop(CLASS_COUNTS))
        for mean in meta.values():
            self._totals[clip.kind].append(mean)
            self._doubtful = sorted([*self._doubtful, (clip.kind == "labelled", mean, k)])[:NUM_DOUBTFUL]
        self._writer.add(
            clip.id,
            split=clip.split,
            kind=clip.kind,
            masks=done.masks,
            confidence=done.confidence,
            meta=clip.meta | {name: round(mean, 4) for name, mean in meta.items()},
        )
