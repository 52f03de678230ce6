"""A masker's results in each label map, for a report: scores, Jaccard by class, and pictures.

A store with a single map has no such section, because the scores of the forecast cover it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import ClipStore
from maskcast.evaluation.masker import MaskerScores
from maskcast.evaluation.metrics import jaccard_per_class
from maskcast.files import file_stem
from maskcast.markup import Html, collapsible, concatenate, element, figure, table
from maskcast.report.class_scores import worst_first
from maskcast.report.clip_player import legend
from maskcast.report.overlays import masker_strip
from maskcast.report.paint import class_entries
from maskcast.report.tables import csv_number, format_score, markdown, write_csv

HEADER = ["label map", "kind", "clips", "Jaccard", "accuracy"]
NOTE = (
    "For an alpha map, Jaccard is the sum of the minimum opacities divided by that of the maximum, and accuracy "
    "is 1 - mean absolute difference. In metrics, scores of maps that are not forecast end in the map's name."
)


def write_label_maps(
    folder: Path,
    scores: Mapping[str, MaskerScores],
    prepared: ClipStore,
    generated: ClipStore,
    clips: Sequence[str],
) -> Html:
    """Writes `maps.md`, `masker_per_class.csv` and `maps/<map>_<clip>.png`; returns the section for a page.

    Args:
        folder: folder of the report.
        scores: scores by label map.
        prepared: the clips.
        generated: the masks of the masker.
        clips: ids of the clips to draw.
    """
    rows = [_row(map_scores) for map_scores in scores.values()]
    (folder / "maps.md").write_text(f"{markdown(HEADER, rows)}\n{NOTE}\n", encoding="utf-8")
    by_class = {
        name: _by_class(map_scores)
        for name, map_scores in scores.items()
        if map_scores.label_map.kind == "classes"
    }
    write_csv(
        folder / "masker_per_class.csv",
        ["label_map", "class_id", "class", "target_pixels", "jaccard"],
        [
            [name, k, scores[name].label_map.classes[k], pixels, csv_number(jaccard)]
            for name, classes in by_class.items()
            for k, pixels, jaccard in classes
        ],
    )
    parts = [table("The masker's masks over all frames of the split", HEADER, rows), element("p", NOTE)]
    for name, classes in by_class.items():
        names = scores[name].label_map.classes
        _, pixels_K, jaccard_K = zip(*classes, strict=True)
        present, only_predicted = worst_first(np.array(jaccard_K), np.array(pixels_K))
        cells = [[names[k], f"{jaccard_K[k]:.3f}", f"{pixels_K[k]:,}"] for k in (*present, *only_predicted)]
        caption = f"{name}, the worst first, those without true pixels last"
        of_classes = table(caption, ["class", "Jaccard", "true pixels"], cells)
        parts.append(collapsible(f"By class of {name}", of_classes))
    (folder / "maps").mkdir()
    drawn = _draw(folder / "maps", scores, prepared, generated, clips)
    if drawn:
        parts += [_key(scores[name]) for name in by_class]
    return concatenate([*parts, *(figure(path.stem, path.stem, path.read_bytes()) for path in drawn)])


def _key(map_scores: MaskerScores) -> Html:
    """Returns the legend of a map."""
    present = np.flatnonzero(map_scores.counts.sum(axis=0) + map_scores.counts.sum(axis=1))
    title = f"Colours of {map_scores.label_map.name}"
    return concatenate(
        [element("p", f"{title}:"), legend(class_entries([present], map_scores.label_map.classes), title)]
    )


def _draw(
    folder: Path,
    scores: Mapping[str, MaskerScores],
    prepared: ClipStore,
    generated: ClipStore,
    clips: Sequence[str],
) -> list[Path]:
    """Draws the clips that have frames, for each map in which they have masks."""
    paths = []
    for name, map_scores in scores.items():
        truth, predictions = prepared.of(name), generated.of(name)
        for clip_id in clips:
            clip = prepared.get(clip_id)
            if clip_id not in map_scores.clips or not clip.has_frames:
                continue
            masks, title = predictions.masks(predictions.get(clip_id)), f"{clip_id} · {name}"
            paths.append(folder / f"{name}_{file_stem(clip_id)}.png")
            strip = masker_strip(truth.frames(clip), truth.masks(clip), masks, title, map_scores.label_map.kind)
            strip.save(paths[-1])
    return paths


def _row(map_scores: MaskerScores) -> list[str]:
    scores = map_scores.table()
    numbers = [format_score(scores[name], none="n/a") for name in ("jaccard", "accuracy")]
    return [map_scores.label_map.name, map_scores.label_map.kind, str(len(map_scores.clips)), *numbers]


def _by_class(map_scores: MaskerScores) -> list[tuple[int, int, float]]:
    """Returns id, true pixels and Jaccard index of each class."""
    pixels_K, jaccard_K = map_scores.counts.sum(axis=1), jaccard_per_class(map_scores.counts)
    return [(k, int(pixels_K[k]), float(jaccard_K[k])) for k in range(len(pixels_K))]
