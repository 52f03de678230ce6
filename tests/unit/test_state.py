"""The state in the last frame: fits to braked motion, hits, doubt, what is hidden, friction; and contacts."""

import pytest
import torch
from torch import Tensor

from maskcast.models.objects.friction import LOSS_UNITS, NOISE, Friction, FrictionEstimate
from maskcast.models.objects.motion import CONTEXT, KIND, PAST, ObjectMotion
from maskcast.models.objects.pairs import find_contact
from maskcast.models.objects.state import Observations, State, StateEstimate, extrapolate, fit
from maskcast.models.objects.tracks import Tracks, pack_tracks

FRAMES = PAST + 1
AGO = torch.arange(FRAMES) - float(PAST)  # of the frames of the context, up to now: 0


def observations(y_R: Tensor, weight_R: Tensor | None = None, size: float = 0.05) -> Observations:
    """Returns the observations of one object that moves along y."""
    weight = torch.ones(FRAMES) if weight_R is None else weight_R
    place = torch.stack([y_R, torch.zeros(FRAMES)], -1)
    return Observations(place[None, :, None], weight[None, :, None], torch.full((1, 1), size))


def sliding(slide: float = 0.0, drag: float = 0.0, air: float = 0.0) -> Friction:
    """Returns the friction of one object."""
    return Friction(torch.tensor([[[slide, drag, air]]]))


def estimated(seen: Observations, last_frame: int = PAST) -> State:
    """Returns what an estimate says that has not learned anything: no friction, and the rule for hits."""
    estimate = StateEstimate(4, KIND, FRAMES, CONTEXT)
    estimate.reset_to_constant_velocity()
    return estimate(torch.zeros(1, 1, 4), seen, sliding(), torch.full((1, 1), last_frame), torch.zeros(1, 1, 2))


def test_every_window_finds_the_state_of_braked_motion() -> None:
    place, velocity, deceleration = 0.3, 0.04, 0.005
    seen = observations(place + velocity * AGO - 0.5 * deceleration * AGO**2)
    places, velocities, missed, sure = fit(seen, sliding(deceleration))
    assert torch.allclose(places[0, 0], torch.tensor([place, 0.0]).expand(PAST, 2), atol=1e-6)
    assert torch.allclose(velocities[0, 0], torch.tensor([velocity, 0.0]).expand(PAST, 2), atol=1e-6)
    assert missed.max() < 1e-3
    assert sure[0, 0].tolist() == pytest.approx([0.5, 2, 5, 10, 17.5])  # sums of squares from their mean
    # without friction two observations give the speed half a frame ago; three miss a line by a third of 0.005 / 2
    _, velocities, missed, _ = fit(seen, sliding())
    assert velocities[0, 0, 0, 0].item() == pytest.approx(0.0425, abs=1e-6)
    assert missed[0, 0, 1].item() == pytest.approx(0.005 / 3 / 0.05, rel=1e-3)


def test_what_was_before_a_hit_does_not_count() -> None:
    before, after = 0.05, -0.03  # hit three frames ago
    state = estimated(observations(torch.where(AGO < -3, before * (AGO + 3), after * (AGO + 3))))
    assert state.velocity_BN2[0, 0].tolist() == pytest.approx([after, 0.0], abs=1e-3)
    assert state.place_BN2[0, 0].tolist() == pytest.approx([3 * after, 0.0], abs=1e-3)
    steady = estimated(observations(before * AGO))
    assert steady.velocity_BN2[0, 0].tolist() == pytest.approx([before, 0.0], abs=1e-6)


def test_a_sight_in_doubt_hardly_counts() -> None:
    y_R = 0.04 * AGO
    y_R[-1] += 0.05  # a size off
    doubt = torch.zeros(1, FRAMES, 1, 2)
    doubt[0, -1] = 0.05
    centre = torch.stack([y_R, torch.zeros(FRAMES)], -1)[None, :, None]
    visible = torch.ones(1, FRAMES, 1, dtype=torch.bool)
    tracks = Tracks(visible, centre, torch.full_like(centre, 0.05), ~visible, visible[..., 0], 1.5, doubt)
    seen = Observations.of(torch.zeros(8), tracks)
    assert seen.size_BN.item() == pytest.approx(0.05)
    assert seen.weight_BRN[0, :, 0].tolist() == pytest.approx([1.0] * PAST + [1 / (1 + NOISE**-2)])
    state = estimated(seen)
    assert state.velocity_BN2[0, 0, 0].item() == pytest.approx(0.04, abs=1e-3)
    assert state.place_BN2[0, 0, 0].item() == pytest.approx(0.0, abs=3e-3)


def test_what_is_hidden_goes_on_and_what_was_seen_once_stays() -> None:
    hidden = torch.tensor([1.0, 1, 1, 1, 0, 0])
    state = estimated(observations(0.04 * AGO * hidden, hidden), last_frame=3)
    assert state.velocity_BN2[0, 0, 0].item() == pytest.approx(0.04, abs=1e-6)
    assert state.place_BN2[0, 0, 0].item() == pytest.approx(0.0, abs=1e-6)
    assert state.seen_place_BN2[0, 0, 0].item() == pytest.approx(-0.08, abs=1e-6)
    once = torch.tensor([0.0, 1, 0, 0, 0, 0])
    state = estimated(observations(0.2 * once, once), last_frame=1)
    assert state.velocity_BN2.tolist() == [[[0, 0]]]
    assert state.place_BN2[0, 0].tolist() == pytest.approx([0.2, 0])


def test_friction_brings_things_to_rest_and_not_back() -> None:
    friction, deceleration = sliding(0.02), torch.full((1, 1, 1), 0.02)
    velocity = torch.tensor([[[0.05, 0.0]]])
    assert friction.next_velocity(velocity)[0, 0].tolist() == pytest.approx([0.03, 0.0])
    assert friction.next_velocity(velocity * 0.2)[0, 0].tolist() == [0, 0]
    for frames, place in ((2.0, 0.06), (-1.0, -0.06)):
        found = extrapolate(torch.zeros(1, 1, 2), velocity, deceleration, torch.tensor(frames))
        assert found[0, 0, 0].item() == pytest.approx(place)
    state = State(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), velocity, friction)
    # displacements of 0.05, 0.03, 0.01 and 0 at the ends of frames: the means of two of them
    assert state.later(5)[0, :, 0, 0].tolist() == pytest.approx([0.04, 0.06, 0.065, 0.065, 0.065])
    came_to_rest = observations(torch.tensor([-0.03, -0.01, 0, 0, 0, 0]))
    assert (fit(came_to_rest, friction)[1][0, 0, :, 0] >= 0).all()


def test_what_is_faster_loses_more() -> None:
    friction, velocity = sliding(0.002, 0.05, 0.5), torch.tensor([[[0.03, -0.04]]])
    assert friction.deceleration(velocity).item() == pytest.approx(0.002 + 0.05 * 0.05 + 0.5 * 0.05**2)
    assert friction.next_velocity(velocity).norm().item() == pytest.approx(
        0.05 - friction.deceleration(velocity).item()
    )


@pytest.mark.parametrize("tempo", [0.6, 1.0, 1.6])
def test_the_tempo_of_a_clip_is_seen_in_how_paths_bend(tempo: float) -> None:
    """Two objects of a known law: one is hit on its way and tells nothing then, the other is seen late."""
    estimate = FrictionEstimate(1, 1, CONTEXT)
    with torch.no_grad():
        estimate.of_kind.bias.copy_(torch.tensor([1.0, 0.5, 0.5]))
        estimate.tempo.copy_(torch.tensor([0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.4]).log())
        law = torch.tensor(LOSS_UNITS) * torch.nn.functional.silu(estimate.of_kind.bias)
    parts_3 = law * torch.tensor([tempo**2, tempo, 1])
    start = torch.tensor([[[0.0, 0.09 * tempo], [0.06 * tempo, 0.0]]])
    path = State(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), start, Friction(parts_3.expand(1, 2, 3))).later(
        CONTEXT
    )
    path[:, 5:, 0] = path[:, 4:5, 0] - (path[:, 5:, 0] - path[:, 4:5, 0])
    weight = torch.ones(1, CONTEXT, 2)
    weight[:, :3, 1] = 0
    size = torch.full((1, 2), 0.05)
    paths = estimate.measure(path * (weight[..., None] > 0), weight, size)
    exists = torch.ones(1, 2, dtype=torch.bool)
    friction, likely_BC = estimate(torch.zeros(1, 2, 1), torch.zeros(1, 1), paths, size, exists)
    assert estimate.tempo[likely_BC[0].argmax()].exp().item() == pytest.approx(tempo)
    assert friction.parts_BN3[0, 0, 0].item() == pytest.approx(parts_3[0].item(), rel=0.2)
    # nothing is seen of what is not there: each tempo is as likely
    _, likely_BC = estimate(torch.zeros(1, 2, 1), torch.zeros(1, 1), paths, size, ~exists)
    assert likely_BC.tolist()[0] == pytest.approx([1 / 8] * 8)


def test_discs_meet_where_and_when_they_touch() -> None:
    line = torch.tensor([[3.0, 0.0], [3.0, 4.0], [0.5, 0.0], [3.0, 0.0]])
    relative = torch.tensor([[-4.0, 0.0], [-4.0, 0.0], [-1.0, 2.0], [1.0, 0.0]])
    contact = find_contact(line, relative, torch.ones(4, 1))
    assert contact.touches[:, 0].tolist() == [1, 0, 1, 0]  # head on, far by, touching already, going away
    assert contact.time[:, 0].tolist() == pytest.approx([0.5, 0.75, 0, 0])
    assert contact.normal[0].tolist() == [1, 0] and contact.normal[1].tolist() == pytest.approx([0, 1])
    assert contact.gap[:, 0].tolist() == pytest.approx([0, 3, -0.5, 2])
    assert contact.normal_speed[:, 0].tolist() == pytest.approx([-4, 0, -1, 1])
    assert contact.tangential_speed[0].item() == 0 and contact.tangential_speed[2].item() == pytest.approx(2)


def test_larger_things_meet_earlier() -> None:
    reach = torch.tensor([[1.0], [1.0]], requires_grad=True)
    line, relative = torch.tensor([[3.0, 0.0], [3.0, 0.99]]), torch.tensor([[-4.0, 0.0], [-4.0, 0.0]])
    (slope,) = torch.autograd.grad(find_contact(line, relative, reach).time.sum(), reach)
    assert slope[0].item() == pytest.approx(-1 / 4)  # head on: the way is shorter by what the reach is longer
    assert slope[1].item() == pytest.approx(-1 / 4 / 0.3)  # discs that graze: bounded


def moving_square() -> Tensor:
    """Returns packed tracks of a square that moves by a pixel per frame."""
    masks = torch.zeros(FRAMES + 3, 48, 64, dtype=torch.uint8)
    for t, mask in enumerate(masks):
        mask[20:30, 5 + t : 15 + t] = 1
    packed = pack_tracks(masks, 3)
    return torch.cat([packed, torch.zeros(*packed.shape[:2], 2)], -1)[None]


def test_the_motion_of_whole_objects_begins_at_the_fitted_velocity_and_learns_it_for_itself() -> None:
    motion = ObjectMotion(8, 3, whole=True)
    packed = moving_square()
    context, target = packed[:, :FRAMES], packed[:, FRAMES:]
    motion.reset_to_constant_velocity()
    _, parts = motion.loss(context, target)
    assert parts["place"].item() < 1e-6 and parts["state"].item() < 1e-6
    motion.reset_to_persistence()
    total, parts = motion.loss(context, target)
    assert parts["place"].item() == pytest.approx(parts["state"].item()) and parts["state"].item() > 0.01
    total.backward()
    assert motion.estimate is not None and motion.estimate.head.weight.grad is not None
    assert motion.estimate.head.weight.grad.abs().sum() > 0
    assert "state" not in ObjectMotion(8, 3).loss(context[..., :8], target[..., :8])[1]
