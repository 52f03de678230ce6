"""Remedies for unknown names."""

import pytest

from maskcast.spelling import MANY, closest_match, did_you_mean, suggestion

MANY_NAMES = [f"resnet{k}" for k in range(MANY)]


@pytest.mark.parametrize(
    ("word", "names", "remedy"),
    [
        ("epoch", ["epochs", "seed"], "did you mean 'epochs'? allowed: epochs, seed"),
        ("xyzzy", ["epochs", "seed"], "allowed: epochs, seed"),
        ("resnt7", [*MANY_NAMES, "vit"], "did you mean 'resnet7'?"),
        ("xyzzy", [*MANY_NAMES, "vit"], f"allowed: {', '.join(MANY_NAMES)}, vit"),
    ],
)
def test_a_remedy_has_the_nearest_name_and_all_that_a_line_can_hold(
    word: str, names: list[str], remedy: str
) -> None:
    assert suggestion(word, names) == remedy


def test_case_and_hyphens_make_no_difference() -> None:
    assert closest_match("RUN_LOCAL", ["run-local", "run"]) == "run-local"


def test_an_ending_is_empty_if_no_name_is_similar() -> None:
    assert (did_you_mean("cat", ["car"]), did_you_mean("cat", ["dog"])) == ("; did you mean 'car'?", "")
