"""Reads a dvc.yaml as tests compare it: which stage each entry calls, under which name, with which paths."""

import shlex
from dataclasses import dataclass
from typing import Any

from maskcast.runner.stage import Stage, get_stage

CODE = "code"  # the entry that names the code of all stages: DVC's alone, as an image's digest is Kubeflow's


@dataclass(frozen=True)
class Call:
    """What the command of an entry says."""

    stage: Stage
    name: str
    params_file: str
    ports: dict[str, str]
    """Path of each port."""

    def paths(self, direction: str) -> dict[str, str]:
        """Returns the paths of the ports of one direction."""
        names = [port.name for port in self.stage.ports if port.direction == direction and port.name in self.ports]
        return {name: self.ports[name] for name in names}


def call(entry: dict[str, Any]) -> Call:
    """Returns what an entry calls."""
    words = shlex.split(entry["cmd"])
    assert words[:3] == ["python", "-m", "maskcast"]
    flags = {flag.removeprefix("--"): value for flag, value in zip(words[4::2], words[5::2], strict=True)}
    return Call(get_stage(words[3]), flags.pop("name", words[3]), flags.pop("params"), flags)


def calls(stages: dict[str, Any]) -> dict[str, Call]:
    """Returns the calls of all entries but `code`."""
    return {name: call(entry) for name, entry in stages.items() if name != CODE}
