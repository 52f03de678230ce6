"""Data by reference on a volume: written once, read in place, the same data to every stage."""

import errno
import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import unlisted, write_store

from maskcast.data.clip_store.reader import ClipStore
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.runner import references
from maskcast.runner.references import REFERENCE, resolve_reference
from maskcast.runner.run import run_stage
from maskcast.runner.stage import InPath, OutPath, stage


class GrowParams(Params):
    size: int = 1000
    fails: bool = False


def grow(*, seed: InPath | None = None, grown: OutPath, note: OutPath | None = None, params: GrowParams) -> None:
    """Writes a folder of some size, after what it was given."""
    grown.mkdir()
    (grown / "seed").write_bytes((seed / "data").read_bytes() if seed else b"")
    (grown / "data").write_bytes(b"x" * params.size)
    if note is not None:
        note.write_text("small")
    if params.fails:
        raise MaskcastError("no more")


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A volume as pods see it, on which outputs of 500 bytes and more stay."""
    stage(grow)
    monkeypatch.setattr(references, "MIN_BYTES", 500)
    monkeypatch.setenv("MASKCAST_DATA", str(tmp_path / "volume/data"))
    monkeypatch.setenv("MASKCAST_RESUME_DIR", str(tmp_path / "volume/resume/grow"))
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    (tmp_path / "pod").mkdir()
    return tmp_path / "volume"


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_large_output_stays_on_the_volume_and_is_read_there(volume: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "pod/one", tmp_path / "pod/two"
    run_stage("grow", {}, grown=one, note=tmp_path / "pod/note")
    assert files_of(tmp_path / "pod") == ["note", f"one/{REFERENCE}"]
    told = json.loads((one / REFERENCE).read_text())
    data = resolve_reference(one)
    assert data == volume / "data" / told["digest"]
    assert told["digest"] == digest_tree(data)
    run_stage("grow", {"size": 900}, seed=one, grown=two)
    assert (resolve_reference(two) / "seed").read_bytes() == b"x" * 1000
    assert list((volume / "resume").iterdir()) == []


def test_data_that_cannot_be_listed_are_not_called_damaged(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKCAST_DATA", "volume/data")
    run_stage("grow", {}, grown=Path("pod/one"))
    (data,) = Path("volume/data").iterdir()
    with unlisted(data), pytest.raises(PermissionError) as refused:
        resolve_reference(Path("pod/one"))
    assert refused.value.filename == str(data)


def test_equal_data_lies_there_once_and_gives_equal_references(volume: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_stage("grow", {}, grown=tmp_path / "pod" / name)
    assert len(list((volume / "data").iterdir())) == 1
    first, second = ((tmp_path / "pod" / name / REFERENCE).read_bytes() for name in ("one", "two"))
    assert first == second


@pytest.mark.parametrize("damage", [b"", b"y" * 1000], ids=["cut short", "changed"])
def test_damaged_data_are_replaced_when_they_are_stored_again(
    volume: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    one = tmp_path / "pod/one"
    run_stage("grow", {}, grown=one)
    data = resolve_reference(one)
    (data / "data").write_bytes(damage)
    if not damage:
        line = (
            rf"{one}: its data, {data}, is damaged: 2 files of 0 bytes in total, where 2 of 1000 were stored; run"
        )
        with pytest.raises(MaskcastError, match=line):
            run_stage("grow", {}, seed=one, grown=tmp_path / "pod/two")
    run_stage("grow", {}, grown=tmp_path / "pod/again")
    assert f"{data}: damaged; it is replaced" in capsys.readouterr().err
    assert (resolve_reference(one) / "data").read_bytes() == b"x" * 1000
    assert [path.name for path in (volume / "data").iterdir()] == [data.name]


def test_shards_of_stored_clips_that_changed_are_replaced(volume: Path, tmp_path: Path) -> None:
    for name in ("first", "again"):
        references.store_output(write_store(tmp_path / name).root, tmp_path / "pod" / name)
        if name == "first":
            store = ClipStore(resolve_reference(tmp_path / "pod/first"))
            store.verify()
            (shard,) = store.root.glob("frames-*.npy")
            shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    ClipStore(resolve_reference(tmp_path / "pod/first")).verify()


def test_a_reference_of_an_older_version_is_read(volume: Path, tmp_path: Path) -> None:
    run_stage("grow", {}, grown=tmp_path / "pod/one")
    told = json.loads((tmp_path / "pod/one" / REFERENCE).read_text())
    assert (told.pop("files"), told.pop("size")) == (2, 1000)
    (tmp_path / "pod/one" / REFERENCE).write_text(json.dumps(told))
    assert resolve_reference(tmp_path / "pod/one").name == told["digest"]


def test_a_small_output_is_passed_on_itself(volume: Path, tmp_path: Path) -> None:
    run_stage("grow", {"size": 400}, grown=tmp_path / "pod/one")
    assert files_of(tmp_path / "pod/one") == ["data", "seed"]
    assert not (volume / "data").exists()


def test_a_stage_that_fails_leaves_nothing(volume: Path, tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match="no more"):
        run_stage("grow", {"fails": True}, grown=tmp_path / "pod/one")
    assert files_of(tmp_path) == []


def test_what_a_killed_try_left_is_replaced(volume: Path, tmp_path: Path) -> None:
    left = volume / "resume/grow/run-1/one.partial"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    run_stage("grow", {}, grown=tmp_path / "pod/one")
    assert files_of(resolve_reference(tmp_path / "pod/one")) == ["data", "seed"]
    assert list((volume / "resume").iterdir()) == []


@pytest.mark.parametrize("elsewhere", [False, True], ids=["on the volume", "on another volume"])
def test_whenever_it_is_killed_the_next_try_leaves_the_data_and_nothing_else(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    if elsewhere:  # where a stage writes, from where data is copied
        monkeypatch.delenv("MASKCAST_RESUME_DIR")
        rename = os.rename

        def rename_within(source: Path, target: Path, **options: Any) -> None:
            if volume in Path(target).parents and volume not in Path(source).parents:
                raise OSError(errno.EXDEV, "another file system")
            rename(source, target, **options)

        monkeypatch.setattr(os, "rename", rename_within)
    out, digest = tmp_path / "pod/one", ""
    for moment in itertools.count():
        whole = killed_before(moment, out)
        run_stage("grow", {}, grown=out)
        digest = digest or resolve_reference(out).name
        assert files_of(tmp_path) == sorted(
            [f"pod/one/{REFERENCE}", f"volume/data/{digest}/data", f"volume/data/{digest}/seed"]
        )
        assert not list(volume.rglob("*.incoming"))
        if whole:
            break
        shutil.rmtree(tmp_path / "volume")
        shutil.rmtree(out)
    assert moment > 10


def killed_before(moment: int, out: Path) -> bool:
    """Runs the stage in a child that is killed before the n-th thing it does to files; True if it ended."""
    child = os.fork()
    if not child:
        counted = itertools.count()

        def kill(event: str, _: Any) -> None:
            watched = (
                event.startswith(("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil")) or event == "open"
            )
            if watched and next(counted) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(kill)
            run_stage("grow", {}, grown=out)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


def test_real_clips_have_the_digest_that_a_laptop_gives_them(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = write_store(tmp_path / "kept").root
    references.store_output(write_store(tmp_path / "made").root, tmp_path / "pod/clips")
    assert digest_tree(resolve_reference(tmp_path / "pod/clips")) == digest_tree(kept)
    monkeypatch.delenv("MASKCAST_DATA")
    assert resolve_reference(kept) == kept


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        ("{", "not a reference to data"),
        ('{"digest": "../../../etc", "store": "STORE"}', "not a reference to data"),
        (
            '{"digest": "00000000000000000000000000000000", "store": "/"}',
            "data is stored in /, but MASKCAST_DATA is ",
        ),
        (
            '{"digest": "00000000000000000000000000000000", "store": "STORE"}',
            "does not exist; run the stage that wrote it again: `dvc repro -f -s STAGE`, on a cluster `maskcast ",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_one_line(
    volume: Path, tmp_path: Path, reference: str, line: str
) -> None:
    folder = tmp_path / "pod/seed"
    folder.mkdir()
    (folder / REFERENCE).write_text(reference.replace("STORE", str(volume / "data")))
    with pytest.raises(MaskcastError) as raised:
        run_stage("grow", {}, seed=folder, grown=tmp_path / "pod/one")
    assert line in str(raised.value) and str(folder) in str(raised.value)


def test_without_the_variable_a_reference_says_which_to_set(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("grow", {}, grown=tmp_path / "pod/one")
    monkeypatch.delenv("MASKCAST_DATA")
    with pytest.raises(
        MaskcastError,
        match=f"data is stored in {volume / 'data'}, but MASKCAST_DATA is not set; set it to {volume / 'data'}$",
    ):
        resolve_reference(tmp_path / "pod/one")
