"""Writes evaluation.json, which the registry reads: models, data, definitions and all scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskcast.digest import digest_json
from maskcast.writing import write_json

FORECASTS = "maskcast-evaluation/1"
DETECTIONS = "maskcast-detection-evaluation/1"
VIDEOS = "maskcast-video-evaluation/1"


def write_record(
    path: Path, form: str, definitions: Mapping[str, str], *, scores: Mapping[str, float], **measured: Any
) -> None:
    """Writes an evaluation as JSON.

    Args:
        path: the file.
        form: ``FORECASTS``, ``DETECTIONS`` or ``VIDEOS``.
        definitions: meanings of the scores; their digest is written, so that a change of definitions is noticed.
        scores: all scores.
        **measured: facts about models and data, as JSON values.
    """
    record = {"format": form, "definitions": digest_json(dict(definitions)), **measured, "scores": dict(scores)}
    write_json(path, record)
