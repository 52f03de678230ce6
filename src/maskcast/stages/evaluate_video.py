"""evaluate_video: masks of videos against the truth: how right they are, and how steady."""

from typing import Literal, Self

from pydantic import Field, model_validator

from maskcast.params import Names, Params, is_null
from maskcast.reading import counted
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.writing import write_json


class AmodalParams(Params):
    """Several label maps of whole objects, such as two hands, which hide each other."""

    maps: Names
    """Names of the maps, all of kind classes and of the same classes."""
    visible: str | None = None
    """The map that says what is seen, by classes of the names of `maps`; null scores no hidden pixels apart."""
    least_pixels: int = Field(20, ge=1)
    """True pixels of a class in an image from which on it is scored."""


class EvaluateVideo(Params):
    """Params of evaluate_video."""

    split: Literal["train", "val", "test"] = "val"
    """Split whose labelled clips are scored."""
    label_map: str | None = Field(None, exclude_if=is_null)
    """The label map to score, of kind classes or instances; null is the only one there is."""
    amodal: AmodalParams | None = Field(None, exclude_if=is_null)
    """Scores several maps together, image by image, in the place of `label_map`; null does not."""
    pictures: int = Field(3, ge=0)
    """Clips shown on the page, spread from the best to the worst; the film is of the one in the middle."""

    @model_validator(mode="after")
    def _maps_are_named_once(self) -> Self:
        if self.amodal is not None and self.label_map is not None:
            raise ValueError(
                f"label_map: amodal.maps names the maps that are scored; leave label_map {self.label_map!r} out"
            )
        return self


@stage
def evaluate_video(
    *,
    clips: InPath,
    masks: InPath,
    base_masks: InPath | None = None,
    masker: InPath,
    metrics: OutPath,
    report: OutPath,
    params: EvaluateVideo,
) -> None:
    """Score masks of videos: Jaccard, J&F, flicker, video consistency, beside the single-frame base.

    Args:
        clips: clip store with the true masks.
        masks: what ``generate_masks`` wrote of these clips.
        base_masks: the same of the masker of single frames that this one started from.
        masker: the masker of ``masks``.
        metrics: JSON, flat numbers; what they mean stands in the report's README.md.
        report: folder of tables (CSV, Markdown), a film, and evaluation.json: all scores, and what was measured on
            what.
        params: what to score and how much to draw.

    Raises:
        MaskcastError: there is no such clip, or masks are missing or of other classes or sizes.
    """
    from maskcast.digest import digest_tree
    from maskcast.evaluation.forecasts import scored_clips
    from maskcast.evaluation.record import VIDEOS, write_record
    from maskcast.evaluation.videos import BASE, SEGMENTER, Amodal, VideoEvaluation
    from maskcast.inference.forecast import open_stores
    from maskcast.progress import report_folder, say
    from maskcast.report.tables import printed
    from maskcast.report.video_report import definitions, headline, write_report

    amodal = None if params.amodal is None else Amodal(**dict(params.amodal))
    label_map = params.label_map if amodal is None else amodal.maps[0]
    prepared, generated = open_stores(clips, masks, label_map)
    found = {SEGMENTER: generated}
    if base_masks is not None:
        found[BASE] = open_stores(clips, base_masks, label_map)[1]
    evaluation = VideoEvaluation(prepared, found, scored_clips(prepared, params.split), amodal)
    flat = evaluation.flat()
    write_json(metrics, flat)
    report.mkdir()
    write_report(report, evaluation, params.pictures)
    write_record(
        report / "evaluation.json",
        VIDEOS,
        definitions(evaluation),
        scores=flat,
        split=params.split,
        label_map=prepared.label_map.name,
        data=evaluation.data_digest(),
        clip_store=prepared.digest,
        mask_store=generated.digest,
        precision=generated.meta.get("precision", "fp32"),
        segmenter=digest_tree(masker),
    )
    report_folder(report, "report")
    say(printed(*headline(evaluation), f"{params.split}: {counted(len(evaluation.chosen), 'clip')}"))
