"""Windows for sparsely labelled sequences: each forecast frame must have a mask in some clip."""

from collections.abc import Mapping, Sequence

from maskcast.data.inspection.findings import MIN_CONTEXT, Findings
from maskcast.data.sources.splits import time_parts
from maskcast.errors import MaskcastError


def cover_horizon(found: Findings, marked: Mapping[str, Sequence[bool]], *, shorter: bool = True) -> None:
    """Reduces `source.window_step`, else the context, until each forecast frame has a mask in some clip of `val`.

    Args:
        found: findings with splits.
        marked: by sequence, whether each frame has a mask.
        shorter: whether the context may be reduced.

    Raises:
        MaskcastError: if neither helps.
    """
    marks = [mark for name in found.labelled for mark in marked[name]]
    if found.photographs or all(marks):
        return
    given, total = sum(marks), len(marks)
    parts = _validation_frames(found, marked)
    usual = int(found.source.get("window_step", found.frames))
    longest = found.frames
    for context in range(found.context, (MIN_CONTEXT if shorter else found.context) - 1, -1):
        found.context = context
        steps = range(min(usual, found.frames), 0, -1)
        step = next((one for one in steps if _covers_horizon(found, marked, parts, one)), None)
        if step is not None:
            break
    else:
        raise MaskcastError(
            f"{given} of the {total} frames of labelled sequences have a mask, too few to score a forecast: label "
            f"{longest} frames in a row of a sequence to be scored on"
        )
    if step < usual:
        found.source["window_step"] = step
        found.reasons["window_step"] = (
            "few frames have masks: at this step, every forecast frame has one in some clip"
        )
    if found.frames < longest:
        found.source["frames"] = found.frames
        found.reasons["frames"] = (
            f"{found.context} context and {found.context} forecast frames: few frames have masks"
        )
        found.warnings.append(
            f"few frames have masks: clips have {found.context} context and {found.context} forecast frames, so "
            "that every forecast frame has a mask in some clip"
        )
    found.warnings.append(
        f"{given} of the {total} frames of labelled sequences have a mask: the others count as not labelled, and "
        "are not scored"
    )


def _validation_frames(found: Findings, marked: Mapping[str, Sequence[bool]]) -> dict[str, range]:
    """Returns the validation frames of each sequence."""
    splits = found.source["splits"]
    if found.source.get("split_by") == "time":
        whole = {name: time_parts(range(len(marks)), splits) for name, marks in marked.items()}
        return {name: parts["val"] for name, parts in whole.items() if "val" in parts}
    return {name: range(len(marked[name])) for name in splits.get("val", ())}


def _covers_horizon(
    found: Findings, marked: Mapping[str, Sequence[bool]], parts: Mapping[str, range], step: int
) -> bool:
    starts = [
        (name, start)
        for name, part in parts.items()
        for run in found.runs(name)
        for start in range(max(run.start, part.start), min(run.stop, part.stop) - found.frames + 1, step)
    ]
    return all(
        any(marked[name][start + frame] for name, start in starts) for frame in range(found.context, found.frames)
    )
