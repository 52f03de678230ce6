"""The layout green_screen: from videos, backgrounds and mattes on the disk to a store that composes anew."""

import json
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.test_source_videos import write_video

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.compositing import Backgrounds, composite, ping_pong_indices, replace_background
from maskcast.data.images import read_image
from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.data.labelling.relabelling import write_relabelled
from maskcast.data.left_out import LeftOut
from maskcast.data.loading import only_readable
from maskcast.data.sources.base import Arrays, RawClip
from maskcast.data.sources.green_videos import find_videos
from maskcast.errors import IllustratedError, MaskcastError
from maskcast.runner.run import run_stage
from maskcast.seed import rng
from maskcast.simulator.figures import simulate_green_screen
from maskcast.training.tasks.segmentation_params import SegmentationTraining
from maskcast.training.tasks.segmentation_windows import LabelledWindows

SIZE = (40, 60)
FIGURES = {"layout": "green_screen", "figures": {"videos": 4, "backgrounds": 4}, "seconds": 0.25}
FOLDERS = {"layout": "green_screen", "seconds": 0.25, "splits": {"val": 0.5}}


def write_frames(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t:05d}.png")


def write_raw(raw: Path, videos: int = 2, mattes: bool = False) -> Path:
    """Writes videos of 13 frames, with backgrounds of which one moves."""
    for number in range(videos):
        frames, alpha = simulate_green_screen(number, frames=13, height=SIZE[0], width=SIZE[1])
        write_frames(raw / f"videos/actor_{number}", frames)
        if mattes:
            write_frames(raw / f"mattes/actor_{number}", alpha)
    write_frames(raw / "backgrounds/street", np.stack([np.full((20, 30, 3), 10 * t, np.uint8) for t in range(4)]))
    Image.fromarray(np.full((50, 50, 3), 200, np.uint8)).save(raw / "backgrounds/wall.png")
    return raw


def prepare(raw: Path, clips: Path, source: dict[str, Any], **params: Any) -> ClipStore:
    values = {"source": source, "height": SIZE[0], "width": SIZE[1], "workers": 1} | params
    run_stage("prepare_clips", values, raw=raw, clips=clips)
    return ClipStore(clips)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "raw").mkdir()
    return prepare(folder / "raw", folder / "clips", FIGURES)


def test_the_order_of_shares_moves_no_clip_to_another_split(tmp_path: Path) -> None:
    """The order of keys gets lost on the way through KFP: validation and test clips changed places."""
    (tmp_path / "raw").mkdir()
    shares = {"val": 0.25, "test": 0.25}
    stores = [
        prepare(tmp_path / "raw", tmp_path / str(number), FIGURES | {"splits": one, "background_splits": one})
        for number, one in enumerate((shares, dict(reversed(shares.items()))))
    ]
    assert stores[0].digest == stores[1].digest
    assert [clip.split for clip in stores[0].clips] == ["test", "train", "train", "val"]


def test_folders_become_clips_with_classes_and_opacity(tmp_path: Path) -> None:
    store = prepare(write_raw(tmp_path / "raw"), tmp_path / "clips", FOLDERS)
    assert sorted(clip.id for clip in store.clips) == [f"actor_{n}_{t:05d}" for n in (0, 1) for t in (0, 6)]
    assert {clip.num_frames for clip in store.clips} == {6}  # 0.25 s of 24 frames; the 13th is left out
    by_split = {clip.split: (clip.meta["video"], clip.meta["background"]) for clip in store.clips}
    assert by_split["train"][0] != by_split["val"][0] and by_split["train"][1] != by_split["val"][1]
    alpha, person = store.of("alpha"), store.of("person")
    for clip in store.clips:
        assert (person.masks(clip) == (alpha.masks(clip) >= 128)).all()
    clip = next(clip for clip in store.clips if clip.meta["background"] == "street_00000")
    empty = alpha.masks(clip) == 0
    seen = [np.median(store.frames(clip)[t][empty[t]]) for t in range(6)]
    assert seen == [0, 10, 20, 30, 20, 10]  # there and back
    inside = ClipStore(store.root / "backgrounds")
    assert {clip.id: clip.num_frames for clip in inside.clips} == {"street_00000": 4, "wall_00000": 1}


def test_video_files_have_their_own_rate_and_mattes_are_the_truth(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", mattes=True)
    write_video(raw / "backgrounds/film.mp4", size=(32, 48))
    source = FOLDERS | {"mattes": "mattes", "background_splits": {"val": ["film"]}}
    store = prepare(raw, tmp_path / "clips", source)
    clip = next(clip for clip in store.clips if clip.meta["video"] == "actor_1")
    truth = simulate_green_screen(1, frames=13, height=SIZE[0], width=SIZE[1])[1]
    assert (store.of("alpha").masks(clip) == truth[:6]).all()
    assert {clip.meta["background"] for clip in store.clips if clip.split == "val"} <= {
        f"film_{start:05d}" for start in range(0, 40, 6)
    }


def test_composed_anew_is_as_composed_at_first_hand() -> None:
    random = np.random.default_rng(0)
    alpha = random.integers(0, 256, (3, 9, 9), np.uint8)
    light = (random.integers(0, 256, (3, 9, 9, 3)) * (alpha[..., None] / 255)).astype(np.uint8)
    old, new = random.integers(0, 256, (2, 3, 9, 9, 3), np.uint8)
    once = composite(light, alpha, old)
    assert np.abs(once - (light + (1 - alpha[..., None] / 255) * old)).max() <= 0.5
    again = replace_background(once, alpha, old, new)
    assert np.abs(again.astype(int) - composite(light, alpha, new)).max() <= 1
    assert ping_pong_indices(2, 8, 4).tolist() == [2, 3, 2, 1, 0, 1, 2, 3]
    assert ping_pong_indices(5, 3, 1).tolist() == [0, 0, 0]


def test_each_draw_sees_another_background_and_the_same_draw_the_same(drawn: ClipStore) -> None:
    backgrounds = Backgrounds(drawn)
    clip = drawn.select("train")[0]
    window = slice(2, 5)
    frames, alpha = drawn.frames(clip)[window], drawn.of("alpha").masks(clip, window)
    draws = [backgrounds.composite(clip, window, frames, rng(0, step)) for step in (1, 2, 1)]
    assert (draws[0] == draws[2]).all() and not (draws[0] == draws[1]).all()
    assert np.abs(draws[1][alpha == 255].astype(int) - frames[alpha == 255]).max() == 0
    train = {clip.id for clip in ClipStore(drawn.root / "backgrounds").select("train")}
    assert {clip.meta["background"] for clip in drawn.select("val")}.isdisjoint(train)


def test_training_windows_are_a_function_of_seed_and_step(drawn: ClipStore) -> None:
    params = SegmentationTraining(
        augment={"hflip": 0}, training={"epochs": 1, "steps_per_epoch": 1, "batch_size": 3, "learning_rate": 0.1}
    )
    windows = LabelledWindows(drawn, tuple(drawn.maps.values()), params)
    frames, masks, *_ = windows.batch(4)
    again, *_ = windows.batch(4)
    assert (frames == again).all()
    stored = torch.from_numpy(np.concatenate([drawn.frames(clip) for clip in drawn.select("train")]))
    alpha = torch.from_numpy(np.concatenate([drawn.of("alpha").masks(clip) for clip in drawn.select("train")]))
    changed = []
    for frame, opacity in zip(frames[:, 0], masks[1][:, 0], strict=True):
        (place,) = (alpha == opacity).all(-1).all(-1).nonzero()[0]
        assert (frame[opacity == 255] == stored[place][opacity == 255]).all()
        changed.append(bool((frame[opacity == 0] != stored[place][opacity == 0]).any()))
    assert any(changed)  # the draw may also be the background that is stored


def test_composed_once_has_no_backgrounds_to_draw(tmp_path: Path, drawn: ClipStore) -> None:
    (tmp_path / "raw").mkdir()
    once = prepare(tmp_path / "raw", tmp_path / "once", FIGURES | {"compose": "once"})
    assert "backgrounds" not in once.meta and not (once.root / "backgrounds").exists()
    assert all((once.frames(clip) == drawn.frames(drawn.get(clip.id))).all() for clip in once.clips)


def test_noise_changes_frames_and_no_labels(tmp_path: Path, drawn: ClipStore) -> None:
    (tmp_path / "raw").mkdir()
    noisy = prepare(tmp_path / "raw", tmp_path / "noisy", FIGURES | {"noise": 5})
    clip = drawn.clips[0]
    assert (noisy.of("alpha").masks(noisy.get(clip.id)) == drawn.of("alpha").masks(clip)).all()
    difference = noisy.frames(noisy.get(clip.id)).astype(int) - drawn.frames(clip)
    assert 4 < difference.std() < 5.5


def test_new_labels_keep_the_backgrounds(tmp_path: Path, drawn: ClipStore) -> None:
    write_relabelled(tmp_path / "new", drawn.of("person"), {}, {})
    Backgrounds(ClipStore(tmp_path / "new"))


def test_a_failed_key_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_raw(tmp_path / "raw", videos=4)
    write_frames(raw / "videos/forest", np.full((6, *SIZE, 3), 90, np.uint8))
    store = prepare(raw, tmp_path / "clips", FOLDERS | {"splits": {"val": 0.3}, "background_splits": {"val": 0.5}})
    assert [one["item"] for one in store.skipped] == ["train/forest_00000"]
    page = (store.root / "left-out/index.html").read_text()
    assert "forest_00000" in page and "0.0% of frame 0 is green screen" in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page  # it looks like its siblings
    assert read_image(store.root / "left-out/0000.png").shape == (SIZE[0], 3 * SIZE[1], 3)
    assert f"1 clip is left out, see {store.root}/left-out/index.html" in capsys.readouterr().err
    again = prepare(raw, tmp_path / "again", FOLDERS | {"splits": {"val": 0.3}, "background_splits": {"val": 0.5}})
    assert (again.root / "left-out/index.html").read_text() == page  # a page of data says no time
    assert "UTC" not in page


def test_pictures_of_what_is_left_out_fill_no_memory(tmp_path: Path) -> None:
    held: list[weakref.ref[np.ndarray]] = []

    def refused() -> Iterator[tuple[RawClip, MaskcastError]]:
        for number in range(3):
            picture = np.full((4, 6, 3), number, np.uint8)
            held.append(weakref.ref(picture))
            yield (
                RawClip(f"clip_{number}", "train", "unlabelled", lambda: Arrays(None)),
                IllustratedError("no", picture),
            )

    left_out = LeftOut(tmp_path)
    assert not list(only_readable(refused(), [], left_out, "skip"))
    assert len(left_out) == 3 and not any(one() is not None for one in held)


def test_videos_and_backgrounds_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", videos=3)
    (raw / "videos/broken.mp4").write_bytes(b"no video")
    (raw / "backgrounds/broken.mp4").write_bytes(b"no video")
    splits = {"splits": {"val": ["actor_0"]}, "background_splits": {"val": ["wall"]}}
    store = prepare(raw, tmp_path / "clips", FOLDERS | splits)
    assert len(store.clips) == 6 and {one["item"] for one in store.skipped} == {"broken"}
    assert all("damaged or not a video" in one["reason"] for one in store.skipped) and len(store.skipped) == 2


def write_log(folder: Path, size: tuple[int, int] = SIZE, clips: int = 2) -> None:
    """Writes what the system writes: frames and labels as JPEG, paths as its machine had them."""
    entries: dict[str, list[Any]] = {"inputs": [], "labels": []}
    for number in range(3 * clips):
        frames, alpha = simulate_green_screen(number // 3, frames=3, height=SIZE[0], width=SIZE[1])
        label = Image.fromarray(np.repeat(255 * (alpha[number % 3] > 127).astype(np.uint8)[..., None], 3, -1))
        pictures = {"inputs": Image.fromarray(frames[number % 3]), "labels": label.resize(size[::-1], 0)}
        for key, place in (("inputs", "input"), ("labels", "labels")):
            (folder / place).mkdir(parents=True, exist_ok=True)
            pictures[key].save(folder / place / f"{number:05d}.jpg", quality=70)
            name = f"src/dataset/data/images/YT_4sec/{folder.name}/{place}/{number:05d}.jpg"
            entries[key].append([name, int(number % 3 == 0)])
    (folder / "out_log.json").write_text(json.dumps(entries))


def test_the_old_layout_is_read_with_clean_labels(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        write_log(tmp_path / "raw/YT_4sec" / folder)
    store = prepare(tmp_path / "raw", tmp_path / "clips", {"layout": "green_screen"})
    assert [(clip.id, clip.split, clip.num_frames) for clip in store.clips] == [
        (f"YT_4sec_{folder}_{n:05d}", split, 3)
        for folder, split in (("test", "val"), ("train", "train"))
        for n in (0, 1)
    ]
    truth = simulate_green_screen(1, frames=3, height=SIZE[0], width=SIZE[1])[1] > 127
    found = store.masks(store.get("YT_4sec_train_00001"))
    assert set(np.unique(found)) == {0, 1} and (found == truth).mean() > 0.995


def refuse_labels_of_another_size(raw: Path) -> dict[str, Any]:
    for folder in ("train", "test"):
        write_log(raw / folder, (20, 30))
    return {"layout": "green_screen"}


def break_log(raw: Path, text: str) -> dict[str, Any]:
    raw.mkdir()
    (raw / "out_log.json").write_text(text)
    return {"layout": "green_screen"}


def test_films_that_have_frames_in_common_are_said(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    write_frames(raw / "backgrounds/park", rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8))
    for film in ("videos/actor_0", "backgrounds/park"):
        (raw / f"{film}_again").mkdir()
        for path in sorted((raw / film).iterdir())[1:]:
            (raw / f"{film}_again" / path.name).write_bytes(path.read_bytes())
    source = FOLDERS | {"splits": {"val": ["actor_0_again"]}, "background_splits": {"val": ["park_again"]}}
    store = prepare(raw, tmp_path / "clips", source)
    video, background = (note for note in store.meta["notes"] if note.startswith("warning: "))
    assert (
        "11 of 12 frames of split 'val' are also in split 'train', e.g. in 'actor_0_again_00000' and 'actor"
        in video
    )
    assert (
        "3 of 3 background frames of split 'val' are also in split 'train', e.g. in 'park_again_00000' an"
        in background
    )
    apart = {"splits": {"val": ["actor_0_again", "actor_0"]}, "background_splits": {"val": ["park_again", "park"]}}
    assert "notes" not in prepare(raw, tmp_path / "apart", source | apart).meta


def one_background(raw: Path) -> dict[str, Any]:
    (write_raw(raw) / "backgrounds/wall.png").unlink()
    return FOLDERS


def copied(raw: Path, what: str) -> dict[str, Any]:
    write_raw(raw)
    folder = raw / what
    for name in sorted(folder.rglob("*.png"))[:1]:
        for copy in range(6):
            (folder / f"copy_{copy}").mkdir()
            (folder / f"copy_{copy}/00000.png").write_bytes(name.read_bytes())
    return FOLDERS


def small_mattes(raw: Path) -> dict[str, Any]:
    write_raw(raw)
    for number in range(2):
        write_frames(raw / f"mattes/actor_{number}", np.zeros((13, 20, 30), np.uint8))
    return FOLDERS | {"mattes": "mattes"}


BAD = {
    "no videos": (lambda raw: raw.mkdir() or FOLDERS, r"raw/videos: folder not found; fix its path in prepare"),
    "empty backgrounds": (
        lambda raw: [write_raw(raw), [path.unlink() for path in (raw / "backgrounds").rglob("*.png")]] and FOLDERS,
        r"raw/backgrounds: no videos or images found",
    ),
    "no background of a split": (one_background, r"no background of split '\w+', which 'actor_\d' is in"),
    "a background in two splits": (
        lambda raw: copied(raw, "backgrounds"),
        r"copy_\d/00000.png: the same as .*, and they are in splits '\w+' and '\w+'; remove one",
    ),
    "a background named in two splits": (
        lambda raw: write_raw(raw)
        and FOLDERS | {"background_splits": {"val": ["wall"], "train": ["wall", "street"]}},
        r"splits.val: 'wall' is in two splits",
    ),
    "a video in two splits": (lambda raw: copied(raw, "videos"), r"the same as .*remove one of them"),
    "clips longer than all videos": (
        lambda raw: write_raw(raw) and FOLDERS | {"seconds": 2},
        r"no clip of split 'train'|actor_0: has 13 frames, a clip of 2 s needs 48; lower seconds",
    ),
    "no matte": (
        lambda raw: write_raw(raw, mattes=True) and (raw / "mattes/actor_1").rename(raw / "mattes/other")
        and FOLDERS | {"mattes": "mattes"},
        r"actor_1: mattes: has no matte of this video",
    ),
    "mattes of another size": (small_mattes, r"is 30x20, .* is 60x40"),
    "a broken log": (lambda raw: break_log(raw, "{"), "out_log.json: not valid JSON"),
    "a log without labels": (lambda raw: break_log(raw, '{"inputs": [["a", 1]]}'), r"log of clips \(missing key"),
    "a log whose lists differ": (
        lambda raw: break_log(raw, '{"inputs": [["a.jpg", 1]], "labels": []}'),
        r"inputs and labels differ in number",
    ),
    "labels of another size": (refuse_labels_of_another_size, r"is 30x20, .* is 60x40"),
    "splits of names": (
        lambda raw: write_raw(raw) and FOLDERS | {"splits": {"val": ["actor_0"]}},
        r"background_splits must say which backgrounds each split has",
    ),
    "a split without labels": (
        lambda raw: write_raw(raw) and FOLDERS | {"splits": {"unlabeled": 0.5}},
        r"allowed are train, val, test",
    ),
    "another key": (lambda raw: write_raw(raw) and FOLDERS | {"key": {"name": "magic"}}, r"allowed: bounds, soft"),
    "a folder elsewhere": (lambda raw: write_raw(raw) and FOLDERS | {"videos": "../x"}, r"inside the data set"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    write, message = BAD[name]
    source = write(tmp_path / "raw")
    with pytest.raises(MaskcastError) as caught:
        prepare(tmp_path / "raw", tmp_path / "clips", source)
    assert re.search(message, str(caught.value)) and "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize("sign", ["videos and backgrounds", "YT_4sec/train/out_log.json"])
def test_init_says_what_such_a_folder_is_for(sign: str, tmp_path: Path) -> None:
    for folder in ("videos", "backgrounds") if "videos" in sign else ("YT_4sec/train",):
        (tmp_path / folder).mkdir(parents=True)
    if "videos" not in sign:
        (tmp_path / sign).write_text("{}")
    with pytest.raises(
        MaskcastError, match=f"holds {sign}, .*green-screen data set: run `maskcast new .* --pipeline video`"
    ):
        inspect_folder(tmp_path)


def test_a_size_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match="set height and width of prepare_clips"):
        prepare(write_raw(tmp_path / "raw"), tmp_path / "clips", FOLDERS, height=None, width=None)


@pytest.mark.parametrize("damage", ["missing", "others"])
def test_backgrounds_of_others_are_refused(damage: str, tmp_path: Path) -> None:
    store = prepare(write_raw(tmp_path / "raw"), tmp_path / "clips", FOLDERS)
    if damage == "missing":
        (store.root / "backgrounds/index.json").unlink()
    else:
        path = store.root / "backgrounds/index.json"
        path.write_text(path.read_text() + " ")
    with pytest.raises(MaskcastError, match=r"no clip store found|not the backgrounds of"):
        Backgrounds(store)


@pytest.mark.parametrize(
    "twins", [("a/b/0.png", "a_b/0.png"), ("a/0.png", "a.mp4"), ("a/0.png", "a.mp4", "a.txt")]
)
def test_films_of_one_name_are_refused_and_none_is_lost(tmp_path: Path, twins: tuple[str, ...]) -> None:
    for name in twins:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if len(twins) == 3:  # the video goes by its whole name, because another file has its stem
        assert sorted(find_videos(tmp_path, 24)) == ["a", "a_mp4"]
        return
    with pytest.raises(MaskcastError, match=r"a_b|'a'") as raised:
        find_videos(tmp_path, 24)
    assert all(str(tmp_path / name) in str(raised.value) for name in twins)


def test_a_background_of_the_video_s_own_name_is_said_where_there_is_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_raw(tmp_path / "raw")
    (raw / "backgrounds/street").rename(raw / "backgrounds/actor_0")
    (raw / "backgrounds/wall.png").rename(raw / "backgrounds/actor_1.png")
    names = {"val": ["actor_0"]}
    for number, backgrounds in enumerate((names, {"val": ["actor_1"]})):
        source = FOLDERS | {"splits": names, "background_splits": backgrounds}
        prepare(raw, tmp_path / str(number), source)
        text = (
            "2 videos are composed over the background of the same name, the only one of its split, e.g. actor_0"
        )
        assert (text in capsys.readouterr().err) == (backgrounds == names)
