from maskcast.report.evaluation_files import HEADLINE
from maskcast.report.tables import markdown, printed


def test_the_score_table_fits_a_terminal_and_no_header_is_cut():
    header = ["forecaster", *(text.format(first=12, last=22) for text in HEADLINE.values())]
    title, *lines = printed(header, [["constant_velocity", *["0.1234"] * 9, "12345"]], "val: 3 clips").splitlines()
    assert title == "val: 3 clips" and max(map(len, lines)) <= 120
    head, numbers = " ".join(lines[:-2]), lines[-1]
    assert all(word in head for name in header for word in name.split())
    assert numbers.split() == ["constant_velocity", *["0.1234"] * 9, "12345"]


def test_a_table_too_wide_for_a_terminal_loses_no_column():
    names = [f"{name}_{'x' * 60}" for name in "abc"]
    last = printed(names, [["1", "2", "3"]], "wide").splitlines()
    assert last[1].split() == names and last[-1].split() == ["1", "2", "3"]


def test_markdown_has_numbers_to_the_right():
    assert markdown(["name", "score"], [["a", "1"]]) == "| name | score |\n| --- | ---: |\n| a | 1 |\n"
