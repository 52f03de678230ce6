"""Finds frames that two splits share: scores on them would be of training data, or of what chose the model.

Shapes: T frames, H rows, W columns, C = 3 channels (RGB), P pixels, N hashes.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

TRAINING_SPLITS, EVALUATION_SPLITS = ("train", "unlabeled"), ("val", "test", "hidden")


def frame_hashes(frames_THWC: np.ndarray) -> list[bytes]:
    """Returns a hash of the pixels of each frame, except frames of a single colour, which many videos contain."""
    flat = (np.ascontiguousarray(frame_HWC).reshape(-1, frame_HWC.shape[-1]) for frame_HWC in frames_THWC)
    return [hashlib.sha256(pixels.data).digest() for pixels in flat if not _is_single_colour(pixels)]


def short_hashes(hashes: Iterable[bytes]) -> np.ndarray:
    """Returns the first 8 bytes of each hash, (N,) uint64."""
    return np.array([int.from_bytes(frame_hash[:8], "big") for frame_hash in hashes], np.uint64)


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
        self._clips[split].append(_Clip(name, video, short_hashes(hashes)))

    def warnings(self, noun: str) -> Iterator[str]:
        """Yields a line for each pair of splits that share frames.

        Args:
            noun: "frame" or "image".
        """
        for eval_split, other_split in [
            *product(EVALUATION_SPLITS, TRAINING_SPLITS),
            *product(EVALUATION_SPLITS[1:], ["val"]),
        ]:
            pairs = self._shared(other_split, eval_split)
            if not pairs:
                continue
            purpose = "selected" if other_split == "val" else "trained"
            total = sum(len(clip.hashes_N) for clip in self._clips[eval_split])
            eval_clip, other_clip = pairs[0]
            yield (
                f"warning: {len(pairs)} of {total} {noun}s of split {eval_split!r} are also in split "
                f"{other_split!r}, e.g. in {eval_clip!r} and {other_clip!r}: the model is {purpose} on what it is "
                "scored on; remove them from one of the splits"
            )

    def _shared(self, other_split: str, eval_split: str) -> list[tuple[str, str]]:
        """Returns for each frame that two splits share the names of the clips that contain it."""
        other_clips, eval_clips = (self._clips.get(split, []) for split in (other_split, eval_split))
        if not other_clips or not eval_clips:
            return []
        other_N, eval_N = (
            np.concatenate([clip.hashes_N for clip in clips]) for clips in (other_clips, eval_clips)
        )
        common = np.intersect1d(other_N, eval_N)
        if not common.size:
            return []
        clips_by_hash: dict[int, list[_Clip]] = defaultdict(list)  # at most two, of different videos
        for clip in other_clips:
            for frame_hash in clip.hashes_N[np.isin(clip.hashes_N, common)].tolist():
                known = clips_by_hash[frame_hash]
                if not known or (len(known) == 1 and known[0].video != clip.video):
                    known.append(clip)
        pairs = []
        for clip in eval_clips:
            for frame_hash in clip.hashes_N[np.isin(clip.hashes_N, common)].tolist():
                other = next((each.name for each in clips_by_hash[frame_hash] if each.video != clip.video), None)
                if other is not None:
                    pairs.append((clip.name, other))
        return pairs


def _is_single_colour(pixels_PC: np.ndarray) -> bool:
    """Whether all pixels are equal; the first ones settle it for most frames, as comparing all takes long."""
    return bool((pixels_PC[:64] == pixels_PC[0]).all() and (pixels_PC == pixels_PC[0]).all())
