"""Imports labels of another tool into the clips that they belong to.

A frame that is not listed in the file has no label, which is not the same as background: losses and metrics ignore
its pixels. A frame that is listed without any region is background or unlabelled, as the user chooses.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from maskcast.data.archives.unpack import is_archive, unpack
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.labelling.collected_labels import CollectedLabels, FrameMatch
from maskcast.data.labelling.formats.base import Empty, ImportedFrame, LabelFormat
from maskcast.data.labelling.formats.class_names import ClassNames, UnknownClasses
from maskcast.data.labelling.formats.names import FRAME_RULE
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.data.labelling.video_frames import VideoFrames
from maskcast.data.shared_frames import TRAINING_SPLITS
from maskcast.errors import MaskcastError
from maskcast.reading import parsing, pluralize

DEFAULT_SPLIT = "train"  # of clips that had no labels
LISTED = 5  # maximum number of unmatched frames that are named


@dataclass
class ImportReport:
    """Summary of an import.

    Attributes:
        clips: number of clips with new labels.
        frames: number of frames that the file labels.
        repeated: how many more frames of clips have these labels, because clips of a video overlap.
        empty: how many of ``frames`` are listed without any region.
        unlabelled: number of frames that are listed without any region and stay unlabelled.
        without_area: number of frames whose annotations have no area, which stay unlabelled.
        ignored: number of frames in which no pixel has a label.
        lost: number of regions that have no pixel at the size of the clips.
        unnumbered: number of objects without a number.
        unmatched: names of frames that belong to no clip of the store.
        unknown_classes: warnings about label files that lack classes of the store.
        unused_renames: messages about renamed classes that no labelled frame has.
        followed: clips that had no labels and join the split of their video's labels, with this split.
        moved: clips without labels that leave ``unlabeled`` for the split of new labels of their video.
        trained: clips that are trained on, of a video with new labels of which some labels are scored.
    """

    clips: int = 0
    frames: int = 0
    repeated: int = 0
    empty: int = 0
    unlabelled: int = 0
    without_area: int = 0
    ignored: int = 0
    lost: int = 0
    unnumbered: int = 0
    unmatched: list[str] = field(default_factory=list)
    unknown_classes: list[str] = field(default_factory=list)
    unused_renames: list[str] = field(default_factory=list)
    followed: dict[str, str] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        repeated = f", and {self.repeated} more where clips overlap" if self.repeated else ""
        return f"labelled {pluralize(self.frames, 'frame')} of {pluralize(self.clips, 'clip')}{repeated}"

    def lines(self, clips: Path) -> Iterator[str]:
        """Yields what a user should know beside the summary, a line each.

        Args:
            clips: the store that was imported into.
        """
        yield from self.unknown_classes
        yield from self.unused_renames
        if self.unmatched:
            frames = pluralize(len(self.unmatched), "frame", "matches", "match")
            yield f"{frames} no clip in {clips} ({FRAME_RULE}):"
            yield from (f"  {name}" for name in self.unmatched[:LISTED])
        if len(self.unmatched) > LISTED:
            yield f"  ... and {len(self.unmatched) - LISTED} more"
        for count, meaning in (
            (self.empty, "treated as background (--empty background)"),
            (self.unlabelled, "left without labels (--empty unlabelled)"),
        ):
            if count:
                yield f"{pluralize(count, 'frame', 'is', 'are')} listed without annotation: {meaning}"
        if self.without_area:
            frames = pluralize(self.without_area, "frame", "has", "have")
            yield f"{frames} only annotations without area, which were left out: left without labels"
        if self.ignored:
            yield f"{pluralize(self.ignored, 'frame', 'is', 'are')} wholly `ignore`: left without labels"
        if self.lost:
            yield (
                f"warning: {pluralize(self.lost, 'region', 'has', 'have')} no pixel at the size of the clips: "
                "left out (in a map of classes without a label there); prepare larger clips (height, width) to "
                "keep small objects"
            )
        if self.unnumbered:
            yield (
                f"warning: {pluralize(self.unnumbered, 'region', 'has', 'have')} no object number: each is a new "
                "object in every frame; number the objects (docs/labels.md says where)"
            )
        for split in sorted(set(self.followed.values())):
            joining = [clip for clip, followed in self.followed.items() if followed == split]
            yield (
                f"{pluralize(len(joining), 'clip', 'joins', 'join')} the split {split}, because other labels of "
                f"the same video are in it, e.g. {joining[0]!r}"
            )
        if self.moved:
            yield (
                f"{pluralize(len(self.moved), 'clip')} without labels left the split unlabeled, because labels of "
                f"the same video are scored and nothing may be trained on it, e.g. {self.moved[0]!r}"
            )
        if self.trained:
            yield (
                f"warning: {pluralize(len(self.trained), 'training clip')} and labels that are scored are from "
                f"the same video, e.g. {self.trained[0]!r}: import all clips of a video into one split"
            )


def import_labels(
    root: Path,
    form: LabelFormat,
    path: Path,
    store: ClipStore,
    *,
    rename: Mapping[str, str],
    empty: Empty,
    split: str | None,
    first: int | None = None,
) -> ImportReport:
    """Writes a store with the clips of another store and the labels of a file.

    A frame is labelled in all clips of its video that contain it. Labels of another size are resized.

    Args:
        root: folder to write.
        form: format of the file.
        path: file, folder or archive of labels.
        store: the clips; the labels go to its chosen map.
        rename: class name in the store by class name in the file.
        empty: what a frame is if it is listed without any region.
        split: split of clips that had no labels before; None for that of the labels of their video, if they are
            all of one, else ``train``.
        first: number of a clip's first frame, for an ambiguous format; None to find it from the file.

    Raises:
        MaskcastError: the file is damaged or contradicts the store, or none of its frames is in the store.
    """
    if store.label_map.kind == "alpha":
        raise MaskcastError(
            f"{store.root}: map {store.label_map.name!r} is an alpha matte, which no label format supports"
        )
    names, report = ClassNames(store.classes, form, rename, "--rename '{}={}'"), ImportReport()
    unknown = UnknownClasses(names)
    videos, new = VideoFrames(store), CollectedLabels(store, names, form.duplicate_remedy)
    with _unpacked(path) as opened, parsing(path, f"labels of {form.name}", "export them again"):
        try:
            if form.has_ambiguous_start:
                lengths = {clip.id: clip.num_frames for clip in store.clips}
                form.detect_first_frame(opened, lengths, videos.lengths(), videos.own_numbers(), first)
            for frame in form.read(opened):
                match = _match_frame(frame, store, videos)
                if match is None:
                    report.unmatched.append(frame.where)
                elif frame.is_unlabelled(empty):
                    report.without_area += frame.left_out
                    report.unlabelled += not frame.left_out
                elif not new.add(frame, match):
                    report.ignored += 1
                else:
                    report.frames += 1
                    report.empty += frame.empty
                    unknown.add(frame)
            new.check_hidden()
        except MaskcastError as error:  # for an archive it names the temporary folder
            raise MaskcastError(str(error).replace(str(opened), str(path))) from None
        report.unknown_classes = list(unknown.warnings(opened if opened.is_dir() else opened.parent))
        report.unmatched = [where.replace(str(opened), str(path)) for where in report.unmatched]
    if not new.clips:
        if left := report.without_area + report.ignored:
            raise MaskcastError(
                f"{path}: {pluralize(left, 'frame', 'has', 'have')} only annotations without area, or `ignore`, "
                "and no other is of a clip; draw polygons, boxes or masks"
            )
        raise _no_frames_error(path, store, report.unmatched)
    if form.covers_all_frames and empty == "background":
        filled = new.fill_background()
        report.frames, report.empty = report.frames + filled, report.empty + filled
    report.lost, report.unnumbered = new.lost, new.unnumbered
    report.unused_renames = list(names.unused_renames())
    report.repeated = new.num_frames - report.frames
    report.clips = len(new.clips)
    labels = {clip_id: clip.finish() for clip_id, clip in new.clips.items()}
    write_relabelled(root, store, labels, _new_splits(store, labels, split, report))
    return report


def _no_frames_error(path: Path, store: ClipStore, unmatched: Sequence[str]) -> MaskcastError:
    """Returns the error of a file that labels no frame of a store; ``unmatched`` are the frames that it names."""
    found, example = "lists no labelled frame", ""
    if unmatched:
        found, example = f"has {pluralize(len(unmatched), 'frame')}, none", f", first {unmatched[0]}"
    return MaskcastError(f"{path}: {found} of a clip in {store.root}{example}; names must be {FRAME_RULE}")


def _new_splits(
    store: ClipStore, labels: Mapping[str, NewLabels], split: str | None, report: ImportReport
) -> dict[str, str]:
    """Returns the split of each clip that changes it, so that a video stays together, as ``prepare_clips`` does.

    A clip that had no labels joins the given split, else that of its video's labelled clips, if they are all of
    one. If all labels of a video are scored, its unlabelled clips leave ``unlabeled``, which is trained on.
    """
    new = [store.get(clip_id) for clip_id in labels if store.get(clip_id).kind != "labelled"]
    parts: dict[str, list[Clip]] = {clip.video: [] for clip in new}  # all clips of the videos with new labels
    for clip in store.clips:
        if clip.video in parts:
            parts[clip.video].append(clip)
    splits: dict[str, str] = {}
    for clips in parts.values():
        known = {clip.split for clip in clips if clip.kind == "labelled"}
        joined = split or (known.pop() if len(known) == 1 else DEFAULT_SPLIT)
        added = {clip.id: joined for clip in clips if clip.kind != "labelled" and clip.id in labels}
        splits |= added
        if joined != (split or DEFAULT_SPLIT):
            report.followed |= added
        found = {added.get(clip.id, clip.split) for clip in clips if clip.kind == "labelled" or clip.id in added}
        if found <= set(TRAINING_SPLITS):
            continue
        trained = [clip for clip in clips if added.get(clip.id, clip.split) in TRAINING_SPLITS]
        if len(found) > 1:
            report.trained += [clip.id for clip in trained]
        else:
            report.moved += [clip.id for clip in trained]
            splits |= {clip.id: joined for clip in trained}
    return splits


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yields the path; for an archive, a temporary folder with its content, which exists during the block.

    Raises:
        MaskcastError: the path does not exist, or the file is empty.
    """
    if not path.exists():
        raise MaskcastError(f"{path}: file or folder not found; give the export of the labelling tool")
    if path.is_file() and not path.stat().st_size:
        raise MaskcastError(f"{path}: is empty; export the labels again")
    if not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="maskcast-labels-") as scratch:
        unpack(path, Path(scratch) / path.stem)
        yield Path(scratch) / path.stem


def _match_frame(frame: ImportedFrame, store: ClipStore, videos: VideoFrames) -> FrameMatch | None:
    """Returns the places of a frame, or None if the store has no such clip or video frame.

    Raises:
        MaskcastError: the clip is shorter.
    """
    for name in frame.names if not frame.ordered else ():
        if (shown := videos.named(name)) is not None:
            return FrameMatch(shown) if shown else None
    for clip_id, t in frame.frame_ids:
        if clip_id in store:
            length = store.get(clip_id).num_frames
            if not 0 <= t < length:
                raise MaskcastError(
                    f"{frame.where}: clip {clip_id!r} of {store.root} has frames 0 to {length - 1}, not {t}; use "
                    "the store that the labels were exported from"
                )
            named = [(clip_id, t)]
            return FrameMatch(named, [place for place in videos.same(clip_id, t) if place not in named])
    for video, number in frame.frame_ids:
        if places := videos.places(video, number):
            return FrameMatch(places)
    return None
