import datetime
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conftest import files_of

from maskcast.errors import MaskcastError
from maskcast.storage import store as storage
from maskcast.storage.s3 import Bucket, open_bucket


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "deep").mkdir(parents=True)
    (folder / "a b.bin").write_bytes(os.urandom(100_000))
    (folder / "deep/b.bin").write_bytes(os.urandom(100_000))
    (folder / "deep/empty").write_bytes(b"")
    return folder


@pytest.fixture
def no_server(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")


@pytest.mark.parametrize("address", ["{}", "file://{}", "file:{}", "file://localhost{}"])
def test_a_folder_is_put_and_fetched_by_path_and_url(tmp_path, tree, address):
    uri = address.format(tmp_path / "kept here")
    storage.put(tree, uri)
    fetched = storage.fetch(uri, tmp_path / "back")
    assert [p.relative_to(tmp_path / "back").as_posix() for p in fetched] == [
        "a b.bin",
        "deep/b.bin",
        "deep/empty",
    ]
    assert files_of(tmp_path / "back") == files_of(tree)
    assert (tmp_path / "back/a b.bin").stat().st_ino == (tmp_path / "kept here/a b.bin").stat().st_ino
    assert (tmp_path / "kept here/a b.bin").stat().st_ino != (tree / "a b.bin").stat().st_ino
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "kept here", check=True)


def test_a_url_may_be_percent_encoded(tmp_path, tree):
    assert storage.fetch((tree / "a b.bin").as_uri(), tmp_path / "back") == [tmp_path / "back/a b.bin"]


@pytest.mark.parametrize("links", [True, False])
def test_copies_wait_for_the_disk_and_links_do_not(tmp_path, tree, monkeypatch, links):
    def across_devices(*_):
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", across_devices)
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino) or fsync(file))
    fetched = storage.fetch(str(tree), tmp_path / "back")
    assert sorted(synced) == ([] if links else sorted(path.stat().st_ino for path in fetched))


def test_a_file_on_another_file_system_is_copied(tmp_path, tree, monkeypatch):
    def across_devices(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across_devices)
    storage.put(tree, str(tmp_path / "kept"))
    storage.fetch(str(tmp_path / "kept"), tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_a_killed_put_to_a_folder_is_never_half_read_and_goes_on(tmp_path, tree):
    """SIGKILL in the middle of the second copy to begin, whatever the other threads have done by then."""
    kept = tmp_path / "kept"
    code = """
import itertools, os, pathlib, shutil, sys
from maskcast.storage import store as storage
order = itertools.count(1)  # each of the threads draws a number of its own
def copy(source, target):
    number = next(order)
    content = pathlib.Path(source).read_bytes()
    if number == 2:
        target.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), 9)
    target.write_bytes(content)
shutil.copyfile = copy
storage.put(pathlib.Path(sys.argv[1]), sys.argv[2])
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tree), str(kept)], check=False)
    assert killed.returncode == -signal.SIGKILL
    for place in (kept, tmp_path):
        with pytest.raises(MaskcastError, match="is not complete; wait, or store it again"):
            storage.fetch(str(place), tmp_path.with_name("back"))
    whole = {p: p.stat().st_ino for p in kept.rglob("*.bin")}
    storage.put(tree, str(kept))
    assert all(p.stat().st_ino == inode for p, inode in whole.items())
    storage.fetch(str(kept), tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)
    assert not [p for p in kept.rglob("*") if ".part" in p.name or "incomplete" in p.name]


def test_a_put_of_less_than_before_leaves_nothing_of_the_broken_one(tmp_path, tree):
    kept = tmp_path / "kept"
    storage.put(tree, str(kept))
    (kept / "SHA256SUMS").rename(kept / "SHA256SUMS.incomplete")
    (kept / "deep/.b.bin.part").write_bytes(b"half")
    (tree / "deep/b.bin").unlink()
    storage.put(tree, str(kept))
    assert not (kept / "deep/.b.bin.part").exists()
    storage.fetch(str(kept), tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_a_file_that_differs_from_its_manifest_is_refused(tmp_path, tree):
    storage.put(tree, str(tmp_path / "kept"))
    (tmp_path / "kept/a b.bin").write_bytes(os.urandom(100_000))
    with pytest.raises(MaskcastError, match=r"kept: 'a b\.bin' does not match its size or checksum"):
        storage.fetch(str(tmp_path / "kept"), tmp_path / "back")
    assert not (tmp_path / "back/a b.bin").exists()
    (tmp_path / "kept/a b.bin").unlink()
    with pytest.raises(MaskcastError, match=r"'a b\.bin' is listed in SHA256SUMS but missing"):
        storage.fetch(str(tmp_path / "kept"), tmp_path / "back")


def test_a_manifest_of_other_tools_is_understood(tmp_path, tree):
    sums = subprocess.run(
        "sha256sum --binary ./*.bin && printf '%064d  ./.hidden\\r\\n' 0",
        shell=True, cwd=tree, check=True, capture_output=True,
    )  # fmt: skip
    (tree / "SHA256SUMS").write_bytes(sums.stdout)
    assert storage.fetch(str(tree), tmp_path / "back") == [tmp_path / "back/a b.bin"]
    (tree / "SHA256SUMS").write_text("what is this\n")
    with pytest.raises(MaskcastError, match="SHA256SUMS: line 1 is not a checksum"):
        storage.fetch(str(tree), tmp_path / "back")


def test_links_that_lead_in_a_circle_are_refused(tmp_path, tree):
    (tree / "other").mkdir()
    (tree / "deep/to other").symlink_to("../other")
    (tree / "other/to deep").symlink_to("../deep")
    with pytest.raises(MaskcastError, match=r"to deep: symbolic link to \.\./deep is circular"):
        storage.fetch(str(tree), tmp_path / "back")


@pytest.mark.parametrize("name", ["two\nlines", "back\\slash"])
def test_a_name_that_a_manifest_or_a_server_cannot_hold_is_refused(tmp_path, tree, name):
    """SeaweedFS makes a slash of a backslash: what was put is not found again."""
    (tree / name).write_bytes(b"x")
    with pytest.raises(MaskcastError, match=re.escape(f"{name!r} contains a backslash or control characters")):
        storage.put(tree, str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://bucket/x", "gs://bucket/x: unknown address; write s3://bucket/prefix, file:///path or a path"),
        ("file://host/x", "file://host/x: unknown address"),
        ("file:///", "file:///: unknown address"),
        ("s3:/bucket/x", "not an S3 address; write s3://bucket/prefix"),
        ("file:///no/such/folder", "/no/such/folder: no such file or folder; fix the path"),
    ],
)
def test_an_address_that_names_nothing_is_said(tmp_path, uri, said):
    with pytest.raises(MaskcastError) as caught:
        storage.fetch(uri, tmp_path / "back")
    assert said in str(caught.value)
    assert not (tmp_path / "back").exists()


def test_nothing_is_put_from_an_empty_folder_or_fetched_into_its_own_source(tmp_path, tree):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaskcastError, match="empty: the folder is empty"):
        storage.put(tmp_path / "empty", str(tmp_path / "kept"))
    with pytest.raises(MaskcastError, match=r"contains the output .*; choose an output outside of it"):
        storage.fetch(str(tree), tree / "deep/back")
    assert not (tree / "deep/back").exists()


def test_nothing_is_put_into_its_own_source(tmp_path, tree):
    with pytest.raises(
        MaskcastError, match=r"tree: contains the target .*deep/kept; choose a target outside of it"
    ):
        storage.put(tree, str(tree / "deep/kept"))
    assert not (tree / "deep/kept").exists()


@pytest.mark.parametrize("place", ["", "deep/"])
def test_half_of_an_upload_is_not_put_elsewhere(tmp_path, tree, place):
    """Where it is put nobody could fetch it, or would take the half for the whole."""
    (tree / place / "SHA256SUMS.incomplete").write_text("")
    with pytest.raises(
        MaskcastError, match=rf"tree: '{place}SHA256SUMS.incomplete' marks data that is not complete; store"
    ):
        storage.put(tree, str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_is_called_as_the_manifest_is_data_that_cannot_be_put(tmp_path, tree):
    (tree / "SHA256SUMS").mkdir()
    (tree / "SHA256SUMS/x").write_bytes(b"x")
    storage.fetch(str(tree), tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)
    with pytest.raises(MaskcastError, match="tree: 'SHA256SUMS' is reserved for the list of checksums; rename"):
        storage.put(tree, str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_an_address_without_data_is_said(tmp_path, tree):
    (tree / "SHA256SUMS").write_text(f"{'0' * 64}  .DS_Store\n")
    with pytest.raises(
        MaskcastError, match="tree: no data, only hidden files and system files such as __MACOSX; fix"
    ):
        storage.fetch(str(tree), tmp_path / "back")


@pytest.mark.parametrize("key", ["../evil", "a/../../evil", "/etc/evil", "a//b", "./a"])
def test_an_object_without_a_place_in_a_folder_is_refused(key):
    """Some servers keep such keys; SeaweedFS does not."""
    entry = {"Key": f"set/{key}", "Size": 1, "ETag": '"x"', "LastModified": datetime.datetime.now(datetime.UTC)}
    pages = SimpleNamespace(paginate=lambda **arguments: [{"Contents": [entry]}])
    bucket = Bucket(SimpleNamespace(get_paginator=lambda operation: pages), "s3://b/set", "b", "set")
    with pytest.raises(MaskcastError, match="is not a valid file path; rename it"):
        bucket.items()


def test_missing_credentials_are_said(no_server, tmp_path):
    with pytest.raises(MaskcastError, match="no S3 credentials; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"):
        storage.fetch("s3://bucket/x", tmp_path)


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-west-3"}, "eu-west-3"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-3"),
    ],
)
def test_the_region_is_that_of_the_environment(no_server, monkeypatch, variables, region):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with open_bucket("s3://bucket/x") as bucket:
        assert bucket._client.meta.region_name == region


def test_an_unreachable_endpoint_is_said_within_seconds(no_server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(MaskcastError, match=r"http://127\.0\.0\.1:1 is unreachable .*AWS_ENDPOINT_URL_S3"):
        storage.fetch("s3://bucket/x", tmp_path)
    assert 0 < sum(pauses) < 20


def test_an_endpoint_that_is_no_url_is_said(no_server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "storage:9000")
    with pytest.raises(MaskcastError, match=r"storage:9000; set AWS_ENDPOINT_URL_S3 to http"):
        storage.fetch("s3://bucket/x", tmp_path)
