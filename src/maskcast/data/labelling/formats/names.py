"""Names of frames in label files: they survive other tools, and identify clip and frame exactly."""

import re
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.data.labelling.formats.base import FrameId

FRAME_RULE = (
    "<video or clip>_<frame>.png or <video or clip>/<frame>.png, frames from 0 on, as in exports, or "
    "<video>/<name of the image in the raw data>"
)
VIDEO_FRAME = re.compile(r"frame_(\d{6,9})(?:\.png)?", re.IGNORECASE)  # CVAT's name of a video frame
UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio's prefix of an uploaded file


def clip_name(clip: str) -> str:
    """Returns a clip id quoted for file names."""
    return quote(clip, safe=" ")


def frame_name(clip: str, frame: int) -> str:
    """Returns the file name of a frame's image."""
    return f"{clip_name(clip)}_{frame:06d}.png"


def frame_ids_of(name: str) -> list[FrameId]:
    """Returns the clips and frames that an image's name may refer to, the likeliest first; see `FRAME_RULE`."""
    path, stems = path_and_stems(name)
    frame_ids = [
        (unquote(match[1]), int(match[2])) for each in stems if (match := re.fullmatch(r"(.+)_(\d{1,9})", each))
    ]
    if re.fullmatch(r"\d{1,9}", stems[0]) and path.parent.name:
        frame_ids.append((unquote(path.parent.name), int(stems[0])))
    return frame_ids


def path_and_stems(name: str) -> tuple[PurePosixPath, list[str]]:
    """Returns the path of an image, and its name without ending: as it is, and as it was before an upload."""
    path = PurePosixPath(name.replace("\\", "/"))
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return path, [stem] + ([uploaded[1]] if (uploaded := UPLOADED.fullmatch(stem)) else [])
