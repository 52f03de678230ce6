"""Checks of what is written to a clip store; each error is one line."""

from collections.abc import Mapping

import numpy as np

from maskcast.data.clip_store.compression import CompressedLayer
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, KINDS, SPLITS, LabelMap

DTYPES = {"classes": np.uint8, "instances": np.uint16, "alpha": np.uint8}  # by the kind of a label map
Layer = np.ndarray | CompressedLayer


def check_split(clip_id: str, split: str, kind: str) -> None:
    """Refuses an unknown split or kind."""
    if split not in SPLITS or kind not in KINDS:
        raise MaskcastError(
            f"clip {clip_id!r}: split {split!r}, kind {kind!r}; allowed: {', '.join(SPLITS)} and "
            f"{', '.join(KINDS)}"
        )


def check_layers(
    clip_id: str,
    maps: Mapping[str, LabelMap],
    size: tuple[int, int],
    frames: np.ndarray | None,
    masks: Mapping[str, Layer],
    confidence: Mapping[str, Layer],
) -> None:
    """Refuses layers of an unknown map, of the wrong size or dtype, without frames or with different lengths."""
    for name in (*masks, *confidence):
        if name not in maps:
            raise MaskcastError(
                f"clip {clip_id!r}: masks of {name!r}, which is not a label map of this store; "
                f"allowed: {', '.join(maps)}"
            )
    given: list[tuple[str, Layer, type, tuple[int, ...]]] = []
    if frames is not None:
        given.append(("frames", frames, np.uint8, (*size, 3)))
    for name, mask in masks.items():
        given.append((_layer_text("masks", name, maps), mask, DTYPES[maps[name].kind], size))
    for name, layer in confidence.items():
        given.append((_layer_text("confidence", name, maps), layer, np.uint8, size))
    lengths = {len(layer) for _, layer, _, _ in given}
    if len(lengths) > 1 or 0 in lengths:
        raise MaskcastError(
            f"clip {clip_id!r}: layers have {sorted(lengths)} frames; give all of them the same number"
        )
    for what, layer, dtype, shape in given:
        if np.dtype(layer.dtype) != dtype or layer.shape[1:] != shape:
            same_form = np.dtype(layer.dtype) == dtype and layer.shape[3:] == shape[2:]
            remedy = "resize them (height and width of prepare_clips)" if same_form else "convert them"
            raise MaskcastError(
                f"clip {clip_id!r}: {what} are {layer.dtype} {layer.shape}; the store holds {np.dtype(dtype)} "
                f"{('T', *shape)}, frames, rows, columns{', colours' * (len(shape) > 2)}: {remedy}"
            )


def check_objects(clip_id: str, maps: Mapping[str, LabelMap], objects: Mapping[str, Mapping[int, int]]) -> None:
    """Refuses objects in a map that is not of kind instances, and object ids or class ids out of range."""
    for name, classes in objects.items():
        if name not in maps or maps[name].kind != "instances":
            have = ", ".join(each.name for each in maps.values() if each.kind == "instances") or "none"
            raise MaskcastError(
                f"clip {clip_id!r}: objects of {name!r}, which is not a map of kind instances; allowed: {have}"
            )
        most = maps[name].num_classes - 1
        for instance, class_id in classes.items():
            if not (0 < instance < 1 << 16 and 0 < class_id <= most):
                raise MaskcastError(
                    f"clip {clip_id!r}: object {instance} of map {name!r} is of class {class_id}; "
                    f"allowed: objects 1 to 65535 of classes 1 to {most}"
                )


def check_values(clip_id: str, label_map: LabelMap, mask_THW: np.ndarray, objects: Mapping[int, int]) -> None:
    """Refuses class ids out of range and instances without a class; alpha masks may have any value."""
    if label_map.kind == "classes":
        allowed = np.zeros(256, bool)
        allowed[: label_map.num_classes] = allowed[IGNORE] = True
        if not allowed[mask_THW].all():
            worst, most = int(mask_THW[~allowed[mask_THW]].max()), label_map.num_classes - 1
            raise MaskcastError(
                f"clip {clip_id!r}: class id {worst} is not among the {most + 1} classes (0 to {most}, "
                f"or {IGNORE} for no label); fix the mask or the list of classes"
            )
    if label_map.kind == "instances":
        unknown = [int(one) for one in np.unique(mask_THW) if one and int(one) not in objects]
        if unknown:
            raise MaskcastError(
                f"clip {clip_id!r}: instance {unknown[0]} of map {label_map.name!r} has no class; give it in "
                "objects"
            )


def _layer_text(layer: str, name: str, maps: Mapping[str, LabelMap]) -> str:
    return layer if len(maps) == 1 else f"{layer} of map {name!r}"
