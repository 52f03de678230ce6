"""Indexes the frames of a video file, and where decoding can start with the same result.

Frame i is the i-th frame that a decoder returns from the start of the file. What containers state about frames
(counts, times, key frames) may be wrong. So a file is indexed by decoding it, unless its packets prove the same:
one frame per packet, distinct times, and key frames that reset the decoder.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.video_files.file import check_complete, damaged_error, decode_frames, open_video, to_rgb
from maskcast.errors import MaskcastError

CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})  # containers that store a time for each frame
# codecs whose key frames all reset the decoder
RESETTING_CODECS = frozenset({"vp9", "libdav1d", "mjpeg", "prores", "dnxhd"})
# In these codecs only some kinds of NAL units do; frames shown before a CRA (21) need an earlier key frame.
RESETTING_NAL_UNITS = {"h264": frozenset({5}), "hevc": frozenset({19, 20, 21})}
HEVC_SEQUENCE_END = frozenset({36, 37})  # NAL units after which decoders drop the frames shown before a CRA
PROGRESSIVE = (0, 1)  # field orders (0: unknown); in others each field may have its own packet
# Pixel formats that are compared as stored, in a third of the time.
NATIVE_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv420p10le"})
NO_TIME = np.iinfo(np.int64).min  # of a frame for which the file states none
DIGEST_BYTES = hashlib.sha256().digest_size
NUM_PROBED = 16  # frames that are decoded to check that packets are frames
MAX_CACHED = 10_000  # videos; `maskcast init` looks at all several times, and a listing keeps all indexes anyway


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a file, or some of them.

    Attributes:
        num_frames: number of frames of the file.
        unit: of times, in seconds.
        keys: frames at which decoding can start, ascending, int64.
        times: when each frame is shown, int64 in units of the stream, or ``NO_TIME``.
        digests: hash of each frame's pixels, one after the other; None if the times identify the frames.
        first: number of the frame that ``times`` and ``digests`` begin with.
    """

    num_frames: int
    unit: float
    keys: np.ndarray
    times: np.ndarray
    digests: bytes | None
    first: int = 0

    def time(self, number: int) -> int | None:
        """Returns when a frame is shown; before the first and after the last, when that is. None if unknown."""
        time = int(self.times[min(max(number - self.first, 0), len(self.times) - 1)])
        return None if time == NO_TIME else time

    def digest(self, number: int) -> bytes | None:
        """Returns the hash of a frame's pixels; None if times identify the frames."""
        start = (number - self.first) * DIGEST_BYTES
        return None if self.digests is None else self.digests[start : start + DIGEST_BYTES]

    def keys_before(self, number: int, most: int) -> list[int]:
        """Returns at most so many of the last key frames up to a frame, the nearest first; the first never is."""
        keys = self.keys[(self.keys > 0) & (self.keys <= number)]
        return keys[: -most - 1 : -1].tolist()

    def around(self, first: int, last: int, most_keys: int, margin: int) -> "VideoIndex":
        """Returns what is needed to read some frames, which is small enough to be sent to a process.

        Args:
            first: number of the first one.
            last: number of the last one.
            most_keys: number of key frames up to the first one to keep, besides those after it.
            margin: number of frames before and after whose times are needed, too.
        """
        before = np.searchsorted(self.keys, first, "right")
        keys = self.keys[max(0, before - most_keys) : np.searchsorted(self.keys, last, "right")]
        start, stop = max(0, min([first, *keys[:1].tolist()]) - margin), min(self.num_frames, last + 1 + margin)
        digests = self.digests and self.digests[start * DIGEST_BYTES : stop * DIGEST_BYTES]
        return VideoIndex(self.num_frames, self.unit, keys, self.times[start:stop], digests, start)


def index_video(path: Path) -> VideoIndex:
    """Returns the index of a file; recent indexes are cached as long as their files are unchanged.

    Raises:
        MaskcastError: if the file is missing, not a video, damaged or cut short.
    """
    try:
        found = path.stat()
    except OSError:
        raise MaskcastError(f"{path}: video not found; fix the path") from None
    return _index(path, found.st_size, found.st_mtime_ns)


def frame_digest(frame: Any) -> bytes:
    """Returns a hash of the pixels of a decoded frame."""
    native = frame.format.name in NATIVE_FORMATS and not (frame.width % 2 or frame.height % 2)
    pixels = frame.to_ndarray() if native else to_rgb(frame)
    return hashlib.sha256(pixels.data).digest()


@lru_cache(maxsize=MAX_CACHED)
def _index(path: Path, size: int, mtime_ns: int) -> VideoIndex:
    return _by_packets(path) or _by_decoding(path)


def _by_packets(path: Path) -> VideoIndex | None:
    """Returns the index if the packets prove it, else None."""
    times: list[int] = []
    starts: list[int] = []
    before = None
    with open_video(path) as (container, stream):
        codec = stream.codec_context
        known = container.format.name in CONTAINERS and codec.name in RESETTING_CODECS | RESETTING_NAL_UNITS.keys()
        if not known or codec.field_order not in PROGRESSIVE:
            return None
        for packet in container.demux(stream):
            if packet.dts is None and not packet.size:
                continue  # end of the stream
            if packet.pts is None or packet.is_discard or packet.is_corrupt or not packet.size:
                return None
            if packet.is_keyframe:
                if codec.name in RESETTING_NAL_UNITS and not _resets(codec, packet, before):
                    return None
                starts.append(packet.pts)
            times.append(packet.pts)
            before = packet
        check_complete(path, container, stream)
        reorder, counted, unit = codec.reorder_depth, stream.frames, float(stream.time_base)
    if len(set(times)) < len(times) or not times[:1] == starts[:1] == [min(times, default=0)]:
        return None
    shown = np.sort(times)
    # A decoder that reorders over too few frames would drop some.
    if (np.arange(len(times)) - np.searchsorted(shown, times)).max() > reorder or counted not in (0, len(times)):
        return None
    with open_video(path) as (container, stream):
        probed = [frame.pts for _, frame in zip(range(NUM_PROBED), container.decode(stream), strict=False)]
    if probed != shown[:NUM_PROBED].tolist():
        return None
    return VideoIndex(len(shown), unit, np.searchsorted(shown, starts), shown, None)


def _resets(codec: Any, packet: Any, before: Any) -> bool:
    """Whether decoding from a key frame's packet on gives the same frames as decoding from the start."""
    if codec.name == "hevc" and before is not None and HEVC_SEQUENCE_END & set(_nal_units(codec, before)):
        return False
    return bool(RESETTING_NAL_UNITS[codec.name] & set(_nal_units(codec, packet)))


def _nal_units(codec: Any, packet: Any) -> Iterator[int]:
    """Yields the type of each NAL unit in a packet in which each unit follows its length (as in MP4)."""
    setup, data = codec.extradata or b"", bytes(packet)
    lengths, shift, mask = (4, 0, 0x1F) if codec.name == "h264" else (21, 1, 0x3F)
    if len(setup) <= lengths or setup[0] != 1:
        return
    width, place = (setup[lengths] & 3) + 1, 0
    while place + width < len(data):
        yield data[place + width] >> shift & mask
        place += width + int.from_bytes(data[place : place + width])


def _by_decoding(path: Path) -> VideoIndex:
    """Returns the index of a file, by decoding all of it."""
    times: list[int] = []
    keys: list[int] = []
    digests = bytearray()
    with open_video(path, "AUTO") as (container, stream):
        unit = float(stream.time_base)
        for frame in decode_frames(path, container, stream):
            if frame.is_corrupt:
                raise damaged_error(path, len(times))
            if frame.key_frame:
                keys.append(len(times))
            times.append(NO_TIME if frame.pts is None else frame.pts)
            digests += frame_digest(frame)
    if not times:
        raise MaskcastError(f"{path}: no frame can be decoded; copy it again from its origin")
    return VideoIndex(len(times), unit, np.array(keys, np.int64), np.array(times, np.int64), bytes(digests))
