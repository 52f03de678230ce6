"""Draws the clips on which two registered models differ most.

Legend: T frames, h horizon, H height, W width, C = 3 channels; arrays are uint8.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.evaluation.forecasts import data_digest, scored_clips
from maskcast.evaluation.metrics import mean_where_labelled
from maskcast.evaluation.scores import ForecastScores
from maskcast.evaluation.view import ForecastView
from maskcast.files import file_stem
from maskcast.registry.evaluations import EvaluationRecord
from maskcast.registry.loading import LoadedPipeline
from maskcast.report.overlays import stack_vertically
from maskcast.report.pictures import draw_strip
from maskcast.runner.outputs import atomic_output, check_not_exists

SCORE = "jaccard_mean"
CLIPS_PER_MODEL = 3  # clips for each model on which it is better

Evaluated = tuple[LoadedPipeline, EvaluationRecord]


def draw_differences(a: Evaluated, b: Evaluated, clips: Path, folder: Path) -> list[Path]:
    """Draws the clips with the largest differences of ``jaccard_mean``, up to three in favour of either model.

    Each picture shows A above B: context, truth, forecast and errors, with the registered score. The models are
    run again on the frames. If the evaluation started from true masks or ran on another kind of processor, scores
    may differ; the heading then gives both.

    Args:
        a: a pipeline with its evaluation.
        b: another one, evaluated on the same clips.
        clips: the clip store that both were evaluated on, with frames and true masks.
        folder: is created, with ``A_better_<rank>_<clip>.png`` and ``B_better_<rank>_<clip>.png``.

    Returns:
        Paths of the pictures, those of A first, by decreasing difference. If no clip differs there are none, and
        no folder.

    Raises:
        MaskcastError: the folder exists, or the store has other clips or no frames.
    """
    check_not_exists(folder, "pictures")
    picked = _pick(*(record.per_item.get(SCORE, {}) for _, record in (a, b)))
    store = ClipStore(clips, a[1].facts.get("label_map"))
    _check_same_clips(store, picked.values(), *a)
    if not picked:
        return []
    with atomic_output(folder, "pictures") as partial:
        partial.mkdir()
        for name, clip_id in picked.items():
            strips = [_draw_strip(store, clip_id, *each) for each in (a, b)]
            stack_vertically(strips).save(partial / name)
    return [folder / name for name in picked]


def _pick(a: dict[str, float], b: dict[str, float]) -> dict[str, str]:
    """Returns the clips to draw, by name of the picture."""
    ranked = sorted(a, key=lambda clip_id: a[clip_id] - b[clip_id], reverse=True)
    better: dict[str, Sequence[str]] = {
        "A": [clip_id for clip_id in ranked if a[clip_id] > b[clip_id]],
        "B": [clip_id for clip_id in reversed(ranked) if b[clip_id] > a[clip_id]],
    }
    return {
        f"{which}_better_{rank}_{file_stem(clip_id)}.png": clip_id
        for which, clip_ids in better.items()
        for rank, clip_id in enumerate(clip_ids[:CLIPS_PER_MODEL], start=1)
    }


def _check_same_clips(
    store: ClipStore, clip_ids: Iterable[str], loaded: LoadedPipeline, record: EvaluationRecord
) -> None:
    """Checks that a store has exactly the clips that were scored, and frames of those to draw."""
    for what in ("classes", "height", "width"):
        theirs, ours = getattr(loaded.about, what), getattr(store, what)
        if theirs != ours:
            values = f"{len(theirs)} and {len(ours)}" if what == "classes" else f"{theirs} and {ours}"
            raise MaskcastError(
                f"{store.root}: different {what} than in the evaluation of {loaded.title} ({values}); "
                "give the clip store of the evaluation (--clips)"
            )
    for clip_id in clip_ids:
        store.frames(store.get(clip_id))  # raises an error if there are none
    split, *lengths = (record.facts[name] for name in ("split", "context_frames", "horizon"))
    if data_digest(store, scored_clips(store, split), *lengths) != record.facts["data"]:
        raise MaskcastError(
            f"{store.root}: clips, frames (or stride) or true masks of split {split!r} differ from those that "
            f"{loaded.title} was evaluated on; give the clip store of the evaluation (--clips)"
        )


def _draw_strip(store: ClipStore, clip_id: str, loaded: LoadedPipeline, record: EvaluationRecord) -> Image.Image:
    clip, seen, horizon = store.get(clip_id), loaded.about.context_frames, loaded.about.horizon
    frames_THWC = np.array(store.frames(clip)[: seen + horizon])  # a copy, as torch warns of read-only memory
    truth_THW = store.masks(clip)[: seen + horizon]
    seen_THW, future_hHW = loaded.model.predict_masks(frames_THWC[:seen])
    scores = ForecastScores(store.num_classes, seen, horizon)
    scores.add(clip_id, truth_THW[seen:], future_hHW)
    (jaccard_h,) = scores.clip_jaccard
    registered, drawn = f"{record.per_item[SCORE][clip_id]:.4f}", f"{mean_where_labelled(jaccard_h):.4f}"
    score = registered if drawn == registered else f"{registered} (as drawn {drawn})"
    view = ForecastView(clip_id, frames_THWC, seen_THW, truth_THW, {"forecast": future_hHW}, classes=store.classes)
    return draw_strip(view, f"{clip_id} · {loaded.title} · {SCORE} {score}")
