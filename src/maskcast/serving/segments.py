"""Segments a video or photographs, and writes masks and overlays frame by frame in bounded memory.

Legend: H height, W width, C = 3 channels (RGB); arrays are uint8.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskcast.data.images import read_image, resize_frames
from maskcast.data.masks.colours import palette_image
from maskcast.errors import MaskcastError
from maskcast.inference.enlarging import enlarge_classes
from maskcast.labels import LabelMap, first_class_map
from maskcast.progress import say, track
from maskcast.reading import pluralize
from maskcast.redaction import redacted
from maskcast.registry.loading import LoadedMasker
from maskcast.report.overlays import matte, overlay
from maskcast.report.paint import class_entries, legend_picture
from maskcast.runner.outputs import atomic_output, check_not_exists
from maskcast.serving.backgrounds import Background, compose
from maskcast.serving.records import REVISION, SEGMENTED, is_done, write_record
from maskcast.serving.video_stream import VideoStream, open_stream
from maskcast.serving.video_writer import VideoWriter
from maskcast.serving.videos import photographs_in, video_digest
from maskcast.stopping import add_stop_location, ctrl_c_requests_stop

FOLDERS = {"classes": "masks", "alpha": "mattes"}  # folder of mask images, by kind of label map
LEGEND = "legend.png"  # names and colours of the classes in the overlays
OVERLAY, COMPOSED = "overlay", "composed"  # videos for a video, folders of images for photographs
JPEG_QUALITY = 95
ZLIB_LEVEL = 1  # the fastest: masks are small at any level


class FrameSegmenter:
    """A session that resizes frames to the masker's training size, and its output back.

    Logits and mattes are interpolated bilinearly, and a pixel gets the class that is best then: borders are closer
    to the truth than those of masks that are enlarged.

    Attributes:
        frames: number of masked frames.
        unit: `frame` or `photograph`.
        model_s: seconds of the model's work.
        resets: frames before which the state was reset, with the reason.
    """

    def __init__(self, loaded: LoadedMasker) -> None:
        self._model = loaded.model
        self.session, self._enlarges = loaded.model.session(), False  # logits cost time and memory
        self.size, self.maps = loaded.model.size, loaded.model.network.maps
        self.frames, self.unit, self.model_s = 0, "frame", 0.0
        self.resets: list[dict[str, Any]] = []

    def segment(self, frame_HWC: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the mask (H, W) of each label map for the next frame."""
        height, width = frame_HWC.shape[:2]
        small = frame_HWC if self.size is None else resize_frames(frame_HWC[None], *self.size)[0]
        if small.shape != frame_HWC.shape and not self._enlarges:
            self.session, self._enlarges = self._model.session(logits=True), True
        start = time.perf_counter()
        step = self.session.step(small)
        self.model_s += time.perf_counter() - start
        if step.reset:
            self.resets.append({"frame": self.frames, "why": step.reset})
        self.frames += 1
        masks = {}
        for name, mask_IJ in step.maps.items():
            if mask_IJ.shape != (height, width) and name in self.session.logits:
                masks[name] = enlarge_classes(mask_IJ, self.session.logits[name], height, width)
            else:
                masks[name] = resize_frames(mask_IJ[None], height, width)[0]
        return masks

    def close(self) -> None:
        """Ends the session."""
        self.session.close()


class MaskWriter:
    """Writes a legend and the mask images of every label map into a folder, and draws overlays and compositions.

    Args:
        folder: the folder, which is created.
        maps: label maps of the masker.
        background: background of the compositions; None draws overlays only.
        alpha: whether the foreground comes from the first matte; else it is all objects of the first class map.

    Raises:
        MaskcastError: a matte is requested, but the masker has none.
    """

    def __init__(self, folder: Path, maps: Sequence[LabelMap], background: Background | None, alpha: bool) -> None:
        self.folder, self.maps, self.background = folder, maps, background
        self.kinds = (OVERLAY,) if background is None else (OVERLAY, COMPOSED)
        self._painted = first_class_map(maps) or maps[0]
        self._foreground = foreground_of(maps, alpha)
        for label_map in maps:
            (folder / FOLDERS[label_map.kind] / label_map.name).mkdir(parents=True)
        self.colours: dict[str, str] = {}  # of the overlays, by class name
        if self._painted.kind == "classes":
            entries = class_entries([np.arange(self._painted.num_classes)], self._painted.classes)
            self.colours = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in entries}
            legend_picture(entries).save(folder / LEGEND)

    def add(
        self, name: str, frame_HWC: np.ndarray, masks: dict[str, np.ndarray], backgrounds: Iterator[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Writes the masks of a frame and draws its pictures.

        Args:
            name: stem of the mask images.
            frame_HWC: the frame.
            masks: mask (H, W) of each label map by name.
            backgrounds: yields the background (H, W, C) of each frame.

        Returns:
            Pictures (H, W, C) by kind, ``OVERLAY`` or ``COMPOSED``.
        """
        for label_map in self.maps:
            mask_HW = masks[label_map.name]
            image = palette_image(mask_HW) if label_map.kind == "classes" else Image.fromarray(mask_HW)
            path = self.folder / FOLDERS[label_map.kind] / label_map.name / f"{name}.png"
            image.save(path, compress_level=ZLIB_LEVEL)
        paint = matte if self._painted.kind == "alpha" else overlay
        pictures = {OVERLAY: paint(frame_HWC, masks[self._painted.name])}
        if self.background is not None:
            opacity_HW = masks[self._foreground.name]
            if self._foreground.kind == "classes":
                opacity_HW = np.uint8(255) * (opacity_HW > 0)
            pictures[COMPOSED] = compose(frame_HWC, opacity_HW, next(backgrounds))
        return pictures


class OverlayVideos:
    """Videos of the overlays and compositions of a video, with its audio.

    Args:
        masks: writes the masks and draws the pictures of each frame.
        source: the segmented video.
        stack: closes the videos.
    """

    def __init__(self, masks: MaskWriter, source: VideoStream, stack: ExitStack) -> None:
        self.masks, self.source = masks, source
        self._writers: dict[str, VideoWriter] = {}
        self._backgrounds: Iterator[np.ndarray] = iter(())
        self._early_audio: list[tuple[Any, Fraction]] = []  # before the first frame
        self._stack = stack

    def add(self, number: int, frame_HWC: np.ndarray, time: int, masks: dict[str, np.ndarray]) -> None:
        """Writes frame ``number``, shown from ``time`` on, and its masks (H, W) by label map."""
        if not self._writers:
            self._open_writers(*frame_HWC.shape[:2])
        for kind, picture_HWC in self.masks.add(f"{number:06d}", frame_HWC, masks, self._backgrounds).items():
            self._writers[kind].add(picture_HWC, time)

    def add_audio(self, packet: Any, start: Fraction) -> None:
        """Writes an audio packet, whose times count from ``start`` seconds."""
        if not self._writers:
            self._early_audio.append((packet, start))
        for writer in self._writers.values():
            writer.add_audio(packet, start)

    def _open_writers(self, height: int, width: int) -> None:
        source = self.source
        if self.masks.background is not None:
            self._backgrounds = self.masks.background.fitted(height, width)
        for kind in self.masks.kinds:
            path = self.masks.folder / f"{kind}.mp4"
            writer = VideoWriter(path, height, width, source.rate, source.unit, source.sound)
            self._writers[kind] = self._stack.enter_context(writer)
        for packet, start in self._early_audio:
            self.add_audio(packet, start)
        self._early_audio.clear()


def foreground_of(maps: Sequence[LabelMap], alpha: bool) -> LabelMap:
    """Returns the label map that separates foreground from background.

    Args:
        maps: label maps of the masker.
        alpha: whether it must be a matte; else the first class map is preferred.

    Raises:
        MaskcastError: a matte is required, but the masker has none.
    """
    mattes = [label_map for label_map in maps if label_map.kind == "alpha"]
    if alpha and not mattes:
        names = ", ".join(label_map.name for label_map in maps)
        raise MaskcastError(
            f"--alpha: the model has no matte (label maps: {names}); omit --alpha, or use a model with a matte"
        )
    return mattes[0] if alpha else first_class_map(maps) or mattes[0]


def segment_video(
    loaded: LoadedMasker, video: Path | str, output: Path, background: Background | None, alpha: bool
) -> FrameSegmenter | None:
    """Segments one video, or photographs, and writes a folder atomically; returns the session.

    Returns None if the folder already has the result of the same model, video and background. A camera is read
    until it ends or Ctrl-C is pressed; in both cases the folder is complete.

    Args:
        loaded: the masker.
        video: see ``open_stream``; a string is a camera. Photographs may differ in size.
        output: the folder.
        background: see ``MaskWriter``.
        alpha: see ``MaskWriter``.

    Raises:
        MaskcastError: the output exists or cannot be written, the video is damaged, the background cannot be read,
            or a matte is requested but the masker has none.
    """
    request = _request(loaded, video, background, alpha)
    if not isinstance(video, str) and is_done(output / SEGMENTED, request):
        return None
    check_not_exists(output, "output")
    segmenter = FrameSegmenter(loaded)
    foreground_of(segmenter.maps, alpha)
    photographs = [] if isinstance(video, str) else photographs_in(video)
    segmenter.unit = "photograph" if photographs else "frame"
    with (
        atomic_output(output) as partial,
        add_stop_location(
            lambda: f" at {segmenter.unit} {segmenter.frames}: no output was written, run the same command again"
        ),
        closing(segmenter),
    ):
        maps = [label_map.to_entry() for label_map in segmenter.maps]
        writer = MaskWriter(partial, segmenter.maps, background, alpha)
        record = request | {"model_size": segmenter.size, "maps": maps, "colours": writer.colours}
        if photographs:
            _segment_photographs(segmenter, writer, photographs)
        else:
            record |= _segment_stream(segmenter, writer, video)
        write_record(partial / SEGMENTED, record | {"frames": segmenter.frames})
    return segmenter


def _segment_photographs(segmenter: FrameSegmenter, writer: MaskWriter, photographs: Sequence[Path]) -> None:
    """Masks and writes photographs, each in its own size and with its own name."""
    for kind in writer.kinds:
        (writer.folder / kind).mkdir()
    for path in track(photographs, "segment"):
        frame_HWC = read_image(path)
        segmenter.session.reset()
        backgrounds = iter(()) if writer.background is None else writer.background.fitted(*frame_HWC.shape[:2])
        pictures = writer.add(path.stem, frame_HWC, segmenter.segment(frame_HWC), backgrounds)
        for kind, picture_HWC in pictures.items():
            Image.fromarray(picture_HWC).save(writer.folder / kind / f"{path.stem}.jpg", quality=JPEG_QUALITY)


def _segment_stream(segmenter: FrameSegmenter, writer: MaskWriter, video: Path | str) -> dict[str, Any]:
    """Masks and writes frame by frame, for a camera until Ctrl-C. Returns facts about the video."""
    is_camera = isinstance(video, str)
    with open_stream(video) as stream, ExitStack() as stack:
        videos = OverlayVideos(writer, stream, stack)
        frames = track(stream.play(videos.add_audio), "segment", stream.total)
        with ctrl_c_requests_stop() if is_camera else nullcontext(lambda: False) as stop_requested:
            for frame_HWC, time_shown in frames:
                videos.add(segmenter.frames, frame_HWC, time_shown, segmenter.segment(frame_HWC))
                if stop_requested():
                    say(f"stopped by Ctrl-C: {pluralize(segmenter.frames, 'frame', 'is', 'are')} written")
                    break
    return {"frames_per_second": float(stream.rate), "resets": segmenter.resets}


def _request(
    loaded: LoadedMasker, video: Path | str, background: Background | None, alpha: bool
) -> dict[str, Any]:
    """Returns the part of the record that determines the result: model, video and background."""
    return {
        "format": "maskcast-segments/1",
        "revision": REVISION,
        "model": loaded.identity,
        "video": redacted(str(video)).rpartition("/")[2],
        "digest": None if isinstance(video, str) else video_digest(video),
        "background": None if background is None else {"name": background.name, "digest": background.digest},
        "alpha": alpha,
    }
