"""Transfers with a real S3 server."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from tests.conftest import files_of
from tests.integration.faults import HELD_S, Fault, faulty_proxy

from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.runner.run import run_stage
from maskcast.stages import fetch_dataset
from maskcast.storage import store as storage


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "a.bin").write_bytes(os.urandom(100_000))
    (folder / "deep/er/b b.bin").write_bytes(os.urandom(20 << 20))  # more than one piece, a multipart upload
    (folder / "deep/empty").write_bytes(b"")
    return folder


def test_what_is_put_is_fetched_byte_for_byte_with_its_digest(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/data/set")
    fetched = storage.fetch(f"{s3.uri}/data/set/", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)
    assert len(fetched) == 3
    assert digest_tree(tmp_path / "back") == digest_tree(tree)


def test_the_manifest_is_what_sha256sum_checks(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/set")
    s3.client.download_file(s3.bucket, "set/SHA256SUMS", str(tree / "SHA256SUMS"))
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tree, check=True)


def test_a_single_object_is_fetched(s3, tmp_path):
    s3.client.put_object(Bucket=s3.bucket, Key="some/clips.zip", Body=b"content")
    (file,) = storage.fetch(f"{s3.uri}/some/clips.zip", tmp_path / "back")
    assert file == tmp_path / "back/clips.zip"
    assert file.read_bytes() == b"content"


def test_a_complete_file_is_not_fetched_again(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/set")
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    before = {p: p.stat().st_ino for p in (tmp_path / "back").rglob("*")}
    (tmp_path / "back/a.bin").unlink()
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    after = {p: p.stat().st_ino for p in (tmp_path / "back").rglob("*")}
    assert files_of(tmp_path / "back") == files_of(tree)
    assert {p.name for p in after if before[p] != after[p] and p.is_file()} <= {"a.bin"}


def test_a_changed_object_of_the_same_size_is_fetched_again(s3, tmp_path):
    client = s3.client
    client.put_object(Bucket=s3.bucket, Key="set/a", Body=b"old")
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    an_hour_ago = client.head_object(Bucket=s3.bucket, Key="set/a")["LastModified"].timestamp() - 3600
    os.utime(tmp_path / "back/a", (an_hour_ago, an_hour_ago))  # as a fetch leaves what was put then
    client.put_object(Bucket=s3.bucket, Key="set/a", Body=b"new")
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert (tmp_path / "back/a").read_bytes() == b"new"


def test_a_file_missing_from_the_manifest_set_is_named(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/set")
    s3.client.delete_object(Bucket=s3.bucket, Key="set/a.bin")
    with pytest.raises(MaskcastError, match=r"'a\.bin' is listed in SHA256SUMS but missing"):
        storage.fetch(f"{s3.uri}/set", tmp_path / "back")


def test_an_object_that_differs_from_its_manifest_is_refused(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/set")
    s3.client.put_object(Bucket=s3.bucket, Key="set/a.bin", Body=b"forged")
    with pytest.raises(MaskcastError, match=r"/set: 'a\.bin' does not match its size or checksum"):
        storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert not (tmp_path / "back/a.bin").exists()


def test_an_object_outside_the_manifest_is_left_alone(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/set")
    s3.client.put_object(Bucket=s3.bucket, Key="set/stray", Body=b"x")
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_nothing_that_holds_an_unfinished_upload_or_lies_in_it_is_fetched(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/sets/one")
    s3.client.put_object(Bucket=s3.bucket, Key="sets/one/SHA256SUMS.incomplete", Body=b"")
    for address in ("", "/sets", "/sets/one", "/sets/one/deep", "/sets/one/a.bin"):
        with pytest.raises(MaskcastError, match="is not complete; wait, or store it again"):
            storage.fetch(f"{s3.uri}{address}", tmp_path / "back")
    storage.put(tree, f"{s3.uri}/sets/two")
    storage.fetch(f"{s3.uri}/sets/two", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_what_other_tools_put_is_fetched_as_it_lies_and_said(s3, tmp_path, capsys):
    for key in ("raw/a.png", "raw/deep/b.png", "raw/.DS_Store", "raw/__MACOSX/a.png"):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=key.encode())
    storage.fetch(f"{s3.uri}/raw", tmp_path / "back")
    assert files_of(tmp_path / "back") == {"a.png": b"raw/a.png", "deep/b.png": b"raw/deep/b.png"}
    assert f"{s3.uri}/raw: has no SHA256SUMS; fetching all 2 objects" in capsys.readouterr().err


def test_a_prefix_without_data_is_said(s3, tmp_path):
    for key in ("raw/.DS_Store", "raw/__MACOSX/a.png"):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=b"x")
    with pytest.raises(MaskcastError, match="/raw: no data, only hidden files and system files"):
        run_stage("fetch_dataset", {"uri": f"{s3.uri}/raw"}, raw=tmp_path / "raw")


def test_a_checksum_of_other_tools_in_a_form_of_their_own_is_passed_over(s3, tmp_path):
    base64 = {"sha256": "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="}
    s3.client.put_object(Bucket=s3.bucket, Key="raw/a.png", Body=b"x", Metadata=base64)
    storage.fetch(f"{s3.uri}/raw", tmp_path / "back")
    assert files_of(tmp_path / "back") == {"a.png": b"x"}


def test_an_object_that_others_lie_in_is_refused(s3, tmp_path):
    for key in ("raw/a", "raw/a/b.png", "raw/c"):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=b"x")
    with pytest.raises(MaskcastError, match=r"objects 'a' and 'a/b.png' conflict as file and folder; rename one"):
        storage.fetch(f"{s3.uri}/raw", tmp_path / "back")


def test_what_the_bucket_holds_is_not_sent_again(s3, tree, monkeypatch):
    storage.put(tree, f"{s3.uri}/set")
    client = s3.client
    (tree / "deep/empty").write_bytes(b"no longer")
    with faulty_proxy(s3.endpoint) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", line.endpoint)
        storage.put(tree, f"{s3.uri}/set")
        assert line.seen("PUT .*set/a.bin") == 0
        assert line.seen("PUT .*set/deep/empty") == 1
    assert client.head_object(Bucket=s3.bucket, Key="set/deep/empty")["ContentLength"] == 9


def test_errors_are_one_line_with_a_remedy(s3, tmp_path, monkeypatch):
    with pytest.raises(MaskcastError, match="bucket 'absent-bucket' does not exist"):
        storage.fetch("s3://absent-bucket/x", tmp_path / "back")
    with pytest.raises(MaskcastError, match="no objects found"):
        storage.fetch(f"{s3.uri}/absent", tmp_path / "back")
    with pytest.raises(MaskcastError, match="not an S3 address"):
        storage.fetch("s3:/typo", tmp_path / "back")
    with pytest.raises(MaskcastError, match="nothing: no such file or folder"):
        storage.put(tmp_path / "nothing", s3.uri)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(MaskcastError, match=r"access denied .*AWS_SECRET_ACCESS_KEY") as caught:
        storage.fetch(f"{s3.uri}/x", tmp_path / "back")
    assert "\n" not in str(caught.value)


def test_fetch_dataset_takes_a_zip_from_s3_and_leaves_no_credentials(s3, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("train/video_0/image_0.png", b"x")
    storage.put(tmp_path / "set.zip", f"{s3.uri}/sets")
    run_stage("fetch_dataset", {"uri": f"{s3.uri}/sets/set.zip"}, raw=tmp_path / "raw")
    note = json.loads((tmp_path / "raw/SOURCE.json").read_text())
    assert (tmp_path / "raw/train/video_0/image_0.png").read_bytes() == b"x"
    assert (note["uri"], note["files"]) == (f"{s3.uri}/sets/set.zip", 1)
    assert "maskcast-secret" not in json.dumps(note)
    assert not (tmp_path / "raw.resume").exists()


def test_fetch_dataset_takes_a_prefix_from_s3(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/sets")
    run_stage("fetch_dataset", {"uri": f"{s3.uri}/sets"}, raw=tmp_path / "raw")
    fetched = files_of(tmp_path / "raw")
    note = json.loads(fetched.pop("SOURCE.json"))
    assert fetched == files_of(tree)
    assert note["digest"] == digest_tree(tree)


def dvc(*arguments: str, cwd: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=cwd, check=True, capture_output=True)


def write_pointer(folder: Path, s3, pointer: str) -> Path:
    """Writes all that a pointer needs: no Git, no cache, the endpoint in the environment."""
    (folder / ".dvc").mkdir(parents=True)
    config = ["[core]", "no_scm = true", "remote = store", """['remote "store"']""", f"url = {s3.uri}/dvc"]
    (folder / ".dvc/config").write_text("\n".join(config))
    (folder / "raw.dvc").write_text(pointer)
    return folder / "raw.dvc"


def test_fetch_dataset_takes_a_dvc_pointer_with_an_s3_remote(s3, tree, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    dvc("init", "--no-scm", cwd=repository)
    shutil.copytree(tree, repository / "raw")
    dvc("remote", "add", "-d", "store", f"{s3.uri}/dvc", cwd=repository)
    dvc("remote", "modify", "store", "endpointurl", s3.endpoint, cwd=repository)
    dvc("add", "raw", cwd=repository)
    dvc("push", cwd=repository)
    shutil.rmtree(repository / "raw")
    shutil.rmtree(repository / ".dvc/cache")
    alone = write_pointer(tmp_path / "alone", s3, (repository / "raw.dvc").read_text())
    allowed = os.access

    def read_only(path, mode):
        return not Path(path).is_relative_to(alone.parent) and allowed(path, mode)

    for uri, writable in ((f"dvc:{repository}#raw", True), (f"dvc:{alone}", True), (f"dvc:{alone}", False)):
        with monkeypatch.context() as patch:
            if not writable:
                shutil.rmtree(alone.parent / ".dvc/tmp")
                patch.setattr(os, "access", read_only)  # what root sees of a read-only file system
            run_stage("fetch_dataset", {"uri": uri}, raw=tmp_path / "raw")
        fetched = files_of(tmp_path / "raw")
        fetched.pop("SOURCE.json")
        assert fetched == files_of(tree)
    assert not (alone.parent / ".dvc/tmp").exists()
    md5 = hashlib.md5((tree / "a.bin").read_bytes(), usedforsecurity=False).hexdigest()
    key = f"dvc/files/md5/{md5[:2]}/{md5[2:]}"
    s3.client.put_object(Bucket=s3.bucket, Key=key, Body=bytes(100_000))
    with pytest.raises(MaskcastError, match=rf"md5 mismatch of raw/a\.bin \(expected {md5}\)"):
        run_stage("fetch_dataset", {"uri": f"dvc:{alone}"}, raw=tmp_path / "raw")


def test_a_dvc_remote_that_hangs_is_given_up(s3, tmp_path, monkeypatch):
    pointer = write_pointer(tmp_path / "alone", s3, f"outs:\n- {{path: raw, hash: md5, md5: {'ab' * 16}.dir}}\n")
    monkeypatch.setattr(fetch_dataset, "STALL_S", 1)
    size, starting, looks = fetch_dataset._size, itertools.count(1), []
    with faulty_proxy(s3.endpoint) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", line.endpoint)
        hangs = line.add(Fault("swallow", "GET", "dvc", times=99))

        def seen(folder: Path) -> int:
            """Until DVC has started and asks for data, which takes as long as it takes, bytes arrive."""
            if not hangs.reached.is_set():
                return next(starting)
            looks.append(time.monotonic())
            return size(folder)

        monkeypatch.setattr(fetch_dataset, "_size", seen)
        with pytest.raises(
            MaskcastError, match=r"raw\.dvc: dvc get failed \(no data received for 1 s\); check pointer"
        ):
            run_stage("fetch_dataset", {"uri": f"dvc:{pointer}"}, raw=tmp_path / "raw")
        assert time.monotonic() - looks[0] < HELD_S  # before the line itself breaks off
    assert {p.name for p in tmp_path.iterdir()} == {"alone"}


def test_parallel_readers_do_not_disturb_each_other(s3, tree, tmp_path):
    storage.put(tree, f"{s3.uri}/set")
    threads = [threading.Thread(target=storage.fetch, args=(f"{s3.uri}/set", tmp_path / str(k))) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(files_of(tmp_path / str(k)) == files_of(tree) for k in range(3))
