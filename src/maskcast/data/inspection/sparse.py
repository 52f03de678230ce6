"""Windows for sequences of which a few frames have masks: each forecast frame must have one in some clip."""

from collections.abc import Mapping, Sequence

from maskcast.data.inspection.findings import Findings
from maskcast.data.sources.splits import time_parts
from maskcast.errors import MaskcastError


def cover_horizon(found: Findings, marked: Mapping[str, Sequence[bool]]) -> None:
    """Lowers `source.window_step` until every forecast frame has a mask in some clip that is scored on.

    Args:
        found: with its splits.
        marked: by sequence, whether each frame has a mask.

    Raises:
        MaskcastError: when no window step does it.
    """
    if found.photographs or all(sum(marked[name]) == len(marked[name]) for name in found.labelled):
        return
    given, total = (sum(numbers) for numbers in zip(*_counts(found, marked), strict=True))
    parts = _scored(found, marked)
    usual = int(found.source.get("window_step", found.frames))
    for step in range(usual, 0, -1):
        if all(_covered(found, marked, parts, step, frame) for frame in range(found.context, found.frames)):
            break
    else:
        raise MaskcastError(
            f"{given} of the {total} frames of labelled sequences have a mask, too few to score a forecast: label "
            f"{found.frames} frames in a row of a sequence to be scored on"
        )
    if step < usual:
        found.source["window_step"] = step
        found.why["window_step"] = "few frames have masks: so every forecast frame has one in some clip"
    found.warnings.append(
        f"{given} of the {total} frames of labelled sequences have a mask: the others count as not labelled, and "
        "no score rests on them"
    )


def _scored(found: Findings, marked: Mapping[str, Sequence[bool]]) -> dict[str, range]:
    """Returns the frames of each sequence that are scored on."""
    splits = found.source["splits"]
    if found.source.get("split_by") == "time":
        whole = {name: time_parts(range(len(marks)), splits) for name, marks in marked.items()}
        return {name: parts["val"] for name, parts in whole.items() if "val" in parts}
    return {name: range(len(marked[name])) for name in splits.get("val", ())}


def _covered(
    found: Findings, marked: Mapping[str, Sequence[bool]], parts: Mapping[str, range], step: int, frame: int
) -> bool:
    return any(
        marked[name][start + frame]
        for name, part in parts.items()
        for run in found.runs(name)
        for start in range(max(run.start, part.start), min(run.stop, part.stop) - found.frames + 1, step)
    )


def _counts(found: Findings, marked: Mapping[str, Sequence[bool]]) -> list[tuple[int, int]]:
    return [(sum(marked[name]), len(marked[name])) for name in found.labelled]
