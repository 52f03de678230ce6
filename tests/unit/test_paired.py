"""Intervals of means over clips and of paired differences: by hand, by video, and where a gate decides."""

from dataclasses import replace

import numpy as np
import pytest

from maskcast.evaluation.bootstrap_params import Bootstrap
from maskcast.evaluation.paired import expanded_tail, mean_interval, paired_difference
from maskcast.registry.evaluations import FORECASTS, EvaluationRecord
from maskcast.registry.gate import judge
from maskcast.registry.gate_params import ForecastGate


def scores(*values: float) -> dict[str, float]:
    return {f"clip_{n}": value for n, value in enumerate(values)}


def test_clips_of_one_video_are_resampled_together() -> None:
    """Videos of mean 0 and 1, of three clips and one: the resampled mean is 0, 1/4 or 1, by 1/4, 1/2, 1/4.

    The expanded tail of two videos at 20 % is Phi(-sqrt(2) tan(0.1 pi)) = 0.32, at 80 % 0.00001, that of four at
    80 % Phi(-sqrt(4/3) 1.638) = 0.029; four clips alone have a mean of 3/4 or more by 13/256 = 0.051.
    """
    videos = {f"clip_{n}": "long" for n in range(3)} | {"clip_3": "short"}
    four = scores(0.0, 0.0, 0.0, 1.0)
    assert mean_interval(four, Bootstrap(confidence=0.2), videos) == (0.25, 0.25, 0.25)
    assert mean_interval(four, Bootstrap(confidence=0.8), videos) == (0.25, 0.0, 1.0)
    apart = mean_interval(four, Bootstrap(confidence=0.8))
    assert apart == mean_interval(four, Bootstrap(confidence=0.8), dict.fromkeys(four, "one")) == (0.25, 0.0, 0.75)


@pytest.mark.parametrize("videos", [6, 7, 10, 20])
def test_intervals_of_few_videos_cover_the_mean_as_often_as_they_say(videos: int) -> None:
    """A plain percentile interval of 95 % misses the mean of 6, 7, 10 and 20 in 13, 12, 10 and 8 % of cases."""
    rng, missed, trials = np.random.default_rng(0), 0, 2000
    for seed in range(trials):
        _, low, high = mean_interval(scores(*rng.normal(size=videos)), Bootstrap(resamples=1000, seed=seed))
        missed += not low <= 0 <= high
    assert 0.04 <= missed / trials <= 0.07


@pytest.mark.parametrize(
    ("confidence", "count", "tail"),  # t of printed tables: 12.706, 2.571, 2.262, 2.861, 1.984
    [
        (0.95, 2, 0.0),
        (0.95, 6, 0.002432),
        (0.95, 10, 0.008551),
        (0.99, 20, 0.001666),
        (0.95, 100, 0.023064),
    ],
)
def test_the_tail_of_an_interval_follows_the_t_distribution(confidence: float, count: int, tail: float) -> None:
    assert expanded_tail(confidence, count) == pytest.approx(tail, abs=1e-6)


def test_the_tail_of_many_is_that_of_the_percentile_interval() -> None:
    assert expanded_tail(0.95, 1_000_000) == pytest.approx(0.025, abs=1e-6)


def test_what_few_videos_agree_in_may_be_chance_and_what_is_equal_is_no_difference() -> None:
    ours, none = scores(*[0.1] * 20), scores(*[0.0] * 20)
    told = {
        count: paired_difference(
            ours, none, Bootstrap(), "clip", {f"clip_{n}": str(n % count) for n in range(20)}
        ).may_be_chance
        for count in (1, 2, 5, 6)
    }
    assert told == {1: True, 2: True, 5: True, 6: False}
    assert not paired_difference(scores(0.5), scores(0.5), Bootstrap(), "clip").may_be_chance


def test_many_clips_of_few_videos_are_less_sure_than_as_many_videos() -> None:
    rng = np.random.default_rng(0)
    ours = scores(*np.repeat(rng.normal(0.02, 0.1, 5), 20))
    videos = {f"clip_{n}": str(n // 20) for n in range(100)}
    none = dict.fromkeys(ours, 0.0)
    by_video, by_clip = (paired_difference(ours, none, Bootstrap(), "clip", one) for one in (videos, None))
    assert by_video.mean == by_clip.mean and by_video.high - by_video.low > 3 * (by_clip.high - by_clip.low)
    assert (by_video.videos, by_clip.videos) == (5, 100)
    assert f"over 100 clips of 5 videos, greater in {by_video.greater}" in str(by_video)
    assert str(by_clip).endswith(f"over 100 clips, greater in {by_clip.greater}")


def test_a_single_clip_has_no_interval() -> None:
    assert (
        str(paired_difference(scores(0.5), scores(0.3), Bootstrap(), "clip"))
        == "+0.2000 over 1 clip, greater in 1"
    )


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((0.2,) * 6, "+0.2000 [+0.2000, +0.2000] over 6 clips, greater in 6"),
        (  # all of three agree by chance in one of four cases
            (0.1, 0.2, 0.3),
            "+0.2000 [+0.1000, +0.3000] over 3 clips, greater in 3, which may be chance",
        ),
        ((0.4, -0.1, 0.3), "+0.2000 [-0.1000, +0.4000] over 3 clips, greater in 2, which may be chance"),
    ],
)
def test_a_gate_says_whether_a_baseline_is_beaten_by_more_than_chance(steps: tuple[float, ...], said: str) -> None:
    theirs = scores(*np.linspace(0.3, 0.5, len(steps)))
    ours = {clip: value + step for (clip, value), step in zip(theirs.items(), steps, strict=True)}
    facts = {"data": "d", "definitions": "m", "context": "generated"}
    pooled = {"jaccard_mean": 0.6, "jaccard_mean_persistence": 0.4}
    record = EvaluationRecord(
        "report", FORECASTS, facts, pooled, {"jaccard_mean": ours}, {"persistence": {"jaccard_mean": theirs}}
    )
    gate = ForecastGate(beats=("persistence",))
    verdict = judge(record, None, None, gate)
    assert verdict.passed
    assert f"jaccard_mean 0.6000 > 0.4000 of persistence (clip by clip {said}); no champion" in verdict.line
    told = verdict.as_json()["thresholds"][0]["difference"]
    assert told["mean"] == pytest.approx(0.2) and told["greater"] == sum(step > 0 for step in steps)
    fewer = replace(record, baselines={"persistence": {"jaccard_mean": scores(0.3)}})
    assert judge(fewer, None, None, gate).as_json()["thresholds"][0]["difference"] is None
