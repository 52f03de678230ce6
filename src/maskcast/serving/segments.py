"""A video or photographs under masks: written frame by frame, in memory that does not grow with them.

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
from maskcast.labels import LabelMap, first_of_classes
from maskcast.progress import say, track
from maskcast.reading import counted
from maskcast.redaction import redacted
from maskcast.registry.loading import LoadedMasker
from maskcast.report.overlays import matte, overlay
from maskcast.report.paint import palette
from maskcast.runner.outputs import check_new, output_whole
from maskcast.serving.backgrounds import Background, compose
from maskcast.serving.film import Film
from maskcast.serving.playing import Playing, playing
from maskcast.serving.videos import SEGMENTED, photographs_in
from maskcast.stopping import ctrl_c_asks, saying_where
from maskcast.writing import write_json

FOLDERS = {"classes": "masks", "alpha": "mattes"}  # of a label map's images, by its kind
OVERLAY, COMPOSED = "overlay", "composed"  # films of a video, folders of photographs
QUALITY = 95  # of JPEG: pictures are looked at, masks stand beside them
QUICKLY = 1  # of zlib's levels: masks are small at any


class Watched:
    """A session on the frames of a video, which are resized to what a masker was trained on, and its masks back.

    Attributes:
        frames: how many have been masked.
        what: they are, `frame` or `photograph`.
        model_s: seconds that the model took for them.
        resets: frames before which what was remembered was dropped, and why.
    """

    def __init__(self, loaded: LoadedMasker) -> None:
        self.session = loaded.model.session()
        self.size, self.maps = loaded.model.size, loaded.model.network.maps
        self.frames, self.what, self.model_s = 0, "frame", 0.0
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


class Pictures:
    """Images of every label map of a frame in a folder, and what people look at.

    Args:
        folder: made by this.
        maps: what is found in frames.
        background: what the foreground is put before, in a picture of its own.
        alpha: whether the foreground is that of the first matte; if not, all objects of the first map of classes.

    Raises:
        MaskcastError: a matte is asked for, and none is found in frames.
    """

    def __init__(self, folder: Path, maps: Sequence[LabelMap], background: Background | None, alpha: bool) -> None:
        self.folder, self.maps, self.background = folder, maps, background
        self.kinds = (OVERLAY,) if background is None else (OVERLAY, COMPOSED)
        self._painted = first_of_classes(maps) or maps[0]
        self._foreground = foreground_of(maps, alpha)
        for one in maps:
            (folder / FOLDERS[one.kind] / one.name).mkdir(parents=True)

    def add(
        self, name: str, frame_HWC: np.ndarray, found: dict[str, np.ndarray], behind: Iterator[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Writes what is found in a frame under its name; returns its pictures (H, W, C) by kind."""
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
    """The pictures of a video, as films with its sound.

    Args:
        pictures: what is drawn of each frame.
        video: what is segmented.
        opened: ends them.
    """

    def __init__(self, pictures: Pictures, video: Playing, opened: ExitStack) -> None:
        self.pictures, self.video = pictures, video
        self._films: dict[str, Film] = {}
        self._behind: Iterator[np.ndarray] = iter(())
        self._early: list[tuple[Any, Fraction]] = []  # sound before the first frame
        self._open = opened

    def add(self, number: int, frame_HWC: np.ndarray, shown: int, found: dict[str, np.ndarray]) -> None:
        """Writes a frame and what is found in it."""
        if not self._films:
            self._begin(*frame_HWC.shape[:2])
        for kind, picture_HWC in self.pictures.add(f"{number:06d}", frame_HWC, found, self._behind).items():
            self._films[kind].add(picture_HWC, shown)

    def hear(self, packet: Any, start: Fraction) -> None:
        """Writes a packet of the sound."""
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
    """Writes the folder of one video, or of photographs, whole or not at all; returns what was watched.

    A camera is watched until it ends or Ctrl-C, and then its folder is whole, too.

    Args:
        loaded: masks the frames.
        video: see ``playing``; a text is a camera. Photographs may have a size each.
        output: the folder.
        background: see ``Pictures``.
        alpha: see ``Pictures``.

    Raises:
        MaskcastError: the output is there already or cannot be written, the video is damaged, the background
            cannot be read, or the model finds no matte where one is asked for.
    """
    check_new(output, "output")
    watched = Watched(loaded)
    foreground_of(watched.maps, alpha)
    photographs = [] if isinstance(video, str) else photographs_in(video)
    watched.what = "photograph" if photographs else "frame"
    with (
        output_whole(output) as partial,
        saying_where(
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
    """Masks and writes photographs, each at its own size and under its own name."""
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
    """Masks and writes frame by frame; the first Ctrl-C ends the film of a camera. Returns what it was like."""
    camera = isinstance(video, str)
    with playing(video) as opened, ExitStack() as ends:
        films = Films(pictures, opened, ends)
        frames = track(opened.play(films.hear), "segment", opened.total)
        with ctrl_c_asks() if camera else nullcontext(lambda: False) as asked:
            for frame_HWC, shown in frames:
                films.add(watched.frames, frame_HWC, shown, watched.look(frame_HWC))
                if asked():
                    say(f"ended by Ctrl-C: {counted(watched.frames, 'frame', 'is', 'are')} kept")
                    break
    return {"frames_per_second": float(opened.rate), "resets": watched.resets}


def _entry(loaded: LoadedMasker, name: str, watched: Watched) -> dict[str, Any]:
    """Returns which model masks which video."""
    return {
        "format": "maskcast-segments/1",
        "model": loaded.identity,
        "video": redacted(name).rpartition("/")[2],
        "model_size": watched.size,
        "maps": [one.to_entry() for one in watched.maps],
    }
