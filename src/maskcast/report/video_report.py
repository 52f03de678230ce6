"""The report of an evaluation of videos: tables, a film, and a page with clips to scrub through.

Legend: T frames, H height, W width, C = 3 channels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_index import evenly_spaced
from maskcast.data.clips import Clip
from maskcast.evaluation.video_scores import DEFINITIONS as SCORES
from maskcast.evaluation.videos import BASE, SEGMENTER, VideoEvaluation
from maskcast.markup import Html, data_uri, element, folded, joined, table
from maskcast.progress import show
from maskcast.report.clip_player import legend, player, sprite_of
from maskcast.report.overlays import Row, error_map, grid, overlay
from maskcast.report.paint import ERRORS, class_entries
from maskcast.report.tables import markdown, number, write_csv

FILM, FILM_FRAMES, FILM_MS = "film.webp", 96, 80
DEFINITIONS = SCORES | {
    "<score>_base": "the same of the base, where its masks were given",
    "jaccard_gain, flicker_ratio": "jaccard less that of the base, and flicker over that of the base",
}
HEADLINE = ("jaccard", "jaccard_frames", "flicker", "change", "mvc8", "mvc16", "dice", "accuracy")


def write_report(folder: Path, evaluation: VideoEvaluation, pictures: int) -> None:
    """Writes scores.md, per_clip.csv, README.md and film.webp, and shows all on the run's page.

    Args:
        folder: an empty folder.
        evaluation: what was scored.
        pictures: clips to show, spread from the best to the worst; the film is of the one in the middle.
    """
    header, rows = headline(evaluation)
    (folder / "scores.md").write_text(markdown(header, rows), encoding="utf-8")
    _write_clips(folder / "per_clip.csv", evaluation)
    lines = ["# Evaluation of videos", "", markdown(header, rows), "## What the scores mean", ""]
    lines += [f"- `{name}`: {text}." for name, text in DEFINITIONS.items()]
    lines += ["", "In per_clip.csv a score is that of one clip alone.", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    show("Scores", _scores(evaluation))
    shown = _spread(evaluation, pictures)
    if shown:
        show("Clips", _clips(evaluation, shown))
        film = _film(folder / FILM, evaluation, shown[len(shown) // 2])
        show("Film", film)
    show("What the scores mean", _definitions())


def headline(evaluation: VideoEvaluation) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the table of scores, a row for each model."""
    rows = [[name, *(_cell(one.table()[score]) for score in HEADLINE)] for name, one in evaluation.scores.items()]
    return ["model", *HEADLINE], rows


def _write_clips(path: Path, evaluation: VideoEvaluation) -> None:
    each = evaluation.scores[SEGMENTER].per_clip
    columns = list(next(iter(each.values())))
    base = evaluation.scores[BASE].per_clip if BASE in evaluation.scores else None
    header = ["clip", *columns, *([f"{name}_base" for name in columns] if base else [])]
    rows = [
        [clip, *(number(value) for value in [*scores.values(), *(base[clip].values() if base else ())])]
        for clip, scores in each.items()
    ]
    write_csv(path, header, rows)


def _spread(evaluation: VideoEvaluation, count: int) -> list[Clip]:
    each = evaluation.scores[SEGMENTER].per_clip
    ranked = sorted(evaluation.chosen, key=lambda clip: -np.nan_to_num(each[clip.id]["jaccard"]))
    return [ranked[place] for place in evenly_spaced(len(ranked), count)]


def _scores(evaluation: VideoEvaluation) -> Html:
    flat = evaluation.flat()
    header, rows = headline(evaluation)
    lead = f"Jaccard {_cell(flat.get('jaccard', np.nan))}, flicker {_cell(flat.get('flicker', np.nan))}"
    if "flicker_ratio" in flat and "jaccard_gain" in flat:
        lead += f"; beside its base {flat['jaccard_gain']:+.4f} in Jaccard"
        lead += f" and {flat['flicker_ratio']:.2f} times its flicker"
    return joined([element("p", element("strong", f"{lead}.")), table("Scores of all clips", header, rows)])


def _clips(evaluation: VideoEvaluation, shown: Sequence[Clip]) -> Html:
    parts = [
        element("p", "From the best clip to the worst. Drag a slider, or use the arrow keys."),
        legend(ERRORS, "Colours of errors"),
    ]
    for place, clip in enumerate(shown):
        layers = _layers(evaluation, clip)
        sprite = sprite_of(clip.num_frames, lambda t, layers=layers: _panels(layers, t))  # type: ignore[misc]
        scores = evaluation.scores[SEGMENTER].per_clip[clip.id]
        title = f"{clip.id}, Jaccard {_cell(scores['jaccard'])}, flicker {_cell(scores['flicker'])}"
        captions = {name: name.replace("_", " ") for name in sprite.panels}
        frames = [f"frame {t + 1} of {clip.num_frames}" for t in sprite.frames]
        masks = [layer for name, layer in layers.items() if name != "frame"]
        entries = class_entries(masks, evaluation.prepared.classes)
        uri = data_uri(sprite.data, "image/webp")
        parts.append(player(f"clip-{place}", title, sprite, captions, frames, uri, entries))
    return joined(parts)


def _film(path: Path, evaluation: VideoEvaluation, clip: Clip) -> Html:
    layers = _layers(evaluation, clip)
    count = min(clip.num_frames, FILM_FRAMES)
    sheets = []
    for t in range(count):
        panels = _panels(layers, t)
        row = Row("", list(panels.values()), [name.replace("_", " ") for name in panels])
        sheets.append(grid([row], f"{clip.id} · frame {t + 1}"))
    sheets[0].save(path, save_all=True, append_images=sheets[1:], duration=FILM_MS, loop=0, quality=75, method=2)
    source = data_uri(path.read_bytes(), "image/webp")
    picture = element("img", alt=f"Film of {clip.id}", src=source)
    return element("figure", picture, element("figcaption", path.name))


def _layers(evaluation: VideoEvaluation, clip: Clip) -> dict[str, np.ndarray]:
    """Returns frames (T, H, W, C) and masks (T, H, W) of a clip by what they are."""
    masks = {name: store.masks(store.get(clip.id)) for name, store in evaluation.masks.items()}
    return {
        "frame": evaluation.prepared.frames(clip)[:],
        "truth": evaluation.prepared.masks(clip),
        **masks,
    }


def _panels(layers: dict[str, np.ndarray], t: int) -> dict[str, np.ndarray]:
    frame, truth = layers["frame"][t], layers["truth"][t]
    models = [name for name in layers if name not in ("frame", "truth")]
    painted = {name: overlay(frame, layers[name][t]) for name in ("truth", *models)}
    errors = {f"error_of_{name}": error_map(truth, layers[name][t]) for name in models}
    return {"frame": np.asarray(frame), **painted, **errors}


def _definitions() -> Html:
    entries = [part for name, text in DEFINITIONS.items() for part in (element("dt", name), element("dd", text))]
    return folded("Definitions", element("dl", *entries))


def _cell(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "-"
