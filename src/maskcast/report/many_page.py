"""A comparison of many maskers: a CSV file, and a page with tables and pictures.

Legend: T frames, H height, W width.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import ClipStore
from maskcast.evaluation.clip_scores import DEFINITIONS, LOWER_IS_BETTER
from maskcast.evaluation.many import Evaluated, Task, chosen_clips, shown_frames
from maskcast.labels import LabelMap
from maskcast.markup import Html, concatenate, element, figure, table
from maskcast.reading import pluralize
from maskcast.report.clip_player import legend
from maskcast.report.overlays import Row, grid, matte, overlay
from maskcast.report.page import document
from maskcast.report.paint import class_entries, elided
from maskcast.report.tables import number, write_csv

COSTS = {
    "parameters": "number of trainable weights",
    "frame_ms": "median milliseconds for a single frame, including the work of the device",
    "clip_ms": "median milliseconds for the whole longest clip, masked in batches",
    "clip_frames": "frames of that clip",
    "memory_mib": "peak memory with single frames, above that before the model was loaded, in "
    "MiB: of the device, or on a CPU of the process",
}
MOST_NAME, LETTERS = 200, 13  # maximum width of a name beside pictures, in pixels; font size
LESS_IS_BETTER = LOWER_IS_BETTER | {"parameters", "frame_ms", "clip_ms", "memory_mib"}


def write_many(folder: Path, found: Sequence[Evaluated], left_out: Mapping[str, str], task: Task) -> None:
    """Writes scores.csv and index.html.

    Args:
        folder: an empty folder.
        found: result of each masker.
        left_out: error of each other masker, by name.
        task: what the maskers were scored on.
    """
    scores = list(dict.fromkeys(key for one in found for table in one.scores.values() for key in table))
    header = ["model", "arch", "map", *scores, *COSTS, "device"]
    rows = [
        [one.name, str(one.model.get("arch", "")), name, *(number(each.get(key, np.nan)) for key in scores)]
        + [number(getattr(one.speed, key)) for key in COSTS]
        + [one.speed.device]
        for one in found
        for name, each in one.scores.items()
    ]
    write_csv(folder / "scores.csv", header, rows)
    store = ClipStore(task.clips)
    sections = {}
    for name in dict.fromkeys(name for one in found for name in one.scores):
        models = [one for one in found if name in one.scores]
        kinds = {one.name: one.scores[name] for one in models}
        sections[f"Scores of {name}"] = concatenate(
            [_best_marked(f"{name}, {task.split}", kinds), _pictures(store, task.split, name, models)]
        )
    costs = {one.name: {key: float(getattr(one.speed, key)) for key in COSTS} for one in found}
    devices = ", ".join(dict.fromkeys(one.speed.device for one in found))
    sections["Time and memory"] = _best_marked(f"On {devices}, {task.precision}", costs)
    if left_out:
        sections["Left out"] = table("Models without scores", ["model", "why"], list(left_out.items()))
    meanings = [[key, text] for key, text in (DEFINITIONS | COSTS).items() if key in header]
    sections["What the numbers mean"] = table("The best are in bold", ["name", "meaning"], meanings)
    (folder / "index.html").write_text(document(pluralize(len(found), "masker"), sections), encoding="utf-8")


def shown_numbers(values: Sequence[float]) -> list[str]:
    """Returns a column of numbers as text with equal decimals, so that the greatest has four digits."""
    finite = [value for value in values if np.isfinite(value)]
    most = max(map(abs, finite), default=0.0)
    decimals = 4 if most <= 1 else max(3 - math.floor(math.log10(most)), 0)
    if most > 1 and all(float(value).is_integer() for value in finite):
        decimals = 0
    return [f"{value:,.{decimals}f}" if np.isfinite(value) else "n/a" for value in values]


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
            for row, text in zip(rows.values(), shown_numbers([row[name] for row in rows.values()]), strict=True)
        ]
        for name in names
    ]
    return table(caption, ["model", *names], zip(rows, *columns, strict=True))


def _pictures(store: ClipStore, split: str, name: str, models: Sequence[Evaluated]) -> Html:
    """Returns a picture of the first clip, with legend: frames, truth, and the masks of each model."""
    clip = chosen_clips(store, split)[0]
    places = shown_frames(clip)
    frames = store.frames(clip)[places]
    label_map: LabelMap = store.maps[name]
    painted = matte if label_map.kind == "alpha" else overlay
    own = store.of(name)
    rows = [Row("frame", list(frames), [f"frame {place + 1}" for place in places])]
    if own.has_masks(clip):
        rows.append(Row("truth", [painted(*pair) for pair in zip(frames, own.masks(clip)[places], strict=True)]))
    rows += [
        Row(
            elided(one.name, MOST_NAME, LETTERS),
            [painted(*pair) for pair in zip(frames, one.shown[name], strict=True)],
        )
        for one in models
    ]
    data = io.BytesIO()
    grid(rows, f"{clip.id}: {name}").save(data, "PNG")
    said = f"{name} of clip {clip.id} by each model"
    sheet = figure(said, said, data.getvalue())
    if label_map.kind == "alpha":
        return sheet
    true = [own.masks(clip)[places]] if own.has_masks(clip) else []
    entries = class_entries([*true, *(one.shown[name] for one in models)], label_map.classes)
    return concatenate([sheet, legend(entries, f"Colours of {name}")])
