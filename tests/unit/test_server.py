"""Where the embedded store of runs is."""

from pathlib import Path

import pytest

from maskcast.runner.server import embedded_folder


@pytest.mark.parametrize(
    ("working", "roots", "kept"),
    [
        ("project", [""], "project"),
        ("project/.dvc/tmp/exps/tmpab", ["", ".dvc/tmp/exps/tmpab"], "project"),
        ("project/.dvc/tmp/exps/tmpab/sub", ["", ".dvc/tmp/exps/tmpab"], "project/sub"),
        # the root of DVC below that of Git: the copy is of the latter
        ("project/r/.dvc/tmp/exps/tmpab/r", ["r", "r/.dvc/tmp/exps/tmpab/r"], "project/r"),
        ("project/tmp/exps/tmpab", [""], "project/tmp/exps/tmpab"),
    ],
)
def test_it_is_in_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, working: str, roots: list[str], kept: str
) -> None:
    (tmp_path / working).mkdir(parents=True)
    for root in roots:
        (tmp_path / "project" / root / ".dvc").mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / working)
    assert embedded_folder() == tmp_path / kept
