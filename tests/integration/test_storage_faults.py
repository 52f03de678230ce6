"""Transfers with a real S3 server over a line that breaks: equal after a retry or a rerun, never half read."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conftest import files_of
from tests.integration.conftest import new_bucket
from tests.integration.faults import Fault, FaultyProxy, faulty_proxy

from maskcast.errors import MaskcastError
from maskcast.storage import s3 as s3_module
from maskcast.storage import store as storage

MIB = 1 << 20
LARGE = 9 * MIB  # two pieces
WAIT_S = 300
TIMED = ("stall", "swallow", "drip")  # kinds of faults that show what a client's patience does
FETCH = "import sys, pathlib, maskcast.storage.store as s; s.fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
PUT = "import sys, pathlib, maskcast.storage.store as s; s.put(pathlib.Path(sys.argv[1]), sys.argv[2])"


def patient(monkeypatch, fault: Fault) -> None:
    """Lets clients wait for two seconds alone where that is what a fault is about."""
    if fault.kind in TIMED:
        monkeypatch.setattr(s3_module, "TIMEOUT_S", 2)


def check_attempts(line: FaultyProxy, fault: Fault, request_: str, attempts: int) -> None:
    """Where clients wait for two seconds, one that this machine held up for so long asks once more."""
    more = line.seen(request_) - attempts
    assert more == 0 or (more == 1 and fault.kind in TIMED)


def wait_for(condition) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def line(s3, monkeypatch) -> FaultyProxy:
    """The line to the server, which the environment names; `s3.client` goes past it."""
    s3.client.put_object(Bucket=s3.bucket, Key="warm", Body=b"x")  # the first one of a bucket takes seconds
    with faulty_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        yield proxy


def make_tree(folder: Path) -> Path:
    """Writes a small file and one of two pieces."""
    (folder / "deep").mkdir(parents=True)
    (folder / "small.bin").write_bytes(os.urandom(100_000))
    (folder / "deep/large.bin").write_bytes(os.urandom(LARGE))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture(scope="module")
def stored(s3_endpoint, tmp_path_factory) -> tuple[str, dict[str, bytes]]:
    """The address of a tree that was put there without a fault, and its files. For readers alone."""
    tree = make_tree(tmp_path_factory.mktemp("stored") / "tree")
    with pytest.MonkeyPatch.context() as patch:
        uri = f"{new_bucket(s3_endpoint, patch).uri}/set"
        storage.put(tree, uri)
    return uri, files_of(tree)


def run_until(fault: Fault, code: str, *arguments: str | Path, also=lambda: True) -> None:
    """Runs code in a process of its own and kills that when the fault has been reached, and `also` is true."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])
    try:
        assert fault.reached.wait(WAIT_S)
        wait_for(also)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def uploads(s3) -> list[dict]:
    return s3.client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", [])


def fault_id(value) -> str:
    return f"{value.kind} at {value.method} {value.path}" if isinstance(value, Fault) else ""


@pytest.mark.parametrize(
    ("fault", "request_", "attempts"),
    [
        (Fault("503", "GET", "list-type"), "GET .*list-type", 2),
        (Fault("close", "GET", "list-type", after=100), "GET .*list-type", 2),
        (Fault("503", "HEAD", "set/SHA256SUMS.incomplete"), "HEAD .*set/SHA256SUMS.incomplete", 2),
        (Fault("shorten", "GET", "SHA256SUMS", after=80), "GET .*SHA256SUMS", 2),
        (Fault("503", "GET", "small", times=2), "GET .*small", 3),
        (Fault("reset", "GET", "small", after=50_000, times=2), "GET .*small", 3),
        (Fault("reset", "GET", "large", after=MIB // 2, times=2), "GET .*large", 4),
        (Fault("close", "GET", "large", after=MIB // 2), "GET .*large", 3),
        (Fault("shorten", "GET", "large", after=MIB // 2), "GET .*large", 3),
        (Fault("stall", "GET", "large", after=MIB // 2), "GET .*large", 3),
        (Fault("lose answer", "GET", "large"), "GET .*large", 3),
        (Fault("drip", "GET", "large", times=2), "GET .*large", 2),
    ],
    ids=fault_id,
)
def test_a_broken_fetch_is_repeated(line, stored, tmp_path, monkeypatch, fault, request_, attempts):
    uri, files = stored
    patient(monkeypatch, fault)
    line.add(fault)
    storage.fetch(uri, tmp_path / "back")
    assert fault.times == 0
    check_attempts(line, fault, request_, attempts)
    assert files_of(tmp_path / "back") == files


@pytest.mark.parametrize(
    ("fault", "request_", "attempts"),
    [
        (Fault("503", "POST", "uploads"), "POST .*uploads", 2),
        (Fault("503", "PUT", "small"), "PUT .*small", 2),
        (Fault("reset request", "PUT", "small", after=50_000), "PUT .*small", 2),
        (Fault("503", "PUT", "partNumber"), "PUT .*partNumber", 3),
        (Fault("reset request", "PUT", "partNumber=1", after=4 * MIB), "PUT .*partNumber=1", 2),
        (Fault("swallow", "PUT", "partNumber=2"), "PUT .*partNumber=2", 2),
        (Fault("lose answer", "POST", "uploadId"), "POST .*uploadId", 2),
        (Fault("lose answer", "PUT", "SHA256SUMS$"), "PUT .*SHA256SUMS$", 2),
        (Fault("503", "DELETE", "incomplete"), "DELETE .*incomplete", 2),
    ],
    ids=fault_id,
)
def test_a_broken_put_is_repeated(s3, line, tree, tmp_path, monkeypatch, fault, request_, attempts):
    patient(monkeypatch, fault)
    line.add(fault)
    storage.put(tree, f"{s3.uri}/set")
    check_attempts(line, fault, request_, attempts)
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_an_upload_that_ended_well_and_lost_its_answer_is_taken(s3, line, tree, tmp_path):
    """Some servers answer a repeated end of an upload with NoSuchUpload."""
    line.add(Fault("lose answer", "POST", "uploadId"))
    line.add(Fault("no such upload", "POST", "uploadId"))
    storage.put(tree, f"{s3.uri}/set")
    assert line.seen("POST .*uploadId") == 2
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_a_server_that_stays_away_is_said_and_the_next_run_goes_on(line, stored, tmp_path, monkeypatch):
    uri, files = stored
    pauses = []
    monkeypatch.setattr(s3_module, "time", SimpleNamespace(sleep=pauses.append))
    fault = line.add(Fault("close", "GET", "small", after=10, times=99))
    with pytest.raises(
        MaskcastError, match=r"download of 'set/small.bin' failed 5 times .* run the same command again"
    ) as caught:
        storage.fetch(uri, tmp_path / "back")
    assert "\n" not in str(caught.value)
    assert line.seen("GET .*small") == 5
    assert len(set(pauses)) == 4  # of random length: readers that broke off together do not come back together
    assert all(0 <= pause <= 2**attempt for attempt, pause in enumerate(pauses))
    fault.times = 0
    storage.fetch(uri, tmp_path / "back")
    assert files_of(tmp_path / "back") == files


def test_a_server_that_is_busy_for_long_is_said(s3, line, tree, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_module, "ATTEMPTS", 2)
    fault = line.add(Fault("503", "PUT", "partNumber=2", times=99))
    with pytest.raises(MaskcastError, match=r"the server returned SlowDown: .* run the same command again"):
        storage.put(tree, f"{s3.uri}/set")
    assert line.seen("PUT .*partNumber=2") == 2
    with pytest.raises(MaskcastError, match="is not complete"):
        storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    fault.times = 0
    storage.put(tree, f"{s3.uri}/set")
    assert line.seen("PUT .*partNumber=1") == 1
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


@pytest.mark.parametrize("name", ["small.bin", "deep/large.bin"])
def test_bytes_that_change_on_the_way_are_never_kept(line, stored, tmp_path, name):
    uri, files = stored
    line.add(Fault("corrupt", "GET", name))
    with pytest.raises(MaskcastError, match=f"'{name}' does not match its size or checksum; fetch it again"):
        storage.fetch(uri, tmp_path / "back")
    assert not (tmp_path / "back" / name).exists()
    storage.fetch(uri, tmp_path / "back")
    assert files_of(tmp_path / "back") == files


@pytest.mark.parametrize("request_", ["small", "partNumber=1"])
def test_bytes_that_change_on_the_way_up_are_refused(s3, line, tree, tmp_path, request_):
    line.add(Fault("corrupt request", "PUT", request_))
    with pytest.raises(MaskcastError, match="the server returned"):
        storage.put(tree, f"{s3.uri}/set")
    with pytest.raises(MaskcastError, match="is not complete"):
        storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    storage.put(tree, f"{s3.uri}/set")
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_a_killed_fetch_goes_on(line, stored, tmp_path):
    """Killed with one piece of two there: no file has its name yet unless it is whole, and that piece is kept."""
    uri, files = stored
    fault = line.add(Fault("stall", "GET", "large", after=MIB // 2))

    def one_piece_is_written() -> bool:
        for path in (tmp_path / "back/.parts").iterdir():
            with suppress(FileNotFoundError):  # the small one gets its name meanwhile
                if len(content := path.read_bytes()) == LARGE + 2:
                    return content[LARGE:].count(1) == 1
        return False

    run_until(fault, FETCH, uri, tmp_path / "back", also=one_piece_is_written)
    assert not (tmp_path / "back/deep").exists()
    line.forget()
    storage.fetch(uri, tmp_path / "back")
    assert line.seen("GET .*large") == 1
    assert files_of(tmp_path / "back") == files


def test_a_killed_put_goes_on(s3, line, tree, tmp_path):
    """Killed with one part of two there: readers are refused, and what is there is not sent again."""
    fault = line.add(Fault("swallow", "PUT", "partNumber=1"))
    run_until(fault, PUT, tree, f"{s3.uri}/set", also=lambda: line.answered("PUT .*(partNumber=2|small)") == 2)
    with pytest.raises(MaskcastError, match="is not complete"):
        storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    line.forget()
    storage.put(tree, f"{s3.uri}/set")
    assert line.seen("PUT .*(partNumber=2|small)") == 0
    assert line.seen("PUT .*partNumber=1") == 1
    assert uploads(s3) == []
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tree)


def test_a_killed_put_of_what_has_changed_since_starts_anew(s3, line, tree, tmp_path):
    fault = line.add(Fault("swallow", "PUT", "partNumber=2"))
    run_until(fault, PUT, tree, f"{s3.uri}/set", also=lambda: line.answered("PUT .*partNumber=1") == 1)
    assert len(uploads(s3)) == 1
    line.forget()
    with (tree / "deep/large.bin").open("r+b") as file:
        file.seek(LARGE - 1)
        file.write(b"?")  # in the part that was not sent yet
    storage.put(tree, f"{s3.uri}/set")
    assert line.seen("PUT .*partNumber") == 2
    assert uploads(s3) == []
    storage.fetch(f"{s3.uri}/set/deep/large.bin", tmp_path / "back")
    assert (tmp_path / "back/large.bin").read_bytes() == (tree / "deep/large.bin").read_bytes()


def test_an_object_that_other_tools_replace_meanwhile_is_not_mixed(s3, line, tmp_path):
    old, new = os.urandom(LARGE), os.urandom(LARGE)
    s3.client.put_object(Bucket=s3.bucket, Key="raw/large", Body=old)
    held = line.add(Fault("hold", "GET", "large"))
    with ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(storage.fetch, f"{s3.uri}/raw", tmp_path / "back")
        assert held.reached.wait(WAIT_S)
        wait_for(lambda: line.answered("GET .*large") == 1)
        s3.client.put_object(Bucket=s3.bucket, Key="raw/large", Body=new)
        held.release.set()
        with pytest.raises(
            MaskcastError, match="changed or deleted during the transfer; run the same command again"
        ):
            fetched.result()
    assert not (tmp_path / "back/large").exists()
    storage.fetch(f"{s3.uri}/raw", tmp_path / "back")
    assert files_of(tmp_path / "back") == {"large": new}


def test_a_reader_beside_a_writer_gets_one_version_or_none(s3, line, tree, tmp_path, monkeypatch):
    """The new version has a file more and one changed."""
    storage.put(tree, f"{s3.uri}/set")
    (tree / "small.bin").write_bytes(b"new")
    (tree / "one more").write_bytes(b"more")
    held = line.add(Fault("hold", "PUT", "small"))
    writer = subprocess.Popen([sys.executable, "-c", PUT, tree, f"{s3.uri}/set"])
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)  # the reader's line is sound
    assert held.reached.wait(WAIT_S)
    for place in ("set", "set/deep", "set/deep/large.bin"):
        with pytest.raises(MaskcastError, match="is not complete"):
            storage.fetch(f"{s3.uri}/{place}", tmp_path / "early")
    assert not (tmp_path / "early").exists()
    held.release.set()
    for attempt in count():
        done = writer.poll() is not None
        back = tmp_path / str(attempt)
        with suppress(MaskcastError):
            storage.fetch(f"{s3.uri}/set", back)
            assert files_of(back) == files_of(tree)
        if done:
            break
    assert writer.returncode == 0
    assert files_of(back) == files_of(tree)


def test_a_put_whose_upload_another_has_continued_and_ended_succeeds(s3, line, tree, monkeypatch):
    held = line.add(Fault("hold", "PUT", "partNumber=2"))
    slow = subprocess.Popen([sys.executable, "-c", PUT, tree, f"{s3.uri}/set"])
    assert held.reached.wait(WAIT_S)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)  # past the line that is held
    storage.put(tree, f"{s3.uri}/set")
    held.release.set()
    assert slow.wait(WAIT_S) == 0


@pytest.mark.parametrize("same", [True, False], ids=["the same", "other data"])
def test_a_put_that_another_has_overtaken_succeeds_only_with_the_same_data(
    s3, line, tree, tmp_path, monkeypatch, same
):
    held = line.add(Fault("hold", "PUT", "small"))
    slow = subprocess.Popen([sys.executable, "-c", PUT, tree, f"{s3.uri}/set"], stderr=subprocess.PIPE, text=True)
    assert held.reached.wait(WAIT_S)
    other = tree if same else make_tree(tmp_path / "other")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)  # past the line that is held
    storage.put(other, f"{s3.uri}/set")
    held.release.set()
    _, said = slow.communicate(timeout=WAIT_S)
    assert (slow.returncode == 0) == same
    assert ("another process stored other data there at the same time; wait for it" in said) != same
    storage.put(other, f"{s3.uri}/set")
    storage.fetch(f"{s3.uri}/set", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(other)
