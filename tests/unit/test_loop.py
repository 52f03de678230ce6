"""The training loop: exact resume, early stopping, the schedule, and a clear stop when training diverges."""

import io
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import recorded
from tests.conftest import ROOT
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.markup import Html
from maskcast.progress import listening
from maskcast.seed import derive, rng
from maskcast.training import checkpoint, learner, loop
from maskcast.training.checkpoint import Checkpoints
from maskcast.training.dry_run_training import dry_run_training
from maskcast.training.loop import fit
from maskcast.training.schedule import CosineSchedule, Phase, Schedule, SgdCosine, SgdPhases, TrainingParams
from maskcast.training.task import ChunkedTask, Task
from maskcast.training.tasks.segmentation_phases import PhasedTraining, SegmentationPhase

PARAMS = TrainingParams(
    epochs=4, steps_per_epoch=5, batch_size=8, learning_rate=0.02, warmup_steps=2, checkpoint_every=2
)


PARAMS_OF_SGD = SgdCosine(epochs=1, steps_per_epoch=5, batch_size=8, learning_rate=0.02, checkpoint_every=2)


class Killed(BaseException):
    """Stands for SIGKILL in the middle of a step."""


class Kept:
    """A listener that keeps what each training step reports."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        if "train/loss" in values:
            self.steps.append(dict(values))

    def file(self, path: Path, folder: str) -> None:
        raise AssertionError

    def section(self, title: str, content: Html) -> None:
        raise AssertionError


class Regression(Task):
    """Fits a line, with dropout so that torch's random state matters, and batch norm so that buffers do."""

    monitor = "score"

    def __init__(self, fingerprint: str = "a", killed_at: int = -1, scores: list[float] | None = None) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.fingerprint, self.killed_at, self.scores = fingerprint, killed_at, scores

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(rng(1, step).normal(size=(8, 4))).float()
        return x, x.sum(1, keepdim=True)

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        if step == self.killed_at:
            raise Killed
        return (self.model(batch[0]) - batch[1]).square().mean(), {}

    def validate(self) -> dict[str, float]:
        assert not self.model.training
        if self.scores is not None:
            return {"score": self.scores.pop(0)}
        x, y = self.batch(10**6)
        return {"score": -float((self.model(x) - y).square().mean())}


class WithoutGradient(Regression):
    """Loses the gradient on the way to its loss, in step 3."""

    same_each_step = True

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        loss, _ = super().loss(batch, step)
        return loss.detach() if step == 3 else loss, {}


@pytest.mark.parametrize("learner_of", [learner.Learner, recorded.Learner])
def test_a_loss_without_a_gradient_says_so(
    learner_of: type[learner.Learner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "Learner", learner_of)
    with pytest.raises(
        MaskcastError, match=r"^step 3: the loss depends on no weight that trains; .* without detach"
    ):
        fit(WithoutGradient(), PARAMS, tmp_path)


@pytest.mark.parametrize("killed_at", [0, 3, 7, 10, 19])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path: Path, killed_at: int, precision: str) -> None:
    params = PARAMS.model_copy(update={"precision": precision})
    unbroken, killed, resumed = Regression(), Regression(killed_at=killed_at), Regression()
    expected, curve = fit(unbroken, params, tmp_path / "unbroken")
    with pytest.raises(Killed):
        fit(killed, params, tmp_path / "killed")
    scores, resumed_curve = fit(resumed, params, tmp_path / "killed")
    assert scores["score"] == expected["score"] and resumed_curve == curve
    for name, weights in unbroken.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


class Memory(ChunkedTask):
    """Predicts the running sum of 9 numbers, in 3 chunks: memory goes on to the next one, no gradient does."""

    monitor = "score"
    fingerprint = "a"

    def __init__(self, killed_at: int = -1) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.ModuleDict(
            {"cell": nn.GRUCell(1, 6), "drop": nn.Dropout(0.2), "out": nn.Linear(6, 1)}
        )
        self.killed_at = killed_at

    def batch(self, step: int) -> Tensor:
        return torch.from_numpy(rng(1, step).normal(size=(8, 9))).float()

    def chunks(self, batch: Tensor) -> int:
        return 3

    def losses(self, batch: Tensor, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        target, memory = batch.cumsum(1), torch.zeros(len(batch), 6)
        for start in (0, 3, 6):
            if step == self.killed_at and start == 3:
                raise Killed
            loss = torch.zeros(())
            for t in range(start, start + 3):
                memory = self.model["cell"](batch[:, t, None], memory)
                guess = self.model["out"](self.model["drop"](memory))[:, 0]
                loss = loss + (guess - target[:, t]).square().sum() / batch.numel()
            yield loss, {"squares": loss.item() * batch.numel()}
            memory = memory.detach()

    def validate(self) -> dict[str, float]:
        return {"score": -sum(loss.item() for loss, _ in self.losses(self.batch(10**6), -2))}


def test_gradients_of_chunks_add_up_to_one_step(tmp_path: Path) -> None:
    """By hand: a backward pass of each chunk, the clip of their sum, AdamW."""
    kept, by_hand = Kept(), Memory()
    params = PARAMS.model_copy(update={"precision": "fp32", "epochs": 1, "clip_grad_norm": 0.05})
    with listening(kept):
        task = Memory()
        fit(task, params, tmp_path)
    optimizer = params.make_optimizer(by_hand.model)
    for step in range(5):
        by_hand.model.train()
        for group in optimizer.param_groups:
            group["lr"] = params.rate(step)
        torch.manual_seed(derive(params.seed, step))
        total, squares = 0.0, 0.0
        for loss, logged in by_hand.losses(by_hand.batch(step), step):
            loss.backward()
            total, squares = total + loss.item(), squares + logged["squares"]
        learned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(learned, 0.05)
        assert norm > 0.05
        optimizer.step()
        optimizer.zero_grad()
        assert kept.steps[step]["train/loss"] == pytest.approx(total, rel=1e-6)
        assert kept.steps[step]["train/grad_norm"] == pytest.approx(float(norm), rel=1e-6)
        assert kept.steps[step]["train/squares"] == pytest.approx(squares, rel=1e-6)
    for name, weights in by_hand.model.state_dict().items():
        assert torch.equal(weights, task.model.state_dict()[name]), name


@pytest.mark.parametrize("killed_at", [0, 7, 10])
def test_a_run_that_is_killed_between_chunks_ends_like_an_unbroken_one(tmp_path: Path, killed_at: int) -> None:
    unbroken, resumed = Memory(), Memory()
    expected, curve = fit(unbroken, PARAMS, tmp_path / "unbroken")
    with pytest.raises(Killed):
        fit(Memory(killed_at), PARAMS, tmp_path / "killed")
    scores, resumed_curve = fit(resumed, PARAMS, tmp_path / "killed")
    assert scores["score"] == expected["score"] and resumed_curve == curve
    for name, weights in unbroken.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_training_learns(tmp_path: Path) -> None:
    scores, curve = fit(Regression(), PARAMS.model_copy(update={"epochs": 30, "patience": 0}), tmp_path)
    assert scores["score"] > -1.0  # the variance of the target is 4
    assert [epoch["epoch"] for epoch in curve] == list(range(1, 31)) and curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert max(epoch["score"] for epoch in curve) == scores["score"]


def test_training_and_probing_import_no_compiler(tmp_path: Path) -> None:
    """It would take as long to import as all of torch."""
    code = f"""
import sys
from pathlib import Path
from tests.unit import test_loop, test_muon
for name, task, params in (
    ("adamw", test_loop.Regression(), test_loop.PARAMS),
    ("sgd", test_loop.Regression(), test_loop.PARAMS_OF_SGD),
    ("muon", test_muon.Brightness(), test_muon.PARAMS),
):
    test_loop.fit(task, params, Path({str(tmp_path)!r}, name))
    assert not {{'torch._dynamo', 'torch._inductor', 'sympy'}} & sys.modules.keys(), name
import torch
from maskcast.evaluation.probe import classify_linear
classify_linear(torch.eye(2), torch.arange(2), torch.eye(2))
assert 'torch._dynamo' not in sys.modules, "L-BFGS"
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=800)


def test_the_best_weights_are_kept_and_patience_stops(tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"epochs": 5, "patience": 2})
    scores, curve = fit(
        Regression(scores=[0.1, 0.5, 0.4, 0.5, 0.9]), params, tmp_path
    )  # an equal score is no better
    assert (scores["score"], scores["best_epoch"], scores["epochs"]) == (0.5, 2, 4)

    checkpoints = Checkpoints(tmp_path, "a")
    state = checkpoints.load()
    assert state is not None
    state["progress"]["seconds"] += 1000
    checkpoints.save(state)
    again, same_curve = fit(
        Regression(killed_at=state["progress"]["step"]), params, tmp_path
    )  # takes no step more
    assert same_curve == curve and (again["score"], again["epochs"]) == (0.5, 4) and again["train_seconds"] > 1000


@pytest.mark.parametrize(("kind", "ends"), [("plain", 3), ("phases", 6), ("sgd phases", 6), ("burn-in", 5)])
def test_patience_counts_from_the_last_phase_and_after_the_burn_in(kind: str, ends: int, tmp_path: Path) -> None:
    params: Schedule = PARAMS.model_copy(update={"epochs": 8, "patience": 2})
    task = Regression(scores=[0.5] + [0.1] * 7)
    if kind == "phases":
        phases = [SegmentationPhase(epochs=3), SegmentationPhase(epochs=1), SegmentationPhase(epochs=4)]
        params = PhasedTraining(**dict(params), phases=phases)
    if kind == "sgd phases":
        lengths = {key: getattr(params, key) for key in ("steps_per_epoch", "batch_size", "patience")}
        rates = [Phase(learning_rate=0.02, epochs=4), Phase(learning_rate=0.002, epochs=4)]
        params = SgdPhases(**lengths, phases=rates)
    if kind == "burn-in":
        task.burn_in_steps = 11  # in the third epoch of 5 steps
    assert fit(task, params, tmp_path).scores["epochs"] == ends


def test_weights_that_no_epoch_betters_are_kept(tmp_path: Path) -> None:
    task = Regression(scores=[0.9, 0.1, 0.2, 0.3, 0.4])
    start = {name: weights.clone() for name, weights in task.model.state_dict().items()}
    scores, curve = fit(task, PARAMS.model_copy(update={"patience": 0}), tmp_path, validate_start=True)
    assert (scores["best_epoch"], scores["score"], scores["epochs"]) == (0, 0.9, 4)
    assert curve[0] == {"epoch": 0, "score": 0.9} and [epoch["epoch"] for epoch in curve] == [0, 1, 2, 3, 4]
    for name, weights in start.items():
        assert torch.equal(weights, task.model.state_dict()[name]), name


class Doubted(Regression):
    """One whose start is left for the last score alone."""

    def improves_on_start(self) -> bool:
        return not self.scores


def test_a_start_that_must_be_surpassed_is_left_for_what_surely_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Doubted(scores=[0.1, 0.9, 0.8, 0.7, 0.2])
    scores, _ = fit(task, PARAMS, tmp_path, validate_start=True)
    assert (scores["best_epoch"], scores["score"]) == (4, 0.2)
    assert capsys.readouterr().err.count("(not surely better than the start)") == 3


def test_the_start_is_validated_once_though_the_run_was_killed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(Regression(killed_at=7, scores=[0.1, 0.5]), PARAMS, tmp_path, validate_start=True)
    scores, curve = fit(Regression(scores=[0.2, 0.3, 0.4]), PARAMS, tmp_path, validate_start=True)
    assert [epoch["score"] for epoch in curve] == [0.1, 0.5, 0.2, 0.3, 0.4] and scores["best_epoch"] == 1


def test_without_a_monitor_the_last_weights_are_kept(tmp_path: Path) -> None:
    task = Regression(scores=[0.5, 0.1])
    task.monitor = None
    scores = fit(task, PARAMS.model_copy(update={"epochs": 2, "patience": 1}), tmp_path).scores
    assert (scores["score"], scores["best_epoch"]) == (0.1, 2)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = fit(Regression(), PARAMS, tmp_path).scores
    again = Regression(killed_at=0)
    assert fit(again, PARAMS, tmp_path).scores["score"] == first["score"]


def test_a_checkpoint_of_another_run_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Killed):
        fit(Regression(killed_at=7), PARAMS, tmp_path)
    other = Regression(fingerprint="b")
    fit(other, PARAMS, tmp_path)
    fresh = Regression(fingerprint="b")
    fit(fresh, PARAMS, tmp_path / "fresh")
    assert "other params, data or code" in capsys.readouterr().err
    for name, weights in fresh.model.state_dict().items():
        assert torch.equal(weights, other.model.state_dict()[name]), name


def test_a_run_that_is_killed_before_its_first_epoch_goes_on_from_the_last_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = PARAMS.model_copy(update={"steps_per_epoch": 20, "epochs": 1, "checkpoint_every": 1000})
    unbroken, resumed = Regression(), Regression()
    expected, _ = fit(unbroken, params, tmp_path / "unbroken")
    monkeypatch.setattr(checkpoint, "PERIOD_S", 0.0)
    monkeypatch.setattr(checkpoint, "MIN_RATIO", 0.0)
    with pytest.raises(Killed):
        fit(Regression(killed_at=13), params, tmp_path / "killed")
    scores, _ = fit(resumed, params, tmp_path / "killed")
    assert "resuming at step 13 of 20" in capsys.readouterr().err
    assert scores["score"] == expected["score"]
    for name, weights in unbroken.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_a_checkpoint_is_due_each_minute_or_later_if_writing_one_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def due(now: float) -> bool:
        nonlocal clock
        clock = now
        return checkpoints.is_due

    def slow(state: Any, file: Any) -> None:
        nonlocal clock
        clock += 2.0

    clock = 1000.0
    monkeypatch.setattr("maskcast.training.checkpoint.time.monotonic", lambda: clock)
    checkpoints = Checkpoints(tmp_path, "a")
    assert [due(1059.0), due(1060.0)] == [False, True]
    checkpoints.save({"step": torch.tensor(1)})
    assert [due(1119.0), due(1120.0)] == [False, True]
    monkeypatch.setattr("maskcast.training.checkpoint.torch.save", slow)
    checkpoints.save({})  # until 1122
    assert [due(1321.0), due(1322.0)] == [False, True]


def test_a_half_written_checkpoint_is_never_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "a")
    checkpoints.save({"step": torch.tensor(1)})
    (tmp_path / "checkpoint.pt.partial").write_bytes(b"half")
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 1


def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "a")
    weights = torch.arange(100.0)
    checkpoints.save({"weights": weights})
    path = tmp_path / "checkpoint.pt"
    sound = path.read_bytes()
    at = sound.index(weights.numpy().tobytes())
    for start, size in ((at + 40, 1), (at + 64, 64), (at - 8, 100)):
        damaged = bytearray(sound)
        damaged[start : start + size] = bytes(~byte & 255 for byte in sound[start : start + size])
        path.write_bytes(damaged)
        with pytest.raises(MaskcastError, match=rf"{path}: not a checkpoint \(.*remove {tmp_path} and run"):
            checkpoints.load()
    path.write_bytes(sound)
    state = checkpoints.load()
    assert state is not None and torch.equal(state["weights"], weights)


def test_a_kill_between_the_files_of_a_checkpoint_leaves_none_of_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, target: Path) -> Path:
        if target.name == "checkpoint.pt":
            raise KeyboardInterrupt
        return replace(path, target)

    Checkpoints(tmp_path, "other").save({"step": torch.tensor(1)})
    replace = Path.replace
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        Checkpoints(tmp_path, "a").save({"step": torch.tensor(2)})
    assert Checkpoints(tmp_path, "a").load() is None


def test_a_disk_that_was_full_at_the_first_checkpoint_spoils_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        file = really_opened(path, mode, *rest, **options)
        if "fingerprint" in str(path) and "w" in mode:
            file.write = lambda _: os.write(full, b"x")
        return file

    really_opened, full = io.open, os.open("/dev/full", os.O_WRONLY)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(io, "open", opened)
        Checkpoints(tmp_path, "a").save({"step": torch.tensor(1)})
    os.close(full)
    checkpoints = Checkpoints(tmp_path, "a")
    assert checkpoints.load() is None
    checkpoints.save({"step": torch.tensor(2)})
    assert checkpoints.load() == {"step": torch.tensor(2)}


def test_divergence_is_said_with_a_remedy(tmp_path: Path) -> None:
    class Diverging(Regression):
        def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
            loss, logged = super().loss(batch, step)
            return loss * (math.inf if step == 3 else 1.0), logged

    with pytest.raises(MaskcastError, match=r"step 3: .*lower learning_rate"):
        fit(Diverging(), PARAMS, tmp_path)


def test_a_loss_that_is_not_finite_from_the_start_is_not_laid_on_the_learning_rate(tmp_path: Path) -> None:
    class Wrong(Regression):
        def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
            loss, logged = super().loss(batch, step)
            return loss * math.nan, logged

    with pytest.raises(MaskcastError, match=r"^step 0: loss nan, .* so not for the learning rate; check the loss"):
        fit(Wrong(), PARAMS, tmp_path / "loss")
    with pytest.raises(MaskcastError, match=r"^step 0: score nan in validation: not finite before the weights"):
        fit(Regression(scores=[math.nan]), PARAMS, tmp_path / "score", validate_start=True)


@pytest.mark.parametrize(
    ("schedule", "more", "said"),
    [
        (SgdCosine, {}, "step 0: weights that are not finite: training diverged"),  # its loss was
        (PhasedTraining, {"phases": [{"epochs": 1, "rate": 1e30}]}, "step 0: .* too high for float32: training"),
    ],
)
def test_a_last_step_that_ruins_the_weights_is_said(
    tmp_path: Path, schedule: type[CosineSchedule], more: dict[str, Any], said: str
) -> None:
    """They were validated, kept as the best and written."""

    class Steep(Regression):
        def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
            loss, logged = super().loss(batch, step)
            return loss * 1e10, logged

    length = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 8, "learning_rate": 1e30, "clip_grad_norm": None}
    with pytest.raises(MaskcastError, match=said):
        fit(Steep(scores=[0.1]), schedule.model_validate(length | more), tmp_path)


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_a_score_that_is_not_finite_ends_the_training(tmp_path: Path, score: float) -> None:
    """It went into metrics.json and learning.json, where it is no JSON."""
    with pytest.raises(MaskcastError, match=rf"^step 9: score {score} in validation: training diverged; lower"):
        fit(Regression(scores=[0.1, score]), PARAMS, tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_reaches_the_loss_as_it_was_made(tmp_path: Path, precision: str) -> None:
    """Boxes in pixels are floats that bf16 cannot tell apart."""

    class Watching(Regression):
        def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
            assert torch.equal(batch[0], self.batch(step)[0])
            return super().loss(batch, step)

    assert fit(Watching(), PARAMS.model_copy(update={"precision": precision}), tmp_path).scores["epochs"] == 4


def test_schedule_by_hand() -> None:
    params = PARAMS.model_copy(update={"learning_rate": 1.0, "min_learning_rate": 0.2, "warmup_steps": 4})
    assert [params.rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert params.rate(4) == 1.0
    assert params.rate(12) == pytest.approx(0.6)  # half way between 4 and 20
    assert params.rate(20) == pytest.approx(0.2)  # one step after the last


def test_a_rate_that_would_rise_is_refused() -> None:
    values = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "learning_rate": 1e-4, "min_learning_rate": 1e-3}
    with pytest.raises(ValueError, match=r"min_learning_rate 0\.001 is above learning_rate 0\.0001"):
        TrainingParams(**values)
    params = TrainingParams(**values | {"learning_rate": 1e-9, "min_learning_rate": 1e-8, "steps_per_epoch": 9})
    assert {params.rate(step) for step in range(9)} == {1e-9}  # below the default


def test_a_warm_up_that_never_ends_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = PARAMS.steps
    for warmup in (steps, steps + 1):
        fit(Regression(), PARAMS.model_copy(update={"warmup_steps": warmup}), tmp_path / str(warmup))
        warning = f"warning: training.warmup_steps {warmup} is above the {steps} steps"
        assert (warning in capsys.readouterr().err) == (warmup > steps)


class Drawing(Regression):
    """Draws from the random states of NumPy and Python, too."""

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        loss, numbers = super().loss(batch, step)
        return loss * (np.random.rand() + random.random()), numbers


def test_random_numbers_of_numpy_and_python_are_those_of_the_step(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        task = Drawing()
        fit(task, PARAMS, tmp_path / name)
        found.append(task.model.state_dict())
    assert all(torch.equal(weights, found[1][name]) for name, weights in found[0].items())


def test_phases_follow_each_other_after_the_warm_up() -> None:
    phases = [{"learning_rate": 0.4, "epochs": 2}, {"learning_rate": 0.04, "epochs": 1}]
    params = SgdPhases(steps_per_epoch=2, batch_size=1, warmup_steps=2, phases=phases)
    assert params.steps == 6
    assert [params.rate(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.04, 0.04])


def test_sgd_learns_and_spares_biases_and_norms_the_decay(tmp_path: Path) -> None:
    params = SgdCosine(epochs=20, steps_per_epoch=5, batch_size=8, learning_rate=0.02, weight_decay=0.1)
    task = Regression()
    groups = params.make_optimizer(task.model).param_groups
    decays = {group["weight_decay"]: len(group["params"]) for group in groups}
    assert decays == {0.1: 2, 0.0: 4}
    assert fit(task, params, tmp_path).scores["score"] > -2.0  # the variance of the target is 4


@pytest.mark.parametrize("kind", [Regression, Memory])
def test_a_dry_run_takes_steps_of_the_whole_training(kind: type[Any], tmp_path: Path) -> None:
    taken: set[tuple[str, int]] = set()

    class Watched(kind):  # type: ignore[misc]
        def batch(self, step: int) -> Any:
            taken.add(("batch", step))
            return super().batch(step)

        def loss(self, batch: Any, step: int) -> Any:
            taken.add(("loss", step))
            return super().loss(batch, step)

        def losses(self, batch: Any, step: int) -> Any:
            taken.add(("loss", step))
            return super().losses(batch, step)

    curve = dry_run_training(Watched(), PARAMS, tmp_path, validate_start=True).curve
    validated = 10**6, -2  # numbers that `validate` takes
    for what in ("batch", "loss"):
        steps = sorted(step for name, step in taken if name == what and step not in validated)
        assert steps[0] == 0 and steps[-1] == PARAMS.steps - 1 and len(steps) > 5
    assert [row["epoch"] for row in curve] == [0, 1]
