"""The base of raw layouts: a config that lists the clips of a folder without loading them.

A source module defines one `SourceConfig` subclass, named by its `layout`; `table.Source` is the union of all.
`listing` is cheap: it reads only names and annotations. `load` reads the pixels of one clip, in a worker process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maskcast.data.video_files.one_pass import VideoWindow
from maskcast.labels import LabelMap
from maskcast.params import Params


@dataclass(frozen=True)
class Arrays:
    """The pixels of a clip, all of one size but for resized frames; frames, masks or both.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB or None.
        masks: arrays (T, H, W) by the name of a label map of the listing; the map's kind defines their values.
        objects: for each label map of kind instances, the class id of each instance id.
        source_size: (height, width) that frames had before they were resized, which masks still have; None if
            frames were not resized.
        mask_size: (height, width) of the first mask that was resized to ``source_size``; None if none was.
    """

    frames: np.ndarray | None
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    objects: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    source_size: tuple[int, int] | None = None
    mask_size: tuple[int, int] | None = None

    def mask_note(self, clip_id: str) -> str:
        """Returns a line about masks that were resized to their frames; empty without any."""
        if self.mask_size is None:
            return ""
        return (
            f"masks of clip {clip_id!r} are {self.mask_size[1]}x{self.mask_size[0]} (width x height), a size "
            "other than its frames' and of the same aspect ratio: masks are resized to their frames by nearest "
            "neighbour"
        )


@dataclass(frozen=True)
class RawClip:
    """One clip that a source found.

    Attributes:
        id: name of the clip, unique over the store.
        split: one of `maskcast.labels.SPLITS`.
        kind: one of `maskcast.labels.KINDS`.
        load: reads the pixels. It is a `functools.partial` of a top-level function, so that it can be pickled.
            Raises `MaskcastError` naming the file if the clip cannot be read. With `video`, it takes the argument
            `read_video`, which reads as `read_resized_video` does, and calls it once with these frames.
        meta: JSON that the store keeps with the clip.
        has_frames: False if it is known beforehand that the clip has only masks.
        resizes: whether `load` takes the argument `size`: (height, width) to resize each frame to as it is read.
        video: the frames of a video file that it has; clips that follow each other are then decoded in one pass.
    """

    id: str
    split: str
    kind: str
    load: Callable[..., Arrays]
    meta: dict[str, Any] = field(default_factory=dict)
    has_frames: bool = True
    resizes: bool = False
    video: VideoWindow | None = None

    def read(self, size: tuple[int, int] | None, **options: Any) -> Arrays:
        """Reads the pixels.

        Args:
            size: (height, width) to resize frames to, if `load` does so; None keeps their size.
            options: further arguments of `load`.
        """
        return self.load(**options, **({"size": size} if self.resizes else {}))


@dataclass
class Listing:
    """What a source found: the clips, their label maps, and what it left out.

    Attributes:
        clips: in the order of the store; if there are very many, a sequence that creates each clip on access.
        maps: the label maps of the masks, with different names.
        skipped: (item, reason) of everything that looks like a clip but is left out.
        meta: JSON about the whole store, e.g. the camera, or `mirror_swaps` (see `data.mirror_swaps`).
        backgrounds: frames without masks that clips may be composed over; see `compositing`. The
            `meta["background"]` of a clip names the background that it is composed over.
        notes: how the files were read, and what the owner of the data should check, one line each. They are kept
            in the store, so that new words change its digest.
        warnings: likewise, but only said.
    """

    clips: Sequence[RawClip]
    maps: tuple[LabelMap, ...]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    backgrounds: list[RawClip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, *clips: RawClip) -> None:
        """Adds clips; only for a listing whose `clips` is a list."""
        assert isinstance(self.clips, list)
        self.clips += clips


class SourceConfig(Params):
    """Base of the params of a raw layout; a subclass adds `layout: Literal["..."]` and implements `listing`."""

    splits_come_from: ClassVar[str] = "source"
    """What decides the split of a clip, for errors."""

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the clips of a raw folder.

        Args:
            raw: folder that `fetch_dataset` wrote.
            height: rows that the clips will be resized to, or None to keep their size; a source that renders may
                render at this size.
            width: columns that the clips will be resized to, or None.
            seed: for all that the source draws (a split, a simulation).

        Raises:
            MaskcastError: if the folder does not have this layout.
        """
        raise TypeError(f"{type(self).__name__} does not implement listing()")
