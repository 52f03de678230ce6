"""Labels that flow carries to frames nearby: scenes whose masks are known, and how a masker learns from them."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from maskcast.data.clip_store.compression import compress, decompress
from maskcast.data.clip_store.finished import FinishedClip
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling.propagation import PropagationParams, propagate
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.errors import MaskcastError
from maskcast.inference.label_propagation import LabelPropagator
from maskcast.inference.mask_origin import check_no_labels
from maskcast.inference.predictions import MeanConfidence, quantise
from maskcast.labels import IGNORE, LabelMap
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.runner.run import run_stage
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.tasks.segmentation import segmentation_task

HEIGHT, WIDTH, FRAMES = 48, 72, 12
THINGS = LabelMap("things", ("background", "thing"))
MATTE = LabelMap("matte", ("background", "thing"), "alpha")
VALUES: dict[str, Any] = {
    "model": {"arch": "unet", "width": 4},
    "augment": {"hflip": 0.0},
    "training": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "learning_rate": 1e-2, "patience": 0},
}


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Something that flow can follow: blots of a few pixels."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    blots = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.uint8(np.clip(128 + 60 * blots / blots.std(), 0, 255))


def scene(
    speed: float = 2.0, screen: slice | None = None, first: int = 10, ground: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A square of 16 pixels that moves over a textured ground, behind a screen of these columns; and its masks."""
    behind, thing = texture(ground, HEIGHT, WIDTH), texture(1, 16, 16)
    frames = np.stack([behind] * FRAMES)
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for t in range(FRAMES):
        left = first + round(t * speed)
        frames[t, 16:32, left : left + 16], masks[t, 16:32, left : left + 16] = thing, 1
        if screen is not None:
            frames[t, :, screen], masks[t, :, screen] = texture(2, HEIGHT, WIDTH)[:, screen], 0
    return frames, masks


def hidden_but(masks: np.ndarray, known: list[int]) -> np.ndarray:
    some = np.full_like(masks, IGNORE)
    some[known] = masks[known]
    return some


def test_a_label_follows_what_moves_as_far_as_it_reaches() -> None:
    frames, masks = scene()
    found = propagate(frames, hidden_but(masks, [4]), [4], 5)
    assert np.array_equal(found.masks_THW[4], masks[4]) and (found.confidence_THW[4] == 1).all()
    for t in range(10):
        sure = found.confidence_THW[t] >= 0.5
        true, carried = masks[t][sure] == 1, found.masks_THW[t][sure] == 1
        assert (true & carried).sum() / (true | carried).sum() > 0.9
        assert true.sum() > 0.75 * 16 * 16
    assert (found.masks_THW[10:] == IGNORE).all() and (found.confidence_THW[10:] == 0).all()


def test_what_comes_from_behind_something_is_not_sure() -> None:
    """Half of the square lies behind a screen where it is labelled; that half comes into sight later."""
    frames, masks = scene(screen=slice(0, 20), first=8)
    found = propagate(frames, hidden_but(masks, [0]), [0], FRAMES)
    t, right = 3, 14 + 16  # where the square ends then
    seen, shown = np.s_[18:30, right - 3 : right], np.s_[18:30, 20:24]
    assert masks[t][seen].all() and masks[t][shown].all()
    sure, carried = found.confidence_THW[t] >= 0.5, found.masks_THW[t]
    assert (sure[seen] & (carried[seen] == 1)).mean() > 0.8
    assert (sure[shown] & (carried[shown] != 1)).mean() < 0.1


def test_what_enters_the_picture_has_no_label() -> None:
    """The camera turns by two pixels a frame: the columns that come in on the right have never been labelled."""
    wide = texture(3, HEIGHT, WIDTH + 2 * FRAMES)
    frames = np.stack([wide[:, 2 * t : 2 * t + WIDTH] for t in range(FRAMES)])
    masks = np.ones((FRAMES, HEIGHT, WIDTH), np.uint8)
    found = propagate(frames, hidden_but(masks, [0]), [0], FRAMES)
    assert (found.confidence_THW[5, 4:-4, -9:] < 0.5).all()
    assert (found.confidence_THW[5, 4:-4, 4:-14] >= 0.5).mean() > 0.95


def test_no_way_goes_past_a_label_and_the_surer_one_counts() -> None:
    """Two labels that contradict each other: each side of the middle takes the nearer one."""
    frames, masks = scene(speed=0.0)
    masks[8] = 1
    found = propagate(frames, hidden_but(masks, [0, 8]), [0, 8], FRAMES)
    corner = np.s_[2:10, 2:10]
    assert [int(found.masks_THW[t][corner].max()) for t in range(9)] == [0] * 5 + [1] * 4  # a tie keeps the first
    assert (found.masks_THW[9:][:, 2:10, 2:10] == 1).all()


def test_pixels_without_a_label_give_none() -> None:
    frames, masks = scene(speed=0.0)
    masks[3, :, :20] = IGNORE
    found = propagate(frames, hidden_but(masks, [3]), [3], 2)
    assert (found.masks_THW[2][:, :18] == IGNORE).mean() > 0.95 and (found.confidence_THW[3][:, :20] == 0).all()


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_labels_are_not_displaced_where_frames_are_enlarged(monkeypatch: pytest.MonkeyPatch, factor: int) -> None:
    """Of an even factor, the centre of a pixel lies between those of the enlarged frame."""
    monkeypatch.setattr(f"{propagate.__module__}.upscale_factor", lambda height, width: factor)
    behind, (y_HW, x_HW) = texture(0, 80, 120), np.mgrid[:80, :120]
    off = []
    for speed in ((0.3, 0.2), (-0.3, -0.2), (0.3, -0.2), (-0.3, 0.2)):  # x and y, whose mean is 0
        moves = [np.array([[1, 0, t * speed[0]], [0, 1, t * speed[1]]]) for t in range(7)]
        frames = np.stack(
            [cv2.warpAffine(behind, move, (120, 80), borderMode=cv2.BORDER_REFLECT) for move in moves]
        )
        at_T2 = [(60 + move[0, 2], 40 + move[1, 2]) for move in moves]
        masks = np.stack([(x_HW - x) ** 2 + (y_HW - y) ** 2 < 15.3**2 for x, y in at_T2]).astype(np.uint8)
        found = propagate(frames, hidden_but(masks, [0]), [0], 6)
        off += [
            np.argwhere(carried == 1).mean(0) - np.argwhere(true == 1).mean(0)
            for carried, true in zip(found.masks_THW[1:], masks[1:], strict=True)
        ]
    assert (np.abs(np.mean(off, 0)) < 0.1).all()  # pixels; a shift by half an enlarged pixel gave 0.25 and more


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (24, 900), (300, 20)])
def test_small_and_narrow_frames_have_flow(size: tuple[int, int]) -> None:
    frames, masks = np.zeros((3, *size, 3), np.uint8), np.ones((3, *size), np.uint8)
    found = propagate(frames, hidden_but(masks, [1]), [1], 8)
    assert found.masks_THW.shape == masks.shape and (found.masks_THW[1] == 1).all()
    assert (found.masks_THW[found.confidence_THW > 0] == 1).all()


@pytest.mark.parametrize("size", [(1, 2000), (4, 2000), (15, 2000), (3, 1024)])
def test_in_strips_too_narrow_for_flow_all_rests(size: tuple[int, int]) -> None:
    frames, masks = np.zeros((3, *size, 3), np.uint8), np.ones((3, *size), np.uint8)
    found = propagate(frames, hidden_but(masks, [0]), [0], 2)
    assert np.array_equal(found.masks_THW, masks) and (found.confidence_THW > 0.9).all()


def partly(root: Path, known: dict[str, list[int]], maps: tuple[LabelMap, ...] = (THINGS,)) -> ClipStore:
    """Writes two clips to learn from and one to validate on, whose labels are those of some frames."""
    whole = root.with_name(f"{root.name}-whole")
    with ClipWriter(whole, height=HEIGHT, width=WIDTH, maps=maps) as writer:
        for n, (name, split) in enumerate((("a", "train"), ("b", "train"), ("v", "val"))):
            frames, masks = scene(speed=1.0 + n, ground=10 + n)
            layers = {one.name: masks * 255 if one.kind == "alpha" else masks for one in maps}
            writer.add(name, split=split, kind="labelled", frames=frames, masks=layers)
    store = ClipStore(whole, "things")
    new = {
        name: NewLabels(hidden_but(store.masks(store.get(name)), frames), frames) for name, frames in known.items()
    }
    write_relabelled(root, store, new, {})
    return ClipStore(root, "things")


def drawn_frames(task: Any, store: ClipStore, steps: int) -> list[tuple[str, int, np.ndarray]]:
    """Returns the clip and the frame of each sample, and its mask."""
    places = {
        store.frames(clip)[t].tobytes(): (clip.id, t) for clip in store.select("train") for t in range(FRAMES)
    }
    found = []
    for step in range(steps):
        batch = task.batch(step)
        for frame, mask in zip(batch.frames_BTHWC[:, 0], batch.masks[0][:, 0], strict=True):
            found.append((*places[frame.numpy().tobytes()], mask.numpy()))
    return found


def test_a_share_of_the_samples_lies_near_labels(tmp_path: Path) -> None:
    """Half of the samples are of the five frames that labels reach, the others of those that have some."""
    store = partly(tmp_path / "clips", {"a": [5], "b": [5]})
    params = TrainMasker.model_validate(VALUES | {"propagated": {"frames": 2, "share": 0.5, "threshold": 0.4}})
    task, again = (segmentation_task(store, params, "x") for _ in range(2))
    assert torch.equal(task.batch(3).masks[0], again.batch(3).masks[0])
    drawn = drawn_frames(task, store, 40)
    carried = [(name, t, mask) for name, t, mask in drawn if t != 5]
    assert {(name, t) for name, t, _ in carried} == {(name, t) for name in "ab" for t in (3, 4, 6, 7)}
    assert 0.3 < len(carried) / len(drawn) < 0.5  # four of five of that half
    clips = {name: store.get(name) for name in "ab"}
    expected = {name: propagate(store.frames(clip), store.masks(clip), [5], 2) for name, clip in clips.items()}
    for name, t, mask in carried:
        sure = expected[name].confidence_THW[t] >= 0.4
        assert np.array_equal(mask, np.where(sure, expected[name].masks_THW[t], IGNORE)) and (mask == 1).any()
    plain = segmentation_task(store, TrainMasker.model_validate(VALUES), "x")
    assert {t for _, t, _ in drawn_frames(plain, store, 20)} == {5}


def test_windows_of_a_model_with_state_have_labels_on_the_way(tmp_path: Path) -> None:
    store = partly(tmp_path / "clips", {"a": [5], "b": [0, 6]})
    values = VALUES | {
        "model": {"arch": "recurrent", "base": {"arch": "unet", "width": 4}},
        "window": {"frames": 4, "chunk": 2},
        "propagated": {"frames": 3, "share": 0.9},
    }
    batch = segmentation_task(store, TrainMasker.model_validate(values), "x").batch(0)
    told_BT = (batch.masks[0] != IGNORE).flatten(2).any(2)
    assert told_BT.any(1).all() and told_BT.sum() > len(told_BT)


@pytest.mark.parametrize("propagated", [None, {"frames": 2, "share": 0.9}])
def test_windows_have_labels_after_their_burn_in(propagated: dict[str, Any] | None, tmp_path: Path) -> None:
    """Labels of frames without a loss teach nothing."""
    store = partly(tmp_path / "clips", {"a": [0, 5], "b": [2, 11]})
    values = VALUES | {
        "model": {"arch": "recurrent", "base": {"arch": "unet", "width": 4}},
        "window": {"frames": 2, "chunk": 2, "burn_in": 3},
        "propagated": propagated,
    }
    task = segmentation_task(store, TrainMasker.model_validate(values), "x")
    told_BT = torch.cat([(task.batch(step).masks[0] != IGNORE).flatten(2).any(2) for step in range(20)])
    assert told_BT[:, 3:].any(1).all()


def test_a_masker_trains_and_validates_on_the_labelled_frames(tmp_path: Path) -> None:
    """Frames 1 and 7 of the validation clip have labels, no third frame from 0 on does."""
    store = partly(tmp_path / "clips", {"a": [5], "b": [2, 9], "v": [1, 7]})
    params = VALUES | {"propagated": {}, "val_frame_step": 2}
    run_stage("train_masker", params, clips=store.root, masker=tmp_path / "m", metrics=tmp_path / "m.json")
    task = segmentation_task(store, TrainMasker.model_validate(params), "x")
    (clip,) = task.validation.clips
    found = list(task.validation.predict(task.validation.worker(task.segmenter), clip))
    assert [list(frames) for frames, _ in found] == [[1]]
    assert labelled_frames(store, clip) == [1, 7]
    ((name, indices, frames, ((_, truth, masks),)),) = task.validation.examples(task.segmenter)
    assert (name, list(indices)) == ("v", [1]) and len(frames) == len(truth) == len(masks) == 1
    assert np.array_equal(frames[0], store.frames(clip)[1])


def test_generated_masks_keep_labels_and_what_is_carried_of_them(tmp_path: Path) -> None:
    """In the clip to learn from; the one that is scored on keeps the masker's masks, and so do unsure pixels."""
    store = partly(tmp_path / "clips", {"a": [5], "v": [5]})
    config = UNetConfig(width=2)
    torch.manual_seed(0)
    save_masker(tmp_path / "masker", config.build([THINGS]), config, {})

    def generated(name: str, **params: Any) -> ClipStore:
        values = {"batch_size": 8, "confidence_levels": 9, "precision": "fp32", "consistent_frames": None} | params
        out = {"masks": tmp_path / name, "metrics": tmp_path / f"{name}.json"}
        run_stage("generate_masks", values, clips=store.root, masker=tmp_path / "masker", **out)
        return ClipStore(tmp_path / name)

    plain, carried = generated("plain"), generated("carried", propagated={"frames": 2})
    for name in ("b", "v"):
        clip = carried.get(name)
        assert np.array_equal(carried.masks(clip), plain.masks(plain.get(name)))
        assert clip.meta == plain.get(name).meta
    clip, other = carried.get("a"), plain.get("a")
    found = propagate(store.frames(store.get("a")), store.masks(store.get("a")), [5], 2)
    taken = found.confidence_THW >= 0.5
    assert taken[5].all() and taken[3:8].any((1, 2)).all() and not taken[[0, 1, 2, 8, 9, 10, 11]].any()
    assert np.array_equal(carried.masks(clip), np.where(taken, found.masks_THW, plain.masks(other)))
    sure = np.where(taken, quantise(found.confidence_THW, 9), plain.confidence(other))
    assert np.array_equal(carried.confidence(clip), sure)
    mean = MeanConfidence()
    mean.add(carried.masks(clip), sure)
    assert clip.meta["mean_confidence"] == round(mean.value, 4) != other.meta["mean_confidence"]
    assert clip.meta["labelled_frames"] == {"things": [5]}
    for split, masks in (("train", plain), ("val", plain), ("val", carried)):
        check_no_labels(masks, split)
    paths = {"clips": store.root, "masks": carried.root, "masker": tmp_path / "masker"}
    out = {"metrics": tmp_path / "scores.json", "report": tmp_path / "report"}
    with pytest.raises(MaskcastError, match=r"clip 'a' hold its labels .*'train' would be .* propagated: null"):
        run_stage("evaluate_video", {"split": "train"}, **paths, **out)
    for base in ("masks", "base_masks"):
        other = paths | {"masks": plain.root, base: carried.root}
        run_stage("evaluate_video", {"split": "val", "pictures": 0}, **other, **out)
        shutil.rmtree(out["report"])
        with pytest.raises(MaskcastError, match="hold its labels"):
            run_stage("evaluate_video", {"split": "train"}, **other, **out)
    with pytest.raises(MaskcastError, match="hold its labels"):
        run_stage("evaluate", {"split": "train"}, **paths, **out, forecaster=tmp_path / "masker")


def test_a_map_that_a_clip_has_no_labels_of_keeps_the_maskers_masks(tmp_path: Path) -> None:
    parts = LabelMap("parts", ("background", "part"))
    frames, masks = scene()
    with ClipWriter(tmp_path / "clips", height=HEIGHT, width=WIDTH, maps=(THINGS, parts)) as writer:
        meta = {"labelled_frames": {"things": [5]}}
        known = {"things": hidden_but(masks, [5])}
        writer.add("a", split="train", kind="labelled", frames=frames, masks=known, meta=meta)
    store = ClipStore(tmp_path / "clips")
    found = {name: compress(np.zeros_like(masks)) for name in ("things", "parts")}
    carried = LabelPropagator(store, (THINGS, parts), PropagationParams(frames=2), 9)
    done = carried(store.get("a"), FinishedClip(found, dict(found), {"mean_confidence": 0.0}))
    assert done.masks["parts"] == found["parts"] and done.confidence["parts"] == found["parts"]
    assert np.array_equal(decompress(done.masks["things"], slice(5, 6))[0], masks[5])


def test_where_all_frames_have_labels_nothing_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = partly(tmp_path / "all", {})
    task = segmentation_task(store, TrainMasker.model_validate(VALUES | {"propagated": {}}), "x")
    assert "all: all training frames have labels: train_masker.propagated has no effect" in capsys.readouterr().err
    drawn = drawn_frames(task, store, 5)
    assert {name for name, _, _ in drawn} == {"a", "b"}
    assert all(np.array_equal(mask, store.masks(store.get(name))[t]) for name, t, mask in drawn)


def test_a_frame_near_labels_is_not_drawn_more_often_than_one_with_labels(tmp_path: Path) -> None:
    """One frame of the 24 has no label: the clip that it is of has half of the frames, and half of the samples."""
    store = partly(tmp_path / "clips", {"a": [t for t in range(FRAMES) if t != 6]})
    task = segmentation_task(store, TrainMasker.model_validate(VALUES | {"propagated": {"share": 0.9}}), "x")
    drawn = [(name, t) for name, t, _ in drawn_frames(task, store, 100)]
    assert 0.005 < drawn.count(("a", 6)) / len(drawn) < 0.06  # one of 35 windows: 0.029


def test_opacities_are_not_carried(tmp_path: Path) -> None:
    params = TrainMasker.model_validate(VALUES | {"propagated": {}})
    store = partly(tmp_path / "clips", {"a": [5]}, (THINGS, MATTE))
    with pytest.raises(MaskcastError, match=r"map 'matte' has kind alpha.*train_masker.maps"):
        segmentation_task(store, params, "x")
