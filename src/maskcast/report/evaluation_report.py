"""The report of a forecaster's evaluation: tables and pictures in a folder, and the run's page."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from maskcast.curves import Curve
from maskcast.evaluation.forecasts import FORECASTER, ForecastEvaluation, best_baseline
from maskcast.evaluation.view import ForecastView
from maskcast.report.evaluation_files import write_tables
from maskcast.report.evaluation_page import show_evaluation
from maskcast.report.label_maps import write_label_maps
from maskcast.report.pictures import draw_gallery


def write_report(folder: Path, evaluation: ForecastEvaluation, pictures: int, curves: Mapping[str, Curve]) -> None:
    """Writes tables and pictures, and adds all to the run's page.

    Args:
        folder: an empty folder.
        evaluation: what was scored.
        pictures: number of clips to draw, from the best to the worst.
        curves: learning curves of the trainings, by stage.
    """
    prepared, scores = evaluation.prepared, evaluation.scores
    compared = write_tables(folder, evaluation)
    forecaster_scores = scores[FORECASTER]
    featured: dict[str, tuple[int, ForecastView]] = {}
    if pictures:
        by_clip = [jaccard_h[forecaster_scores.last] for jaccard_h in forecaster_scores.clip_jaccard]
        view = partial(evaluation.view, baseline=best_baseline(scores))
        featured = draw_gallery(
            folder, by_clip, pictures, view, forecaster_scores.frame_numbers[forecaster_scores.last]
        )
    maps = None
    if len(prepared.maps) > 1 and evaluation.masker_scores:
        shown = [view.clip_id for _, view in featured.values()]
        maps = write_label_maps(folder, evaluation.masker_scores, prepared, evaluation.generated, shown)
    show_evaluation(evaluation, compared, featured, maps, curves)
