import hashlib
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.runner.run import run_stage
from maskcast.storage import store as storage


def fetch(uri: str | Path, raw: Path, **params) -> dict:
    run_stage("fetch_dataset", {"uri": str(uri), **params}, raw=raw)
    return json.loads((raw / "SOURCE.json").read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    found.pop("SOURCE.json", None)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"one")
    (folder / "deep/b.png").write_bytes(b"two")
    return folder


def refuses(tmp_path: Path, match: str, uri: str | Path, **params) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(MaskcastError, match=match) as caught:
        fetch(uri, tmp_path / "raw", **params)
    assert "\n" not in str(caught.value)
    assert set(tmp_path.iterdir()) == before


def test_synthetic_needs_nothing(tmp_path, capsys):
    note = fetch("synthetic", tmp_path / "raw")
    assert (note["uri"], note["files"], note["bytes"]) == ("synthetic", 0, 0)
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["SOURCE.json"]
    assert capsys.readouterr().err == "synthetic: nothing to fetch; prepare_clips draws the clips\n"


def test_a_folder_is_linked_and_noted(tmp_path, tree):
    (tree / ".DS_Store").write_bytes(b"junk")
    (tree / "SOURCE.json").write_text("an older note")
    note = fetch(tree, tmp_path / "raw")
    assert files_of(tmp_path / "raw") == {"a.png": b"one", "deep/b.png": b"two"}
    assert (tmp_path / "raw/a.png").stat().st_ino == (tree / "a.png").stat().st_ino
    assert (tree / "SOURCE.json").read_text() == "an older note"
    assert (note["uri"], note["files"], note["bytes"]) == (str(tree), 2, 6)
    for name in (".DS_Store", "SOURCE.json"):
        (tree / name).unlink()
    assert note["digest"] == digest_tree(tree)


def test_a_folder_on_another_file_system_is_copied(tmp_path, tree, monkeypatch):
    def across_devices(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across_devices)
    fetch(tree, tmp_path / "raw")
    assert files_of(tmp_path / "raw") == files_of(tree)


def test_links_inside_the_tree_become_what_they_name(tmp_path, tree):
    (tree / "again.png").symlink_to("deep/b.png")
    (tree / "more").symlink_to("deep", target_is_directory=True)
    fetch(tree, tmp_path / "raw")
    assert files_of(tmp_path / "raw")["again.png"] == files_of(tmp_path / "raw")["more/b.png"] == b"two"
    assert not any(p.is_symlink() for p in (tmp_path / "raw").rglob("*"))


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("/etc/passwd", "points outside of .*; give a folder that contains both, or replace it"),
        ("../../outside", "points outside of .*"),
        ("absent", "is broken: .*/deep/absent does not exist; remove it"),
        (".", "is circular: .*; remove it"),
        ("link", "is circular: .*; remove it"),
    ],
)
def test_links_that_name_nothing_in_the_tree_are_refused(tmp_path, tree, target, cause):
    (tmp_path / "outside").mkdir()
    (tree / "deep/link").symlink_to(target)
    refuses(tmp_path, f"deep/link: symbolic link to {re.escape(target)} {cause}", tree)


def test_a_pipe_in_the_tree_is_refused(tmp_path, tree):
    os.mkfifo(tree / "pipe")
    refuses(tmp_path, "pipe: neither a file nor a folder", tree)


def test_a_name_that_is_no_text_is_refused(tmp_path, tree):
    (tree / os.fsdecode(b"stra\xdfe")).mkdir()
    refuses(tmp_path, r"tree: file name 'stra\\udcdfe' is not UTF-8; rename it", tree)


def test_a_zip_is_unpacked_and_its_checksum_pinned(tmp_path, tree):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in files_of(tree).items():
            opened.writestr(name, content)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    note = fetch(archive, tmp_path / "raw", sha256=sha256)
    assert files_of(tmp_path / "raw") == files_of(tree)
    assert note["digest"] == digest_tree(tree)
    shutil.rmtree(tmp_path / "raw")
    refuses(tmp_path, f"set.zip: sha256 mismatch: {sha256}, expected 0000", archive, sha256="0" * 64)


def test_a_file_url_names_a_folder_or_an_archive(tmp_path, tree):
    note = fetch(tree.as_uri(), tmp_path / "raw")
    assert files_of(tmp_path / "raw") == files_of(tree)
    assert (note["uri"], note["digest"]) == (tree.as_uri(), digest_tree(tree))
    shutil.make_archive(str(tmp_path / "a set"), "zip", tree)
    fetch((tmp_path / "a set.zip").as_uri(), tmp_path / "raw")
    assert files_of(tmp_path / "raw") == files_of(tree)
    shutil.rmtree(tmp_path / "raw")
    refuses(tmp_path, "unknown address; write s3://bucket/prefix, file:///path or a path", "https://host/set.zip")


def test_a_folder_that_is_still_being_stored_is_refused(tmp_path, tree):
    storage.put(tree, str(tmp_path / "kept"))
    fetch(tmp_path / "kept", tmp_path / "raw")
    assert files_of(tmp_path / "raw") == files_of(tree)
    shutil.rmtree(tmp_path / "raw")
    (tmp_path / "kept/SHA256SUMS.incomplete").touch()
    refuses(tmp_path, "is not complete; wait, or store it again", tmp_path / "kept")


def test_a_hostile_or_damaged_zip_leaves_nothing(tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../evil", b"x")
    refuses(tmp_path, r"set\.zip: member '\.\./evil' is outside of the folder", archive)
    archive.write_bytes(archive.read_bytes()[:-10])
    refuses(tmp_path, r"set\.zip: damaged, or not a zip or tar archive", archive)


@pytest.mark.parametrize("name", ["set.7z", "set.RAR", "set.tar.zst", "set.z01"])
def test_an_archive_that_is_not_read_is_no_data_set(tmp_path, name):
    (tmp_path / name).write_bytes(b"of another kind")
    said = "damaged, or not a zip or tar archive; copy it again, or unpack it and give the folder"
    refuses(tmp_path, f"{re.escape(name)}: {said}", tmp_path / name)


def test_a_single_file_is_kept(tmp_path):
    (tmp_path / "drive.mp4").write_bytes(b"video")
    fetch(tmp_path / "drive.mp4", tmp_path / "raw")
    assert files_of(tmp_path / "raw") == {"drive.mp4": b"video"}


def test_what_cannot_be_fetched_is_said(tmp_path, tree):
    (tmp_path / "empty").mkdir()
    refuses(tmp_path, "absent: no such file or folder", tmp_path / "absent")
    refuses(tmp_path, r"^~/videos: no such file or folder; fix the path, and replace `~` and `\$`", "~/videos")
    refuses(tmp_path, "the folder is empty", tmp_path / "empty")
    refuses(tmp_path, "sha256 applies to an archive or file", tree, sha256="0" * 64)
    refuses(tmp_path, "sha256 applies to an archive or file", "synthetic", sha256="0" * 64)
    refuses(tmp_path, "params.sha256: string should match pattern", tree, sha256="abc")
    refuses(tmp_path, "must not contain a password", "dvc:https://me:token@host/repository#data")
    with pytest.raises(MaskcastError) as refused:
        run_stage("fetch_dataset", {"uri": "s3://me:token@bucket"}, raw=tmp_path / "raw")
    assert "token" not in str(refused.value)
    refuses(tmp_path, "contains the output .*; choose", tmp_path)


def test_a_data_set_that_lies_in_the_output_is_left_there(tmp_path, tree):
    for uri in (tree, tree / "deep", tree / "a.png"):
        with pytest.raises(
            MaskcastError, match=r"tree: --raw is replaced as a whole, but contains fetch_dataset\.uri"
        ):
            fetch(uri, tree)
    assert files_of(tree) == {"a.png": b"one", "deep/b.png": b"two"}


def test_dvc_pointers_that_name_nothing_are_said(tmp_path):
    refuses(tmp_path, "missing path; use dvc:", f"dvc:{tmp_path}")
    refuses(tmp_path, r"absent\.dvc: no such \.dvc file", f"dvc:{tmp_path}/absent.dvc")
    (tmp_path / "data.dvc").write_text("outs: []")
    refuses(tmp_path, r"data\.dvc: not a readable \.dvc file", f"dvc:{tmp_path}/data.dvc")
    (tmp_path / "data.dvc").write_text("outs:\n- path: data\n")
    refuses(tmp_path, r"no DVC repository \(\.dvc\) found above it", f"dvc:{tmp_path}/data.dvc")


def test_a_dvc_repository_without_the_data_is_said(tmp_path):
    (tmp_path / "repository/.dvc").mkdir(parents=True)
    (tmp_path / "repository/.dvc/config").write_text("[core]\n    no_scm = true\n")
    refuses(tmp_path, r"dvc get failed .*check pointer, remote and credentials", f"dvc:{tmp_path}/repository#raw")


def write_repository(folder: Path, files: dict[str, bytes], *, old: bool = False) -> dict[str, Path]:
    """Writes a DVC repository with `raw` in its remote alone; returns its objects by the names of the files.

    Args:
        folder: the repository.
        files: contents by path below `raw`; the single name "" is a file `raw`.
        old: as DVC 2 wrote it, which took `\r\n` as `\n` in texts.
    """
    objects = {}

    def store(name: str, content: bytes) -> str:
        text = content.replace(b"\r\n", b"\n") if old else content
        md5 = hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir" * (name == ".")
        objects[name] = folder / "remote" / ("" if old else "files/md5") / md5[:2] / md5[2:]
        objects[name].parent.mkdir(parents=True, exist_ok=True)
        objects[name].write_bytes(content)
        return md5

    listing = [{"md5": store(name, content), "relpath": name} for name, content in sorted(files.items())]
    md5 = listing[0]["md5"] if "" in files else store(".", json.dumps(listing).encode())
    (folder / ".dvc").mkdir()
    config = f"[core]\n    no_scm = true\n    remote = store\n['remote \"store\"']\n    url = {folder}/remote\n"
    (folder / ".dvc/config").write_text(config)
    (folder / "raw.dvc").write_text(f"outs:\n- md5: {md5}\n  path: raw\n" + "  hash: md5\n" * (not old))
    return objects


@pytest.mark.parametrize(
    ("files", "damaged", "old"),
    [
        ({"a.txt": b"one\r\n", "deep/b": b"two"}, "deep/b", False),
        ({"a.txt": b"one\r\n", "deep/b": b"two"}, "a.txt", True),
        ({"": b"one"}, "", False),
        ({"a": b"one"}, ".", False),
    ],
    ids=["a file of a folder", "one of DVC 2", "a file", "the list of a folder's files"],
)
def test_a_damaged_object_of_a_dvc_remote_is_refused(tmp_path, files, damaged, old):
    (tmp_path / "repository").mkdir()
    objects = write_repository(tmp_path / "repository", files, old=old)
    content = objects[damaged].read_bytes()
    objects[damaged].write_bytes(content.replace(b'"a"', b'"b"') if damaged == "." else content[::-1])
    md5 = objects[damaged].parent.name + objects[damaged].name
    said = {".": rf"the list of files, {md5}, is damaged"}.get(
        damaged,
        rf"md5 mismatch of {Path('raw', damaged)} \(expected {md5}\), so the DVC remote or cache is damaged",
    )
    refuses(tmp_path, rf"dvc:.*: .*{said}", f"dvc:{tmp_path}/repository/raw.dvc")
    objects[damaged].write_bytes(content)
    fetch(f"dvc:{tmp_path}/repository/raw.dvc", tmp_path / "raw")
    assert files_of(tmp_path / "raw") == {name or "raw": content for name, content in files.items()}


def test_data_of_a_dvc_repository_that_were_changed_in_its_folder_are_taken_as_they_are(tmp_path):
    (tmp_path / "repository/raw").mkdir(parents=True)
    write_repository(tmp_path / "repository", {"a": b"one"})
    (tmp_path / "repository/raw/a").write_bytes(b"other")
    fetch(f"dvc:{tmp_path}/repository#raw", tmp_path / "raw")
    assert files_of(tmp_path / "raw") == {"a": b"other"}
