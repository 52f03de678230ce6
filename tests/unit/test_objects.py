"""Tracks, how the plane is found from sizes, and the forecaster of objects."""

import math
from errno import ENOENT
from pathlib import Path

import numpy as np
import pytest
import torch

from maskcast.data.clip_store.reader import ALL, ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.clip_store.view import StoreView
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.forking import ForkedFunction
from maskcast.labels import MASK, single_map
from maskcast.models.forecasting.batches import ObjectTracks
from maskcast.models.forecasting.configs import ObjectsConfig
from maskcast.models.objects.completion import Completion
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.plane import to_plane
from maskcast.models.objects.tracks import PACKED, find_objects, pack_tracks, track_objects, unpack_tracks
from maskcast.models.objects.trajectories import Trajectory, still, trajectory_loss
from maskcast.models.objects.warp import cover, probability
from maskcast.simulator.camera import CLEVRER_CAMERA, paint_masks
from maskcast.simulator.scenes import simulate_motion


def squares(**places: list[tuple[int, int] | None]) -> torch.Tensor:
    """Returns masks (T, 24, 32) of 4x4 squares; ``c3=[(y, x), None, ...]`` puts class 3 there, or hides it."""
    masks = torch.zeros(len(next(iter(places.values()))), 24, 32, dtype=torch.uint8)
    for name, seen in places.items():
        for t, corner in enumerate(seen):
            if corner is not None:
                y, x = corner
                masks[t, max(y, 0) : y + 4, max(x, 0) : x + 4] = int(name[1:])
    return masks


def test_packing_keeps_the_tracks_of_all_objects() -> None:
    masks = squares(c3=[(4, 4), (4, 6), None], c1=[None, (12, 20), (10, 20)])
    packed = pack_tracks(masks, 5)
    assert packed.shape == (3, 2, len(PACKED)) and packed[:, :, 0].unique(dim=0).tolist() == [[1, 3]]
    objects, tracks = unpack_tracks(packed[None])
    assert objects.tolist() == [[1, 3]]
    direct = track_objects(masks[None], objects)
    assert tracks.aspect == pytest.approx(direct.aspect) == pytest.approx(32 / 24)
    for field in vars(tracks).keys() - {"aspect", "doubt_BTN2"}:
        torch.testing.assert_close(getattr(tracks, field).float(), getattr(direct, field).float())


def test_unpacking_finds_the_objects_asked_for_and_leaves_others_unseen() -> None:
    packed = pack_tracks(squares(c3=[(4, 4)], c1=[(12, 20)]), 5)[None]
    wanted = torch.tensor([[3, 4, 0]])
    objects, tracks = unpack_tracks(packed, wanted)
    assert objects is wanted and tracks.visible_BTN.tolist() == [[[True, False, False]]]
    torch.testing.assert_close(tracks.centre_BTN2[0, 0, 0], torch.tensor([(5.5 - 11.5) / 24, (5.5 - 15.5) / 24]))
    objects, tracks = unpack_tracks(pack_tracks(torch.zeros(2, 8, 8, dtype=torch.uint8), 5)[None])
    assert objects.tolist() == [[0]] and not tracks.visible_BTN.any()


def test_the_last_observation_of_a_hidden_object_is_kept_and_of_one_that_left_is_not() -> None:
    masks = squares(c1=[(4, 4), (4, 8), None], c2=[(12, 4), (12, -2), None], c3=[(4, 20), (5, 20), (6, 20)])[None]
    seen = track_objects(masks, find_objects(masks, 5)).last_observation()
    assert seen.exists_BN.tolist() == [[True, False, True]]
    assert seen.frame_BN.tolist() == [[1, 1, 2]]
    torch.testing.assert_close(seen.centre_BN2[0, 0], torch.tensor([(5.5 - 11.5) / 24, (9.5 - 15.5) / 24]))


def test_an_object_leaves_only_in_frames_that_have_labels() -> None:
    at_border = [(8, 30), (8, 30)]
    for then, left in ((None, True), (255, False)):
        masks = squares(c1=[*at_border, None])[None]
        masks[:, 2] = 0 if then is None else then
        assert track_objects(masks, torch.tensor([[1]])).last_observation().exists_BN.item() is not left
    context = pack_tracks(squares(c1=at_border), 5)[None]
    for labelled, errors in (((), 0), ((0, 3), 1)):
        target = squares(c1=[(8, 30), (8, 30), (8, 30), None])
        target[[t for t in range(4) if t not in labelled]] = 255
        objects, seen = unpack_tracks(context)
        _, future = unpack_tracks(pack_tracks(target, 5)[None], objects)
        assert future.known_BT.tolist() == [[t in labelled for t in range(4)]]
        assert (trajectory_loss(still(seen, 4), seen, future)["border"] > 0.1) == bool(errors)


def test_an_object_in_the_only_labelled_frame_is_no_noise(tmp_path: Path) -> None:
    masks = squares(c1=[(8, 8)] * 6, c2=[(16, 20)] * 2 + [None] * 4).numpy()  # class 2 is in too few frames
    sparse = np.where(np.arange(6)[:, None, None] == 4, masks, 255).astype(np.uint8)
    empty = np.where(np.arange(6)[:, None, None] == 4, 0, sparse).astype(np.uint8)
    with ClipWriter(tmp_path / "clips", height=24, width=32, maps=single_map("01234")) as writer:
        for name, ids in (("all", masks), ("sparse", sparse), ("empty", empty)):
            writer.add(name, split="train", kind="labelled", masks={MASK: ids})
    store = ClipStore(tmp_path / "clips")
    for clip, classes in (("all", [1]), ("sparse", [1]), ("empty", [0])):
        read = ObjectTracks(store, [store.get(clip)], None).read(0)
        objects, tracks = unpack_tracks(read[None])
        assert objects.tolist() == [classes]
        assert tracks.known_BT.sum() == (6 if clip == "all" else 1)


class Noted(StoreView):
    """A view of a store that notes each clip whose masks are read."""

    def __init__(self, store: ClipStore, notes: Path) -> None:
        super().__init__(store)
        self.notes = notes

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        with self.notes.open("a") as file:
            file.write(f"{clip.id} ")
        return self.store.masks(clip, frames)


@pytest.mark.parametrize("completion", [None, Completion(5)])
def test_processes_that_make_batches_compute_the_tracks_of_a_clip_once(
    tmp_path: Path, completion: Completion | None
) -> None:
    paths = {"one": {"c1": [(8, 8)] * 4}, "two": {"c1": [(8, 8)] * 3, "c3": [(20, 9)] * 3}, "none": {}}
    with ClipWriter(tmp_path / "clips", height=24, width=32, maps=single_map("01234")) as writer:
        for name, moving in paths.items():
            ids = squares(**moving).numpy() if moving else np.zeros((2, 24, 32), np.uint8)
            writer.add(name, split="train", kind="labelled", masks={MASK: ids})
    store = ClipStore(tmp_path / "clips")
    expected = [ObjectTracks(store, [clip], completion).read(0) for clip in store.clips]
    tracks = ObjectTracks(Noted(store, tmp_path / "notes"), store.clips, completion)
    processes = [ForkedFunction(lambda clip: tracks.read(clip).numpy(), 0, "reads tracks") for _ in range(2)]
    for process in processes:
        for k, clip in enumerate(expected):
            np.testing.assert_array_equal(process(k), clip.numpy())
    for process in processes:
        process.close()
    assert (tmp_path / "notes").read_text() == "one two none "


def test_tracks_need_no_semaphores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:  # as where /dev/shm is missing
        raise FileNotFoundError(ENOENT, "No such file or directory")

    monkeypatch.setattr("multiprocessing.synchronize.Lock", refuse)
    with ClipWriter(tmp_path / "clips", height=24, width=32, maps=single_map("01")) as writer:
        writer.add("a", split="train", kind="labelled", masks={MASK: squares(c1=[(8, 8)] * 4).numpy()})
    store = ClipStore(tmp_path / "clips")
    tracks = ObjectTracks(store, store.clips, None)
    assert tracks.read(0).equal(tracks.read(0)) and tracks.read(0).shape == (4, 1, 8)


def test_a_hidden_object_is_painted_again() -> None:
    seen = [(8, 2 + 3 * t) for t in range(7)]
    masks = squares(c1=[*seen, None])[None]
    model = ObjectsConfig(hidden=8).build(5).eval()
    with torch.no_grad():
        model.motion.start.bias[4] = 1.0  # the last displacement between two observations is the velocity
    forecast = model.forecast(squares(c1=seen)[None], 2)
    assert torch.equal(forecast[0], squares(c1=[(8, 23), (8, 26)]))
    forecast = model.forecast(masks, 1)  # the displacement to a frame in which it is hidden is unknown: it waits
    assert torch.equal(forecast[0], squares(c1=[(8, 20)]))


def test_the_plane_is_found_from_the_sizes_of_objects() -> None:
    rows = []
    for seed in range(12):
        masks = torch.from_numpy(paint_masks(simulate_motion(seed)[::5], 160, 240))
        rows.append(pack_tracks(masks, 49).flatten(0, 1))
    rows_M8 = torch.cat(rows)
    rows_M8 = rows_M8[(rows_M8[:, 1] > 0) & (rows_M8[:, 6] == 0)]
    motion = ObjectMotion(8, 49)
    motion.calibrate(rows_M8[:, 0].long(), rows_M8[:, 2:4], rows_M8[:, 4:6].mean(-1))
    # equal steps on the ground, seen by the camera, are nearly equal steps on the plane
    y, x = np.mgrid[40:150:20, 60:200:20] + 0.0
    ground = CLEVRER_CAMERA.scaled(160, 240).to_plane(x, y, 0.2)
    points = torch.from_numpy(np.stack([(y - 79.5) / 160, (x - 119.5) / 160], -1)).float()
    plane = to_plane(motion.homography, points).numpy()
    fit, *_ = np.linalg.lstsq(np.insert(ground.reshape(-1, 2), 2, 1, 1), plane.reshape(-1, 2), rcond=None)
    error = np.insert(ground.reshape(-1, 2), 2, 1, 1) @ fit - plane.reshape(-1, 2)
    assert np.abs(error).max() < 0.05 * np.ptp(plane)
    stretch = np.linalg.svd(fit[:2])[1]
    assert stretch[0] / stretch[1] < 1.3  # 1 would be a plane without any foreshortening; the picture has 2


def test_few_observations_and_equal_sizes_leave_the_picture_the_plane() -> None:
    motion = ObjectMotion(8, 5)
    few = torch.ones(9, dtype=torch.long), torch.rand(9, 2), torch.rand(9)
    motion.calibrate(*few)
    assert not motion.homography.any()
    many = torch.ones(500, dtype=torch.long), torch.rand(500, 2) - 0.5, torch.full((500,), 0.05)
    motion.calibrate(*many)
    assert motion.homography.abs().max() < 1e-4


@pytest.mark.parametrize("context", [1, 3, 11])
def test_any_length_of_context_will_do(context: int) -> None:
    model = ObjectsConfig(hidden=8).build(5).eval()
    masks = squares(c1=[(8, 2 + t) for t in range(context)], c3=[(2, 20)] * context)[None]
    assert torch.equal(model.forecast(masks, 2), masks[:, -1:].expand(-1, 2, -1, -1))  # untrained: it stays


def test_what_is_cut_or_has_left_must_be_forecast_so() -> None:
    # a 4x4 square is whole, then half out, then gone
    seen = squares(c1=[(8, 20), (8, 24)])[None]
    future = squares(c1=[(8, 26), (8, 30), None, None])[None]
    objects = torch.tensor([[1]])
    context, target = track_objects(seen, objects), track_objects(future, objects)

    def border(*columns: float) -> float:
        y = torch.full((4,), 9.5 - 11.5)
        centre = torch.stack([y, torch.tensor(columns) - 15.5], -1) / 24
        trajectory = Trajectory(centre[None, :, None], torch.zeros(1, 4, 1, 2), torch.ones(1, 4, 1, 2))
        return float(trajectory_loss(trajectory, context, target)["border"])

    right = border(27.5, 31.5, 36.0, 40.0)
    assert right < 0.02
    assert border(27.5, 31.5, 60.0, 99.0) == pytest.approx(right)  # how far it is gone does not matter
    assert border(27.5, 31.5, 27.5, 27.5) > right + 1
    assert border(27.5, 27.5, 36.0, 40.0) > right + 0.1
    assert border(20.0, 31.5, 36.0, 40.0) == pytest.approx(right, abs=0.3)  # whole: that is for ``place``


def test_an_object_in_an_uncertain_place_covers_what_it_covers_on_average() -> None:
    masks = squares(c1=[(8, 10)])[0].eq(1)[None, None]
    seen = track_objects(squares(c1=[(8, 10)])[None], torch.tensor([[1]])).last_observation()
    scale = 3 / 24  # of the picture's height: 3 pixels

    def covered(shift: float) -> torch.Tensor:
        centre = seen.centre_BN2[:, None] + torch.tensor([0.0, shift / 24])
        return cover(masks, seen, Trajectory(centre, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)))

    shifts = torch.arange(-45, 45.05, 0.1).tolist()
    weights = [math.exp(-abs(shift) / 3) / 6 * 0.1 for shift in shifts]
    mean = sum(weight * covered(shift) for weight, shift in zip(weights, shifts, strict=True))
    unsure = torch.tensor([1e-6, scale]).expand(1, 1, 1, 2)
    trajectory = Trajectory(seen.centre_BN2[:, None], torch.zeros(1, 1, 1, 2), unsure)
    assert torch.allclose(
        cover(masks, seen, trajectory, expected=True)[..., 9:11, :], mean[..., 9:11, :], atol=2e-3
    )


def test_the_nearer_of_two_objects_in_uncertain_places_takes_its_share_first() -> None:
    # two squares at the same columns; class 2 is lower in the picture, so nearer
    seen = squares(c1=[(8, 10)], c2=[(9, 10)])[None]
    objects = torch.tensor([[1, 2]])
    masks = torch.stack([squares(c1=[(8, 10)])[0].eq(1), squares(c2=[(9, 10)])[0].eq(2)])[None]
    seen = track_objects(seen, objects).last_observation()
    trajectory = Trajectory(seen.centre_BN2[:, None], torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 2 / 24))
    one, two = cover(masks, seen, trajectory, expected=True)[0, 0]

    def chance(class_id: int) -> torch.Tensor:
        return probability(masks, objects, seen, trajectory, torch.full((1, 1, 24, 32), class_id))[0, 0]

    assert torch.allclose(chance(2), two, atol=1e-5) and torch.allclose(chance(1), one * (1 - two), atol=1e-5)
    assert torch.allclose(chance(0), (1 - one) * (1 - two), atol=1e-5) and chance(3).eq(0).all()


def test_the_scale_is_fitted_to_the_mean_error_and_bends_no_trajectory() -> None:
    seen = squares(c1=[(8, 8), (8, 9)])[None]
    future = squares(c1=[(8, 12)] * 2)[None]
    context, target = (track_objects(part, torch.tensor([[1]])) for part in (seen, future))
    centre = (target.centre_BTN2 + torch.tensor([2.0, 2.0]) / 24).requires_grad_()

    def surprise(scale: float) -> torch.Tensor:
        trajectory = Trajectory(centre, torch.zeros(1, 2, 1, 2), torch.full((1, 2, 1, 2), scale))
        return trajectory_loss(trajectory, context, target)["doubt"]

    at_error = float(surprise(2 / 24))
    assert at_error < float(surprise(1.8 / 24)) and at_error < float(surprise(2.2 / 24))
    assert not surprise(0.1).requires_grad
