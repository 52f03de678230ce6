"""A disk that holds no more: every writer ends in one line that names the path, at once, and leaves nothing.

A limit on the size of files makes writes fail for real, on any machine and without rights to mount.
"""

import errno
import os
import resource
import subprocess
from collections import deque
from collections.abc import Callable
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.conftest import full_disk

from maskcast import errors
from maskcast.__main__ import main
from maskcast.data.images import write_image
from maskcast.errors import MaskcastError, convert_system_errors, is_disk_full
from maskcast.params import Params
from maskcast.reading import read_file
from maskcast.runner.mlflow_client import new_client
from maskcast.runner.mlflow_errors import is_temporary
from maskcast.runner.outputs import resume_dir
from maskcast.runner.run import run_stage
from maskcast.runner.stage import OutPath, stage
from maskcast.runner.tracking import TrackedRun
from maskcast.serving.video_writer import write_video
from maskcast.storage.s3 import Bucket
from maskcast.storage.transfer import PIECE, Item, Transfer
from maskcast.training.checkpoint import Checkpoints

LIMIT = 20_000  # bytes of a file


class Nothing(Params):
    pass


def tensors(path: Path) -> None:
    torch.save(torch.zeros(100_000), path)


def checkpoint(path: Path) -> None:
    Checkpoints(path, "print").save({"weights": torch.zeros(100_000)})


def weights(path: Path) -> None:
    save_file({"weights": torch.zeros(100_000)}, path)


def array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(100_000))


def raw_array(path: Path) -> None:
    np.zeros(100_000).tofile(path)


def picture(path: Path) -> None:
    path.mkdir()
    write_image(path / "0.png", np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))


def text(path: Path) -> None:
    path.write_text("x" * 100_000)


def film(path: Path) -> None:
    path.mkdir()
    write_video(path / "film.mp4", noise())


def animation(path: Path) -> None:
    path.mkdir()
    write_video(path / "film.gif", noise())


def noise() -> list[Image.Image]:
    pictures = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), np.uint8)
    return [Image.fromarray(picture) for picture in pictures]


class Answers:
    """An S3 client that has every object."""

    def head_object(self, **asked: Any) -> dict[str, Any]:
        return {"Metadata": {}, "ETag": '"-"'}

    def get_object(self, *, Range: str | None = None, **asked: Any) -> dict[str, Any]:
        return self.head_object() | {"Body": BytesIO(bytes(100_000))}


def object_of_s3(path: Path) -> None:
    download(path, 100_000)


def large_object_of_s3(path: Path) -> None:
    download(path, PIECE + 1)


def download(path: Path, size: int) -> None:
    transfer, item = Transfer(), Item("a", "p/a", size, 0.0, "-")
    bucket = Bucket(Answers(), "s3://b/p", "b", "p")
    transfer.run([lambda: bucket.fetch(item, path, transfer) and None], "downloading", 1)


WRITERS = [tensors, checkpoint, weights, array, raw_array, picture, text, film, animation, object_of_s3]


@pytest.mark.parametrize("write", [*WRITERS, large_object_of_s3])
def test_each_writer_of_a_stage_ends_in_one_line_with_its_path(write: Any, tmp_path: Path) -> None:
    def fill(*, out: OutPath, params: Nothing) -> None:
        """Writes more than there is room for."""
        write(out)

    stage(fill)
    with (
        full_disk(LIMIT),
        pytest.raises(MaskcastError, match=r"free some and run the same command again$") as error,
    ):
        run_stage("fill", {}, out=tmp_path / "out")
    assert str(error.value).startswith(f"{tmp_path}/out")
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_before_is_gone_on_from_and_what_was_cut_is_gone(tmp_path: Path) -> None:
    def learn(*, model: OutPath, params: Nothing) -> None:
        """Leaves a checkpoint, and finds the disk full at the next."""
        kept = Checkpoints(resume_dir(model), "print")
        kept.save({"step": 1})
        kept.save({"weights": torch.zeros(100_000)})

    stage(learn)
    with full_disk(LIMIT), pytest.raises(MaskcastError, match=r"again to resume$"):
        run_stage("learn", {}, model=tmp_path / "model")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "checkpoint.pt",
        "fingerprint.json",
        "model.resume",
    ]
    assert Checkpoints(tmp_path / "model.resume", "print").load() == {"step": 1}


def test_the_place_that_is_full_is_named_where_an_error_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy, full = tmp_path / "roomy", tmp_path / "full"
    monkeypatch.setattr(errors, "_free_bytes", lambda folder: 0 if folder == full else 2**40)
    full.mkdir()
    with pytest.raises(MaskcastError, match=f"{full}/x: no space left"), convert_system_errors(roomy, full / "x"):
        raise RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")


@pytest.mark.parametrize(
    "full",
    [
        lambda: torch.empty(2**55),  # PyTorch has an error of its own, in words
        lambda: torch.empty(2**53, 2**12),  # of which no memory could be
        lambda: torch.empty(2**70),
        lambda: np.empty(2**55),
        lambda: np.empty((2**53, 2**53)),
        lambda: np.empty(2**62),
        lambda: cv2.copyMakeBorder(np.zeros((1, 1), np.uint8), 0, 2**30, 0, 2**30, cv2.BORDER_CONSTANT),
    ],
)
def test_want_of_memory_is_said_in_one_line(full: Callable[[], object]) -> None:
    with pytest.raises(MaskcastError, match=r"^not enough memory \(.+\); lower"), convert_system_errors():
        full()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EIO, "check the disk or mount"),
        (errno.ESTALE, "check the disk or mount"),
        (errno.EMFILE, "raise the limit of open files (`ulimit -n 65536`)"),
        (errno.ENFILE, "this machine has too many open files"),
        (errno.ENOENT, "it may have been removed meanwhile"),
        (errno.ELOOP, "choose another path"),
        (errno.EXDEV, "choose another path"),
    ],
)
def test_each_error_of_a_path_is_one_line_with_a_remedy(number: int, remedy: str) -> None:
    reason = os.strerror(number)
    with pytest.raises(MaskcastError) as said, convert_system_errors():
        raise OSError(number, reason, "/data/x")
    assert str(said.value).startswith(f"/data/x: cannot be read or written ({reason}); {remedy}")


def test_of_errors_without_a_path_only_those_of_the_machine_are_converted() -> None:
    line = r"^cannot be read or written \(Input/output error\); check the disk"
    with pytest.raises(MaskcastError, match=line), convert_system_errors():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(OSError, match="Bad file descriptor"), convert_system_errors():
        os.close(10**6)


def test_an_error_with_two_paths_names_the_one_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for name, other, missing in (("a", "gone/b", "gone/b"), ("c", "d", "c")):
        line = f"^{tmp_path / missing}: cannot be read or written"
        with pytest.raises(MaskcastError, match=line), convert_system_errors():
            (tmp_path / name).rename(tmp_path / other)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_an_error_of_a_copy_names_the_disk_of_its_target(number: int) -> None:
    with pytest.raises(MaskcastError, match=r"^full/copy: "), convert_system_errors():
        raise OSError(number, os.strerror(number), "source", None, "full/copy")


def test_a_full_folder_for_temporary_files_loses_a_picture_and_not_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "picture.png").write_bytes(bytes(1000))
    (tmp_path / "spool").mkdir()
    run = TrackedRun.__new__(TrackedRun)  # without the thread that sends
    run._spool, run._num_files, run._files = tmp_path / "spool", 0, deque()
    with full_disk(100):
        run.file(tmp_path / "picture.png", "pictures")
    assert capsys.readouterr().err == (
        f"tracking: lost picture.png: no space left at {tmp_path}; free some, or set TMPDIR\n"
    )
    assert not run._files and not list((tmp_path / "spool").iterdir())
    run.file(tmp_path / "picture.png", "pictures")
    assert len(run._files) == 1


def test_a_program_that_is_missing_is_said_as_such() -> None:
    line = r"^no-such-program: cannot be run \(No such file or directory\); install it"
    with pytest.raises(MaskcastError, match=line), convert_system_errors():
        subprocess.run(["no-such-program"], check=True)


def test_an_address_is_no_path() -> None:
    with pytest.raises(HTTPError), convert_system_errors():
        raise HTTPError("https://example.com/?token=secret", 404, "Not Found", Message(), None)


def test_too_many_open_files_are_said_with_the_limit(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: 1")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(
            MaskcastError, match=r"params\.yaml: cannot be read \(Too many open files\); raise the"
        ):
            read_file(tmp_path / "params.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_full_disk_is_no_server_that_comes_back(tmp_path: Path) -> None:
    """A stage waited two minutes for it."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x.resume/mlflow_run_id")
    assert is_disk_full(full)
    assert not is_temporary(full)
    assert is_temporary(OSError(errno.ECONNRESET, "reset"))
    wrapped = ValueError("cannot copy")
    wrapped.__cause__ = full
    assert is_disk_full(wrapped)
    assert not is_disk_full(ValueError("3 requested"))


def test_a_stage_whose_first_write_fails_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*, metrics: OutPath, params: Nothing) -> None:
        """Is never begun."""
        raise AssertionError

    stage(measure)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "metrics.resume"))

    monkeypatch.setattr("maskcast.runner.mlflow_sender.open_run", full)
    new_client()  # imported before: the work would begin after a minute of that
    with pytest.raises(MaskcastError, match=r"metrics\.resume: no space left"):
        run_stage("measure", {}, metrics=tmp_path / "metrics")


@pytest.mark.parametrize("words", ["segment sample", "labels propagate --clips clips --output carried"])
def test_a_command_ends_in_one_line(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "masks"))

    from maskcast.commands import command_module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_module(words.split()[0]), "run", full)
        assert main(words.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/masks: no space left on the device; free some")
