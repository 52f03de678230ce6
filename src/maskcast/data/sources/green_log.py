"""Green-screen clips that were composed by another tool: `out_log.json` lists frames, labels and clip starts.

SvenGroen/Video_Segmentation (src/Vid2Img_preprocess.py) writes this layout. Frames and labels are JPEG; a label
is white on the foreground. JPEG leaves grey around edges, so labels are thresholded at mid-grey.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from maskcast.data.images import check_mask_size, read_frames
from maskcast.data.sources.base import Arrays, Listing, RawClip
from maskcast.data.sources.splits import assign_splits
from maskcast.labels import LabelMap
from maskcast.reading import parsing, read_json

LOG = "out_log.json"
SPLIT_OF_FOLDER = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def list_logged_clips(
    raw: Path, logs: Sequence[Path], label_map: LabelMap, splits: Mapping[str, float | tuple[str, ...]], seed: int
) -> Listing:
    """Lists the clips of log files.

    Args:
        raw: the raw folder.
        logs: the log files; one in a folder `train`, `val` or `test` is for that split.
        label_map: label map of the labels.
        splits: shares or names of the clips of each split, for logs in other folders.
        seed: of the random split.

    Returns:
        The listing. If there are logs of train and test only, the clips of test become `val`, as in that tool.

    Raises:
        MaskcastError: on a broken log.
    """
    listing = Listing([], (label_map,))
    found = {log: SPLIT_OF_FOLDER.get(log.parent.name.lower()) for log in logs}
    if "val" not in found.values():
        found = {log: "val" if split == "test" else split for log, split in found.items()}
    for log, split in found.items():
        prefix = "_".join(log.parent.relative_to(raw).parts) or "clip"
        clips = {f"{prefix}_{number:05d}": files for number, files in enumerate(_clips_of(log))}
        split_of = assign_splits(list(clips), dict(splits), seed) if split is None else dict.fromkeys(clips, split)
        if split is None:
            listing.notes.append(
                f"{log}: names no videos, so clips of one may be in two splits; keep a log for each split, in "
                "folders train and val"
            )
        for clip_id, (images, labels) in clips.items():
            load = partial(load_logged, images, labels, label_map.name)
            listing.add(RawClip(clip_id, split_of[clip_id], "labelled", load, {"log": log.name}))
    return listing


def load_logged(images: Sequence[Path], labels: Sequence[Path], name: str) -> Arrays:
    """Reads the frames and labels of a clip.

    Raises:
        LabelError: on labels whose size differs from their frame's.
        MaskcastError: on unreadable files.
    """
    frames, grey = read_frames(images), read_frames(labels)[..., 1]
    check_mask_size(labels[0], grey.shape[1:], images[0], frames.shape[1:3])
    return Arrays(frames, {name: (grey >= 128).astype(np.uint8)})


def _clips_of(log: Path) -> list[tuple[list[Path], list[Path]]]:
    """Returns the frame files and label files of each clip of a log."""
    remedy = 'it must hold {"inputs": [[path, 1 where a clip begins], ...], "labels": [...]}'
    content = read_json(log, "log of clips", remedy)
    with parsing(log, "a log of clips", remedy):
        images, labels = ([(str(path), bool(flag)) for path, flag in content[key]] for key in ("inputs", "labels"))
        if not images or [flag for _, flag in images] != [flag for _, flag in labels]:
            raise ValueError("inputs and labels differ in number, or in where clips begin")
    clips: list[tuple[list[Path], list[Path]]] = []
    for (image, begins), (label, _) in zip(images, labels, strict=True):
        if begins or not clips:
            clips.append(([], []))
        clips[-1][0].append(_resolve(log, image))
        clips[-1][1].append(_resolve(log, label))
    return clips


def _resolve(log: Path, logged_path: str) -> Path:
    """Returns a file's present path: logs hold paths of another machine, so only folder and file name are used."""
    parts = PurePosixPath(logged_path.replace("\\", "/")).parts[-2:]
    return log.parent.joinpath(*(part for part in parts if part != ".."))
