"""Segments a video or photographs, and writes masks and overlays frame by frame in bounded memory.

Legend: H height, W width, C = 3 channels (RGB); arrays are uint8.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskcast.data.images import read_image, resize_frames, resize_masks
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, first_class_map
from maskcast.progress import say, track
from maskcast.reading import pluralize
from maskcast.redaction import redacted
from maskcast.registry.loading import LoadedMasker
from maskcast.report.overlays import matte, overlay
from maskcast.report.paint import palette
from maskcast.runner.outputs import atomic_output, check_not_exists
from maskcast.serving.backgrounds import Background, compose
from maskcast.serving.film import Film
from maskcast.serving.playing import Playing, playing
from maskcast.serving.videos import SEGMENTED, photographs_in
from maskcast.stopping import add_stop_location, ctrl_c_requests_stop
from maskcast.writing import write_json

FOLDERS = {"classes": "masks", "alpha": "mattes"}  # folder of mask images, by kind of label map
OVERLAY, COMPOSED = "overlay", "composed"  # films for a video, folders for photographs
QUALITY = 95  # of JPEG, for pictures that are only looked at
QUICKLY = 1  # zlib level: masks are small at any level


class Watched:
    """A session that resizes frames to the masker's training size, and its masks back.

    Attributes:
        frames: number of masked frames.
        what: `frame` or `photograph`.
        model_s: seconds of the model's work.
        resets: frames before which the state was reset, with the reason.
    """

    def __init__(self, loaded: LoadedMasker) -> None:
        self.session = loaded.model.session()
        self.size, self.maps = loaded.model.size, loaded.model.network.maps
        self.frames, self.what, self.model_s = 0, "frame", 0.0
        self.resets: list[dict[str, Any]] = []

    def look(self, frame_HWC: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the mask (H, W) of each label map for the next frame."""
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


class Pictures:
    """Writes mask images of every label map into a folder, and makes pictures to look at.

    Args:
        folder: is created.
        maps: label maps of the masker.
        background: for a composed picture of the foreground.
        alpha: whether the foreground comes from the first matte; else it is all objects of the first class map.

    Raises:
        MaskcastError: a matte is requested, but the masker has none.
    """

    def __init__(self, folder: Path, maps: Sequence[LabelMap], background: Background | None, alpha: bool) -> None:
        self.folder, self.maps, self.background = folder, maps, background
        self.kinds = (OVERLAY,) if background is None else (OVERLAY, COMPOSED)
        self._painted = first_class_map(maps) or maps[0]
        self._foreground = foreground_of(maps, alpha)
        for one in maps:
            (folder / FOLDERS[one.kind] / one.name).mkdir(parents=True)

    def add(
        self, name: str, frame_HWC: np.ndarray, found: dict[str, np.ndarray], behind: Iterator[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Writes the masks of a frame under its name; returns its pictures (H, W, C) by kind."""
        for one in self.maps:
            image = Image.fromarray(found[one.name])
            if one.kind == "classes":
                image.putpalette(palette().tobytes())
            path = self.folder / FOLDERS[one.kind] / one.name / f"{name}.png"
            image.save(path, compress_level=QUICKLY)
        paint = matte if self._painted.kind == "alpha" else overlay
        pictures = {OVERLAY: paint(frame_HWC, found[self._painted.name])}
        if self.background is not None:
            opacity_HW = found[self._foreground.name]
            if self._foreground.kind == "classes":
                opacity_HW = np.where(opacity_HW > 0, 255, 0)
            pictures[COMPOSED] = compose(frame_HWC, opacity_HW, next(behind))
        return pictures


class Films:
    """Films of a video's pictures, with its sound.

    Args:
        pictures: makes the pictures of each frame.
        video: the segmented video.
        opened: closes the films.
    """

    def __init__(self, pictures: Pictures, video: Playing, opened: ExitStack) -> None:
        self.pictures, self.video = pictures, video
        self._films: dict[str, Film] = {}
        self._behind: Iterator[np.ndarray] = iter(())
        self._early: list[tuple[Any, Fraction]] = []  # audio before the first frame
        self._open = opened

    def add(self, number: int, frame_HWC: np.ndarray, shown: int, found: dict[str, np.ndarray]) -> None:
        """Writes a frame and its masks."""
        if not self._films:
            self._begin(*frame_HWC.shape[:2])
        for kind, picture_HWC in self.pictures.add(f"{number:06d}", frame_HWC, found, self._behind).items():
            self._films[kind].add(picture_HWC, shown)

    def hear(self, packet: Any, start: Fraction) -> None:
        """Writes an audio packet."""
        if not self._films:
            self._early.append((packet, start))
        for film in self._films.values():
            film.hear(packet, start)

    def _begin(self, height: int, width: int) -> None:
        video = self.video
        if self.pictures.background is not None:
            self._behind = self.pictures.background.fitted(height, width)
        for kind in self.pictures.kinds:
            path = self.pictures.folder / f"{kind}.mp4"
            film = Film(path, height, width, video.rate, video.unit, video.sound)
            self._films[kind] = self._open.enter_context(film)
        for packet, start in self._early:
            self.hear(packet, start)
        self._early.clear()


def foreground_of(maps: Sequence[LabelMap], alpha: bool) -> LabelMap:
    """Returns the label map that tells foreground from background.

    Args:
        maps: label maps of the masker.
        alpha: whether it must be a matte; else the first class map is preferred.

    Raises:
        MaskcastError: there is no matte.
    """
    mattes = [one for one in maps if one.kind == "alpha"]
    if alpha and not mattes:
        names = ", ".join(one.name for one in maps)
        raise MaskcastError(
            f"--alpha: this model finds no matte, but {names}; leave it out, or give another model"
        )
    return mattes[0] if alpha else first_class_map(maps) or mattes[0]


def segment_video(
    loaded: LoadedMasker, video: Path | str, output: Path, background: Background | None, alpha: bool
) -> Watched:
    """Segments one video, or photographs, and writes a folder atomically; returns the session.

    A camera is read until it ends or Ctrl-C is pressed; its folder is complete then, too.

    Args:
        loaded: the masker.
        video: see ``playing``; a string is a camera. Photographs may differ in size.
        output: the folder.
        background: see ``Pictures``.
        alpha: see ``Pictures``.

    Raises:
        MaskcastError: the output exists or cannot be written, the video is damaged, the background cannot be read,
            or a matte is requested but the masker has none.
    """
    check_not_exists(output, "output")
    watched = Watched(loaded)
    foreground_of(watched.maps, alpha)
    photographs = [] if isinstance(video, str) else photographs_in(video)
    watched.what = "photograph" if photographs else "frame"
    with (
        atomic_output(output) as partial,
        add_stop_location(
            lambda: f" at {watched.what} {watched.frames}: nothing is written, run the same command again"
        ),
        watched.session,
    ):
        record = _entry(loaded, str(video), watched)
        pictures = Pictures(partial, watched.maps, background, alpha)
        if photographs:
            _look_at(watched, pictures, photographs)
        else:
            record |= _watch(watched, pictures, video)
        write_json(partial / SEGMENTED, record | {"frames": watched.frames})
    return watched


def _look_at(watched: Watched, pictures: Pictures, photographs: Sequence[Path]) -> None:
    """Masks and writes photographs, each in its own size and with its own name."""
    for kind in pictures.kinds:
        (pictures.folder / kind).mkdir()
    for path in track(photographs, "segment"):
        frame_HWC = read_image(path)
        watched.session.reset()
        behind = iter(()) if pictures.background is None else pictures.background.fitted(*frame_HWC.shape[:2])
        drawn = pictures.add(path.stem, frame_HWC, watched.look(frame_HWC), behind)
        for kind, picture_HWC in drawn.items():
            Image.fromarray(picture_HWC).save(pictures.folder / kind / f"{path.stem}.jpg", quality=QUALITY)


def _watch(watched: Watched, pictures: Pictures, video: Path | str) -> dict[str, Any]:
    """Masks and writes frame by frame, for a camera until Ctrl-C. Returns facts about the video."""
    camera = isinstance(video, str)
    with playing(video) as opened, ExitStack() as ends:
        films = Films(pictures, opened, ends)
        frames = track(opened.play(films.hear), "segment", opened.total)
        with ctrl_c_requests_stop() if camera else nullcontext(lambda: False) as asked:
            for frame_HWC, shown in frames:
                films.add(watched.frames, frame_HWC, shown, watched.look(frame_HWC))
                if asked():
                    say(f"ended by Ctrl-C: {pluralize(watched.frames, 'frame', 'is', 'are')} kept")
                    break
    return {"frames_per_second": float(opened.rate), "resets": watched.resets}


def _entry(loaded: LoadedMasker, name: str, watched: Watched) -> dict[str, Any]:
    """Returns a record of model and video."""
    return {
        "format": "maskcast-segments/1",
        "model": loaded.identity,
        "video": redacted(name).rpartition("/")[2],
        "model_size": watched.size,
        "maps": [one.to_entry() for one in watched.maps],
    }
