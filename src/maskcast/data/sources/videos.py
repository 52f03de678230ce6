"""Plain video files without labels, cut into windows: clips of the split `unlabeled`."""

from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from maskcast.data.images import window_starts
from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.data.video import count_frames, read_video
from maskcast.errors import MaskcastError
from maskcast.junk import is_junk
from maskcast.labels import id_key, single_map

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})


class VideosSource(SourceConfig):
    """Every video file below the folder."""

    splits_come_from: ClassVar[str] = (
        "source.layout to frame_folders, which takes videos with masks: here none has any"
    )
    layout: Literal["videos"] = "videos"
    classes: tuple[str, ...] = Field(default=("background", "foreground"), min_length=2, max_length=255)
    """Class names of the masker that will label the clips."""
    frames: int = Field(default=22, ge=1)
    """Frames of a clip."""
    stride: int = Field(default=1, ge=1)
    """Distance of a clip's frames in the video."""
    window_step: int = Field(default=22, ge=1)
    """Distance of consecutive clips' first frames in the video."""

    def list(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the windows of all videos (see `SourceConfig.list`)."""
        listing = Listing([], single_map(self.classes))
        names = {
            path.relative_to(raw).as_posix(): path
            for path in raw.rglob("*")
            if path.suffix.lower() in VIDEO_SUFFIXES and not any(map(is_junk, path.relative_to(raw).parts))
        }
        if not names:
            raise MaskcastError(
                f"{raw}: holds no video files ({', '.join(sorted(VIDEO_SUFFIXES))}); mend the path"
            )
        for name in sorted(names, key=id_key):
            try:
                num_frames = count_frames(names[name])
            except MaskcastError as error:
                listing.skipped.append((name, str(error)))
                continue
            starts = window_starts(num_frames, self.frames, self.stride, self.window_step)
            if not starts:
                needed = (self.frames - 1) * self.stride + 1
                listing.skipped.append((name, f"has {num_frames} frames, a window needs {needed}"))
            stem = name.rpartition(".")[0].replace("/", "_")
            for start in starts:
                window = range(start, start + (self.frames - 1) * self.stride + 1, self.stride)
                load = partial(load_window, names[name], window)
                meta = {"video": name, "start": start, "stride": self.stride}
                listing.clips.append(RawClip(f"{stem}_{start:05d}", "unlabeled", "unlabelled", load, meta))
        return listing


def load_window(path: Path, window: range) -> Arrays:
    """Reads the frames of one window; there are no masks."""
    return Arrays(read_video(path, window))
