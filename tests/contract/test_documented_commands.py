"""Every command that README.md and docs name exists, with its flags and keys (`tests/documented.py`)."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.documented import ROOT, Command, commands

from maskcast.__main__ import main
from maskcast.params import validate
from maskcast.runner.stage import get_stage, stage_names

COMMANDS = {f"{command.file}: {command}": command for command in commands()}


@pytest.fixture(params=COMMANDS.values(), ids=COMMANDS)
def command(request: pytest.FixtureRequest) -> Command:
    return request.param


def test_the_documentation_is_read() -> None:
    assert {command.file for command in COMMANDS.values()} >= {"README.md", "docs/registry.md", "docs/runbook.md"}
    assert len(COMMANDS) > 30


def test_somebody_has_said_what_runs_it(command: Command) -> None:
    fate = command.fate
    assert fate, f"{command.file} names `{command}`: run it in a test and say so in RULES of tests/documented.py"
    assert not fate.startswith("tests/") or (ROOT / fate).is_file(), f"{fate} is not there any more"


def test_what_it_writes_is_ignored_by_git(command: Command) -> None:
    for path in written(command):
        check = ["git", "check-ignore", path, f"{path}/x"]  # a pattern may be for folders alone
        done = subprocess.run(check, cwd=ROOT / command.folder, capture_output=True, text=True, check=False)
        assert done.stdout, f"{command.file}: `{command}` writes {path}: name it in .gitignore {done.stderr}"


def written(command: Command) -> list[str]:
    """Returns the files and folders that a command writes into the checkout."""
    given = dict(zip(command.words, command.words[1:], strict=False))
    flags = ["--output", "--out", "--pictures", "--local-dir"]
    if command.words[0] == "maskcast" and command.words[1] in stage_names():
        flags = [f"--{port.name}" for port in get_stage(command.words[1]).ports if port.direction == "out"]
    paths = [given[flag] for flag in flags if flag in given]
    if command.words[:3] == ("maskcast", "pipeline", "compile") and "--out" not in given:
        paths.append(f"{given.get('--pipeline', 'forecasting')}.yaml")
    if command.words[:3] == ("maskcast", "pipeline", "run-local") and "--out" not in given:
        paths.append("kfp-local")
    if command.redirected:
        paths.append(command.redirected)
    return [path for path in paths if not path.startswith(("/", "~", "$"))]


def test_it_exists_with_its_flags_and_keys(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    match command.words:
        case ["maskcast", *words] if not words[0].startswith("-"):
            check_flags(words, capsys)
        case ["python", str(script), *words] if script.endswith(".py"):
            source = (ROOT / command.folder / script).read_text(encoding="utf-8")
            assert flags(words) <= set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', source))
        case ["make", *words]:
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {word for word in words if "=" not in word} <= set(targets)
        case [str(program), *_] if "/" in program:
            assert (ROOT / program).is_file()
    check_keys(command)


def check_flags(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Checks that `--help` of the command, or of one that it holds, names the flags."""
    first = known = help_of(words[:1], capsys)
    for word in words[1:]:
        if word[0] != "-" and re.search(rf"^ +{re.escape(word)}\s", first, re.MULTILINE):
            known += help_of([words[0], word], capsys)
    assert flags(words) <= set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", known))


def help_of(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:  # argparse's
        main([*words, "--help"])
    assert ended.value.code == 0, f"{words} is no command"
    return capsys.readouterr().out


def flags(words: Sequence[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}


def check_keys(command: Command) -> None:
    """Checks each `-S section.key=value` against the params that it changes."""
    given = [
        after for word, after in zip(command.words, command.words[1:], strict=False) if word in ("-S", "--set")
    ]
    if not given:
        return
    for one in given:
        path, _, value = one.partition("=")
        section, *keys = path.split(".")
        assert section in stage_names(), f"{section} is no section of params.yaml"
        params = [params_of(folder) for folder in (ROOT / command.folder, *ROOT.glob("recipes/*"))]
        values = where = next(found[section] for found in params if section in found)
        for key in keys[:-1]:
            where = where.setdefault(key, {})
        where[keys[-1]] = yaml.safe_load(value)
        validate(get_stage(section).params, values, command.file)


def params_of(folder: Path) -> dict[str, Any]:
    file = folder / "params.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
