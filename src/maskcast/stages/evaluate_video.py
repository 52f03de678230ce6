"""evaluate_video: score the accuracy and temporal consistency of masks of videos."""

from typing import Literal, Self

from pydantic import Field, model_validator

from maskcast.errors import MaskcastError
from maskcast.params import Names, Params
from maskcast.reading import pluralize
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.writing import write_json


class AmodalParams(Params):
    """Several label maps of whole objects, such as two hands, which occlude each other."""

    maps: Names
    """Names of the maps, all of kind classes and of the same classes."""
    visible: str | None = None
    """The map that marks visible pixels, with the names of `maps` as classes; null does not score occluded pixels
    separately."""
    least_pixels: int = Field(20, ge=1)
    """Minimum number of true pixels for a class to be scored in an image."""


class EvaluateVideo(Params):
    """Params of evaluate_video."""

    split: Literal["train", "val", "test"] | None = None
    """Split whose labelled clips are scored; null: `test` if it has any, else `val`, whose clips also select the
    epochs of the trainings."""
    label_map: str | None = None
    """The label map to score, of kind classes or instances; null if there is only one."""
    amodal: AmodalParams | None = None
    """Scores several maps together, image by image, instead of `label_map`; null scores `label_map`."""
    pictures: int = Field(3, ge=0)
    """Number of clips shown on the page, spread from the best to the worst; the video shows the median one."""

    @model_validator(mode="after")
    def _maps_are_named_once(self) -> Self:
        if self.amodal is not None and self.label_map is not None:
            raise ValueError(
                f"label_map: {self.label_map!r} conflicts with amodal.maps, the maps that are scored; remove one"
            )
        return self


@stage
def evaluate_video(
    *,
    clips: InPath,
    masks: InPath,
    base_masks: InPath | None = None,
    masker: InPath | None = None,
    metrics: OutPath,
    report: OutPath,
    params: EvaluateVideo,
) -> None:
    """Scores video masks: Jaccard, J&F, flicker, video consistency, beside the single-frame base.

    Args:
        clips: clip store with the true masks.
        masks: output of ``generate_masks`` for these clips, or masks of another model.
        base_masks: the same, by the single-frame masker that ``masker`` started from.
        masker: the masker that made ``masks``; not given for another model.
        metrics: JSON, flat numbers; the report's README.md explains them.
        report: folder of tables (CSV, Markdown), a video, and evaluation.json: all scores, and the digests of data
            and masker.
        params: split, label maps and number of pictures.

    Raises:
        MaskcastError: no clip can be scored, or masks are missing, of other classes or sizes, of another masker,
            or labels.
    """
    from functools import partial

    from maskcast.data.trained_frames import hashes_of_scored
    from maskcast.digest import digest_tree
    from maskcast.evaluation.forecasts import choose_split, scored_clips
    from maskcast.evaluation.notes import warn_of_lookback, warn_of_trained
    from maskcast.evaluation.record import VIDEOS, write_record
    from maskcast.evaluation.videos import BASE, SEGMENTER, AmodalSetting, VideoEvaluation
    from maskcast.inference.forecast import open_stores
    from maskcast.inference.mask_origin import check_masker, check_no_labels
    from maskcast.progress import report_folder, say
    from maskcast.report.tables import format_table
    from maskcast.report.video_report import definitions, score_table, write_report

    amodal = None if params.amodal is None else AmodalSetting(**dict(params.amodal))
    label_map = params.label_map if amodal is None else amodal.maps[0]
    prepared, generated = open_stores(clips, masks, label_map)
    scores = {SEGMENTER: generated}
    if base_masks is not None:
        scores[BASE] = open_stores(clips, base_masks, label_map)[1]
    split = choose_split(prepared, params.split)
    for store in scores.values():
        if store.digest == prepared.digest:
            raise MaskcastError(f"{store.root}: holds the true masks of the clips; give the masks of a model")
        check_no_labels(store, split)
    if masker is not None:
        check_masker(generated, masker, ", or omit --masker for masks of another model")
    chosen, notes = scored_clips(prepared, split), warn_of_lookback(prepared, split)
    if masker is not None:
        notes += warn_of_trained(masker, "the masker", partial(hashes_of_scored, prepared, chosen))
    evaluation = VideoEvaluation(prepared, scores, chosen, amodal, notes)
    if masker is None and (copied := evaluation.exact_frames()):
        say(
            f"warning: {masks}: {pluralize(copied, 'mask', 'equals', 'equal')} the truth in every pixel; if "
            "labels were copied, the scores are too high"
        )
    flat = evaluation.flat()
    write_json(metrics, flat)
    report.mkdir()
    write_report(report, evaluation, params.pictures)
    write_record(
        report / "evaluation.json",
        VIDEOS,
        definitions(evaluation),
        scores=flat,
        split=split,
        size=[prepared.height, prepared.width],
        label_map=prepared.label_map.name,
        one_class=evaluation.scores[SEGMENTER].one_class(),
        data=evaluation.data_digest(),
        clip_store=prepared.digest,
        mask_store=generated.digest,
        precision=generated.meta.get("precision", "fp32"),
        arithmetic=generated.meta.get("arithmetic"),
        **({} if masker is None else {"segmenter": digest_tree(masker)}),
    )
    report_folder(report)
    title = f"{split}: {pluralize(len(evaluation.chosen), 'clip')} at {prepared.height}x{prepared.width}"
    say(format_table(*score_table(evaluation), title))
