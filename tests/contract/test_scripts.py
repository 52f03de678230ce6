"""Scripts of recipes and benchmarks say a user's mistake in one line, as the command line does."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from maskcast.errors import one_line_errors

ROOT = Path(__file__).resolve().parents[2]
ENDING = 'if __name__ == "__main__":\n    with one_line_errors():\n        main()\n'


TEXTS = {path: path.read_text() for each in ("recipes", "benchmarks") for path in (ROOT / each).rglob("*.py")}


def test_scripts_say_a_mistake_in_one_line() -> None:
    scripts = {path for path, text in TEXTS.items() if "__main__" in text}
    assert len(scripts) > 35
    assert {path for path in scripts if not TEXTS[path].endswith(ENDING)} == set()


def test_scripts_do_not_ask_git_themselves() -> None:
    """`commit()` names the commit of the code that runs, and says whether it has changes.

    In the working directory, Git would name that of another repository.
    """
    assert {path.name for path, text in TEXTS.items() if '"git"' in text} == {"_common.py"}


def test_results_are_reused_only_if_they_were_made_of_the_same() -> None:
    """Scripts ask `made_once`; that a file exists does not say of which values it was made."""
    found = {
        (path.name, name)
        for path, text in TEXTS.items()
        for name in re.findall(r"if not (\w+)\.(?:exists|is_dir|is_file)\(\)", text)
    }
    assert found == {
        ("gpu.py", "known"),  # in a folder of this call
        ("budget.py", "metrics"),  # in a folder whose key.txt has the values
        ("forecasting.py", "record"),  # of an input from elsewhere
    }


def test_the_line_is_that_of_the_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["davis_green.py", "--davis", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "recipes/video/davis_green.py"), run_name="__main__")
    assert ended.value.code == "error: nowhere: has no JPEGImages/480p; give the root of DAVIS 2016"


def test_a_command_that_fails_ends_a_script_in_one_line() -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)
    assert str(ended.value) == f"error: `{sys.executable} -c raise SystemExit(3)` failed (exit code 3); see above"


def test_workers_of_pools_end_with_a_killed_script() -> None:
    """Those without this initializer would wait forever for tasks, and hold their memory."""
    folders = ("src", "recipes", "benchmarks")
    texts = {path: path.read_text() for each in folders for path in (ROOT / each).rglob("*.py")}
    pools = [
        (path, ast.unparse(node))
        for path, text in texts.items()
        if "ProcessPoolExecutor(" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ProcessPoolExecutor"
    ]
    assert len(pools) == 4
    assert [path for path, call in pools if not re.search("init_spawned_process|exit_with_parent", call)] == []
