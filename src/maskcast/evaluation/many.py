"""Evaluates many maskers on the same clips: scores, speed and memory of each.

Legend: T frames, H height, W width.
"""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip, masks_layer
from maskcast.data.trained_frames import hashes_of_scored, trained_note
from maskcast.errors import MaskcastError
from maskcast.evaluation.clip_scores import scores_of
from maskcast.evaluation.speed import Speed, measure_speed
from maskcast.files import tree_files
from maskcast.forking import init_spawned_process
from maskcast.inference.segment import segment_whole
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.base import read_description
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.table import load_masker
from maskcast.reading import pluralize
from maskcast.stopping import children_ignore_terminal

CONFIG = "config.json"  # in each model folder
MAX_SHOWN = 8  # frames of a clip that pictures show


@dataclass(frozen=True)
class EvaluationTask:
    """Data and settings of the evaluation.

    Attributes:
        clips: the clip store.
        split: name of the split; its labelled clips are scored.
        batch_size: frames per forward pass when a whole clip is masked.
        precision: ``bf16`` or ``fp32``.
    """

    clips: Path
    split: str
    batch_size: int = 16
    precision: Literal["bf16", "fp32"] = "bf16"


@dataclass(frozen=True)
class MaskerResult:
    """The results of one masker.

    Attributes:
        name: of the masker.
        model: its config.
        scores: by name of each label map that both the masker and the clips have.
        speed: measured on the longest clip.
        shown: masks (T, H, W) of some frames of the first clip, by map.
        note: line about scored frames that it was trained on; empty if there are none.
    """

    name: str
    model: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, float]]
    speed: Speed
    shown: Mapping[str, np.ndarray]
    note: str


def find_maskers(folders: Sequence[Path]) -> dict[str, Path]:
    """Returns the models in some folders by name: a folder itself, or all models below it.

    Raises:
        MaskcastError: a folder is missing or has no model, or two models have the same name.
    """
    maskers: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise MaskcastError(
                f"{folder}: folder not found; give folders that train_masker wrote, or their parent"
            )
        models = sorted(path.parent for path in tree_files(folder) if path.name == CONFIG)
        if not models:
            raise MaskcastError(f"{folder}: contains no model ({CONFIG}); give a folder that train_masker wrote")
        for path in models:
            folder_name = Path(os.path.abspath(folder)).name  # works for `.`, and keeps the name of a link
            name = folder_name if path == folder else path.relative_to(folder).as_posix()
            if name in maskers:
                raise MaskcastError(
                    f"{path}: has the same name {name!r} as {maskers[name]}; give their parent folder"
                )
            maskers[name] = path
    return maskers


def evaluate_many(
    maskers: Mapping[str, Path], task: EvaluationTask
) -> Iterator[MaskerResult | tuple[str, MaskcastError]]:
    """Yields the results of each masker, or its name and its error.

    Each runs in a process of its own, one after the other, so that measurements of memory and time are
    independent.

    Raises:
        MaskcastError: there are no such clips, or a process dies.
    """
    clips_to_score(ClipStore(task.clips), task.split)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, init_spawned_process, max_tasks_per_child=1) as pool:
        for name, folder in maskers.items():
            with children_ignore_terminal():
                future = pool.submit(evaluate_one, name, folder, task)
            try:
                result = future.result()
            except BrokenProcessPool as error:
                raise MaskcastError(
                    f"{folder}: the evaluation process died; it may have run out of memory"
                ) from error
            yield (name, result) if isinstance(result, MaskcastError) else result


def clips_to_score(store: ClipStore, split: str) -> Sequence[Clip]:
    """Returns the clips of a split that have frames and labels.

    Raises:
        MaskcastError: if there is none.
    """
    labelled = store.select(split, "labelled")
    clips = [clip for clip in labelled if clip.has_frames]
    if not clips:
        raise MaskcastError(
            f"{store.root}: no labelled clip of {split!r} has frames (it has "
            f"{pluralize(len(labelled), 'clip')}); prepare some"
        )
    return clips


def shown_frames(clip: Clip) -> list[int]:
    """Returns the frames of a clip that pictures show."""
    return evenly_spaced(clip.num_frames, MAX_SHOWN)


def evaluate_one(name: str, folder: Path, task: EvaluationTask) -> MaskerResult | MaskcastError:
    """Scores and measures a masker; an error is returned, not raised, as this runs in another process."""
    try:
        store = ClipStore(task.clips)
        clips = clips_to_score(store, task.split)
        longest = max(clips, key=lambda clip: clip.num_frames)
        load = partial(_load, folder, store)
        segmenter, speed = measure_speed(load, store.frames(longest), task.batch_size, task.precision)
        maps, worker = _shared_maps(segmenter, store, folder), Worker(segmenter, task.precision)
        scores = {label_map.name: scores_of(label_map) for label_map in maps}
        shown: dict[str, np.ndarray] = {}
        for number, clip in enumerate(clips):
            predictions = segment_whole(worker, store.frames(clip), batch_size=task.batch_size)
            for label_map in maps:
                if masks_layer(label_map.name) in clip.layers:
                    scores[label_map.name].add(
                        clip.id, store.of(label_map.name).masks(clip), predictions[label_map.name].masks
                    )
                if not number:
                    shown[label_map.name] = predictions[label_map.name].masks[shown_frames(clip)]
        tables = {map_name: label_map.table() for map_name, label_map in scores.items()}
        note = trained_note(folder, name, partial(hashes_of_scored, store, clips))
        return MaskerResult(name, read_description(folder)["model"], tables, speed, shown, note)
    except MaskcastError as error:
        return error


def _load(folder: Path, store: ClipStore) -> Segmenter:
    segmenter, _ = load_masker(folder)
    _shared_maps(segmenter, store, folder)
    return segmenter


def _shared_maps(segmenter: Segmenter, store: ClipStore, folder: Path) -> list[LabelMap]:
    """Returns the label maps that both the masker and the clips have.

    Raises:
        MaskcastError: there is none, or one has other classes.
    """
    for label_map in segmenter.maps:
        if label_map.name in store.maps and store.maps[label_map.name] != label_map:
            raise MaskcastError(
                f"{folder}: its map {label_map.name!r} has the classes {', '.join(label_map.classes[:3])} ..., "
                f"not those of {store.root}; use clips with the classes of the masker"
            )
    shared = [label_map for label_map in segmenter.maps if label_map.name in store.maps]
    if not shared:
        masker_maps, store_maps = (
            ", ".join(label_map.name for label_map in maps) for maps in (segmenter.maps, store.maps.values())
        )
        raise MaskcastError(
            f"{folder}: predicts {masker_maps}, but {store.root} has {store_maps}; use clips with its maps"
        )
    return shared
