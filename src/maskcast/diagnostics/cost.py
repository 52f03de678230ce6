"""Extrapolates what a stage took on a few clips to the whole data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskcast.data.compositing import BACKGROUNDS
from maskcast.dry_run_notes import CLIPS_PER_PART

Notes = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CostEstimate:
    """Estimated cost of a stage.

    Attributes:
        seconds: for the whole stage.
        step_s: seconds per training step, or None without training.
        steps: number of training steps.
        memory: peak memory of its processes, in bytes.
        gpu: peak GPU memory, in bytes.
        parts: number of clips or images in each part of the data set that it wrote.
    """

    seconds: float
    step_s: float | None
    steps: int
    memory: int
    gpu: int
    parts: dict[str, int] = field(default_factory=dict)


def estimate_cost(notes: Notes, wall_s: float, params: Any, parts: Mapping[str, int]) -> CostEstimate:
    """Returns the estimated cost: one-time work as measured, repeated work times its number of repetitions.

    Args:
        notes: notes of a successful stage (see `maskcast.dry_run_notes`).
        wall_s: seconds that its process took.
        params: params of the stage.
        parts: number of clips or images in each part of the data set that it reads; empty if it reads none.
    """
    runs = sum("took" in note for note in notes)
    last = notes[max(n for n, note in enumerate(notes) if "begins" in note) :]
    took = next(note["took"] for note in last if "took" in note)
    written: dict[str, int] = {}
    order: list[str] = []
    repeated, spent, within = 0.0, 0.0, 0.0  # seconds: extrapolated, of loops in the trial, before a loop's items
    steps = next((note for note in last if note.get("loop") == "steps"), None)
    for note in last:
        if "parts" in note:
            written |= note["parts"]
            order = note["order"]
        elif "times" in note:  # for a training
            spent += note["spent"]
            factor = scale_factor(parts, note["part"]) if "part" in note else 1.0
            repeated += note["each"] * note["times"] * factor
        elif "within" in note:  # one-time work in a loop, before the first item
            within = note["within"]
        elif "loop" in note:
            looped, within = sum(note["seconds"]) - within, 0.0
            spent += looped
            if "items" in note:  # for a training, beside its steps
                repeated += looped / max(note["items"], 1) * _number(note, parts)
            elif order:  # for the stage that writes the data set, whose parts differ in cost
                repeated += _by_part(note["seconds"], order, written)
                order = []
            else:
                repeated += looped * (1.0 if steps else scale_factor(parts, getattr(params, "split", None)))
    # If the stage ran twice, the first run was for warm-up: the extra time of that run counts as one-time work.
    once = wall_s - runs * took + took - spent
    figures = {key: max((note[key] for note in notes if key in note), default=0) for key in ("memory", "gpu")}
    each = None if steps is None else float(steps["each"])
    return CostEstimate(max(once, 0.0) + repeated, each, steps["times"] if steps else 0, **figures, parts=written)


def scale_factor(parts: Mapping[str, int], split: str | None) -> float:
    """Returns total / tried number of clips of a split, or of all clips with frames."""
    counted = {
        part: number
        for part, number in parts.items()
        # After the first stage, no stage reads backgrounds separately.
        if (split is None or part.split("/")[0] == split) and not part.startswith(BACKGROUNDS)
    }
    framed = {part: number for part, number in counted.items() if not part.endswith("/masks")} or counted
    tried = sum(min(number, CLIPS_PER_PART) for number in framed.values())
    return sum(framed.values()) / tried if tried else 1.0


def _number(loop: Mapping[str, Any], parts: Mapping[str, int]) -> int:
    """Returns how many items a loop will have in the real run (`maskcast.dry_run_notes.FullLoop`)."""
    if not loop["splits"]:
        return int(loop["most"])
    clips = sum(number for part, number in parts.items() if part.split("/")[0] in loop["splits"])
    number = int(clips or loop["items"])  # without parts, all items were tried
    return number if loop["most"] is None else min(number, loop["most"])


def _by_part(seconds: Sequence[float], order: Sequence[str], parts: Mapping[str, int]) -> float:
    """Returns the seconds for all items, extrapolated from the tried ones separately for each part."""
    total = sum(seconds[len(order) :])
    for part in set(order):
        of_part = [second for second, name in zip(seconds, order, strict=False) if name == part]
        total += sum(of_part) / max(len(of_part), 1) * parts[part]
    return total
