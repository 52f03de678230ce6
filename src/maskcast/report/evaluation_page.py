"""Page sections of a forecaster's evaluation: scores, horizon, clips, classes, confusions, confidence, timing.

Legend: K classes, h horizon.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from maskcast.curves import Curve
from maskcast.evaluation.forecasts import FORECASTER, ForecastEvaluation, best_baseline, selection_note, size_note
from maskcast.evaluation.metrics import foreground_jaccard, foreground_text, jaccard_per_class
from maskcast.evaluation.notes import sentence
from maskcast.evaluation.scores import ForecastScores
from maskcast.evaluation.view import ForecastView
from maskcast.markup import Html, collapsible, concatenate, definition_list, element, table
from maskcast.progress import report_section
from maskcast.report.charts import line_chart
from maskcast.report.class_scores import worst_first
from maskcast.report.clip_by_clip import EXPLANATION, HEADER, ClipComparison, comparison_sentence
from maskcast.report.clip_player import draw_sprite, legend, player
from maskcast.report.confusions import confusions
from maskcast.report.evaluation_files import NO_FOREGROUND, meanings_by_header, score_table
from maskcast.report.paint import ERRORS
from maskcast.report.pictures import classes_shown
from maskcast.report.tables import format_numbers, format_score


def show_evaluation(
    evaluation: ForecastEvaluation,
    compared: list[ClipComparison],
    featured: Mapping[str, tuple[int, ForecastView]],
    maps: Html | None,
    curves: Mapping[str, Curve],
) -> None:
    """Adds an evaluation to the run's page.

    Args:
        evaluation: what was scored.
        compared: clip-by-clip comparison of the forecasters.
        featured: clips to show in detail; see ``pictures.draw_gallery``.
        maps: scores of the masker in each label map, see ``label_maps``; None if there is only one map.
        curves: learning curves of the trainings, by stage.
    """
    scores, classes = evaluation.scores, evaluation.prepared.classes
    report_section("Scores", _scores(evaluation, compared))
    report_section("By horizon", _horizons(scores))
    if featured:
        report_section("Clips", _clips(scores[FORECASTER], featured))
    report_section("By class", _classes(scores, classes))
    report_section("Confusions", confusions(scores[FORECASTER], classes))
    if maps is not None:
        report_section("Label maps", maps)
    if scores[FORECASTER].reliability.pixels.any():
        report_section("Confidence", _confidence(scores[FORECASTER]))
    report_section("Learning curves", _learning(curves))
    report_section("Timing", _timing(scores, evaluation.device))
    report_section("What the scores mean", definition_list(meanings_by_header(evaluation)))


def _scores(evaluation: ForecastEvaluation, compared: list[ClipComparison]) -> Html:
    scores, flat = evaluation.scores, evaluation.flat
    last = {name: each.table()["jaccard_last"] for name, each in scores.items()}
    best = best_baseline(scores)
    frame = scores[FORECASTER].frame_numbers[scores[FORECASTER].last]
    difference = last[FORECASTER] - last[best]
    distance = f"{abs(difference):.3f}"
    comparison = "level with" if distance == "0.000" else f"{distance} {'above' if difference > 0 else 'below'}"
    foreground = {
        name: foreground_text(foreground_jaccard(each.matrix_hKK[each.last]), digits=3)
        for name, each in scores.items()
    }
    lead = element("p", element("strong", sentence(NO_FOREGROUND)))
    if scores[FORECASTER].foreground:
        lead = element(
            "p",
            f"Jaccard {last[FORECASTER]:.3f}{foreground[FORECASTER]} at frame {frame}: ",
            element("strong", comparison),
            f" the best baseline, {_words(best)}, with {last[best]:.3f}{foreground[best]}. ",
            comparison_sentence(compared, best, "jaccard_last"),
            _mean_sentence(scores, best),
        )
    header, rows = score_table(scores)
    facts = element("ul", *(element("li", f"{name}: {value}") for name, value in evaluation.facts.items()))
    parts = [
        lead,
        element("p", f"Scored on: {evaluation.condition}."),
        table("Scores of the forecaster and of the baselines", header, [[_words(n), *r] for n, *r in rows]),
    ]
    if "masker_jaccard" in flat:
        masks = evaluation.masker_scores[evaluation.prepared.label_map.name]
        jaccard = f"{flat['masker_jaccard']:.3f}{foreground_text(foreground_jaccard(masks.counts), digits=3)}"
        parts.append(element("p", f"The masker's own masks: Jaccard {jaccard} over all frames of the split."))
    if compared:
        rows = [each.table_row for each in compared]
        each_clip = table("Means over clips, each scored separately", HEADER, rows)
        parts.append(
            collapsible("Clip by clip: how certain the differences are", each_clip, element("p", EXPLANATION))
        )
    prepared = evaluation.prepared
    notes = (
        size_note(prepared.height, prepared.width),
        selection_note(evaluation.clips[0].split),
        *evaluation.notes,
    )
    parts += [element("p", note) for note in notes if note]
    return concatenate([*parts, collapsible("What was measured", facts)])


def _mean_sentence(scores: Mapping[str, ForecastScores], baseline: str) -> str:
    """Returns a sentence on the means over the frames, which may differ in sign and which gates compare."""
    ours, theirs = (scores[name].mean() for name in (FORECASTER, baseline))
    first, last = scores[FORECASTER].frame_numbers[0], scores[FORECASTER].frame_numbers[-1]
    return (
        f" The mean over frames {first} to {last}, jaccard_mean, which the gate of register_models compares by "
        f"default, is {ours:.3f}; that of {_words(baseline)} is {theirs:.3f}."
    )


def _horizons(scores: Mapping[str, ForecastScores]) -> Html:
    lines = {
        _words(name): list(zip(map(float, each.frame_numbers), each.per_horizon(), strict=True))
        for name, each in scores.items()
    }
    return line_chart(
        "Forecast quality by horizon", lines, x_label="frame", y_label="macro Jaccard", y_range=(0.0, 1.0)
    )


def _clips(scores: ForecastScores, featured: Mapping[str, tuple[int, ForecastView]]) -> Html:
    frame = scores.frame_numbers[scores.last]
    parts = [
        element("p", f"Clips ranked by their own Jaccard at frame {frame}. Drag a slider, or use the arrow keys."),
        legend(ERRORS, "Colours of errors"),
    ]
    for name, (n, view) in featured.items():
        sprite = draw_sprite(view)
        jaccard_h = scores.clip_jaccard[n]
        context_frames = len(view.context)
        frames = [
            f"frame {t + 1} of {len(view.truth)}, "
            + ("seen" if t < context_frames else f"forecast, {_jaccard(jaccard_h[t - context_frames])}")
            for t in sprite.frames
        ]
        captions = {panel: f"seen, then {_words(panel)}" for panel in view.forecasts} | {
            "truth": "truth",
            "error": f"error of the {FORECASTER}",
        }
        title = f"{name.capitalize()}: {view.clip_id}, {_jaccard(jaccard_h[scores.last])}"
        parts.append(player(f"clip-{name}", title, sprite, captions, frames, classes_shown(view)))
    return concatenate(parts)


def _classes(scores: Mapping[str, ForecastScores], classes: Sequence[str]) -> Html:
    last = scores[FORECASTER].last
    pixels_K = scores[FORECASTER].matrix_hKK[last].sum(axis=1)
    best = best_baseline(scores)
    forecaster_K, baseline_K = (jaccard_per_class(scores[name].matrix_hKK[last]) for name in (FORECASTER, best))
    rows = {
        k: [
            classes[k],
            _bar(forecaster_K[k], baseline_K[k]),
            f"{forecaster_K[k]:.3f}",
            format_score(baseline_K[k], 3),
            f"{pixels_K[k]:,}",
        ]
        for k in np.flatnonzero(np.isfinite(forecaster_K)).tolist()
    }
    present, only_forecast = worst_first(forecaster_K, pixels_K)
    frame = scores[FORECASTER].frame_numbers[last]
    marked = f"the mark the best baseline, {_words(best)}"
    caption = f"Jaccard of each class at frame {frame}, worst first; the bar is the {FORECASTER}, {marked}"
    header = ["class", "0 to 1", FORECASTER, _words(best), "true pixels"]
    parts = [table(caption, header, [rows[k] for k in present])]
    if only_forecast:
        summary = f"Forecast, but not in the truth: {len(only_forecast)} of {len(classes)} classes"
        parts.append(collapsible(summary, table(summary, header, [rows[k] for k in only_forecast])))
    if absent := [name for name, value in zip(classes, forecaster_K, strict=True) if not np.isfinite(value)]:
        summary = f"Neither in truth nor forecast: {len(absent)} of {len(classes)} classes"
        parts.append(collapsible(summary, element("p", f"{', '.join(absent)}.")))
    return concatenate(parts)


def _bar(forecaster: float, baseline: float) -> Html:
    parts = [element("rect", width=f"{100 * forecaster:.1f}", height=10, class_="own")]
    if np.isfinite(baseline):
        parts.append(element("rect", x=f"{99 * baseline:.1f}", width=1.5, height=10, class_="rival"))
    return element(
        "svg", *parts, viewBox="0 0 100 10", preserveAspectRatio="none", class_="bar", aria_hidden="true"
    )


def _confidence(scores: ForecastScores) -> Html:
    curves = {"all pixels": scores.reliability, "objects": scores.reliability_of_objects}
    lines = {}
    for name, each in curves.items():
        label = f"{name}, calibration error {format_score(each.error(), 3, 'n/a')}"
        lines[label] = [(confidence, accuracy) for confidence, accuracy, _ in each.curve()]
    lines["perfect calibration"] = [(0.0, 0.0), (1.0, 1.0)]
    first, last = scores.frame_numbers[0], scores.frame_numbers[-1]
    return line_chart(
        f"Confidence of frames {first} to {last}",
        lines,
        x_label="confidence",
        y_label="fraction of correct pixels",
        y_range=(0.0, 1.0),
    )


def _learning(curves: Mapping[str, Curve]) -> Html:
    if not curves:
        return element("p", "The folders of the models have no training curves.")
    scores = {_words(stage): _points(curve, "jaccard") for stage, curve in curves.items()}
    charts = [line_chart("Validation by epoch", scores, x_label="epoch", y_label="Jaccard", y_range=(0.0, 1.0))]
    charts += [
        line_chart(f"Loss of {_words(stage)}", {"training": points}, x_label="epoch")
        for stage, curve in curves.items()
        if len(points := _points(curve, "loss")) > 1  # a single epoch is no curve
    ]
    meaning = (
        "The Jaccard of a masker is that of all frames. That of a forecaster is the mean of its Jaccard at the "
        "last frame and of its mean over all frames; the best epoch by it is kept."
    )
    return concatenate([element("div", *charts, class_="charts"), element("p", meaning)])


def _points(curve: Curve, name: str) -> list[tuple[float, float]]:
    return [(epoch["epoch"], epoch[name]) for epoch in curve if name in epoch]


def _timing(scores: Mapping[str, ForecastScores], device: torch.device) -> Html:
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    seconds = [each.seconds / len(each.clip_ids) for each in scores.values()]
    rates = [1 / each if each else float("inf") for each in seconds]
    columns = [
        format_numbers(column) for column in (seconds, rates, [each.peak_memory_mib for each in scores.values()])
    ]
    rows = zip(map(_words, scores), *columns, strict=True)
    header = ["forecaster", "seconds per clip", "clips per second", "peak MiB"]
    return table(f"Reading the context and forecasting, on {device_name}", header, rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _jaccard(value: float) -> str:
    return f"Jaccard {value:.3f}" if np.isfinite(value) else "no score"
