"""From what a stage noted on a handful of clips, what it takes on all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskcast.data.composing import BACKGROUNDS
from maskcast.rehearsal import HANDFUL

Notes = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Forecast:
    """What a stage will take.

    Attributes:
        seconds: of the whole stage.
        step_s: seconds of a training step, None where there is none.
        steps: of the training.
        memory: bytes that its processes held at most.
        gpu: bytes of GPU memory, likewise.
        parts: number of clips or images of each part of the data set that it wrote.
    """

    seconds: float
    step_s: float | None
    steps: int
    memory: int
    gpu: int
    parts: dict[str, int] = field(default_factory=dict)


def forecast(notes: Notes, wall_s: float, params: Any, parts: Mapping[str, int]) -> Forecast:
    """Returns what a stage takes: what is done once as measured, what is done often by how often.

    Args:
        notes: of a stage that ended well (see `maskcast.rehearsal`).
        wall_s: seconds of its process.
        params: of the stage.
        parts: how many clips or images each part of the data set has that it reads; empty where it reads none.
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
        elif "times" in one:  # of a training
            spent += one["spent"]
            often += one["each"] * one["times"] * (ratio(parts, one["part"]) if "part" in one else 1.0)
        elif "within" in one:  # what a loop did once, before its first item
            within = one["within"]
        elif "loop" in one:
            looped, within = sum(one["seconds"]) - within, 0.0
            spent += looped
            if "items" in one:  # of a training, beside its steps
                often += looped / max(one["items"], 1) * _number(one, parts)
            elif order:  # of the stage that writes the data set, where parts differ in what they cost
                often += _by_part(one["seconds"], order, own)
                order = []
            else:
                often += looped * (1.0 if steps else ratio(parts, getattr(params, "split", None)))
    # A stage that ran twice has warmed up in the first: what that took more is done once.
    once = wall_s - runs * took + took - spent
    figures = {key: max((one[key] for one in notes if key in one), default=0) for key in ("memory", "gpu")}
    each = None if steps is None else float(steps["each"])
    return Forecast(max(once, 0.0) + often, each, steps["times"] if steps else 0, **figures, parts=own)


def ratio(parts: Mapping[str, int], split: str | None) -> float:
    """Returns how many times the handful of a split, or of all clips with frames, all of it is."""
    counted = {
        part: number
        for part, number in parts.items()
        # No stage after the first one looks at backgrounds by themselves.
        if (split is None or part.split("/")[0] == split) and not part.startswith(BACKGROUNDS)
    }
    framed = {part: number for part, number in counted.items() if not part.endswith("/masks")} or counted
    handful = sum(min(number, HANDFUL) for number in framed.values())
    return sum(framed.values()) / handful if handful else 1.0


def _number(loop: Mapping[str, Any], parts: Mapping[str, int]) -> int:
    """Returns how many items a loop has that stand for more (`maskcast.rehearsal.AllOf`)."""
    if not loop["splits"]:
        return int(loop["most"])
    clips = sum(number for part, number in parts.items() if part.split("/")[0] in loop["splits"])
    number = int(clips or loop["items"])  # without parts none is left out
    return number if loop["most"] is None else min(number, loop["most"])


def _by_part(seconds: Sequence[float], order: Sequence[str], parts: Mapping[str, int]) -> float:
    """Returns the seconds of all items, from those of the handful: part by part."""
    total = sum(seconds[len(order) :])
    for part in set(order):
        own = [second for second, name in zip(seconds, order, strict=False) if name == part]
        total += sum(own) / max(len(own), 1) * parts[part]
    return total
