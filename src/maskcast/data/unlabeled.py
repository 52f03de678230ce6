"""Training data without labels for encoders: the frames of a clip store, or images of any size.

Legend: H height, W width, C = 3 channels (RGB); all images are uint8.
"""

import multiprocessing
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from maskcast.data.archives.unpack import is_archive, unpack
from maskcast.data.clip_store.frame_index import FrameIndex
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.frame_names import same_stem_warning
from maskcast.data.images import IMAGE_SUFFIXES, read_image
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.forking import joined_thread_pool
from maskcast.labels import natural_sort_key
from maskcast.locks import exclusive_lock
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.resources import num_cpus

TRAINING_CLIPS = (("train", "labelled"), ("unlabeled", "unlabelled"))  # split and kind of the clips to learn from
T = TypeVar("T")
MAX_THREADS = 8  # maximum number of threads that decode images


class Frames(ABC):
    """Frames, accessed by number."""

    threads = 1
    """How many may read at once, where reading takes long."""

    def each(self, make: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
        """Returns ``make(number)`` for each number, computed by ``threads`` threads, which end with the call.

        A pool that is kept would lose its threads in a fork, and then wait for them forever. A forked worker has
        one processor, and uses no threads.
        """
        if self.threads == 1 or multiprocessing.parent_process() is not None:
            return list(map(make, numbers))
        with joined_thread_pool(self.threads, "views") as pool:
            return list(pool.map(make, numbers))

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of frames."""

    @abstractmethod
    def frame(self, index: int) -> np.ndarray:
        """Returns a frame, (H, W, C)."""

    def near(self, index: int, distance: int, random: np.random.Generator) -> np.ndarray:
        """Returns a frame of the same video at most ``distance`` frames away; for an image, the image itself."""
        return self.frame(index)

    def pair(self, index: int, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns two frames of a clip, ``distance`` apart, (H, W, C) each; the first is ``index`` if possible.

        Raises:
            MaskcastError: if these are images, or the clip is too short.
        """
        raise MaskcastError("images have no next frame; give a clip store, or choose another method")


class ClipFrames(Frames):
    """The frames of a store's labelled training clips and unlabelled clips; labels are not used."""

    def __init__(self, store: ClipStore) -> None:
        self.store = store
        self.clips = store.where(lambda group: (group.split, group.kind) in TRAINING_CLIPS and group.has_frames)
        if not self.clips:
            raise MaskcastError(
                f"{store.root}: no clip of split train or unlabeled has frames; "
                f"it has {store.holds()}: prepare some"
            )
        self._index = FrameIndex(self.clips)

    def __len__(self) -> int:
        return len(self._index)

    def frame(self, index: int) -> np.ndarray:
        """Returns a frame, (H, W, C)."""
        return self.near(index, 0, np.random.default_rng(0))

    def near(self, index: int, distance: int, random: np.random.Generator) -> np.ndarray:
        """Returns a frame of the same clip at most ``distance`` frames away."""
        k, t = self._index.at(index)
        clip = self.clips[k]
        if distance:
            t = int(random.integers(max(0, t - distance), min(clip.num_frames, t + distance + 1)))
        return self.store.frames(clip)[t]

    def pair(self, index: int, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns two frames of a clip, ``distance`` apart (see ``Frames.pair``)."""
        k, t = self._index.at(index)
        clip = self.clips[k]
        if clip.num_frames <= distance:
            raise MaskcastError(
                f"{self.store.root}: clip {clip.id} has {pluralize(clip.num_frames, 'frame')}, and none is "
                f"{distance} later than another; lower pretrain_encoder.method.distance"
            )
        t = min(t, clip.num_frames - 1 - distance)
        frames = self.store.frames(clip)
        return frames[t], frames[t + distance]


class ImageFrames(Frames):
    """The images of a folder and its subfolders; of a detection set, all except the validation images."""

    def __init__(self, folder: Path) -> None:
        parts = ("images/train", "unlabeled") if (folder / "dataset.json").is_file() else ("",)
        roots = [folder / part for part in parts]
        self.threads = min(MAX_THREADS, num_cpus())
        self.paths = sorted(
            (path for root in roots for path in list_files(root, *IMAGE_SUFFIXES)),
            key=lambda path: natural_sort_key(path.relative_to(folder).as_posix()),
        )
        if duplicates := same_stem_warning(self.paths):
            say(f"{folder}: {duplicates}, and both are used for training; remove masks and duplicates")
        if not self.paths:
            kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
            raise MaskcastError(
                f"{folder}: contains no clip store and no images ({kinds}); give the folder with them"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def frame(self, index: int) -> np.ndarray:
        """Returns an image, (H, W, C)."""
        return read_image(self.paths[index])


def open_frames(path: Path, scratch: Path) -> Frames:
    """Opens a clip store, a folder of images, or a zip, tar or squashfs file with one of these.

    Args:
        path: source of the frames.
        scratch: folder into which an archive is unpacked once; it may contain another unpacked archive.

    Raises:
        MaskcastError: if there are no frames, or an archive is damaged or cannot be unpacked.
    """
    if path.is_file():
        if not is_archive(path):
            raise MaskcastError(f"{path}: not a zip, tar or squashfs file; give one of these or a folder")
        unpacked = scratch / f"unpacked-{digest_tree(path)}"
        scratch.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(scratch / "unpacked", blocking=True):  # the processes of one training share the folder
            if not unpacked.exists():
                for other in scratch.glob("unpacked-*"):
                    shutil.rmtree(other)
                unpack(path, unpacked)
        path = unpacked
    return ClipFrames(ClipStore(path)) if (path / "index.json").is_file() else ImageFrames(path)
