"""Notes on scores that are too high, because of what the scored models were trained on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.trained_frames import trained_note
from maskcast.labels import LOOKBACK
from maskcast.progress import say


def lookback_note(store: ClipStore, split: str) -> str:
    """Returns a line about clips that begin with frames of the split before; empty if the store has none."""
    if LOOKBACK not in store.meta or split not in ("val", "test"):
        return ""
    return (
        f"clips of {split} may begin with frames of the split before, e.g. of train (source.lookback), so scores "
        "of a masker on them are too high; prepare clips with lookback: 0 to score one"
    )


def warn_of_trained(
    folder: Path, model: str, hashes: Callable[[], Sequence[np.ndarray]], noun: str = "clip"
) -> list[str]:
    """Warns if a model was trained on scored clips (`trained_note`); returns the same as a sentence of a page."""
    return _warn(trained_note(folder, model, hashes, noun))


def warn_of_lookback(store: ClipStore, split: str) -> list[str]:
    """Warns of clips that begin with frames of the split before, and returns the same as a sentence of a page."""
    return _warn(lookback_note(store, split))


def sentence(note: str) -> str:
    """Returns a line as a sentence of a page; empty if the line is."""
    return f"{note[0].upper()}{note[1:]}." if note else ""


def _warn(note: str) -> list[str]:
    if not note:
        return []
    say(f"warning: {note}")
    return [sentence(note)]
