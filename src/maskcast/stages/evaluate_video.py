"""evaluate_video: masks of videos against the truth: how right they are, and how steady."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from maskcast.params import Params, is_null
from maskcast.runner.stage import InPath, OutPath, stage


class EvaluateVideo(Params):
    """Params of evaluate_video."""

    split: Literal["train", "val", "test"] = "val"
    """Split whose labelled clips are scored."""
    label_map: str | None = Field(None, exclude_if=is_null)
    """The label map to score, of kind classes; null is the only one there is."""
    pictures: int = Field(3, ge=0)
    """Clips shown on the page, spread from the best to the worst; the film is of the one in the middle."""


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
    """Score masks of videos: Jaccard, flicker, video consistency, beside the single-frame base.

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
    from maskcast.evaluation.videos import BASE, SEGMENTER, VideoEvaluation
    from maskcast.inference.forecast import open_stores
    from maskcast.progress import report_file, say
    from maskcast.report.tables import printed
    from maskcast.report.video_report import DEFINITIONS, headline, write_report

    prepared, generated = open_stores(clips, masks, params.label_map)
    found = {SEGMENTER: generated}
    if base_masks is not None:
        found[BASE] = open_stores(clips, base_masks, params.label_map)[1]
    evaluation = VideoEvaluation(prepared, found, scored_clips(prepared, params.split))
    flat = evaluation.flat()
    metrics.write_text(json.dumps(flat, indent=1) + "\n", encoding="utf-8")
    report.mkdir()
    write_report(report, evaluation, params.pictures)
    write_record(
        report / "evaluation.json",
        VIDEOS,
        DEFINITIONS,
        scores=flat,
        split=params.split,
        label_map=prepared.label_map.name,
        data=evaluation.data_digest(),
        clip_store=prepared.digest,
        mask_store=generated.digest,
        precision=generated.meta.get("precision", "fp32"),
        segmenter=digest_tree(masker),
    )
    for file in sorted(path for path in report.rglob("*") if path.is_file()):
        report_file(file, (Path("report") / file.relative_to(report).parent).as_posix())
    say(printed(*headline(evaluation), f"{params.split}: {len(evaluation.chosen)} clips"))
