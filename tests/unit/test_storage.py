import time

import pytest

from maskcast import storage
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
    with pytest.raises(MaskcastError, match="no S3 credentials; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"):
        storage.fetch("s3://bucket/x", tmp_path)


def test_an_unreachable_endpoint_is_said_within_seconds(no_server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    start = time.monotonic()
    with pytest.raises(MaskcastError, match=r"http://127\.0\.0\.1:1 cannot be reached .*AWS_ENDPOINT_URL_S3"):
        storage.fetch("s3://bucket/x", tmp_path)
    assert time.monotonic() - start < 30


def test_an_endpoint_that_is_no_url_is_said(no_server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "storage:9000")
    with pytest.raises(MaskcastError, match=r"storage:9000; write AWS_ENDPOINT_URL_S3 as http"):
        storage.fetch("s3://bucket/x", tmp_path)
