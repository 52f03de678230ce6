"""The command `segment`: videos, folders, cameras, sound, other backgrounds, and what is wrong with them."""

import gc
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tests import servers, videos
from tests.conftest import full_disk, moving_squares
from tests.registered import CLASSES, HEIGHT, WIDTH, write_registered
from tests.unit.test_forecast_command import enlarged, write_frames
from tests.videos import encode_frames

import maskcast
from maskcast.__main__ import main
from maskcast.data.images import resize_frames, resize_masks
from maskcast.data.video_files.frames import read_video
from maskcast.inference.enlarging import enlarge_classes
from maskcast.labels import LabelMap
from maskcast.locks import exclusive_lock
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.registry.loading import load_address, masker_of
from maskcast.serving.segments import FrameSegmenter
from maskcast.serving.video_stream import open_stream

Segment = Callable[..., tuple[int, str, str]]
MAPS = (LabelMap("squares", CLASSES), LabelMap("matte", ("background", "foreground"), "alpha"))


@pytest.fixture(scope="module")
def masker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masker with a map of classes and a matte, both of random weights, for frames of any size."""
    torch.manual_seed(0)
    config, folder = UNetConfig(width=2), tmp_path_factory.mktemp("masker")
    save_masker(folder, config.build(MAPS), config, {})
    return folder


@pytest.fixture
def segment(masker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Segment:
    def run(video: str | Path, *words: str | Path, model: Path = masker) -> tuple[int, str, str]:
        given = ["segment", "--model", model, "--output", tmp_path / "out", video, *words]
        return main(list(map(str, given))), *capsys.readouterr()

    return run


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[str]:
    """The address of a camera: a video over HTTP that begins again and again."""
    encode_frames(tmp_path / "camera.ts", enlarged(0, 40))
    film, over = (tmp_path / "camera.ts").read_bytes(), threading.Event()

    class Handler(servers.Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            if self.path.startswith("/once"):  # else its end is taken for a line that broke
                self.send_header("Content-Length", str(len(film)))
            self.end_headers()
            while not over.is_set():
                self.wfile.write(film)
                if not self.path.startswith("/live"):
                    return

    with servers.Server(Handler) as server:
        yield server.url
        over.set()


def images(folder: Path) -> np.ndarray:
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(len(files))]
    return np.stack([np.asarray(Image.open(file)) for file in files])


def film(path: Path) -> tuple[np.ndarray, list[float]]:
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
    return np.stack([each.to_ndarray(format="rgb24") for each in shown]), [each.time for each in shown]


def sounds(path: Path) -> list[tuple[bytes, float]]:
    with av.open(str(path)) as container:
        found = [(bytes(one), float(one.pts * one.time_base)) for one in container.demux(audio=0) if one.size]
    assert found
    return found


def test_a_photograph_is_masked_as_the_only_one_of_a_folder(segment: Segment, tmp_path: Path) -> None:
    frame = write_frames(tmp_path / "frames", enlarged(0, 1)) / "frame0.png"
    shutil.copy(frame, tmp_path / "beach.PNG")
    for video in (tmp_path / "beach.PNG", tmp_path / "frames"):
        assert segment(video)[1].startswith("1 photograph, ")
    masks = [tmp_path / f"out/{name}.png" for name in ("beach/masks/squares/beach", "frames/masks/squares/frame0")]
    assert masks[0].read_bytes() == masks[1].read_bytes()
    (tmp_path / "damaged.jpg").write_bytes(frame.read_bytes()[:100])
    code, _, said = segment(tmp_path / "damaged.jpg")
    assert code == 2 and "damaged.jpg: " in said and len(said.splitlines()) <= 2


def test_photographs_are_masked_each_at_its_own_size_and_under_its_own_name(
    segment: Segment, masker: Path, tmp_path: Path
) -> None:
    sizes = {"beach": (64, 96), "two dogs": (96, 64), "IMG_7": (50, 71), "a dog_7": (64, 96)}
    photographs = {name: moving_squares(k, 1, *size)[0][0] for k, (name, size) in enumerate(sizes.items())}
    (tmp_path / "trip").mkdir()
    for name, pixels in photographs.items():
        Image.fromarray(pixels).save(tmp_path / f"trip/{name}.png")
    code, said, err = segment(tmp_path / "trip", "--background", "white", "--alpha")
    place = tmp_path / "out/trip"
    assert code == 0 and said.startswith("4 photographs, ") and said.endswith(f"): {place}\n")
    assert f"{tmp_path / 'trip'}: treated as photographs, because their names have no running number" in err
    names = sorted(path.name for path in place.iterdir())
    assert names == ["composed", "legend.png", "masks", "mattes", "overlay", "segment.json"]
    for name, pixels in photographs.items():
        with maskcast.Segmenter(masker).session() as session:  # nothing is remembered of the others
            maps = session.step(pixels).maps
        np.testing.assert_array_equal(np.asarray(Image.open(place / f"masks/squares/{name}.png")), maps["squares"])
        np.testing.assert_array_equal(np.asarray(Image.open(place / f"mattes/matte/{name}.png")), maps["matte"])
        share = maps["matte"][..., None] / 255
        composed = np.asarray(Image.open(place / f"composed/{name}.jpg"))
        assert np.abs(composed - (share * pixels + (1 - share) * 255)).mean() < 4  # JPEG
        assert np.asarray(Image.open(place / f"overlay/{name}.jpg")).shape == pixels.shape
    record = json.loads((place / "segment.json").read_text())
    assert (record["video"], record["frames"]) == ("trip", 4) and "frames_per_second" not in record


def test_photographs_that_are_resized_get_masks_of_their_own_size(segment: Segment, tmp_path: Path) -> None:
    """A model of one size masks photographs of any; a damaged one leaves nothing, and is named."""
    model, trip = write_registered(tmp_path / "registered"), tmp_path / "trip"
    trip.mkdir()
    for k in range(6):  # a camera's names: they run on, and only the sizes tell
        pixels, truth = moving_squares(k, 1, HEIGHT, WIDTH)
        large = pixels[0].repeat(2, 0).repeat(2, 1) if k % 2 else pixels[0]
        Image.fromarray(large).save(trip / f"DSC_{k}.png")
    code, _, err = segment(trip, model=model)
    assert code == 0 and "sizes change from image to image" in err
    for k in range(6):
        found = np.asarray(Image.open(tmp_path / f"out/trip/masks/mask/DSC_{k}.png"))
        _, truth = moving_squares(k, 1, HEIGHT, WIDTH)
        assert (found == (truth[0].repeat(2, 0).repeat(2, 1) if k % 2 else truth[0])).mean() > 0.97
    shutil.rmtree(tmp_path / "out")
    (trip / "DSC_4.png").write_bytes((trip / "DSC_4.png").read_bytes()[:100])
    code, _, err = segment(trip, model=model)
    assert code == 2 and "DSC_4.png: the image is damaged" in err and not (tmp_path / "out").exists()


def test_a_video_is_masked_drawn_and_composed_with_its_sound_and_its_times(
    segment: Segment, masker: Path, tmp_path: Path
) -> None:
    times = [k + k // 3 for k in range(20)]  # of no constant rate
    videos.encode(tmp_path / "talk.mp4", "libx264", frames=20, times=times, sound="aac")
    code, said, _ = segment(tmp_path / "talk.mp4", "--background", "white", "--alpha")
    place = tmp_path / "out/talk"
    assert code == 0 and said.startswith("20 frames, ") and said.endswith(f"): {place}\n")
    names = sorted(path.name for path in place.iterdir())
    assert names == ["composed.mp4", "legend.png", "masks", "mattes", "overlay.mp4", "segment.json"]
    assert not list(tmp_path.glob("out/*.partial*"))
    frames, shown = film(tmp_path / "talk.mp4")
    with maskcast.Segmenter(masker).session() as session:
        steps = [session.step(frame) for frame in frames]
    np.testing.assert_array_equal(images(place / "masks/squares"), [step.maps["squares"] for step in steps])
    matte = images(place / "mattes/matte")
    np.testing.assert_array_equal(matte, [step.maps["matte"] for step in steps])
    for name in ("overlay", "composed"):
        found, when = film(place / f"{name}.mp4")
        assert when == pytest.approx(shown, abs=1e-3)
        assert sounds(place / f"{name}.mp4") == sounds(tmp_path / "talk.mp4")
    share = matte[..., None] / 255
    assert np.abs(found - (share * frames + (1 - share) * 255)).mean() < 6  # encoded
    record = json.loads((place / "segment.json").read_text())
    assert (record["video"], record["frames"], record["model_size"]) == ("talk.mp4", 20, None)
    assert [each["name"] for each in record["maps"]] == ["squares", "matte"]
    assert record["resets"] == []
    with Image.open(place / "legend.png") as picture:
        drawn = {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in picture.convert("RGB").getcolors(1 << 16)}
    assert list(record["colours"]) == ["red", "blue"] and set(record["colours"].values()) <= drawn


def test_frames_are_resized_to_what_the_model_was_trained_on_and_cuts_are_told(
    segment: Segment, tmp_path: Path
) -> None:
    model = write_registered(tmp_path / "registered")
    frames = np.concatenate([enlarged(0, 6), 255 - enlarged(1, 6)])
    code, _, _ = segment(write_frames(tmp_path / "street", frames), model=model)
    assert code == 0
    found = images(tmp_path / "out/street/masks/mask")
    assert found.shape == (12, 2 * HEIGHT, 2 * WIDTH)
    _, truth = moving_squares(0, 6, HEIGHT, WIDTH)
    assert (found[:6] == truth.repeat(2, 1).repeat(2, 2)).mean() > 0.97
    record = json.loads((tmp_path / "out/street/segment.json").read_text())
    assert (record["model_size"], record["resets"]) == ([HEIGHT, WIDTH], [{"frame": 6, "why": "cut"}])
    assert film(tmp_path / "out/street/overlay.mp4")[1] == pytest.approx(np.arange(12) / 25, abs=1e-3)


def test_masks_in_the_size_of_the_video_come_from_interpolated_logits(segment: Segment, tmp_path: Path) -> None:
    config, model = UNetConfig(width=2), tmp_path / "of_one_size"
    torch.manual_seed(4)
    network, frames = config.build(MAPS), enlarged(0, 3)
    for _ in range(30):
        network(torch.from_numpy(resize_frames(frames, HEIGHT, WIDTH))[None])  # statistics of its norms
    save_masker(model, network, config, {"height": HEIGHT, "width": WIDTH})
    code, _, _ = segment(write_frames(tmp_path / "street", frames), model=model)
    assert code == 0
    with maskcast.Segmenter(model).model.session(logits=True) as session:
        steps = [(session.step(frame), session.logits) for frame in resize_frames(frames, HEIGHT, WIDTH)]
    size = frames.shape[1:3]
    found = images(tmp_path / "out/street/masks/squares")
    np.testing.assert_array_equal(
        found, [enlarge_classes(step.maps["squares"], logits["squares"], *size) for step, logits in steps]
    )
    assert (found != resize_masks(np.stack([step.maps["squares"] for step, _ in steps]), *size)).any()
    mattes = [resize_frames(step.maps["matte"][None], *size)[0] for step, _ in steps]
    np.testing.assert_array_equal(images(tmp_path / "out/street/mattes/matte"), mattes)
    segmenter = FrameSegmenter(masker_of(load_address(str(model), trained=True)))
    segmenter.segment(resize_frames(frames, HEIGHT, WIDTH)[0])
    assert not segmenter.session.logits  # which cost time and memory, and nothing is enlarged
    segmenter.segment(frames[1])
    assert segmenter.session.logits.keys() == {"squares"}


def test_videos_are_masked_one_after_the_other_and_not_twice(segment: Segment, tmp_path: Path) -> None:
    for name in ("a", "b"):
        encode_frames(tmp_path / f"many/{name}.mp4", enlarged(0, 3))
    single = encode_frames(tmp_path / "c.mp4", enlarged(1, 4))
    (tmp_path / "many/a.mp4").write_bytes((tmp_path / "many/a.mp4").read_bytes()[:300])
    code, said, err = segment(tmp_path / "many", single)
    assert code == 1 and [line.split(",")[0] for line in said.splitlines()] == ["3 frames", "4 frames"]
    assert "error: a: " in err and "1 of 3 videos failed" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b", "c"]
    before = (tmp_path / "out/b/segment.json").stat().st_mtime_ns
    encode_frames(tmp_path / "many/a.mp4", enlarged(0, 5))
    code, said, _ = segment(tmp_path / "many", single)
    lines = said.splitlines()
    assert code == 0 and lines[0].startswith("5 frames, ")
    assert lines[1:] == [f"skipped, as it was masked before: {tmp_path / 'out' / name}" for name in "bc"]
    assert (tmp_path / "out/b/segment.json").stat().st_mtime_ns == before
    record = json.loads((tmp_path / "out/b/segment.json").read_text())
    (tmp_path / "out/b/segment.json").write_text(json.dumps(record | {"revision": 0}))  # of other masks
    code, _, err = segment(single, tmp_path / "many/b.mp4")
    assert code == 1 and f"error: b: {tmp_path / 'out/b'}: already exists (--output); choose a new folder" in err
    encode_frames(tmp_path / "many/b.mp4", enlarged(1, 3))  # another video of the same name
    code, _, err = segment(tmp_path / "many", single)
    assert code == 1 and f"error: b: {tmp_path / 'out/b'}: already exists (--output); choose a new folder" in err


def test_a_video_that_another_process_masks_is_skipped(segment: Segment, tmp_path: Path) -> None:
    for name in ("a", "b"):
        encode_frames(tmp_path / f"many/{name}.mp4", enlarged(0, 3))
    (tmp_path / "out").mkdir()
    with exclusive_lock(tmp_path / "out/a"):
        code, said, _ = segment(tmp_path / "many")
        lines = said.splitlines()
        assert code == 0 and lines[0].startswith(f"skipped, as it is being masked by process {os.getpid()} on ")
        assert lines[0].endswith(f": {tmp_path / 'out/a'}") and lines[1].startswith("3 frames, ")
        code, _, err = segment(tmp_path / "many/a.mp4")  # it is all that was asked for
        assert code == 2 and f"{tmp_path / 'out/a'}: locked by process" in err


def test_an_output_that_has_lost_a_file_or_a_part_of_one_is_not_done(segment: Segment, tmp_path: Path) -> None:
    video = encode_frames(tmp_path / "a.mp4", enlarged(0, 3))
    assert segment(video)[0] == 0
    out = tmp_path / "out/a"
    (out / ".DS_Store").touch()
    assert segment(video)[1].startswith("skipped")
    path = out / "masks/squares/000001.png"
    sound = path.read_bytes()
    for damage, line in ((lambda: path.write_bytes(b""), "cut off"), (path.unlink, "missing")):
        damage()
        code, _, err = segment(video)
        assert code == 2 and f"error: {out}: already exists" in err
        assert f"{path}: damaged: {line}\n" in err
    path.write_bytes(sound + b"of a user")
    (out / "masks/notes.txt").write_text("of a user")
    assert segment(video)[1].startswith("skipped")
    record = json.loads((out / "segment.json").read_text())
    del record["files"]  # as outputs of before have none
    (out / "segment.json").write_text(json.dumps(record))
    path.unlink()
    assert segment(video)[1].startswith("skipped")


def test_a_file_that_cannot_be_opened_does_not_lose_the_other_videos(segment: Segment, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "many/a", enlarged(0, 3))
    (folder / "frame1.png").unlink()
    (folder / "frame1.png").mkdir()
    encode_frames(tmp_path / "many/b.mp4", enlarged(0, 3))
    code, said, err = segment(tmp_path / "many")
    assert code == 1 and said.startswith("3 frames, ")
    assert f"error: a: {folder}/frame1.png: cannot be read or written" in err and "1 of 2 videos failed" in err


def test_a_folder_of_frames_is_masked_once_with_the_output_inside_of_it(segment: Segment, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "street", enlarged(0, 3))
    frame = (folder / "frame0.png").rename(folder / os.fsdecode(b"caf\xe9_0.png"))  # not UTF-8
    given = folder, "--output", folder / "segmented"
    assert segment(*given)[1].startswith("3 ")
    assert segment(*given)[1].startswith("skipped, as it was masked before: ")
    (folder / "notes.txt").touch()
    assert segment(*given)[1].startswith("skipped, as it was masked before: ")
    frame.write_bytes((folder / "frame1.png").read_bytes())
    assert "already exists (--output)" in segment(*given)[2]


def test_sound_that_mp4_does_not_hold_is_encoded(segment: Segment, tmp_path: Path) -> None:
    videos.encode(tmp_path / "talk.mkv", "libx264", frames=12, sound="pcm_s16le")
    assert segment(tmp_path / "talk.mkv")[0] == 0
    with av.open(str(tmp_path / "out/talk/overlay.mp4")) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == "aac"
        heard = sum(frame.samples for frame in container.decode(audio=0))
    assert heard >= 12 * 1024


def test_a_full_disk_is_not_blamed_on_the_video(segment: Segment, tmp_path: Path) -> None:
    videos.encode(tmp_path / "talk.mp4", "libx264", frames=200)
    with full_disk(2000):
        code, _, err = segment(tmp_path / "talk.mp4")
    assert code == 2 and "talk.partial/overlay.mp4: no space left on the device; free some" in err
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(("name", "codec", "sound"), [("a.ts", "libx264", "aac"), ("a.mpg", "mpeg2video", "mp2")])
def test_a_film_of_joined_files_goes_on_where_their_times_begin_again(
    name: str, codec: str, sound: str, segment: Segment, tmp_path: Path
) -> None:
    videos.encode(tmp_path / name, codec, frames=50, sound=sound)
    once = (tmp_path / name).read_bytes()
    (tmp_path / f"twice_{name}").write_bytes(once + once)
    code, said, err = segment(tmp_path / f"twice_{name}")
    assert (code, said[:11]) == (0, "100 frames,"), err
    path = tmp_path / f"out/twice_{name[0]}/overlay.mp4"
    times = film(path)[1]
    assert np.diff(times) == pytest.approx(times[1] - times[0], abs=1e-3)
    assert 1.5 * times[50] < sounds(path)[-1][1] < times[-1] + 1


@pytest.mark.parametrize(
    "matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (1, 0, 0, -1)], ids=["upright", "turned", "flipped"]
)
def test_frames_do_not_pile_up_and_are_turned_as_they_are_shown(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    videos.turned(tmp_path / "phone.mp4", *matrix)
    wanted = read_video(tmp_path / "phone.mp4")
    seen: list[np.ndarray] = []
    alive: list[object] = []
    gc.collect()
    gc.disable()  # who waits for Python's collector holds gigabytes of large frames
    try:
        with open_stream(tmp_path / "phone.mp4") as video:
            for frame, _ in video.play(lambda *_: None):
                seen.append(frame.copy())  # frames may share the memory of what was decoded
                if len(seen) == videos.FRAMES - 1:
                    alive += [each for each in gc.get_objects() if type(each).__name__ == "VideoFrame"]
    finally:
        gc.enable()
    np.testing.assert_array_equal(np.stack(seen), wanted)
    assert 0 < len(alive) < 10


def test_backgrounds_cover_the_frame_and_videos_begin_again(segment: Segment, tmp_path: Path) -> None:
    """The objects of the toy pipeline stay, what is around them is another picture."""
    model = write_registered(tmp_path / "registered")
    street = write_frames(tmp_path / "street", moving_squares(3, 7, HEIGHT, WIDTH)[0])
    wide = np.zeros((HEIGHT, 3 * WIDTH, 3), np.uint8)  # its middle is green
    wide[:, WIDTH : 2 * WIDTH, 1] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    short = [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in (0, 120, 240)]
    encode_frames(tmp_path / "short.mp4", short)
    for number, (background, expected) in enumerate(
        (
            (tmp_path / "wide.png", [(0, 200, 0)] * 7),
            (tmp_path / "short.mp4", [(k % 3 * 120,) * 3 for k in range(7)]),
        )
    ):
        out = tmp_path / f"out{number}"
        assert segment(street, "--background", background, "--output", out, model=model)[0] == 0
        around = images(out / "street/masks/mask") == 0
        composed, _ = film(out / "street/composed.mp4")
        for t, colour in enumerate(expected):
            assert np.abs(np.median(composed[t][around[t]], 0) - colour).max() < 8
            assert np.abs(np.median(composed[t][~around[t]], 0) - colour).max() > 30


def test_a_camera_is_watched_until_it_ends_or_ctrl_c(
    segment: Segment, camera: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, _ = segment(f"{camera}/once.ts?user=a")
    assert code == 0 and said.startswith("40 frames, ")
    assert len(images(tmp_path / "out/once.ts/masks/squares")) == 40
    code, said, err = segment(f"{camera}/broken.ts")
    assert code == 0 and "broken.ts: stream ended after 38 frames (Input/output error)" in err
    assert len(film(tmp_path / "out/broken.ts/overlay.mp4")[0]) == 38
    code, said, _ = segment(camera.replace("//", "//me:opensesame@"))  # with no path behind the host
    (record,) = (tmp_path / "out").glob("127.0.0.1_*/segment.json")
    assert code == 0 and "opensesame" not in record.read_text()
    stop_at(monkeypatch, 50)  # in its second round
    code, said, err = segment(f"{camera}/live")
    assert code == 0 and said.startswith("50 frames, ")
    assert "stopped by Ctrl-C: 50 frames are written" in err
    assert len(film(tmp_path / "out/live/overlay.mp4")[0]) == 50


def stop_at(monkeypatch: pytest.MonkeyPatch, frames: int, number: int = signal.SIGINT) -> None:
    """Sends this process a signal when so many frames have been masked."""
    look = FrameSegmenter.segment

    def stopped(self: FrameSegmenter, frame: np.ndarray) -> dict[str, np.ndarray]:
        found = look(self, frame)
        if self.frames == frames:
            signal.raise_signal(number)
        return found

    monkeypatch.setattr(FrameSegmenter, "segment", stopped)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_stops_it_hears_where_and_nothing_is_left(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    video = encode_frames(tmp_path / "street.mp4", enlarged(0, 12))
    stop_at(monkeypatch, 5, number)
    found, said, err = segment(video)
    assert (found, said) == (code, "")
    assert err.splitlines()[-1] == "stopped at frame 5: no output was written, run the same command again"
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line_and_nothing_is_left(segment: Segment, masker: Path, tmp_path: Path) -> None:
    video = encode_frames(tmp_path / "street.mp4", enlarged(0, 12))
    half, text = tmp_path / "half.mp4", tmp_path / "notes.txt"
    half.write_bytes(video.read_bytes()[:1500])
    text.write_text("no video")
    dots = shutil.copy(video, tmp_path / "...mp4")
    (tmp_path / "fake.mp4").write_text("no video")
    (tmp_path / "fake.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    encode_frames(tmp_path / "two/a.mp4", enlarged(0, 3))
    encode_frames(tmp_path / "two/b.mp4", enlarged(0, 3))
    sizes = write_frames(tmp_path / "sizes", enlarged(0, 3))
    Image.fromarray(enlarged(0, 1)[0, 2:]).save(sizes / "frame3.png")
    beside = write_frames(tmp_path / "beside", enlarged(0, 2))
    shutil.copy(beside / "frame1.png", beside / "frame1_mask.png")
    plain = write_registered(tmp_path / "plain")
    cut = encode_frames(tmp_path / "cut.ts", enlarged(0, 5))
    for words, model, told in (
        ([tmp_path / "none.mp4"], masker, "none.mp4: no such video or folder; fix the path"),
        (["/dev/null"], masker, "/dev/null: is a pipe or a device; save the video to a file, and give its path"),
        ([dots], masker, "...mp4: "),
        (["n" * 300], masker, "nnn: "),
        (
            [video, "--background", "n" * 300],
            masker,
            "nnn: ",
        ),
        ([text], masker, "notes.txt: no video found; give a file (.3gp, "),
        ([tmp_path / "fake.mp4"], masker, "fake.mp4: damaged or not a video ("),
        ([half], masker, "half.mp4: damaged or not a video ("),
        ([tmp_path / "empty"], masker, "empty: no video found; give a file"),
        ([video, "/dev/video99"], masker, "/dev/video99: a camera is read until it ends; give it alone"),
        ([sizes], masker, "sizes/frame3.png: is 62x96, but earlier frames are 64x96 (height x width); export"),
        ([beside], masker, "beside: frame1.png and frame1_mask.png have the same number, so not all images"),
        (
            ["/dev/video99"],
            masker,
            "/dev/video99: camera not found or disconnected (No such file or directory); `ls",
        ),
        (
            ["http://127.0.0.1:9/x"],
            masker,
            "http://127.0.0.1:9/x: camera not found or disconnected (Connection refused)",
        ),
        ([video], tmp_path / "empty", "empty: no registered model found; give models:/NAME@ALIAS or"),
        ([video, "--alpha"], masker, "--alpha: requires --background; add it"),
        (
            [video, "--background", "white", "--alpha"],
            plain,
            "--alpha: the model has no matte (label maps: mask); omit",
        ),
        (
            [video, "--background", "beach.jpg"],
            masker,
            "--background beach.jpg: neither an existing file nor a colour; give an",
        ),
        ([video, "--background", text], masker, "notes.txt: unsupported file type; give an image, a video,"),
        ([video, "--background", tmp_path / "fake.png"], masker, "fake.png: not a readable image ("),
        ([video, "--background", tmp_path / "fake.mp4"], masker, "fake.mp4: damaged or not a video"),
        ([video, "--background", tmp_path / "empty"], masker, "empty: no frame can be decoded"),
    ):
        code, out, err = segment(*words, model=model)
        *said, error = err.splitlines()
        assert (code, out, len(said) < 2, told in error) == (2, "", True, True), err
        assert not (tmp_path / "out").exists()
    assert segment(cut)[0] == 0
    code, _, err = segment(cut, "--background", "white")
    there = f"{tmp_path / 'out/cut'}: already exists (--output); choose a new folder, or remove"
    assert (code, there in err) == (2, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cut"]
