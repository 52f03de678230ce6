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
from maskcast.errors import MaskcastError
from maskcast.evaluation.clip_scores import scores_of
from maskcast.evaluation.speed import Speed, measure
from maskcast.inference.segment import segment_whole
from maskcast.labels import LabelMap
from maskcast.models.base import read_description
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.table import load_masker
from maskcast.reading import pluralize
from maskcast.stopping import children_ignore_ctrl_c

CONFIG = "config.json"  # in each model folder
SHOWN = 8  # frames of a clip that pictures show


@dataclass(frozen=True)
class Task:
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
class Evaluated:
    """The results of one masker.

    Attributes:
        name: of the masker.
        model: its config.
        scores: by name of each label map that both the masker and the clips have.
        speed: measured on the longest clip.
        shown: masks (T, H, W) of some frames of the first clip, by map.
    """

    name: str
    model: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, float]]
    speed: Speed
    shown: Mapping[str, np.ndarray]


def find_maskers(folders: Sequence[Path]) -> dict[str, Path]:
    """Returns the models in some folders by name: a folder itself, or all models below it.

    Raises:
        MaskcastError: a folder is missing or has no model, or two models have the same name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise MaskcastError(f"{folder}: no such folder; give folders that train_masker wrote, or one of many")
        inside = sorted(path.parent for path in folder.rglob(CONFIG))
        if not inside:
            raise MaskcastError(f"{folder}: holds no model ({CONFIG}); give a folder that train_masker wrote")
        for path in inside:
            own = Path(os.path.abspath(folder)).name  # works for `.`, and keeps the name of a link
            name = own if path == folder else path.relative_to(folder).as_posix()
            if name in found:
                raise MaskcastError(f"{path}: has the name {name!r} of {found[name]}; give the folder above both")
            found[name] = path
    return found


def evaluate_many(maskers: Mapping[str, Path], task: Task) -> Iterator[Evaluated | tuple[str, MaskcastError]]:
    """Yields the results of each masker, or its name and its error.

    Each runs in a process of its own, one after the other, so that measurements of memory and time are
    independent.

    Raises:
        MaskcastError: there are no such clips, or a process dies.
    """
    chosen_clips(ClipStore(task.clips), task.split)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for name, folder in maskers.items():
            with children_ignore_ctrl_c():
                future = pool.submit(evaluate_one, name, folder, task)
            try:
                result = future.result()
            except BrokenProcessPool as error:
                raise MaskcastError(
                    f"{folder}: the process that scored it died, perhaps for lack of memory"
                ) from error
            yield (name, result) if isinstance(result, MaskcastError) else result


def chosen_clips(store: ClipStore, split: str) -> Sequence[Clip]:
    """Returns the clips of a split that have frames and labels.

    Raises:
        MaskcastError: if there is none.
    """
    labelled = store.select(split, "labelled")
    found = [clip for clip in labelled if clip.has_frames]
    if not found:
        raise MaskcastError(
            f"{store.root}: no labelled clip of {split!r} has frames (it has "
            f"{pluralize(len(labelled), 'clip')}); prepare some"
        )
    return found


def shown_frames(clip: Clip) -> list[int]:
    """Returns the frames of a clip that pictures show."""
    return evenly_spaced(clip.num_frames, SHOWN)


def evaluate_one(name: str, folder: Path, task: Task) -> Evaluated | MaskcastError:
    """Scores and measures a masker; an error is returned, not raised, as this runs in another process."""
    try:
        store = ClipStore(task.clips)
        clips = chosen_clips(store, task.split)
        longest = max(clips, key=lambda clip: clip.num_frames)
        load = partial(_load, folder, store)
        segmenter, speed = measure(load, store.frames(longest), task.batch_size, task.precision)
        maps = _shared(segmenter, store, folder)
        scores = {one.name: scores_of(one) for one in maps}
        shown: dict[str, np.ndarray] = {}
        for number, clip in enumerate(clips):
            found = segment_whole(
                segmenter, store.frames(clip), batch_size=task.batch_size, precision=task.precision
            )
            for one in maps:
                if masks_layer(one.name) in clip.layers:
                    scores[one.name].add(clip.id, store.of(one.name).masks(clip), found[one.name].masks)
                if not number:
                    shown[one.name] = found[one.name].masks[shown_frames(clip)]
        tables = {map_name: one.table() for map_name, one in scores.items()}
        return Evaluated(name, read_description(folder)["model"], tables, speed, shown)
    except MaskcastError as error:
        return error


def _load(folder: Path, store: ClipStore) -> Segmenter:
    segmenter, _ = load_masker(folder)
    _shared(segmenter, store, folder)
    return segmenter


def _shared(segmenter: Segmenter, store: ClipStore, folder: Path) -> list[LabelMap]:
    """Returns the label maps that both the masker and the clips have.

    Raises:
        MaskcastError: there is none, or one has other classes.
    """
    for one in segmenter.maps:
        if one.name in store.maps and store.maps[one.name] != one:
            raise MaskcastError(
                f"{folder}: its map {one.name!r} has the classes {', '.join(one.classes[:3])} ..., and not those "
                f"of {store.root}; score it on clips of its own classes"
            )
    shared = [one for one in segmenter.maps if one.name in store.maps]
    if not shared:
        mine, theirs = (", ".join(one.name for one in maps) for maps in (segmenter.maps, store.maps.values()))
        raise MaskcastError(
            f"{folder}: finds {mine}, and {store.root} has {theirs}; score it on clips of its maps"
        )
    return shared
