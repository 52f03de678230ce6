"""Videos in front of a green screen, composed over backgrounds; see `chroma` and `compositing`.

Shapes: T frames, H rows, W columns.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from maskcast.data.chroma import Key, SoftKey
from maskcast.data.compositing import ALPHA
from maskcast.data.sources.base import Listing, RawClip, SourceConfig
from maskcast.data.sources.cutting import span, windows_in
from maskcast.data.sources.green_clips import (
    GreenClip,
    choose_background,
    load_background,
    load_clip,
    split_backgrounds,
)
from maskcast.data.sources.green_log import LOG, list_logged_clips
from maskcast.data.sources.green_videos import RenderedKind, RenderedVideo, Video, find_videos, first_files
from maskcast.data.sources.splits import Splits, assign_splits, check_no_copies
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.labels import LabelMap
from maskcast.params import Params, RelativePath
from maskcast.reading import pluralize
from maskcast.seed import derive

LABELLED = ("train", "val", "test")


class FiguresParams(Params):
    """Videos and backgrounds that are drawn."""

    videos: int = Field(default=60, ge=2)
    """Number of videos of figures that move in front of a green screen."""
    backgrounds: int = Field(default=60, ge=2)
    """Number of backgrounds; half of them move."""


class GreenScreenSource(SourceConfig):
    """Videos in front of a green screen below one folder, backgrounds below another, cut into clips.

    Each clip is composed over one background. No video and no background is in two splits. A folder with
    `out_log.json` is read as the frames and labels that these name.
    """

    splits_come_from: ClassVar[str] = "source.splits (names or shares)"
    layout: Literal["green_screen"] = "green_screen"
    videos: RelativePath = "videos"
    """Folder of the green-screen videos: video files, or a folder of images for each."""
    backgrounds: RelativePath = "backgrounds"
    """Folder of the backgrounds: images, video files, or a folder of images for each video. A background with the
    name of a video is never put behind that video, as it may be an empty shot of the same place."""
    mattes: RelativePath | None = None
    """Folder of the true alpha matte of each video, with the same name and size: grey images or a video, 255 =
    opaque. null computes opacity by the key."""
    figures: FiguresParams | None = None
    """Renders videos and backgrounds instead of reading any: set `fetch_dataset.uri` to `synthetic`."""
    key: Key = SoftKey()
    """How the screen is separated from the foreground: `{name: soft}` or `{name: bounds}`."""
    foreground: str = "person"
    """Name of the foreground class, and of its label map: where opacity is at least a half."""
    seconds: float = Field(default=4.0, gt=0)
    """Length of a clip; the rest of a video after its last whole clip is left out."""
    rate: float = Field(default=24.0, gt=0)
    """Frames per second of folders of images, of figures, and of videos that do not state it."""
    stride: int = Field(default=1, ge=1)
    """Distance between consecutive frames of a clip, in frames of the video."""
    splits: Splits = Field(default={"val": 0.2})
    """Share or names of the videos of each split; the rest is `train`."""
    background_splits: Splits | None = None
    """Share or names of the backgrounds of each split; null takes the shares of `splits`."""
    compose: Literal["training", "once"] = "training"
    """`training`: each training step puts a clip over another background; `once`: each clip has one background."""
    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of camera noise added to composed frames, on the 0-255 scale."""

    @model_validator(mode="after")
    def _names_and_shares(self) -> Self:
        for split in (*self.splits, *(self.background_splits or ())):
            if split not in LABELLED:
                raise ValueError(
                    f"splits has {split!r}; every clip has labels, so allowed are {', '.join(LABELLED)}"
                )
        if self.foreground == ALPHA:
            raise ValueError(f"foreground must have another name than the map {ALPHA!r}")
        if self.background_splits is None and any(isinstance(part, tuple) for part in self.splits.values()):
            raise ValueError("splits name videos, so background_splits must say which backgrounds each split has")
        if self.figures is not None and self.mattes is not None:
            raise ValueError("figures are drawn, so there are no mattes to read; leave one of the two out")
        return self

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the clips of all videos (see `SourceConfig.listing`)."""
        maps = (
            LabelMap(self.foreground, ("background", self.foreground)),
            LabelMap(ALPHA, ("background", "foreground"), "alpha"),
        )
        if self.figures is None and (logs := [path for path in list_files(raw, ".json") if path.name == LOG]):
            return list_logged_clips(raw, logs, maps[0], self.splits, seed)
        if height is None or width is None:
            raise MaskcastError(f"{raw}: backgrounds differ in size; set height and width of prepare_clips")
        size = (height, width)
        listing = Listing([], maps)
        videos, backgrounds = self._videos(raw, size, seed)
        split_of, background_split_of = self._splits_of(videos, backgrounds, seed)
        mattes = None if self.mattes is None else find_videos(raw / self.mattes, self.rate)
        windows = {name: self._windows(name, video, mattes, listing) for name, video in videos.items()}
        longest = max(map(len, (window for clip_ranges in windows.values() for window in clip_ranges)), default=1)
        pools = split_backgrounds(backgrounds, background_split_of, longest, self.stride, listing.skipped)
        num_used: Counter[str] = Counter()
        over_own: dict[str, None] = {}  # videos over a background of their name
        for name, clip_ranges in windows.items():
            split = split_of[name]
            if clip_ranges and split not in pools:
                raise MaskcastError(
                    f"{raw / self.backgrounds}: no background of split {split!r}, which {name!r} is in; "
                    "add some, or give it a share in source.background_splits"
                )
            for window in clip_ranges:
                background = choose_background(name, pools[split], num_used[split], seed)
                num_used[split] += 1
                if background.name == name:
                    over_own.setdefault(name)
                clip = GreenClip(
                    video=videos[name],
                    matte=None if mattes is None else mattes[name],
                    window=window,
                    background=background,
                    size=size,
                    key=self.key,
                    foreground=self.foreground,
                    noise=self.noise,
                    seed=derive(seed, 3, len(listing.clips)),
                )
                meta = {"video": name, "start": window.start, "stride": self.stride, "background": background.id}
                clip_id = f"{name}_{window.start:05d}"
                listing.add(RawClip(clip_id, split, "labelled", partial(load_clip, clip), meta))
        if over_own:
            listing.warnings.append(
                f"{pluralize(len(over_own), 'video', 'is', 'are')} composed over the background of the same name, "
                f"the only one of its split, e.g. {next(iter(over_own))}: it may show the foreground; add others"
            )
        if self.compose == "training":
            listing.backgrounds += [
                RawClip(one.id, split, "unlabelled", partial(load_background, one, size), {"video": one.name})
                for split, pool in pools.items()
                for one in pool
            ]
        return listing

    def _splits_of(
        self, videos: Mapping[str, Video], backgrounds: Mapping[str, Video], seed: int
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Returns the split of each video and of each background."""
        shares = self.splits if self.background_splits is None else self.background_splits
        of_videos = assign_splits([*videos], self.splits, derive(seed))
        of_backgrounds = assign_splits([*backgrounds], shares, derive(seed, 1))
        check_no_copies(first_files(videos), of_videos)
        check_no_copies(first_files(backgrounds), of_backgrounds)
        return of_videos, of_backgrounds

    def _videos(self, raw: Path, size: tuple[int, int], seed: int) -> tuple[dict[str, Video], dict[str, Video]]:
        """Returns videos and backgrounds by name."""
        if self.figures is None:
            videos = find_videos(raw / self.videos, self.rate)
            return videos, find_videos(raw / self.backgrounds, self.rate, stills=True)
        drawn: list[dict[str, Video]] = []
        frames = span(self._length(self.rate), self.stride)
        counts: dict[RenderedKind, int] = {"figures": self.figures.videos, "background": self.figures.backgrounds}
        for part, (what, count) in enumerate(counts.items()):
            seeds = {f"{what}_{number:04d}": derive(seed, 4 + part, number) for number in range(count)}
            drawn.append({name: RenderedVideo(self.rate, what, one, frames, size) for name, one in seeds.items()})
        return drawn[0], drawn[1]

    def _length(self, rate: float) -> int:
        return max(1, round(self.seconds * rate / self.stride))

    def _windows(
        self, name: str, video: Video, mattes: Mapping[str, Video] | None, listing: Listing
    ) -> Sequence[range]:
        """Returns the frame numbers of each clip of a video; records videos that are left out."""
        try:
            total, length = video.count(), self._length(video.rate)
            if mattes is not None and name not in mattes:
                raise MaskcastError(
                    f"{self.mattes}: has no matte of this video; add it, or set source.mattes to null"
                )
            if mattes is not None and (given := mattes[name].count()) != total:
                raise MaskcastError(
                    f"{pluralize(given, 'matte')} of {pluralize(total, 'frame')}; export one for each"
                )
            windows = windows_in(total, length, self.stride, length * self.stride)
            if not windows:
                raise MaskcastError(
                    f"has {pluralize(total, 'frame')}, a clip of {self.seconds:g} s needs "
                    f"{span(length, self.stride)}; lower seconds"
                )
        except MaskcastError as error:
            listing.skipped.append((name, str(error)))
            return ()
        return windows
