"""Reads the stage calls in a dvc.yaml: stage, name, params file and the path of each port."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import dropwhile
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.params import Params, load_params_file, section, validate
from maskcast.reading import parsing, read_yaml
from maskcast.runner.stage import Stage, get_stage, stage_names

CODE = "code"  # the entry that tracks the code of all stages, for DVC only (Kubeflow has the image's digest)


@dataclass(frozen=True)
class Call:
    """The stage call of an entry in a dvc.yaml."""

    stage: Stage
    name: str
    params_file: str
    ports: dict[str, str]
    """Path of each port."""

    def paths(self, direction: str) -> dict[str, str]:
        """Returns the paths of the ports of one direction."""
        names = [port.name for port in self.stage.ports if port.direction == direction and port.name in self.ports]
        return {name: self.ports[name] for name in names}


def read_calls(file: Path) -> tuple[dict[str, Call], dict[str, str]]:
    """Returns the stage calls in a dvc.yaml by entry, in order, and the other commands by entry.

    Raises:
        MaskcastError: the file is missing, is not a dvc.yaml, or has stage calls with templates that only DVC can
            expand.
    """
    remedy = "pass the folder of a pipeline"
    content = read_yaml(file, "dvc.yaml", remedy)
    with parsing(file, "a dvc.yaml whose stages have a name and a `cmd` each", remedy):
        entries = {str(name): entry for name, entry in content["stages"].items()}
        commands = {name: shlex.split(str(entry["cmd"])) for name, entry in entries.items()}
    calls = [name for name, words in commands.items() if _is_stage(_arguments(words))]
    for name in calls:
        if syntax := [word for word in commands[name] if "${" in word or word in ("&&", ";", "|")]:
            raise MaskcastError(
                f"{file}: {name}: unsupported {syntax[0]!r} in `cmd`; write one command without templates or pipes"
            )
    others = {name: str(entry["cmd"]) for name, entry in entries.items() if name not in calls and name != CODE}
    return {name: call(file, name, entries[name]) for name in calls}, others


def hidden_stage(command: str) -> str | None:
    """Returns the stage that another command calls, e.g. ``cd x && maskcast evaluate --params ...``, or None."""
    called = re.findall(r"\bmaskcast\s+([\w-]+)\s+--\w", command)
    return next((name for name in called if _is_stage([name])), None)


def call(file: Path, name: str, entry: Mapping[str, Any]) -> Call:
    """Returns the stage call of an entry.

    Raises:
        MaskcastError: its flags are not pairs of name and value, or its params file is missing.
    """
    stage_name, *words = _arguments(shlex.split(entry["cmd"]))
    flags = {flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=False)}
    if len(words) % 2 or "params" not in flags:
        raise MaskcastError(f"{file}: {name}: `maskcast {stage_name}` needs --params FILE and a path per port")
    stage = get_stage(stage_name.replace("-", "_"))
    return Call(stage, flags.pop("name", stage.name), flags.pop("params"), flags)


def path_within(folder: Path, path: str) -> Path:
    """Returns a path below ``folder`` in place of a path of a dvc.yaml, which may be absolute or lead upwards."""
    return folder / path.replace("..", "__").lstrip("/")


def params_of(folder: Path, call: Call) -> tuple[dict[str, Any], Params]:
    """Returns the params section of a call, as read and as validated by its stage.

    Args:
        folder: of the dvc.yaml.
        call: one of its stage calls.

    Raises:
        MaskcastError: the file, the section or one of its keys is missing or wrong.
    """
    file = folder / call.params_file
    content = load_params_file(file, remedy="write it (maskcast init does), or fix --params in dvc.yaml")
    values = section(content, call.name, str(file))
    return values, validate(call.stage.params, values, f"{file}: {call.name}")


def sources_of(calls: Mapping[str, Call]) -> dict[str, dict[str, str]]:
    """Returns for each entry the entries that write its inputs, by port; other inputs are left out."""
    writers = {path: entry for entry, call in calls.items() for path in call.paths("out").values()}
    return {
        entry: {port: writers[path] for port, path in call.paths("in").items() if path in writers}
        for entry, call in calls.items()
    }


def needs_of(calls: Mapping[str, Call]) -> dict[str, set[str]]:
    """Returns for each entry the entries whose outputs it reads."""
    return {entry: set(sources.values()) for entry, sources in sources_of(calls).items()}


def ancestors_of(entry: str, needs: Mapping[str, set[str]]) -> set[str]:
    """Returns all entries on which an entry depends, directly or indirectly."""
    return needs[entry].union(*(ancestors_of(parent, needs) for parent in needs[entry]))


def in_order(calls: Mapping[str, Call]) -> list[str]:
    """Returns the entries in topological order.

    Raises:
        MaskcastError: entries depend on each other in a cycle.
    """
    needs = {entry: sorted(needed) for entry, needed in needs_of(calls).items()}
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = sorted(set(error.args[1]))
        raise MaskcastError(
            f"dvc.yaml: {', '.join(cycle)} depend on each other; fix the paths of their inputs and outputs"
        ) from None


def _arguments(words: list[str]) -> list[str]:
    """Returns the words after the call of maskcast; none if a command does not begin with it.

    Variables (``NAME=value``), `env` and `nice` may stand before it.
    """
    words = list(dropwhile(re.compile(r"env|nice|-n|-?\d+|\w+=.*", re.DOTALL).fullmatch, words))
    program = Path(words[0]).name if words else ""
    if program == "maskcast":
        return words[1:]
    is_module = re.fullmatch(r"python[\d.]*", program) and words[1:3] == ["-m", "maskcast"]
    return words[3:] if is_module else []


def _is_stage(arguments: list[str]) -> bool:
    return bool(arguments) and arguments[0].replace("-", "_") in stage_names()
