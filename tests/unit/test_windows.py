"""Windows for training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import moving_squares

from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import MASK, single_map
from maskcast.models.base import save_model
from maskcast.models.forecasting import mask_forecaster
from maskcast.models.forecasting.configs import ConvLSTMConfig, FlowConfig
from maskcast.models.forecasting.pixels import draw_steps
from maskcast.stages.finetune_forecaster import FinetuneForecaster, finetuning
from maskcast.stages.pretrain_forecaster import PretrainForecaster, pretraining
from maskcast.training.tasks.forecasting_windows import WindowSampler


def sampler(lengths: list[int], **changes: Any) -> WindowSampler:
    values: dict[str, Any] = {"context": 11, "min_context": 6, "horizon": 11, "seed": 3} | changes
    return WindowSampler(lengths, **values)


def test_windows_stay_inside_and_reach_every_length_start_and_last_frame() -> None:
    lengths = [22, 25]
    windows = [sampler(lengths).draw(step, 8) for step in range(200)]
    ends = {
        (clip, start + window.context + window.horizon)
        for window in windows
        for clip, start in zip(window.clips, window.starts, strict=True)
    }
    assert all(end <= lengths[clip] for clip, end in ends) and {(0, 22), (1, 25)} <= ends
    assert {window.context for window in windows} == set(range(6, 12))
    assert {window.horizon for window in windows} == {11}
    assert min(start for window in windows for start in window.starts) == 0


def test_a_draw_is_a_function_of_seed_and_step() -> None:
    assert sampler([30, 40]).draw(7, 5) == sampler([30, 40]).draw(7, 5)
    assert sampler([30, 40]).draw(7, 5) != sampler([30, 40]).draw(8, 5)
    assert sampler([30, 40]).draw(7, 5) != sampler([30, 40], seed=4).draw(7, 5)


def test_a_clip_too_short_for_the_horizon_is_forecast_to_its_end() -> None:
    window = sampler([12]).draw(0, 2)
    assert (window.context, window.horizon) == (6, 6) and window.starts == (0, 0)


def test_clips_without_a_target_are_never_drawn_or_refused() -> None:
    assert all(set(sampler([5, 22, 6]).draw(step, 4).clips) == {1} for step in range(20))
    with pytest.raises(MaskcastError, match="min_context_frames = 6"):
        sampler([5, 6])


def test_every_horizon_has_a_labelled_frame_and_all_of_these_are_reached() -> None:
    lengths, labelled = [22, 30, 22, 25], [[7, 21], [19], [3], range(25)]  # nothing can be learned from clip 2
    drawn = sampler(lengths, labelled=labelled)
    reached = set()
    for step in range(300):
        windows = drawn.draw(step, 4)
        for clip, start in zip(windows.clips, windows.starts, strict=True):
            horizon = range(start + windows.context, start + windows.context + windows.horizon)
            known = {*horizon} & {*labelled[clip]}
            assert horizon.stop <= lengths[clip] and known
            reached |= {(clip, t) for t in known}
    assert {(0, 7), (0, 21), (1, 19)} <= reached and {clip for clip, _ in reached} == {0, 1, 3}
    assert {drawn.draw(step, 1).context for step in range(300)} == set(range(6, 12))


def test_fully_labelled_clips_are_drawn_as_if_nothing_was_said_about_labels() -> None:
    lengths = [22, 25, 12]
    for step in range(50):
        assert sampler(lengths).draw(step, 4) == sampler(lengths, labelled=[range(n) for n in lengths]).draw(
            step, 4
        )
        drawn = []
        for labelled in (None, torch.ones(11, dtype=torch.bool)):
            torch.manual_seed(step)
            drawn.append(draw_steps(11, 2, torch.device("cpu"), labelled))
        assert drawn[0] == drawn[1]


def test_clips_without_a_labelled_target_are_refused() -> None:
    with pytest.raises(MaskcastError, match="no clip has a labelled frame after the first min_context_frames = 6"):
        sampler([22, 22], labelled=[[0, 5], []])


@pytest.mark.parametrize(
    "config",
    [
        ConvLSTMConfig(hidden=4, motion="none", loss_steps=1),
        ConvLSTMConfig(hidden=4, loss_steps=1, loss_clips=1),
        FlowConfig(),
    ],
    ids=["pixels", "objects", "flow"],
)
def test_each_step_learns_pixels_from_clips_with_one_labelled_frame(
    config: ConvLSTMConfig | FlowConfig, tmp_path: Path
) -> None:
    with (
        ClipWriter(tmp_path / "clips", height=32, width=48, maps=single_map("012")) as clips,
        ClipWriter(tmp_path / "masks", height=32, width=48, maps=single_map("012")) as generated,
    ):
        clips.meta["labelled_frames"] = [MASK]
        for k, (split, labelled) in enumerate([("train", [8]), ("train", [17]), ("val", range(22))]):
            frames, masks = moving_squares(k, 22, 32, 48)
            true = np.full_like(masks, 255)
            true[labelled] = masks[labelled]
            kind = {"split": split, "kind": "labelled"}
            meta = {"labelled_frames": {MASK: list(labelled)}}
            clips.add(str(k), **kind, frames=frames, masks={MASK: true}, meta=meta)
            generated.add(str(k), **kind, masks={MASK: masks})
    meta = {"classes": list("012"), "context_frames": 11, "horizon": 11}
    save_model(tmp_path / "model", model=config.build(3), config=config, num_classes=3, meta=meta)
    (tmp_path / "masker").mkdir()
    schedule = {"epochs": 1, "steps_per_epoch": 20, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"}
    params = FinetuneForecaster(training=schedule)
    paths = tuple(tmp_path / name for name in ("clips", "masks", "masker", "model"))
    tuned, *_ = finetuning(*paths, params)
    # the clips may be their own masks (docs/forecasting.md)
    alone, _ = pretraining(paths[0], paths[0], paths[2], PretrainForecaster(training=schedule, model=config))
    for task in (tuned, alone):
        for step in range(20):
            _, terms = task.loss(task.batch(step), step)
            assert terms["cross_entropy"] > 0


@pytest.mark.parametrize(
    ("params", "sums"),
    [({"loss_steps": 2}, 3), ({"loss_steps": 11}, 2), ({"feedback": True}, 2)],
    ids=["some steps", "all steps", "feedback"],
)
def test_processes_tell_which_steps_are_labelled_only_where_steps_are_drawn(
    params: dict[str, Any], sums: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    summed: list[torch.Tensor] = []
    monkeypatch.setattr(mask_forecaster, "all_sum", lambda x: summed.append(x) or x)
    masks = torch.zeros(1, 11, 16, 16, dtype=torch.uint8)
    ConvLSTMConfig(hidden=4, motion="none", **params).build(3).loss(masks, masks)
    assert len(summed) == sums
