"""Data by reference in S3, with a real server: stored once, fetched once a machine, each file by its checksum."""

import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conftest import write_store
from tests.integration.conftest import S3

from maskcast.data.clip_store.reader import ClipStore
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.runner import references
from maskcast.runner.references import REFERENCE, resolve_reference, store_output


def test_clips_stay_in_a_bucket_and_a_machine_fetches_them_once(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "MIN_BYTES", 1000)
    monkeypatch.setenv("MASKCAST_DATA", f"{s3.uri}/data/")
    monkeypatch.setenv("MASKCAST_DATA_CACHE", str(tmp_path / "node"))
    store = write_store(tmp_path / "clips")
    digest, count = digest_tree(store.root), len(store.select("train"))
    pod = tmp_path / "pod"
    store_output(store.root, pod)
    assert [path.name for path in pod.iterdir()] == [REFERENCE]
    found = resolve_reference(pod)
    assert (found, digest_tree(found)) == (tmp_path / "node" / digest, digest)
    assert len(ClipStore(found).select("train")) == count

    again = write_store(tmp_path / "again").root  # the same data by another run: nothing new is stored
    listed = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    store_output(again, tmp_path / "other")
    after = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    assert {each["Key"] for each in after} == {each["Key"] for each in listed}
    for each in after:
        s3.client.delete_object(Bucket=s3.bucket, Key=each["Key"])
    assert resolve_reference(pod) == found  # the machine has it

    monkeypatch.setenv("MASKCAST_DATA_CACHE", str(tmp_path / "new node"))
    with pytest.raises(MaskcastError, match="its data cannot be fetched: s3://"):
        resolve_reference(pod)
    assert not (tmp_path / "new node" / digest).exists()


def test_stages_that_want_the_same_data_at_once_fetch_it_once(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "MIN_BYTES", 1000)
    monkeypatch.setenv("MASKCAST_DATA", f"{s3.uri}/data")
    monkeypatch.setenv("MASKCAST_DATA_CACHE", str(tmp_path / "node"))
    store_output(write_store(tmp_path / "clips").root, tmp_path / "pod")
    fetched = []

    def fetch(uri: str, folder: Path) -> None:
        fetched.append(uri)
        real_fetch(uri, folder)

    real_fetch = references.fetch
    monkeypatch.setattr(references, "fetch", fetch)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(resolve_reference, [tmp_path / "pod"] * 4))
    assert (len(found), len(fetched)) == (1, 1)


def test_a_damaged_copy_is_fetched_again(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "MIN_BYTES", 1000)
    monkeypatch.setenv("MASKCAST_DATA", f"{s3.uri}/data")
    monkeypatch.setenv("MASKCAST_DATA_CACHE", str(tmp_path / "node"))
    store_output(write_store(tmp_path / "clips").root, tmp_path / "pod")
    copy = resolve_reference(tmp_path / "pod")
    (shard,) = copy.glob("frames-*.npy")
    shard.write_bytes(b"cut short")
    (copy / "clips.jsonl").unlink()
    ClipStore(resolve_reference(tmp_path / "pod")).verify()
    assert [path.name for path in (tmp_path / "node").iterdir()] == [copy.name]


def test_each_user_has_a_cache(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "MIN_BYTES", 1000)
    monkeypatch.setenv("MASKCAST_DATA", f"{s3.uri}/data")
    monkeypatch.delenv("MASKCAST_DATA_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store_output(write_store(tmp_path / "clips").root, tmp_path / "pod")
    cache = resolve_reference(tmp_path / "pod").parent
    assert (cache.name, stat.filemode(cache.stat().st_mode)) == (f"maskcast-data-{os.getuid()}", "drwx------")
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # whose folder somebody else has made
    (tmp_path / "maskcast-data-12345").mkdir()
    with pytest.raises(MaskcastError) as refused:
        resolve_reference(tmp_path / "pod")
    assert str(refused.value) == (
        f"{tmp_path}/maskcast-data-12345: cannot be written (MASKCAST_DATA_CACHE: belongs to another user); set "
        "MASKCAST_DATA_CACHE to a folder of yours"
    )
