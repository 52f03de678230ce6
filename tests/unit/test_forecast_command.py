"""The command `forecast`: any video, several at once, and what is wrong with them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tests.conftest import moving_squares
from tests.registered import CLASSES, HEIGHT, HORIZON, SEEN, WIDTH, write_registered
from tests.videos import encode_frames

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.labels import LabelMap
from maskcast.locks import exclusive_lock
from maskcast.registry.loading import load_address

Forecast = Callable[..., tuple[int, str, str]]
SCALE = 2  # videos are larger than what the model was trained on


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_registered(tmp_path_factory.mktemp("registered"))


@pytest.fixture
def forecast(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Forecast:
    def run(*words: str | Path, model: Path = artifact, output: Path = tmp_path / "out") -> tuple[int, str, str]:
        code = main(["forecast", *map(str, words), "--model", str(model), "--output", str(output)])
        return code, *capsys.readouterr()

    return run


def enlarged(seed: int, frames: int) -> np.ndarray:
    return moving_squares(seed, frames, HEIGHT, WIDTH)[0].repeat(SCALE, 1).repeat(SCALE, 2)


def write_frames(folder: Path, frames: Sequence[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):  # names without leading zeros: their order is that of the numbers
        Image.fromarray(frame).save(folder / f"frame{number}.png")
    return folder


def test_the_last_frames_of_a_folder_are_seen_and_what_follows_is_written(
    forecast: Forecast, artifact: Path, tmp_path: Path
) -> None:
    frames = enlarged(0, 12)
    code, out, err = forecast(write_frames(tmp_path / "street", frames))
    assert (code, out) == (0, f"1 forecast, 0 skipped, 0 failed: {tmp_path / 'out'}\n")
    place = tmp_path / "out" / "street"
    assert sorted(path.name for path in place.iterdir()) == [
        "forecast.json",
        "masks",
        "overlay.gif",
        "overlay.mp4",
    ]
    record = json.loads((place / "forecast.json").read_text())
    assert record["frames_seen"] == [5, 7, 9, 11]
    assert record["frames_forecast"] == [13, 15]
    assert record["model"]["digest"] == load_address(str(artifact)).digest
    store = ClipStore(place / "masks")
    store.verify()
    clip = store.get("street")
    # the mean of equal pixels
    halved = frames[5:12:2].reshape(SEEN, HEIGHT, SCALE, WIDTH, SCALE, 3)[:, :, 0, :, 0]
    assert np.array_equal(store.masks(clip), load_address(str(artifact)).model.predict(halved))
    assert clip.meta["first_frame"] == SEEN
    with av.open(str(place / "overlay.mp4")) as film:
        assert film.streams.video[0].codec_context.name == "h264"
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(pictures) == SEEN + HORIZON + 3  # the last one stays
    assert len({picture.tobytes() for picture in pictures[: SEEN + HORIZON]}) == SEEN + HORIZON
    with Image.open(place / "overlay.gif") as gif:
        assert gif.n_frames == SEEN + HORIZON

    code, _, err = forecast(tmp_path / "street", "--start", "7")
    assert (code, "has 12 frames, but 4 context frames with stride 2 need 14" in err) == (1, True)
    assert json.loads((place / "forecast.json").read_text()) == record
    assert forecast(tmp_path / "street", "--start", "0", "--stride", "1")[:2] == (
        0,
        f"1 forecast, 0 skipped, 0 failed: {tmp_path / 'out'}\n",
    )
    assert json.loads((place / "forecast.json").read_text())["frames_seen"] == [0, 1, 2, 3]


def test_a_video_whose_name_leaves_no_room_for_an_ending_is_forecast(forecast: Forecast, tmp_path: Path) -> None:
    name = "手" * 83
    encode_frames(tmp_path / f"{name}.mp4", enlarged(0, 12))
    code, *_ = forecast(tmp_path / f"{name}.mp4")
    (folder,) = (tmp_path / "out").iterdir()
    assert code == 0 and folder.name.startswith("手手手")
    assert json.loads((folder / "forecast.json").read_text())["video"]["name"] == f"{name}.mp4"


def test_the_masks_keep_the_name_of_their_label_map(forecast: Forecast, tmp_path: Path) -> None:
    model = write_registered(tmp_path / "registered", label_map="squares")
    assert forecast(write_frames(tmp_path / "street", enlarged(0, 12)), model=model)[0] == 0
    store = ClipStore(tmp_path / "out/street/masks")
    assert store.maps == {"squares": LabelMap("squares", CLASSES)}


def test_a_bad_video_does_not_lose_the_others_and_a_second_run_does_what_is_left(
    forecast: Forecast, tmp_path: Path
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "videos" / "out"
    whole = encode_frames(videos / "b.mp4", enlarged(1, 9))
    encode_frames(videos / "c" / "short.mp4", enlarged(2, 6))
    write_frames(videos / "c" / "frames", enlarged(3, 7))
    (videos / "a.mp4").write_bytes(whole.read_bytes()[:900])
    (videos / "__MACOSX").mkdir()
    (videos / "__MACOSX" / "._b.mp4").write_bytes(b"junk")
    code, said, err = forecast(videos, output=out)
    assert (code, said) == (1, f"2 forecast, 0 skipped, 2 failed: {out}\n")
    assert sorted(path.name for path in out.iterdir()) == ["b", "c_frames"]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert "a.mp4: damaged or not a video" in lines[0]
    assert "short.mp4: has 6 frames, but 4 context frames with stride 2 need 7; give a longer video" in lines[1]

    written = (out / "b" / "forecast.json").stat().st_mtime_ns
    (videos / "a.mp4").write_bytes(whole.read_bytes())
    (out / "c_frames" / "forecast.json").write_text("{}")  # as if another model had forecast it
    code, said, _ = forecast(videos, output=out)
    assert (code, said) == (1, f"2 forecast, 1 skipped, 1 failed: {out}\n")
    assert (out / "b" / "forecast.json").stat().st_mtime_ns == written
    record = json.loads((out / "b" / "forecast.json").read_text())
    (out / "b" / "forecast.json").write_text(json.dumps(record | {"revision": 0}))  # of another forecast
    assert forecast(videos, output=out)[1] == f"1 forecast, 2 skipped, 1 failed: {out}\n"
    assert json.loads((out / "b" / "forecast.json").read_text()) == record


def test_a_damaged_forecast_is_written_again_and_one_in_work_is_left_to_its_process(
    forecast: Forecast, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        encode_frames(tmp_path / f"videos/{name}.mp4", enlarged(0, 9))
    out = tmp_path / "out"
    out.mkdir()
    with exclusive_lock(out / "a"):
        code, said, err = forecast(tmp_path / "videos", output=out)
    assert (code, said) == (0, f"1 forecast, 1 skipped, 0 failed: {out}\n")
    assert "a: skipped, as it is being forecast by process " in err
    gif = out / "b/overlay.gif"
    gif.write_bytes(gif.read_bytes()[:100])
    code, said, err = forecast(tmp_path / "videos", output=out)
    assert (code, said) == (0, f"2 forecast, 0 skipped, 0 failed: {out}\n")
    assert f"{gif}: damaged: " in err and gif.stat().st_size > 100


def test_files_that_a_user_has_added_or_changed_are_never_deleted(forecast: Forecast, tmp_path: Path) -> None:
    video, out = encode_frames(tmp_path / "a.mp4", enlarged(0, 9)), tmp_path / "out"
    assert forecast(video)[0] == 0
    notes, gif, mp4 = out / "a/masks/notes.txt", out / "a/overlay.gif", out / "a/overlay.mp4"
    written = gif.read_bytes()
    for path, content in ((notes, b"notes"), (gif, written + b"changed")):
        path.write_bytes(content)
        code, said, err = forecast(video)
        assert (code, said) == (0, f"0 forecast, 1 skipped, 0 failed: {out}\n") and "damaged" not in err
        for options in ((), ("--samples", "1")):  # a damaged output, and one of another request
            mp4.rename(tmp_path / "mp4")
            code, _, err = forecast(video, *options)
            assert code == 1 and f"but {path.relative_to(out / 'a')} were added or changed" in err
            assert options or f"{mp4}: damaged: missing\n" in err
            assert path.read_bytes() == content
            (tmp_path / "mp4").rename(mp4)
        path.unlink()
    assert f"{gif}: damaged: missing\n" in forecast(video)[2] and gif.read_bytes() == written


def test_a_file_that_cannot_be_opened_does_not_lose_the_other_videos(forecast: Forecast, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "videos/a", enlarged(0, 7))
    (folder / "frame1.png").unlink()
    (folder / "frame1.png").mkdir()
    encode_frames(tmp_path / "videos/b.mp4", enlarged(1, 9))
    code, said, err = forecast(tmp_path / "videos", output=tmp_path / "out")
    assert (code, said) == (1, f"1 forecast, 0 skipped, 1 failed: {tmp_path / 'out'}\n")
    assert f"error: a: {folder}/frame1.png: cannot be read or written" in err


def test_what_was_made_of_videos_is_no_video_wherever_it_lies(forecast: Forecast, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    encode_frames(videos / "one.mp4", enlarged(1, 12))
    encode_frames(videos / "segmented/two/overlay.mp4", enlarged(2, 12))
    (videos / "segmented/two/segment.json").touch()
    for output, told in ((videos, "1 forecast, 0"), (videos, "0 forecast, 1"), (videos / "more", "1 forecast, 0")):
        assert forecast(videos, output=output)[:2] == (0, f"{told} skipped, 0 failed: {output}\n")


def test_a_folder_of_frames_is_forecast_once_with_the_output_inside_of_it(
    forecast: Forecast, tmp_path: Path
) -> None:
    folder = write_frames(tmp_path / "street", enlarged(0, 12))
    for words, told in (
        ((), "1 forecast, 0"),
        ((), "0 forecast, 1"),
        (("--samples", "2"), "1 forecast, 0"),
        (("--samples", "2"), "0 forecast, 1"),
        ((), "1 forecast, 0"),
    ):
        output = folder / "forecasts"
        assert forecast(folder, *words, output=output)[1] == f"{told} skipped, 0 failed: {output}\n", words


def test_images_and_videos_of_one_folder_are_not_left_out_in_silence(forecast: Forecast, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "mix", enlarged(0, 12))
    video = encode_frames(folder / "monday/a.mp4", enlarged(1, 12))
    code, out, err = forecast(folder)
    assert (code, "1 forecast, 0 skipped" in out) == (0, True)
    assert f"{folder}: its 12 images are taken, and 1 video in its subfolders left out, e.g. {video};" in err
    video.rename(folder / "a.mp4")
    code, out, err = forecast(folder)
    assert (code, "1 forecast, 0 skipped" in out) == (0, True)
    assert f"{folder}: 12 images beside video files: skipped; move videos or images to a subfolder" in err


def test_a_forecast_is_not_put_in_the_place_of_the_video(forecast: Forecast, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "videos/street", enlarged(0, 12))
    code, _, err = forecast(frames, output=tmp_path / "videos")
    assert code == 1 and f"error: street: {frames}: --output is replaced as a whole, but contains the video" in err
    assert len(list(frames.iterdir())) == 12


def test_a_forecast_replaces_forecasts_alone(forecast: Forecast, tmp_path: Path) -> None:
    video = encode_frames(tmp_path / "videos/street.mp4", enlarged(0, 12))
    labels = tmp_path / "videos/street/labels.txt"
    labels.parent.mkdir()
    labels.write_text("of a month")
    code, _, err = forecast(video, output=video.parent)
    assert code == 1 and "videos/street: --output is replaced as a whole, but this folder was not written" in err
    assert labels.read_text() == "of a month"
    labels.unlink()
    assert forecast(video, output=video.parent)[0] == 0
    assert forecast(video, "--stride", "1", output=video.parent)[0] == 0


def test_mistakes_are_said_in_one_line_and_nothing_is_left(
    forecast: Forecast, artifact: Path, tmp_path: Path
) -> None:
    video = encode_frames(tmp_path / "one.mp4", enlarged(4, 9))
    (tmp_path / "empty").mkdir()
    encode_frames(tmp_path / "two" / "one.mp4", enlarged(5, 9))
    silent = write_registered(tmp_path / "silent", frame_stride=None)
    for words, model, message in (
        ([video], tmp_path / "empty", "empty: no registered model found; give models:/NAME@ALIAS or"),
        ([video], "models:/maskcast", "models:/maskcast: invalid model address; give models:/NAME@ALIAS or"),
        ([tmp_path / "none.mp4"], artifact, "none.mp4: no such video or folder; fix the path"),
        ([tmp_path / "empty"], artifact, "empty: no video found; give a file (.3gp, .asf, "),
        ([video, tmp_path / "two"], artifact, "one.mp4; rename one of them, or run them separately"),
        ([video], silent, "--stride: required, as the model's clips do not record theirs; give"),
        ([video, "--stride", "0"], artifact, "--stride: got 0; give"),
        ([video, "--start", "-1"], artifact, "--start: got -1; give a frame index, 0 or more"),
        ([video, "--samples", "-1"], artifact, "--samples: got -1; give the number of futures to draw"),
    ):
        code, out, err = forecast(*words, model=model)
        assert (code, out, err.count("\n"), message in err) == (2, "", 1, True), err
    assert not (tmp_path / "out").exists()
    (artifact / "data/masker/config.json").write_text("{}")
    code, _, err = forecast(video)
    assert (code, "config.json: differs from what was registered" in err) == (2, True)
