"""What holds for the tests themselves."""

import ast
from pathlib import Path

import pytest
from tests.conftest import ROOT

FILES = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_S = 1.0


def constant_sleeps(path: Path) -> list[tuple[int, float]]:
    """Returns lines and seconds of the calls of `sleep` with a number."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    found = []
    for call in calls:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name == "sleep" and call.args and isinstance(call.args[0], ast.Constant):
            found.append((call.lineno, float(call.args[0].value)))
    return found


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES])
def test_no_test_sleeps_for_longer_than_a_second(path: Path) -> None:
    slow = [line for line, seconds in constant_sleeps(path) if seconds > LONGEST_S]
    assert not slow, f"lines {slow}: wait for what you wait for, or set times"
