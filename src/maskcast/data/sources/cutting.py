"""Cuts sequences into windows, which become clips; no window spans a gap in the frame numbers."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from maskcast.data.mirror_swaps import MirrorSwapsParam, check_swaps_named, mirror_swaps_meta
from maskcast.data.sources.base import Listing, RawClip, SourceConfig
from maskcast.data.sources.classes import Classes, read_classes
from maskcast.data.sources.load_window import ReadLabels, load_window
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.data.sources.splits import Splits, assign_splits, listed_names, time_parts
from maskcast.data.video_files.one_pass import VideoWindow
from maskcast.errors import MaskcastError
from maskcast.labels import KIND_OF_SPLIT, OBJECTS, LabelMap, single_map
from maskcast.reading import pluralize

WINDOW_STEP = 22  # default distance of windows


class WindowedSource(SourceConfig):
    """Params of a layout whose sequences are cut into windows."""

    classes: Classes = ("background", "foreground")
    """Class names by id, the background first; or the path of a classes file in the raw folder, which may also
    give classes attributes."""
    mirror_swaps: MirrorSwapsParam | None = None
    """Pairs of classes that trade places when a frame is flipped horizontally, e.g. `[[left thumb, right thumb],
    [left palm, right palm]]`; a single pair may be written as two names. Training flips half of the samples and
    swaps the classes of these pairs. [] declares that none swap, which also ends the warning about names with a
    side."""
    frames: int = Field(default=22, ge=1)
    """Number of frames of a clip."""
    stride: int = Field(default=1, ge=1)
    """Distance between consecutive frames of a clip, in frames of the sequence."""
    fps: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Frames per second that are taken of a video, by time: those nearest to 0, 1 / fps, 2 / fps, ... seconds.
    `stride` and `window_step` then count these; labels of other frames are not used. null takes every frame."""
    window_step: int = Field(default=WINDOW_STEP, ge=1)
    """Distance between the first frames of consecutive clips, in frames of the sequence."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Lists the keys that layouts share after a layout's own, as help shows them."""
        for name in [name for name in cls.model_fields if name not in cls.__annotations__]:
            cls.model_fields[name] = cls.model_fields.pop(name)

    @property
    def span(self) -> int:
        """Number of frames of the sequence from a window's first to its last."""
        return span(self.frames, self.stride)

    @model_validator(mode="after")
    def _known_swaps(self) -> Self:
        if not isinstance(self.classes, str):
            check_swaps_named(self.mirror_swaps, self.classes[1:])
        return self


class LabelledSource(WindowedSource):
    """Params of a layout whose sequences have labels, and are assigned to splits."""

    splits_come_from: ClassVar[str] = "source.splits (names or shares)"
    labelled_window_step: int | None = Field(default=None, ge=1)
    """A smaller distance for clips that have a labelled frame, where few frames are labelled: each is then in
    several clips, at another place of each. Clips without one stay `window_step` apart. null: all do."""
    things: bool = False
    """Whether every class is a countable object, such as a car, and none is stuff, such as road. An object then
    has one class in all frames, so the generated masks of a clip can be made consistent
    (`generate_masks.consistent_frames`). That removes specks, and with them small objects that the masker is
    unsure of."""
    split_by: Literal["sequence", "time"] = "sequence"
    """`sequence`: a sequence belongs to one split; `time`: each labelled sequence that `splits` does not name is
    cut into one part per split, in the order `train`, `val`, `test`, `unlabeled`."""
    splits: Splits = Field(default={"val": 0.2})
    """Share or names of the labelled sequences of each split; the rest is `train`. A sequence without labels is
    `unlabeled`, unless it is named. With `split_by: time` a share is of each sequence, and named sequences stay
    whole: `{val: 0.2, hidden: [street-0, street-2]}`."""

    def empty_listing(self, raw: Path, *, instances: bool) -> Listing:
        """Returns a listing without clips, with the map of classes and, for ``instances``, that of objects.

        Raises:
            MaskcastError: if the classes file cannot be read.
        """
        classes, attributes = read_classes(raw, self.classes)
        maps = single_map(classes, things=self.things or instances, attributes=attributes)
        objects = [LabelMap(OBJECTS, classes, "instances")] if instances else []
        return Listing([], (*maps, *objects), meta=mirror_swaps_meta(self.mirror_swaps, classes[1:]))


def span(frames: int, stride: int) -> int:
    """Returns how many video frames a window of ``frames`` frames covers, ``stride`` apart."""
    return (frames - 1) * stride + 1


def windows_in(num_frames: int, frames: int, stride: int, window_step: int) -> list[range]:
    """Returns the frame numbers of each window that fits into a video.

    Args:
        num_frames: number of frames of the video.
        frames: number of frames of a window.
        stride: distance between consecutive frames of a window, in frames of the video.
        window_step: distance between the first frames of consecutive windows, in frames of the video.
    """
    covered = span(frames, stride)
    return [range(start, start + covered, stride) for start in range(0, num_frames - covered + 1, window_step)]


def sequence_splits(
    names: Sequence[str], labelled: Collection[str], params: LabelledSource, seed: int
) -> dict[str, str | Splits]:
    """Returns the split of each sequence, or the shares of a sequence that is cut by time.

    A sequence without labels is `unlabeled`, unless it is listed; shares are of the others.

    Args:
        names: names of the sequences.
        labelled: those with labels.
        params: the params that define the splits.
        seed: see `assign_splits`.

    Raises:
        MaskcastError: see `assign_splits`.
    """
    if params.split_by == "sequence":
        return {**assign_splits(names, params.splits, seed, labelled)}
    whole: Splits = {split: members for split, members in params.splits.items() if isinstance(members, tuple)}
    cut = {*labelled} - listed_names(params.splits, names)
    return {
        name: params.splits if name in cut else split
        for name, split in assign_splits(names, whole, seed, labelled).items()
    }


def unused_labels(splits: Mapping[str, str | Splits], labelled: Collection[str]) -> Iterator[str]:
    """Yields a note if the labels of sequences are not used, because of their split."""
    if unused := [name for name, split in splits.items() if split == "unlabeled" and name in labelled]:
        yield (
            f"labels of {pluralize(len(unused), 'sequence')} are not used, because source.splits puts "
            f"{'it' if len(unused) == 1 else 'them'} into unlabeled ({unused[0]})"
        )


def is_labelled(split: str | Splits) -> bool:
    """Whether a sequence of this split, or one that is cut by time, needs labels."""
    return not isinstance(split, str) or KIND_OF_SPLIT[split] == "labelled"


def clips(
    name: str,
    sequence: SequenceFiles,
    split: str | Splits,
    params: WindowedSource,
    listing: Listing,
    labels: Mapping[int, ReadLabels] | None = None,
    *,
    lookback: int = 0,
    clip_name: str | None = None,
) -> Iterator[RawClip]:
    """Yields the clips of a sequence, one per window; records parts that are too short in ``listing.skipped``.

    Args:
        name: name of the sequence.
        sequence: its frames and masks.
        split: the split of the sequence, or the shares of a cut by time.
        params: the params that define the cuts.
        listing: where left-out parts are recorded; its maps say whether clips have objects.
        labels: for frames with labels, by their index, what reads these.
        lookback: with a split by time, how many frames at the start of a window may be from the split before; not
            for unlabelled windows, which would be trained on frames of `val` or `test`.
        clip_name: what the ids of its clips begin with; the name of the sequence by default.

    Raises:
        MaskcastError: if frames are taken by time, and are images.
    """
    timing, taken_runs = sequence.timing, sequence.runs
    taken: Sequence[int] = range(len(sequence.masks))
    if params.fps is not None:
        if timing is None:
            raise MaskcastError(
                f"{name}: its frames are images, which state no times; set source.stride in place of source.fps"
            )
        try:
            taken = timing.take(params.fps)
        except MaskcastError as error:
            listing.skipped.append((name, str(error)))
            return
        taken_runs = [range(len(taken))]
    rate = {} if timing is None else timing.clip_rate(params.fps, params.stride)
    instances = any(one.name == OBJECTS for one in listing.maps)
    own_names = _own_names(sequence.frames.images)
    whole = range(len(taken))
    parts = {split: whole} if isinstance(split, str) else time_parts(whole, split)
    for part_split, part in parts.items():
        first = max(0, part.start - (lookback if part_split != "unlabeled" else 0))
        runs = (range(max(one.start, first), min(one.stop, part.stop)) for one in taken_runs)
        step = params.labelled_window_step if isinstance(params, LabelledSource) else None
        kind = KIND_OF_SPLIT[part_split]
        known = labels if labels and kind == "labelled" else {}
        ranges = [window for run in runs for window in _cut(run, params, step, taken, known)]
        if not ranges:
            what = f"has {pluralize(len(part), 'frame')}" + (f" for {part_split}" if split != part_split else "")
            what += f" in {len(sequence.runs)} parts ({sequence.gap})" if sequence.gap else ""
            listing.skipped.append((name, f"{what}, a window needs {params.span}"))
        for window in ranges:
            frames = taken[window.start : window.stop : window.step]
            video = None if timing is None else VideoWindow(timing.path, frames, timing.index)
            meta = {"video": name, "start": window.start, "stride": params.stride} | rate
            if timing is not None:  # with fps, start and stride count the frames that were taken
                meta["video_frames"] = list(frames)
            if own_names and own_names != [name]:  # a photograph's name is that of its clip
                meta["frame_names"] = [own_names[i] for i in frames]
            clip_id = f"{clip_name or name}_{window.start:05d}"
            own_labels = [known.get(i) for i in frames] if kind == "labelled" else None
            load = partial(load_window, sequence.frames.part(frames), own_labels, instances=instances)
            yield RawClip(clip_id, part_split, kind, load, meta, resizes=True, video=video)


def _own_names(images: Sequence[Path]) -> Sequence[str]:
    """Returns the names of a sequence's images, without ending; none if they count 0, 1, ... or are not unique."""
    names = [path.stem for path in images]
    counted = all(name.isdecimal() and int(name) == number for number, name in enumerate(names))
    return () if counted or len(set(names)) < len(names) else names


def _cut(
    run: range, params: WindowedSource, labelled_step: int | None, taken: Sequence[int], labelled: Collection[int]
) -> list[range]:
    """Returns the windows of a run: those ``window_step`` apart, and those with labels that are closer together.

    Args:
        run: places in ``taken``.
        params: the params that define the cuts.
        labelled_step: distance of windows with labels; None adds none.
        taken: the frames of the sequence that clips may have.
        labelled: those with labels.
    """

    def cut(step: int) -> dict[int, range]:
        windows = windows_in(len(run), params.frames, params.stride, step)
        return {window.start: run[window.start : window.stop : window.step] for window in windows}

    found = cut(params.window_step)
    if labelled_step is not None and labelled:
        near = cut(labelled_step).items()
        found |= {start: window for start, window in near if any(taken[i] in labelled for i in window)}
    return [found[start] for start in sorted(found)]
