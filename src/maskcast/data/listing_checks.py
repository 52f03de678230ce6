"""Checks of what a source listed, before any pixels are read."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.table import id_hash
from maskcast.data.sources.base import Listing, SourceConfig
from maskcast.errors import MaskcastError
from maskcast.labels import Split


def check_ids(listing: Listing) -> None:
    """Refuses clips with the same id.

    Raises:
        MaskcastError: names the id and both splits.
    """
    hashes = np.fromiter((id_hash(clip.id) for clip in listing.clips), np.uint64, len(listing.clips))
    order = np.argsort(hashes, kind="stable")
    for k in np.flatnonzero(np.diff(hashes[order]) == 0):
        one, other = (listing.clips[int(row)] for row in order[k : k + 2])
        if one.id == other.id:
            splits = f"{one.split} and {other.split}"
            raise MaskcastError(f"clip id {one.id!r} occurs twice (splits {splits}); rename one of them")


def check_splits(raw: Path, listing: Listing, source: SourceConfig, required: Sequence[Split]) -> None:
    """Refuses a listing without clips in required splits, because a later stage would fail.

    Args:
        raw: raw folder.
        listing: what was found there.
        source: the source that listed it.
        required: splits that must have clips.

    Raises:
        MaskcastError: a required split has no clips.
    """
    whole = Counter(clip.split for clip in listing.clips if clip.has_frames)
    # If there are frames, maskers cannot use clips that have only masks; if there are none, forecasters use these.
    found = whole or Counter(clip.split for clip in listing.clips)
    missing = [split for split in required if not found[split]]
    if not found or not missing:  # if nothing was found, another error says so
        return
    have = ", ".join(f"{count} {split}" for split, count in found.items())
    why = "and one clip cannot be both learnt from and scored; " if found.total() == 1 else ""
    others = ", ".join(split for split in required if found[split])
    lost = f"{reasons(listing.skipped)}; or " if listing.skipped else ", "
    raise MaskcastError(
        f"{raw}: no clip of split {missing[0]!r} (found: {have}){lost}{why}fix {source.splits_come_from}; where "
        f"nothing is to be trained, set prepare_clips.required_splits to [{others}]"
    )


def reasons(skipped: Sequence[tuple[str, str]]) -> str:
    """Returns the end of an error message: the number of left-out items and the main reason, or a remedy."""
    if not skipped:
        return "; fix the path or source.layout"
    kinds = [reason.replace(item, "") for item, reason in skipped]
    kind, count = Counter(kinds).most_common(1)[0]
    item, reason = skipped[kinds.index(kind)]
    which = "first" if count == 1 else f"{count} of them like"
    return f"; {len(skipped)} left out, {which} {item}: {reason}"
