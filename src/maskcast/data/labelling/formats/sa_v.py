"""SA-V's `sav_000001_manual.json`: one file per video, with a mask per masklet in every fourth frame.

Objects have no classes. Objects that are not visible have an empty mask, or none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskcast.data.coco.records import Records
from maskcast.errors import MaskcastError
from maskcast.reading import short_repr

FRAME_STRIDE = 4  # video frames per labelled frame: 24 and 6 fps
OBJECT = "object"  # class name of all objects


def is_sa_v(content: Any) -> bool:
    """Whether parsed JSON has this format."""
    return isinstance(content, dict) and {"masklet", "masklet_id", "video_id"} <= content.keys()


def sa_v_lists(file: Path, content: Mapping[str, Any]) -> tuple[Records, Records, Records]:
    """Returns videos, categories and annotations in the form of YouTube-VIS; call it inside ``reading.parsing``.

    Raises:
        MaskcastError: a frame has more or fewer masks than there are masklets.
    """
    frames, ids = content["masklet"], content["masklet_id"]
    for t, masks in enumerate(frames):
        if not isinstance(masks, list) or len(masks) != len(ids):
            found = len(masks) if isinstance(masks, list) else short_repr(masks)
            raise MaskcastError(
                f"{file}: masklet[{t}] must be one per masklet_id, {len(ids)}, not {found}; fix it"
            )
    size = {key: int(content[f"video_{key}"]) for key in ("height", "width")}  # a float in the file: 848.0
    names = [f"{content['video_id']}/{FRAME_STRIDE * t:05d}.jpg" for t in range(len(frames))]
    annotations = [
        {
            "id": masklet_id,
            "instance_id": masklet_id,
            "video_id": 0,
            "category_id": 0,
            "segmentations": [m[k] for m in frames],
        }
        for k, masklet_id in enumerate(ids)
    ]
    return (
        Records(f"{file}: video", [{"id": 0, **size, "file_names": names}]),
        Records(f"{file}: class", [{"id": 0, "name": OBJECT}]),
        Records(f"{file}: masklet", annotations),
    )
