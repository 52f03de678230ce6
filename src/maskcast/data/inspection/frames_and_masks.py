"""Sorts the images of a folder: which are frames, which are masks, and which are left out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from maskcast.data.inspection.findings import MIN_CONTEXT
from maskcast.data.inspection.image_groups import ImageGroup
from maskcast.data.inspection.image_selection import (
    cut_outs,
    derived_images,
    flat_pictures,
    frames_shown_by,
    is_visualisation,
    video_subsets,
)
from maskcast.data.inspection.label_kinds import LabelFiles
from maskcast.data.inspection.mask_selection import mask_like_frames, unreadable_masks
from maskcast.data.labelling.formats.coco_panoptic import numbers_segments
from maskcast.reading import pluralize


@dataclass(frozen=True)
class SortedImages:
    """The images of a folder by what they are.

    Attributes:
        frames: frames.
        masks: masks.
        derived: images made from frames or videos, each with the word in its path that says so.
        overlays: pictures of masks for people.
        segments: masks of COCO's panoptic form.
        unread: images that cannot be read.
        unreadable: masks of an unsupported form, each with the error; others of the same frames are readable.
        stills: too few images for a clip, beside videos: posters, thumbnails.
        blurred: images that are called masks, or look like coloured ones, but have too many colours, each with the
            path of the frames with its names.
        subsets: images that are a selection of a video's frames, each with all of these.
        cut_outs: images with what their alpha channel cuts out of frames, each with these.
    """

    frames: list[ImageGroup]
    masks: list[ImageGroup]
    derived: dict[ImageGroup, str]
    overlays: list[ImageGroup]
    segments: list[ImageGroup]
    unread: list[ImageGroup]
    unreadable: dict[ImageGroup, str]
    stills: list[ImageGroup]
    blurred: dict[ImageGroup, str]
    subsets: dict[ImageGroup, ImageGroup]
    cut_outs: dict[ImageGroup, ImageGroup]

    def left_out(self, layout: object) -> list[str]:
        """Returns a line for each kind of images that a source of this layout leaves out."""
        why = [(one, one.read_error) for one in self.unread]
        why += [(one, f"{one.folder} holds pictures of masks") for one in self.overlays]
        if layout != "annotations":
            why += [(one, f"{one.folder} has segment ids, and there are class masks") for one in self.segments]
        if layout != "videos":  # that source reports files that are no videos
            few = "has too few images for a clip, and there are videos"
            why += [(one, f"{one.folder} {few}") for one in self.stills]
        why += [
            (one, f"{one.folder} has the names of {twin}, and too many colours for masks")
            for one, twin in self.blurred.items()
        ]
        lines = [
            _line(
                [one for one in self.derived if self.derived[one] == word],
                f"made from frames or videos, as the name {word!r} says; rename it if it is not",
            )
            for word in dict.fromkeys(self.derived.values())
        ]
        if self.unreadable:
            first = next(iter(self.unreadable.values()))
            lines.append(_line([*self.unreadable], f"as other masks of these frames can be read: {first}"))
        if self.subsets:
            whole = next(iter(self.subsets.values())).folder
            lines.append(_line([*self.subsets], f"because all frames of their videos are present, e.g. {whole}"))
        if self.cut_outs:
            whole = next(iter(self.cut_outs.values())).folder
            lines.append(
                _line([*self.cut_outs], f"cut-outs of frames, e.g. of {whole}")
                + ". Their alpha channel may be masks, or mattes: save it as a grey PNG to learn from it"
            )
        return [*lines, *(f"{pluralize(len(one.files), 'image')} left out: {text}" for one, text in why)]


def sort_images(
    groups: Sequence[ImageGroup], label_files: LabelFiles, videos: Sequence[tuple[str, ...]]
) -> SortedImages:
    """Returns the images of a folder by what they are.

    Args:
        groups: all groups of its images.
        label_files: its label files.
        videos: paths of its videos.
    """
    has_videos = bool(videos)
    derived = derived_images(groups, has_videos)
    overlays = [one for one in groups if is_visualisation(one)]
    overlays = overlays if len(overlays) < len(groups) else []
    segments = [one for one in groups if numbers_segments(one.files[0].parent)]
    groups = _without(groups, [*overlays, *derived, *segments])
    unread = [one for one in groups if one.read_error]
    frames, masks = (
        [one for one in groups if one.are_masks == kind and not one.read_error] for kind in (False, True)
    )
    unreadable = unreadable_masks(masks)
    masks = _without(masks, unreadable)
    drawn = mask_like_frames(masks, frames)
    if not frames and not has_videos and label_files.by_format:  # the masks are in these
        drawn = [one for one in masks if not one.named_as_masks]
    frames, masks = [*frames, *drawn], _without(masks, drawn)
    stills = [one for one in frames if has_videos and len(one.files) < 2 * MIN_CONTEXT]
    frames = _without(frames, stills)
    flat = flat_pictures(frames, videos)
    soft = [one for one, (_, is_grey) in flat.items() if is_grey]
    frames, masks = _without(frames, soft), [*masks, *(replace(one, are_masks=True) for one in soft)]
    named = {one: twin for one in frames if (twin := frames_shown_by(one, frames, masks)) is not None}
    blurred = {one: twin.folder for one, twin in named.items()} | {
        one: place for one, (place, is_grey) in flat.items() if not is_grey
    }
    frames = _without(frames, blurred)
    subsets = video_subsets(frames)
    frames = _without(frames, subsets)
    cut = cut_outs(frames)
    frames = _without(frames, cut)
    return SortedImages(
        frames, masks, derived, overlays, segments, unread, unreadable, stills, blurred, subsets, cut
    )


def _without(groups: Sequence[ImageGroup], others: Iterable[ImageGroup]) -> list[ImageGroup]:
    left_out = set(others)
    return [one for one in groups if one not in left_out]


def _line(groups: Sequence[ImageGroup], reason: str) -> str:
    """Returns a line about images that are left out."""
    where = groups[0].folder + (f" and {pluralize(len(groups) - 1, 'folder')} more" if groups[1:] else "")
    return f"{pluralize(sum(len(one.files) for one in groups), 'image')} left out: {where}, {reason}"
