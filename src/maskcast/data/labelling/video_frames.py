"""Finds the frames of a video in the clips of a store, which may overlap."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.labelling.formats.base import FrameId
from maskcast.data.labelling.formats.names import frame_ids_of, frame_name, path_and_stems
from maskcast.data.video_files.frames import VIDEO_SUFFIXES


class VideoFrames:
    """The places of video frames in the clips of a store.

    Label files name a video without the extension of its file, as labelling tools do, if that is unique.

    Args:
        store: clips that do not know their video's frames have places of their own only.
    """

    def __init__(self, store: ClipStore) -> None:
        self._store = store
        self._clips: dict[str, list[str]] = defaultdict(list)  # ids by video
        for clip in store.clips:
            if clip.video_frames is not None:
                self._clips[clip.video].append(clip.id)
        stems = Counter(map(_stem, self._clips))
        self._videos = {_stem(video): video for video in self._clips if stems[_stem(video)] == 1}
        self._own_names: dict[str, Mapping[str, int]] = {}  # by video, when first needed: number of each name
        self._own_numbers: dict[str, Mapping[int, Sequence[int]]] = {}  # likewise, by the number in a name
        self._misread: dict[str, bool] = {}  # by video: whether an image has the name that another frame gets
        self._places: dict[str, Mapping[int, Sequence[FrameId]]] = {}  # by video and number, when first needed

    def name_of(self, clip: Clip) -> str | None:
        """Returns the name of a clip's video in label files; None if files must name the clip.

        That is so if the clip does not know its video's frames, a clip has the video's name, or an image of the
        raw data has the name that another frame gets.
        """
        name = _stem(clip.video) if _stem(clip.video) in self._videos else clip.video
        if clip.video_frames is None or name in self._store:
            return None
        if clip.video not in self._misread:
            own_names = self._names_in(clip.video)
            numbers = own_names.values()
            self._misread[clip.video] = any(
                own_names.get(PurePosixPath(frame_name(name, k)).stem, k) != k for k in numbers
            )
        return None if self._misread[clip.video] else name

    def lengths(self) -> dict[str, int]:
        """Returns the number of frames of each video, up to the last that a clip shows, by its names in files."""
        lengths = {
            video: 1 + max(max(self._store.get(clip_id).video_frames or (0,)) for clip_id in clips)
            for video, clips in self._clips.items()
        }
        return {name: lengths[video] for name, video in self._videos.items()} | lengths

    def own_numbers(self) -> dict[str, set[int]]:
        """Returns the numbers in the raw data of the images of each video, by its names in files.

        Only of videos whose images are numbered, but not 0, 1, 2, ....
        """
        numbers = {
            video: {*self._numbers_in(video)}
            for video in self._clips
            if (names := self._names_in(video)) and all(map(str.isdecimal, names))
        }
        return {name: numbers[video] for name, video in self._videos.items() if video in numbers} | numbers

    def places(self, name: str, number: int) -> Sequence[FrameId]:
        """Returns the clips and indices that show a frame of a video, hidden clips only if there are no others."""
        video = name if name in self._clips else self._videos.get(_stem(name))
        if video is None:
            return ()
        if video not in self._places:
            self._places[video] = self._index(video)
        return self._places[video].get(number, ())

    def named(self, image: str) -> Sequence[FrameId] | None:
        """Returns the clips and indices that show an image of the raw data, e.g. `<video>/000010.png`.

        None if the name does not tell an image of a video whose images have names of their own, so that a number
        in it counts frames. A number that is no image of such a video has no place.
        """
        path, stems = path_and_stems(image)
        folder = unquote(path.parent.as_posix()).split("/")
        for video in ("/".join(folder[k:]) for k in range(len(folder))):
            own_names = {} if video in self._store else self._names_in(video)
            if own_names and (found := self._find(video, stems[:1])) is not None:
                return found
            if own_names and stems[0].isdecimal():
                same = self._numbers_in(video).get(int(stems[0]), ())
                return self.places(video, same[0]) if len(same) == 1 else ()
        for video, _ in frame_ids_of(image):
            if video not in self._store and (found := self._find(video, stems)) is not None:
                return found
        return None

    def same(self, clip_id: str, t: int) -> Sequence[FrameId]:
        """Returns all clips and indices that show the same frame as a frame of a clip."""
        clip = self._store.get(clip_id)
        return [(clip_id, t)] if clip.video_frames is None else self.places(clip.video, clip.video_frames[t])

    def _find(self, video: str, stems: Sequence[str]) -> Sequence[FrameId] | None:
        own_names = self._names_in(video)
        return next((self.places(video, own_names[stem]) for stem in stems if stem in own_names), None)

    def _names_in(self, video: str) -> Mapping[str, int]:
        """Returns the number of each image of a video by its name in the raw data; empty if these count frames."""
        if video not in self._own_names:
            clips = map(self._store.get, self._clips.get(video, ()))
            self._own_names[video] = {
                name: number
                for clip in clips
                for name, number in zip(clip.frame_names or (), clip.video_frames or (), strict=False)
            }
        return self._own_names[video]

    def _numbers_in(self, video: str) -> Mapping[int, Sequence[int]]:
        """Returns the numbers of the images of a video by the number that is their name in the raw data."""
        if video not in self._own_numbers:
            found: dict[int, list[int]] = defaultdict(list)
            for name, number in self._names_in(video).items():
                if name.isdecimal():
                    found[int(name)].append(number)
            self._own_numbers[video] = found
        return self._own_numbers[video]

    def _index(self, video: str) -> Mapping[int, Sequence[FrameId]]:
        found: dict[int, list[FrameId]] = defaultdict(list)
        hidden: dict[int, list[FrameId]] = defaultdict(list)
        for clip in map(self._store.get, self._clips[video]):
            for t, number in enumerate(clip.video_frames or ()):
                (hidden if clip.kind == "hidden" else found)[number].append((clip.id, t))
        return hidden | found


def _stem(video: str) -> str:
    """Returns the name of a video without the extension of a video file."""
    stem, _, extension = video.rpartition(".")
    return stem if f".{extension.lower()}" in VIDEO_SUFFIXES else video
