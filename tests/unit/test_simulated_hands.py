"""Simulated hands: exact masks of each hand whole, what is seen of it, and pictures by seed alone."""

import numpy as np
import pytest

from maskcast.data.sources.synthetic_hands import SyntheticHandsSource
from maskcast.seed import rng
from maskcast.simulator.hand_pictures import simulate_hands, trace_hands
from maskcast.simulator.hands import PARTS, Capsules, pose_hands


def rays(height, width, half):
    """Rays through a grid of points at distance 1 that spans -half to half."""
    y, x = np.meshgrid(np.linspace(-half, half, height), np.linspace(-half, half, width), indexing="ij")
    out = np.stack([x, y, np.ones_like(x)], -1)
    return out / np.linalg.norm(out, axis=-1, keepdims=True)


def capsules(*rows):
    """Capsules from (end, end, radius, part, hand)."""
    ends, radius, part, hand = (
        np.array(column) for column in zip(*[((a, b), r, p, h) for a, b, r, p, h in rows], strict=True)
    )
    return Capsules(ends, radius, part, hand, np.tile([0.0, 0, 1], (len(rows), 1)))


def test_a_capsule_far_away_covers_its_rectangle_and_two_half_discs():
    # seen from 1000 m, radius 2 and length 6 in a field of 20 x 20: 2 * 2 * 6 + pi * 2^2 of 400
    one = capsules(((-3.0, 0, 1000), (3.0, 0, 1000), 2.0, 5, 1))
    seen = trace_hands(one, rays(201, 201, 0.01))
    assert set(np.unique(seen.right_HW)) == {0, 5}
    assert not seen.left_HW.any()
    assert (seen.right_HW == 5).mean() == pytest.approx((24 + np.pi * 4) / 400, rel=0.02)
    rows, columns = np.nonzero(seen.right_HW)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 120, 50, 150)


def test_a_hand_is_whole_behind_the_other_and_behind_a_forearm():
    behind = ((-0.2, 0, 2.0), (0.2, 0, 2.0), 0.05, 3, 0)
    front = ((0.0, -0.1, 1.0), (0.0, 0.1, 1.0), 0.03, 7, 1)
    arm = ((-0.06, -0.2, 1.0), (-0.06, 0.2, 1.0), 0.01, 0, 1)
    alone, both = (trace_hands(capsules(*some), rays(41, 41, 0.1)) for some in ([behind], [behind, front, arm]))
    np.testing.assert_array_equal(alone.left_HW, both.left_HW)
    middle = both.visible_HW[20]
    assert both.left_HW[20, 20] == 3 and both.right_HW[20, 20] == 7 and middle[20] == 2
    assert both.left_HW[20, 8] == 3 and middle[8] == 0  # behind the arm at x = -0.06
    assert middle[13] == 1


def test_parts_of_one_hand_hide_each_other():
    near, far = ((0, 0, 1.0), (0, 0.001, 1.0), 0.02, 2, 0), ((0, 0, 1.5), (0, 0.001, 1.5), 0.06, 9, 0)
    seen = trace_hands(capsules(far, near), rays(41, 41, 0.1))
    assert seen.left_HW[20, 20] == 2 and seen.left_HW[20, 27] == 9


@pytest.mark.parametrize("hands", ["left", "right", "apart", "interacting"])
def test_what_is_seen_of_a_hand_is_part_of_it(hands):
    picture = simulate_hands(3, hands=hands, height=64, width=48)
    assert picture.frame_HWC.shape == (64, 48, 3) and picture.frame_HWC.dtype == np.uint8
    for side, mask_HW in enumerate((picture.left_HW, picture.right_HW), 1):
        assert mask_HW.dtype == np.uint8 and mask_HW.max() <= len(PARTS) == 16
        assert (mask_HW[picture.visible_HW == side] > 0).all()
        there = hands in ("apart", "interacting") or hands == ("left", "right")[side - 1]
        assert mask_HW.any() == there


def test_a_picture_depends_on_its_seed_alone_and_hands_that_interact_hide_each_other():
    pictures = [simulate_hands(seed, hands="interacting", height=48, width=48) for seed in range(12)]
    again = simulate_hands(5, hands="interacting", height=48, width=48)
    for name, layer in vars(again).items():
        np.testing.assert_array_equal(layer, getattr(pictures[5], name))
    hidden = [
        ((one.left_HW > 0) & (one.visible_HW == 2) | (one.right_HW > 0) & (one.visible_HW == 1)).any()
        for one in pictures
    ]
    assert sum(hidden) >= 9
    shown = set().union(*(np.unique([one.left_HW, one.right_HW]) for one in pictures))
    assert shown == set(range(17))


def test_hands_mirror_each_other_and_do_not_run_into_each_other():
    left, right = (pose_hands(side, rng(1)) for side in ("left", "right"))
    # distances alone: both are turned
    across = np.linalg.norm(left.ends_N23[:, None] - left.ends_N23[None], axis=-1)
    np.testing.assert_allclose(across, np.linalg.norm(right.ends_N23[:, None] - right.ends_N23[None], axis=-1))
    for seed in range(8):
        both = pose_hands("interacting", rng(seed))
        bare = both.part_N > 0
        ends, hand, radius = both.ends_N23[bare], both.hand_N[bare], both.radius_N[bare]
        middles = ends.mean(1)
        apart = np.linalg.norm(middles[hand == 0][:, None] - middles[hand == 1], axis=-1)
        # the middles of two axes are as far from each other as the radii ask for, but for what four samples miss
        assert (apart > 0.8 * (radius[hand == 0][:, None] + radius[hand == 1])).all()


def test_how_large_a_hand_is_does_not_tell_how_many_there_are(tmp_path):
    source = SyntheticHandsSource(layout="synthetic_hands", train=400, val=0, unlabeled=0)
    listing = source.listing(tmp_path, height=None, width=None, seed=0)
    radii = {}
    for clip in listing.clips:
        pose = pose_hands(clip.meta["hands"], rng(clip.meta["seed"]))
        radii.setdefault(clip.meta["hands"], []).append(pose.radius_N[0])
    assert set(radii) == {"left", "right", "apart", "interacting"}
    for some in radii.values():
        assert np.ptp(some) > 0.8 * np.ptp(np.concatenate(list(radii.values())))
