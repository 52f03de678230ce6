"""Names of files, those below a folder of users, and texts that are written whole."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import unlisted

from maskcast.data.sources.videos import VideosSource
from maskcast.digest import digest_tree, stamp_tree
from maskcast.errors import MaskcastError, convert_system_errors
from maskcast.evaluation.many import find_maskers
from maskcast.files import file_stem, list_files, match_files, tree_files
from maskcast.serving.videos import find_videos
from maskcast.writing import write_atomically


def names(root: Path, *suffixes: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_files(root, *suffixes)]


def test_names_that_are_too_long_for_a_file_are_cut_and_stay_apart(tmp_path: Path) -> None:
    assert file_stem("train/手_0") == "train_手_0"
    long = [file_stem("手" * 100 + end) for end in ("/0", "/1", "_1")]
    assert long[0] != long[1] == long[2]  # as a/1 and a_1 are
    for name in long:
        assert name.startswith("手手手")
        (tmp_path / f"median_{name}.png.partial").touch()


def test_files_come_by_path_without_what_operating_systems_leave(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.PNG", "a.json", "b/.DS_Store", ".git/c.json", "__MACOSX/b/2.png", "c/Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("SOURCE.json", "b/SOURCE.json"):  # fetch_dataset's record, and a file of the set
        (tmp_path / name).touch()
    assert names(tmp_path, ".json") == ["a.json", "b/SOURCE.json"]
    (tmp_path / "b/SOURCE.json").unlink()
    assert names(tmp_path) == ["a.json", "b/10.PNG", "b/2.png"]
    assert names(tmp_path, ".png") == ["b/10.PNG", "b/2.png"]


def test_links_are_followed_but_in_no_circle(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    for folder in (root / "inner", disk):
        folder.mkdir(parents=True)
    (disk / "video.mp4").touch()
    (root / "linked").symlink_to(disk)
    (root / "inner/up").symlink_to(root)
    (root / "inner/here").symlink_to(".")
    assert names(root) == ["linked/video.mp4"]


def test_a_folder_that_is_not_there_holds_no_files(tmp_path: Path) -> None:
    assert names(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "look",
    [
        list_files,
        tree_files,
        digest_tree,
        stamp_tree,
        lambda root: match_files(root, "**/*.mp4"),
        lambda root: match_files(root, "*/v*.mp4"),
        lambda root: match_files(root, "z/v1.*"),
        lambda root: VideosSource().listing(root, height=None, width=None, seed=0),
        lambda root: find_videos([str(root)], Path("forecasts")),
        lambda root: find_maskers([root]),
    ],
)
def test_a_folder_that_cannot_be_listed_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lost+found", "y", "z"):
        Path("data", name).mkdir(parents=True)
        Path("data", name, "v1.mp4").touch()
    Path("data/lost+found").chmod(0)  # this is root's on every volume
    said = (
        r"^data/z: cannot be read or written \(Permission denied\); choose another path, or fix its permissions$"
    )
    with unlisted(Path("data/z")), pytest.raises(MaskcastError, match=said), convert_system_errors():
        look(Path("data"))


def test_patterns_match_what_those_of_python_do(tmp_path: Path) -> None:
    for name in ("a.png", "A.PNG", "b/a.png", "b/c/a.png", ".d/a.png", "b/[1].png", "other/e/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/link").symlink_to("../other")
    (tmp_path / "b/loop").symlink_to("loop")
    for pattern in (
        "*.png",
        "**/*.png",
        "**",
        "*/*.png",
        "b/**/a.*",
        "b/*/e/a.png",
        "a.png",
        "none/*",
        "*/[abc]*",
        "a.png/*",
    ):
        expected = [path for path in tmp_path.glob(pattern) if ".d" not in path.parts]  # junk
        if pattern == "**":  # from Python 3.13 on it matches files and links, too
            expected = [path for path in expected if path.is_dir() and not path.is_symlink()]
        assert match_files(tmp_path, pattern) == sorted(expected), pattern
    assert match_files(tmp_path, ".d/*") == [tmp_path / ".d/a.png"]
    assert match_files(tmp_path / "nowhere", "*") == []


def test_of_two_who_write_a_text_at_once_neither_fails_nor_tears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "params.yaml", Path.write_text

    def overtaken(file: Path, text: str, **how: Any) -> int:
        count = write(file, text, **how)
        if text == "first":
            write_atomically(path, "second")
            assert path.read_text() == "second"
        return count

    monkeypatch.setattr(Path, "write_text", overtaken)
    write_atomically(path, "first")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    """As seen from outside: the calls that flush, and those that rename, in their order."""
    code = """
import os
import sys
from collections.abc import Callable
from pathlib import Path
from maskcast.runner.outputs import atomic_outputs
from maskcast.writing import write_atomically

calls = []

def watch(event, args):
    if event == "ctypes.dlsym" and args[1] == "syncfs":
        calls.append("flush all")
    if event == "open" and args[1] is None and not args[2] & os.O_ACCMODE:  # os.open to read
        calls.append(f"flush {Path(args[0]).name.split('.')[0]}")
    if event == "os.rename" and "lock" not in str(args[1]):
        calls.append(f"name {Path(args[1]).name}")

folder = Path("folder").absolute()
folder.mkdir()
outputs = {name: folder / name for name in ("a", "b")}
partials = {name: folder / f"{name}.partial" for name in outputs}
sys.addaudithook(watch)
with atomic_outputs(outputs, partials):
    for path in partials.values():
        path.write_text("x")
    calls.clear()
print(*calls, sep=", ")
calls.clear()
write_atomically(folder / "text", "x")
print(*calls, sep=", ")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    outputs, text = done.stdout.splitlines()
    assert outputs.endswith("flush all, flush b, name a, name b, flush folder")
    assert text == "flush text, name text, flush folder"
