import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from tests.conftest import layers_of

from maskcast.data.sources.synthetic import SyntheticSource
from maskcast.evaluation.metrics import confusion, jaccard_per_class, macro_jaccard
from maskcast.labels import single_map
from maskcast.simulator.appearance import COLOR_RGB, draw_appearance, draw_camera
from maskcast.simulator.camera import CLASSES, CLEVRER_CAMERA, class_id, paint_masks
from maskcast.simulator.scenes import simulate_clip, simulate_motion


def listing(seed: int = 0, **params):
    return SyntheticSource(**params).listing(Path("nowhere"), height=32, width=48, seed=seed)


def test_clip_has_the_stated_form_and_comes_again_from_its_seed():
    frames, masks = simulate_clip(5, frames=6, height=80, width=120)
    again = simulate_clip(5, frames=6, height=80, width=120)
    assert frames is not None and again[0] is not None
    assert frames.shape == (6, 80, 120, 3) and masks.shape == (6, 80, 120)
    assert frames.dtype == masks.dtype == np.uint8
    np.testing.assert_array_equal(frames, again[0])
    np.testing.assert_array_equal(masks, again[1])
    assert (simulate_clip(6, frames=6, height=80, width=120)[1] != masks).any()


def test_masks_do_not_depend_on_rendering_or_on_how_much_is_kept():
    full = simulate_clip(7, height=40, width=60)[1]
    np.testing.assert_array_equal(simulate_clip(7, height=40, width=60, render=False)[1], full)
    frames, kept = simulate_clip(7, height=40, width=60, keep=11)
    np.testing.assert_array_equal(kept, full[:11])
    assert frames is not None and len(frames) == 11


def test_the_same_scene_comes_out_at_any_size():
    small, large = (simulate_clip(2, height=h, width=w, render=False)[1] for h, w in ((64, 96), (128, 192)))
    assert (small == large[:, 1::2, 1::2]).mean() > 0.99


def test_a_window_longer_than_the_video_simulates_on():
    assert simulate_clip(0, frames=40, stride=5, height=20, width=30, render=False)[1].shape[0] == 40


def test_videos_have_unique_classes_four_to_six_objects_and_no_overlap_at_the_start():
    for seed in range(30):
        motion = simulate_motion(seed, num_frames=128)
        assert 4 <= len(set(motion.class_ids.tolist())) == len(motion.class_ids) <= 6
        assert motion.class_ids.min() >= 1 and motion.class_ids.max() < len(CLASSES)
        distance = np.linalg.norm(motion.locations[:, :, None] - motion.locations[:, None], axis=-1)
        distance += np.eye(len(motion.class_ids)) * 9
        assert distance[0].min() > 0.6
        assert distance.min() > 0.3  # never inside each other


def test_scenes_are_as_busy_as_the_annotated_ones():
    rest = hit = objects = late = 0
    speeds = []
    for seed in range(60):
        motion = simulate_motion(seed)
        moved = np.linalg.norm(np.diff(motion.locations[..., :2], axis=0), axis=-1)
        starts_at_rest = moved[0] == 0
        objects += len(starts_at_rest)
        rest += starts_at_rest.sum()
        hit += (starts_at_rest & (moved > 0).any(axis=0)).sum()
        speeds += (moved[0, ~starts_at_rest] / 0.0279).tolist()
        late += np.isin(motion.class_ids, paint_masks(motion[:1], 40, 60), invert=True).sum()
    # annotated: 35 objects, 17 rest at first, 9 of which are hit, 12 enter later
    assert rest / objects == pytest.approx(17 / 35, abs=0.1)
    assert hit / objects == pytest.approx(9 / 35, abs=0.08)
    assert late / objects == pytest.approx(12 / 35, abs=0.12)
    assert min(speeds) > 2.6 and max(speeds) < 3.0


def test_frames_show_what_the_masks_say():
    frames, masks = simulate_clip(11, frames=8, stride=12, height=160, width=240)
    assert frames is not None
    # inside an object its colour dominates; the ground is grey
    ground = frames[masks == 0].astype(float)
    assert np.ptp(ground.mean(axis=0)) < 5
    seen = 0
    for index in np.unique(masks)[1:]:
        shape, material, color = CLASSES[index].split()
        if color == "gray" or (masks == index).sum() < 200:
            continue
        assert class_id(shape, material, color) == index
        mean = frames[masks == index].astype(float).mean(axis=0)
        expected = np.array(COLOR_RGB[color], float)
        assert np.corrcoef(mean, expected)[0, 1] > 0.9
        seen += 1
    assert seen >= 2


def test_metal_glints_and_rubber_does_not():
    brightest = {"metal": [], "rubber": []}
    for seed in range(20, 32):
        frames, masks = simulate_clip(seed, frames=1)
        assert frames is not None
        for index in np.unique(masks)[1:]:
            shape, material, _ = CLASSES[index].split()
            inside = cv2.erode((masks[0] == index).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            if shape == "sphere" and inside.sum() > 100:
                pixels = frames[0][inside].mean(axis=-1)
                brightest[material].append(np.percentile(pixels, 98) / np.median(pixels))
    assert min(brightest["metal"]) > 1.3 > max(brightest["rubber"])


def test_the_look_of_a_randomised_clip_comes_again_from_its_seed():
    plain, moving = simulate_clip(3, frames=3, height=80, width=120)
    # published data are made of these frames
    np.testing.assert_allclose(plain.mean((0, 1, 2)), [128.654, 129.109, 129.802], atol=2e-3)
    np.testing.assert_allclose(plain.std((0, 1, 2)), [16.976, 14.957, 9.698], atol=2e-3)
    looks = [simulate_clip(3, frames=3, height=80, width=120, randomize=1.0) for _ in range(2)]
    for one, again in zip(*looks, strict=True):
        np.testing.assert_array_equal(one, again)
    frames, masks = looks[0]
    assert (masks == moving).mean() > 0.9  # the same motion, seen by another camera
    assert np.abs(frames.astype(int) - plain).mean() > 3
    grounds = [simulate_clip(s, frames=1, height=40, width=60, randomize=1.0)[0].mean() for s in range(8)]
    assert np.std(grounds) > 5


def test_randomised_colours_are_still_told_apart_and_metal_mirrors_its_neighbours():
    ids = np.arange(1, len(CLASSES))
    plain = draw_appearance(0, ids, 0.0)
    for seed in range(20):
        look = draw_appearance(seed, ids, 1.0)
        away = np.linalg.norm(look.colors[:, None] - plain.colors, axis=-1)
        assert (away.argmin(axis=1) % 8 == np.arange(48) % 8).mean() > 0.8
        assert plain.mirror == 0 < look.mirror <= 1
        np.testing.assert_allclose(np.linalg.norm(look.spots, axis=1), 1)


def test_masks_follow_a_camera_that_is_off():
    assert draw_camera(1, 0.0) == CLEVRER_CAMERA
    np.testing.assert_allclose(draw_camera(1, 1.0).eye, CLEVRER_CAMERA.eye, atol=1e-9)
    for seed in range(4):
        frames, masks = simulate_clip(seed, frames=2, stride=60, height=160, width=240, randomize=1.0)
        still = simulate_clip(seed, frames=2, stride=60, height=160, width=240, render=False)[1]
        colored = np.ptp(cv2.GaussianBlur(frames[0], (0, 0), 1).astype(int), axis=-1) > 60
        colored &= ~(cv2.dilate((masks[0] > 0).astype(np.uint8), np.ones((3, 3))) > 0)
        assert colored.sum() < 30 and (masks != still).any()


def test_copying_the_last_seen_mask_scores_as_on_real_videos():
    matrix = np.zeros((49, 49), np.int64)
    for seed in range(100):
        masks = simulate_clip(seed, height=80, width=120, render=False)[1]
        matrix += confusion(masks[21], masks[10], 49)
    assert macro_jaccard(matrix, absent="omit") == pytest.approx(0.297, abs=0.09)  # 0.26 over 300 clips
    assert not np.isnan(jaccard_per_class(matrix)).all()


def test_source_lists_splits_that_share_no_video():
    found = listing(train=3, val=2, test=1, unlabeled=2, hidden=2)
    kinds = [(clip.split, clip.kind) for clip in found.clips]
    assert kinds.count(("train", "labelled")) == 3
    assert kinds.count(("unlabeled", "unlabelled")) == 2
    assert kinds.count(("hidden", "hidden")) == 2
    seeds = [clip.meta["seed"] for clip in found.clips]
    assert len(set(seeds)) == len(seeds) == 10
    assert found.maps == single_map(CLASSES)
    assert found.maps[0].things
    assert found.meta["camera"]["height"] == 32


def test_source_clips_are_stable_and_picklable():
    first, again = listing(train=2, val=1), listing(train=5, val=3)
    assert first.clips[0].id == "synthetic_train_00000"
    seeds = {clip.id: clip.meta["seed"] for clip in again.clips}
    assert all(seeds[clip.id] == clip.meta["seed"] for clip in first.clips)  # more clips leave the others alone
    assert listing(seed=1, train=1).clips[0].meta["seed"] != first.clips[0].meta["seed"]
    frames, masks = layers_of(pickle.loads(pickle.dumps(first.clips[0])).load())
    assert frames.shape == (22, 32, 48, 3) and masks.shape == (22, 32, 48)


def test_source_adds_masks_to_learn_motion_from():
    found = listing(train=1, val=1, unlabeled=1, motion=2)
    assert [clip.id for clip in found.clips][-2:] == ["synthetic_motion_00000", "synthetic_motion_00001"]
    added = found.clips[-1]
    assert (added.split, added.kind) == ("train", "labelled")
    frames, masks = layers_of(added.load())
    assert frames is None and masks.shape == (22, 32, 48) and masks.any()
    assert len({clip.meta["seed"] for clip in found.clips}) == 5


def test_source_hides_what_is_to_be_hidden():
    clips = {clip.split: clip for clip in listing(train=0, val=0, unlabeled=1, hidden=1, context=7).clips}
    frames, masks = layers_of(clips["hidden"].load())
    assert len(frames) == 7 and masks is None
    frames, masks = layers_of(clips["unlabeled"].load())
    assert len(frames) == 22 and masks is None


def test_source_passes_the_look_on_and_claims_no_camera_that_is_not_its_own():
    found = listing(train=1, val=0, unlabeled=0, randomize=1.0)
    assert "camera" not in found.meta
    frames, masks = layers_of(found.clips[0].load())
    again = simulate_clip(found.clips[0].meta["seed"], height=32, width=48, randomize=1.0)
    np.testing.assert_array_equal(frames, again[0])
    np.testing.assert_array_equal(masks, again[1])


def test_source_without_rendering_has_the_same_masks_alone():
    only = {"train": 1, "val": 0, "unlabeled": 0}
    rendered, masked = (
        layers_of(found.clips[0].load()) for found in (listing(**only), listing(**only, render=False))
    )
    assert masked[0] is None
    np.testing.assert_array_equal(masked[1], rendered[1])


@pytest.mark.parametrize(
    ("params", "key"),
    [
        ({"render": False, "unlabeled": 3}, "set both to 0"),
        ({"train": 0, "val": 0, "unlabeled": 0}, "at least one clip"),
        ({"context": 30}, "context is 30"),
        ({"stride": 0}, "stride"),
        ({"train": -1}, "train"),
        ({"clips": 3}, "clips"),
        ({"randomize": -0.1}, "randomize"),
        ({"randomize": 2.5}, "randomize"),
    ],
)
def test_source_params_are_checked(params, key):
    with pytest.raises(ValidationError, match=key):
        SyntheticSource(**params)
