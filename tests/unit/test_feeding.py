"""Batches made ahead, by a thread or by processes; numbers that are read late; a batch that does not fit."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests import recorded
from tests.unit.test_loop import Regression
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.models import arithmetic
from maskcast.models.cuda_graphs import GraphedCallable, tensors_of
from maskcast.models.optimizers import AdamW
from maskcast.params import validate
from maskcast.training import learner, loop
from maskcast.training.compiling import MIN_COMPILED_STEPS, CompiledMethods, compile_methods
from maskcast.training.feeding import BatchLoader, num_workers, prefetch_in_processes
from maskcast.training.learner import MAX_GRAPHS, WARM_UP_STEPS
from maskcast.training.loop import fit
from maskcast.training.optimizers import load_state
from maskcast.training.out_of_memory import GpuMemory, estimate_batch_size, take_samples
from maskcast.training.schedule import TrainingParams
from maskcast.training.step_metrics import StepMetricsQueue

PARAMS = TrainingParams(epochs=2, steps_per_epoch=4, batch_size=8, learning_rate=0.02)
CPU = torch.device("cpu")


class InductorError(Exception):
    """An error of the compiler."""


InductorError.__module__ = "torch._inductor.exc"


class Pair(NamedTuple):
    x: Tensor
    more: dict[str, list[Tensor]]


class Pairs(Regression):
    """Says which process made a batch."""

    def batch(self, step: int) -> Any:
        if step == self.killed_at:
            raise MaskcastError("clip 7 is damaged; write it again")
        x, y = super().batch(step)
        return Pair(x, {"y": [y], "process": [torch.tensor(os.getpid())]})


def test_processes_make_the_batches_of_a_thread_in_the_order_of_the_steps() -> None:
    task, steps = Pairs(), range(3, 12)
    made = list(prefetch_in_processes(task, steps, workers=2))
    for step, batch in zip(steps, made, strict=True):
        assert isinstance(batch, Pair) and torch.equal(batch.x, Regression().batch(step)[0])
        assert torch.equal(batch.more["y"][0], Regression().batch(step)[1])
    makers = {int(batch.more["process"][0]) for batch in made}
    assert len(makers) == 2 and os.getpid() not in makers


def test_what_a_worker_raises_is_raised_as_it_is() -> None:
    with pytest.raises(MaskcastError, match=r"^clip 7 is damaged; write it again$"):
        list(prefetch_in_processes(Pairs(killed_at=5), range(8), workers=2))


def test_workers_end_with_the_training(tmp_path: Path) -> None:
    batches = prefetch_in_processes(Pairs(), range(100), workers=2)
    process = int(next(batches).more["process"][0])
    batches.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.parametrize(
    ("processors", "batch_bytes", "batches", "workers"),
    [(16, 1000, 99, 12), (4, 1000, 99, 3), (1, 1000, 99, 0), (16, 10**15, 99, 0), (16, 1000, 2, 2)],
)
def test_how_many_processes_make_batches(processors: int, batch_bytes: int, batches: int, workers: int) -> None:
    assert num_workers(processors, batch_bytes, batches) == workers


def test_a_feed_gives_each_step_its_batch() -> None:
    steps = range(2, 9)
    found = list(BatchLoader(Regression(), steps, CPU))
    assert [step for step, _ in found] == list(steps)
    assert all(torch.equal(batch[0], Regression().batch(step)[0]) for step, batch in found)
    assert list(BatchLoader(Regression(), range(5, 5), CPU)) == []


@pytest.mark.parametrize("late", [0, 2])
def test_numbers_come_in_order_and_all_of_them(late: int) -> None:
    numbers, found = StepMetricsQueue(late), []
    for step in range(5):
        numbers.add(step, torch.tensor(step + 0.5), torch.tensor(1.0), {"a": torch.tensor(step), "b": 0.25})
        read = list(numbers.read())
        assert [each.step for each in read] == ([step - late] if step >= late else [])
        found += read
    found += numbers.read(all_steps=True)
    assert [(each.step, each.loss) for each in found] == [(step, step + 0.5) for step in range(5)]
    assert found[3].logged == {"a": 3.0, "b": 0.25} and list(found[3].logged) == ["a", "b"]


def test_a_loss_that_is_read_late_names_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Diverging(Regression):
        def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
            loss, logged = super().loss(batch, step)
            return loss * (math.nan if step == 4 else 1.0), logged

    monkeypatch.setattr(learner, "StepMetricsQueue", lambda **_: StepMetricsQueue(2))
    task = Diverging()
    with pytest.raises(MaskcastError, match=r"^step 4: loss nan.*lower learning_rate"):
        fit(task, PARAMS.model_copy(update={"steps_per_epoch": 50}), tmp_path)


@pytest.mark.parametrize("late", [0, 2])
def test_reading_late_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    monkeypatch.setattr(learner, "StepMetricsQueue", lambda **_: StepMetricsQueue(late))
    first, second = Regression(), Regression()
    curve = fit(first, PARAMS, tmp_path / "a").curve
    monkeypatch.undo()
    assert fit(second, PARAMS, tmp_path / "b").curve == curve
    for name, weights in first.model.state_dict().items():
        assert torch.equal(weights, second.model.state_dict()[name]), name


class Shaped(nn.Module):
    fixed_shapes = ("inner.forward",)

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_parts_are_compiled_while_they_train() -> None:
    calls = []

    def faster(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            calls.append("compiled")
            return function(*args)

        return run

    model, x = Shaped(), torch.ones(1, 2)
    parts = CompiledMethods([(model.inner, "forward")], faster)
    names = list(model.state_dict())
    plain = model(x)
    parts.on()
    assert torch.equal(model(x), plain) and calls == ["compiled"] and list(model.state_dict()) == names
    parts.off()
    assert torch.equal(model(x), plain) and calls == ["compiled"]


def test_where_the_compiler_fails_training_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*_: Any) -> Any:
            raise InductorError("no ptxas\nand a long story")

        return run

    class Task(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.model.fixed_shapes = ("0.forward",)  # type: ignore[assignment]

    plain, task = Regression(), Task()
    fit(plain, PARAMS, tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            learner, "compile_methods", lambda model, *_, **__: CompiledMethods([(model[0], "forward")], fails)
        )
        fit(task, PARAMS, tmp_path / "b")
    said = [line for line in capsys.readouterr().err.splitlines() if "not compiled" in line]
    assert said == ["training: not compiled: InductorError: no ptxas; set training.compile to false"]
    for name, weights in plain.model.state_dict().items():
        assert torch.equal(weights, task.model.state_dict()[name]), name


def test_what_is_compiled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from maskcast.training import compiling

    def parts(
        choice: Any, device: str = "cuda", *, steps: int = MIN_COMPILED_STEPS, model: Any = None, **place: bool
    ) -> int:
        place = {"single_process": True, "recorded": False} | place
        found = compile_methods(model or Shaped(), choice, torch.device(device), steps=steps, **place)
        return len(found._methods)

    monkeypatch.setattr(compiling, "compile_unsupported_reason", lambda device: None)
    monkeypatch.setattr(compiling, "_compile_static", lambda function: function)
    assert [parts("auto"), parts(True, recorded=True), parts("auto", "cpu")] == [1, 1, 0]
    assert [
        parts("auto", steps=MIN_COMPILED_STEPS - 1),
        parts("auto", single_process=False),
        parts("auto", recorded=True),
    ] == [0, 0, 0]
    assert [parts(True, "cpu", steps=1), parts(False), parts("auto", model=nn.Linear(1, 1))] == [1, 0, 0]
    with pytest.raises(MaskcastError, match=r"compile is true and not possible: no part of this model"):
        parts(True, model=nn.Linear(1, 1))
    monkeypatch.setattr(compiling, "compile_unsupported_reason", lambda device: "no C compiler found; install gcc")
    assert parts("auto") == 0
    assert "training: not compiled: no C compiler found; install gcc" in capsys.readouterr().err
    with pytest.raises(MaskcastError, match=r"^training\.compile is true and not possible: no C compiler found"):
        parts(True)


@pytest.mark.parametrize("value", ["yes", 3, []])
def test_a_wrong_choice_is_told_in_one_line(value: Any) -> None:
    given = PARAMS.model_dump() | {"compile": value}
    with pytest.raises(MaskcastError, match=r"^training\.compile: .*must be auto, true or false, got .*$"):
        validate(TrainingParams, given, "training")
    assert validate(TrainingParams, given | {"compile": 1.0}, "training").compile is True  # as KFP gives it


class Ruler(GpuMemory):
    """A memory, and what was taken of it last."""

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0

    def limit(self) -> int:
        return self.size

    def peak(self, work: Callable[[], None]) -> int:
        work()
        return self.taken


def test_the_batch_that_fits_by_hand() -> None:
    ruler = Ruler(1000)

    def work(size: int) -> None:
        ruler.taken = 100 + 50 * size

    assert estimate_batch_size(work, 64, ruler) == 17  # (950 - 100) / 50
    assert estimate_batch_size(work, 64, ruler, reserved=200) == 13
    assert estimate_batch_size(work, 64, ruler, reserved=2000) is None
    assert estimate_batch_size(work, 2, ruler) is None  # nothing smaller to measure

    def refuses(size: int) -> None:
        raise RuntimeError

    assert estimate_batch_size(refuses, 64, ruler) is None


def test_a_part_of_a_batch() -> None:
    batch = {"images": [torch.zeros(k + 1) for k in range(4)], "pair": Pair(torch.zeros(4, 3), {"y": []})}
    part = take_samples(batch, 2, 4)
    assert len(part["images"]) == 2 and part["pair"].x.shape == (2, 3)
    assert sum(tensor.numel() for tensor in tensors_of(part)) == 1 + 2 + 6


def test_a_batch_that_does_not_fit_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ruler = Ruler(100_000)

    class Hungry(Regression):
        def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
            ruler.taken = 10_000 + 15_000 * len(batch[0])
            if ruler.taken > 100_000:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().loss(batch, step)

    monkeypatch.setattr(learner, "GpuMemory", lambda device: ruler)
    with pytest.raises(
        MaskcastError,
        match=r"^training.batch_size 8 does not fit into the memory of the GPU; lower it to 5, the .*$",
    ):
        fit(Hungry(), PARAMS, tmp_path)


def test_a_batch_that_leaves_no_room_for_the_optimiser_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AdamW, "step", full)
    with pytest.raises(
        MaskcastError, match=r"^training.batch_size 8 does not fit into the memory of the GPU; .*$"
    ):
        fit(Regression(), PARAMS, tmp_path)


def test_what_is_recorded_gives_its_memory_to_a_step_that_does_not_fit_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Growing(Regression):
        """Its last steps need what the recorded ones hold."""

        room = True

        def batch(self, step: int) -> tuple[Tensor, Tensor]:
            x, y = super().batch(step)
            return (x, y) if step < WARM_UP_STEPS + 2 else (x[:4], y[:4])

        def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
            if len(batch[0]) == 4 and self.room:
                self.room = False
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().loss(batch, step)

    monkeypatch.setattr(loop, "Learner", recorded.Learner)
    task = Growing()
    fit(task, PARAMS, tmp_path)
    assert not task.room and "no longer recorded as CUDA graphs" in capsys.readouterr().err


@pytest.mark.parametrize("cause", ["memory", "compiler"])
def test_what_a_loss_counts_itself_is_counted_once_in_a_step_that_is_repeated(
    cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics of norms, and a target that moves: both are further on when the step fails."""

    class Moving(Regression):
        """Fails once if it is told to, at the end of a loss."""

        def __init__(self, fails: bool) -> None:
            super().__init__()
            self.fails = fails
            self.model.register_parameter("target", nn.Parameter(torch.zeros(8, 4), requires_grad=False))

        def batch(self, step: int) -> tuple[Tensor, Tensor]:
            x, y = super().batch(step)
            return (x, y) if step < WARM_UP_STEPS + 2 else (x[:4], y[:4])

        def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
            with torch.no_grad():
                self.model.target.lerp_(self.model[0].weight, 0.5)
            loss, logged = super().loss(batch, step)
            if self.fails and len(batch[0]) == 4:
                self.fails = False
                raise torch.OutOfMemoryError("CUDA out of memory") if cause == "memory" else InductorError("none")
            return loss, logged

    monkeypatch.setattr(loop, "Learner", recorded.Learner if cause == "memory" else learner.Learner)
    made = (CompiledMethods([(nn.Identity(), "forward")], lambda method: method) for _ in range(2))
    if cause == "compiler":
        monkeypatch.setattr(learner, "compile_methods", lambda *_, **__: next(made))
    tasks = [Moving(fails) for fails in (False, True)]
    for task in tasks:
        fit(task, PARAMS, tmp_path / str(task.fails))
    assert not tasks[1].fails
    for name, value in tasks[0].model.state_dict().items():
        assert torch.equal(value, tasks[1].model.state_dict()[name]), name


@pytest.mark.parametrize("room", [True, False])
def test_state_is_copied_once_for_each_kind_of_batch_if_there_is_room(
    room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = 0

    class Full(Tensor):
        """The state, whose copies are counted."""

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal copies
            if func is Tensor.clone:
                copies += 1
                if not room:
                    raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__torch_function__(func, types, args, kwargs or {})

    class WithState(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.model.register_buffer("queue", torch.zeros(4).as_subclass(Full), persistent=False)

        def batch(self, step: int) -> tuple[Tensor, Tensor]:
            x, y = super().batch(step)
            return (x, y) if step < 3 else (x[:4], y[:4])

    compiled = CompiledMethods([(nn.Identity(), "forward")], lambda method: method)
    monkeypatch.setattr(learner, "compile_methods", lambda *_, **__: compiled)
    fit(WithState(), PARAMS, tmp_path)
    assert copies == 2


def test_the_state_of_an_optimiser_moves_between_kinds_of_devices() -> None:
    """That of a GPU says that it is fused, which no other device has to be."""
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    first, second = PARAMS.make_optimizer(model), PARAMS.make_optimizer(other)
    model(torch.ones(1, 2)).sum().backward()
    first.step()
    state = first.state_dict()
    for group in state["param_groups"]:
        group |= {"fused": True, "foreach": False}
    load_state(second, state)
    assert [group["fused"] for group in second.param_groups] == [None, None]
    moments = [each["exp_avg"] for each in second.state.values()]
    assert len(moments) == 2 and all(moment.abs().sum() > 0 for moment in moments)


@pytest.mark.parametrize(
    ("lacking", "said"),
    [("compiler", "no C compiler found; install gcc"), ("headers", "Python's headers are not installed")],
)
def test_what_compiling_lacks_is_said(
    lacking: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic.shutil, "which", lambda name: None if lacking == "compiler" else "/usr/bin/cc")
    monkeypatch.setattr(arithmetic.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    if lacking == "compiler":
        (tmp_path / "Python.h").touch()
    found = arithmetic.compile_unsupported_reason.__wrapped__(CPU)
    assert found is not None and said in found


def test_a_step_that_is_recorded_learns_what_one_that_is_written_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, task = Regression(), Regression()
    curve = fit(plain, PARAMS, tmp_path / "a").curve
    monkeypatch.setattr(loop, "Learner", recorded.Learner)
    assert fit(task, PARAMS, tmp_path / "b").curve == curve
    assert recorded.Learner.recorder.replays == PARAMS.steps - WARM_UP_STEPS
    for name, weights in plain.model.state_dict().items():
        assert torch.equal(weights, task.model.state_dict()[name]), name


def test_what_cannot_be_recorded_runs_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    weight, calls = nn.Parameter(torch.ones(2)), []

    def gradients(batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        calls.append(int(batch[0]))
        loss = (weight * batch.sum()).sum()
        loss.backward()
        return loss.detach(), {}

    def refuses(work: Callable[[], Any]) -> Any:
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    recorded = GraphedCallable(gradients, refuses, parameters=[weight], warm_up_calls=WARM_UP_STEPS)
    for value in range(1, 8):
        weight.grad = None
        loss, _ = recorded(torch.tensor([float(value)]))
        assert float(loss) == 2 * value and weight.grad is not None and float(weight.grad[0]) == value
    assert calls == [1, 2, 3, 4, 4, 5, 6, 7]
    said = "not recorded as a CUDA graph: RuntimeError: operation not permitted when stream is capturing"
    assert capsys.readouterr().err.splitlines() == [said]


def test_steps_are_recorded_for_each_shape_that_comes_often() -> None:
    weight, recorded = nn.Parameter(torch.ones(())), []

    def gradients(batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        loss = weight * batch.sum()
        loss.backward()
        return loss.detach(), {}

    def record(work: Callable[[], Any]) -> Any:
        found = work()
        kept = weight.grad
        assert kept is not None

        def replay() -> None:
            recorded.append(1)
            weight.grad = None
            found[0].copy_(work()[0])
            kept.copy_(weight.grad)

        return found, replay

    recorded_step = GraphedCallable(
        gradients, record, parameters=[weight], warm_up_calls=WARM_UP_STEPS, max_graphs=MAX_GRAPHS
    )
    for k, size in enumerate([2, 3, 2, 5, 2, 3, 2, 2, 3, 3, 2, 3]):
        weight.grad = None
        loss, _ = recorded_step(torch.full((size,), float(k)))
        assert float(loss) == k * size and weight.grad is not None and float(weight.grad) == k * size
    assert len(recorded) == (6 - WARM_UP_STEPS) + (5 - WARM_UP_STEPS)  # 2 came six times, 3 five times, 5 once
