"""Finds videos by address: video files, folders of frames, folders of these, and storage addresses."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from maskcast.data.footage import Footage
from maskcast.data.frame_names import by_stem, consecutive_runs, find_same_number, frame_files, is_image
from maskcast.data.images import IMAGE_SUFFIXES, image_files
from maskcast.data.inspection.photographs import photographs_reason
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.data.sources.videos import unsupported_files
from maskcast.data.video_files.frames import VIDEO_SUFFIXES
from maskcast.data.video_files.timing import Timing, read_timing
from maskcast.digest import digest_files, sha256_of
from maskcast.errors import MaskcastError
from maskcast.files import file_stem, is_junk, tree_files, walk_folders
from maskcast.labels import natural_sort_key
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.registry.loading import SAMPLES, is_sample
from maskcast.serving.records import FORECAST, SEGMENTED
from maskcast.storage.store import fetch, local_path

FETCHED = ".fetched"


@dataclass(frozen=True)
class Video:
    """A video file, a folder of images in the numeric order of their names, or a single image."""

    name: str
    path: Path

    def count(self) -> int:
        """Returns its number of frames.

        Raises:
            MaskcastError: the file is not a video, or is truncated.
        """
        return self._footage().count()

    def timing(self) -> Timing | None:
        """Returns when its frames are shown; None if it is not a video file.

        Raises:
            MaskcastError: the file is not a video, or is truncated.
        """
        return None if self._has_images else read_timing(self.path)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Returns frames (T, H, W, 3) uint8 at ascending indices from 0.

        Raises:
            MaskcastError: a frame is damaged, or frames differ in size.
        """
        part = self._footage().part(indices)
        if part.images and len(runs := consecutive_runs([file.stem for file in part.images])) > 1:
            before = part.images[runs[0][-1]].name
            say(f"{self.path}: numbers are missing after {before}; the frames are treated as evenly spaced")
        return part.read(None)[0]

    @property
    def _has_images(self) -> bool:
        return self.path.is_dir() or is_image(self.path)

    def _footage(self) -> Footage:
        return Footage(frame_files(self.path)) if self._has_images else Footage(video=self.path)


@dataclass(frozen=True)
class Frames(Video):
    """A video in memory.

    Args:
        frames: (T, H, W, 3) uint8.
    """

    frames: np.ndarray

    def count(self) -> int:
        """Returns its number of frames."""
        return len(self.frames)

    def timing(self) -> None:
        """Returns None: it is unknown when the frames are shown."""

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Returns frames (T, H, W, 3) uint8 at some indices."""
        return self.frames[list(indices)]


def find_video(address: str, output: Path) -> Video:
    """Returns the video at an address; see ``find_videos``.

    Raises:
        MaskcastError: as in ``find_videos``, or there are several.
    """
    videos = find_videos([address], output)
    if videos[1:]:
        raise MaskcastError(f"{address}: contains {len(videos)} videos; give one of them, e.g. {videos[0].path}")
    return videos[0]


def find_videos(addresses: Sequence[str], output: Path) -> list[Video]:
    """Returns the videos at some addresses, which must have different names.

    Args:
        addresses: a path or ``file://`` of a video, of a folder of frames or of a folder of videos; ``s3://``; or
            ``sample``.
        output: folder that is not searched, like outputs of `forecast` and `segment`. Videos of a bucket are
            downloaded once to ``FETCHED`` in it, and removed there if they are no longer in the bucket.

    Raises:
        MaskcastError: an address has no video or cannot be reached, or two videos have the same name.
    """
    by_name: dict[str, Video] = {}
    for address in addresses:
        path = SAMPLES / "sample.mp4" if is_sample(address) else local_path(address)
        if path is None:
            path = _fetched(address.rstrip("/"), output)
        elif not path.exists():
            raise MaskcastError(f"{address}: no such video or folder; fix the path")
        elif not path.is_file() and not path.is_dir():
            raise MaskcastError(f"{address}: is a pipe or a device; save the video to a file, and give its path")
        videos = _videos_in(path, output.resolve())
        if not videos:
            kinds = ", ".join(sorted(VIDEO_SUFFIXES))
            raise MaskcastError(
                f"{address}: no video found; give a file ({kinds}), an image, a folder of images, or a folder of "
                "these"
            )
        for video in videos:
            if video.name in (".", ".."):  # of `...mp4`
                raise MaskcastError(
                    f"{video.path}: {video.name!r} is not a valid name of an output; rename the video"
                )
            if video.name in by_name:
                raise MaskcastError(
                    f"{video.path}: same name as {by_name[video.name].path}; rename one of them, or run them "
                    "separately with another --output"
                )
            by_name[video.name] = video
    return list(by_name.values())


def photographs_in(path: Path) -> list[Path]:
    """Returns the photographs at a path, sorted by name; none if it has a video or frames of one.

    Raises:
        MaskcastError: two images have the same name.
    """
    if is_image(path):
        return [path]
    if not path.is_dir():
        return []
    files = list(by_stem(image_files(path)).values())
    pair = find_same_number([file.stem for file in files])
    if pair is not None and pair[1].startswith(pair[0]):  # a frame and its mask, not photographs
        return []
    sequence = SequenceFiles(Footage(files), [None] * len(files), [range(len(files))])
    reason = photographs_reason({path.name: sequence})
    if reason:
        say(f"{path}: treated as photographs, because {reason}")
    return files if reason else []


def video_digest(path: Path) -> str:
    """Returns a hash (32 hex digits) of a video or of photographs; a folder's other files do not change it."""
    return digest_files(path, image_files(path)) if path.is_dir() else sha256_of(path)[:32]


def _fetched(address: str, output: Path) -> Path:
    """Downloads the current files at an address into a folder of its own, and returns the folder."""
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    path = output / FETCHED / key / PurePosixPath(address).name
    files = set(fetch(address, path))
    for old in [old for old in tree_files(path) if old not in files]:
        old.unlink()
    return path


def _videos_in(root: Path, output: Path) -> list[Video]:
    if root.is_file():
        known = root.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
        return [Video(file_stem(root.stem), root)] if known else []
    videos, others, outputs = [], list[str](), set[Path]()
    for folder, names in walk_folders(root):
        if folder.parent in outputs or (folder != root and _is_output(folder, output)):
            outputs.add(folder)
            continue
        inside = folder.relative_to(root)
        videos += [Video(file_stem((inside / path.stem).as_posix()), path) for path in _video_files(folder)]
        if folder != root and image_files(folder):
            videos.append(Video(file_stem(inside.as_posix()), folder))
        others += [name for name in names if Path(name).suffix.lower() not in IMAGE_SUFFIXES]
    images = image_files(root)
    if images and not _video_files(root):
        if videos:
            say(
                f"{root}: its {pluralize(len(images), 'image', 'is', 'are')} taken, and "
                f"{pluralize(len(videos), 'video')} in its subfolders left out, e.g. {videos[0].path}; give the "
                "subfolders to take these"
            )
        return [Video(file_stem(root.resolve().name), root)]
    if images:
        say(
            f"{root}: {pluralize(len(images), 'image')} beside video files: skipped; move videos or images to a "
            "subfolder"
        )
    for ending, reason in unsupported_files(others):
        say(f"{root}/**/{ending}: skipped, {reason}")
    return sorted(videos, key=lambda video: natural_sort_key(video.name))


def _is_output(folder: Path, output: Path) -> bool:
    """Whether a folder is an output of a command, not a folder of videos."""
    return folder.resolve() == output or any((folder / name).is_file() for name in (FORECAST, SEGMENTED))


def _video_files(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.is_file() and not is_junk(path.name))
    return [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
