"""Copies the audio of a video into another video."""

import math
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

# codecs that MP4 supports; others are converted to AAC
COPIED = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
RATE = 48_000  # samples per second of encoded audio


class AudioTrack:
    """The audio track of a written video: copied without loss if MP4 supports the codec, else encoded as AAC.

    Args:
        container: the written video, before its first packet.
        source: an audio stream with a known codec.
    """

    def __init__(self, container: Any, source: Any) -> None:
        self._container, self._last = container, -math.inf
        self._copies = source.codec_context.codec.canonical_name in COPIED
        if self._copies:
            self._stream = container.add_stream_from_template(source)
        else:
            layout = "mono" if source.codec_context.channels == 1 else "stereo"
            self._stream = container.add_stream("aac", rate=RATE, layout=layout)
            self._resampler = av.AudioResampler("fltp", layout, RATE)

    def add(self, packet: Any, start: Fraction) -> None:
        """Adds an audio packet, whose times count from ``start`` seconds; an empty one ends the track.

        Packets earlier than the last one are dropped, as times restart in concatenated files.
        """
        if self._copies:
            if not packet.size or packet.dts is None:
                return
            offset = round(start / packet.time_base)
            if packet.dts - offset <= self._last:
                return
            self._last = packet.dts - offset
            copy = av.Packet(bytes(packet))  # a copy, as muxing consumes the packet, which another video may need
            copy.pts, copy.dts = packet.pts - offset, packet.dts - offset
            copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, self._stream
            self._container.mux(copy)
            return
        for frame in _decoded(packet):
            if frame.pts is not None:
                frame.pts -= round(start / frame.time_base)
                if frame.pts <= self._last:
                    continue
                self._last = frame.pts
            self._encode(frame)

    def end(self) -> None:
        """Flushes the encoder."""
        if not self._copies:
            self._encode(None)
            self._container.mux(self._stream.encode(None))

    def _encode(self, frame: Any) -> None:
        for piece in self._resampler.resample(frame):
            self._container.mux(self._stream.encode(piece))


def _decoded(packet: Any) -> list[Any]:
    with suppress(av.FFmpegError):  # damaged audio is skipped
        return list(packet.decode())
    return []
