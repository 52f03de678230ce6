"""The length of clips and the step between them, as sequences and their masks allow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maskcast.data.inspection.findings import MAX_CONTEXT, MIN_CONTEXT, Findings
from maskcast.data.sources.cutting import WINDOW_STEP
from maskcast.data.sources.splits import time_parts
from maskcast.errors import MaskcastError

MASKS_ALONE = (
    "; or, for masks without a forecast, run init in a project of `maskcast new FOLDER --pipeline photographs`"
)


def set_clip_length(
    raw: Path, found: Findings, lengths: Sequence[int], *, apart: bool, most: int = MAX_CONTEXT
) -> None:
    """Sets the context to half of a clip: 11 frames if the sequences are long enough for clips of 22.

    Args:
        raw: folder of the data.
        found: the findings so far.
        lengths: length of each sequence's longest part without gaps, in descending order.
        apart: whether clips are needed for validation: then two sequences, or two parts of one, must be long
            enough.
        most: maximum context.

    Raises:
        MaskcastError: if the sequences are too short for a forecast.
    """
    second = lengths[1] if len(lengths) > 1 else lengths[0] // 2
    found.context = min(most, (second if apart else lengths[0]) // 2)
    if found.context < MIN_CONTEXT:
        need, apart_from_gaps = 2 * MIN_CONTEXT, " without a gap in their numbers" if found.gaps else ""
        raise MaskcastError(
            f"{raw}: the sequences have {', '.join(map(str, lengths[:5]))} frames{apart_from_gaps}: a clip "
            f"{'to learn from and one to be scored on need' if apart else 'needs'} {need} frames"
            f"{' each' if apart else ''}, half of them as context; give longer ones"
            f"{MASKS_ALONE if apart else ''}"
        )
    if found.context < MAX_CONTEXT:
        too_short = (
            "masks are too close together"
            if most < MAX_CONTEXT and found.is_partly_labelled
            else "sequences are too short"
        )
        found.source["frames"] = found.frames
        found.reasons["frames"] = (
            f"{found.context} context and {found.context} forecast frames: {too_short} for 11 + 11"
        )
        found.warnings.append(
            f"{too_short}: clips have {found.context} context and {found.context} forecast frames, not 11 and 11"
        )


def max_context(runs: Sequence[range], marks: Sequence[bool]) -> int:
    """Returns the longest context with which a sequence can be cut by time."""
    contexts = range(MAX_CONTEXT, MIN_CONTEXT - 1, -1)
    return next((context for context in contexts if possible_cuts(runs, marks, 2 * context)), MAX_CONTEXT)


def possible_cuts(runs: Sequence[range], marks: Sequence[bool], frames: int) -> range:
    """Returns where to cut: before it fits a clip with a mask, behind it one whose last frame has a mask."""
    earliest, latest = len(marks) + 1, -1
    for run in runs:
        marked = [place for place in run if marks[place]]
        if marked and len(run) >= frames:
            earliest = min(earliest, max(run.start + frames, marked[0] + 1))
            latest = max(latest, marked[-1] + 1 - frames)
    return range(earliest, latest + 1)


def cover_horizon(found: Findings, marked: Mapping[str, Sequence[bool]], *, shorter: bool = True) -> None:
    """Sets `labelled_window_step`, else reduces the context, so that some clip of `val` has a mask of each frame.

    That is of each forecast frame. Clips without a mask keep their distance: they would only show the same frames
    again.

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
    longest = found.frames
    for context in range(found.context, (MIN_CONTEXT if shorter else found.context) - 1, -1):
        found.context = context
        usual = min(int(found.source.get("window_step", found.frames)), found.frames)
        step = next(
            (one for one in range(usual, 0, -1) if _covers_horizon(found, marked, parts, usual, one)), None
        )
        if step is not None:
            break
    else:
        raise MaskcastError(
            f"{given} of the {total} frames of labelled sequences have a mask, too few to score a forecast: label "
            f"{longest} frames in a row of a sequence to be scored on{MASKS_ALONE}"
        )
    if "window_step" not in found.source and found.frames < WINDOW_STEP:
        found.source["window_step"] = found.frames
    if step < usual:
        found.source["labelled_window_step"] = step
        found.reasons["labelled_window_step"] = (
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
    found: Findings, marked: Mapping[str, Sequence[bool]], parts: Mapping[str, range], usual: int, step: int
) -> bool:
    """Whether each forecast frame has a mask in some clip, of those ``usual`` and of those ``step`` apart."""
    starts = [
        (name, start)
        for name, part in parts.items()
        for run in found.runs(name)
        for apart in {usual, step}
        for start in range(max(run.start, part.start), min(run.stop, part.stop) - found.frames + 1, apart)
    ]
    return all(
        any(marked[name][start + frame] for name, start in starts) for frame in range(found.context, found.frames)
    )
