"""A second round: a masker that learns from what the first one masked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import moving_squares
from tests.two_maps import MATTE, SQUARES

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.errors import MaskcastError
from maskcast.inference.predictions import quantise
from maskcast.labels import IGNORE, LabelMap
from maskcast.runner.run import run_stage
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.tasks.segmentation import segmentation_task
from maskcast.training.tasks.segmentation_generated import GeneratedMasks
from maskcast.training.tasks.segmentation_phases import GeneratedParams

VALUES: dict[str, Any] = {
    "model": {"arch": "unet", "width": 4},
    "augment": {"hflip": 0.0},
    "training": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "learning_rate": 1e-2},
    "generated": {"share": 0.5, "threshold": 0.8},
}


def write(root: Path, frames: bool, sure: int = 210, maps: tuple[LabelMap, ...] = (SQUARES, MATTE)) -> ClipStore:
    """Writes clips with frames, or masks of them: sure of red squares, not of blue ones."""
    with ClipWriter(root, height=16, width=24, maps=maps) as writer:
        for seed, split in enumerate(("train", "val", "unlabeled", "hidden")):
            pictures, masks = moving_squares(seed, 3, 16, 24)
            matte = np.array([0, 250, 120], np.uint8)[masks]
            kind = {"unlabeled": "unlabelled", "hidden": "hidden"}.get(split, "labelled")
            known = {one.name: {"squares": masks, "matte": matte}[one.name] for one in maps}
            if frames:
                writer.add(split, split=split, kind=kind, frames=pictures, masks=known if seed < 2 else {})
            else:
                confidence = {"squares": np.array([255, sure, 90], np.uint8)[masks]}
                writer.add(split, split=split, kind=kind, masks=known, confidence=confidence)
    return ClipStore(root)


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    return write(tmp_path / "clips", frames=True)


def test_what_is_sure_is_learnt_of_unlabelled_clips_alone(store: ClipStore, tmp_path: Path) -> None:
    generated = write(tmp_path / "masks", frames=False)
    found = GeneratedMasks(store, generated.root, (SQUARES, MATTE), GeneratedParams(threshold=0.8), 1)
    assert [clip.id for clip in found.clips] == ["unlabeled"] and len(found.index) == 3
    squares, matte = found.masks(found.clips[0], slice(1, 3)).values()
    whole = generated.of("squares").masks(generated.get("unlabeled"))[1:]
    assert np.array_equal(squares, np.where(whole == 2, IGNORE, whole)) and (squares == 1).any()
    assert np.array_equal(matte, generated.of("matte").masks(generated.get("unlabeled"))[1:])


@pytest.mark.parametrize(
    ("threshold", "levels", "least"),
    [
        (0.0, 8, 0),
        (0.5, 8, 0.5),
        (0.8, 8, 0.786),
        (0.95, 8, 0.929),
        (1.0, 8, 0.929),
        (0.7, 2, 0.5),
        (0.95, 256, 0.95),
    ],
)
def test_a_threshold_that_the_levels_do_not_have_is_told(
    tmp_path: Path, threshold: float, levels: int, least: float, capsys: pytest.CaptureFixture[str]
) -> None:
    probability = np.linspace(0, 1, 1001, dtype=np.float32)[None, None]
    meta = {"confidence_levels": levels}
    frames, masks = np.zeros((1, 1, 1001, 3), np.uint8), np.ones((1, 1, 1001), np.uint8)
    with (
        ClipWriter(tmp_path / "clips", height=1, width=1001, maps=[SQUARES]) as clips,
        ClipWriter(tmp_path / "masks", height=1, width=1001, maps=[SQUARES], meta=meta) as generated,
    ):
        clips.add("a", split="unlabeled", kind="unlabelled", frames=frames)
        confidence = {"squares": quantise(probability, levels)}
        generated.add("a", split="unlabeled", kind="unlabelled", masks={"squares": masks}, confidence=confidence)
    params = GeneratedParams(threshold=threshold)
    found = GeneratedMasks(ClipStore(tmp_path / "clips"), tmp_path / "masks", (SQUARES,), params, 1)
    learnt = found.masks(found.clips[0])[SQUARES] == 1
    assert probability[learnt].min() == pytest.approx(least, abs=0.002)
    told = capsys.readouterr().err
    if threshold == pytest.approx(least, abs=0.02):
        assert told == ""
    else:
        assert f"has {levels} levels of confidence, so " in told
        assert f"threshold {threshold:g} learns pixels from {least:.3f} on; for a finer" in told


@pytest.mark.parametrize("split", ["val", "test", "hidden"])
def test_clips_without_labels_of_splits_for_scores_are_not_learnt(tmp_path: Path, split: str) -> None:
    for name in ("clips", "masks"):
        with ClipWriter(tmp_path / name, height=16, width=24, maps=(SQUARES,)) as writer:
            for seed, one in enumerate((split, "unlabeled")):
                frames, masks = moving_squares(seed, 3, 16, 24)
                known = {"masks": {"squares": masks}, "confidence": {"squares": np.full_like(masks, 255)}}
                given = {"frames": frames} if name == "clips" else known
                writer.add(one, split=one, kind="unlabelled", **given)
    found = GeneratedMasks(
        ClipStore(tmp_path / "clips"), tmp_path / "masks", (SQUARES,), GeneratedParams(threshold=0.8), 1
    )
    assert [clip.id for clip in found.clips] == ["unlabeled"]


def test_frames_without_labels_of_labelled_clips_are_learnt_too(store: ClipStore, tmp_path: Path) -> None:
    """A clip has a label of its second frame: that one keeps it, the others have generated masks."""
    generated = write(tmp_path / "masks", frames=False)
    mine_THW = np.full((3, 16, 24), IGNORE, np.uint8)
    mine_THW[1] = 2
    write_relabelled(tmp_path / "partly", store.of("squares"), {"train": NewLabels(mine_THW, [1])}, {})
    partly = ClipStore(tmp_path / "partly").of("squares")
    found = GeneratedMasks(partly, generated.root, (SQUARES,), GeneratedParams(threshold=0), 1)
    assert [clip.id for clip in found.clips] == ["train", "unlabeled"]
    expected_THW = generated.of("squares").masks(generated.get("train")).copy()
    expected_THW[1] = 2
    assert np.array_equal(found.masks(found.clips[0])[SQUARES], expected_THW)
    assert np.array_equal(found.masks(found.clips[0], slice(2, 3))[SQUARES], expected_THW[2:])


def test_a_batch_has_both_and_is_the_same_again(store: ClipStore, tmp_path: Path) -> None:
    masks = write(tmp_path / "masks", frames=False).root
    params = TrainMasker.model_validate(VALUES)
    task, again = (segmentation_task(store, params, "x", generated=masks) for _ in range(2))
    pictures = {
        store.frames(store.get(name))[t].tobytes(): name for name in ("train", "unlabeled") for t in range(3)
    }
    drawn = []
    for step in range(20):
        batch = task.batch(step)
        assert torch.equal(batch.frames_BTHWC, again.batch(step).frames_BTHWC)
        names = [pictures[frame.numpy().tobytes()] for frame in batch.frames_BTHWC]
        ignored = (batch.masks[0] == IGNORE).flatten(1).any(1).tolist()
        assert [name == "unlabeled" for name in names] == ignored
        drawn += names
    assert 25 < drawn.count("unlabeled") < 55  # of 80


def test_a_second_round_runs_as_a_stage(store: ClipStore, tmp_path: Path) -> None:
    def train(name: str, **inputs: Path) -> None:
        values = VALUES | {"maps": ["squares"], "generated": VALUES["generated"] if inputs else None}
        paths = {"masker": tmp_path / name, "metrics": tmp_path / f"{name}.json"}
        run_stage("train_masker", values, clips=store.root, **paths, **inputs)

    train("first")
    masks = {"masker": tmp_path / "first", "masks": tmp_path / "masks", "metrics": tmp_path / "masks.json"}
    run_stage("generate_masks", {"confidence_levels": 2}, clips=store.root, **masks)
    untrained = r"masks: no object has a confidence above train_masker.generated.threshold 0.8; lower it"
    with pytest.raises(MaskcastError, match=untrained):
        train("second", masks=tmp_path / "masks")
    write(tmp_path / "better", frames=False)
    train("second", masks=tmp_path / "better")
    assert (tmp_path / "second/model.safetensors").exists()


@pytest.mark.parametrize(
    ("values", "masks", "match"),
    [
        ({}, None, r"--masks and the param generated must be set together"),
        ({"generated": None}, {}, r"--masks and the param generated must be set together"),
        (
            {"maps": ["squares"]},
            {"sure": 90},
            r"masks: no object has a confidence .*threshold 0\.8; lower it, or train the",
        ),
        ({}, {"maps": (LabelMap("squares", ("background", "blue", "red")),)}, r"no label map 'matte'"),
        (
            {"maps": ["squares"]},
            {"maps": (LabelMap("squares", ("background", "blue", "red")),)},
            r"of other classes",
        ),
    ],
)
def test_what_does_not_fit_is_said(
    store: ClipStore, tmp_path: Path, values: dict[str, Any], masks: dict[str, Any] | None, match: str
) -> None:
    root = None if masks is None else write(tmp_path / "masks", frames=False, **masks).root
    params = TrainMasker.model_validate(VALUES | values)
    with pytest.raises(MaskcastError, match=match):
        segmentation_task(store, params, "x", generated=root)


def test_masks_of_other_clips_are_said(store: ClipStore, tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "masks", height=16, width=24, maps=(SQUARES, MATTE)) as writer:
        masks = moving_squares(0, 3, 16, 24)[1]
        writer.add("other", split="train", kind="labelled", masks={"squares": masks, "matte": masks})
    params = TrainMasker.model_validate(VALUES)
    with pytest.raises(
        MaskcastError, match=r"has no masks of 1 frame of an unlabelled clip of .*hidden \(hidden\)"
    ):
        segmentation_task(store, params, "x", generated=tmp_path / "masks")


def of_confidence(tmp_path: Path, sure: list[float | None]) -> tuple[ClipStore, Path]:
    """Writes unlabelled clips of a frame each, whose masks are as sure as that, and a labelled one."""
    pictures, masks = moving_squares(0, 1, 16, 24)
    with (
        ClipWriter(tmp_path / "clips", height=16, width=24, maps=[SQUARES]) as clips,
        ClipWriter(tmp_path / "masks", height=16, width=24, maps=[SQUARES]) as generated,
    ):
        for split in ("train", "val"):
            clips.add(split, split=split, kind="labelled", frames=pictures, masks={"squares": masks})
        for number, mean in enumerate(sure):
            name, meta = f"clip_{number}", {} if mean is None else {"mean_confidence": mean}
            clips.add(name, split="unlabeled", kind="unlabelled", frames=pictures)
            confidence = {"squares": np.full_like(masks, 255)}
            known = {"masks": {"squares": masks}, "confidence": confidence, "meta": meta}
            generated.add(name, split="unlabeled", kind="unlabelled", **known)
    return ClipStore(tmp_path / "clips"), tmp_path / "masks"


def test_the_least_confident_share_of_the_set_is_left_out(tmp_path: Path) -> None:
    store, masks = of_confidence(tmp_path, [0.5, 0.9, 0.2, 0.7, 0.9])
    found = GeneratedMasks(store, masks, (SQUARES,), GeneratedParams(drop=0.5), 1)
    assert [clip.id for clip in found.clips] == ["clip_1", "clip_3", "clip_4"] and not found.drops_per_batch
    assert len(GeneratedMasks(store, masks, (SQUARES,), GeneratedParams(), 1).clips) == 5


def test_the_least_confident_share_of_each_batch_is_left_out(tmp_path: Path) -> None:
    """Of eight that are drawn for a batch of four, as system 3 does it; the others come again in other batches."""
    sure = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    store, masks = of_confidence(tmp_path, list(sure))
    found = GeneratedMasks(store, masks, (SQUARES,), GeneratedParams(drop=0.5, drop_of="batch"), 1)
    drawn = [k for k, _ in found.draw_most_confident(np.random.default_rng(3), 4)]
    pool = np.random.default_rng(3).integers(8, size=8).tolist()
    least = sorted(pool)[4]
    assert sorted(drawn) == sorted(pool)[4:] and drawn == [k for k in pool if k in drawn][:4] and least > min(pool)
    values = VALUES | {"generated": {"share": 0.9, "drop": 0.5, "drop_of": "batch"}}
    task = segmentation_task(store, TrainMasker.model_validate(values), "x", generated=masks)
    assert torch.equal(task.batch(3).frames_BTHWC, task.batch(3).frames_BTHWC)


def test_a_batch_of_the_most_confident_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, masks = of_confidence(tmp_path, [0.1, 0.2, 0.3, 0.4])
    values = VALUES | {"generated": {"share": 0.9, "drop": 0.5, "drop_of": "batch"}}
    task = segmentation_task(store, TrainMasker.model_validate(values), "x", generated=masks)
    draws, draw = [], GeneratedMasks.draw_most_confident
    monkeypatch.setattr(GeneratedMasks, "draw_most_confident", lambda *given: draws.append(1) or draw(*given))
    task.batch(3)
    assert len(draws) == 1


def test_masks_that_do_not_say_how_sure_they_are(tmp_path: Path) -> None:
    store, masks = of_confidence(tmp_path, [0.5, None])
    with pytest.raises(MaskcastError, match=r"masks: clip 'clip_1' has no mean_confidence, .* set drop to 0"):
        GeneratedMasks(store, masks, (SQUARES,), GeneratedParams(drop=0.1), 1)


def test_phases_draw_from_generated_masks_alone_and_from_labels_alone(store: ClipStore, tmp_path: Path) -> None:
    masks = write(tmp_path / "masks", frames=False).root
    phases = [{"epochs": 1, "generated": 1}, {"epochs": 1, "generated": 0}]
    training = VALUES["training"] | {"epochs": 2}
    params = TrainMasker.model_validate(VALUES | {"training": training, "phases": phases})
    task = segmentation_task(store, params, "x", generated=masks)
    for step, name in ((0, "unlabeled"), (1, "unlabeled"), (2, "train"), (3, "train")):
        pictures = {frame.tobytes() for frame in store.frames(store.get(name))}
        assert all(frame.numpy().tobytes() in pictures for frame in task.batch(step).frames_BTHWC), step
