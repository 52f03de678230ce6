"""Saves and loads segmenters; ``config.json`` has config and label maps, weights are safetensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, first_class_map, label_maps_from_json, single_map
from maskcast.models.base import build_and_load, read_description, save_model, validated_config
from maskcast.models.config import as_text
from maskcast.models.segmentation.base import Masker, Segmenter
from maskcast.models.segmentation.changed_classes import adapt_classes, class_changes
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.models.segmentation.configs import SegmenterConfig
from maskcast.plugins import checked_return
from maskcast.progress import say
from maskcast.reading import reason_of

MIRROR = "mirror"  # key in meta; see Masker


def save_masker(folder: Path, masker: Segmenter, config: SegmenterModelConfig, meta: dict[str, Any]) -> None:
    """Writes a segmenter, its config and its label maps.

    ``num_classes`` and ``classes`` of the description are those of its first map of kind ``classes``.

    Args:
        folder: made if it does not exist.
        masker: built by ``config``.
        config: its config.
        meta: further information for readers, as JSON values.
    """
    if isinstance(masker, Masker) and masker.mirror:
        meta = {**meta, MIRROR: True}
    first = first_class_map(masker.maps) or masker.maps[0]
    maps = [each.to_entry() for each in masker.maps]
    meta = {"classes": list(first.classes), **meta, "maps": maps}
    save_model(folder, masker, config, num_classes=first.num_classes, meta=meta)


def load_masker(folder: Path) -> tuple[Segmenter, dict[str, Any]]:
    """Returns the segmenter that ``train_masker`` wrote, in eval mode, and its description.

    Raises:
        MaskcastError: if the folder holds no segmenter or a damaged one.
    """
    description = read_description(folder)
    config: SegmenterModelConfig = validated_config(folder, description, SegmenterConfig, "masker")
    try:
        maps = _maps(description["meta"])
    except (MaskcastError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MaskcastError(
            f"{folder / 'config.json'}: no classes or label maps ({reason_of(error)}); train the masker again"
        ) from None
    masker = build_and_load(folder, description, config, lambda: build_segmenter(config, maps))
    if isinstance(masker, Masker):
        masker.mirror = description["meta"].get(MIRROR) is True
    return masker, description


def build_segmenter(config: SegmenterModelConfig, maps: Sequence[LabelMap]) -> Segmenter:
    """Returns a freshly initialised segmenter.

    Raises:
        MaskcastError: if the config, which may be of another package, builds something else.
    """
    segmenter: Segmenter = checked_return(config, "build", Segmenter, config.build(maps))
    return segmenter


def start_from_masker(segmenter: Segmenter, config: SegmenterModelConfig, folder: Path) -> None:
    """Loads a trained masker into a segmenter of the same kind, or as the base of a recurrent one.

    If the classes differ, weights are taken by the names of classes (see ``adapt_classes``), and a line says so.

    Args:
        segmenter: gets the weights, and the mean and std of colours.
        config: the config that built it.
        folder: what ``train_masker`` wrote.

    Raises:
        MaskcastError: if the folder holds no masker, one of another architecture or size, or one whose weights
            cannot be adapted to the label maps.
    """
    masker, description = load_masker(folder)
    state, known = segmenter.state_dict(), masker.state_dict()
    if masker.maps != segmenter.maps:
        try:
            known = adapt_classes(masker, segmenter, config)
        except MaskcastError as error:
            raise MaskcastError(
                f"{folder}: its label maps and classes differ from those of the clips, and {error}; use a masker "
                "of such clips, or set train_masker.anew to true"
            ) from None
    missing = {name for name in state.keys() - known.keys() if not name.startswith("memories.")}
    if missing or any(name not in state or state[name].shape != known[name].shape for name in known):
        raise MaskcastError(
            f"{folder}: is {as_text(description['model'])}; set train_masker.model, or its base, to that, or anew "
            "to true"
        )
    if masker.maps != segmenter.maps:
        changes = class_changes(masker.maps, segmenter.maps)
        say(f"{folder}: trained on other classes, which are matched by name; {changes}")
    segmenter.load_state_dict(known, strict=False)


def map_index(folder: Path, masker: Segmenter, name: str, remedy: str) -> int:
    """Returns the index of a label map among those of a masker.

    Args:
        folder: of the masker, for the error.
        masker: loaded from it.
        name: of the map.
        remedy: advice for the error if there is no such map.

    Raises:
        MaskcastError: if there is no such map.
    """
    names = [label_map.name for label_map in masker.maps]
    if name not in names:
        raise MaskcastError(f"{folder}: label map {name!r} not found (maps: {', '.join(names)}); {remedy}")
    return names.index(name)


def _maps(meta: dict[str, Any]) -> tuple[LabelMap, ...]:
    """Returns the label maps of a description; an old one has only the classes of a single map."""
    if "maps" not in meta:
        return single_map(meta["classes"])
    return label_maps_from_json(meta["maps"])
