"""Groups the images of a folder: files with similar names and the same kind of content.

`frames/0001.png` and `frames/0001_L.png` are in two groups.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.decoding import decode
from maskcast.data.frame_names import METADATA_SUFFIXES, NameKey, name_key
from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.data.inspection.families import MASK_WORD, MASK_WORDS, is_named_as_masks
from maskcast.data.sources.patterns import FRAME
from maskcast.data.video_files.frames import VIDEO_SUFFIXES
from maskcast.errors import MaskcastError
from maskcast.files import list_files, walk_folders
from maskcast.labels import natural_sort_key
from maskcast.progress import track
from maskcast.reading import pluralize

# 000019 of aachen_000019_leftImg8bit
_SEPARATE_NUMBER = re.compile(r"(?:^|[^A-Za-z0-9])[A-Za-z]?\d+(?![A-Za-z0-9])")
_CHANNEL = re.compile(r"_\d{4}$")  # of nnU-Net
# A word with the separator after it, at the start of a name or before its last number: `mask_` of `mask_s0_0019`,
# `s0_mask_0019`
_FIRST_WORD = re.compile(r"[^\W\d_]+(?:[-_. ]+|(?=\d))")
_LAST_WORD = re.compile(r"(?:^|(?<=[-_. ]))[^\W\d_]+[-_. ]*(?=\d+$)")
MAX_GROUPS = 8  # maximum number of groups of one folder
NUM_SAMPLES = 3  # number of images of a group that are inspected
MAX_MASK_VALUES = 64  # maximum number of values of a mask; a photo has thousands
MIN_FLAT = 0.7  # minimum share of a mask's pixels that equal their right neighbour; a dim noisy photo has fewer


@dataclass(frozen=True)
class ImageGroup:
    """Images of one folder with similar names.

    Attributes:
        parts: the folder, relative to the root.
        name_suffix: text after the last number in their names, without file extension. Without a number, a word
            for masks; or the whole name, if each of several folders holds a frame and its mask.
        files: in numeric order.
        are_masks: whether they look like masks.
        read_error: why the inspected files cannot be read; empty if one can.
        name_word: a word with its separator, at the start of their names or before the number, which tells the
            kind of file: `mask_` of `mask_0001`. Empty if the names do not have one.
    """

    parts: tuple[str, ...]
    name_suffix: str
    files: tuple[Path, ...]
    are_masks: bool
    read_error: str = ""
    name_word: str = ""

    @property
    def folder(self) -> str:
        """The folder as text."""
        return "/".join(self.parts) or "."

    def keys(self) -> set[NameKey]:
        """Returns the frame keys in the names of its files."""
        return set(self.by_key())

    def by_key(self) -> dict[NameKey, Path]:
        """Returns its files by frame key."""
        return {name_key(self.core(path)): path for path in self.files}

    @property
    def named_as_masks(self) -> bool:
        """Whether a part of its path, or a text that tells the kind of file, is usual for masks."""
        return is_named_as_masks((*self.parts, self.name_suffix, self.name_word))

    def core(self, path: Path) -> str:
        """Returns the name of a file without what tells its kind: `s0_0019` of `s0_mask_0019`."""
        stem = path.stem.removesuffix(self.name_suffix)
        if not self.name_word or stem.startswith(self.name_word):
            return stem.removeprefix(self.name_word)
        before, _, after = stem.rpartition(self.name_word)
        return before + after

    def file_pattern(self, core: str) -> str:
        """Returns the pattern of its file names, without ending, for the pattern of their cores."""
        if all(path.stem.startswith(self.name_word) for path in self.files):
            return f"{self.name_word}{core}{self.name_suffix}"
        return core.replace(FRAME, f"{self.name_word}{FRAME}") + self.name_suffix


def find_image_groups(raw: Path) -> list[ImageGroup]:
    """Returns the groups of all folders below ``raw``; single images among many others are left out."""
    found = []
    images_in = {
        folder: tuple(name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES)
        for folder, names in walk_folders(raw)
    }
    alike = Counter(images_in.values())
    for folder, names in track(images_in.items(), "looking at folders"):
        by_tail: dict[str, list[str]] = defaultdict(list)
        own = alike[names] > 1 and _is_single_frame(names)
        for name in names:
            stem = PurePosixPath(name).stem
            by_tail[stem if own else _name_suffix(stem)].append(name)
        if len(by_tail) > MAX_GROUPS:  # the tails are probably words in names of photographs
            by_tail = defaultdict(list)
            for name in names:
                by_tail[_mask_word(PurePosixPath(name).stem)].append(name)
        most = max(map(len, by_tail.values()), default=0)
        groups: list[ImageGroup] = []
        for tail, members in sorted(by_tail.items()):
            if len(members) * 20 < most:
                continue
            files = tuple(folder / name for name in sorted(members, key=natural_sort_key))
            groups += _groups(folder.relative_to(raw).parts, tail, files)
        found += _merged(groups)
    return _divided(_without_channels(found))


def _merged(groups: list[ImageGroup]) -> list[ImageGroup]:
    """Returns the groups of a folder, as one if no two of them share a frame: `000_front.png`, `001_rear.png`."""
    keys = [one.keys() for one in groups]
    kinds = {(one.are_masks, bool(one.read_error)) for one in groups}
    if len(groups) < 2 or len(kinds) > 1 or len(set().union(*keys)) < sum(map(len, keys)):
        return groups
    files = sorted((path for one in groups for path in one.files), key=lambda path: natural_sort_key(path.name))
    words = {_mask_word(path.stem) for path in files}
    return [replace(groups[0], name_suffix=words.pop() if len(words) == 1 else "", files=tuple(files))]


def _is_single_frame(names: tuple[str, ...]) -> bool:
    """Whether a folder has one frame and its mask, named only by kind: `image.png`, `mask.png`."""
    stems = [PurePosixPath(name).stem for name in names]
    called = [is_named_as_masks((stem,)) for stem in stems]
    return len(names) <= MAX_GROUPS and {*called} == {True, False} and not re.search(r"\d", "".join(stems))


def _groups(parts: tuple[str, ...], tail: str, files: tuple[Path, ...]) -> list[ImageGroup]:
    """Returns one group, or two if frames and masks differ only in their endings, `1.jpg` and `1.png`."""
    if len({path.stem for path in files}) < len(files):
        endings = sorted({path.suffix.lower() for path in files})
        apart = [
            _group(parts, tail, tuple(path for path in files if path.suffix.lower() == ending))
            for ending in endings
        ]
        if sorted(one.are_masks for one in apart) == [False, True]:
            return apart
    return [_group(parts, tail, files)]


def _group(parts: tuple[str, ...], tail: str, files: tuple[Path, ...], word: str = "") -> ImageGroup:
    return ImageGroup(parts, tail, files, *looks_like_masks(files, "/".join((*parts, tail, word))), word)


def _without_channels(groups: list[ImageGroup]) -> list[ImageGroup]:
    """Returns groups; nnU-Net numbers channels, so that the mask of `a_0000` is `a`: there `_0000` is a suffix."""
    found = []
    for one in groups:
        numbers = {number and number[0] for number in (_CHANNEL.search(path.stem) for path in one.files)}
        channel = numbers.pop() if len(numbers) == 1 and not one.name_suffix else None
        core = one if channel is None else replace(one, name_suffix=channel)
        has_masks = any(
            2 * len(other.keys() & core.keys()) >= len(other.files) and not other.keys() & one.keys()
            for other in groups
            if other.are_masks
        )
        found.append(core if has_masks else one)
    return found


def _divided(groups: list[ImageGroup]) -> list[ImageGroup]:
    """Returns groups, those of frames and masks divided by a word in their names, `img_1.jpg` and `mask_1.png`.

    Where masks have folders or endings of their own, others are rather augmented copies.
    """
    found = dict[ImageGroup, list[ImageGroup]]()
    for one in groups:
        ways = _split_by_word(one.files, one.name_suffix)
        kinds = (
            [_group(one.parts, one.name_suffix, tuple(alike), word) for word, alike in way.items()] for way in ways
        )
        if (apart := next(filter(_are_frames_and_masks, kinds), None)) is not None:
            found[one] = apart
    if any(one.are_masks for one in groups if one not in found):
        return groups
    return [kind for one in groups for kind in found.get(one, [one])]


def _are_frames_and_masks(groups: Sequence[ImageGroup]) -> bool:
    """Whether groups whose names differ in a word are frames and masks, most of which have a frame."""
    called = [one for one in groups if MASK_WORD.fullmatch(one.name_word)]
    masks = [one for one in groups if one.are_masks or one in called]
    frames = [one.keys() for one in groups if one not in masks]
    named = len(groups) == 2 or bool(called)
    known = set().union(*frames)
    return named and bool(frames and masks) and all(2 * len(one.keys() & known) >= len(one.files) for one in masks)


def _split_by_word(files: Sequence[Path], tail: str) -> Iterator[Mapping[str, list[Path]]]:
    """Yields ways to divide files by a word that stands in the names of the same frames, the likeliest first.

    `img_1`, `mask_1` are divided into `img_` and `mask_`; `1` and `mask_1` into `mask_` and an empty word.
    """
    words_of, owners = dict[Path, dict[str, str]](), defaultdict[str, set[str]](set)
    for path in files:
        words_of[path] = dict(kind_words(path.stem.removesuffix(tail)))
        for word, core in words_of[path].items():
            owners[core].add(word)
    forms = Counter(frozenset(words) for words in owners.values() if 1 < len(words) <= MAX_GROUPS)
    named = {words for words in forms if any(map(MASK_WORD.fullmatch, words))}
    for words in sorted(forms, key=lambda words: (words not in named, -forms[words], sorted(words)))[:NUM_SAMPLES]:
        found = defaultdict[str, list[Path]](list)
        for path in files:
            own = [word for word in words_of[path] if word and word in words]
            if len(own) > 1 or not (own or "" in words):
                break
            found[own[0] if own else ""].append(path)
        else:
            yield found


def kind_words(stem: str) -> Iterator[tuple[str, str]]:
    """Yields the words of a name that may tell the kind of file, each with the rest; at first an empty one."""
    yield "", stem
    for match in (_FIRST_WORD.match(stem), _LAST_WORD.search(stem)):
        if match and (core := stem[: match.start()] + stem[match.end() :]):
            yield match[0], core


def find_video_files(raw: Path) -> list[tuple[str, ...]]:
    """Returns the path parts of each video below ``raw``."""
    return [
        (*folder.relative_to(raw).parts, name)
        for folder, names in walk_folders(raw)
        for name in sorted(names, key=natural_sort_key)
        if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES
    ]


def find_mask_video(videos: Sequence[tuple[str, ...]]) -> tuple[str, str] | None:
    """Returns the first video named as the masks of another, and that other: `a_mask.mp4` or `masks/a.mp4`."""
    called = [video for video in videos if MASK_WORDS.search("/".join(video))]
    stems = {PurePosixPath(video[-1]).stem: "/".join(video) for video in videos if video not in called}
    for video in called:
        stem = PurePosixPath(video[-1]).stem
        if (other := stems.get(stem.removesuffix(_mask_word(stem)))) is not None:
            return "/".join(video), other
    return None


def unsupported_files_text(raw: Path) -> str:
    """Returns a text on files below ``raw`` that are no images, videos or texts, e.g. arrays; may be empty."""
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES | METADATA_SUFFIXES
    others = [path.relative_to(raw) for path in list_files(raw) if path.suffix.lower() not in known]
    return (
        f"{pluralize(len(others), 'file', 'is', 'are')} neither images nor videos, e.g. {others[0]}"
        if others
        else ""
    )


def looks_like_masks(files: tuple[Path, ...], place: str) -> tuple[bool, str]:
    """Returns whether images look like masks, and why none can be read.

    They do with flat areas of few values, or if they are named as masks, and are grey or have few values.
    """
    named = bool(MASK_WORDS.search(place))
    votes, unread = [], ""
    for number in evenly_spaced(len(files), NUM_SAMPLES):
        try:
            image = decode(files[number]).image
        except MaskcastError as error:
            unread = unread or str(error)
            continue
        if image.mode in ("1", "P"):
            votes.append(True)
            continue
        pixels = np.asarray(image)
        flat = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)
        count = _num_colours(flat[:: max(1, len(flat) // 20000)])
        if count <= MAX_MASK_VALUES:
            votes.append(named or float(np.mean(pixels[:, 1:] == pixels[:, :-1])) >= MIN_FLAT)
        else:
            votes.append(named and bool((flat == flat[:, :1]).all()))
        if 2 * max(votes.count(True), votes.count(False)) > NUM_SAMPLES:  # the others would not change the result
            break
    return bool(votes) and sum(votes) * 2 > len(votes), "" if votes else unread


def _num_colours(pixels_PC: np.ndarray) -> int:
    """Returns the number of different pixels of C channels, of 8 bits each if there are several."""
    if pixels_PC.shape[1] == 1:
        return len(np.unique(pixels_PC))
    numbers_P = pixels_PC.astype(np.int64) @ (1 << 8 * np.arange(pixels_PC.shape[1]))  # sorted faster than rows
    return len(np.unique(numbers_P))


def _name_suffix(stem: str) -> str:
    """Returns the text after the last number in a name, preferably a separate one; else a word for masks."""
    numbers = list(_SEPARATE_NUMBER.finditer(stem)) or list(re.finditer(r"\d+", stem))
    return stem[numbers[-1].end() :] if numbers else _mask_word(stem)


def _mask_word(stem: str) -> str:
    """Returns the word for masks at the end of a name, with its separator, e.g. `_mask`; empty without any."""
    word = re.fullmatch(r".+?([-_. ][^-_. ]+)", stem)
    return word[1] if word and MASK_WORDS.search(word[1]) else ""
