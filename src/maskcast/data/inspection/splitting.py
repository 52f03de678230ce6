"""Proposes which sequences to learn from and which to score on, and how long a clip is to be."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from maskcast.data.inspection.findings import LEAST_SEEN, SEEN, Findings
from maskcast.data.sources.splits import assign_splits
from maskcast.errors import MaskcastError
from maskcast.files import files_below
from maskcast.labels import id_key
from maskcast.reading import counted

SHARE = 0.2  # of the labelled sequences that is scored on
FEW_CLIPS = 20  # labelled clips up to which windows overlap
SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SPLIT_NAMES |= {split: split for split in ("train", "val", "test")}


def propose_splits(
    raw: Path, found: Findings, marked: Mapping[str, Sequence[bool]], folders: Mapping[str, str] | None = None
) -> None:
    """Sets the length of clips and the splits of labelled sequences; those without a mask are unlabelled.

    Args:
        raw: the folder of the data.
        found: what is in it.
        marked: by sequence, whether each frame has a mask.
        folders: of sequences, which may be named as splits; else sequences are.

    Raises:
        MaskcastError: when the labelled sequences are too short for a forecast, or too few frames have masks.
    """
    if found.photographs:
        _of_photographs(raw, found, folders or {})
        return
    lengths = {name: max(map(len, found.runs(name))) for name in found.labelled or found.sequences}
    alone = next(iter(found.labelled)) if len(found.labelled) == 1 else None
    most = _most_seen(found.runs(alone), marked[alone]) if alone is not None else SEEN
    set_length(raw, found, sorted(lengths.values(), reverse=True), apart=bool(found.labelled), most=most)
    unlabelled = sorted(found.sequences.keys() - found.labelled.keys(), key=id_key)
    if not found.labelled:
        _without_masks(found)
        return
    long_enough = sorted((name for name, length in lengths.items() if length >= found.frames), key=id_key)
    short = {"unlabeled": tuple(unlabelled)} if unlabelled else {}
    if alone is not None:
        _by_time(raw, found, alone, marked[alone], unlabelled)
    else:
        named, origin = _existing(raw, sorted(lengths, key=id_key), folders or {})
        if not set(named.get("val", ())) & set(long_enough):
            named, origin = _with_val(found, named, origin, long_enough)
        found.source["splits"] = named | short
        found.why["splits"] = f"val: {origin}; the rest is train"
        clips = sum(len(run) // found.frames for name in long_enough for run in found.runs(name))
        if clips < FEW_CLIPS:
            found.source["window_step"] = found.context
            found.why["window_step"] = f"windows overlap, because {clips} that do not are few"
    if unlabelled and (alone is None or found.source["layout"] != "frame_folders"):
        found.why["splits"] += f"; unlabeled: the {len(unlabelled)} without masks"


def _with_val(
    found: Findings, named: dict[str, tuple[str, ...]], origin: str, long_enough: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Returns splits with a `val`: some of the sequences that are not for `test`, else those that are."""
    test = named.get("test", ())
    rest = [name for name in long_enough if name not in test]
    if test and len(rest) == 1:
        found.warnings.append(
            f"test serves as val, because {rest[0]} alone has other masks: what chooses the model scores it, too"
        )
        return {"val": test}, f"test, {origin}"
    drawn = _members(assign_splits(rest or long_enough, {"val": SHARE}, 0), "val")
    if not test or not rest:
        return {"val": drawn}, f"{SHARE:.0%} of the {len(long_enough)} labelled sequences, drawn with seed 0"
    told = f"{SHARE:.0%} of the {len(rest)} labelled ones that are not for test, drawn with seed 0; test: {origin}"
    return {"val": drawn, "test": test}, told


def _of_photographs(raw: Path, found: Findings, folders: Mapping[str, str]) -> None:
    """Makes each image a clip, and draws those to be scored on; where they lie in folders, the end of each is."""
    found.source |= {"frames": 1, "window_step": 1}
    found.why["frames"] = f"photographs: {found.photographs}"
    found.warnings.append(
        f"taken for photographs, because {found.photographs}: nothing is forecast. If they are frames of videos, "
        "number them in their order and give those of a video one size"
    )
    if not found.labelled:
        _without_masks(found)
        return
    unlabelled = sorted(found.sequences.keys() - found.labelled.keys(), key=id_key)
    named, origin = _existing(raw, sorted(found.labelled, key=id_key), folders)
    alone = all(length == 1 for length in found.sequences.values())
    if "test" in named and "val" not in named and not alone:
        named, origin = _with_val(found, named, origin, sorted(found.labelled, key=id_key))
    splits: dict[str, Any] = dict(named)
    if "val" in named:
        found.why["splits"] = f"val: {origin}; the rest is train"
    elif alone:
        splits["val"] = SHARE
        others = len(found.labelled) - len(named.get("test", ()))
        found.why["splits"] = f"val: {SHARE:.0%} of {others} labelled ones; the rest is train"
        found.why["splits"] += f"; test: {origin}" if named else ""
    else:
        found.source |= {"split_by": "time", "splits": {"val": SHARE}}
        found.why["splits"] = f"val: the last {SHARE:.0%} of each folder; the rest is train"
        return
    if unlabelled:
        splits["unlabeled"] = tuple(unlabelled)
        found.why["splits"] += f"; unlabeled: the {len(unlabelled)} without masks"
    found.source["splits"] = splits


def _without_masks(found: Findings) -> None:
    found.source["splits"] = {"unlabeled": 1.0}
    found.why["splits"] = "there are no masks"
    found.trainable = False


def set_length(raw: Path, found: Findings, lengths: Sequence[int], *, apart: bool, most: int = SEEN) -> None:
    """Sets the context: half of a clip, and 11 where the sequences are long enough for 22 frames.

    Args:
        raw: the folder of the data.
        found: what is in it.
        lengths: of the longest part without a gap of each sequence, the longest first.
        apart: whether some clips are scored on: then two sequences or both parts of one must be long enough.
        most: frames that may be seen.

    Raises:
        MaskcastError: when they are too short for a forecast.
    """
    second = lengths[1] if len(lengths) > 1 else lengths[0] // 2
    found.context = min(most, (second if apart else lengths[0]) // 2)
    if found.context < LEAST_SEEN:
        need, apart_from_gaps = 2 * LEAST_SEEN, " without a gap in their numbers" if found.gaps else ""
        raise MaskcastError(
            f"{raw}: the sequences have {', '.join(map(str, lengths[:5]))} frames{apart_from_gaps}: a clip "
            f"{'to learn from and one to be scored on need' if apart else 'needs'} {need} frames"
            f"{' each' if apart else ''}, half of them seen; give longer ones"
        )
    if found.context < SEEN:
        too_short = "masks are too close together" if most < SEEN and found.partly else "sequences are too short"
        found.source["frames"] = found.frames
        found.why["frames"] = f"{found.context} seen and {found.context} forecast: {too_short} for 11 + 11"
        found.warnings.append(
            f"{too_short}: {found.context} frames are seen and {found.context} forecast, not 11 and 11"
        )


def _by_time(raw: Path, found: Findings, name: str, marks: Sequence[bool], unlabelled: list[str]) -> None:
    """Cuts a single sequence into a beginning to learn from and an end to be scored on.

    Raises:
        MaskcastError: when its masks lie too close together for that.
    """
    length = found.sequences[name]
    cuts = _cuts(found.runs(name), marks, found.frames)
    if not cuts:
        need = 2 * LEAST_SEEN
        raise MaskcastError(
            f"{raw}: only {name} has masks, of {counted(sum(marks), 'frame')} of {length}, and they lie too close "
            f"together: {need} frames to learn from and {need} to be scored on need some each; label more frames "
            "of it, or a second sequence"
        )
    begin = _begin(found, name, length)
    if sum(marks[begin:]) < SHARE / 2 * sum(marks):  # its end has hardly any masks
        begin = _begin(found, name, len(marks) - [*reversed(marks)].index(True))
    begin = min(max(begin, cuts.start), cuts.stop - 1)
    share = round((length - begin) / length + 0.005, 2)
    found.source |= {"split_by": "time", "splits": {"val": share}, "window_step": max(1, found.context // 2)}
    found.why["split_by"] = "one sequence is all that has masks: its end is scored on, its beginning learnt from"
    found.why["splits"] = f"the last {share:.0%} of {length} frames"
    found.why["window_step"] = "windows overlap, because there is one sequence alone"
    found.warnings.append(
        "one labelled sequence: scores on its own end say little about other videos; label a second one"
    )
    if unlabelled and found.source["layout"] == "frame_folders":
        found.warnings.append(
            f"left out: {counted(len(unlabelled), 'sequence')} without masks, because every sequence is cut by "
            "time. Label a second sequence, and they are used, too"
        )


def _most_seen(runs: Sequence[range], marks: Sequence[bool]) -> int:
    """Returns how many frames may be seen so that a sequence can be cut by time."""
    contexts = range(SEEN, LEAST_SEEN - 1, -1)
    return next((context for context in contexts if _cuts(runs, marks, 2 * context)), SEEN)


def _cuts(runs: Sequence[range], marks: Sequence[bool], frames: int) -> range:
    """Returns where a sequence may be cut: before is a clip with a mask, behind one whose last frame has one."""
    earliest, latest = len(marks) + 1, -1
    for run in runs:
        marked = [place for place in run if marks[place]]
        if marked and len(run) >= frames:
            earliest = min(earliest, max(run.start + frames, marked[0] + 1))
            latest = max(latest, marked[-1] + 1 - frames)
    return range(earliest, latest + 1)


def _begin(found: Findings, name: str, end: int) -> int:
    """Returns where the part begins that is scored on, so that a clip without a gap fits before ``end``."""
    runs = [range(run.start, min(run.stop, end)) for run in found.runs(name)]
    stops = [run.stop for run in runs if len(run) >= found.frames]
    return min(end - round(SHARE * end), max(stops, default=end) - found.frames)


def _existing(
    raw: Path, names: Sequence[str], folders: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Returns the splits that a data set comes with: by the names of its sequences, or by lists in text files."""
    lower = {name: folders.get(name, name).lower() for name in names}
    by_name = {name: SPLIT_NAMES[word] for name, word in lower.items() if word in SPLIT_NAMES}
    if set(by_name.values()) - {"train"} and (len(by_name) < len(names) or "train" in by_name.values()):
        return _held_out(by_name), "folders are named so"
    best: tuple[dict[str, str], str] = {}, ""
    for folder in sorted({path.parent for path in files_below(raw, ".txt") if path.stem.lower() in SPLIT_NAMES}):
        listed, origin = _listed(folder, names)
        if len(listed) > len(best[0]) and 0 < len(_members(listed, "val", "test")) < len(names):
            best = listed, f"as {(folder / origin).relative_to(raw).as_posix()} lists them"
    return _held_out(best[0]), best[1]


def _held_out(splits: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns the names of each split but `train`."""
    return {split: members for split in ("val", "test") if (members := _members(splits, split))}


def _members(splits: Mapping[str, str], *wanted: str) -> tuple[str, ...]:
    return tuple(name for name, split in splits.items() if split in wanted)


def _listed(folder: Path, names: Sequence[str]) -> tuple[dict[str, str], str]:
    """Returns the split of each name that the lists of a folder have, and the list that holds some out.

    Nothing where a name stands in two of them: they are of single frames then.
    """
    found: dict[str, str] = {}
    origin = ""
    for path in sorted(folder.glob("*.txt"), key=lambda path: SPLIT_NAMES.get(path.stem.lower(), "") != "val"):
        split = SPLIT_NAMES.get(path.stem.lower())
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if split else []
        mine = {name for line in lines if (name := _name_in(line.strip(), names))}
        if any(found.get(name, split) != split for name in mine):
            return {}, ""
        found |= {name: str(split) for name in names if name in mine}
        origin = origin or (path.name if mine and split != "train" else "")
    return found, origin


def _name_in(line: str, names: Collection[str]) -> str | None:
    """Returns the name of a sequence in a line: all of it, or a part of a path, less an ending or a number."""
    if line in names:
        return line
    for word in line.split():
        for part in PurePosixPath(word).parts:
            stem = PurePosixPath(part).stem
            for name in (part, stem, re.sub(r"[-_][A-Za-z]?\d+$", "", stem)):
                if name in names:
                    return name
    return None
