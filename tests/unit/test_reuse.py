"""What a script has made is made again if it is to be made of something else."""

from pathlib import Path

import pytest

from maskcast.errors import MaskcastError
from maskcast.runner.reuse import made_once, recalled, record_of


def test_a_result_is_made_again_for_other_values_only(tmp_path: Path) -> None:
    out, calls = tmp_path / "results/out", []

    def make(score: float) -> dict[str, float]:
        calls.append(score)
        out.touch()
        return {"score": score}

    def scored(of: dict[str, object], score: float) -> float:
        return made_once(record_of(out), of, lambda: make(score), out)["score"]

    values: dict[str, object] = {"raw": Path("a"), "classes": {0: "none"}, "size": (3, 4)}
    assert [scored(values, 0.1), scored(values, 0.2), scored(values | {"raw": Path("b")}, 0.3)] == [0.1, 0.1, 0.3]
    assert recalled(record_of(out), values) is None
    out.unlink()
    assert scored(values | {"raw": Path("b")}, 0.4) == 0.4 and calls == [0.1, 0.3, 0.4]


def test_what_was_stopped_is_made_again(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    made_once(record, {"seed": 0}, dict)
    with pytest.raises(KeyboardInterrupt):
        made_once(record, {"seed": 1}, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert made_once(record, {"seed": 0}, lambda: {"again": True}) == {"again": True}


@pytest.mark.parametrize(
    ("content", "why"),
    [("{", "not valid JSON"), ('{"of": {}}', "missing key 'facts'"), ("3", "not a record of a run")],
)
def test_a_damaged_record_is_one_line(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(MaskcastError, match=f"{why}.*; remove it, and its run is made again$"):
        recalled(tmp_path / "record.json", {})
