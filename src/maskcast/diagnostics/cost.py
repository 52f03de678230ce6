"""Extrapolates what a stage took on a few clips to the whole data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskcast.data.compositing import BACKGROUNDS
from maskcast.dry_run import CLIPS_PER_PART

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
        notes: notes of a successful stage (see `maskcast.dry_run`).
        wall_s: seconds that its process took.
        params: params of the stage.
        parts: number of clips or images in each part of the data set that it reads; empty if it reads none.
    """
    runs = sum("took" in one for one in notes)
    last = notes[max(n for n, one in enumerate(notes) if "begins" in one) :]
    took = next(one["took"] for one in last if "took" in one)
    own: dict[str, int] = {}
    order: list[str] = []
    often, spent, within = 0.0, 0.0, 0.0
    steps = next((one for one in last if one.get("loop") == "steps"), None)
    for one in last:
        if "parts" in one:
            own |= one["parts"]
            order = one["order"]
        elif "times" in one:  # for a training
            spent += one["spent"]
            often += one["each"] * one["times"] * (scale_factor(parts, one["part"]) if "part" in one else 1.0)
        elif "within" in one:  # one-time work in a loop, before the first item
            within = one["within"]
        elif "loop" in one:
            looped, within = sum(one["seconds"]) - within, 0.0
            spent += looped
            if "items" in one:  # for a training, beside its steps
                often += looped / max(one["items"], 1) * _number(one, parts)
            elif order:  # for the stage that writes the data set, whose parts differ in cost
                often += _by_part(one["seconds"], order, own)
                order = []
            else:
                often += looped * (1.0 if steps else scale_factor(parts, getattr(params, "split", None)))
    # If the stage ran twice, the first run was for warm-up: the extra time of that run counts as one-time work.
    once = wall_s - runs * took + took - spent
    figures = {key: max((one[key] for one in notes if key in one), default=0) for key in ("memory", "gpu")}
    each = None if steps is None else float(steps["each"])
    return CostEstimate(max(once, 0.0) + often, each, steps["times"] if steps else 0, **figures, parts=own)


def scale_factor(parts: Mapping[str, int], split: str | None) -> float:
    """Returns total / tried number of clips of a split, or of all clips with frames."""
    counted = {
        part: number
        for part, number in parts.items()
        # After the first stage, no stage reads backgrounds on their own.
        if (split is None or part.split("/")[0] == split) and not part.startswith(BACKGROUNDS)
    }
    framed = {part: number for part, number in counted.items() if not part.endswith("/masks")} or counted
    handful = sum(min(number, CLIPS_PER_PART) for number in framed.values())
    return sum(framed.values()) / handful if handful else 1.0


def _number(loop: Mapping[str, Any], parts: Mapping[str, int]) -> int:
    """Returns how many items a loop will have in the real run (`maskcast.dry_run.FullLoop`)."""
    if not loop["splits"]:
        return int(loop["most"])
    clips = sum(number for part, number in parts.items() if part.split("/")[0] in loop["splits"])
    number = int(clips or loop["items"])  # without parts, all items were tried
    return number if loop["most"] is None else min(number, loop["most"])


def _by_part(seconds: Sequence[float], order: Sequence[str], parts: Mapping[str, int]) -> float:
    """Returns the seconds for all items, extrapolated from the tried ones separately for each part."""
    total = sum(seconds[len(order) :])
    for part in set(order):
        own = [second for second, name in zip(seconds, order, strict=False) if name == part]
        total += sum(own) / max(len(own), 1) * parts[part]
    return total
