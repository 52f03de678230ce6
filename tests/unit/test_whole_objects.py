"""Cut observations: what counts as cut, how cuts are made whose whole is known, and what is learned from them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.dry_run_notes import MAX_STEPS, NOTES_FILE
from maskcast.labels import IGNORE, single_map
from maskcast.models.base import save_model
from maskcast.models.forecasting.base import Forecaster
from maskcast.models.forecasting.batches import TrackBatch, Window
from maskcast.models.forecasting.configs import ConvLSTMConfig, ForecasterConfig, ObjectsConfig
from maskcast.models.forecasting.mask_forecaster import MaskForecaster
from maskcast.models.forecasting.object_forecaster import ObjectForecaster
from maskcast.models.forecasting.table import adapt_forecaster
from maskcast.models.objects import cutting
from maskcast.models.objects.completion import CELLS, Completion, is_cut, pack_whole, windows
from maskcast.models.objects.tracks import Tracks, pack_tracks
from maskcast.models.objects.trajectories import Trajectory, trajectory_loss
from maskcast.seed import rng

HEIGHT, WIDTH = 48, 64


def picture(*squares: tuple[int, int, int]) -> np.ndarray:
    """Returns a mask of 10x10 squares, later ones in front: (class, top, left)."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for class_id, top, left in squares:
        mask[max(top, 0) : top + 10, max(left, 0) : left + 10] = class_id
    return mask


def cut(mask: np.ndarray, class_id: int) -> bool:
    packed = pack_tracks(torch.from_numpy(mask[None]), 5)[0]
    (observation,) = packed[packed[:, 0] == class_id]
    window = windows(
        torch.from_numpy(mask[None]),
        torch.tensor([0]),
        torch.tensor([class_id]),
        observation[None, 2:4],
        observation[None, 4:6],
    )
    return bool(is_cut(window))


def random_clips(count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Returns clips of 4 frames of two squares that touch neither each other nor the border."""
    clips = []
    for _ in range(count):
        tops, lefts = random.integers(3, 35, (4, 2)), random.integers([3, 35], [18, 50], (4, 2))
        clips.append(np.stack([picture((1, a, x), (2, b, y)) for (a, b), (x, y) in zip(tops, lefts, strict=True)]))
    return clips


def exported(model: Forecaster, context_BTHW: torch.Tensor, horizon: int) -> Any:
    """Returns the forecast of a model as torch.export traces it."""

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, masks: torch.Tensor) -> torch.Tensor:
            return self.network.forecast(masks, horizon)

    return torch.export.export(Graph(), (context_BTHW,)).module()(context_BTHW)


@pytest.fixture(scope="module")
def learned() -> Completion:
    """A network that has learned to complete squares of 10 pixels, of classes 1 and 2 of 5."""
    torch.manual_seed(0)
    completion = Completion(5)
    clips = random_clips(40, rng(0))
    examples = [cutting.cut_observations(clip, 5, rng(1, k)) for k, clip in enumerate(clips)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "STEPS", 200)
        patch.setattr(cutting, "BATCH", 32)
        cutting.train_completion(
            completion, [observations for observations in examples if observations is not None]
        )
    return completion


def test_what_meets_the_border_or_another_object_or_the_unknown_counts_as_cut() -> None:
    assert not cut(picture((1, 20, 20)), 1)
    assert not cut(picture((1, 20, 20), (2, 20, 36)), 1)
    assert cut(picture((1, 20, -3)), 1) and cut(picture((1, 44, 20)), 1)
    assert cut(picture((1, 20, 20), (2, 20, 26)), 1) and cut(picture((1, 20, 20), (2, 20, 26)), 2)
    unknown = picture((1, 20, 20))
    unknown[:, 28:] = IGNORE
    assert cut(unknown, 1)


def test_a_window_holds_about_twice_what_is_seen() -> None:
    mask = torch.from_numpy(picture((1, 20, 20)))[None]
    packed = pack_tracks(mask, 5)[0]
    own, other, outside = windows(mask, torch.tensor([0]), torch.tensor([1]), packed[:, 2:4], packed[:, 4:6])[0]
    assert own.sum() == pytest.approx((10 / (8 * 99**0.5 / 12**0.5) * CELLS) ** 2, rel=0.15)  # std of 10 pixels
    assert not other.any() and not outside.any()


def test_cut_sights_know_the_whole_that_they_are_a_part_of() -> None:
    (clip,) = random_clips(1, rng(5))
    found = [cutting.cut_observations(clip, 5, rng(2, k)) for k in range(8)]
    observations = cutting.CutObservations(
        *map(torch.cat, zip(*(one for one in found if one is not None), strict=True))
    )
    wholes = pack_tracks(torch.from_numpy(clip), 5).flatten(0, 1)
    for class_id, centre, std in zip(
        observations.class_M, observations.whole_centre_M2, observations.whole_std_M2, strict=True
    ):
        same = wholes[wholes[:, 0] == class_id]
        assert (same[:, 2:6] - torch.cat([centre, std])).abs().sum(1).min() < 1e-6
    assert observations.class_M.unique().tolist() == [1, 2] and bool(is_cut(observations.window_M3SS).all())
    pixel = 1 / HEIGHT
    assert (
        observations.std_M2.amin(1) <= observations.whole_std_M2.amin(1) + pixel
    ).all()  # of a rim that a masker adds
    assert ((observations.centre_M2 - observations.whole_centre_M2).norm(dim=1) > 0.02).float().mean() > 0.3


def test_no_object_is_cut_by_the_shape_of_what_has_no_label() -> None:
    """With the largest region unlabelled, what covers the only object had its shape."""
    mask = picture((1, 20, 20))
    mask[:, 40:] = IGNORE
    cuts = [cutting._cut_object(mask, 1, rng(4, k)) for k in range(100)]
    covers = [int(np.count_nonzero(cut == cutting.OTHER_IDS[1])) for cut in cuts]
    assert 0 < max(covers) <= 100


def test_nothing_is_learned_where_nothing_is_whole() -> None:
    full = np.ones((4, HEIGHT, WIDTH), np.uint8)
    assert cutting.cut_observations(full, 5, rng(0)) is None
    assert cutting.cut_observations(np.zeros_like(full), 5, rng(0)) is None
    completion = Completion(5)
    cutting.train_completion(completion, [])
    (few,) = (cutting.cut_observations(clip, 5, rng(0)) for clip in random_clips(1, rng(0)))
    assert few is not None
    cutting.train_completion(completion, [few])
    assert not completion.known_K.any()


def test_a_square_that_is_half_out_or_half_hidden_is_completed(learned: Completion) -> None:
    assert learned.known_K.tolist() == [False, True, True, False, False]
    masks = torch.from_numpy(
        np.stack([picture((1, 20, -5)), picture((1, 20, 20), (3, 20, 25)), picture((1, 20, 20))])
    )
    packed = pack_tracks(masks, 5)
    whole = pack_whole(learned, masks, packed)
    assert whole.shape == (3, 2, 10)
    true = torch.tensor([(24.5 - 23.5, column - 31.5) for column in (-0.5, 24.5, 24.5)]) / HEIGHT
    error = (whole[:, 0, 2:4] - true).norm(dim=1) * HEIGHT
    assert (error < torch.tensor([1.5, 1.5, 1e-3])).all(), error  # it was 2.5 pixels for what is cut
    assert torch.equal(whole[2, 0, :8], packed[2, 0]) and not whole[2, 0, 8:].any()  # nothing cuts it
    assert (whole[:2, 0, 8:] > 0).all()
    # a class that it does not know
    assert torch.equal(whole[:, 1, :8], packed[:, 1]) and not whole[:, 1, 8:].any()
    speck = picture((1, 20, 20))
    speck[24:26, 30:32] = 2  # of a masker: nothing of the square is hidden
    ids = torch.from_numpy(speck[None])
    assert (pack_whole(learned, ids, pack_tracks(ids, 5))[0, 0, 2:4] - true[2]).norm() * HEIGHT < 1
    empty = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.uint8)
    assert pack_whole(learned, empty, pack_tracks(empty, 5)).shape == (2, 1, 10)


@pytest.mark.parametrize("plain_config", [ObjectsConfig(hidden=8), ConvLSTMConfig(hidden=4, stride=4)])
def test_the_forecaster_completes_alike_in_training_and_at_work_and_on_disk(
    plain_config: ForecasterConfig, learned: Completion, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    masks = np.stack([picture((1, 20, left)) for left in range(-6, 6)])
    with ClipWriter(folder / "clips", height=HEIGHT, width=WIDTH, maps=single_map(list("01234"))) as writer:
        writer.add("a", split="train", kind="labelled", masks={"mask": masks})
    store = ClipStore(folder / "clips")
    config = plain_config.model_copy(update={"whole": True})
    model = config.build(5)
    assert isinstance(model, ObjectForecaster | MaskForecaster) and model.motion is not None
    assert model.motion.completion is not None
    model.motion.completion.load_state_dict(learned.state_dict())
    model.reset_to_constant_velocity()
    batch = model.batch_source(store, store.clips).batch([Window(0, slice(0, 12), False)])
    torch.testing.assert_close(
        (batch.tracks_BTS8 if isinstance(batch, TrackBatch) else batch)[0],
        pack_whole(learned, torch.from_numpy(masks), pack_tracks(torch.from_numpy(masks), 5)),
    )
    entering = torch.from_numpy(masks[None, :6])
    plain = plain_config.build(5)
    plain.reset_to_constant_velocity()
    columns = [
        float((one.eval().forecast(entering, 4)[0, -1] == 1).nonzero()[:, 1].float().max())
        for one in (model, plain)
    ]
    assert columns[0] == pytest.approx(12, abs=1.01) and columns[1] < 11  # in truth it ends at column 12
    with torch.no_grad():
        filled = model.forecast(entering[:, :3], 9)
    assert torch.equal(model.forecast(entering[:, :3], 9), filled)  # whether or not gradients are on
    assert torch.equal(exported(model, entering[:, :3], 9), filled)
    save_model(folder / "model", model, config, num_classes=5, meta={})
    same, _, anew = adapt_forecaster(folder / "model", 5)
    assert not anew and torch.equal(same.forecast(entering, 4), model.forecast(entering, 4))
    other, _, anew = adapt_forecaster(folder / "model", 3)
    assert "motion.completion.known_K" in anew
    assert isinstance(other, ObjectForecaster | MaskForecaster) and other.motion is not None
    assert other.motion.completion is not None
    assert not other.motion.completion.known_K.any()  # of other classes nothing is known


def test_a_dry_run_completes_after_a_few_steps_and_notes_what_all_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ClipWriter(tmp_path / "clips", height=HEIGHT, width=WIDTH, maps=single_map(list("01234"))) as writer:
        for k, masks in enumerate(random_clips(4, rng(0))):
            split = "train" if k else "unlabeled"
            writer.add(str(k), split=split, kind="labelled", masks={"mask": masks})
    store = ClipStore(tmp_path / "clips")
    notes = tmp_path / "notes"
    monkeypatch.setenv(NOTES_FILE, str(notes))
    model = ObjectsConfig(hidden=8, whole=True).build(5)
    assert isinstance(model, ObjectForecaster) and model.motion.completion is not None
    model.prepare(store, store.clips)
    model.batch_source(store, store.clips)
    assert model.motion.completion.known_K.any()  # of fewer observations than a step has
    found = [json.loads(line) for line in notes.read_text().splitlines()]
    splits = ["train", "unlabeled"]
    assert [{key: one[key] for key in ("loop", "items", "most", "splits")} for one in found] == [
        {"loop": "cutting objects", "items": 4, "most": 1200, "splits": splits},
        {"loop": "completing cut objects", "items": MAX_STEPS, "most": cutting.STEPS, "splits": []},
        {"loop": "tracks of clips", "items": 4, "most": None, "splits": splits},
    ]


def test_of_a_completed_target_a_doubtful_place_counts_less_and_a_far_one_by_its_logarithm() -> None:
    still = torch.zeros(1, 1, 1, 2)
    size = torch.full_like(still, 0.1)

    def place(error: float, doubt: float | None) -> float:
        seen = torch.ones(1, 1, 1, dtype=torch.bool)
        unsure = None if doubt is None else torch.full_like(still, doubt)
        target = Tracks(seen, torch.tensor([0.0, error]).view(1, 1, 1, 2), size, ~seen, seen[..., 0], 1.5, unsure)
        context = Tracks(seen, still, size, ~seen, seen[..., 0], 1.5, None if doubt is None else still)
        return float(trajectory_loss(Trajectory(still, still, size), context, target)["place"])

    assert place(0.3, None) == pytest.approx(10**0.5 - 1)  # three sizes off
    assert place(0.3, 0.0) == pytest.approx(math.log(10) / 2)
    assert place(0.3, 0.1) == pytest.approx(math.log(1 + (3 / 4) ** 2) / 2)  # an expected error adds thrice itself
