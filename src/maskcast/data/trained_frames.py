"""The frames that a model was trained on: its folder keeps their hashes, so that scores on them are recognised.

trained_frames.npy   uint64 (N,), ascending: the start of the sha256 of each frame's pixels, or of each image file
                     of a detection set

Frames of a single colour, which many videos contain, and clips without frames are not in there. Models of before,
and those that learn without labels, have no such file.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import ALL, Clip, ClipStore
from maskcast.data.shared_frames import frame_hashes, short_hashes
from maskcast.digest import sha256_of
from maskcast.labels import LOOKBACK
from maskcast.reading import parsing, pluralize

NAME = "trained_frames.npy"
REMEDY = "remove it, or train again"


def hashes_of_clips(store: ClipStore, clips: Iterable[Clip], frames: slice = ALL) -> np.ndarray:
    """Returns the hashes (N,) of some frames of each clip."""
    found = [short_hashes(frame_hashes(store.frames(clip)[frames])) for clip in clips if clip.has_frames]
    return np.concatenate([np.empty(0, np.uint64), *found])


def hashes_of_scored(store: ClipStore, clips: Iterable[Clip], frames: slice = ALL) -> np.ndarray:
    """Returns the hashes (N,) of the frames of each clip that are scored, without those of the split before."""
    found = []
    for clip in clips:
        begin = -(-store.meta[LOOKBACK] // clip.meta["stride"]) if LOOKBACK in store.meta else 0
        found.append(hashes_of_clips(store, [clip], slice(max(begin, frames.start or 0), frames.stop)))
    return np.concatenate([np.empty(0, np.uint64), *found])


def hashes_of_files(paths: Iterable[Path]) -> np.ndarray:
    """Returns the hashes (N,) of image files."""
    return short_hashes(bytes.fromhex(sha256_of(path)) for path in paths)


def write_trained_frames(folder: Path, hashes_N: np.ndarray, start: Path | None = None) -> None:
    """Writes the hashes of the frames that a model was trained on, and that the one it started from was, if any.

    Args:
        folder: of the model.
        hashes_N: hashes of the frames of its training.
        start: folder of the model that it started from.
    """
    before_N = None if start is None else _read(start)
    all_N = np.unique(hashes_N if before_N is None else np.concatenate([hashes_N, before_N]))
    if all_N.size:
        np.save(folder / NAME, all_N, allow_pickle=False)


def count_trained(folder: Path, hashes: Callable[[], np.ndarray]) -> tuple[int, int]:
    """Returns how many of some frames a model was trained on, and their number; zeros if the model does not know.

    Args:
        folder: of the model.
        hashes: computes the hashes of the frames.

    Raises:
        MaskcastError: if the model's list of frames is damaged.
    """
    trained_N = _read(folder)
    if trained_N is None:
        return 0, 0
    hashes_N = hashes()
    return int(np.isin(hashes_N, trained_N).sum()), hashes_N.size


def trained_note(folder: Path, model: str, hashes: Callable[[], np.ndarray], noun: str = "frame") -> str:
    """Returns a line about scored frames that a model was trained on; empty if there are none.

    Args:
        folder: of the model.
        model: how the line calls it.
        hashes: computes the hashes of the scored frames.
        noun: "frame" or "image".

    Raises:
        MaskcastError: see `count_trained`.
    """
    trained, scored = count_trained(folder, hashes)
    if not trained:
        return ""
    return (
        f"{trained} of {pluralize(scored, f'scored {noun}')} are ones that {model} was trained on, so its scores "
        f"are too high; score {noun}s that it has not seen, or train it anew on the present splits"
    )


def _read(folder: Path) -> np.ndarray | None:
    path = folder / NAME
    if not path.is_file():
        return None
    with parsing(path, "a list of hashes of frames", REMEDY):
        hashes_N = np.load(path, allow_pickle=False)
        if hashes_N.dtype != np.uint64 or hashes_N.ndim != 1:
            raise ValueError(f"holds {hashes_N.dtype} {hashes_N.shape}, not uint64 (N,)")
    return hashes_N
