"""The jobs of docs/ci.md: YAML whose commands exist, with their flags."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskcast.commands.completion import tree

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```yaml\n(.*?)\n```\n", (ROOT / "docs/ci.md").read_text(encoding="utf-8") + "\n", re.DOTALL)


def scripts(job: dict[str, Any]) -> list[str]:
    steps = [step.get("run", "") for step in job.get("steps", [])]
    return [line.strip() for script in [*steps, *job.get("script", [])] for line in script.splitlines()]


@pytest.mark.parametrize(("block", "jobs"), [(BLOCKS[0], "jobs"), (BLOCKS[1], None)], ids=["GitHub", "GitLab"])
def test_each_command_of_a_job_exists_with_its_flags(
    block: str, jobs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    content = yaml.safe_load(block)
    job = (content[jobs] if jobs else content)["pipeline"]
    commands = [line for line in scripts(job) if line.startswith("maskcast ")]
    assert [command.split()[1:3] for command in commands] == [
        ["pipeline", "compile"],
        ["pipeline", "preflight"],
        ["pipeline", "submit"],
        ["models", "list"],
        ["models", "compare"],
    ]
    parser = tree()
    for command in commands:
        words = shlex.split(re.split(r" (?:>>?|\|\|?) ", command)[0])
        parser.parse_args(words[1:])
