"""Checks of what a source listed, before any pixels are read."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.clip_store.table import id_hash
from maskcast.data.sources.base import Listing, SourceConfig
from maskcast.errors import MaskcastError
from maskcast.labels import SPLITS, Split
from maskcast.plugins import checked_return, class_name


def list_clips(source: SourceConfig, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
    """Lists the clips of a raw folder; see ``SourceConfig.listing``.

    Raises:
        MaskcastError: the folder does not have the layout, or a layout of another package lists something else.
    """
    found = source.listing(raw, height=height, width=width, seed=seed)
    listing: Listing = checked_return(source, "listing", Listing, found)
    return listing


def check_meta(source: SourceConfig, meta: Mapping[str, Any], place: str) -> None:
    """Refuses a meta that is not JSON, before the work of preparing clips.

    Args:
        source: the source that listed it.
        meta: of a clip or of the listing.
        place: what it belongs to, for errors.

    Raises:
        MaskcastError: a value is not JSON; the message names its key.
    """
    for key, value in meta.items():
        try:
            json.dumps({key: value})
        except (TypeError, ValueError) as error:
            raise MaskcastError(
                f"{class_name(source)}: the meta of {place} has {key!r}, which is not JSON ({error}); "
                "convert it, e.g. by str"
            ) from None


def check_ids(listing: Listing) -> None:
    """Refuses clips with the same id.

    Raises:
        MaskcastError: names the id and both splits.
    """
    hashes = np.fromiter((id_hash(clip.id) for clip in listing.clips), np.uint64, len(listing.clips))
    order = np.argsort(hashes, kind="stable")
    for k in np.flatnonzero(np.diff(hashes[order]) == 0):
        first, second = (listing.clips[int(row)] for row in order[k : k + 2])
        if first.id == second.id:
            splits = f"{first.split} and {second.split}"
            raise MaskcastError(f"clip id {first.id!r} occurs twice (splits {splits}); rename one of them")


def check_splits(raw: Path, listing: Listing, source: SourceConfig, required: Sequence[Split]) -> None:
    """Refuses a listing with unknown splits, or without clips in required ones, because a later stage would fail.

    Args:
        raw: raw folder.
        listing: what was found there.
        source: the source that listed it.
        required: splits that must have clips.

    Raises:
        MaskcastError: a split is unknown, or a required one has no clips.
    """
    unknown = next((clip for clip in listing.clips if clip.split not in SPLITS), None)
    if unknown is not None:
        raise MaskcastError(
            f"{raw}: clip {unknown.id!r} is of split {unknown.split!r}; fix {source.splits_come_from}; allowed: "
            f"{', '.join(SPLITS)}"
        )
    with_frames = Counter(clip.split for clip in listing.clips if clip.has_frames)
    # If there are frames, maskers cannot use clips that have only masks; if there are none, forecasters use these.
    clip_counts = with_frames or Counter(clip.split for clip in listing.clips)
    missing = [split for split in required if not clip_counts[split]]
    if not clip_counts or not missing:  # if nothing was found, another error says so
        return
    found = ", ".join(f"{count} {split}" for split, count in clip_counts.items())
    reason = "and one clip cannot be used for both training and validation; " if clip_counts.total() == 1 else ""
    available = ", ".join(split for split in required if clip_counts[split])
    skipped = f"{skip_reasons(listing.skipped)}; or " if listing.skipped else ", "
    by_sequence = getattr(source, "split_by", None) == "sequence"
    by_time = ", or set source.split_by: time if there is only one sequence" if by_sequence else ""
    raise MaskcastError(
        f"{raw}: no clip of split {missing[0]!r} (found: {found}){skipped}{reason}fix {source.splits_come_from}"
        f"{by_time}; where nothing is to be trained, set prepare_clips.required_splits to [{available}]"
    )


def skip_reasons(skipped: Sequence[tuple[str, str]]) -> str:
    """Returns the end of an error message: the number of left-out items and the main reason, or a remedy."""
    if not skipped:
        return "; fix the path or source.layout"
    kinds = [reason.replace(item, "") for item, reason in skipped]
    kind, count = Counter(kinds).most_common(1)[0]
    item, reason = skipped[kinds.index(kind)]
    which = "first" if count == 1 else f"{count} of them like"
    return f"; {len(skipped)} left out, {which} {item}: {reason}"
