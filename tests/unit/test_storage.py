import hashlib
import time

import pytest

from maskcast import storage
from maskcast.data.clips import ClipStore
from maskcast.errors import MaskcastError


@pytest.fixture
def no_server(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")


def test_missing_credentials_are_said(no_server, tmp_path):
    with pytest.raises(MaskcastError, match="no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        storage.fetch("s3://bucket/x", tmp_path)


def test_an_unreachable_endpoint_is_said_within_seconds(no_server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    start = time.monotonic()
    with pytest.raises(MaskcastError, match=r"http://127\.0\.0\.1:1 cannot be reached .*AWS_ENDPOINT_URL_S3"):
        storage.fetch("s3://bucket/x", tmp_path)
    assert time.monotonic() - start < 30


def test_digest_of_a_folder_is_that_of_its_sha256sums(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    one, two = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    assert storage.digest_tree(tmp_path) == hashlib.sha256(f"{one}  a\n{two}  b/c\n".encode()).hexdigest()[:32]
    assert storage.digest_tree(tmp_path / "a") == one[:32]


def test_digest_sees_contents_and_names(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    first = storage.digest_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = storage.digest_tree(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({first, second, storage.digest_tree(tmp_path)}) == 3


def test_digest_of_a_clip_store_is_the_stores(store: ClipStore):
    assert storage.digest_tree(store.root) == store.digest
