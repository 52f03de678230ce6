"""Which frames to label next: the choice of each method, on candidates whose numbers are given."""

from collections import Counter

import numpy as np
import pytest

from maskcast.inference.suggestions import METHODS, Candidates, choose

CLIPS, FRAMES, CLASSES = 10, 20, 4


@pytest.fixture
def candidates() -> Candidates:
    """Class 1 is everywhere, class 2 in every tenth frame, class 3 in frame 7 of clip 3 alone."""
    frame_N = np.tile(np.arange(FRAMES), CLIPS)
    clip_N = np.repeat(np.arange(CLIPS), FRAMES)
    area_NK = np.zeros((CLIPS * FRAMES, CLASSES), np.int64)
    area_NK[:, :2] = 100, 20
    area_NK[::10, 2] = 5
    area_NK[(clip_N == 3) & (frame_N == 7), 3] = 2
    names = [f"clip {k}" for k in range(CLIPS)]
    return Candidates(names, clip_N, frame_N, clip_N, frame_N.astype(float), area_NK, 0.1 * area_NK, {})


def chosen_of(candidates: Candidates, method: str, budget: int, seed: int = 0, spacing: int = 3) -> list[int]:
    return choose(candidates, method, budget=budget, spacing=spacing, seed=seed)


@pytest.mark.parametrize("method", METHODS)
def test_choices_are_spaced_and_depend_on_the_seed_alone(method: str, candidates: Candidates) -> None:
    chosen = chosen_of(candidates, method, 30)
    assert len(set(chosen)) == 30
    assert chosen == chosen_of(candidates, method, 30)
    assert chosen != chosen_of(candidates, method, 30, seed=1)
    for clip in range(CLIPS):
        frames = sorted(candidates.frame_N[[n for n in chosen if candidates.clip_N[n] == clip]])
        assert (np.diff(frames) >= 3).all()


@pytest.mark.parametrize("method", METHODS)
def test_no_more_frames_than_there_are_and_none_beside_a_labelled_one(method: str, candidates: Candidates) -> None:
    near = Candidates(**vars(candidates) | {"labelled": {0: np.array([5.0]), 1: np.arange(20.0)}})
    chosen = chosen_of(near, method, 1000)
    frames = [near.frame_N[n] for n in chosen if near.clip_N[n] == 0]
    assert not set(frames) & set(range(3, 8))
    assert not [n for n in chosen if near.clip_N[n] == 1]
    assert 8 * 5 < len(chosen) < 1000
    left = np.ones(len(near), bool)
    for n in chosen:
        left &= ~near.near(near.video_N[n], near.time_N[n], 3)
    assert not [n for n in np.flatnonzero(left) if near.clip_N[n] > 1]


def test_classes_take_turns(candidates: Candidates) -> None:
    for seed in range(20):
        first = chosen_of(candidates, "class-uncertainty", 3, seed, spacing=1)
        seen = candidates.area_NK[first] > 0
        assert seen[:, 3].sum() == 1, "a class takes the one frame that it is in"
        assert seen[:, 2].sum() >= 1


def test_foreground_aware_random_finds_rare_classes_more_often(candidates: Candidates) -> None:
    found = Counter()
    for method in ("random", "foreground-random"):
        for seed in range(40):
            chosen = chosen_of(candidates, method, 4, seed, spacing=1)
            found[method] += int((candidates.area_NK[chosen, 3] > 0).any())
    assert found["random"] < 5
    assert found["foreground-random"] > 20  # two thirds of draws, a third of them of class 3: 1 - (7/9)^4 = 0.63


def test_a_class_draws_frames_by_how_much_it_is_doubted() -> None:
    """Of two frames with doubts 3 and 1 the first is drawn with probability 3/4."""
    area = np.array([[50, 10], [50, 10]])
    doubt = np.array([[0, 3.0], [0, 1.0]])
    places, one = np.array([0, 9]), np.zeros(2, int)
    pair = Candidates(["a"], one, places, one, places.astype(float), area, doubt, {})
    share = np.mean(
        [choose(pair, "class-uncertainty", budget=1, spacing=1, seed=seed) == [0] for seed in range(400)]
    )
    assert share == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("method", METHODS)
def test_frames_without_any_object_are_drawn_at_random(method: str, candidates: Candidates) -> None:
    nothing = np.zeros_like(candidates.area_NK)
    empty = Candidates(**vars(candidates) | {"area_NK": nothing, "uncertainty_NK": nothing.astype(float)})
    assert len(chosen_of(empty, method, 9)) == 9
