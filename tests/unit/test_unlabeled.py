"""What an encoder learns from: clips without their labels, images in folders and archives."""

import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.conftest import lacking, write_store

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.unlabeled import ClipFrames, ImageFrames, open_frames
from maskcast.errors import MaskcastError
from maskcast.labels import MASK, single_map
from maskcast.locks import exclusive_lock
from maskcast.seed import rng


@pytest.fixture
def squashfs_tools() -> None:
    """The programs that write and read squashfs files; CI installs them."""
    if not (shutil.which("mksquashfs") and shutil.which("unsquashfs")):
        lacking("squashfs-tools are not installed")


def write_images(folder: Path, *names: str) -> Path:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((6 + k, 8, 3), 10 * k, np.uint8))
    return folder


def test_of_a_store_the_train_and_unlabelled_clips_are_seen(store: ClipStore) -> None:
    frames = open_frames(store.root, store.root)
    assert isinstance(frames, ClipFrames)
    assert {clip.id for clip in frames.clips} == {"train_0", "train_1", "unlabeled_0", "unlabeled_1"}
    assert len(frames) == 88
    expected = np.concatenate([store.frames(clip) for clip in frames.clips])
    for index in (0, 21, 22, 87):
        np.testing.assert_array_equal(frames.frame(index), expected[index])


def test_a_near_frame_is_of_the_same_clip(store: ClipStore) -> None:
    frames = ClipFrames(store)
    known = {
        store.frames(clip)[t].tobytes(): (clip.id, t) for clip in frames.clips for t in range(clip.num_frames)
    }
    for index, clip, most in (
        (22, "train_1", {0, 1, 2}),
        (43, "train_1", {19, 20, 21}),
        (30, "train_1", {*range(6, 11)}),
    ):
        found = [known[frames.near(index, 2, rng(1, k)).tobytes()] for k in range(60)]
        assert {name for name, _ in found} == {clip}
        assert {t for _, t in found} == most


def test_a_store_without_frames_to_see_says_what_it_has(tmp_path: Path) -> None:
    write_store(tmp_path / "clips", val=1, hidden=1)
    with pytest.raises(MaskcastError, match=r"no clip of split train or unlabeled .* has hidden \(hidden\), val"):
        open_frames(tmp_path / "clips", tmp_path)
    with ClipWriter(tmp_path / "masks", height=8, width=8, maps=single_map(["background", "a"])) as writer:
        writer.add("a", split="train", kind="labelled", masks={MASK: np.zeros((2, 8, 8), np.uint8)})
    with pytest.raises(MaskcastError, match="no clip of split train or unlabeled has frames"):
        open_frames(tmp_path / "masks", tmp_path)


def test_images_of_subfolders_in_the_order_of_their_numbers_without_junk(tmp_path: Path) -> None:
    write_images(tmp_path, "a/10.png", "a/2.png", "b/1.jpg", "__MACOSX/a/2.png", ".hidden/3.png", "a/._2.png")
    (tmp_path / "a/notes.txt").write_text("x")
    frames = open_frames(tmp_path, tmp_path)
    assert isinstance(frames, ImageFrames)
    assert [path.relative_to(tmp_path).as_posix() for path in frames.paths] == ["a/2.png", "a/10.png", "b/1.jpg"]
    assert frames.frame(0).shape == (7, 8, 3)
    np.testing.assert_array_equal(frames.near(0, 5, rng(0)), frames.frame(0))


def test_a_detection_set_keeps_what_it_is_validated_on_to_itself(tmp_path: Path) -> None:
    write_images(tmp_path, "images/train/1.png", "images/val/2.png", "unlabeled/3.png")
    (tmp_path / "dataset.json").write_text("{}")
    frames = open_frames(tmp_path, tmp_path)
    assert isinstance(frames, ImageFrames)
    assert [path.name for path in frames.paths] == ["1.png", "3.png"]


def test_a_folder_without_images_and_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match=r"contains no clip store and no images \(bmp, .*png"):
        open_frames(tmp_path, tmp_path)
    (tmp_path / "x").write_text("x")
    with pytest.raises(MaskcastError, match="not a zip, tar or squashfs file"):
        open_frames(tmp_path / "x", tmp_path)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(MaskcastError, match=r"1\.png: not a readable image"):
        open_frames(tmp_path, tmp_path).frame(0)


def test_a_zip_is_unpacked_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(write_images(tmp_path / "s", "1.png") / "1.png", "deep/1.png")
    frames = open_frames(tmp_path / "a.zip", tmp_path / "scratch")
    assert len(frames) == 1 and frames.frame(0).shape == (6, 8, 3)
    (image,) = (tmp_path / "scratch").rglob("1.png")
    made = image.stat().st_mtime_ns
    assert len(open_frames(tmp_path / "a.zip", tmp_path / "scratch")) == 1
    assert image.stat().st_mtime_ns == made


def test_processes_unpack_a_zip_one_after_the_other(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(write_images(tmp_path / "s", "1.png") / "1.png", "1.png")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with ThreadPoolExecutor() as other, exclusive_lock(scratch / "unpacked"):
        opened = other.submit(open_frames, tmp_path / "a.zip", scratch)
        with pytest.raises(TimeoutError):
            opened.result(timeout=1)
    assert len(opened.result()) == 1 and [path.name[:9] for path in scratch.iterdir()] == ["unpacked-"]


def test_a_zip_that_was_replaced_is_unpacked_again(tmp_path: Path) -> None:
    """A killed run leaves what it unpacked; the next one must not learn from that of an older archive."""
    write_images(tmp_path / "s", "1.png", "2.png")
    for name, rows in (("1.png", 6), ("2.png", 7)):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(tmp_path / "s" / name, "image.png")
        assert open_frames(tmp_path / "a.zip", tmp_path / "scratch").frame(0).shape == (rows, 8, 3)
    assert len(list((tmp_path / "scratch").rglob("*.png"))) == 1


def test_a_zip_with_a_clip_store_is_one(store: ClipStore, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "clips"), "zip", store.root)
    assert isinstance(open_frames(Path(archive), tmp_path / "scratch"), ClipFrames)


def test_a_broken_zip_leaves_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(write_images(tmp_path / "s", "1.png") / "1.png", "1.png")
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[40:60] = b"\xff" * 20
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(MaskcastError, match=r"a\.zip: member '1\.png' is damaged .*copy the archive again"):
        open_frames(tmp_path / "a.zip", tmp_path / "scratch")
    assert not any((tmp_path / "scratch").rglob("*"))


def squash(folder: Path, out: Path) -> Path:
    subprocess.run(
        ["mksquashfs", str(folder), str(out), "-quiet", "-no-progress"], check=True, capture_output=True
    )
    return out


@pytest.mark.usefixtures("squashfs_tools")
def test_a_squashfs_file_is_read(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "s", "a/with space.png", "b/2.png", "__MACOSX/3.png")
    frames = open_frames(squash(folder, tmp_path / "a.sqsh"), tmp_path / "scratch")
    assert isinstance(frames, ImageFrames)
    assert sorted(path.name for path in frames.paths) == ["2.png", "with space.png"]
    assert not list((tmp_path / "scratch").rglob("__MACOSX"))


@pytest.mark.usefixtures("squashfs_tools")
def test_a_squashfs_file_with_a_link_or_cut_short_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "s", "1.png")
    whole = squash(folder, tmp_path / "a.sqsh").read_bytes()
    (tmp_path / "b.sqsh").write_bytes(whole[:200])
    with pytest.raises(MaskcastError, match=r"b\.sqsh: cannot be unpacked \(.*\); copy the archive again"):
        open_frames(tmp_path / "b.sqsh", tmp_path / "scratch")
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(MaskcastError, match=r"c\.sqsh: member 'passwd' is a link or device"):
        open_frames(squash(folder, tmp_path / "c.sqsh"), tmp_path / "scratch")
    assert not any((tmp_path / "scratch").rglob("*"))


def test_unsquashfs_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.sqsh").write_bytes(b"hsqs" + bytes(100))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MaskcastError, match=r"needs the program unsquashfs.*install squashfs-tools"):
        open_frames(tmp_path / "a.sqsh", tmp_path / "scratch")
