"""Recognises layouts with fixed file names, and folders of videos only."""

import re
from contextlib import suppress
from pathlib import Path

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.decoding import decode
from maskcast.data.inspection.clip_length import set_clip_length
from maskcast.data.inspection.families import MASK_WORDS
from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.image_groups import find_video_files
from maskcast.data.inspection.label_kinds import LabelFiles
from maskcast.data.inspection.measuring import MAX_MEASURED, measure_frames
from maskcast.data.sources.clevrer import FRAME_RATE
from maskcast.data.sources.competition import FRAME, SETS, find_root
from maskcast.data.sources.green_log import LOG
from maskcast.data.sources.patterns import SequencePaths
from maskcast.data.video_files.timing import Timing, read_timing
from maskcast.errors import MaskcastError
from maskcast.files import list_files, match_files
from maskcast.progress import track
from maskcast.reading import load_memmap, pluralize

MAX_CLASSES = 49


def inspect_videos(raw: Path, label_files: LabelFiles) -> Findings:
    """Returns the findings about a folder of videos without labels."""
    found = Findings("videos without masks", {"layout": "videos"}, trainable=False)
    masks, timings = list[str](), dict[str, Timing]()
    for parts in track(find_video_files(raw), "looking at videos"):
        path, name = raw.joinpath(*parts), "/".join(parts)
        with suppress(MaskcastError):  # the source reports what is wrong with it
            timings[name] = read_timing(path)
            found.sequences[name] = timings[name].count
            if MASK_WORDS.search(name):
                masks.append(name)
    found.add_timings(timings)
    if 0 < len(masks) < len(found.sequences):
        found.warnings.append(
            f"{masks[0]} is named like a mask, but masks are read from images, so it counts as one more video. "
            "`ffmpeg -i VIDEO %05d.png` makes images of it"
        )
    if (boxes := label_files.find_boxes()) is not None:
        found.warnings.append(f"{boxes.name} is not read: a masker learns from masks, and these are boxes")
    elif (unread := label_files.not_read_text()) is not None:
        found.warnings.append(unread)
    measure_frames(found, {name: SequencePaths(video=raw / name) for name in found.sequences})
    if found.sequences:
        set_clip_length(raw, found, sorted(found.sequences.values(), reverse=True), apart=False)
    return found


def inspect_clevrer(raw: Path) -> Findings | None:
    """Returns the findings about CLEVRER's release, or None for another folder."""
    numbers = {"video": set[int](), "annotation": set[int]()}
    for path in list_files(raw):
        if match := re.fullmatch(r"(video)_(\d+)\.mp4|(annotation)_(\d+)\.json", path.name, re.IGNORECASE):
            numbers[(match[1] or match[3]).lower()].add(int(match[2] or match[4]))
    annotated = sorted(numbers["video"] & numbers["annotation"])
    if not numbers["annotation"]:
        return None
    found = Findings("CLEVRER's release", {"layout": "clevrer", "stride": 5}, rates=(FRAME_RATE,))
    found.reasons["stride"] = "a clip of 22 frames then shows 4.2 of a video's 5 seconds"
    found.sizes[320, 480] += 1
    found.sequences = {f"video_{number:05d}": 128 for number in sorted(numbers["video"] | numbers["annotation"])}
    found.labelled = {f"video_{number:05d}": 128 for number in annotated}
    if len(annotated) < 50:
        found.source["window_step"] = 4
        found.reasons["window_step"] = (
            f"{pluralize(len(annotated), 'annotated video', 'is', 'are')} few, so windows overlap"
        )
    train = [number for number in annotated if number < 10_000]
    val = [number for number in annotated if 10_000 <= number < 15_000]
    if len(annotated) >= 2 and not (train and val):
        found.source["id_splits"] = {annotated[0]: "train", annotated[-1]: "val"}
        found.reasons["id_splits"] = "the official splits leave no clips to train on or to score"
    found.trainable = len(annotated) >= 2
    return found


def inspect_competition(raw: Path) -> Findings | None:
    """Returns the findings about a folder of the competition's layout, or None for another folder."""
    root = find_root(raw)
    if root is None:
        return None
    videos_of = {
        name: sorted({path.parent for path in match_files(root / name, "**/video_*/image_0.*") if _is_frame(path)})
        for name in SETS
        if (root / name).is_dir()
    }
    if not any(videos_of.values()):
        return None
    found = Findings("the competition's layout", {"layout": "competition"})
    highest = 0
    for name, places in videos_of.items():
        for place in places:
            found.sequences[place.name] = sum(map(_is_frame, place.iterdir()))
            if name in ("train", "val") and (place / "mask.npy").is_file():
                found.labelled[place.name] = found.sequences[place.name]
        for number in evenly_spaced(len(places), MAX_MEASURED):
            if (path := places[number] / "mask.npy").is_file():
                highest = max(highest, int(load_memmap(path, "copy it again").max(initial=0)))
    found.source["num_classes"] = MAX_CLASSES if 2 < highest < MAX_CLASSES else max(2, highest + 1)
    found.reasons["num_classes"] = f"the masks hold ids up to {highest}; 49 have CLEVRER's names"
    if found.labelled and not highest:
        found.warnings.append(
            "the masks hold only 0, the background: if those of all videos do, there is nothing to learn"
        )
    found.rows.append(("splits", ", ".join(f"{len(places)} {name}" for name, places in videos_of.items())))
    found.trainable = bool(videos_of.get("train")) and bool(videos_of.get("val"))
    first = next(places[0] for places in videos_of.values() if places)
    image = decode(next(filter(_is_frame, first.glob("image_0.*")))).image
    found.sizes[image.height, image.width] += 1
    return found


def _is_frame(path: Path) -> bool:
    return FRAME.fullmatch(path.name) is not None


def green_screen_evidence(raw: Path) -> str | None:
    """Returns what shows that a folder has green-screen videos, or None if nothing does."""
    if (raw / "videos").is_dir() and (raw / "backgrounds").is_dir():
        return "videos and backgrounds"
    logs = (path for path in list_files(raw, ".json") if path.name == LOG)
    return next((log.relative_to(raw).as_posix() for log in logs), None)
