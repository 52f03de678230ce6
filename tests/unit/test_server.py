"""Where the embedded store of runs is, and what another needs."""

import sys
from pathlib import Path

import pytest

from maskcast.errors import MaskcastError
from maskcast.runner.address import embedded_folder
from maskcast.runner.server import new_client


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


def test_a_database_without_its_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://me:pw-of-me@127.0.0.1:1/mlflow")
    with pytest.raises(MaskcastError, match="needs the Python module psycopg, which is not installed") as caught:
        new_client()
    assert "pw-of-me" not in str(caught.value)
