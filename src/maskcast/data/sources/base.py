"""What a raw layout is: a config that lists the clips of a folder without loading them.

A source module defines one `SourceConfig` subclass whose `layout` names it; `table.Source` is the union of them
all. `listing` is cheap and reads names and annotations only; each clip's pixels are read by its
`load`, in a worker process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maskcast.labels import LabelMap
from maskcast.params import Params


@dataclass(frozen=True)
class Arrays:
    """The pixels of a clip, all of one size; at least frames or masks.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB or None.
        masks: by the name of a map of the listing (T, H, W), of the values that its kind asks for.
        objects: by the name of a map of instances the class id of every instance id.
    """

    frames: np.ndarray | None
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    objects: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class RawClip:
    """One clip that a source found.

    Attributes:
        id: name of the clip, unique over the store.
        split: one of `maskcast.labels.SPLITS`.
        kind: one of `maskcast.labels.KINDS`.
        load: reads the pixels: `functools.partial` of a top-level function, so that it can be pickled. Raises
            `MaskcastError` naming the file when the clip cannot be read.
        meta: JSON that the store keeps with the clip.
        has_frames: False where it is known beforehand that the clip has masks alone.
    """

    id: str
    split: str
    kind: str
    load: Callable[[], Arrays]
    meta: dict[str, Any] = field(default_factory=dict)
    has_frames: bool = True


@dataclass
class Listing:
    """What a source found: the clips, the label maps that their masks are of and what it left out.

    Attributes:
        clips: the clips found, in the order of the store; of very many a sequence that makes each when asked for.
        maps: the label maps, each of a name of its own.
        skipped: (item, reason) of everything that looks like a clip but is left out.
        meta: JSON about the whole store, e.g. the camera.
        backgrounds: frames without masks that clips may be composed over; see `composing`. `meta["background"]` of
            a clip names the one that is seen behind it.
        notes: how the files were read, and what their owner should look at, a line each.
    """

    clips: Sequence[RawClip]
    maps: tuple[LabelMap, ...]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    backgrounds: list[RawClip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *clips: RawClip) -> None:
        """Adds clips to a listing that began with a list."""
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
            height: rows that the clips will be resized to, None to keep their own; a source that renders may
                render at this size.
            width: columns, likewise.
            seed: seed of whatever the source draws (a split, a simulation).

        Raises:
            MaskcastError: when the folder does not have this layout.
        """
        raise TypeError(f"{type(self).__name__} does not implement listing()")
