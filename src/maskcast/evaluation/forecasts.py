"""The evaluation of a forecaster and of baselines on the clips of one split.

Legend: B clips, T frames, h horizon, K classes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from maskcast.data.clip_store.frame_index import in_batches
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.errors import MaskcastError
from maskcast.evaluation.definitions import condition
from maskcast.evaluation.futures import Future, score_futures
from maskcast.evaluation.masker import MaskerScores, score_masker
from maskcast.evaluation.scores import ForecastScores, track_cost
from maskcast.evaluation.view import ForecastView
from maskcast.forking import ForkedCalls, forked_calls
from maskcast.inference.forecast import (
    BatchForecast,
    Context,
    ForecastSetting,
    check_consistent_frames,
    forecast_clips,
)
from maskcast.labels import Split, natural_sort_key
from maskcast.models.forecasting.base import Predictor
from maskcast.models.forecasting.baselines import baselines_of
from maskcast.models.segmentation.base import Segmenter
from maskcast.progress import track
from maskcast.reading import pluralize

FORECASTER = "forecaster"
BYTES_PER_PIXEL = 5  # of a forecast at most: mask, confidence and three colours


def best_baseline(scores: Mapping[str, ForecastScores]) -> str:
    """Returns the name of the baseline with the best score of the last frame."""
    return max(
        (name for name in scores if name != FORECASTER), key=lambda name: scores[name].table()["jaccard_last"]
    )


def choose_split(prepared: ClipStore, split: Split | None) -> Split:
    """Returns the split to score: the given one; else `test` if the store has labelled test clips, else `val`."""
    if split is not None:
        return split
    has_test = prepared.where(lambda group: group.split == "test" and group.kind == "labelled")
    return "test" if has_test else "val"


def selection_note(split: str, remedy: str = "split: test") -> str:
    """Returns a sentence for a split whose clips also select the epochs of the trainings; empty for others.

    Args:
        split: the split that is scored.
        remedy: what scores the test clips instead.
    """
    if split != "val":
        return ""
    return (
        "These clips also selected the best epoch of each training, so scores on new clips are slightly lower on "
        f"average; test clips, which `{remedy}` scores, select nothing."
    )


def size_note(height: int, width: int) -> str:
    """Returns a sentence on the size at which masks are scored."""
    return f"All scores are at {height}x{width} (height x width), the size of the clips."


def scored_clips(prepared: ClipStore, split: str) -> list[Clip]:
    """Returns the labelled clips of a split, in the order of evaluation.

    Raises:
        MaskcastError: if there is none.
    """
    return sorted(prepared.select(split, "labelled"), key=lambda clip: natural_sort_key(clip.id))


def data_digest(prepared: ClipStore, clips: Sequence[Clip], context_frames: int, horizon: int) -> str:
    """Returns a digest (32 hex digits) of what is scored: classes, ids, true masks and frames of the clips.

    It does not depend on other clips of the store, such as new training clips.
    """
    needed = context_frames + horizon
    digest = hashlib.sha256(repr((prepared.classes, context_frames, horizon)).encode())
    for clip in clips:
        digest.update(f"\0{clip.id}\0".encode())
        digest.update(prepared.masks(clip)[:needed].tobytes())
        if clip.has_frames:
            digest.update(prepared.frames(clip)[:needed].data)
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class ForecastEvaluation:
    """Models and data of an evaluation.

    Args:
        prepared: store of clips with true masks; its chosen label map is forecast.
        generated: store of generated masks, in the same map.
        clips: labelled clips of `prepared`.
        forecaster: on `device`, as is `masker`.
        masker: only needed by a forecaster of frames.
        context: whether context masks are generated or true.
        context_frames: number of context frames.
        horizon: number of frames to forecast.
        batch_size: clips forecast at once.
        device: of the models.
        futures: number of futures per clip to draw and score in addition.
        notes: sentences on scores that are too high (`evaluation.notes`).

    Raises:
        MaskcastError: a clip is too short or has no true masks, context masks were made with later frames, or the
            forecaster cannot sample futures.
    """

    prepared: ClipStore
    generated: ClipStore
    clips: Sequence[Clip]
    forecaster: Predictor
    masker: Segmenter | None
    context: Context
    context_frames: int
    horizon: int
    batch_size: int
    device: torch.device
    futures: int = 0
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.futures and not self.forecaster.draws_futures:
            raise MaskcastError(
                f"evaluate.futures: got {self.futures}, but this forecaster cannot sample futures; set 0, or "
                "train a forecaster that moves objects"
            )
        needed = self.context_frames + self.horizon
        for clip in self.clips:
            if clip.num_frames < needed:
                raise MaskcastError(
                    f"{self.prepared.root}: clip {clip.id!r} has {pluralize(clip.num_frames, 'frame')}, "
                    f"context_frames + horizon need {needed}; lower them in each section that has them, or "
                    "prepare longer clips"
                )
        if self.context == "generated":
            check_consistent_frames(self.generated, self.context_frames)
            return
        for clip in self.clips:
            known = labelled_frames(self.prepared, clip)
            if missing := [t for t in range(self.context_frames) if t not in known]:
                raise MaskcastError(
                    f"{self.prepared.root}: clip {clip.id!r} has no labels in frame {missing[0] + 1}, and "
                    f"forecasts start from the true masks of frames 1 to {self.context_frames}; set context to "
                    "generated, or label these frames"
                )

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about what is scored, for the record."""
        size, classes = f"{self.prepared.height}x{self.prepared.width}", f"{self.prepared.num_classes} classes"
        if len(self.prepared.maps) > 1:
            classes += f" of label map {self.prepared.label_map.name}"
        context = f"{self.context} masks of frames 1 to {self.context_frames}"
        if self.forecaster.input.needs_masker:
            context += f" for the baselines, the {self.forecaster.input} themselves for the forecaster"
        notes = list(self.prepared.meta.get("notes", ()))
        return {
            "clips": f"{pluralize(len(self.clips), 'labelled clip')} of {size}, {classes}",
            "context": context,
            "target": f"true masks of frames {self.context_frames + 1} to {self.context_frames + self.horizon}",
            "clip store": self.prepared.digest,
            "mask store": self.generated.digest,
            **({"how the data were read": "; ".join(notes)} if notes else {}),
        }

    @property
    def condition(self) -> str:
        """What is scored, in a few words."""
        seen = self.context, self.context_frames, self.horizon
        return condition(self.clips[0].split, len(self.clips), *seen)

    @property
    def videos(self) -> dict[str, str]:
        """The video of each clip, by clip id."""
        return {clip.id: clip.video for clip in self.clips}

    @cached_property
    def scores(self) -> dict[str, ForecastScores]:
        """Scores of the forecaster, then of the baselines that apply to these clips."""
        room = self.horizon * self.prepared.height * self.prepared.width * BYTES_PER_PIXEL
        with forked_calls(self._score_clip, self.batch_size, room, "scores forecasts") as score_clips:
            return {name: self._score(name, model, score_clips) for name, model in self._models.items()}

    @cached_property
    def flat(self) -> dict[str, float]:
        """All finite scores in one dict; those of baselines and other label maps have their name added."""
        flat = {"clips": float(len(self.clips))}
        for name, found in self.scores.items():
            suffix = "" if name == FORECASTER else f"_{name}"
            flat |= {f"{key}{suffix}": value for key, value in found.table().items()}
        for name, scores_of_map in self.masker_scores.items():
            suffix = "" if name == self.prepared.label_map.name else f"_{name}"
            flat |= {f"masker_{key}{suffix}": value for key, value in scores_of_map.table().items()}
        if self.futures:
            flat |= self._futures()
        return {key: value for key, value in flat.items() if np.isfinite(value)}

    def view(self, n: int, baseline: str) -> ForecastView:
        """Forecasts clip n again, to draw it with a baseline's forecast."""
        clip = self.clips[n]
        models = (self.forecaster, self._models[baseline])
        (_, forecast), (_, baseline_forecast) = (next(self._forecasts(model, [clip])) for model in models)
        futures = {
            f"future {seed + 1}": next(self._forecasts(Future(self.forecaster, seed), [clip]))[1].masks[0]
            for seed in range(self.futures)
        }
        return ForecastView(
            clip.id,
            self.prepared.frames(clip) if clip.has_frames else None,
            self._context_store.masks(self._context_store.get(clip.id), slice(self.context_frames)),
            self.prepared.masks(clip)[: self.context_frames + self.horizon],
            {FORECASTER: forecast.masks[0], baseline: baseline_forecast.masks[0], **futures},
            None if forecast.frames is None else forecast.frames[0],
            self.prepared.classes,
        )

    @cached_property
    def masker_scores(self) -> dict[str, MaskerScores]:
        """Scores of the generated masks by label map; empty if true masks are the context."""
        if self.generated.digest == self.prepared.digest:
            return {}
        return score_masker(self.prepared, self.generated, self.clips)

    @cached_property
    def _models(self) -> dict[str, Predictor]:
        return {FORECASTER: self.forecaster, **baselines_of(self.prepared, self.clips)}

    @property
    def _context_store(self) -> ClipStore:
        """The store of the context masks."""
        return self.generated if self.context == "generated" else self.prepared

    def _forecasts(
        self, model: Predictor, clips: Sequence[Clip]
    ) -> Iterator[tuple[Sequence[Clip], BatchForecast]]:
        """Returns the forecasts of `clips` batch by batch."""
        setting = ForecastSetting(self.masker, self.context_frames, self.horizon, self.device)
        return forecast_clips(
            model, setting, self.prepared, self._context_store, in_batches(clips, self.batch_size)
        )

    def _score(self, name: str, model: Predictor, score_clips: ForkedCalls[ForecastScores]) -> ForecastScores:
        scores = self._no_scores()
        batches = track_cost(scores, self._forecasts(model, self.clips))
        # The clips of a batch are scored before the next batch is forecast, as the time of forecasts is measured.
        scored = (one for batch in batches for one in score_clips(_by_clip(*batch)))
        for one in track(scored, f"evaluate {name}", len(self.clips)):
            scores.merge(one)
        return scores

    def _score_clip(
        self, clip: Clip, masks: np.ndarray, confidence: np.ndarray | None, frames: np.ndarray | None
    ) -> ForecastScores:
        """Returns the scores of the forecast of a clip."""
        scores = self._no_scores()
        scores.add(clip.id, self._target_frames(self.prepared.masks(clip)), masks, confidence)
        if frames is not None:
            scores.add_frames(self._target_frames(self.prepared.frames(clip)), frames)
        return scores

    def _no_scores(self) -> ForecastScores:
        return ForecastScores(self.prepared.num_classes, self.context_frames, self.horizon)

    def _futures(self) -> dict[str, float]:
        """Draws futures of the forecaster and scores them."""
        forecasts = [self._forecasts(Future(self.forecaster, seed), self.clips) for seed in range(self.futures)]
        truth_and_futures = (
            (self._target_frames(self.prepared.masks(clip)), [forecast.masks[n] for _, forecast in batches])
            for batches in zip(*forecasts, strict=True)
            for n, clip in enumerate(batches[0][0])
        )
        return score_futures(truth_and_futures, self.futures, self.prepared.num_classes, self.horizon)

    def _target_frames(self, layer: np.ndarray) -> np.ndarray:
        """Returns the frames of a layer (T, ...) that are to be forecast."""
        return layer[self.context_frames :][: self.horizon]


def _by_clip(
    clips: Sequence[Clip], forecast: BatchForecast
) -> Iterator[tuple[Clip, np.ndarray, np.ndarray | None, np.ndarray | None]]:
    """Yields each clip of a batch with its masks, confidence and frames."""
    for n, clip in enumerate(clips):
        confidence, frames = (None if each is None else each[n] for each in (forecast.confidence, forecast.frames))
        yield clip, forecast.masks[n], confidence, frames
