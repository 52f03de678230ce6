"""Folders whose masks stand in files of other tools, such as COCO, beside the frames."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, combinations, groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.inspection.class_names import NO_LABEL
from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.given_splits import split_of_name
from maskcast.data.inspection.measuring import measure
from maskcast.data.inspection.patterns import Guess
from maskcast.data.inspection.photographs import by_image, photographs
from maskcast.data.inspection.sparse import cover_horizon
from maskcast.data.inspection.splitting import propose_splits
from maskcast.data.inspection.streams import Stream
from maskcast.data.inspection.widening import guess_in_folders
from maskcast.data.labelling.formats.base import IGNORED, FoundFrame
from maskcast.data.labelling.formats.burst import is_burst
from maskcast.data.labelling.formats.coco_panoptic import is_panoptic
from maskcast.data.labelling.formats.sa_v import is_sa_v
from maskcast.data.sources.annotations import AnnotationsSource, Known, Sequences, gather_labels, known_frames
from maskcast.data.sources.label_pairs import Labels
from maskcast.data.sources.patterns import find_sequences, fixed_folder
from maskcast.errors import MaskcastError
from maskcast.files import files_below
from maskcast.reading import content_of, counted, read_json

LOOKED_AT = 60  # frames whose masks are counted
FORMATS = {  # name of a format: what people call it
    "coco": "COCO",
    "youtube-vis": "YouTube-VIS, BURST or SA-V",
    "cvat-video": "CVAT for video",
    "cvat-images": "CVAT for images",
    "label-studio": "Label Studio",
    "labelme": "labelme",
}
PANOPTIC = "coco, panoptic"  # of all pixels: before COCO's objects of the same images
KEYS = (b'"segmentation"', b'"segmentations"', b'"annotations"', b'"masklet"')  # of JSON that may hold masks
# Of one set's files of the same frames that which is to be read: what people marked, and all of it.
BETTER = (
    (re.compile(r"_auto(?=\.json$)"), "_manual"),  # SA-V
    (re.compile(r"^((un)?common_classes|first_frame_annotations)(?=\.json$)"), "all_classes"),  # BURST
)
_ROBOFLOW = re.compile(r"(.+?)(?:([_-])([A-Z]*\d+))?_(jpe?g|png)\.rf\..+", re.IGNORECASE)


def label_files(raw: Path) -> tuple[str, list[Path]] | None:
    """Returns the files of labels below a folder that hold masks, and their format; None where there are none.

    Of several formats that comes first which tells most of objects.
    """
    found: dict[str, list[Path]] = {}
    for path in files_below(raw, ".json", ".xml"):
        form = _xml_format(path) if path.suffix.lower() == ".xml" else _json_format(path)
        if form is not None:
            found.setdefault(form, []).append(path)
    order = ("youtube-vis", "cvat-video", "cvat-images", PANOPTIC, "coco", "label-studio", "labelme")
    form = next((form for form in order if form in found), None)
    if form == "coco" and len(found[form]) > 1:  # instances beside keypoints of the same people
        found[form] = [path for path in found[form] if b'"keypoints"' not in content_of(path)] or found[form]
    if form == "youtube-vis":
        known = {*found[form]}
        found[form] = [path for path in found[form] if not known & {*_better(path)}]
    return None if form is None else ("coco" if form == PANOPTIC else form, found[form])


def _better(path: Path) -> Iterator[Path]:
    """Yields the files that would be read in place of one, if they are there."""
    for name, other in BETTER:
        if name.search(path.name):
            yield path.with_name(name.sub(other, path.name))


def labelled_by_files(
    raw: Path, form: str, files: Sequence[Path], guess: Guess | None, streams: Sequence[Stream]
) -> Findings:
    """Returns what is in a folder whose masks stand in files of labels.

    Args:
        raw: the folder.
        form: the format of the files.
        files: of labels.
        guess: the pattern of the frames.
        streams: their images.

    Raises:
        MaskcastError: when the frames have no pattern, or the files cannot be read or are of other frames.
    """
    images = _roboflow(raw, streams) or (_of_all_splits(raw, guess.images) if guess is not None else None)
    if images is None:
        raise MaskcastError(
            f"{raw}: the frames that {files[0].name} names have no pattern in common; give each sequence a folder "
            "or a video, or name its frames alike, e.g. street_0001.png"
        )
    source: dict[str, Any] = {
        "layout": "annotations",
        "format": form,
        "labels": _patterns(raw, files),
        "images": images,
    }
    if form == "youtube-vis":
        source["empty"] = "background"
    found = Findings(f"masks in files of {FORMATS[form]}, frames by sequence", source)
    if form == "youtube-vis":
        found.why["empty"] = "null says that an object is not there"
    inner = guess and guess_in_folders(guess, streams, [])
    footage, labels = _gathered(raw, source, chain([inner.images] if inner else [], _wider(raw, images)))
    images = source["images"]
    if why := photographs(footage):
        found.layout, found.photographs = f"photographs, masks in files of {FORMATS[form]}", why
        source["images"] = images = by_image(images)
        footage, labels = gather_labels(raw, AnnotationsSource(**source), [])
    known = known_frames(labels, source.get("empty", "unlabelled"))
    if not known:
        raise MaskcastError(
            f"{files[0]}: labels no frame of the sequences that {images!r} finds "
            f"({', '.join(list(footage)[:3])}); put the images there that it names, in folders and under names as "
            "it has them"
        )
    frames = [one for mine in known.values() for one in mine.values()]
    found.add_sequences(footage)
    found.labelled = {name: len(mine) for name, mine in known.items()}
    empty = sum(one.empty for mine in labels.frames.values() for one in mine.values())
    _add_classes(found, frames)
    _add_objects(found, frames)
    _count_pixels(found, frames)
    measure(found, find_sequences(raw, images))
    propose_splits(raw, found, _marked(found, known), footage, labels.files)
    found.source["splits"].pop("unlabeled", None)  # as the source says by itself
    asked = empty > 0 and "empty" not in source
    try:
        cover_horizon(found, _marked(found, known), shorter=not asked)
    except MaskcastError:
        if not asked:
            raise
        known = known_frames(labels, "background")
        found.labelled = {name: len(known[name]) for name in found.labelled}
        source["empty"] = "background"
        found.why["empty"] = "too few frames have objects to score a forecast on them alone"
        cover_horizon(found, _marked(found, known))
    if unpaired := [where for lost in labels.unpaired.values() for where in lost]:
        found.warnings.append(f"no image of {counted(len(unpaired), 'labelled frame')}, first {unpaired[0]}")
    if asked:
        what = "background" if "empty" in source else "not labelled"
        found.warnings.append(
            f"{counted(empty, 'frame')} listed without objects: {what}; set source.empty to background if "
            "somebody has looked at them and nothing is there, else to unlabelled"
        )
    return found


def _gathered(raw: Path, source: dict[str, Any], others: Iterable[str]) -> tuple[Sequences, Labels]:
    """Returns sequences and their labels; ``source`` gets that of several patterns which finds most frames."""
    best, failure = None, None
    for images in chain([str(source["images"])], others):
        try:
            found = gather_labels(raw, AnnotationsSource(**source | {"images": images}), [])
        except MaskcastError as error:
            failure = failure or error
            continue
        if best is None or _unpaired(found[1]) < _unpaired(best[1]):
            best, source["images"] = found, images
        if not _unpaired(found[1]):
            break
    if best is None:
        assert failure is not None
        raise failure
    return best


def _wider(raw: Path, images: str) -> Iterator[str]:
    """Yields patterns with `*` for folders, the fewest and deepest first, that find more sequences."""
    folders, most = range(len(PurePosixPath(fixed_folder(images)).parts)), 0
    with suppress(MaskcastError):  # two are of one name
        most = len(find_sequences(raw, images))
    for places in chain.from_iterable(combinations(folders[::-1], 1 + more) for more in folders):
        wide = "/".join("*" if place in places else part for place, part in enumerate(images.split("/")))
        with suppress(MaskcastError):
            if len(find_sequences(raw, wide)) > most:
                yield wide


def _unpaired(labels: Labels) -> int:
    """Returns how many frames of the files have no image."""
    return sum(map(len, labels.unpaired.values()))


def _of_all_splits(raw: Path, images: str) -> str:
    """Returns a pattern with `*` for a folder that is named as a split, where others beside it are, too."""
    parts = images.split("/")
    for place, part in enumerate(parts[:-1]):
        beside = raw.joinpath(*parts[:place])
        if (
            split_of_name(part)
            and sum(one.is_dir() and split_of_name(one.name) is not None for one in beside.iterdir()) > 1
        ):
            wide = "/".join((*parts[:place], "*", *parts[place + 1 :]))
            with suppress(MaskcastError):  # two are of one name
                if all(split_of_name(path.relative_to(beside).parts[0]) for path in _places(raw, wide)):
                    return wide
    return images


def _places(raw: Path, images: str) -> Iterator[Path]:
    for files in find_sequences(raw, images).values():
        yield from [files] if isinstance(files, Path) else files.values()


def _patterns(raw: Path, files: Sequence[Path]) -> list[str]:
    """Returns the paths of files; a pattern where they are all of a folder's JSON, or all of SA-V's by hand."""
    found: dict[str, None] = {}
    for folder, own in groupby(files, key=lambda path: path.parent):
        paths = list(own)
        for pattern in ("*.json", "*_manual.json"):
            if len(paths) > 1 and set(paths) == set(folder.glob(pattern)):
                paths = [folder / pattern]
        found |= dict.fromkeys(path.relative_to(raw).as_posix() for path in paths)
    return list(found)


def _marked(found: Findings, known: Known) -> dict[str, list[bool]]:
    """Returns of each sequence whether its frames have labels."""
    return {name: [k in known.get(name, ()) for k in range(count)] for name, count in found.sequences.items()}


def _json_format(path: Path) -> str | None:
    content = content_of(path)
    if b'"shapes"' in content and b'"imagePath"' in content:
        return "labelme"
    if not any(key in content for key in KEYS):
        return None
    try:
        value = read_json(path)
    except MaskcastError:
        if b'"segmentation' in content:
            raise
        return None  # of something else
    if isinstance(value, list):
        tasks = [one for one in islice(value, 1) if isinstance(one, dict)]
        return "label-studio" if tasks and {"data", "annotations"} <= tasks[0].keys() else None
    if is_burst(value) or is_sa_v(value):
        return "youtube-vis"  # reads these, too
    if not isinstance(value, dict) or not isinstance(value.get("annotations"), list):
        return None
    masks = [one for one in value["annotations"] if isinstance(one, dict)]
    if is_panoptic(value) and path.with_suffix("").is_dir():
        return PANOPTIC
    if "videos" in value and any(one.get("segmentations") for one in masks):
        return "youtube-vis"
    return "coco" if "images" in value and any(one.get("segmentation") for one in masks) else None


def _xml_format(path: Path) -> str | None:
    content = content_of(path)
    if b"<annotations" not in content:
        return None
    if b"<track" in content:
        return "cvat-video"
    return "cvat-images" if b"<image " in content else None


def _roboflow(raw: Path, streams: Sequence[Stream]) -> str | None:
    """Returns the pattern of frames as Roboflow calls them, `street_mp4-12_jpg.rf.0f3a.jpg`; None of others.

    Photographs have no number before the first ending, or some of them.
    """
    paths = [path for stream in streams for path in stream.files]
    matches = [_ROBOFLOW.fullmatch(path.stem) for path in paths]
    if not paths or not all(matches):
        return None
    seen: dict[tuple[str, str], Path] = {}
    for path, match in zip(paths, matches, strict=True):
        assert match is not None
        if (twin := seen.setdefault((match[1], match[3]), path)) != path:
            raise MaskcastError(
                f"{path}: shows the frame of {twin.name} once more, as augmented sets do; export a version "
                "without augmentation from Roboflow"
            )
    first, ending = matches[0], paths[0].suffix
    assert first is not None
    forms = {match[4] for match in matches if match}
    folders = {path.relative_to(raw).parent.parts for path in paths}
    if len(set(map(len, folders))) > 1:
        raise MaskcastError(
            f"{raw}: frames of Roboflow lie in folders of several depths ({_two_of(folders)}); give one folder "
            "with train, valid and test, as Roboflow exports it"
        )
    folder = "".join(f"{one[0] if len(set(one)) == 1 else '*'}/" for one in zip(*folders, strict=True))
    name = f"{{clip}}{first[2]}{{frame}}" if all(match and match[3] for match in matches) else "{clip}"
    return f"{folder}{name}_{first[4] if len(forms) == 1 else '*'}.rf.*{ending}"


def _two_of(folders: set[tuple[str, ...]]) -> str:
    """Returns the shallowest and the deepest of some folders."""
    ordered = sorted(folders, key=lambda parts: (len(parts), parts))
    return ", ".join("/".join(parts) or "." for parts in (ordered[0], ordered[-1]))


def _add_classes(found: Findings, frames: Sequence[FoundFrame]) -> None:
    names = sorted({name for frame in frames for name, _ in frame.objects} - {IGNORED})
    void = [name for name in names if NO_LABEL.fullmatch(name)]
    ground = [name for name in names if name.strip("_").lower() == "background"]
    shown = [name for name in names if name not in (*void, *ground)]
    found.source["classes"] = ["background", *shown]
    found.why["classes"] = f"the classes that have masks in {counted(len(frames), 'labelled frame')}"
    renamed = dict.fromkeys(void, "ignore") | {name: "background" for name in ground if name != "background"}
    if renamed:
        found.source["rename"] = renamed
        found.why["rename"] = "by their names, these are no classes"
    found.rows.append(("classes", ", ".join(found.source["classes"])))


def _add_objects(found: Findings, frames: Sequence[FoundFrame]) -> None:
    numbers = [number for frame in frames for _, number in frame.objects]
    if numbers and None not in numbers:
        found.rows.append(
            ("objects", "have numbers: source.instances keeps them for forecasts by object (docs/forecasting.md)")
        )


def _count_pixels(found: Findings, frames: Sequence[FoundFrame]) -> None:
    """Adds the share of pixels of each class, of some frames."""
    names = {name: name for name in found.source["classes"]} | found.source.get("rename", {})
    counts = dict.fromkeys(found.source["classes"], 0)
    for number in evenly_spaced(len(frames), LOOKED_AT):
        frame = frames[number]
        if frame.size is None:
            continue
        painted = np.zeros(frame.size, np.intp)
        classes = list(counts)
        for region in frame.regions(frame.size):
            ours = names.get(region.class_name, IGNORED)
            painted[region.mask_HW] = classes.index(ours) if ours in counts else -1
        for k, name in enumerate(classes):
            counts[name] += int((painted == k).sum())
    total = sum(counts.values())
    if total:
        found.shares = {name: count / total for name, count in counts.items()}
        top = sorted(found.shares.items(), key=lambda one: -one[1])[:6]
        found.rows.append(("pixels", ", ".join(f"{name}: {share:.1%}" for name, share in top)))
