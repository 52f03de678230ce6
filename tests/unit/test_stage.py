"""The stage contract: ports from the signature, outputs whole or not at all, errors in one line."""

import errno
import json
import os
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conftest import ROOT

from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.report.page import Page
from maskcast.runner.outputs import resume_dir
from maskcast.runner.run import link_pages, run_stage
from maskcast.runner.stage import InPath, OutPath, Port, get_stage, running_name, stage


class CopyParams(Params):
    times: int = 1


@pytest.fixture
def register() -> Callable[[Callable[..., None]], None]:
    """Makes a function a stage."""
    return lambda function: stage(function) and None


def copy(*, source: InPath, extra: InPath | None = None, copied: OutPath, params: CopyParams) -> None:
    """Copies a file."""
    copied.write_text(source.read_text() * params.times)


def test_ports_come_from_the_signature(register) -> None:
    register(copy)
    the_stage = get_stage("copy")
    source, extra, copied = Port("source", "in", False), Port("extra", "in", True), Port("copied", "out", False)
    assert the_stage.ports == (source, extra, copied)
    assert (the_stage.params, the_stage.summary, the_stage.tracked) == (CopyParams, "Copies a file.", False)


def test_the_stage_of_the_docs_says_of_each_path_what_it_is() -> None:
    text = (ROOT / "docs/add-a-stage.md").read_text()
    code = textwrap.dedent(text.partition("```python\n")[2].partition("```")[0])
    exec(code, {})
    found = get_stage("count_pixels")
    said = [found.port_description(port.name) for port in found.ports]
    assert said == ["the clip store", "JSON, the pixels of each class by its name", "HTML: the page of the run"]


def test_unknown_stage_lists_the_stages() -> None:
    with pytest.raises(MaskcastError, match=r"unknown stage 'train'; stages: .*train_masker"):
        get_stage("train")


def test_a_read_only_folder_is_not_replaced(tmp_path: Path, register, monkeypatch: pytest.MonkeyPatch) -> None:
    register(copy)
    (tmp_path / "in").write_text("ab")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").touch()
    (tmp_path / "out").chmod(0o555)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "out")  # root may do everything
    with pytest.raises(MaskcastError, match=r"out: cannot be written \(--copied: Permission denied\); choose"):
        run_stage("copy", {}, source=tmp_path / "in", copied=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "kept", "out"]
    (tmp_path / "link").symlink_to("out")
    run_stage("copy", {}, source=tmp_path / "in", copied=tmp_path / "link")
    assert (tmp_path / "link").read_text() == "ab" and (tmp_path / "out" / "kept").exists()


def test_replaces_an_older_output(tmp_path: Path, register) -> None:
    register(copy)
    (tmp_path / "in").write_text("ab")
    for times in (1, 2):
        run_stage("copy", {"times": times}, source=tmp_path / "in", copied=tmp_path / "new/out")
    assert (tmp_path / "new/out").read_text() == "abab"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({"source": "in", "copied": "in"}, r"in: --copied is replaced as a whole, but contains --source \(in\)"),
        ({"source": "../{}/in", "copied": "./in"}, r"but contains --source \(\.\./.+/in\); choose another path"),
        ({"source": "in", "copied": "."}, "but contains the working directory"),
        ({"source": "in", "copied": ".."}, "but contains the working directory"),
        ({"source": "in", "copied": "/"}, "but contains the working directory"),
        ({"copied": "out"}, "--source is missing"),
        ({"source": "absent", "copied": "out"}, r"absent: input does not exist \(--source of copy\)"),
        (
            {"source": "models:/maskcast@champion", "copied": "out"},
            r"^models:/maskcast@champion: .*: run `maskcast models --name maskcast download champion --output sta",
        ),
        ({"source": "models:/a.b/3", "copied": "out"}, "`maskcast models --name a.b download 3 --output start`"),
        ({"source": "in", "copied": "out", "other": "x"}, "no port 'other'; ports: source, extra, copied"),
        ({"source": "in", "copied": "in/out"}, r"in/out: cannot be written \(--copied: Not a directory\)"),
    ],
)
def test_bad_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, register, paths: dict, said: str) -> None:
    register(copy)
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("ab")
    with pytest.raises(MaskcastError, match=said):
        run_stage("copy", {}, **{port: path.format(tmp_path.name) for port, path in paths.items()})
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_output_takes_no_input_with_it(tmp_path: Path, register) -> None:
    register(copy)
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/in").write_text("ab")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for source, copied in (("data/raw/in", "data"), ("link/raw/in", "data/raw"), ("data/raw", "link/raw")):
        with pytest.raises(MaskcastError, match=r"--copied is replaced as a whole, but contains --source \(.+\);"):
            run_stage("copy", {}, source=tmp_path / source, copied=tmp_path / copied)
    assert (tmp_path / "data/raw/in").read_text() == "ab"
    run_stage("copy", {}, source=tmp_path / "data/raw/in", copied=tmp_path / "data/raw/out")
    assert (tmp_path / "data/raw/out").read_text() == "ab"


def test_an_output_takes_no_other_output_with_it(tmp_path: Path, register) -> None:
    def learn(*, model: OutPath, metrics: OutPath, params: CopyParams) -> None:
        """Learns."""
        raise AssertionError("refused before any work")

    register(learn)
    for metrics in ("model/metrics.json", "model"):
        with pytest.raises(MaskcastError, match=r"model: --model is replaced as a whole, but contains --metrics"):
            run_stage("learn", {}, model=tmp_path / "model", metrics=tmp_path / metrics)
    assert not list(tmp_path.iterdir())


def test_an_output_takes_no_pipe_or_device_with_it(tmp_path: Path, register) -> None:
    """Root can replace /dev/null, where somebody sends what they do not want."""
    register(copy)
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(MaskcastError, match=r"pipe: cannot be written \(--copied: a pipe or device, no file\)"):
        run_stage("copy", {}, source=Path(__file__), copied=pipe)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert pipe.is_fifo()


def test_a_failure_leaves_the_old_output_and_nothing_else(tmp_path: Path, register) -> None:
    def fail(*, first: OutPath, second: OutPath, params: CopyParams) -> None:
        """Writes one output and fails."""
        first.mkdir()
        (first / "half").write_text("half")
        raise MaskcastError("bad clip")

    register(fail)
    (tmp_path / "second").write_text("old")
    with pytest.raises(MaskcastError, match="bad clip"):
        run_stage("fail", {}, first=tmp_path / "a/b/first", second=tmp_path / "second")
    assert [path.name for path in tmp_path.iterdir()] == ["second"]
    assert (tmp_path / "second").read_text() == "old"


def test_what_a_killed_run_needs_outlives_a_failure_and_goes_on_success(tmp_path: Path, register) -> None:
    def learn(*, model: OutPath, params: CopyParams) -> None:
        """Fails once after a checkpoint."""
        checkpoint = resume_dir(model) / "checkpoint"
        if not checkpoint.exists():
            checkpoint.parent.mkdir()
            checkpoint.write_text("step 3")
            raise KeyboardInterrupt
        model.write_text(f"resumed from {checkpoint.read_text()}")

    register(learn)
    with pytest.raises(KeyboardInterrupt):
        run_stage("learn", {}, model=tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model.resume"]
    run_stage("learn", {}, model=tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_text() == "resumed from step 3"


@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "no space left.*free some"), (errno.EROFS, "choose another path")]
)
def test_errors_of_the_disk_are_one_line(tmp_path: Path, register, code: int, said: str) -> None:
    def write(*, out: OutPath, params: CopyParams) -> None:
        """Meets an error of the disk."""
        raise OSError(code, "as the system says it", str(out))

    register(write)
    with pytest.raises(MaskcastError, match=said):
        run_stage("write", {}, out=tmp_path / "out")


def test_metrics_are_returned(tmp_path: Path, register, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*, metrics: OutPath, params: CopyParams) -> None:
        """Measures."""
        metrics.write_text(json.dumps({"score": 0.5}))

    register(measure)
    monkeypatch.chdir(tmp_path)
    assert run_stage("measure", {}, metrics=tmp_path / "metrics.json") == {"score": 0.5}
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"score": 0.5}


def test_stages_that_end_at_once_write_one_index_of_their_pages(tmp_path: Path) -> None:
    for name in ("evaluate", "train_masker"):
        Page(name).write(tmp_path / f"{name}.html", {"score": 0.5}, CopyParams(), {})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: link_pages(tmp_path), range(200)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluate.html", "index.html", "train_masker.html"]


def test_resume_folders_lie_on_the_volume_by_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MASKCAST_RESUME_DIR", str(tmp_path))
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    assert resume_dir(Path("/out/masker.partial")) == tmp_path / "run-1/masker.resume"
    assert resume_dir(Path("/out/masker")) == tmp_path / "run-1/masker.resume"


def known_as(*, seen: OutPath, params: CopyParams) -> None:
    """Writes what it goes by."""
    seen.write_text(running_name("known_as"))


def test_a_stage_goes_by_the_name_that_it_is_given(tmp_path: Path, register) -> None:
    register(known_as)
    for name in (None, "first", None):
        run_stage("known_as", {}, name=name, seen=tmp_path / "out")
        assert (tmp_path / "out").read_text() == (name or "known_as")
        assert running_name("known_as") == "known_as"


def test_errors_tell_keys_by_the_name_that_a_stage_goes_by(tmp_path: Path, register) -> None:
    said = "picky: refuses results/picky.json; set picky.times to 1, or other.times"

    def picky(*, seen: OutPath, params: CopyParams) -> None:
        """Refuses."""
        raise MaskcastError(said)

    register(picky)
    for name in ("picky", "first"):
        with pytest.raises(MaskcastError) as caught:
            run_stage("picky", {}, name=name, seen=tmp_path / "out")
        assert str(caught.value) == f"{name}: refuses results/picky.json; set {name}.times to 1, or other.times"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Second", "'Second': use up to 40 lower-case letters"),
        ("2nd", "first a letter"),
        ("a/b", "digits and _"),
        ("x" * 41, "up to 40"),
        ("train_masker", "--name train_masker: is another stage, not known_as"),
    ],
)
def test_a_bad_name(tmp_path: Path, register, name: str, said: str) -> None:
    register(known_as)
    with pytest.raises(MaskcastError, match=said):
        run_stage("known_as", {}, name=name, seen=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
