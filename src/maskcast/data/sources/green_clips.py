"""The clips of a green-screen source: their parts, and how they are keyed and composed.

Shapes: T frames, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskcast.data.chroma import Key, check_key, key_with_matte
from maskcast.data.compositing import ALPHA, composite, ping_pong_indices
from maskcast.data.images import check_mask_size
from maskcast.data.sources.base import Arrays
from maskcast.data.sources.green_videos import Video
from maskcast.errors import MaskcastError
from maskcast.seed import rng


@dataclass(frozen=True)
class Background:
    """A window of a background video."""

    name: str
    video: Video
    window: range

    @property
    def id(self) -> str:
        """The id of the clip that holds this background."""
        return f"{self.name}_{self.window.start:05d}"


@dataclass(frozen=True)
class GreenClip:
    """All that a clip is made of.

    Attributes:
        video: video in front of a green screen.
        matte: video of the true opacity; None computes opacity by the key.
        window: frame numbers in the video.
        background: what the foreground is composed over.
        size: height and width of the clip.
        key: separates the green screen from the foreground.
        foreground: name of the label map of classes.
        noise: standard deviation of the added noise, on the 0-255 scale.
        seed: of the noise.
    """

    video: Video
    matte: Video | None
    window: range
    background: Background
    size: tuple[int, int]
    key: Key
    foreground: str
    noise: float
    seed: int


def split_backgrounds(
    videos: Mapping[str, Video],
    splits: Mapping[str, str],
    longest: int,
    stride: int,
    skipped: list[tuple[str, str]],
) -> dict[str, list[Background]]:
    """Returns the backgrounds of each split; a long video is cut into several, one after the other.

    Args:
        videos: background videos by name.
        splits: split of each video.
        longest: maximum number of frames of a background.
        stride: distance between consecutive frames, in frames of the video.
        skipped: receives (name, reason) for each video that cannot be read.
    """
    pools: dict[str, list[Background]] = {}
    for name, video in videos.items():
        try:
            frames = range(0, video.count(), stride)
        except MaskcastError as error:
            skipped.append((name, str(error)))
            continue
        for number in range(max(1, len(frames) // longest)):
            window = frames[number * longest : (number + 1) * longest]
            pools.setdefault(splits[name], []).append(Background(name, video, window))
    return pools


def choose_background(video: str, pool: Sequence[Background], clip_index: int, seed: int) -> Background:
    """Returns the background of a clip: all take turns, in an order that is drawn anew for each round.

    Args:
        video: name of the clip's video; a background with that name is skipped, unless it is the only one.
        pool: backgrounds of the clip's split.
        clip_index: index of the clip in its split.
        seed: of the orders.
    """
    others = [one for one in pool if one.name != video] or pool
    order = rng(seed, 2, clip_index // len(others)).permutation(len(others))
    return others[int(order[clip_index % len(others)])]


def load_clip(clip: GreenClip) -> Arrays:
    """Keys the frames of a clip and composes them over its background.

    Raises:
        LabelError: on a matte whose size differs from its frames'.
        MaskcastError: on unreadable files, or a key that does not fit the video.
    """
    frames = clip.video.read(clip.window, clip.size)
    if clip.matte is None:
        keyed = clip.key(frames)
        check_key(keyed, frames, clip.key.min_screen)
    else:
        check_mask_size(clip.matte, clip.matte.frame_size(), clip.video, clip.video.frame_size())
        keyed = key_with_matte(frames, clip.matte.read(clip.window, clip.size)[..., 1])
    background = load_background(clip.background, clip.size).frames
    assert background is not None
    behind = background[ping_pong_indices(0, len(frames), len(background))]
    composed = composite(keyed.foreground_THWC, keyed.alpha_THW, behind)
    if clip.noise:
        noise = rng(clip.seed).standard_normal(composed.shape, np.float32) * clip.noise
        composed = (composed + noise).round().clip(0, 255).astype(np.uint8)
    classes = (keyed.alpha_THW >= 128).astype(np.uint8)
    return Arrays(composed, {clip.foreground: classes, ALPHA: keyed.alpha_THW})


def load_background(background: Background, size: tuple[int, int]) -> Arrays:
    """Reads the frames of a background; there are no masks."""
    return Arrays(background.video.read(background.window, size))
