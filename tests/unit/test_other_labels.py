"""Labels beside those that are read: what is looked for costs little, and what only may be labels is not named."""

import os
import tracemalloc
from pathlib import Path

import pytest

from maskcast.data.footage import Footage
from maskcast.data.inspection.other_labels import other_labels_warnings
from maskcast.data.sources.sequence_files import SequenceFiles

SOURCE = {"images": "images/{clip}/*.png"}


def warnings(raw: Path, sequences: int, frames: int) -> list[str]:
    """Returns the warnings if all sequences but the first have masks."""
    footage = {
        f"s{n}": SequenceFiles(
            Footage([raw / f"images/s{n}/{k:05d}.png" for k in range(frames)]), [None] * frames, [range(frames)]
        )
        for n in range(sequences)
    }
    return other_labels_warnings(raw, SOURCE, footage, {f"s{n}": range(frames) for n in range(1, sequences)})


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("stats.json", '{"images/s0/00000.png": {"counts": [1, 2]}}'),
        ("gaze.json", '{"images/s0/00000.png": {"points": [[1, 2]]}}'),
        ("transcript.json", '{"video": "s0.mp4", "segments": [{"text": "Hello"}]}'),
        ("pred.json", '[{"image": "s0/00000.png", "segmentation": {"counts": "1", "size": [1, 1]}}]'),
    ],
)
def test_files_that_are_hardly_labels_are_not_named(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    assert not warnings(tmp_path, 2, 1)


def test_tables_of_run_lengths_may_be_predictions(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("ImageId,EncodedPixels\ns0/00000.png,1 1\n")
    (line,) = warnings(tmp_path, 2, 1)
    assert line.startswith("predictions.csv is a table of run") and line.endswith("unless these are predictions")


def test_a_large_text_is_not_read_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "sensor.txt").write_text("1 2 3\n" * 2_000_000)
    tracemalloc.start()
    assert not warnings(tmp_path, 2, 1)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_files_of_a_known_format_are_not_searched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labelme.json").write_text(
        '{"shapes": [], "imagePath": "s1/00000.png", "points": [], "flags": {}}'
    )
    opened, open_file = [], os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest, **more: opened.append(path) or open_file(path, *rest, **more)
    )
    warnings(tmp_path, 2, 1)
    assert opened.count(tmp_path / "labelme.json") <= 2  # once for its format, once for its frames
