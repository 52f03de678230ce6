"""SA-V's files, `sav_000001_manual.json`: one a video, with a mask per masklet of every fourth frame.

Its objects have no classes. Those that are not seen have an empty mask, or none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskcast.data.coco.records import Records
from maskcast.errors import MaskcastError
from maskcast.reading import shown

EVERY = 4  # frames of the video to one with masks: 24 and 6 a second
OBJECT = "object"  # class of all


def is_sa_v(content: Any) -> bool:
    """Whether what a JSON holds is of this form."""
    return isinstance(content, dict) and {"masklet", "masklet_id", "video_id"} <= content.keys()


def sa_v_lists(file: Path, content: Mapping[str, Any]) -> tuple[Records, Records, Records]:
    """Returns videos, categories and annotations as YouTube-VIS has them; ``reading.parsing`` stands around it.

    Raises:
        MaskcastError: a frame has more or fewer masks than there are masklets.
    """
    frames, ids = content["masklet"], content["masklet_id"]
    for t, masks in enumerate(frames):
        if not isinstance(masks, list) or len(masks) != len(ids):
            have = len(masks) if isinstance(masks, list) else shown(masks)
            raise MaskcastError(
                f"{file}: masklet[{t}] must be one per masklet_id, {len(ids)}, not {have}; mend it"
            )
    size = {key: int(content[f"video_{key}"]) for key in ("height", "width")}  # 848.0
    names = [f"{content['video_id']}/{EVERY * t:05d}.jpg" for t in range(len(frames))]
    annotations = [
        {"id": one, "instance_id": one, "video_id": 0, "category_id": 0, "segmentations": [m[k] for m in frames]}
        for k, one in enumerate(ids)
    ]
    return (
        Records(f"{file}: video", [{"id": 0, **size, "file_names": names}]),
        Records(f"{file}: class", [{"id": 0, "name": OBJECT}]),
        Records(f"{file}: masklet", annotations),
    )
