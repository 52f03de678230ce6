"""The report of an evaluation of videos: tables, a film, and a page with clips and a slider for their frames.

Legend: T frames, H height, W width, C = 3 channels.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.frame_index import spread
from maskcast.data.clip_store.reader import Clip
from maskcast.evaluation.definitions import AMODAL_VIDEOS, DAVIS, FOREGROUND, VIDEOS, condition
from maskcast.evaluation.forecasts import selection_note, size_note
from maskcast.evaluation.metrics import foreground_text
from maskcast.evaluation.paired import paired_difference
from maskcast.evaluation.videos import BASE, SEGMENTER, VideoEvaluation
from maskcast.markup import Html, collapsible, concatenate, definition_list, element, figure, table
from maskcast.progress import report_section
from maskcast.reading import pluralize
from maskcast.report.clip_by_clip import BOOTSTRAP, EXPLANATION
from maskcast.report.clip_player import legend, player, sprite_of
from maskcast.report.overlays import Row, error_map, grid, overlay
from maskcast.report.paint import ERRORS, class_entries
from maskcast.report.tables import csv_number, format_score, markdown, write_csv

GAIN = ("score of each clip", "segmenter minus base", "may be chance")
VIDEO_FILE, MAX_VIDEO_FRAMES, FRAME_MS = "film.webp", 96, 80
AMODAL_HEADLINE = (
    "miou",
    "miou_visible",
    "miou_occluded",
    "miou_single",
    "miou_interacting",
    "pooled",
    "accuracy",
)
TEMPORAL_SCORES = ("flicker", "change", "mvc8", "mvc16")  # not defined for photographs
HEADLINE = ("jaccard", "jaccard_frames", "j", "f", "j_and_f", *TEMPORAL_SCORES, "dice", "accuracy")


def write_report(folder: Path, evaluation: VideoEvaluation, pictures: int) -> None:
    """Writes scores.md, per_clip.csv, README.md and, for videos, film.webp, and adds all to the run's page.

    If whole objects are scored, per_class.csv has a row for each class of each label map.

    Args:
        folder: an empty folder.
        evaluation: the scores.
        pictures: number of clips to show, from the best to the worst; the film shows the middle one.
    """
    header, rows = score_table(evaluation)
    (folder / "scores.md").write_text(markdown(header, rows), encoding="utf-8")
    _write_clips(folder / "per_clip.csv", evaluation)
    lines = [
        "# Evaluation of videos",
        "",
        markdown(header, rows),
        " ".join([_size_note(evaluation), *evaluation.notes]),
        "",
    ]
    lines += ["## What the scores mean", ""]
    lines += [f"- `{name}`: {text}." for name, text in _meanings(evaluation).items()]
    if gained := _gains(evaluation):
        lines += ["", "## Compared with the base", "", markdown(GAIN, gained), EXPLANATION]
    lines += ["", "In per_clip.csv each clip is scored separately.", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    report_section("Scores", _scores(evaluation, gained))
    if evaluation.amodal_scores:
        header, rows = _classes(evaluation)
        write_csv(folder / "per_class.csv", header, rows)
        report_section("Classes", table("Pooled Jaccard of each class", header, rows))
    clips = _evenly_ranked(evaluation, pictures)
    if clips:
        report_section("Clips", _clips(evaluation, clips))
        if (middle := clips[len(clips) // 2]).num_frames > 1:
            report_section("Video", _write_video(folder / VIDEO_FILE, evaluation, middle))
    report_section("What the scores mean", definition_list(_meanings(evaluation)))


def definitions(evaluation: VideoEvaluation) -> dict[str, str]:
    """Returns the definitions that must be equal in comparable evaluations, by name."""
    return VIDEOS if evaluation.amodal is None else AMODAL_VIDEOS


def _meanings(evaluation: VideoEvaluation) -> dict[str, str]:
    return definitions(evaluation) | DAVIS | (FOREGROUND if evaluation.prepared.num_classes == 2 else {})


def score_table(evaluation: VideoEvaluation) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the table of scores, one row per model."""
    columns: tuple[str, ...] = AMODAL_HEADLINE if evaluation.amodal_scores else HEADLINE
    if not evaluation.amodal_scores and evaluation.prepared.num_classes == 2:
        columns = ("jaccard", *FOREGROUND, *HEADLINE[1:])
    if evaluation.single_frames:
        columns = tuple(score for score in columns if score not in TEMPORAL_SCORES)
    rows = [
        [name, *(format_score(scores.get(score, np.nan)) for score in columns)]
        for name, scores in evaluation.tables.items()
    ]
    return ["model", *columns], rows


def _classes(evaluation: VideoEvaluation) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the table of classes: pooled Jaccard index by model and region."""
    parts = {name: each.per_class() for name, each in evaluation.amodal_scores.items()}
    regions = list(parts[SEGMENTER][0][2])
    header = ["map", "class", *(f"{region}, {name}" for name in parts for region in regions)]
    rows = [
        [*rows[0][:2], *(format_score(each[region]) for _, _, each in rows for region in regions)]
        for rows in zip(*parts.values(), strict=True)
    ]
    return header, rows


def _write_clips(path: Path, evaluation: VideoEvaluation) -> None:
    per_clip = evaluation.per_clip(SEGMENTER)
    columns = list(next(iter(per_clip.values())))
    base = evaluation.per_clip(BASE) if BASE in evaluation.scores else None
    header = ["clip", *columns, *([f"{name}_base" for name in columns] if base else []), "video"]
    videos = evaluation.videos
    rows = [
        [clip, *map(csv_number, [*scores.values(), *(base[clip].values() if base else ())]), videos[clip]]
        for clip, scores in per_clip.items()
    ]
    write_csv(path, header, rows)


def _gains(evaluation: VideoEvaluation) -> list[list[str]]:
    """Returns rows for the header `GAIN`: segmenter minus base, clip by clip; empty without a base."""
    if BASE not in evaluation.scores:
        return []
    both = [evaluation.per_clip(name) for name in (SEGMENTER, BASE)]
    rows, videos = [], evaluation.videos
    for score in ("miou", "miou_occluded") if evaluation.amodal else ("jaccard", "j_and_f", "flicker", "mvc8"):
        clips = [clip for clip in videos if all(np.isfinite(scores[clip].get(score, np.nan)) for scores in both)]
        if clips:
            ours, theirs = ({clip: scores[clip][score] for clip in clips} for scores in both)
            difference = paired_difference(ours, theirs, BOOTSTRAP, "clip", videos)
            rows.append([score, str(difference), "yes" if difference.may_be_chance else "no"])
    return rows


def _evenly_ranked(evaluation: VideoEvaluation, count: int) -> list[Clip]:
    per_clip, score = evaluation.per_clip(SEGMENTER), "miou" if evaluation.amodal else "jaccard"
    scored = [clip for clip in evaluation.chosen if np.isfinite(per_clip[clip.id][score])] or evaluation.chosen
    ranked = sorted(scored, key=lambda clip: -per_clip[clip.id][score])
    return spread(ranked, count)


def _scores(evaluation: VideoEvaluation, gained: list[list[str]]) -> Html:
    flat = evaluation.flat()
    header, rows = score_table(evaluation)
    scores = [f"{words} {format_score(flat.get(name, np.nan))}" for name, words in _main_scores(evaluation)]
    if evaluation.amodal is None:
        scores[0] += foreground_text(flat)
    lead = ", ".join(scores)
    if "miou_gain" in flat:
        lead += f"; compared with its base {flat['miou_gain']:+.4f} in mIoU"
    elif "flicker_ratio" in flat and "jaccard_gain" in flat:
        lead += f"; compared with its base {flat['jaccard_gain']:+.4f} in Jaccard"
        lead += f" and {flat['flicker_ratio']:.2f} times its flicker"
    scored = condition(evaluation.chosen[0].split, len(evaluation.chosen))
    parts = [
        element("p", element("strong", f"{lead}.")),
        element("p", f"Scored on: {scored}."),
        table("Scores of all clips", header, rows),
    ]
    notes = (_size_note(evaluation), selection_note(evaluation.chosen[0].split), *evaluation.notes)
    parts += [element("p", note) for note in notes if note]
    if gained:
        each_clip = table("The segmenter minus its base, each clip scored separately", GAIN, gained)
        parts.append(
            collapsible("Clip by clip: how certain the differences are", each_clip, element("p", EXPLANATION))
        )
    return concatenate(parts)


def _size_note(evaluation: VideoEvaluation) -> str:
    return size_note(evaluation.prepared.height, evaluation.prepared.width)


def _main_scores(evaluation: VideoEvaluation) -> list[tuple[str, str]]:
    """Returns the main scores, with their names in words."""
    if evaluation.amodal is None:
        return [("jaccard", "Jaccard"), *([] if evaluation.single_frames else [("flicker", "flicker")])]
    occluded = [("miou_occluded", "of occluded pixels")] if evaluation.amodal.visible else []
    return [("miou", "mIoU"), *occluded]


def _clips(evaluation: VideoEvaluation, shown: Sequence[Clip]) -> Html:
    hint = "" if evaluation.single_frames else " Drag a slider, or use the arrow keys."
    parts = [element("p", f"From the best clip to the worst.{hint}"), legend(ERRORS, "Colours of errors")]
    for index, clip in enumerate(shown):
        masks = _masks(evaluation, clip)
        sprite = sprite_of(clip.num_frames, partial(_panels, evaluation.prepared.frames(clip)[:], masks))
        scores = evaluation.per_clip(SEGMENTER)[clip.id]
        scores_text = [
            f"{words} {format_score(scores[name])}"
            for name, words in _main_scores(evaluation)
            if np.isfinite(scores[name])
        ]
        title = ", ".join([clip.id, *scores_text])
        captions = {name: name.replace("_", " ") for name in sprite.panels}
        frames = [f"frame {t + 1} of {clip.num_frames}" for t in sprite.frames]
        entries = class_entries(
            [each for of_store in masks.values() for each in of_store.values()], evaluation.prepared.classes
        )
        # so that no row has panels of two label maps
        threes = len(sprite.panels) // len(masks["truth"]) % 3 == 0
        parts.append(player(f"clip-{index}", title, sprite, captions, frames, entries, threes=threes))
    return concatenate(parts)


def _write_video(path: Path, evaluation: VideoEvaluation, clip: Clip) -> Html:
    frames, masks = evaluation.prepared.frames(clip)[:], _masks(evaluation, clip)
    count = min(clip.num_frames, MAX_VIDEO_FRAMES)
    sheets = []
    for t in range(count):
        panels = _panels(frames, masks, t)
        captions = [name.replace("_", " ") for name in panels]
        columns = len(panels) // len(masks["truth"])
        rows = [
            Row("", list(panels.values())[first : first + columns], captions[first : first + columns])
            for first in range(0, len(panels), columns)
        ]
        sheets.append(grid(rows, f"{clip.id} · frame {t + 1}"))
    sheets[0].save(path, save_all=True, append_images=sheets[1:], duration=FRAME_MS, loop=0, quality=75, method=2)
    caption = f"{path.name}, {count} of {pluralize(clip.num_frames, 'frame')} of {clip.id}"
    return figure(f"Video of {clip.id}", caption, path.read_bytes(), "image/webp")


def _masks(evaluation: VideoEvaluation, clip: Clip) -> dict[str, dict[str, np.ndarray]]:
    """Returns the masks (T, H, W) of a clip, the truth first, by store and label map."""
    stores = {"truth": evaluation.prepared, **evaluation.masks}
    return {name: evaluation.layers(store, clip) for name, store in stores.items()}


def _panels(frames: np.ndarray, masks: dict[str, dict[str, np.ndarray]], t: int) -> dict[str, np.ndarray]:
    """Returns pictures (H, W, C) of a frame by name; of several label maps one after the other, with their names.

    Args:
        frames: (T, H, W, C).
        masks: see ``_masks``.
        t: index of the frame.
    """
    truth, panels = masks["truth"], {}
    for map_name in truth:
        suffix = f"_{map_name}" if len(truth) > 1 else ""
        panels[f"frame{suffix}"] = frames[t]  # again for each map, so that a row has all of it
        for name, maps in masks.items():
            panels[f"{name}{suffix}"] = overlay(frames[t], maps[map_name][t])
        for name, maps in list(masks.items())[1:]:
            panels[f"error_of_{name}{suffix}"] = error_map(truth[map_name][t], maps[map_name][t])
    return panels
