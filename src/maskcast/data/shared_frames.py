"""Finds frames that two splits share: scores on them would be of training data, or of what chose the model.

Shapes: T frames, H rows, W columns, C = 3 channels (RGB), N hashes.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

LEARNT, SCORED = ("train", "unlabeled"), ("val", "test", "hidden")


def frame_hashes(frames_THWC: np.ndarray) -> list[bytes]:
    """Returns a hash of the pixels of each frame, except frames of a single colour, which many videos contain."""
    flat = (np.ascontiguousarray(frame_HWC).reshape(-1, frame_HWC.shape[-1]) for frame_HWC in frames_THWC)
    return [hashlib.sha256(pixels.data).digest() for pixels in flat if (pixels != pixels[0]).any()]


@dataclass(frozen=True)
class _Clip:
    name: str
    video: str
    hashes_N: np.ndarray


class SharedFrames:
    """Collects hashes of the frames of each split (8 bytes per frame) and reports what two splits share.

    A video that is split by time may be in both splits; it is not compared with itself.
    """

    def __init__(self) -> None:
        self._clips: dict[str, list[_Clip]] = defaultdict(list)

    def add(self, split: str, name: str, video: str, hashes: Sequence[bytes]) -> None:
        """Adds a clip or an image.

        Args:
            split: its split.
            name: its name in messages.
            video: name of the video that it comes from.
            hashes: hashes of its frames, of at least 8 bytes each.
        """
        short_N = np.array([int.from_bytes(one[:8], "big") for one in hashes], np.uint64)
        self._clips[split].append(_Clip(name, video, short_N))

    def warnings(self, noun: str) -> Iterator[str]:
        """Yields a line for each pair of splits that share frames.

        Args:
            noun: "frame" or "image".
        """
        for scored, used in [*product(SCORED, LEARNT), *product(SCORED[1:], ["val"])]:
            pairs = self._shared(used, scored)
            if not pairs:
                continue
            why = "the model is chosen on what is scored" if used == "val" else "what is scored on is learnt from"
            total = sum(len(clip.hashes_N) for clip in self._clips[scored])
            one, other = pairs[0]
            yield (
                f"warning: {len(pairs)} of {total} {noun}s of split {scored!r} are in {used!r}, too, e.g. of "
                f"{one!r} and {other!r}: {why}; take them out of one of the splits"
            )

    def _shared(self, used: str, scored: str) -> list[tuple[str, str]]:
        """Returns for each frame that two splits share the names of the clips that contain it."""
        known, asked = (self._clips.get(split, []) for split in (used, scored))
        if not known or not asked:
            return []
        known_N, asked_N = (np.concatenate([clip.hashes_N for clip in clips]) for clips in (known, asked))
        both = np.intersect1d(known_N, asked_N)
        if not both.size:
            return []
        having: dict[int, list[_Clip]] = defaultdict(list)
        for clip in known:
            for one in clip.hashes_N[np.isin(clip.hashes_N, both)].tolist():
                having[one].append(clip)
        pairs = []
        for clip in asked:
            for one in clip.hashes_N[np.isin(clip.hashes_N, both)].tolist():
                other = next((each.name for each in having[one] if each.video != clip.video), None)
                if other is not None:
                    pairs.append((clip.name, other))
        return pairs
