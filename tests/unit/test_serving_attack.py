"""The attack on the server, small: `python tests/attacks/serving.py` is the long form."""

from tests.attacks.serving import BOMBS, HEALTH_S, attack


def test_honest_clients_are_answered_beside_idle_ones_and_bombs() -> None:
    outcome = attack(70, (4, 32, 48))
    assert outcome.answers == {200: 70}
    assert outcome.refusals == {400: len(BOMBS)}
    assert sorted(outcome.health)[len(outcome.health) // 2] < HEALTH_S  # the greatest says how busy the machine is
    assert outcome.peak < outcome.limit
