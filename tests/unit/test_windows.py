"""Windows for training."""

import pytest

from maskcast.errors import MaskcastError
from maskcast.training.tasks.forecasting_windows import WindowSampler


def sampler(lengths: list[int], **changes: int) -> WindowSampler:
    values = {"context": 11, "min_context": 6, "horizon": 11, "seed": 3} | changes
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
