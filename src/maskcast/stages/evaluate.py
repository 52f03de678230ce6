"""Score a forecaster and its masker against two baselines, with tables and pictures."""

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from maskcast.curves import read_curves
from maskcast.digest import digest_tree
from maskcast.labels import Split
from maskcast.params import Params, is_null, is_zero
from maskcast.progress import report_folder, say
from maskcast.reading import counted
from maskcast.runner.outputs import final
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.writing import write_json

if TYPE_CHECKING:
    from maskcast.evaluation.view import ForecastView


class Evaluate(Params):
    """Params of evaluate."""

    split: Split = "val"
    """Split whose labelled clips are scored."""
    label_map: str | None = Field(None, exclude_if=is_null)
    """The label map that is forecast, of kind classes; null is the only one there is. The masker is scored in
    all maps."""
    context: Literal["generated", "truth"] = "generated"
    """generated: the masker's masks, as when predicting; truth: true masks, for data without frames."""
    context_frames: int = Field(11, ge=1)
    """Frames that are seen."""
    horizon: int = Field(11, ge=1)
    """Frames that are forecast."""
    batch_size: int = Field(8, ge=1)
    """Clips forecast at once; no score depends on it."""
    futures: int = Field(0, ge=0, exclude_if=is_zero)
    """Futures drawn of each clip; the mean of their scores and that of the best stand in metrics."""
    pictures: int = Field(6, ge=0)
    """Clips drawn as strips, spread from the best to the worst; best, median and worst also as GIFs and on the
    page."""


@stage
def evaluate(
    *,
    clips: InPath,
    masks: InPath,
    masker: InPath,
    forecaster: InPath,
    metrics: OutPath,
    report: OutPath,
    params: Evaluate,
) -> None:
    """Score a forecaster and its masker against two baselines, with tables and pictures.

    Args:
        clips: clip store with the true masks.
        masks: clip store of generated masks, the context (unless `context: truth`).
        masker: the masker, used by a forecaster of frames.
        forecaster: the model to score.
        metrics: JSON, flat numbers; what they mean stands in the report's README.md.
        report: folder of tables (CSV, Markdown), pictures (PNG, GIF) and evaluation.json: all scores, and what
            was measured on what.
        params: what to score and how much to draw.
    """
    from maskcast.evaluation.forecasts import FORECASTER, Evaluation, data_digest, scored_clips
    from maskcast.evaluation.record import FORECASTS, write_record
    from maskcast.evaluation.scores import applicable
    from maskcast.inference.forecast import load_models, open_stores
    from maskcast.models.base import best_device
    from maskcast.report.evaluation_files import (
        NO_FOREGROUND,
        definitions,
        headline,
        plot_confidence,
        plot_horizons,
        write_tables,
    )
    from maskcast.report.evaluation_page import show_evaluation
    from maskcast.report.label_maps import write_label_maps
    from maskcast.report.pictures import OVERVIEW, draw_gallery
    from maskcast.report.tables import printed

    prepared, generated = open_stores(clips, masks, params.label_map)
    chosen = scored_clips(prepared, params.split)
    device = best_device()
    models = load_models(forecaster, masker, prepared, device)
    settings = params.model_dump(include={"context", "context_frames", "horizon", "batch_size"})
    evaluation = Evaluation(
        prepared, generated, chosen, *models, device=device, **settings, futures=params.futures
    )
    scores = evaluation.scores()
    flat = evaluation.flat(scores)
    write_json(metrics, flat)

    several = len(prepared.maps) > 1
    told = {"label_map": prepared.label_map.name} if several else {}
    report.mkdir()
    meanings = definitions(params.futures)
    write_tables(report, scores, prepared.classes, {"split": params.split, **evaluation.facts}, meanings)
    write_record(
        report / "evaluation.json",
        FORECASTS,
        meanings,
        scores=flat,
        split=params.split,
        **settings,
        **told,
        data=data_digest(prepared, chosen, params.context_frames, params.horizon),
        clip_store=prepared.digest,
        mask_store=generated.digest,
        precision=generated.meta.get("precision", "fp32"),
        consistent_frames=generated.meta.get("consistent_frames"),
        masker=digest_tree(masker),
        forecaster=digest_tree(forecaster),
    )
    plot_horizons(report / "per_horizon.png", scores)
    own = applicable(scores)[FORECASTER]
    plot_confidence(report / "confidence.png", own)
    featured: dict[str, tuple[int, ForecastView]] = {}
    if params.pictures:
        by_clip = [jaccard_h[own.last] for jaccard_h in own.clip_jaccard]
        featured = draw_gallery(report, by_clip, params.pictures, evaluation.view, own.frame_numbers[own.last])
    maps = None
    if several and evaluation.masker_scores:
        shown = [view.clip_id for _, view in featured.values()]
        maps = write_label_maps(report, evaluation.masker_scores, prepared, generated, shown)
    show_evaluation(evaluation, scores, flat, featured, maps, read_curves(masker) | read_curves(forecaster))
    report_folder(report, "report")
    say(
        printed(
            *headline(scores),
            f"{params.split}: {counted(len(chosen), 'clip')}, context from {params.context} masks",
        )
    )
    for name, one in evaluation.masker_scores.items():
        of = f" of label map {name}" if several else ""
        jaccard = one.table()["jaccard"]
        found = "n/a, no true mask has foreground" if math.isnan(jaccard) else f"{jaccard:.4f} over all frames"
        say(f"masker: Jaccard {found}{of}")
    if not own.foreground:
        say(f"warning: split {params.split!r}: {NO_FOREGROUND}")
    overview = OVERVIEW if featured else "per_horizon.png"
    say(f"picture: {final(report) / overview}")
