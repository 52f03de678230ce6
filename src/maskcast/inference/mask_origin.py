"""Checks whose masks a store of generated masks holds, so that no score is of another masker, or of labels."""

from pathlib import Path

from maskcast.data.clip_store.reader import ClipStore
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.inference.label_propagation import takes_labels

MASKER = "masker"  # in the meta of generated masks: ``digest_tree`` of the masker
PARAMS = "generate_masks"  # in the meta of generated masks: all params of the stage


def check_masker(masks: ClipStore, masker: Path, remedy: str) -> None:
    """Checks that masks were made by a masker.

    Args:
        masks: generated masks.
        masker: folder of the masker.
        remedy: what else to do, for the error.

    Raises:
        MaskcastError: they were made by another masker, or do not say by which.
    """
    made_by = masks.meta.get(MASKER)
    if made_by != digest_tree(masker):
        fault = "do not say which masker made them" if made_by is None else "were made by another masker"
        raise MaskcastError(
            f"{masks.root}: the masks {fault}, and are to be scored as those of {masker}; run generate_masks with "
            f"it{remedy}"
        )


def check_no_labels(masks: ClipStore, split: str) -> None:
    """Checks that the masks of a split are a masker's own, without labels of the clips (``LabelPropagator``).

    Raises:
        MaskcastError: some are labels.
    """
    if (masks.meta.get(PARAMS) or {}).get("propagated") is None:
        return
    for clip in masks.where(lambda group: group.split == split):
        if takes_labels(clip):
            raise MaskcastError(
                f"{masks.root}: the masks of clip {clip.id!r} hold its labels (generate_masks.propagated), so "
                f"scores of split {split!r} would be too high; score masks that were generated with propagated: "
                "null, or another split"
            )
