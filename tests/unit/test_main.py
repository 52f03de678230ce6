"""The command line as a whole."""

import gc
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.conftest import ROOT

import pipelines.cli
from maskcast import __version__, installation
from maskcast.__main__ import main
from maskcast.commands import COMMANDS
from maskcast.commands.completion import all_parsers, tree
from maskcast.commands.help import describe_params
from maskcast.commands.pipeline import pipelines_folder
from maskcast.memory import skip_last_collection
from maskcast.params import Params
from maskcast.runner.stage import get_stage, stage_names

COMMAND = [sys.executable, "-m", "maskcast"]
MODELS = "maskcast models: error: argument COMMAND:"
OF_PIPELINE = "compile, run-local, setup, preflight, submit, status, watch, logs, retry, cancel, schedule"
PIPELINES = [
    yaml.safe_load((ROOT / file).read_text())["stages"]
    for file in ("dvc.yaml", *(f"recipes/{name}/dvc.yaml" for name in ("detection", "video", "learning-rate")))
]


@pytest.mark.parametrize("words", [("--help",), ("write-annotations", "0", "1", "{}", "22")])
def test_a_reader_that_has_had_enough_sees_no_traceback(words: tuple[str, ...], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)  # as `| head -0` does
    (tmp_path / "video_0").mkdir()
    command = [*COMMAND, *(word.format(tmp_path) for word in words)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_that_lacks_characters_shows_something_in_their_places(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")  # as Windows and old archives spell it
    (folder / "video_0").mkdir(parents=True)
    words = [*COMMAND, "write-annotations", "0", "1", str(folder), "22"]
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-8"}):
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip().endswith("caf?/annotations.txt")


def test_what_is_printed_may_go_nowhere() -> None:
    done = subprocess.run(
        [*COMMAND, "--help"], stdin=subprocess.DEVNULL, preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [("--help",), ("evaluate", "--help"), ("models", "list", "--help")])
def test_an_output_that_cannot_be_printed_is_said_as_such(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    line = "error: standard output: cannot be written (No space left on device); what was printed is lost"
    assert done.returncode == 2 and done.stderr.startswith(line) and done.stderr.count("\n") == 1


@pytest.mark.parametrize("gone", [False, True])
def test_messages_that_cannot_be_printed_end_no_work(tmp_path: Path, gone: bool) -> None:
    """The disk of the log is full, or the reader of a pipe is gone."""
    read, write = os.pipe()
    os.close(read)
    code = (
        "from maskcast.progress import say; from maskcast.streams import protect_streams; protect_streams();"
        "say('one'); say('two'); open('done', 'w').close()"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stderr=write if gone else full)
    os.close(write)
    assert (done.returncode, (tmp_path / "done").exists()) == (0, True)


def test_unbuffered_output_is_there_when_the_process_is_killed() -> None:
    code = (
        "import os; from maskcast.streams import protect_streams; protect_streams();"
        "print('one', end=''); os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (-9, "one")


def test_streams_may_be_replaced_twice_and_by_others() -> None:
    code = (
        "import os, sys; from maskcast.streams import protect_streams;"
        "sys.stdout = os.fdopen(1, 'w', closefd=False); protect_streams(); protect_streams(); print('one')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")


def test_what_a_command_writes_is_there_though_nothing_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / "video_0").mkdir()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "write-annotations", "0", "1", str(tmp_path), "22"], stdout=full, stderr=full
        )
    assert (done.returncode, (tmp_path / "annotations.txt").exists()) == (2, True)


def test_a_working_directory_that_has_gone_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "models", "list"], cwd=tmp_path, preexec_fn=tmp_path.rmdir, capture_output=True, text=True
    )
    line = "error: the working directory has been removed; `cd` to a folder that is there\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_file_names_in_another_encoding_are_refused_as_they_would_give_clips_other_ids() -> None:
    """A locale such as de_DE.ISO-8859-1; C counts as UTF-8 unless Python is told otherwise."""
    ascii_names = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*COMMAND, "--version"], env=ascii_names, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "error: file names are read as ascii by this locale, and clips would get other ids than in UTF-8; set "
        "PYTHONUTF8=1\n",
    )
    done = subprocess.run([*COMMAND, "--version"], env=ascii_names | {"PYTHONUTF8": "1"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_python_without_docstrings_is_refused_as_the_help_is_made_of_them() -> None:
    done = subprocess.run(
        [*COMMAND, "train_masker", "--help"],
        env=os.environ | {"PYTHONOPTIMIZE": "2"},
        capture_output=True,
        text=True,
    )
    line = "error: PYTHONOPTIMIZE=2 (python -OO) removes the docstrings that tell of ports and params; unset it\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


Said = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Returns what a command prints that ends well."""

    def run(*words: str) -> str:
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as ended:  # argparse's, after --help
            code = int(ended.code or 0)
        assert code == 0
        return capsys.readouterr().out

    return run


@pytest.mark.usefixtures("narrow")
def test_the_overview_names_every_stage_and_command_in_80_columns(said: Said) -> None:
    overview = said()
    assert overview == said("--help")
    assert [name for name in (*COMMANDS, *stage_names()) if overview.count(f"\n  {name} ") != 1] == []
    assert max(map(len, overview.splitlines())) <= 80


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", [*COMMANDS, *stage_names()])
def test_every_help_fits_80_columns_and_has_an_example(name: str, said: Said) -> None:
    text = said(name, "--help")
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert f"\n  maskcast {name}" in text.partition("\nexample")[2]


@pytest.mark.usefixtures("narrow")
def test_every_help_of_a_command_within_a_command_says_what_it_does_in_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    _, *parsers = all_parsers(tree())
    assert {f"maskcast pipeline {name}" for name in pipelines.cli.COMMANDS} <= {each.prog for each in parsers}
    wide = [line for each in parsers for line in each.format_help().splitlines() if len(line) > 80]
    assert wide == []
    within = [each for each in parsers if each.prog.count(" ") > 1]
    assert [each.prog for each in within if not each.description] == []


@pytest.mark.parametrize("name", stage_names())
def test_the_help_of_a_stage_says_what_each_port_holds(name: str, said: Said) -> None:
    text = said(name, "--help")
    assert [port.name for port in get_stage(name).ports if not re.search(rf"--{port.name} PATH\s+\w", text)] == []


@pytest.mark.parametrize("name", stage_names())
def test_the_example_of_a_stage_is_its_command_in_dvc_yaml(name: str, said: Said) -> None:
    example = said(name, "--help").partition("example:\n")[2].partition("\n\n")[0].replace("\\\n", "")
    command = next(stages[name]["cmd"] for stages in PIPELINES if name in stages)
    assert pairs(example) == pairs(command)


def pairs(command: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the words before the flags, and each flag with its path."""
    words = shlex.split(command)
    return words[:2], sorted(zip(words[2::2], words[3::2], strict=True))


@pytest.mark.parametrize("words", [("train-masker",), ("evaluate_coco",), ("pipeline", "run_local")])
def test_both_spellings_of_a_name_are_taken(words: tuple[str, ...], said: Said) -> None:
    right = {"train-masker": "train_masker", "evaluate_coco": "evaluate-coco", "run_local": "run-local"}
    assert f"usage: maskcast {' '.join(right.get(word, word) for word in words)} " in said(*words, "--help")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("evalute --params params.yaml", "error: unknown stage or command 'evalute'; did you mean 'evaluate'?"),
        ("train-maskr", "error: unknown stage or command 'train-maskr'; did you mean 'train_masker'?"),
        ("modles list", "error: unknown stage or command 'modles'; did you mean 'models'?"),
        (
            "pipeline sumbit",
            f"error: unknown command of pipeline 'sumbit'; did you mean 'submit'? allowed: {OF_PIPELINE}",
        ),
        (
            "pipeline runlocal",
            f"error: unknown command of pipeline 'runlocal'; did you mean 'run-local'? allowed: {OF_PIPELINE}",
        ),
        (
            "models promot",
            "maskcast models: error: argument COMMAND: invalid choice: 'promot'; did you mean 'promote'? "
            "allowed: list, promote, rollback, compare, lineage, evaluate, download, export, deploy, undeploy",
        ),
        (
            "models promote --reson=x",
            "maskcast models: error: unrecognized arguments: --reson=x; did you mean '--reason' by '--reson'?",
        ),
        (
            "init --froce=x",
            "maskcast init: error: the following arguments are required: FOLDER; "
            "did you mean '--force' by '--froce'?",
        ),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(
    words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(words.split())
    except SystemExit as ended:  # argparse's
        code = ended.code
    assert (code, capsys.readouterr().err.splitlines()[-1]) == (2, line)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("segment", ""), "VIDEO"),
        (("segment", "sample", "--background", ""), "--background"),
        (("segment", "sample", "--output="), "--output"),
        (("forecast", "sample", ""), "VIDEO"),
        (("init", ""), "FOLDER"),
        (("prepare-clips", "--params", "params.yaml", "--raw", "", "--clips", "clips"), "--raw"),
        (("evaluate-coco", "a.json", ""), "DT"),
        (("labels", "import", "", "--format", "coco", "--clips", "clips", "--output", "new"), "FILE"),
        (("models", "promote", "--reason", ""), "--reason"),
        (("pipeline", "compile", "--params="), "--params"),
        (("serve", "--model", ""), "--model"),
    ],
)
def test_an_empty_text_is_no_path_and_no_value(
    words: tuple[str, ...], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert f"error: argument {name}" in line
    assert line.endswith("got an empty value; give one (is a shell variable unset?)")


def test_a_word_like_no_other_is_answered_with_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyzzy"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: unknown stage or command 'xyzzy'; allowed: ")
    assert all(name in said for name in (*COMMANDS, *stage_names()))


def test_the_version_tells_the_commit_of_a_checkout_or_an_image(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASKCAST_GIT_SHA", raising=False)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"maskcast \d+\.\d+\.\d+, commit {head.stdout[:12]}(-dirty)?\n", said("--version"))
    monkeypatch.setenv("MASKCAST_GIT_SHA", "0123456789ab")
    assert said("--version").endswith(", commit 0123456789ab\n")


def test_the_package_and_its_metadata_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__


def test_pipelines_are_those_of_the_clone_or_those_that_came_along(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/cli.py").touch()  # of somebody else
    for folder in (ROOT / "recipes/detection", tmp_path):
        monkeypatch.chdir(folder)
        assert pipelines_folder() == ROOT
        assert "usage: maskcast pipeline" in said("pipeline", "--help")
    (tmp_path / "components").mkdir()
    (tmp_path / "components/_image.py").touch()
    assert pipelines_folder() == tmp_path
    monkeypatch.chdir(tmp_path.parent)
    for name in ("CLONE", "IN_WHEEL"):
        monkeypatch.setattr(installation, name, tmp_path / "nowhere")
    assert main(["pipeline", "compile"]) == 2
    assert capsys.readouterr().err.endswith("use a `pip install` or a clone of maskcast\n")


HELPS = """
import contextlib, io, sys
from maskcast.__main__ import main
from maskcast.commands import COMMANDS
for words in ["--help"], *([name, "--help"] for name in COMMANDS):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main(words)
    assert said.getvalue().startswith("usage: maskcast"), words
print(sorted({"torch", "mlflow", "lightning", "av", "boto3", "kubernetes", "matplotlib"} & sys.modules.keys()))
"""


def test_no_help_imports_what_takes_seconds() -> None:
    done = subprocess.run([sys.executable, "-c", HELPS], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


HANDS = ("synthetic_hands", "lmdb", "image_maps", "pasted_hands")


def test_help_tells_layouts_apart_and_names_allowed_and_default_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main(["prepare_clips", "--help"])
    keys = capsys.readouterr().out.partition("keys of section")[2].splitlines()[1:]
    assert max(map(len, keys)) <= 100
    headings = [line.split()[1] for line in keys if line.startswith("      layout: ")]
    videos = ["frame_folders", "annotations", "videos"]
    assert headings == ["competition", "clevrer", *videos, "green_screen", "synthetic", *HANDS]
    for layout, own, shared in (("frame_folders", "images", "classes"), ("annotations", "format", "frames")):
        first, *others = "\n".join(keys).partition(f"layout: {layout}\n")[2].split()
        assert first == f"{own}:" and f"{shared}:" in others, layout  # its own keys stand before shared ones
    text = " ".join(" ".join(keys).split())
    assert "(one of auto, index, binary; default auto)" in text
    assert (
        "window_step: " in text
        and "null cuts one clip from each video, at its start. (at least 1; default null)" in text
    )
    assert "min_screen: " in text and "(at least 0, below 1; default 0.05)" in text
    assert "(default {train: train, validation: val, test: hidden})" in text


@pytest.mark.parametrize("name", ["pretrain_encoder", "train_detector", "train_masker"])
def test_help_describes_keys_that_only_get_another_default(name: str, said: Said) -> None:
    keys = re.findall(r"^ +((?:brightness|contrast|saturation|hue|blur): .*)", said(name, "--help"), re.MULTILINE)
    assert keys and all(re.match(r"\w+: Maximum ", key) for key in keys), keys


def test_only_help_reads_sources_for_what_keys_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(inspect, "findsource", lambda _: pytest.fail("reads a source"))

        class Example(Params):
            key: int = 3
            """Its meaning."""

        with pytest.raises(SystemExit):
            main(["train_masker"])
    assert "arguments are required: --params" in capsys.readouterr().err
    assert describe_params(Example) == "  key: Its meaning. (default 3)"


def test_help_says_as_below_of_what_it_lists_below(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train_masker", "--help"])
    text = capsys.readouterr().out
    assert "  model: Architecture and its sizes. (default as below)\n      arch: unet\n          width: " in text
    assert "\n      arch: smp_unet or smp_unetplusplus or " in text
    assert "smp_dpt\n          encoder: " in text


def test_help_says_which_keys_belong_together_beside_null_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain_encoder", "--help"])
    network = capsys.readouterr().out.partition("  network: ")[2]
    assert "(default null)\n      arch: unet\n          width: " in network
    assert "\n      arch: recurrent\n          base: " in network


def _without(packages: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    missing = f"sys.modules |= dict.fromkeys({packages.split()})"
    code = f"import sys; {missing}; from maskcast.__main__ import main; sys.exit(main({words}))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_kubeflow_shells_complete_the_other_commands() -> None:
    done = _without("kfp", ["completion", "bash"])
    assert (done.returncode, done.stderr) == (0, "") and "train_masker" in done.stdout


def test_without_kubeflow_a_line_names_the_extra() -> None:
    done = _without("kfp", ["pipeline", "compile"])
    line = "error: pipeline: needs kfp, which is not installed; run `pip install 'maskcast[cluster]'`\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_a_module_of_maskcast_itself_is_no_missing_package() -> None:
    assert (installation.extra_for("maskcast.runner.contract"), installation.extra_for("kfp.dsl")) == (
        None,
        "cluster",
    )
    done = _without("maskcast.commands.stages", ["train_masker"])
    assert done.returncode == 1 and "ModuleNotFoundError: " in done.stderr and "pip install" not in done.stderr


EXTRAS = "torch torchvision faster_coco_eval matplotlib safetensors kfp kubernetes docker av boto3 dvc"


def test_without_the_extras_shells_complete_and_each_command_helps() -> None:
    done = _without(EXTRAS, ["completion", "bash"])
    assert (done.returncode, done.stderr) == (0, "") and "evaluate-coco" in done.stdout
    assert "GT.json is an object" in _without(EXTRAS, ["evaluate-coco", "--help"]).stdout


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (["forecast", "sample"], "torch"),
        (["serve", "--model", "folder"], "torch"),
        (["evaluate-coco", "truth.json", "results.json"], "faster_coco_eval"),
    ],
)
def test_without_torch_a_line_names_the_extra(words: list[str], package: str) -> None:
    done = _without(EXTRAS, words)
    line = f"error: {words[0]}: needs {package}, which is not installed; run `pip install 'maskcast[train]'`\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.parametrize("triton", [False, True])
def test_the_end_of_a_command_skips_a_collection_that_nobody_needs(
    monkeypatch: pytest.MonkeyPatch, triton: bool
) -> None:
    """With Triton it does not: Triton reports what is not collected."""
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if triton:
        monkeypatch.setitem(sys.modules, "triton", sys)
    skip_last_collection()
    assert bool(frozen) is not triton
