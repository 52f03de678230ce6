"""Proposes sequences for training and validation."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from maskcast.data.inspection.clip_length import MASKS_ALONE, max_context, possible_cuts, set_clip_length
from maskcast.data.inspection.draw_splits import TEST_SHARE, VAL_SHARE, add_val, drawn_shares
from maskcast.data.inspection.families import CAMERA, SCENE
from maskcast.data.inspection.findings import MAX_CONTEXT, MIN_CONTEXT, Findings
from maskcast.data.inspection.official_splits import OfficialSplits
from maskcast.data.inspection.photographs import PROJECT_REASON
from maskcast.data.inspection.split_lists import split_of_name
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.errors import MaskcastError
from maskcast.labels import natural_sort_key
from maskcast.reading import pluralize

FEW_CLIPS = 20  # with at most this many labelled clips, windows overlap


def propose_splits(
    raw: Path,
    found: Findings,
    marked: Mapping[str, Sequence[bool]],
    footage: Mapping[str, SequenceFiles],
    files: Mapping[str, Collection[Path]],
) -> None:
    """Sets the clip length and the splits of labelled sequences; sequences without masks become unlabelled.

    Args:
        raw: folder of the data.
        found: the findings so far.
        marked: by sequence, whether each frame has a mask.
        footage: the sequences; their folders may be named after splits.
        files: label files, or folders of masks, by sequence; these may also be named after splits.

    Raises:
        MaskcastError: if the labelled sequences are too short for a forecast, or too few frames have masks.
    """
    official = OfficialSplits(raw, footage, files)
    scene_of = partial(_video_of, raw, footage)
    if found.photographs:
        named, origin, checks = official.of(sorted(found.labelled, key=natural_sort_key))
        found.warnings += checks
        _split_photographs(found, marked, named, origin, _unlabelled_splits(found, official), scene_of)
        return
    lengths = {name: max(map(len, found.runs(name))) for name in found.labelled or found.sequences}
    alone = next(iter(found.labelled)) if len(found.labelled) == 1 else None
    most = max_context(found.runs(alone), marked[alone]) if alone is not None else MAX_CONTEXT
    set_clip_length(raw, found, sorted(lengths.values(), reverse=True), apart=bool(found.labelled), most=most)
    if not found.labelled:
        _set_unlabelled(found)
        return
    named, origin, checks = official.of(sorted(lengths, key=natural_sort_key))
    found.warnings += checks
    for split in ("val", "test"):
        if alone is None and _drop_sparse_split(found, marked, named, split):
            lengths = {name: length for name, length in lengths.items() if name in found.labelled}
            named.pop(split)
    without = _unlabelled_splits(found, official)
    long_enough = sorted(
        (name for name, length in lengths.items() if length >= found.frames), key=natural_sort_key
    )
    if alone is not None:
        without = _hide_scenes(without, {"val": (alone,)}, scene_of)
        _split_by_time(raw, found, alone, marked, without)
    else:
        if not set(named.get("val", ())) & set(long_enough):
            named, origin = add_val(found, named, origin, {name: scene_of(name) for name in long_enough})
            if scene := next(filter(SCENE.fullmatch, str(found.source.get("images")).split("/")), None):
                found.warnings.append(
                    f"all sequences are in {scene}: if they show one scene, scores on val say little about others"
                )
            if all(map(CAMERA.fullmatch, long_enough)):
                found.warnings.append(
                    f"sequences are named after cameras ({', '.join(long_enough[:2])}): if they show one scene, "
                    "set split_by: time and splits: {val: 0.2}"
                )
        without = _hide_scenes(without, named, scene_of)
        found.source["splits"] = named | _to_list(without, marked)
        found.reasons["splits"] = f"val: {origin}; the rest is train"
        clips = sum(len(run) // found.frames for name in long_enough for run in found.runs(name))
        if clips < FEW_CLIPS:
            found.source["window_step"] = found.context
            found.reasons["window_step"] = f"windows overlap, because {clips} without overlap are few"
        found.reasons["splits"] += _unlabelled_text(without)


def _unlabelled_splits(found: Findings, official: OfficialSplits) -> dict[str, tuple[str, ...]]:
    """Returns the splits of sequences without masks; those of `test` become `hidden`: training skips them."""
    unlabelled = sorted(found.sequences.keys() - found.labelled.keys(), key=natural_sort_key)
    test: set[str] = set()
    if unlabelled:
        test |= {*official.of(sorted(found.sequences, key=natural_sort_key)).splits.get("test", ())}
    hidden = tuple(name for name in unlabelled if name in test)
    rest = tuple(name for name in unlabelled if name not in test)
    return {split: members for split, members in (("unlabeled", rest), ("hidden", hidden)) if members}


def _hide_scenes(
    without: Mapping[str, tuple[str, ...]], named: Mapping[str, Sequence[str]], scene_of: Callable[[str], str]
) -> dict[str, tuple[str, ...]]:
    """Returns the splits of sequences without masks; cameras of a scene that is scored on become `hidden`."""
    unlabelled = without.get("unlabeled", ())
    cameras = [name for name in unlabelled if "/" in name]
    scored = {scene_of(name) for members in named.values() for name in members} if cameras else set()
    hidden = {name for name in cameras if scene_of(name) in scored}
    splits = {
        "unlabeled": tuple(name for name in unlabelled if name not in hidden),
        "hidden": (*without.get("hidden", ()), *(name for name in unlabelled if name in hidden)),
    }
    return {split: members for split, members in splits.items() if members}


def _to_list(
    without: Mapping[str, tuple[str, ...]], marked: Mapping[str, Sequence[bool]]
) -> dict[str, tuple[str, ...]]:
    """Returns the splits that params must list: without masks, a sequence is `unlabeled` by default.

    So one that gets masks later joins the labelled ones.
    """
    kept = tuple(name for name in without.get("unlabeled", ()) if any(marked.get(name, ())))
    return {split: members for split, members in {**without, "unlabeled": kept}.items() if members}


def _unlabelled_text(without: Mapping[str, Sequence[str]]) -> str:
    """Returns a text about the sequences without masks."""
    unlabelled, hidden = (len(without.get(split, ())) for split in ("unlabeled", "hidden"))
    text = f"; unlabeled: the {unlabelled} without masks" if unlabelled else ""
    which = f"the {hidden} of test, without masks"
    if any("/" in name for name in without.get("hidden", ())):
        which = f"the {hidden} without masks of test, or of a scene in val or test"
    return text + (f"; hidden: {which}: not used for training" if hidden else "")


def _drop_sparse_split(
    found: Findings, marked: Mapping[str, Sequence[bool]], named: Mapping[str, tuple[str, ...]], split: str
) -> bool:
    """Treats a split as unlabelled, with a warning, if few of its frames have masks compared to other splits.

    Data sets for video object segmentation have only masks of first frames in `val` and `test`.
    """
    members, rest = named.get(split, ()), found.labelled.keys() - set(chain(*named.values()))
    few, usual = _labelled_share(marked, members), _labelled_share(marked, rest)
    if not members or len(rest) < 2 or few > usual / 2:
        return False
    found.warnings.append(
        f"the {pluralize(len(members), 'sequence')} of {split} count as "
        f"{'unlabelled' if split == 'val' else 'hidden'}: {few:.0%} of their frames have masks, "
        f"{usual:.0%} of others, so no forecast can be scored on them"
    )
    for name in members:
        del found.labelled[name]
    return True


def _labelled_share(marked: Mapping[str, Sequence[bool]], names: Collection[str]) -> float:
    """Returns the fraction of the frames of some sequences that have masks."""
    return sum(sum(marked[name]) for name in names) / max(1, sum(len(marked[name]) for name in names))


def _video_of(raw: Path, footage: Mapping[str, SequenceFiles], name: str) -> str:
    """Returns the video or scene of a sequence: the folder or the video that it is called after, else itself.

    `video01_00080` is called after `video01`. In names of several folders, such as of cameras in those of scenes,
    it is the first one that is called as a scene is, else the first one that is not called as a camera is, with
    those that are called as splits are.
    """
    parts = name.split("/")
    if len(parts) > 1:
        others = [part for part in parts if split_of_name(part) is None] or parts
        no_cameras = [part for part in others if not CAMERA.fullmatch(part)] or others
        scene = next(filter(SCENE.fullmatch, others), no_cameras[0])
        return "/".join([*(part for part in parts if part not in others), scene])
    first = footage[name].frames.files[0].relative_to(raw)
    above = (folder.name for folder in first.parents if re.match(re.escape(folder.name) + r"[-_. ]", name))
    prefix = re.match(rf"{SCENE.pattern}(?=[-_. ])", name, re.IGNORECASE)
    return next(filter(None, above), prefix[0] if prefix else name)


def _split_photographs(
    found: Findings,
    marked: Mapping[str, Sequence[bool]],
    named: dict[str, tuple[str, ...]],
    origin: str,
    without: Mapping[str, tuple[str, ...]],
    scene_of: Callable[[str], str],
) -> None:
    """Makes each image a clip and draws validation images; of images in folders, the last of each folder."""
    found.source |= {"frames": 1, "window_step": 1}
    found.reasons["frames"] = f"photographs: {found.photographs}"
    remedy = (
        "If they are frames of videos, number them in order and give the frames of a video one folder and one size"
    )
    if found.photographs == PROJECT_REASON:
        remedy = "A project of `maskcast new FOLDER` forecasts frames of videos"
    found.warnings.append(f"treated as photographs, because {found.photographs}: nothing is forecast. {remedy}")
    if not found.labelled:
        _set_unlabelled(found)
        return
    alone = all(length == 1 for length in found.sequences.values())
    are_videos = found.photographs == PROJECT_REASON and len(found.labelled) > 1
    if "val" not in named and not alone and ("test" in named or are_videos):
        names = sorted(found.labelled, key=natural_sort_key)
        named, origin = add_val(found, named, origin, dict(zip(names, names, strict=True)))
    splits: dict[str, Any] = dict(named)
    scored = dict(named)
    if "val" in named:
        found.reasons["splits"] = f"val: {origin}; the rest is train"
    elif alone:
        others = len(found.labelled) - len(named.get("test", ()))
        splits |= drawn_shares(others, named.get("test", ()))
        found.reasons["splits"] = f"val: {VAL_SHARE:.0%} of {others} labelled ones; the rest is train"
        if "test" in splits:
            found.reasons["splits"] += f"; test: {origin or f'another {TEST_SHARE:.0%}'}"
    else:
        found.source["split_by"] = "time"
        splits["val"] = VAL_SHARE
        scored["val"] = tuple(found.labelled)
        found.reasons["splits"] = f"val: the last {VAL_SHARE:.0%} of each labelled sequence; the rest is train"
    without = _hide_scenes(without, scored, scene_of)
    found.reasons["splits"] += _unlabelled_text(without)
    found.source["splits"] = splits | _to_list(without, marked)


def _set_unlabelled(found: Findings) -> None:
    found.source["splits"] = {"unlabeled": 1.0}
    found.reasons["splits"] = "there are no masks"
    found.trainable = False


def _split_by_time(
    raw: Path,
    found: Findings,
    name: str,
    marked: Mapping[str, Sequence[bool]],
    without: Mapping[str, tuple[str, ...]],
) -> None:
    """Splits a single sequence by time into a first part for training and a last part for validation.

    Raises:
        MaskcastError: if its masks are too close together for that.
    """
    length, marks = found.sequences[name], marked[name]
    cuts = possible_cuts(found.runs(name), marks, found.frames)
    if not cuts:
        need = 2 * MIN_CONTEXT
        raise MaskcastError(
            f"{raw}: only {name} has masks, of {pluralize(sum(marks), 'frame')} of {length}, too close "
            f"together: {need} frames to learn from and {need} to be scored on need some each; label more "
            f"frames of it, or a second sequence{MASKS_ALONE}"
        )
    begin = _val_start(found, name, length)
    if sum(marks[begin:]) < VAL_SHARE / 2 * sum(marks):  # the last part has hardly any masks
        begin = _val_start(found, name, len(marks) - [*reversed(marks)].index(True))
    begin = min(max(begin, cuts.start), cuts.stop - 1)
    share = round((length - begin) / length + 0.005, 2)
    found.source |= {"split_by": "time", "splits": {"val": share, **_to_list(without, marked)}}
    found.reasons["split_by"] = "only one sequence has masks: training uses its beginning, validation its end"
    found.reasons["splits"] = f"val: the last {share:.0%} of {length} frames; the rest is train"
    found.reasons["splits"] += _unlabelled_text(without)
    if all(marks) or sum(len(run) // found.frames for run in found.runs(name)) < FEW_CLIPS:
        found.source["window_step"] = max(1, found.context // 2)
        found.reasons["window_step"] = "windows overlap, because only one sequence has masks"
    found.warnings.append(
        "one labelled sequence: scores on its end say little about other videos; label a second one"
    )


def _val_start(found: Findings, name: str, end: int) -> int:
    """Returns the first frame for validation, chosen so that a clip without gaps fits before ``end``."""
    runs = [range(run.start, min(run.stop, end)) for run in found.runs(name)]
    stops = [run.stop for run in runs if len(run) >= found.frames]
    return min(end - round(VAL_SHARE * end), max(stops, default=end) - found.frames)
