"""A comparison of many maskers: a CSV file, and a page with tables and pictures.

Legend: T frames, H height, W width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import ClipStore
from maskcast.evaluation.clip_scores import DEFINITIONS, LOWER_IS_BETTER
from maskcast.evaluation.forecasts import selection_note, size_note
from maskcast.evaluation.many import EvaluationTask, MaskerResult, clips_to_score, shown_frames
from maskcast.evaluation.notes import lookback_note, sentence
from maskcast.labels import LabelMap
from maskcast.markup import Html, concatenate, element, figure, table
from maskcast.reading import pluralize
from maskcast.report.clip_player import legend
from maskcast.report.overlays import Row, grid, matte, overlay, png_bytes
from maskcast.report.page import document
from maskcast.report.paint import class_entries, elided
from maskcast.report.tables import csv_number, format_numbers, write_csv

COSTS = {
    "parameters": "number of trainable weights",
    "frame_ms": "median milliseconds for a single frame, including the work of the device",
    "clip_ms": "median milliseconds for the whole longest clip, masked in batches",
    "clip_frames": "frames of that clip",
    "memory_mib": "peak memory with single frames, above that before the model was loaded, in "
    "MiB: of the device, or on a CPU of the process",
}
MAX_NAME_WIDTH, FONT_SIZE = 200, 13  # maximum width of a name beside pictures, in pixels; font size
LESS_IS_BETTER = LOWER_IS_BETTER | {"parameters", "frame_ms", "clip_ms", "memory_mib"}


def write_many(
    folder: Path, results: Sequence[MaskerResult], left_out: Mapping[str, str], task: EvaluationTask
) -> None:
    """Writes scores.csv and index.html.

    Args:
        folder: an empty folder.
        results: result of each masker.
        left_out: error of each other masker, by name.
        task: what the maskers were scored on.
    """
    scores = list(dict.fromkeys(key for result in results for table in result.scores.values() for key in table))
    header = ["model", "arch", "map", *scores, *COSTS, "device"]
    rows = [
        [
            result.name,
            str(result.model.get("arch", "")),
            name,
            *(csv_number(each.get(key, np.nan)) for key in scores),
            *(csv_number(getattr(result.speed, key)) for key in COSTS),
            result.speed.device,
        ]
        for result in results
        for name, each in result.scores.items()
    ]
    write_csv(folder / "scores.csv", header, rows)
    store = ClipStore(task.clips)
    sections = {}
    for name in dict.fromkeys(name for result in results for name in result.scores):
        models = [result for result in results if name in result.scores]
        kinds = {result.name: result.scores[name] for result in models}
        sections[f"Scores of {name}"] = concatenate(
            [_best_marked(f"{name}, {task.split}", kinds), _pictures(store, task.split, name, models)]
        )
    costs = {result.name: {key: float(getattr(result.speed, key)) for key in COSTS} for result in results}
    devices = ", ".join(dict.fromkeys(result.speed.device for result in results))
    sections["Time and memory"] = _best_marked(f"On {devices}, {task.precision}", costs)
    if left_out:
        sections["Left out"] = table("Models without scores", ["model", "reason"], list(left_out.items()))
    warnings = [lookback_note(store, task.split), *(result.note for result in results)]
    notes = [
        size_note(store.height, store.width),
        selection_note(task.split, "--split test"),
        *map(sentence, warnings),
    ]
    sections = {"What was scored": concatenate([element("p", note) for note in notes if note]), **sections}
    meanings = [[key, text] for key, text in (DEFINITIONS | COSTS).items() if key in header]
    sections["What the numbers mean"] = table(
        "Columns of the tables; the best values are bold", ["name", "meaning"], meanings
    )
    (folder / "index.html").write_text(document(pluralize(len(results), "masker"), sections), encoding="utf-8")


def _best_marked(caption: str, rows: Mapping[str, Mapping[str, float]]) -> Html:
    """Returns a table with a row per model; the best number in each column is bold."""
    names = list(next(iter(rows.values())))
    best = {}
    for name in names:
        values = [row[name] for row in rows.values() if np.isfinite(row[name])]
        if len(values) > 1 and min(values) < max(values) and name in DEFINITIONS | COSTS and name != "clip_frames":
            best[name] = min(values) if name in LESS_IS_BETTER else max(values)
    columns = [
        [
            element("strong", text) if best.get(name) == row[name] else text
            for row, text in zip(rows.values(), format_numbers([row[name] for row in rows.values()]), strict=True)
        ]
        for name in names
    ]
    return table(caption, ["model", *names], zip(rows, *columns, strict=True))


def _pictures(store: ClipStore, split: str, name: str, models: Sequence[MaskerResult]) -> Html:
    """Returns a picture of the first clip, with legend: frames, truth, and the masks of each model."""
    clip = clips_to_score(store, split)[0]
    frame_indices = shown_frames(clip)
    frames = store.frames(clip)[frame_indices]
    label_map: LabelMap = store.maps[name]
    draw = matte if label_map.kind == "alpha" else overlay
    map_store = store.of(name)
    rows = [Row("frame", list(frames), [f"frame {index + 1}" for index in frame_indices])]
    if map_store.has_masks(clip):
        rows.append(
            Row("truth", [draw(*pair) for pair in zip(frames, map_store.masks(clip)[frame_indices], strict=True)])
        )
    rows += [
        Row(
            elided(result.name, MAX_NAME_WIDTH, FONT_SIZE),
            [draw(*pair) for pair in zip(frames, result.shown[name], strict=True)],
        )
        for result in models
    ]
    caption = f"{name} of clip {clip.id} by each model"
    sheet = figure(caption, caption, png_bytes(grid(rows, f"{clip.id}: {name}")))
    if label_map.kind == "alpha":
        return sheet
    true = [map_store.masks(clip)[frame_indices]] if map_store.has_masks(clip) else []
    entries = class_entries([*true, *(result.shown[name] for result in models)], label_map.classes)
    return concatenate([sheet, legend(entries, f"Colours of {name}")])
