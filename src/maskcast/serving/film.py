"""A forecast to look at: what was seen under its masks, then the masks to come, as mp4 and as GIF.

Legend: T frames seen, h horizon, H height, W width, C = 3 channels (RGB); arrays are uint8.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from maskcast.data.images import resize_masks
from maskcast.errors import MaskcastError
from maskcast.report.overlays import Row, grid, overlay
from maskcast.report.paint import class_entries
from maskcast.report.pictures import GIF_MS

FPS = Fraction(1000, GIF_MS)
LAST_FRAMES = 4  # the last picture stays so many times as long
CELL_WIDTHS = (320, 640)
CODECS = ("libx264", "mpeg4")  # browsers play the first; FFmpeg has the second everywhere


def draw_film(
    frames_THWC: np.ndarray, seen_THW: np.ndarray, future_hHW: np.ndarray, classes: Sequence[str], title: str
) -> list[Image.Image]:
    """Returns one picture a frame: the frames of the video under their masks, then the forecast masks alone.

    Args:
        frames_THWC: as they are in the video; masks are enlarged to their size.
        seen_THW: the masks that the forecast started from.
        future_hHW: the forecast.
        classes: names by id; those that occur stand below each picture.
        title: what is said above each picture, beside the number of its frame, which counts from 1.
    """
    size = frames_THWC.shape[1:3]
    masks = resize_masks(np.concatenate([seen_THW, future_hHW]), *size)
    legend = class_entries([seen_THW, future_hHW], classes)
    pictures = []
    for t, mask_HW in enumerate(masks):
        seen = t < len(frames_THWC)
        cell = overlay(frames_THWC[t] if seen else None, mask_HW)
        row = Row("", [cell], [f"frame {t + 1}, {'seen' if seen else 'forecast'}"])
        pictures.append(grid([row], title, CELL_WIDTHS, legend))
    return pictures


def write_film(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Writes a film as the file's name says.

    Raises:
        MaskcastError: the name ends neither in ``.mp4`` nor in ``.gif``.
    """
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix not in writers:
        raise MaskcastError(f"{path}: films are written as {' and '.join(writers)}; name the file so")
    writers[path.suffix](path, pictures)


def _write_gif(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Writes an animation that repeats."""
    durations = [GIF_MS] * (len(pictures) - 1) + [LAST_FRAMES * GIF_MS]
    pictures[0].save(path, save_all=True, append_images=list(pictures[1:]), duration=durations, loop=0)


def _write_mp4(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Writes a video of H.264 (of MPEG-4 where FFmpeg has no encoder for it) that plays while it loads."""
    codec = next(name for name in CODECS if name in av.codecs_available)
    width, height = (
        side + side % 2 for side in pictures[0].size
    )  # half the resolution for colours needs even sides
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in [*pictures, *[pictures[-1]] * (LAST_FRAMES - 1)]:
            even = np.pad(
                np.asarray(picture), [(0, height - picture.height), (0, width - picture.width), (0, 0)], "edge"
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode(None))
