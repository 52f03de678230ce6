"""A video under its masks: written frame by frame, in memory that does not grow with it.

Legend: H height, W width, C = 3 channels (RGB); arrays are uint8.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from maskcast.data.images import resize_frames, resize_masks
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, first_of_classes
from maskcast.progress import say, track
from maskcast.reading import counted
from maskcast.redaction import redacted
from maskcast.registry.loading import LoadedMasker
from maskcast.report.overlays import matte, overlay
from maskcast.report.paint import palette
from maskcast.runner.outputs import output_whole
from maskcast.serving.backgrounds import Background, compose
from maskcast.serving.film import Film
from maskcast.serving.playing import Playing, playing
from maskcast.stopping import ctrl_c_asks, saying_where
from maskcast.writing import write_json

RECORD = "segment.json"
FOLDERS = {"classes": "masks", "alpha": "mattes"}  # of a label map's images, by its kind
OVERLAY, COMPOSED = "overlay.mp4", "composed.mp4"
QUICKLY = 1  # of zlib's levels: masks are small at any


class Watched:
    """A session on the frames of a video, which are resized to what a masker was trained on, and its masks back.

    Attributes:
        frames: how many have been masked.
        model_s: seconds that the model took for them.
        resets: frames before which what was remembered was dropped, and why.
    """

    def __init__(self, loaded: LoadedMasker) -> None:
        self.session = loaded.model.session()
        self.size, self.maps = loaded.model.size, loaded.model.network.maps
        self.frames, self.model_s = 0, 0.0
        self.resets: list[dict[str, Any]] = []

    def look(self, frame_HWC: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what is found of each label map in the next frame, (H, W)."""
        height, width = frame_HWC.shape[:2]
        small = frame_HWC if self.size is None else resize_frames(frame_HWC[None], *self.size)[0]
        start = time.perf_counter()
        step = self.session.step(small)
        self.model_s += time.perf_counter() - start
        if step.reset:
            self.resets.append({"frame": self.frames, "why": step.reset})
        self.frames += 1
        resize = {"classes": resize_masks, "alpha": resize_frames}
        return {one.name: resize[one.kind](step.maps[one.name][None], height, width)[0] for one in self.maps}


class Writer:
    """The folder of a video: images of every label map, and films.

    Args:
        folder: made by this.
        video: what is segmented.
        maps: what is found in it.
        background: what the foreground is put before, in a film of its own.
        alpha: whether the foreground is that of the first matte; if not, all objects of the first map of classes.

    Raises:
        MaskcastError: a matte is asked for, and none is found in frames.
    """

    def __init__(
        self, folder: Path, video: Playing, maps: Sequence[LabelMap], background: Background | None, alpha: bool
    ) -> None:
        self.folder, self.video, self.maps, self.background = folder, video, maps, background
        self.painted = first_of_classes(maps) or maps[0]
        self.foreground = foreground_of(maps, alpha)
        self._films: dict[str, Film] = {}
        self._behind: Iterator[np.ndarray] = iter(())
        self._early: list[tuple[Any, Fraction]] = []  # sound before the first frame
        self._open = ExitStack()
        for one in maps:
            (folder / FOLDERS[one.kind] / one.name).mkdir(parents=True)

    def add(self, number: int, frame_HWC: np.ndarray, shown: int, found: dict[str, np.ndarray]) -> None:
        """Writes a frame and what is found in it."""
        if not self._films:
            self._begin(*frame_HWC.shape[:2])
        for one in self.maps:
            image = Image.fromarray(found[one.name])
            if one.kind == "classes":
                image.putpalette(palette().tobytes())
            path = self.folder / FOLDERS[one.kind] / one.name / f"{number:06d}.png"
            image.save(path, compress_level=QUICKLY)
        paint = matte if self.painted.kind == "alpha" else overlay
        self._films[OVERLAY].add(paint(frame_HWC, found[self.painted.name]), shown)
        if self.background is not None:
            opacity_HW = found[self.foreground.name]
            if self.foreground.kind == "classes":
                opacity_HW = np.where(opacity_HW > 0, 255, 0)
            self._films[COMPOSED].add(compose(frame_HWC, opacity_HW, next(self._behind)), shown)

    def hear(self, packet: Any, start: Fraction) -> None:
        """Writes a packet of the sound."""
        if not self._films:
            self._early.append((packet, start))
        for film in self._films.values():
            film.hear(packet, start)

    def _begin(self, height: int, width: int) -> None:
        video, names = self.video, [OVERLAY]
        if self.background is not None:
            names.append(COMPOSED)
            self._behind = self.background.fitted(height, width)
        for name in names:
            film = Film(self.folder / name, height, width, video.rate, video.unit, video.sound)
            self._films[name] = self._open.enter_context(film)
        for packet, start in self._early:
            self.hear(packet, start)
        self._early.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


def foreground_of(maps: Sequence[LabelMap], alpha: bool) -> LabelMap:
    """Returns the label map that tells foreground from background.

    Args:
        maps: what a masker finds.
        alpha: whether it must be a matte; if not, the first map of classes goes before.

    Raises:
        MaskcastError: there is no matte.
    """
    mattes = [one for one in maps if one.kind == "alpha"]
    if alpha and not mattes:
        names = ", ".join(one.name for one in maps)
        raise MaskcastError(
            f"--alpha: this model finds no matte, but {names}; leave it out, or give another model"
        )
    return mattes[0] if alpha else first_of_classes(maps) or mattes[0]


def segment_video(
    loaded: LoadedMasker, video: Path | str, output: Path, background: Background | None, alpha: bool
) -> Watched:
    """Writes the folder of one video, whole or not at all; returns what was watched.

    A camera is watched until it ends or Ctrl-C, and then its folder is whole, too.

    Args:
        loaded: masks the frames.
        video: see ``playing``; a text is a camera.
        output: the folder.
        background: see ``Writer``.
        alpha: see ``Writer``.

    Raises:
        MaskcastError: the output is there already or cannot be written, the video is damaged, the background
            cannot be read, or the model finds no matte where one is asked for.
    """
    if output.exists():
        raise MaskcastError(f"{output}: is there already; remove it, or give another --output")
    watched = Watched(loaded)
    foreground_of(watched.maps, alpha)
    with (
        output_whole(output) as partial,
        saying_where(lambda: f" at frame {watched.frames}: nothing is written, run the same command again"),
        playing(video) as opened,
    ):
        with watched.session, Writer(partial, opened, watched.maps, background, alpha) as writer:
            _watch(watched, writer, camera=isinstance(video, str))
        _write_record(partial, loaded, str(video), watched, opened)
    return watched


def _watch(watched: Watched, writer: Writer, camera: bool) -> None:
    """Masks and writes frame by frame; the first Ctrl-C ends the film of a camera."""
    frames = track(writer.video.play(writer.hear), "segment", writer.video.total)
    with ctrl_c_asks() if camera else nullcontext(lambda: False) as asked:
        for frame_HWC, shown in frames:
            writer.add(watched.frames, frame_HWC, shown, watched.look(frame_HWC))
            if asked():
                say(f"ended by Ctrl-C: {counted(watched.frames, 'frame', 'is', 'are')} kept")
                break


def _write_record(folder: Path, loaded: LoadedMasker, name: str, watched: Watched, video: Playing) -> None:
    """Writes what was done: which model, which video, when what was remembered was dropped."""
    record = {
        "format": "maskcast-segments/1",
        "model": loaded.identity,
        "video": redacted(name.rpartition("/")[2]),
        "frames": watched.frames,
        "frames_per_second": float(video.rate),
        "model_size": watched.size,
        "maps": [one.to_entry() for one in watched.maps],
        "resets": watched.resets,
    }
    write_json(folder / RECORD, record)
