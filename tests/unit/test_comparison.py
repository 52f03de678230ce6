"""Pictures of where two models differ: which clips, what is on them, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import moving_squares, write_store
from tests.registered import CLASSES, HORIZON, SEEN, write_registered

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.evaluation.forecasts import data_digest, scored_clips
from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.evaluation.view import ForecastView
from maskcast.labels import MASK, single_map
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.registry.comparison import Evaluated, draw_differences
from maskcast.registry.evaluations import FORECASTS, EvaluationRecord
from maskcast.registry.loading import load_address, pipeline_of
from maskcast.report.overlays import stack_vertically
from maskcast.report.pictures import draw_strip

B_LESS_A = [-0.3, -0.1, -0.2, -0.05, 0.0, 0.2]  # of clips val_0, val_1, ...


def jaccard_mean(truth_hHW: np.ndarray, found_hHW: np.ndarray) -> float:
    pairs = zip(truth_hHW, found_hHW, strict=True)
    return float(np.mean([macro_jaccard(confusion(*pair, 3), absent="omit") for pair in pairs]))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return write_store(tmp_path_factory.mktemp("data") / "clips", train=1, val=len(B_LESS_A))


@pytest.fixture(scope="module")
def pair(clips: ClipStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluated, Evaluated]:
    """Two models; the first is registered with the scores that it has, the second with others."""
    folder = tmp_path_factory.mktemp("registered")
    a = pipeline_of(load_address(str(write_registered(folder / "a"))))
    b = pipeline_of(load_address(str(write_registered(folder / "b", ConvLSTMConfig(hidden=4, stride=8)))))
    chosen = scored_clips(clips, "val")
    facts: dict[str, Any] = {"split": "val", "context_frames": SEEN, "horizon": HORIZON}
    facts["data"] = data_digest(clips, chosen, SEEN, HORIZON)
    scores = {
        clip.id: jaccard_mean(
            clips.masks(clip)[SEEN:][:HORIZON], a.model.predict(np.array(clips.frames(clip)[:SEEN]))
        )
        for clip in chosen
    }
    others = {clip_id: score + more for (clip_id, score), more in zip(scores.items(), B_LESS_A, strict=True)}
    records = [
        EvaluationRecord("report", FORECASTS, facts, {}, {"jaccard_mean": each}, {}) for each in (scores, others)
    ]
    return (a, records[0]), (b, records[1])


def test_the_clips_that_differ_most_are_drawn_as_either_model_sees_them(
    clips: ClipStore, pair: tuple[Evaluated, Evaluated], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "differences"
    found = draw_differences(*pair, clips.root, out)
    names = [
        "A_better_1_val_0.png",
        "A_better_2_val_2.png",
        "A_better_3_val_1.png",  # no fourth one
        "B_better_1_val_5.png",  # and none of val_4, where both are equal
    ]
    assert found == [out / name for name in names]
    assert sorted(path.name for path in out.parent.rglob("*")) == sorted([out.name, *names])
    (a, a_record), (b, _) = pair
    for name in (names[0], names[3]):
        clip = clips.get(name[11:-4])
        frames, masks = (np.array(layer(clip)[: SEEN + HORIZON]) for layer in (clips.frames, clips.masks))
        sheets, futures = [], []
        for loaded, record in pair:
            seen, future = loaded.model.predict_masks(frames[:SEEN])
            drawn, told = jaccard_mean(masks[SEEN:], future), f"{record.per_item['jaccard_mean'][clip.id]:.4f}"
            if loaded is b:
                told += f" (as drawn {drawn:.4f})"
            view = ForecastView(clip.id, frames, seen, masks, {"forecast": future}, classes=CLASSES)
            sheets.append(draw_strip(view, f"{clip.id} · {loaded.title} · jaccard_mean {told}"))
            futures.append(future)
        assert not np.array_equal(*futures)
        with Image.open(out / name) as picture:
            assert picture.tobytes() == stack_vertically(sheets).tobytes()
    assert draw_differences((a, a_record), (b, a_record), clips.root, tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def other_squares(root: Path) -> ClipStore:
    """The same ids, classes and sizes, but other clips."""
    return write_store(root, train=1, test=1, val=len(B_LESS_A))


def without_frames(root: Path, classes: tuple[str, ...] = CLASSES) -> ClipStore:
    with ClipWriter(root, height=32, width=48, maps=single_map(classes)) as writer:
        for k in range(len(B_LESS_A)):
            writer.add(
                f"val_{k}", split="val", kind="labelled", masks={MASK: moving_squares(100 + k, 22, 32, 48)[1]}
            )
    return ClipStore(root)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (other_squares, r"clips, frames .* of split 'val' differ from those that .*a/artifact was evaluated on"),
        (without_frames, "clip 'val_0' has no frames; use a clip or store that has them"),
        (
            lambda root: without_frames(root, (*CLASSES, "green")),
            r"different classes than in the evaluation of .*artifact .*\(3 and 4\)",
        ),
        (
            lambda root: write_store(root, height=48, val=6),
            r"different height than in the evaluation of .* \(32 and 48\); give",
        ),
        (lambda root: write_store(root, val=2), "no clip 'val_2' among its 2"),
        (lambda root: root.mkdir(), r"index\.json: no clip store found"),
    ],
)
def test_another_store_than_that_of_the_evaluation_is_refused(
    pair: tuple[Evaluated, Evaluated], tmp_path: Path, write: Callable[[Path], Any], message: str
) -> None:
    write(tmp_path / "clips")
    with pytest.raises(MaskcastError, match=message):
        draw_differences(*pair, tmp_path / "clips", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_what_is_there_stays(clips: ClipStore, pair: tuple[Evaluated, Evaluated], tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(MaskcastError, match=r"already exists \(--pictures\); choose a new folder"):
        draw_differences(*pair, clips.root, tmp_path)
    assert (tmp_path / "kept").read_text() == "mine"
