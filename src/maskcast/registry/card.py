"""The model card, to be read before a model is promoted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskcast.evaluation.metrics import foreground_text
from maskcast.models.base import read_description
from maskcast.params import flatten
from maskcast.reading import pluralize
from maskcast.registry.evaluations import EvaluationRecord
from maskcast.registry.kinds import KINDS, Description, DetectorDescription, SegmenterDescription
from maskcast.report.tables import markdown

SCORES = ("jaccard_last", "jaccard_mean", "accuracy_last", "dice_last", "coco_AP")
ONE_CLASS = ("jaccard_last", "jaccard_last_no_background", *SCORES[1:])  # for one class besides the background


def model_card(
    about: Description, parts: Mapping[str, Path], record: EvaluationRecord, tags: Mapping[str, str]
) -> str:
    """Returns a model card in Markdown.

    Args:
        about: description of the model.
        parts: folders of masker, forecaster and, if one was trained, encoder; or of detector or segmenter.
        record: the evaluation of the pipeline, detector or segmenter.
        tags: provenance, as in the tags of its version.
    """
    kind = KINDS[about.kind]
    descriptions = {name: read_description(parts[name]) for name in kind.parts}
    lines = [f"# maskcast {about.kind}", "", kind.purpose, "", "## Provenance", ""]
    lines += [f"- {name.removeprefix('maskcast.')}: `{value}`" for name, value in tags.items()]
    lines += ["", "## Scores", "", *_scores(about, record), "## Params", ""]
    lines += [
        f"- {name}.{key}: `{value}`"
        for name, description in descriptions.items()
        for key, value in (flatten(description["model"]) | _weights(description["meta"])).items()
    ]
    lines += ["", "## Limits", "", *_limits(about, parts)]
    return "\n".join([*lines, ""])


def _weights(meta: Mapping[str, Any]) -> dict[str, str]:
    """Returns the pretrained weights that a model was initialized with, as rows for the table of params."""
    return {f"encoder_weights.{key}": value for key, value in meta.get("encoder_weights", {}).items()}


def _scores(about: Description, record: EvaluationRecord) -> list[str]:
    if about.kind == "encoder":
        return [
            "None: the evaluation scores the pipeline whose masker was initialized with it. If there were "
            "labels, the page of `pretrain_encoder` has the scores of a linear probe and kNN on its features.",
            "",
        ]
    facts, scores = record.facts, record.scores
    what = pluralize(int(scores.get("clips", 0)), "clip")
    if isinstance(about, DetectorDescription):
        boxes, setting = pluralize(int(scores.get("truths", 0)), "box"), ""
        what = f"{pluralize(int(scores.get('images', 0)), 'image')} with {boxes}"
    elif isinstance(about, SegmenterDescription):
        setting = f", label map `{about.label_map}`"
    else:
        seen = pluralize(about.context_frames, "context frame")
        setting = f", {seen} ({facts['context']} masks), {about.horizon} forecast"
    scored = f"Split {facts.get('split')}, {what} (data `{facts['data']}`){setting}"
    lines = [f"{scored}; the report's README.md defines each score.", ""]
    if isinstance(about, DetectorDescription | SegmenterDescription):
        shown = {name: f"{scores[name]:.4f}" for name in record.measure.headline if name in scores}
        return [*lines, markdown(list(shown), [list(shown.values())])]
    one_class = len(about.classes) == 2
    lines.append(_score_table(record, ONE_CLASS if one_class else SCORES))
    if "masker_jaccard" in scores:
        words = foreground_text(scores, "masker_jaccard_no_background") if one_class else ""
        lines += [f"The masker's own Jaccard over all frames is {scores['masker_jaccard']:.4f}{words}.", ""]
    return lines


def _limits(about: Description, parts: Mapping[str, Path]) -> list[str]:
    if about.kind == "encoder":
        method = read_description(parts["encoder"])["meta"]["method"]
        return [
            f"- Trained without labels by `{method}`; the meaning of the features must be learned from labels.",
            "- A vector is the encoder's last feature map, averaged over space.",
            "- Frames of any size work: they are padded with their edge to a multiple of the encoder's stride.",
        ]
    if isinstance(about, DetectorDescription):
        names = dict(enumerate(about.classes))
        return [
            f"- {len(names)} classes by id: {json.dumps(names, ensure_ascii=False)}; anything else is not found.",
            "- A box has one class and its score; rows of zeros are no boxes.",
            "- The scores hold for images like those of the split; they say nothing about other scenes.",
        ]
    meta = read_description(parts["segmenter" if about.kind == "segmenter" else "masker"])["meta"]
    classes = list(about.classes)
    lines = [
        f"- Trained on frames of {meta.get('height', '?')}x{meta.get('width', '?')}; other sizes are not tested.",
        f"- {len(classes)} classes: {json.dumps(classes, ensure_ascii=False)}; anything else becomes one of them.",
        "- The scores hold for clips like those of the split; they say nothing about other cameras or scenes.",
    ]
    others = [each["name"] for each in meta.get("maps", []) if each["name"] != about.label_map]
    if about.label_map is not None and others:
        lines.append(f"- Masks are of label map `{about.label_map}`; the masker also has {', '.join(others)}.")
    if isinstance(about, SegmenterDescription):
        return [*lines, "- It keeps state for one video: pass each video in order, from its first frame."]
    if about.consistent_frames is not None:
        count = about.consistent_frames
        lines.append(
            f"- Each object has one class over the first {count} context frames, the next {count}, and so on."
        )
    if about.kind != "masker":
        seen = pluralize(about.context_frames, "frame")
        lines.append(f"- Evaluated with {seen} of context; it forecasts {about.horizon} at most.")
        if about.frame_rate is not None:
            lines.append(
                f"- Evaluated on clips of {about.frame_rate:.4g} frames per second; others are not tested."
            )
    return lines


def _score_table(record: EvaluationRecord, names: Sequence[str]) -> str:
    models = ("forecaster", *record.baselines)
    rows = []
    for model in models:
        keys = [name if model == "forecaster" else f"{name}_{model}" for name in names]
        rows.append([model, *(f"{record.scores[key]:.4f}" if key in record.scores else "-" for key in keys)])
    return markdown(["forecaster", *names], rows)
