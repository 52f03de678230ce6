"""evaluate: score a forecaster and its masker, beside baselines, with tables and pictures."""

import math
from functools import cache, partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from maskcast.curves import read_curves
from maskcast.data.trained_frames import hashes_of_scored
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.labels import Split
from maskcast.models.limits import MAX_FUTURES
from maskcast.params import Batch, Params
from maskcast.progress import report_folder, say
from maskcast.reading import pluralize
from maskcast.runner.outputs import final_path
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.writing import write_json

if TYPE_CHECKING:
    from maskcast.evaluation.forecasts import ForecastEvaluation


class Evaluate(Params):
    """Params of evaluate."""

    split: Split | None = None
    """Split whose labelled clips are scored; null: `test` if it has any, else `val`, whose clips also select the
    epochs of the trainings."""
    label_map: str | None = None
    """The label map to forecast, of kind classes or instances; null if there is only one. The masker is
    scored on all maps."""
    context: Literal["generated", "truth"] = "generated"
    """`generated`: the masker's masks, as in prediction; `truth`: true masks, for data without frames."""
    context_frames: int = Field(11, ge=1)
    """Number of context frames."""
    horizon: int = Field(11, ge=1)
    """Number of frames to forecast."""
    batch_size: Batch = 8
    """Clips per batch; scores do not depend on it."""
    futures: int = Field(0, ge=0, le=MAX_FUTURES)
    """Number of futures sampled per clip; metrics hold the mean and the best of their scores."""
    pictures: int = Field(6, ge=0)
    """Number of clips drawn as strips, spread from the best to the worst; best, median and worst also appear as
    GIFs and on the page."""


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
    """Scores a forecaster and its masker, beside baselines, with tables and pictures.

    Args:
        clips: clip store with the true masks.
        masks: clip store of generated masks, used as context unless `context: truth`.
        masker: the masker, used by a forecaster of frames.
        forecaster: the model to score.
        metrics: JSON, flat numbers; the report's README.md explains them.
        report: folder of tables (CSV, Markdown), pictures (PNG, GIF) and evaluation.json: all scores, the digests
            of data and models, and the params of this stage and of the masks.
        params: split, windows and number of pictures.

    Raises:
        MaskcastError: no clip can be scored, or masks are missing, of other classes or sizes, of another masker,
            or labels.
    """
    from maskcast.evaluation.forecasts import (
        FORECASTER,
        ForecastEvaluation,
        choose_split,
        data_digest,
        scored_clips,
    )
    from maskcast.evaluation.notes import warn_of_lookback, warn_of_trained
    from maskcast.evaluation.record import FORECASTS, write_record
    from maskcast.inference.forecast import load_models, open_stores
    from maskcast.inference.mask_origin import MASKER, check_masker, check_no_labels
    from maskcast.models.arithmetic import performed
    from maskcast.models.base import best_device
    from maskcast.report.evaluation_files import definitions, score_table
    from maskcast.report.evaluation_report import write_report
    from maskcast.report.pictures import OVERVIEW
    from maskcast.report.tables import format_table

    prepared, generated = open_stores(clips, masks, params.label_map)
    split = choose_split(prepared, params.split)
    chosen = scored_clips(prepared, split)
    check_no_labels(generated, split)
    device = best_device()
    models = load_models(forecaster, masker, prepared, device)
    settings = params.model_dump(include={"context", "context_frames", "horizon", "batch_size"})
    recorded = {"evaluate": params.model_dump(mode="json")}
    if "generate_masks" in generated.meta:
        recorded["generate_masks"] = generated.meta["generate_masks"]
    hashes = cache(partial(hashes_of_scored, prepared, chosen))
    notes = warn_of_trained(forecaster, "the forecaster", hashes)
    if generated.digest != prepared.digest:
        notes += [*warn_of_trained(masker, "the masker", hashes), *warn_of_lookback(prepared, split)]
    evaluation = ForecastEvaluation(
        prepared, generated, chosen, *models, device=device, **settings, futures=params.futures, notes=notes
    )
    if MASKER in generated.meta:
        check_masker(generated, masker, "")
    elif generated.digest != prepared.digest:
        say(f"warning: {masks} does not say which masker made the masks: the masker's scores may be of another")
    elif params.context == "generated":
        raise MaskcastError(
            f"{masks}: holds the true masks of the clips; give generated masks, or set evaluate.context: truth"
        )
    write_json(metrics, evaluation.flat)

    report.mkdir()
    curves = read_curves(masker) | read_curves(forecaster)
    write_report(report, evaluation, params.pictures, curves)
    arithmetic = f"forecasts {performed(device, 'fp32')}"
    if "arithmetic" in generated.meta:
        arithmetic = f"masks {generated.meta['arithmetic']}, {arithmetic}"
    write_record(
        report / "evaluation.json",
        FORECASTS,
        definitions(params.futures),
        scores=evaluation.flat,
        split=split,
        size=[prepared.height, prepared.width],
        params=recorded,
        **settings,
        **({"label_map": prepared.label_map.name} if len(prepared.maps) > 1 else {}),
        one_class=evaluation.scores[FORECASTER].one_class(),
        data=data_digest(prepared, chosen, params.context_frames, params.horizon),
        clip_store=prepared.digest,
        mask_store=generated.digest,
        precision=generated.meta.get("precision", "fp32"),
        arithmetic=arithmetic,
        consistent_frames=generated.meta.get("consistent_frames"),
        masker=digest_tree(masker),
        forecaster=digest_tree(forecaster),
    )
    report_folder(report)
    size = f"{prepared.height}x{prepared.width}"
    title = f"{split}: {pluralize(len(chosen), 'clip')} at {size}, context from {params.context} masks"
    say(format_table(*score_table(evaluation.scores), title))
    _report_mask_scores(evaluation, split)
    if params.pictures:
        say(f"picture: {final_path(report) / OVERVIEW}")


def _report_mask_scores(evaluation: "ForecastEvaluation", split: str) -> None:
    """Prints the scores of the masker, and a warning for a split without foreground."""
    from maskcast.evaluation.forecasts import FORECASTER
    from maskcast.evaluation.metrics import foreground_jaccard, foreground_text
    from maskcast.report.evaluation_files import NO_FOREGROUND

    for name, masker_scores in evaluation.masker_scores.items():
        of_map = f" of label map {name}" if len(evaluation.prepared.maps) > 1 else ""
        jaccard = masker_scores.table()["jaccard"]
        text = f"{jaccard:.4f}{foreground_text(foreground_jaccard(masker_scores.counts))} over all frames"
        say(f"masker: Jaccard {'n/a, no true mask has foreground' if math.isnan(jaccard) else text}{of_map}")
    if not evaluation.scores[FORECASTER].foreground:
        say(f"warning: split {split!r}: {NO_FOREGROUND}")
