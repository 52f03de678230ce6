"""prepare_detection: convert images and boxes of any layout to a detection set in COCO format."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from pathlib import Path

from pydantic import Field

from maskcast.data.detection.sources.base import LabelledImage, check_units
from maskcast.data.detection.sources.table import Source
from maskcast.data.detection.writer import DetectionWriter
from maskcast.data.frame_names import class_key, original_name, same_stem_warning
from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.data.mirror_swaps import find_sides, mirror_swaps_meta, side_warnings
from maskcast.data.sources.splits import split_by_shares
from maskcast.dry_run_notes import first_of_each_part, is_dry_run
from maskcast.errors import MaskcastError
from maskcast.files import match_files
from maskcast.labels import natural_sort_key
from maskcast.params import Params, PathPattern
from maskcast.progress import say
from maskcast.reading import first_few, pluralize
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.seed import draw_at_most, rng

MAX_CLASSES = 5  # maximum number of classes in a warning


class PrepareDetection(Params):
    """Params of prepare_detection."""

    source: Source
    """Layout of the raw data, and how to read it."""
    val_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training images held out as `val` if the source names no validation images."""
    unlabeled: PathPattern | None = None
    """Images without boxes, as a pattern of paths, e.g. `unlabeled/*.PNG` or `unlabeled/**/*`; null takes none."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of images of each split, and of unlabelled ones, drawn with the seed; null takes all."""
    max_size: int | None = Field(default=None, ge=1)
    """Maximum length in pixels of the longer side; larger images are downscaled, with their boxes. null keeps all
    sizes."""
    seed: int = Field(default=0, ge=0)
    """Seed of `val_share` and `limit`."""


@stage
def prepare_detection(*, raw: InPath, dataset: OutPath, params: PrepareDetection) -> None:
    """Converts images and boxes to a detection set: COCO format, classes 0..K-1, boxes inside images.

    Boxes are clipped to their image. Boxes without a positive width and height, or with less than 1 pixel after
    clipping and downscaling, are dropped. `dataset.json` counts both and lists the dropped ones.

    Args:
        raw: data set, the output of `fetch_dataset`.
        dataset: detection set (see `maskcast.data.detection.dataset`).
        params: layout of the data set, and choice and size of the images.

    Raises:
        MaskcastError: the data do not have the layout, labels are malformed, boxes do not have the units of
            `source.boxes`, no box of a split is left, or an image is missing, damaged or of another size than its
            labels state.
    """
    listing = params.source.listing(raw)
    check_units(listing.splits, params.source.boxes)
    splits = dict(listing.splits)
    if "val" not in splits:
        splits |= _held_out(splits["train"], params.val_share, params.seed)
    labelled = {os.path.realpath(image.path) for images in splits.values() for image in images}
    unlabeled = _unlabeled(raw, params.unlabeled, labelled) if params.unlabeled else []

    writer = DetectionWriter(
        dataset,
        listing.classes,
        listing.original_ids,
        params.max_size,
        shares=params.source.boxes == "shares",
        meta=mirror_swaps_meta(params.source.mirror_swaps, listing.classes),
    )
    for split, images in splits.items():
        chosen = first_of_each_part(draw_at_most(images, params.limit, rng(params.seed, 1)), _constant_key(split))
        _report(raw, split, len(chosen), writer.add_split(split, chosen))
    if unlabeled:
        chosen_files = first_of_each_part(
            draw_at_most(unlabeled, params.limit, rng(params.seed, 1)), _constant_key("unlabeled")
        )
        writer.add_unlabeled(chosen_files)
    writer.finish()
    all_taken = params.limit is None and not is_dry_run()
    for warning in _class_warnings(listing.classes, writer.used if all_taken else listing.classes):
        say(warning)
    for warning in writer.shared.warnings("image"):
        say(warning)
    no_flip = "set train_detector.augment.hflip to 0"
    for warning in side_warnings(find_sides(listing.classes), params.source.mirror_swaps, no_flip):
        say(warning)
    say(f"{pluralize(len(listing.classes), 'class')}: {', '.join(listing.classes)}")


def _class_warnings(classes: Sequence[str], used: Collection[str]) -> Iterator[str]:
    """Yields a line about classes with almost the same name, and one about classes without a usable box."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[class_key(name)].append(name)
    if same := [names for names in alike.values() if len(names) > 1]:
        more = f", and {len(same) - 1} more names" if same[1:] else ""
        yield (
            f"warning: classes {' and '.join(map(repr, same[0]))} differ only in case, spaces or Unicode "
            f"form{more}, but each is a class of its own; if they are one, give them one name in the labels"
        )
    if unused := [name for name in classes if name not in used]:
        without_box = pluralize(len(unused), "class", "has", "have")
        yield f"warning: {without_box} no usable box, so nothing is learnt of {first_few(unused, MAX_CLASSES)}"


def _held_out(images: Sequence[LabelledImage], share: float, seed: int) -> dict[str, list[LabelledImage]]:
    """Returns `train` and `val`, each in the order of the source; augmented copies of one image stay together.

    Raises:
        MaskcastError: no image is left to train on, or an image is listed twice and could be in both splits.
    """
    duplicates = [path for path, count in Counter(image.path for image in images).items() if count > 1]
    if duplicates:
        raise MaskcastError(
            f"{duplicates[0]}: listed twice in train, so val_share may put it into train and val; list it once"
        )
    split_of = split_by_shares([image.name for image in images], {"val": share}, seed)
    if "train" not in split_of.values():
        count = len({original_name(name) for name in split_of})
        raise MaskcastError(
            f"val_share: {share} of {pluralize(count, 'image')} leaves none to train on; add images"
        )
    return {split: [image for image in images if split_of[image.name] == split] for split in ("train", "val")}


def _constant_key(part: str) -> Callable[[object], str]:
    """Returns a function that assigns all images to one part."""
    return lambda _: part


def _unlabeled(raw: Path, pattern: str, labelled: Container[str]) -> list[tuple[Path, str]]:
    """Returns the images that a pattern matches, each with a name that contains its subfolder.

    Args:
        raw: folder that the pattern is relative to.
        pattern: pattern of paths.
        labelled: real paths of images with labels, which are left out.

    Raises:
        MaskcastError: no image matches, or all have labels.
    """
    matches = [path for path in match_files(raw, pattern) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not matches:
        raise MaskcastError(f"{raw}: no image matches unlabeled {pattern!r}; fix the pattern, or set it to null")
    files = [path for path in matches if os.path.realpath(path) not in labelled]
    if not files:
        raise MaskcastError(
            f"{raw}: all images that unlabeled {pattern!r} matches have labels; fix it, or set it to null"
        )
    left_out = f"; {len(matches) - len(files)} with labels are left out" if len(files) < len(matches) else ""
    say(f"unlabeled: {pluralize(len(files), 'image')}{left_out}")
    if duplicates := same_stem_warning(files):
        say(f"unlabeled: {duplicates}, and both are used; remove masks and duplicates")
    common = os.path.commonpath([path.parent for path in files])
    named_files = [(path, path.relative_to(common).as_posix().replace("/", "_")) for path in files]
    return sorted(named_files, key=lambda named: natural_sort_key(named[1]))


def _report(raw: Path, split: str, images: int, boxes: Counter[str]) -> None:
    """Prints the numbers of kept, clipped and dropped boxes of a split.

    Raises:
        MaskcastError: all boxes were dropped.
    """
    kept = boxes["kept"] + boxes["clipped"]
    dropped = boxes["degenerate"] + boxes["under_1_px"]
    reasons = f"{boxes['degenerate']} without a positive size, {boxes['under_1_px']} under 1 pixel"
    if dropped and not kept:
        raise MaskcastError(
            f"{raw}: no usable box in {split} ({reasons}); fix the labels: boxes are two corners in `voc` and "
            "`label_files`, corner and size in `coco`, in the units of source.boxes"
        )
    say(
        f"{split}: {pluralize(images, 'image')}, {pluralize(kept, 'box')} ({boxes['clipped']} "
        f"clipped to their image); dropped {dropped} ({reasons})"
    )
