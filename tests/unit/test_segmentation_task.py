"""Training on windows of clips, of several label maps: gradients, resume, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.two_maps import MATTE, SQUARES, MemoryTraining, write_two_maps
from torch import nn

from maskcast.data.augment.frames import AugmentParams
from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.evaluation.map_scores import counts_of, map_scores, zero_counts
from maskcast.models.segmentation.base import Masker
from maskcast.models.segmentation.configs import MatteLossConfig, UNetConfig
from maskcast.models.segmentation.losses import Part
from maskcast.training.loop import fit
from maskcast.training.schedule import TrainingParams
from maskcast.training.tasks.segmentation import FrameTask, Windows, WindowTask, segmentation_task
from maskcast.training.tasks.segmentation_params import SegmentationTraining, WindowParams

TRAINING = TrainingParams(
    epochs=2, steps_per_epoch=4, batch_size=2, learning_rate=1e-2, precision="fp32", checkpoint_every=2
)
WINDOW = WindowParams(frames=5, chunk=2, burn_in=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return write_two_maps(tmp_path_factory.mktemp("maps") / "clips")


def memory(store: ClipStore, window: WindowParams = WINDOW, **values: Any) -> WindowTask:
    task = segmentation_task(store, MemoryTraining(training=TRAINING, window=window, **values), "x")
    assert isinstance(task, WindowTask)
    return task


def test_a_segmenter_without_parameters_is_validated(store: ClipStore) -> None:
    class Flat(nn.Module):
        def forward(self, frames_NCHW: torch.Tensor) -> torch.Tensor:
            return frames_NCHW[:, :1].repeat(1, 4, 1, 1)

    validation = memory(store).validation
    assert all(total.sum() for total in validation.counts(Masker(Flat(), 1, validation.maps).eval()))


def test_windows_are_consecutive_frames_that_share_a_draw(store: ClipStore) -> None:
    task = memory(store, augment=AugmentParams(hflip=0.5))
    clips = [np.asarray(store.frames(clip)) for clip in store.select("train")]
    known = {}
    for clip in clips:
        for start in range(5):
            window = clip[start : start + 8]
            known |= {window.tobytes(): start, window[:, :, ::-1].tobytes(): start}
    drawn = set()
    for step in range(30):
        batch, again = task.batch(step), task.batch(step)
        assert torch.equal(batch.frames_BTHWC, again.frames_BTHWC)
        assert [tuple(masks.shape) for masks in batch.masks] == [(2, 8, 16, 24)] * 2
        drawn |= {known[window.numpy().tobytes()] for window in batch.frames_BTHWC}
        squares, matte = batch.masks
        assert torch.equal(matte > 0, squares > 0)
    assert drawn == set(range(5))


def test_gradients_flow_within_a_chunk_and_the_state_beyond_it(store: ClipStore) -> None:
    """By hand: the part of each chunk in the loss, from the state that the frames before it leave."""
    task = memory(store)
    batch = task.batch(0)
    shares = [loss for loss, _ in task.losses(batch, 0)]
    assert task.chunks(batch) == len(shares) == 3
    for loss in shares:
        loss.backward()
    found = {name: weight.grad.clone() for name, weight in task.segmenter.named_parameters()}
    task.segmenter.zero_grad()
    for (start, stop), share in zip(((3, 5), (5, 7), (7, 8)), shares, strict=True):
        with torch.no_grad():
            _, state = task.segmenter(batch.frames_BTHWC[:, :start])
        logits, _ = task.segmenter(batch.frames_BTHWC[:, start:stop], state)
        known = batch.masks[0][:, 3:]
        part = Part(stop - start, 5, torch.stack([(known == k).sum() for k in range(3)]).double())
        parts = [
            criterion(each.flatten(0, 1), masks[:, start:stop].flatten(0, 1), part)
            for criterion, each, masks in zip(task.criteria[0], logits, batch.masks, strict=True)
        ]
        loss = parts[0] + parts[1]
        loss.backward()
        torch.testing.assert_close(loss, share)
    for name, weight in task.segmenter.named_parameters():
        torch.testing.assert_close(weight.grad, found[name])


def test_a_matte_is_learnt_by_its_changes_within_a_window(store: ClipStore) -> None:
    loss = MatteLossConfig(l1=1, laplacian=0, coherence=5)
    task = memory(store, WindowParams(frames=3, chunk=3), maps=["matte"], matte_loss=loss)
    batch = task.batch(0)
    ((found, _),) = task.losses(batch, 0)
    (logits,), _ = task.segmenter(batch.frames_BTHWC)
    difference = logits[:, :, 0].sigmoid() - batch.masks[0] / 255
    changes = difference[:, 1:] - difference[:, :-1]
    torch.testing.assert_close(found, difference.abs().mean() + 5 * changes.square().mean())
    alone = memory(store, WindowParams(frames=3, chunk=1), maps=["matte"], matte_loss=loss)
    torch.testing.assert_close(sum(one for one, _ in alone.losses(batch, 0)), found)


class Killed(BaseException):
    """Stands for SIGKILL."""


class KilledTask(WindowTask):
    """Dies between two chunks."""

    def losses(self, batch: Windows, step: int) -> Any:
        for number, loss in enumerate(super().losses(batch, step)):
            if (step, number) == (5, 1):
                raise Killed
            yield loss


def test_a_killed_run_ends_with_the_same_weights(store: ClipStore, tmp_path: Path) -> None:
    params = MemoryTraining(training=TRAINING, window=WINDOW)
    unbroken = WindowTask(store, params, "x")
    scores, _ = fit(unbroken, TRAINING, tmp_path / "unbroken")
    with pytest.raises(Killed):
        fit(KilledTask(store, params, "x"), TRAINING, tmp_path / "killed")
    resumed = WindowTask(store, params, "x")
    assert fit(resumed, TRAINING, tmp_path / "killed").scores["jaccard"] == scores["jaccard"]
    for name, weights in unbroken.segmenter.state_dict().items():
        assert torch.equal(weights, resumed.segmenter.state_dict()[name]), name


def test_it_learns_classes_and_opacity_together(store: ClipStore, tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"epochs": 4, "steps_per_epoch": 25, "learning_rate": 0.05})
    loss = {"ce": 1, "dice": 0, "focal": 0, "background_weight": 1}
    values = {"training": training, "loss": loss}
    for params in (
        MemoryTraining(**values, window=WindowParams(frames=6, chunk=3)),
        SegmentationTraining(**values, model=UNetConfig(width=4)),
    ):
        task = segmentation_task(store, params, "x")
        before = task.validate()
        scores, _ = fit(task, training, tmp_path / params.model.arch)
        for name in ("squares", "matte"):
            assert scores[f"jaccard_{name}"] > before[f"jaccard_{name}"] + 0.2
            assert scores[f"accuracy_{name}"] > 0.8
        assert scores["jaccard"] == pytest.approx((scores["jaccard_squares"] + scores["jaccard_matte"]) / 2)


def test_a_model_with_state_sees_the_frames_that_are_not_scored(store: ClipStore) -> None:
    every, third = memory(store), memory(store, val_frame_step=3)
    third.segmenter.load_state_dict(every.segmenter.state_dict())
    (clip,) = every.validation.clips
    found = every.validation.predict(every.validation.worker(every.segmenter), clip)
    whole = {t: piece for part, piece in found for t in part[:1]}
    assert sorted(whole) == [0, 2, 4, 6, 8, 10]  # batches of two frames
    found = third.validation.predict(third.validation.worker(third.segmenter), clip)
    scored = [(t, piece) for part, piece in found for t in part]
    assert [t for t, _ in scored] == [0, 3, 6, 9]
    for t, piece in scored:
        expected = whole[t - t % 2]["squares"].masks[t % 2]
        np.testing.assert_array_equal(piece["squares"].masks[0], expected)


def test_one_map_alone_may_be_learnt(store: ClipStore) -> None:
    values = {"training": TRAINING, "model": UNetConfig(width=2)}
    task = segmentation_task(store, SegmentationTraining(**values, maps=["matte"]), "x")
    assert isinstance(task, FrameTask) and task.maps == (MATTE,)
    assert set(task.validate()) == {"jaccard", "accuracy", "mad"}
    with pytest.raises(MaskcastError, match="no label map 'beard'; it has squares, matte"):
        segmentation_task(store, SegmentationTraining(**values, maps=["beard"]), "x")


def test_windows_are_for_models_with_state_alone(store: ClipStore) -> None:
    with pytest.raises(ValidationError, match=r"'memory' has state and needs window; set it, e\.g\."):
        MemoryTraining(training=TRAINING)
    with pytest.raises(ValidationError, match="'unet' has no state; set window to null"):
        SegmentationTraining(training=TRAINING, window=WINDOW)
    with pytest.raises(MaskcastError, match=r"no training clip has the 13 frames of window\.burn_in"):
        memory(store, WindowParams(frames=10, burn_in=3))


def test_what_remembers_masks_no_mirror_images(store: ClipStore) -> None:
    with pytest.raises(ValidationError, match="mirror: model 'memory' is not a single-frame network"):
        MemoryTraining(training=TRAINING, window=WINDOW, mirror=True)
    task = segmentation_task(store, SegmentationTraining(training=TRAINING, mirror=True, ema=0.9), "x")
    assert task.averaged is not None and task.averaged.average is not None
    assert isinstance(task.student, Masker) and task.student.mirror
    assert isinstance(task.averaged.average, Masker) and task.averaged.average.mirror


def test_an_encoder_that_it_cannot_start_from_is_refused(store: ClipStore, tmp_path: Path) -> None:
    from maskcast.models.encoders.configs import UNetEncoderConfig
    from maskcast.models.encoders.table import save_encoder

    config = UNetEncoderConfig(width=2)
    save_encoder(tmp_path, config.build(), config, {"method": "moco", "mean": [0.5] * 3, "std": [0.2] * 3})
    params = MemoryTraining(training=TRAINING, window=WINDOW)
    with pytest.raises(
        MaskcastError, match=r"'memory' does not support a pretrained encoder; set pretrain_encoder\.method"
    ):
        segmentation_task(store, params, "x", tmp_path)


def test_scores_of_an_opacity_by_hand() -> None:
    truth, found = np.array([[[0, 100, 255, 255]]], np.uint8), np.array([[[10, 50, 255, 205]]], np.uint8)
    counts = zero_counts(MATTE) + counts_of(MATTE, truth, found)
    assert counts.tolist() == [50 + 255 + 205, 10 + 100 + 255 + 255, 10 + 50 + 50, 4 * 255]
    scores = map_scores(MATTE, counts)
    assert scores == {
        "jaccard": pytest.approx(510 / 620),
        "accuracy": pytest.approx(1 - 110 / 1020),
        "mad": pytest.approx(1000 * 110 / 1020),
    }
    nothing = {"jaccard": pytest.approx(np.nan, nan_ok=True), "accuracy": 1.0, "mad": 0.0}
    assert map_scores(MATTE, zero_counts(MATTE)) == nothing
    classes = counts_of(SQUARES, np.array([[0, 1, 2, 255]]), np.array([[0, 1, 1, 1]]))
    assert map_scores(SQUARES, classes) == {"jaccard": pytest.approx((1 + 0.5 + 0) / 3), "accuracy": 2 / 3}


def test_a_running_average_moves_after_a_step_and_lets_it_be_recorded(store: ClipStore, tmp_path: Path) -> None:
    values = {"model": UNetConfig(width=4), "training": TRAINING, "maps": ["squares"]}
    task = segmentation_task(store, SegmentationTraining(ema=0.5, **values), "x")
    assert isinstance(task, FrameTask) and task.same_each_step and task.averaged is not None
    task.model.train()
    before = {name: value.clone() for name, value in task.averaged.average.state_dict().items()}  # type: ignore
    task.loss(task.batch(9), 9)[0].backward()
    with torch.no_grad():
        for weights in task.student.parameters():
            weights.add_(1.0)
    task.loss(task.batch(9), 9)
    now = task.averaged.average.state_dict()  # type: ignore
    assert all(torch.equal(now[name], value) for name, value in before.items())
    task.end_step(9)  # (1 + 10) / (10 + 10) is above the decay
    for name, weights in task.student.named_parameters():
        torch.testing.assert_close(now[name], before[name] + 0.5 * (weights.detach() - before[name]))


def test_the_average_that_is_validated_and_kept_includes_the_last_update(store: ClipStore, tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"epochs": 1, "steps_per_epoch": 2})
    values = {"model": UNetConfig(width=4), "training": training, "maps": ["squares"]}
    task = segmentation_task(store, SegmentationTraining(ema=0.5, **values), "x")
    assert task.averaged is not None and task.averaged.average is not None
    average = task.averaged.average
    before: dict[str, torch.Tensor] = {}

    def keep(_: int) -> None:
        before.update({name: weights.detach().clone() for name, weights in average.named_parameters()})

    fit(task, training, tmp_path / "resume", on_step_start=keep)
    for name, weights in task.student.named_parameters():
        expected = before[name].lerp(weights.detach(), 1 - 3 / 12)  # decay (1 + 2) / (10 + 2) after two steps
        torch.testing.assert_close(average.get_parameter(name), expected, check_device=False)
        assert not weights.requires_grad or not torch.equal(expected, before[name])
