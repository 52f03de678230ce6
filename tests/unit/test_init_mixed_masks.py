"""`maskcast init` on masks of two forms in one set, as two laboratories draw them."""

from pathlib import Path

import numpy as np
import pytest
from tests.lookalikes import frames_of, write_images

from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.proposal.plan import plan_params

BINARY, TWO = (0, 1, 1), (0, 1, 2)
VIDEOS = ("a", "b", "c", "d")


def write(root: Path, *tables: tuple[int, ...]) -> None:
    """Writes four sequences whose masks hold these numbers for the background and two squares."""
    for k, (video, table) in enumerate(zip(VIDEOS, tables, strict=True)):
        frames, masks = frames_of(k, 24)
        write_images(root / "frames" / video, frames, "{:04d}.jpg")
        write_images(root / "masks" / video, np.array(table, np.uint8)[masks], "{:04d}.png")


@pytest.mark.parametrize(
    ("ids", "greys", "values"),
    [
        (BINARY, (0, 255, 255), {"0": "background", "1": "foreground", "255": "foreground"}),
        (
            TWO,
            (0, 127, 254),
            {"0": "background", **dict.fromkeys(("1", "127"), "class 1"), "2": "class 2", "254": "class 2"},
        ),
        (
            TWO,
            (0, 128, 255),
            {"0": "background", **dict.fromkeys(("1", "128"), "class 1"), "2": "class 2", "255": "class 2"},
        ),
    ],
)
def test_ids_and_greys_in_different_sequences_are_the_same_classes(
    ids: tuple[int, ...], greys: tuple[int, ...], values: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, ids, greys, ids, greys)
    start = plan_params(tmp_path)
    source = start.findings.source
    assert source["values"] == values and source["classes"] == [*dict.fromkeys(values.values())]
    assert "encoding" not in source and "ignore" not in source and not start.left_out
    (warning,) = start.findings.warnings
    assert "masks: b, d hold " in warning and "taken as the same classes: if they are not, edit" in warning


@pytest.mark.parametrize(
    "tables",
    [
        [(0, 1, 255)] * 4,  # 255 is no label
        [(0, 1, 1), (0, 1, 255)] * 2,
        [(0, 1, 2), (0, 1, 255)] * 2,
        [(0, 3, 3), (0, 255, 255)] * 2,
        [(0, 1, 2), (0, 100, 255)] * 2,
    ],
)
def test_other_numbers_are_not_the_same_classes(tables: list[tuple[int, ...]], tmp_path: Path) -> None:
    write(tmp_path, *tables)
    assert not any("same classes" in one for one in inspect_folder(tmp_path).warnings)


def test_sequences_with_inverted_masks_are_asked_about(tmp_path: Path) -> None:
    write(tmp_path, (0, 255, 255), (0, 255, 255), (255, 0, 0), (0, 255, 255))
    (warning,) = inspect_folder(tmp_path).warnings
    assert "the foreground, 255, has 9" in warning and "% of the pixels in c, and " in warning
    assert warning.endswith("if masks are inverted in one of these, invert them there")
    write(tmp_path, *[(0, 255, 255)] * 4)
    assert inspect_folder(tmp_path).warnings == []
