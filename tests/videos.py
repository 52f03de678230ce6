"""Small videos of many containers and codecs, as cameras, editors and old programs leave them.

`FILES` has a function per file name that writes it. Where nothing else is said, frame k is about `picture(k)`.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

FRAMES, HEIGHT, WIDTH, KEYS = 36, 48, 64, 8  # KEYS: frames from one key frame to the next
WRAP = 2**33 * 25 // 90_000  # frames after which the times of a transport stream begin again
X264 = {"preset": "ultrafast"}
VP9_ALPHA = {"cpu-used": "8", "auto-alt-ref": "0"}
AV1 = {"preset": "12", "svtav1-params": "lp=1"}
DIVX = b"\x00\x00\x01\xb2DivX503b1393p"  # user data that announces packed B-frames
NOTHING_NEW = b"\x00\x00\x01\xb6\x50\x40\x7f"  # an MPEG-4 frame that says so: what stands after a packed pair


def picture(k: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Returns a frame that no other is like."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 3 + k * 5, y * 4 + k * 3, (x + y) * 2 + k * 7], -1).astype(np.uint8)
    image[10:22, (k * 3) % (width - 12) :][:, :12] = np.random.default_rng(k).integers(0, 255, 3)
    return image


def encode(
    path: Path,
    codec: str,
    *,
    frames: int = FRAMES,
    first: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pix_fmt: str = "yuv420p",
    b_frames: int | None = None,
    codec_options: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    times: Sequence[int] | None = None,
    unit: Fraction = Fraction(1, 25),
    streams: int = 1,
    sound: str = "",
) -> None:
    """Writes a video.

    Args:
        path: its ending names the container.
        codec: name of FFmpeg's encoder.
        frames: how many.
        first: which picture begins.
        size: height and width.
        pix_fmt: FFmpeg's name of what a pixel is stored as.
        b_frames: at most so many in a row; None leaves it to the encoder.
        codec_options: of the encoder.
        options: of the container.
        times: when each frame is shown.
        unit: of `times`, in seconds.
        streams: videos in the file; the n-th begins with `picture(1000 n)`.
        sound: encoder of a sound track, which comes first in the file.
    """
    with av.open(str(path), "w", options=dict(options or {})) as container:
        heard = container.add_stream(sound, rate=48_000) if sound else None
        shown = [container.add_stream(codec, rate=25, options=dict(codec_options or {})) for _ in range(streams)]
        for stream in shown:
            stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
            stream.codec_context.gop_size, stream.codec_context.time_base = KEYS, unit
            stream.codec_context.thread_count = 1  # pools of threads stand still on a busy machine
            if b_frames is not None:
                stream.codec_context.max_b_frames = b_frames
        for k in range(frames):
            for n, stream in enumerate(shown):
                frame = av.VideoFrame.from_ndarray(picture(first + k + 1000 * n, *size), format="rgb24")
                frame.pts, frame.time_base = k if times is None else times[k], unit
                container.mux(stream.encode(frame))
            if heard is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
                silence.sample_rate = 48_000
                container.mux(heard.encode(silence))
        for stream in [*shown, *([heard] if heard else [])]:
            container.mux(stream.encode())


def encode_frames(
    path: Path,
    frames: Sequence[np.ndarray] | np.ndarray,
    codec: str = "libx264",
    rate: int = 25,
    codec_options: Mapping[str, str] | None = None,
) -> Path:
    """Writes a video of these frames (H, W, 3) uint8, and the folder that it is in; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(codec_options or {}))
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def packets(b_frames: int) -> list[tuple[bytes, int, bool]]:
    """Returns an MPEG-4 video in the order of decoding: bytes, number of the frame, whether it is a key frame."""
    codec = av.CodecContext.create("mpeg4", "w")
    codec.height, codec.width, codec.pix_fmt = HEIGHT, WIDTH, "yuv420p"
    codec.time_base, codec.gop_size, codec.max_b_frames = Fraction(1, 25), KEYS, b_frames
    found = []
    for k in range(FRAMES):
        frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
        frame.pts = k
        found += codec.encode(frame)
    return [(bytes(one), one.pts, one.is_keyframe) for one in found + codec.encode(None)]


def avi(path: Path, chunks: Sequence[bytes], keys: Sequence[int], count: int) -> None:
    """Writes packets into an AVI whose header says that there are `count`."""

    def riff(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    main = struct.pack("<10I16x", 40_000, 0, 0, 16, count, 0, 1, 0, WIDTH, HEIGHT)
    stream = b"vidsXVID" + struct.pack(
        "<I2H8I4H", 0, 0, 0, 0, 1, 25, 0, count, 0, 2**32 - 1, 0, 0, 0, WIDTH, HEIGHT
    )
    pixels = struct.pack("<3I2H4s5I", 40, WIDTH, HEIGHT, 1, 24, b"XVID", WIDTH * HEIGHT * 3, 0, 0, 0, 0)
    head = riff(b"LIST", b"strl" + riff(b"strh", stream) + riff(b"strf", pixels))
    content, index = b"movi", b""
    for n, chunk in enumerate(chunks):
        index += b"00dc" + struct.pack("<3I", 16 * (n in keys), len(content), len(chunk))
        content += riff(b"00dc", chunk)
    body = riff(b"LIST", b"hdrl" + riff(b"avih", main) + head) + riff(b"LIST", content) + riff(b"idx1", index)
    path.write_bytes(riff(b"RIFF", b"AVI " + body))


def counted_wrong(path: Path, count: int) -> None:
    found = packets(0)
    avi(path, [data for data, _, _ in found], [n for n, (_, _, key) in enumerate(found) if key], count)


def null_frames(path: Path) -> None:
    """Every fifth frame is followed by a packet without contents: it is shown for longer."""
    chunks, keys = [], []
    for data, number, key in packets(0):
        keys += [len(chunks)] * key
        chunks += [data, b""] if number % 5 == 3 else [data]
    avi(path, chunks, keys, len(chunks))


def packed(path: Path) -> None:
    """A frame and the one that is shown before it share a packet, as DivX and XviD wrote."""
    chunks: list[bytes] = []
    keys, shown = [], -1
    for data, number, key in packets(1):
        if number < shown:
            chunks[-1] += data
            chunks.append(NOTHING_NEW)
            continue
        shown = number
        if key:
            keys.append(len(chunks))
            start = data.index(b"\x00\x00\x01\xb2") if b"\x00\x00\x01\xb2" in data else 0
            rest = min(place for place in map(data.find, (b"\x00\x00\x01\xb3", b"\x00\x00\x01\xb6")) if place >= 0)
            data = data[:start] + DIVX + data[rest:] if start else DIVX + data
        chunks.append(data)
    avi(path, chunks, keys, len(chunks))


def edited(path: Path, skip: int, drop: int) -> None:
    """An edit list leaves out the first `skip` frames and the last `drop`, which are still in the file."""
    encode(path, "libx264", b_frames=2, codec_options={"preset": "veryfast"})
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 12
    length, start = struct.unpack_from(">Ii", data, place)
    struct.pack_into(">Ii", data, place, length - 40 * (skip + drop), start + 512 * skip)
    path.write_bytes(data)


def turned(path: Path, a: int, b: int, c: int, d: int) -> None:
    """A point (x, y) is to be shown at (a x + c y, b x + d y)."""
    encode(path, "libx264", codec_options=X264)
    data = bytearray(path.read_bytes())
    matrix = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *matrix)
    path.write_bytes(data)


def wide_pixels(path: Path) -> None:
    encode(path, "libx264", codec_options=X264 | {"x264-params": "sar=4/3"})


def equal_times(path: Path) -> None:
    """Two frames each have one time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=X264 | {"tune": "zerolatency"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.gop_size = KEYS
        for k in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            frame.pts = k
            for packet in stream.encode(frame):
                packet.pts = packet.dts = k // 2 * 80
                packet.time_base = Fraction(1, 1000)
                container.mux(packet)


def begun_late(path: Path, codec: str, packet: int, head: int = 0) -> None:
    """A recording that begins in the middle of a group of frames; its first `head` packets name the streams."""
    encode(path, codec, frames=2 * FRAMES, b_frames=2)
    data = path.read_bytes()
    path.write_bytes(data[: head * packet] + data[len(data) // 4 // packet * packet :])


def joined(path: Path) -> None:
    """Two recordings in one file: times begin anew."""
    data = b""
    for first in (0, 100):
        encode(path, "mpeg2video", frames=FRAMES // 2, first=first, b_frames=2)
        data += path.read_bytes()
    path.write_bytes(data)


def sound_from_the_middle(path: Path) -> None:
    data = b""
    for first, sound in ((0, ""), (100, "mp2")):
        encode(path, "mpeg2video", frames=FRAMES // 2, first=first, b_frames=2, sound=sound)
        data += path.read_bytes()
    path.write_bytes(data)


def jumping_times() -> list[int]:
    return [2 * k + k % 2 + 7 * (k // 10) for k in range(FRAMES)]


h264 = partial(encode, codec="libx264", codec_options={"preset": "veryfast"})
open_gop = partial(encode, codec="libx264", codec_options={"x264-params": f"open-gop=1:bframes=3:keyint={KEYS}"})
fragments = partial(h264, b_frames=2, options={"movflags": "frag_keyframe+empty_moov+skip_trailer"})
hevc = partial(
    encode,
    codec="libx265",
    codec_options={"preset": "ultrafast", "x265-params": "log-level=error:pools=none:frame-threads=1"},
)
pyramid = {"preset": "veryfast", "bf": "5", "b-pyramid": "normal", "x264-params": "keyint=24"}
refresh = {"x264-params": f"intra-refresh=1:keyint={KEYS}:bframes=0"}

FILES: dict[str, Callable[[Path], None]] = {
    "plain.mp4": partial(h264, b_frames=0),
    "pyramid.mp4": partial(encode, codec="libx264", codec_options=pyramid),
    "edit_front.mp4": partial(edited, skip=10, drop=0),
    "edit_both.mp4": partial(edited, skip=3, drop=12),
    "fragments.mp4": fragments,
    "fragments_indexed.mp4": partial(h264, options={"movflags": "frag_keyframe+empty_moov"}),
    "open_gop.mp4": open_gop,
    "open_gop.mkv": open_gop,
    "open_gop.ts": open_gop,
    "intra_refresh.mp4": partial(encode, codec="libx264", codec_options=refresh),
    "h264.mkv": h264,
    "h264.mov": h264,
    "h264.avi": partial(h264, b_frames=2),
    "h264.flv": h264,
    "h264.ts": h264,
    "h264.m2ts": h264,
    "variable.mp4": partial(h264, times=jumping_times(), unit=Fraction(1, 100)),
    "variable.mkv": partial(h264, times=jumping_times(), unit=Fraction(1, 100)),
    "equal_times.mkv": equal_times,
    "late.mp4": partial(h264, times=range(500, 500 + FRAMES)),
    "late.ts": partial(h264, times=range(500, 500 + FRAMES)),
    "wrapped.ts": partial(h264, times=range(WRAP - 10, WRAP - 10 + FRAMES)),
    "huge.mkv": partial(h264, times=range(2**40, 2**40 + FRAMES), unit=Fraction(1, 1000)),
    "negative.mkv": partial(h264, times=range(-5, FRAMES - 5), options={"avoid_negative_ts": "disabled"}),
    "sound.mp4": partial(h264, sound="aac"),
    "sound.mpg": partial(encode, codec="mpeg2video", b_frames=2, sound="mp2"),
    "two_videos.mkv": partial(h264, streams=2),
    "odd.mp4": partial(h264, size=(47, 63), pix_fmt="yuv444p"),
    "wide_pixels.mp4": wide_pixels,
    "interlaced.mp4": partial(encode, codec="libx264", codec_options=X264 | {"x264-params": "tff=1"}),
    "interlaced.mpg": partial(encode, codec="mpeg2video", codec_options={"flags": "+ilme+ildct"}, b_frames=2),
    "ten_bits.mp4": partial(h264, pix_fmt="yuv420p10le"),
    "grey.mp4": partial(h264, pix_fmt="gray"),
    "rgb.mp4": partial(encode, codec="libx264rgb", pix_fmt="rgb24", codec_options=X264),
    "hevc.mp4": hevc,
    "hevc_ten_bits.mkv": partial(hevc, pix_fmt="yuv420p10le"),
    "xvid.avi": partial(encode, codec="mpeg4", b_frames=0),
    "xvid_b.avi": partial(encode, codec="mpeg4", b_frames=2),
    "packed.avi": packed,
    "null_frames.avi": null_frames,
    "counted_high.avi": partial(counted_wrong, count=500),
    "counted_low.avi": partial(counted_wrong, count=5),
    "msmpeg4.avi": partial(encode, codec="msmpeg4"),
    "mpeg4.mp4": partial(encode, codec="mpeg4", b_frames=2),
    "mjpeg.avi": partial(encode, codec="mjpeg", pix_fmt="yuvj420p"),
    "mjpeg.mov": partial(encode, codec="mjpeg", pix_fmt="yuvj420p"),
    "prores.mov": partial(encode, codec="prores_ks", pix_fmt="yuv422p10le"),
    "alpha.mov": partial(encode, codec="qtrle", pix_fmt="argb"),
    "mpeg1.mpg": partial(encode, codec="mpeg1video", b_frames=2),
    "mpeg2.mpg": partial(encode, codec="mpeg2video", b_frames=2),
    "mpeg2.ts": partial(encode, codec="mpeg2video", b_frames=2),
    "mpeg2.mxf": partial(encode, codec="mpeg2video", size=(96, 128)),
    "begun_late.ts": partial(begun_late, codec="libx264", packet=188, head=3),
    "begun_late.mpg": partial(begun_late, codec="mpeg2video", packet=2048),
    "joined.ts": joined,
    "joined.mpg": joined,
    "sound_from_the_middle.ts": sound_from_the_middle,
    "vp8.webm": partial(encode, codec="libvpx", codec_options={"auto-alt-ref": "1", "lag-in-frames": "10"}),
    "vp9_alpha.webm": partial(encode, codec="libvpx-vp9", pix_fmt="yuva420p", codec_options=VP9_ALPHA),
    "vp9.webm": partial(encode, codec="libvpx-vp9", codec_options={"cpu-used": "8", "lag-in-frames": "10"}),
    "av1.mp4": partial(encode, codec="libsvtav1", codec_options=AV1),
    "ffv1.mkv": partial(encode, codec="ffv1"),
    "wmv.wmv": partial(encode, codec="wmv2"),
    "sorenson.flv": partial(encode, codec="flv"),
    "phone.3gp": partial(encode, codec="h263", size=(96, 128)),
    "animated.gif": partial(encode, codec="gif", pix_fmt="rgb8"),
}
SHORT = {".mp4": "libx264", ".avi": "mpeg4", ".mpg": "mpeg2video", ".webm": "libvpx-vp9", ".mov": "mjpeg"}
