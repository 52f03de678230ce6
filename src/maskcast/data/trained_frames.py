"""The frames that a model was trained on: its folder keeps their hashes, so that scores on them are recognised.

trained_frames.npy   uint64 (N,), ascending: the start of the sha256 of the pixels of every eighth frame of each
                     clip, or of each image file of a detection set

So a forecaster, which learns from masks, need not read all frames: of a clip that was prepared in the same way, or
that has eight consecutive frames of a training clip, some frame is in there.

Frames of a single colour, which many videos contain, and clips without frames are not in there. Models of before,
and those that learn without labels, have no such file.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.shared_frames import frame_hashes, short_hashes
from maskcast.digest import sha256_of
from maskcast.labels import LOOKBACK
from maskcast.reading import parsing, pluralize

NAME = "trained_frames.npy"
REMEDY = "remove it, or train again"
EVERY = 8  # frames of a training clip


def hashes_of_trained(store: ClipStore, clips: Iterable[Clip]) -> list[np.ndarray]:
    """Returns for each clip the hashes (N,) of every eighth frame."""
    return [_hashes_of(store, clip, slice(None, None, EVERY)) for clip in clips]


def hashes_of_scored(store: ClipStore, clips: Iterable[Clip]) -> list[np.ndarray]:
    """Returns for each clip the hashes (N,) of all frames but those of the split before.

    The context of a forecast counts: of a short horizon alone, no frame may be among every eighth of the training.
    """
    found = []
    for clip in clips:
        begin = -(-store.meta[LOOKBACK] // clip.meta["stride"]) if LOOKBACK in store.meta else 0
        found.append(_hashes_of(store, clip, slice(begin, None)))
    return found


def hashes_of_files(paths: Iterable[Path]) -> list[np.ndarray]:
    """Returns for each image file its hash (1,)."""
    return [short_hashes([bytes.fromhex(sha256_of(path))]) for path in paths]


def write_trained_frames(folder: Path, hashes: Sequence[np.ndarray], start: Path | None = None) -> None:
    """Writes the hashes of the frames that a model was trained on, and that the one it started from was, if any.

    Args:
        folder: of the model.
        hashes: hashes (N,) of the frames of each clip of its training.
        start: folder of the model that it started from.
    """
    before_N = None if start is None else _read(start)
    all_N = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes, *([] if before_N is None else [before_N])]))
    if all_N.size:
        np.save(folder / NAME, all_N, allow_pickle=False)


def count_trained(folder: Path, hashes: Callable[[], Sequence[np.ndarray]]) -> tuple[int, int]:
    """Returns of how many clips a model was trained on frames, and their number; zeros if it does not know.

    Args:
        folder: of the model.
        hashes: computes the hashes (N,) of the frames of each clip.

    Raises:
        MaskcastError: if the model's list of frames is damaged.
    """
    trained_N = _read(folder)
    if trained_N is None:
        return 0, 0
    clips = hashes()
    clip_of_M = np.repeat(np.arange(len(clips)), [len(hashes_N) for hashes_N in clips])
    is_trained_M = np.isin(np.concatenate([np.empty(0, np.uint64), *clips]), trained_N)  # sorts trained_N, so once
    return len(np.unique(clip_of_M[is_trained_M])), len(clips)


def trained_note(folder: Path, model: str, hashes: Callable[[], Sequence[np.ndarray]], noun: str = "clip") -> str:
    """Returns a line about scored clips that a model was trained on; empty if there are none.

    Args:
        folder: of the model.
        model: how the line calls it.
        hashes: computes the hashes (N,) of the scored frames of each clip.
        noun: "clip" or "image".

    Raises:
        MaskcastError: see `count_trained`.
    """
    trained, scored = count_trained(folder, hashes)
    if not trained:
        return ""
    return (
        f"{model} was trained on {trained} of {pluralize(scored, f'scored {noun}')}, so its scores are too high; "
        f"score {noun}s that it has not seen, or train it anew on the present splits"
    )


def _hashes_of(store: ClipStore, clip: Clip, frames: slice) -> np.ndarray:
    return short_hashes(frame_hashes(store.frames(clip)[frames]) if clip.has_frames else [])


def _read(folder: Path) -> np.ndarray | None:
    path = folder / NAME
    if not path.is_file():
        return None
    with parsing(path, "a list of hashes of frames", REMEDY):
        hashes_N = np.load(path, allow_pickle=False)
        if hashes_N.dtype != np.uint64 or hashes_N.ndim != 1:
            raise ValueError(f"holds {hashes_N.dtype} {hashes_N.shape}, not uint64 (N,)")
    return hashes_N
