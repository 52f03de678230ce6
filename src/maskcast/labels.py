"""The vocabulary of labels: splits, kinds of clips, and the class id that means none."""

import re

IGNORE = 255  # mask value left out of losses and metrics
KINDS = ("labelled", "unlabelled", "hidden")
SPLITS = ("train", "val", "test", "unlabeled", "hidden")


def id_key(clip_id: str) -> list[tuple[int, int | str]]:
    """Sort key that orders ids as people number them: ``video_2`` before ``video_10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", clip_id) if part]
