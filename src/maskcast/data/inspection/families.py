"""Families of paths that differ in one part only, and pairs of families of frames and masks."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import eq

from maskcast.data.frame_names import NameKey
from maskcast.data.sources.patterns import CLIP
from maskcast.data.video_files.frames import VIDEO_SUFFIXES

Parts = tuple[str, ...]
_SEPARATOR = re.compile(r"[_\-. ]")
_DIGIT = re.compile(r"\d")
# Names of folders of frames, beside folders such as `annotated` with images of the same names.
_FRAMES = re.compile(
    r"((jpe?g|png|rgb|colou?r|left|raw|original|source)[_-]?)?(images?|imgs?|frames?)|rgb|colou?r|raw|originals?|origin",
    re.IGNORECASE,
)

MASK_WORDS = re.compile(r"mask|annot|label|segm|instance|(^|[^a-z])(gt|l)([^a-z]|$)|truth", re.IGNORECASE)
# A whole word that means masks: of `masked_man_01` and `mask_01`, only the second is one, whatever it looks like
MASK_WORD = re.compile(
    r"(masks?|annot(ation)?s?|annos?|labels?|seg(ment(ation)?|m)?s?|semantics?|instances?|gts?|(ground)?truths?"
    r"|mattes?|silhouettes?)[-_. ]*",
    re.IGNORECASE,
)
# Masks that are not of classes, and pictures of masks
_OTHER_MASKS = re.compile(
    r"instance|(^|[^a-z])(humans?|fixation|saliency|confidence|visib\w*|edges?|bound\w*|contours?|cent(er|re)s?|colou?r|rgb)"
    r"([^a-z]|$)",
    re.IGNORECASE,
)
CAMERA = re.compile(r"left|right|(image|img|cam|camera)[-_ ]?\d{1,2}", re.IGNORECASE)
SCENE = re.compile(r"(scene|seq|sequence|video|drive|shot|take)[-_ ]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Family:
    """Paths that differ in one part only.

    Attributes:
        parts: the path, with an empty text for the part that differs.
        names: the differing part of each path.
    """

    parts: Parts
    names: frozenset[str]

    def at(self, name: str) -> Parts:
        """Returns the path with this name."""
        return tuple(part or name for part in self.parts)

    def pattern(self, before: str = "", after: str = "") -> str:
        """Returns the path pattern in which ``{clip}`` stands between two texts."""
        return "/".join(part or f"{before}{CLIP}{after}" for part in self.parts)


def open_at(parts: Sequence[str], place: int) -> Parts:
    """Returns the parts of a path with an empty text for one: equal for paths that differ there alone."""
    return (*parts[:place], "", *parts[place + 1 :])


def families(places: Iterable[Parts]) -> list[Family]:
    """Returns all families of the paths: one for each way to vary one part."""
    found: dict[Parts, set[str]] = defaultdict(set)
    for parts in places:
        for place, part in enumerate(parts):
            found[open_at(parts, place)].add(part)
    return [Family(parts, frozenset(names)) for parts, names in found.items()]


def without_variants(found: Sequence[Family]) -> list[Family]:
    """Leaves out families of views of one scene, `Scene01/{clip}`, if another has the scenes, `{clip}/fog`.

    In Virtual KITTI 2 `fog` and `rain` show the same drive, as `left` and `right` do in stereo sets, so one must
    not be trained on if the other is scored.
    """
    several = [one for one in found if len(one.names) > 1 and not all(map(CAMERA.fullmatch, one.names))]
    scenes = {one.parts for one in several if all(map(SCENE.fullmatch, one.names))}
    numbered = {one.parts for one in several if all(map(_DIGIT.search, one.names))}

    def of_one_scene(one: Family) -> bool:
        cameras = all(map(CAMERA.fullmatch, one.names))
        if not cameras and all(map(_DIGIT.search, one.names)):  # numbered parts or frames, not variants
            return False
        paths = [one.at(name) for name in one.names]
        others = [place for place, part in enumerate(one.parts) if part]
        crossing = (open_at(path, place) for path in paths for place in others)
        return any(parts in (numbered if cameras else scenes) for parts in crossing)

    return [one for one in found if not of_one_scene(one)]


def is_named_as_frames(parts: Parts) -> bool:
    """Whether a folder in the path has a name that is usual for frames."""
    return any(map(_FRAMES.fullmatch, parts))


def is_named_as_masks(parts: Parts) -> bool:
    """Whether a part of a path, or the end of a file name, has a word that is usual for masks."""
    return bool(MASK_WORDS.search("/".join(parts))) or any(map(MASK_WORD.fullmatch, parts))


def rank_as_class_masks(parts: Parts) -> tuple[bool, bool]:
    """Returns how likely masks of these folders and this end of a file name are of classes, higher is likelier."""
    return not _OTHER_MASKS.search("/".join(parts)), is_named_as_masks(parts)


def paired_families(
    places: Iterable[Parts], frames: Mapping[Parts, set[NameKey]], masks: Mapping[Parts, set[NameKey]]
) -> tuple[str, str, int] | None:
    """Returns the patterns of frames and masks that pair most sequences, and the number of shared file names.

    If several pairs of patterns are equally good, the most similar two win: `a/frames` and `a/masks` before
    `old/{clip}`.

    Args:
        places: paths of frames.
        frames: frame names by path; videos are missing, because they may have frames for all masks.
        masks: mask names by path.
    """
    best: tuple[tuple[int, ...], str, str] | None = None
    # Largest first: no smaller family can pair more, so the loops can stop early, which saves minutes for
    # thousands.
    image_families, mask_families = (
        sorted(without_variants(families(one)), key=lambda f: -len(f.names)) for one in (places, masks)
    )
    for images in image_families:
        for labels in mask_families:
            if best is not None and min(len(images.names), len(labels.names)) < best[0][0]:
                break
            for count, ours, theirs in _affixes(images.names, labels.names):
                near, there, shared = sum(map(eq, images.parts, labels.parts)), 0, 0
                for name in images.names:
                    if core := _inner(name, *ours):
                        found = masks.get(labels.at(f"{theirs[0]}{core}{theirs[1]}"), set())
                        there += len(found)
                        shared += len(found & frames.get(images.at(name), found))
                alike = (near, len(images.names), ours == theirs, images.parts.index(""))
                named = (is_named_as_frames(images.parts), *rank_as_class_masks(labels.parts))
                rank = (count, *alike, shared, there, *named)
                if best is None or rank > best[0]:
                    best = rank, images.pattern(*ours), labels.pattern(*theirs)
    return None if best is None else (*best[1:], best[0][-5])


def _inner(name: str, before: str, after: str) -> str:
    """Returns the text between a prefix and a suffix; empty if the name does not have both."""
    inner = name.removeprefix(before).removesuffix(after)
    return inner if name == f"{before}{inner}{after}" else ""


def _affixes(
    images: frozenset[str], labels: frozenset[str]
) -> Iterator[tuple[int, tuple[str, str], tuple[str, str]]]:
    """Yields how many names pair, with prefix and suffix of the names of frames and of masks."""
    if both := images & labels:
        yield len(both), ("", ""), ("", "")
        return
    for longer, shorter, swapped in ((images, labels, False), (labels, images, True)):
        for name in sorted(longer)[:50]:
            for inner in sorted(shorter):
                before, found, after = name.partition(inner)
                if found:
                    count = sum(f"{before}{one}{after}" in longer for one in shorter)
                    around = (before, after)
                    yield count, *(((("", "")), around) if swapped else (around, ("", "")))
    for ours, theirs in product(sorted(images)[:50], sorted(labels)[:50]):
        for cut in _SEPARATOR.finditer(ours):  # img_train and gt_train, train_img and train_gt
            core, tail = ours[: cut.start()], ours[cut.start() :]
            video = tail.lower() in VIDEO_SUFFIXES  # a.mp4 and a_masks
            if core and (theirs.startswith(core + cut[0]) or (video and _SEPARATOR.match(theirs, len(core)))):
                other = theirs.removeprefix(core)
                cores = [name.removesuffix(tail) for name in images if name.endswith(tail)]
                count = sum(f"{one}{other}" in labels for one in cores)
                if count > 1 or not _DIGIT.search(other if video else tail + other):  # not `take_1` and `take_2`
                    yield count, ("", tail), ("", other)
            head, core = ours[: cut.end()], ours[cut.end() :]
            if core and theirs.endswith(cut[0] + core):
                other = theirs.removesuffix(core)
                cores = [name.removeprefix(head) for name in images if name.startswith(head)]
                count = sum(f"{other}{one}" in labels for one in cores)
                if count > 1 or not _DIGIT.search(head + other):
                    yield count, (head, ""), (other, "")
