"""One process writes an output at a time, and a reader always finds an output while it is replaced."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from maskcast import locks
from maskcast.errors import MaskcastError
from maskcast.locks import exclusive_lock, temporary_change
from maskcast.runner import outputs
from maskcast.runner.outputs import atomic_output, atomic_outputs

HOLD = """
import sys, time
from pathlib import Path
from maskcast.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""

FORKS = """
import multiprocessing, os, sys, time
from pathlib import Path
from maskcast.locks import exclusive_lock

def work():
    print(os.getpid(), flush=True)
    time.sleep(600)

with exclusive_lock(Path(sys.argv[1])):
    multiprocessing.get_context("fork").Process(target=work).start()
    time.sleep(600)
"""


def started(code: str, out: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts a process that holds the lock of an output until it is ended; returns it and its first line."""
    child = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, child.stdout.readline()


def holder(out: Path) -> subprocess.Popen[str]:
    child, said = started(HOLD, out)
    assert said == "held\n"
    return child


def write(out: Path, text: str) -> None:
    partial = out.with_name(out.name + ".partial")
    with atomic_outputs({"clips": out}, {"clips": partial}):
        partial.mkdir()
        (partial / "file").write_text(text)


def test_the_second_is_told_who_writes_and_leaves_it_alone(tmp_path: Path) -> None:
    out = tmp_path / "clips"
    first = holder(out)
    try:
        (tmp_path / "clips.partial").mkdir()
        with pytest.raises(MaskcastError) as told:
            write(out, "second")
        said = rf"{out}: locked by process {first.pid} on {re.escape(socket.gethostname())} since 20\d\d-"
        assert re.match(said, str(told.value))
        assert (tmp_path / "clips.partial").is_dir()  # what the first has written so far
    finally:
        first.kill()
        first.communicate()
    assert (tmp_path / "clips.partial.lock").exists()
    write(out, "second")  # of a process that is gone nothing holds it
    assert (out / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]


def test_who_is_killed_lets_go_though_what_it_forked_still_works(tmp_path: Path) -> None:
    out = tmp_path / "clips"
    first, worker = started(FORKS, out)
    try:
        with pytest.raises(MaskcastError, match=f"process {first.pid} on"):
            write(out, "second")
        first.kill()
        first.wait()
        write(out, "second")
        os.kill(int(worker), 0)  # it is still there
    finally:
        os.kill(int(worker), signal.SIGKILL)
        first.kill()
        first.communicate()
    assert (out / "file").read_text() == "second"


def test_of_many_at_once_each_that_succeeds_wrote_what_is_there(tmp_path: Path) -> None:
    out, done = tmp_path / "clips", []

    def one(number: int) -> None:
        try:
            write(out, str(number))
        except MaskcastError:
            return
        done.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (out / "file").read_text() in map(str, done)
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "x.partial.lock"
    flock, removed = fcntl.flock, []

    def slow(lock: int, how: int) -> None:
        if not removed:
            removed.append(place.unlink())
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with exclusive_lock(tmp_path / "x"):
        assert json.loads(place.read_text())["pid"] == os.getpid()
    assert not place.exists()


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: int, how: int) -> None:
        raise OSError(locks.NO_LOCK_ERRNOS[0], "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write(tmp_path / "clips", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_an_older_output_is_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(outputs, "exchange", lambda one, other: False)
    out = tmp_path / "clips"
    write(out, "old")
    (out / "gone").touch()
    write(out, "new")
    assert [path.name for path in out.iterdir()] == ["file"]
    assert (out / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_copy_that_somebody_keeps_beside_an_output_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(outputs, "exchange", lambda one, other: False)
    out, kept = tmp_path / "masker", [tmp_path / f"masker.{end}" for end in ("old", "bak", "new", "orig")]
    for path in kept:
        path.write_text("kept")
    for text in ("first", "second"):
        write(out, text)
    assert sorted(tmp_path.iterdir()) == sorted([out, *kept])
    assert {path.read_text() for path in kept} == {"kept"}


def test_a_reader_finds_an_output_at_every_moment_of_the_swap(tmp_path: Path) -> None:
    out, missing, ended = tmp_path / "clips", [], threading.Event()
    write(out, "0")

    def read() -> None:
        while not ended.is_set():
            if not out.exists():
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        write(out, str(number))
    ended.set()
    reader.join()
    assert not missing


def test_the_volume_of_a_cluster_keeps_no_empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tmp_path / "workspace/resume/train_masker"
    monkeypatch.setenv("MASKCAST_RESUME_DIR", str(volume))
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    write(tmp_path / "clips", "text")
    assert not volume.exists()
    (volume / "run-1/masker.resume").mkdir(parents=True)
    write(tmp_path / "clips", "text")
    assert [path.name for path in (volume / "run-1").iterdir()] == ["masker.resume"]


def test_two_attempts_that_write_to_folders_of_their_own_share_no_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKCAST_RESUME_DIR", str(tmp_path / "volume"))
    with atomic_output(tmp_path / "one/masker") as partial:
        partial.touch()
        with pytest.raises(MaskcastError, match=r"volume/masker\.resume: locked by process \d+ on"):
            write(tmp_path / "other/masker", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_volume_that_cannot_be_written_is_named_and_not_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workspace").touch()
    monkeypatch.setenv("MASKCAST_RESUME_DIR", f"{tmp_path}/workspace/resume/train_masker")
    with pytest.raises(MaskcastError) as error:
        write(tmp_path / "artifacts/masker", "text")
    assert str(error.value) == (
        f"{tmp_path}/workspace/resume/train_masker: cannot be written (MASKCAST_RESUME_DIR: Not a directory); "
        f"user {os.geteuid()} must be able to write to this volume (docs/runbook.md)"
    )
    assert not (tmp_path / "artifacts").exists()


def test_what_another_user_left_when_killed_keeps_nobody_out(tmp_path: Path) -> None:
    """A lock's file that may be read alone, in a folder that many write to."""
    out, left = Path("out"), Path("out.partial.lock")
    tmp_path.chmod(0o777)
    (tmp_path / left).touch(0o444)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.chdir(tmp_path)  # below folders of root's own
            if os.geteuid() == 0:  # who may write everything
                os.seteuid(65534)
            with left.open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                with pytest.raises(MaskcastError, match="locked by another process"), exclusive_lock(out):
                    pass
            with exclusive_lock(out):
                out.write_text("whole")
            code = 0 if os.listdir() == ["out"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


CHANGE = """
import sys, time
from pathlib import Path
from maskcast.locks import temporary_change
path = Path(sys.argv[1])
with temporary_change(path) as text:
    path.write_text("changed")
    print(text, flush=True)
    time.sleep(600)
"""


def test_a_file_that_is_changed_for_a_while_is_put_back_however_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("as it was")

    def stopped_by(number: int) -> None:
        command = [sys.executable, "-c", CHANGE, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "as it was\n"
            assert path.read_text() == "changed"
            with pytest.raises(MaskcastError, match=r"locked by process \d+ on"), temporary_change(path):
                pass
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        stopped_by(number)
        assert path.read_text() == "as it was"
    stopped_by(signal.SIGKILL)
    with (
        pytest.raises(
            MaskcastError,
            match=r"a killed run left it changed; rename params.yaml.kept to params.yaml to restore it,",
        ),
        temporary_change(path),
    ):
        pass
    (tmp_path / "params.yaml.kept").rename(path)
    with temporary_change(path) as text:
        path.write_text("changed")
    assert text == path.read_text() == "as it was"
    assert [each.name for each in tmp_path.iterdir()] == ["params.yaml"]
