"""Cells, motion, drawing and forecasters against plain formulations and hand-made cases."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from maskcast.errors import MaskcastError
from maskcast.models.forecasting.configs import ConvGRUConfig, ConvLSTMConfig
from maskcast.models.forecasting.label_codec import EmbeddedClasses, PatchEmbedding
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.pairs import PairIndex
from maskcast.models.objects.plane import inverse, project, to_plane
from maskcast.models.objects.tracks import find_objects, track_objects
from maskcast.models.objects.trajectories import Trajectory, still
from maskcast.models.objects.warp import Renderer, by_class, front_object, paint, seen_masks
from maskcast.models.recurrent.cells import ConvGRUCell, ConvLSTMCell

SYSTEM_0 = {
    "stride": 1,
    "embedding": "onehot",
    "motion": "none",
    "residual": False,
    "feedback": True,
    "peepholes": "full",
    "norm": "batch",
    "activation": "relu",
    "hidden": 64,
}


def random_masks(*shape: int, classes: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, shape, generator=generator, dtype=torch.uint8)


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def test_the_split_convlstm_equals_the_plain_one() -> None:
    cell = randomised(ConvLSTMCell(3, 4, 3, peepholes="channel").double())
    x_BTCHW = torch.randn(2, 4, 3, 6, 7, dtype=torch.double)
    state = cell.start(x_BTCHW[:, 0])
    h = c = torch.zeros(2, 4, 6, 7, dtype=torch.double)
    weight = torch.cat([cell.input.weight, cell.recurrent.weight], dim=1)
    for step, gates in enumerate(cell.inputs(x_BTCHW)):
        state = cell.step(gates, state)
        plain = F.conv2d(torch.cat([x_BTCHW[:, step], h], 1), weight, cell.input.bias, padding=1)
        i, f, g, o = cell.norm(plain).chunk(4, 1)
        w_i, w_f, w_o = cell.peepholes
        c = torch.sigmoid(f + w_f * c) * c + torch.sigmoid(i + w_i * c) * torch.tanh(g)
        h = torch.sigmoid(o + w_o * c) * torch.tanh(c)
        torch.testing.assert_close(state, (h, c), rtol=1e-12, atol=1e-12)


def test_the_split_convgru_equals_the_plain_one() -> None:
    cell = randomised(ConvGRUCell(3, 4, 3).double())
    x_BTCHW = torch.randn(2, 3, 3, 5, 6, dtype=torch.double)
    state = cell.start(x_BTCHW[:, 0])
    h = torch.zeros(2, 4, 5, 6, dtype=torch.double)
    w, b = cell.input.weight, cell.input.bias
    for step, gates in enumerate(cell.inputs(x_BTCHW)):
        state = cell.step(gates, state)
        both = torch.cat([x_BTCHW[:, step], h], 1)
        weight = torch.cat([w[:8], cell.recurrent.weight], 1)
        z, r = torch.sigmoid(cell.norm(F.conv2d(both, weight, b[:8], padding=1))).chunk(2, 1)
        both = torch.cat([x_BTCHW[:, step], r * h], 1)
        weight = torch.cat([w[8:], cell.candidate.weight], 1)
        h = (1 - z) * h + z * torch.tanh(cell.candidate_norm(F.conv2d(both, weight, b[8:], padding=1)))
        torch.testing.assert_close(state[0], h, rtol=1e-12, atol=1e-12)


def test_a_cell_starts_with_forget_bias_1_and_peepholes_0() -> None:
    cell = ConvLSTMCell(3, 4, 3, norm=False, peepholes="full", size=(5, 6))
    assert cell.input.bias[4:8].eq(1).all() and cell.input.bias[:4].eq(0).all() and cell.input.bias[8:].eq(0).all()
    assert cell.peepholes.shape == (3, 4, 5, 6) and cell.peepholes.eq(0).all()


def test_the_state_stays_float32_under_autocast() -> None:
    cell = ConvLSTMCell(3, 16, 3)
    x_BTCHW = torch.randn(1, 2, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        hidden, memory = cell.step(cell.inputs(x_BTCHW)[0], cell.start(x_BTCHW[:, 0]))
    assert hidden.dtype == memory.dtype == torch.float32


def test_patch_embedding_equals_embedding_then_convolution() -> None:
    stem = PatchEmbedding(5, 3, 7, 4).double()
    ids = random_masks(2, 8, 12)
    embedded = stem.embedding[ids.long()].permute(0, 3, 1, 2)
    weight = stem.patch.view(4, 4, 3, 7).permute(3, 2, 0, 1)
    plain = F.conv2d(embedded, weight, stem.bias, stride=4)
    torch.testing.assert_close(stem(ids), plain, rtol=1e-12, atol=1e-12)
    onehot = F.one_hot(ids.long(), 5).permute(0, 3, 1, 2).double()
    torch.testing.assert_close(stem.soft(onehot), plain, rtol=1e-12, atol=1e-12)


def test_tracks_of_a_square() -> None:
    masks = torch.zeros(2, 2, 20, 30, dtype=torch.uint8)
    masks[0, 0, 4:8, 10:16] = 3
    masks[0, 1, 6:10, 0:6] = 3
    masks[1, :, 1:3, 1:3] = 255
    objects = find_objects(masks[:, -1], 5)
    assert objects.tolist() == [[3], [0]]
    tracks = track_objects(masks, objects)
    assert tracks.visible_BTN.squeeze(-1).tolist() == [[True, True], [False, False]]
    assert tracks.truncated_BTN[0, :, 0].tolist() == [False, True]
    expected = torch.tensor([(5.5 - 9.5) / 20, (12.5 - 14.5) / 20])
    torch.testing.assert_close(tracks.centre_BTN2[0, 0, 0], expected)
    std = torch.tensor([math.sqrt(15 / 12), math.sqrt(35 / 12)]) / 20  # of 4 and 6 pixels in a row
    torch.testing.assert_close(tracks.std_BTN2[0, 0, 0], std)


def test_drawing_moves_scales_and_puts_the_lower_object_in_front() -> None:
    last = torch.zeros(1, 24, 24, dtype=torch.uint8)
    last[0, 2:6, 2:6], last[0, 12:16, 2:6] = 1, 2
    objects = find_objects(last, 4)
    tracks = track_objects(last[:, None], objects)
    centre = still(tracks, 1).centre_BhN2 + torch.tensor([[8 / 24, 6 / 24], [0.0, 6 / 24]])
    scale = torch.tensor([[0.0, 0.0], [0.0, math.log(0.5)]]).expand_as(centre)
    seen = tracks.last_observation()
    masks = seen_masks(last[:, None], objects, seen)
    drawn = Renderer()(masks, seen, Trajectory(centre, scale, torch.zeros_like(centre)))
    picture = front_object(drawn, objects)[0, 0]
    expected = torch.zeros(24, 24, dtype=torch.long)
    expected[10:14, 8:12], expected[12:16, 9:11] = 1, 2
    assert torch.equal(picture, expected)
    assert torch.equal(
        paint(masks, objects, seen, Trajectory(centre, scale, torch.zeros_like(centre)))[0, 0], expected
    )
    logits = by_class(drawn, objects, torch.arange(4), torch.tensor(-8.0))
    assert torch.equal(logits.argmax(2)[0, 0], expected) and (logits[:, :, 3] == -8).all()


def test_the_plane_is_the_picture_at_first_and_its_inverse_is_exact() -> None:
    motion = ObjectMotion(8, 5)
    points = torch.rand(50, 2) - 0.5
    torch.testing.assert_close(to_plane(motion.homography, points), points)
    torch.nn.init.normal_(motion.homography, std=0.2)
    torch.testing.assert_close(
        project(to_plane(motion.homography, points), inverse(motion.homography)), points, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("radius", [None, torch.full((1, 3), 0.4)], ids=["points", "discs"])
def test_forces_turn_with_the_scene(radius: torch.Tensor | None) -> None:
    motion = randomised(ObjectMotion(8, 5, whole=radius is not None))
    place, velocity, memory = torch.randn(1, 3, 2), torch.randn(1, 3, 2), torch.randn(1, 3, 8)
    others = PairIndex.of(torch.ones(1, 3, dtype=torch.bool))
    std = torch.full((1, 3, 2), 0.05)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    push, delayed, message = motion._interact(others, place, velocity, memory, std, radius)
    turned, later, same = motion._interact(others, place @ turn, velocity @ turn, memory, std, radius)
    torch.testing.assert_close(turned, push @ turn, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(later, delayed @ turn, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same, message, rtol=1e-4, atol=1e-4)


def test_others_are_those_of_the_clip_that_are_there() -> None:
    exists = torch.tensor([[True, False, True], [True, True, True], [False, True, False]])
    listed = PairIndex.of(exists)
    assert listed.own_P is not None and listed.other_P is not None
    pairs = list(zip(listed.own_P.tolist(), listed.other_P.tolist(), strict=True))
    assert pairs == [(0, 2), (2, 0), (3, 4), (3, 5), (4, 3), (4, 5), (5, 3), (5, 4)]
    every = PairIndex(listed.valid_BNN)  # as on a GPU
    value = torch.arange(9.0).view(3, 3, 1)
    for others in (listed, every):
        found = others.summed(10 * others.own(value) + others.other(value))
        assert found[..., 0].tolist() == [[2, 0, 20], [69, 88, 107], [0, 0, 0]]


@pytest.mark.parametrize("radius", [None, torch.full((2, 3), 0.4)], ids=["points", "discs"])
def test_listed_pairs_do_what_all_pairs_do(radius: torch.Tensor | None) -> None:
    motion = randomised(ObjectMotion(8, 5, whole=radius is not None))
    place, velocity, memory = torch.randn(2, 3, 2), torch.randn(2, 3, 2), torch.randn(2, 3, 8)
    objects = place, velocity, memory, torch.full((2, 3, 2), 0.05), radius
    listed = PairIndex.of(torch.tensor([[True, False, True], [True, True, True]]))
    for found, expected in zip(
        motion._interact(listed, *objects), motion._interact(PairIndex(listed.valid_BNN), *objects), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", [ConvLSTMConfig(), ConvGRUConfig(), ConvLSTMConfig(motion="none", stride=4)])
@pytest.mark.parametrize("size", [(32, 48), (21, 37)])
def test_an_untrained_network_copies_bit_for_bit(config: Any, size: tuple[int, int]) -> None:
    context = random_masks(2, 4, *size)
    out = config.build(5).eval().forecast(context, 3)
    assert out.dtype == torch.uint8 and torch.equal(out, context[:, -1:].expand(-1, 3, -1, -1))


def test_the_first_steps_of_a_longer_forecast_are_the_shorter_forecast() -> None:
    model = randomised(ConvLSTMConfig(hidden=8).build(5), 1).eval()
    context = random_masks(2, 6, 24, 32)
    assert torch.equal(model.forecast(context, 7)[:, :2], model.forecast(context, 2))


def test_a_forecast_does_not_depend_on_the_rest_of_the_batch() -> None:
    model = randomised(ConvLSTMConfig(hidden=8).build(5), 1).eval()
    context = random_masks(3, 6, 24, 32)
    context[0] = context[0].clamp(max=1)
    together = model.forecast(context, 3)
    for clip in range(3):
        assert (together[clip] == model.forecast(context[clip : clip + 1], 3)[0]).float().mean() > 0.999


def test_system_0_has_its_number_of_parameters() -> None:
    count = sum(p.numel() for p in ConvLSTMConfig(layers=2, size=(160, 240), **SYSTEM_0).build(49).parameters())
    convolutions = (49 + 64 + 64 + 64) * 256 * 9 + 2 * 256 + 64 * 49 * 9 + 49
    assert count == convolutions + 2 * 3 * 64 * 160 * 240 + 4 * 64 == 15_329_905


def test_system_0_feeds_its_forecast_back_with_gradient() -> None:
    model = ConvLSTMConfig(layers=2, size=(10, 12), **SYSTEM_0 | {"hidden": 4}).build(5)
    masks = random_masks(2, 5, 10, 12)
    loss, parts = model.loss(masks[:, :3], masks[:, 3:])
    loss.backward()
    assert parts["cross_entropy"] == pytest.approx(float(loss.detach()))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.forecast(masks, 2).shape == (2, 2, 10, 12)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"feedback": True}, "motion: object needs residual: true and feedback: false"),
        ({"embedding": "onehot"}, "onehot needs stride: 1"),
        ({"whole": True, "motion": "none"}, "whole: true needs motion: object"),
        ({"whole": True, "input": "frames"}, "whole: true needs input: masks"),
        ({"peepholes": "full"}, "full needs size"),
        ({"peepholes": "full", "size": (0, 8)}, "greater than or equal to 1"),
        ({"layers": 10**9}, "less than or equal to 100"),  # they were made one by one
    ],
)
def test_settings_that_do_not_fit_are_named(fault: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ConvLSTMConfig(**fault)


def test_peepholes_of_another_size_are_named() -> None:
    forecaster = ConvLSTMConfig(hidden=4, stride=2, peepholes="full", size=(16, 16)).build(3)
    assert forecaster.forecast(random_masks(1, 2, 15, 16, classes=3), 1).shape == (1, 1, 15, 16)  # as many places
    with pytest.raises(MaskcastError, match=r"^model\.size: .* for 8 x 8 places, the frames have 9 x 8; set size"):
        forecaster.forecast(random_masks(1, 2, 17, 16, classes=3), 1)


def test_corrections_start_at_0_and_know_only_the_classes_asked_for() -> None:
    codec = EmbeddedClasses(5, 8, 4)
    state, guide = torch.randn(2, 8, 3, 4), random_masks(2, 6, 8)
    everything = (slice(None), slice(None))
    assert codec.correct(state, guide, *everything, torch.arange(5)).eq(0).all()
    torch.nn.init.normal_(codec.out.weight)
    full = codec.correct(state, guide, *everything, torch.arange(5))
    some = codec.correct(state, guide, slice(1, None, 2), slice(0, None, 3), torch.tensor([0, 3]))
    torch.testing.assert_close(some, full[:, [0, 3], 1::2, ::3], rtol=1e-5, atol=1e-5)
