"""Plain video files without labels, cut into windows: clips of the split `unlabeled`."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from maskcast.data.frame_names import METADATA_SUFFIXES
from maskcast.data.mirror_swaps import mirror_swaps_meta
from maskcast.data.sources.base import Listing
from maskcast.data.sources.classes import Classes, read_classes
from maskcast.data.sources.cutting import WindowedSource, clips
from maskcast.data.sources.patterns import SequencePaths
from maskcast.data.sources.sequence_files import SequenceFiles, pair_files, rate_warnings
from maskcast.data.video_files.frames import VIDEO_SUFFIXES
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.labels import natural_sort_key, single_map
from maskcast.progress import track
from maskcast.reading import pluralize


def unsupported_files(names: Iterable[str]) -> list[tuple[str, str]]:
    """Returns for each ending that is no video's: the ending and the reason why its files are left out."""
    suffixes = Counter(PurePosixPath(name).suffix.lower() for name in names)
    return [
        (
            f"*{suffix}",
            f"{pluralize(count, 'file')} with other suffixes than {', '.join(sorted(VIDEO_SUFFIXES))}",
        )
        for suffix, count in sorted(suffixes.items())
        if suffix not in VIDEO_SUFFIXES | METADATA_SUFFIXES
    ]


class VideosSource(WindowedSource):
    """Every video file below the folder."""

    splits_come_from: ClassVar[str] = (
        "source.layout to frame_folders, which takes videos with masks: none of these has any"
    )
    layout: Literal["videos"] = "videos"
    classes: Classes = ("background", "foreground")
    """Class names, by id, of the masker that will mask the clips; or a classes file in the raw folder."""

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the windows of all videos (see `SourceConfig.listing`)."""
        classes, attributes = read_classes(raw, self.classes)
        maps = single_map(classes, attributes=attributes)
        listing = Listing([], maps, meta=mirror_swaps_meta(self.mirror_swaps, classes[1:]))
        files = {path.relative_to(raw).as_posix(): path for path in list_files(raw)}
        names = {name: path for name, path in files.items() if path.suffix.lower() in VIDEO_SUFFIXES}
        listing.skipped += unsupported_files(files)
        if not names:
            raise MaskcastError(f"{raw}: no video files found ({', '.join(sorted(VIDEO_SUFFIXES))}); fix the path")
        stems, footage = Counter(map(_stem, names)), dict[str, SequenceFiles]()
        for name in track(sorted(names, key=natural_sort_key), "counting frames"):
            try:
                video = SequencePaths(video=names[name])
                footage[name] = pair_files(video, None, raw, suffix="", offset=None, labelled=False)
            except MaskcastError as error:
                listing.skipped.append((name, str(error)))
                continue
            clip_name = _stem(name) if stems[_stem(name)] == 1 else name.replace("/", "_").replace(".", "_")
            listing.add(*clips(name, footage[name], "unlabeled", self, listing, clip_name=clip_name))
        listing.warnings += rate_warnings(footage, self.fps, {}) if self.frames > 1 else ()
        return listing


def _stem(name: str) -> str:
    return name.rpartition(".")[0].replace("/", "_")
