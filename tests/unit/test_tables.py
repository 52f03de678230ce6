import pytest
from rich.cells import cell_len

from maskcast.report.evaluation_files import HEADLINE
from maskcast.report.tables import format_table, markdown


@pytest.fixture(params=[80, 60, 120])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def test_the_score_table_fits_a_terminal_and_no_header_is_cut(columns: int) -> None:
    header = ["forecaster", *(text.format(first=12, last=22, judged=22) for text in HEADLINE.values())]
    cells = ["constant_velocity", *[f"0.{index}234" for index in range(1, len(header))]]
    title, *lines = format_table(header, [cells], "val: 3 clips").splitlines()
    assert title == "val: 3 clips" and max(map(len, lines)) <= columns
    assert [word for name in header for word in name.split() if word not in " ".join(lines)] == []
    numbers = [word for line in lines if line.startswith("constant_velocity") for word in line.split()[1:]]
    assert numbers == cells[1:]


def test_long_texts_are_wrapped_to_lines_of_several_words(columns: int) -> None:
    text = (
        "pods know of no server: their runs would be lost with them; add MLFLOW_TRACKING_URI to the cluster file"
    )
    rows = [["failed", "service account", f"{text}\n-> a remedy"], ["ok", "image", "registry/" + "0" * 100]]
    lines = format_table(["state", "check", "found"], rows).splitlines()
    assert max(map(len, lines)) <= columns
    of_text = lines[2 : next(index for index, line in enumerate(lines) if "->" in line)]
    assert " ".join(line[23:].strip() for line in of_text) == text
    assert all(len(line[23:].split()) >= 3 for line in of_text[:-1])
    assert "".join("".join(lines).partition("registry/")[2].split()) == "0" * 100


def test_what_does_not_fit_stands_below_beside_the_first_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert format_table(["version", "commit", "score"], [["1", "a" * 16, "0.5"], ["2", "b" * 16, "-"]], "all") == (
        "all\n"
        "version  commit\n"
        "─────────────────────────\n"
        "1        aaaaaaaaaaaaaaaa\n"
        "2        bbbbbbbbbbbbbbbb\n"
        "\n"
        "version  score\n"
        "──────────────\n"
        "1          0.5\n"
        "2            -"
    )


def test_a_table_without_rows_is_its_header() -> None:
    assert format_table(["run", "state"], []) == "run  state\n──────────"


def test_a_word_too_long_for_a_terminal_is_kept_whole() -> None:
    names = [f"{name}_{'x' * 100}" for name in "abc"]
    text = format_table(names, [["1", "2", "3"]], "wide")
    assert all(name in text for name in names)


def test_markdown_has_numbers_to_the_right():
    assert markdown(["name", "score"], [["a", "1"]]) == "| name | score |\n| --- | ---: |\n| a | 1 |\n"


def test_what_people_write_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "kept/to@myself")
    reason = "[/red] <script> \x1b[31mred\x07 kept/to@myself"
    assert (
        format_table(["n", "reason"], [["1", reason]]).splitlines()[2] == r"1  [/red] <script> \x1b[31mred\x07 ***"
    )
    assert markdown(["class"], [["a|b\nc"]]) == "| class |\n| --- |\n| a\\|b c |\n"


def test_a_heading_stays_on_one_line_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["train_masker", "0.2 s"]]
    monkeypatch.setenv("COLUMNS", "80")
    assert format_table(["stage", "a step"], rows).splitlines()[0] == "stage         a step"
    monkeypatch.setenv("COLUMNS", "19")
    assert [line.split() for line in format_table(["stage", "a step"], rows).splitlines()[:2]] == [
        ["a"],
        ["stage", "step"],
    ]


def test_wide_characters_shift_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    rows = [["街", "0.5", "赤" * 30], ["road", "0.25", "red"]]
    lines = format_table(["class", "値", "note"], rows).splitlines()
    assert lines[0] == "class    値  note" and lines[-1] == "road   0.25  red"
    assert lines[2] == "街      0.5  " + "赤" * 18
    assert max(map(cell_len, lines)) <= 50
