"""A training that is asked to end leaves a checkpoint of its step, and goes on to the same bits."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.unit.test_loop import PARAMS, Regression
from torch import Tensor

from maskcast.errors import MaskcastError
from maskcast.params import validate
from maskcast.stopping import EXIT_PAUSED, Paused, Stopped, pause_on_signals, raise_on_signals, report_stop
from maskcast.training.checkpoint import STATE
from maskcast.training.loop import fit
from maskcast.training.schedule import TrainingParams


class Asked(Regression):
    """Gets signals in the middle of a step."""

    def __init__(self, at: int, *numbers: int) -> None:
        super().__init__()
        self.at, self.numbers = at, numbers

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        if step == self.at:
            for number in self.numbers:
                signal.raise_signal(number)
        return super().loss(batch, step)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    task = Regression()
    fit(task, PARAMS, tmp_path_factory.mktemp("unbroken"))
    return task.model.state_dict()


def assert_equal(task: Regression, unbroken: dict[str, Tensor]) -> None:
    for name, value in task.model.state_dict().items():
        assert torch.equal(value, unbroken[name]), name


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGTERM,), (signal.SIGUSR1,), (signal.SIGUSR1, signal.SIGTERM), (signal.SIGHUP, signal.SIGHUP)],
)
@pytest.mark.parametrize("at", [0, 6, 14])  # the last one ends an epoch
def test_signals_end_it_after_their_step_and_it_goes_on_to_the_same_bits(
    at: int, numbers: tuple[int, ...], tmp_path: Path, unbroken: dict[str, Tensor]
) -> None:
    with raise_on_signals(), pytest.raises(Paused) as paused:
        fit(Asked(at, *numbers), PARAMS, tmp_path)
    assert (paused.value.code, report_stop(paused.value)) == (EXIT_PAUSED, 75)
    assert torch.load(tmp_path / STATE, weights_only=True)["progress"]["step"] == at + 1
    task = Regression()
    fit(task, PARAMS, tmp_path)
    assert_equal(task, unbroken)


def test_who_reads_that_it_goes_on_may_ask_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: dict[str, Tensor]
) -> None:
    def ask(said: str) -> None:
        assert said == f"resuming at step 4 of {PARAMS.steps}"
        signal.raise_signal(signal.SIGTERM)

    with raise_on_signals(), pytest.raises(Paused):
        fit(Asked(3, signal.SIGTERM), PARAMS, tmp_path)
    with monkeypatch.context() as patch, raise_on_signals(), pytest.raises(Paused):
        patch.setattr("maskcast.training.loop.say", ask)
        fit(Regression(), PARAMS, tmp_path)
    task = Regression()
    fit(task, PARAMS, tmp_path)
    assert_equal(task, unbroken)


def test_a_time_limit_ends_it_again_and_again(tmp_path: Path, unbroken: dict[str, Tensor]) -> None:
    hasty = PARAMS.model_copy(update={"time_limit": 1e-9})
    task, pauses = Regression(), 0
    while True:
        try:
            fit(task, hasty, tmp_path)
            break
        except Paused:
            task, pauses = Regression(), pauses + 1
    assert pauses == PARAMS.steps - 1  # each time a step is done; none is left after the last
    assert_equal(task, unbroken)


def test_a_training_that_has_done_its_last_step_is_not_ended(tmp_path: Path, unbroken: dict[str, Tensor]) -> None:
    task = Asked(PARAMS.steps - 1, signal.SIGUSR1)
    fit(task, PARAMS, tmp_path)
    assert_equal(task, unbroken)


def test_the_limit_is_no_part_of_what_a_run_is() -> None:
    assert "time_limit" not in PARAMS.model_copy(update={"time_limit": 5.0}).model_dump()
    for wrong in (0, -1, "soon"):
        with pytest.raises(MaskcastError, match=r"training\.time_limit: input should be "):
            validate(TrainingParams, PARAMS.model_dump() | {"time_limit": wrong}, "training")


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)]


def test_handlers_of_others_stay_and_all_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before, heard = handlers(), []
    with raise_on_signals():
        with pause_on_signals(None) as asked:
            assert not asked()
            signal.raise_signal(signal.SIGUSR1)
            assert asked()
        signal.raise_signal(signal.SIGTERM)  # heard already: it does nothing
    assert handlers() == before
    with raise_on_signals(), pytest.raises(Stopped) as stopped:
        with pause_on_signals(None):
            pass
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    mine: Callable[..., None] = lambda *_: heard.append(1)  # noqa: E731
    signal.signal(signal.SIGUSR1, mine)
    try:
        with pause_on_signals(None) as asked:
            signal.raise_signal(signal.SIGUSR1)
            assert (heard, asked()) == ([1], False)
        assert signal.getsignal(signal.SIGUSR1) == mine
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_a_closed_terminal_stops_what_nohup_does_not_protect() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with raise_on_signals(), pytest.raises(Stopped) as stopped:
            try:
                signal.raise_signal(signal.SIGHUP)
            finally:
                signal.raise_signal(signal.SIGHUP)  # the shell's and the kernel's
        assert stopped.value.code == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with raise_on_signals(), pause_on_signals(None) as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        with raise_on_signals(), pytest.raises(Stopped):
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
