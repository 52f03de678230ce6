"""A discriminator beside a segmenter, and a training in phases."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.two_hands import write_two_hands
from torch import Tensor

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.segmentation.discriminator import Discriminator, predicted_maps, true_maps
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.learner import Learner
from maskcast.training.loop import fit
from maskcast.training.processes import Processes
from maskcast.training.tasks.segmentation import FrameTask
from maskcast.training.tasks.segmentation_adversarial import Adversary

TWO = [LabelMap("left", ("background", "a", "b")), LabelMap("right", ("background", "a", "b"))]
PARAMS: dict[str, Any] = {
    "model": {"arch": "unet", "width": 4},
    "maps": ["left", "right"],
    "loss": {"ce": 0.35, "dice": 0.65, "focal": 0, "class_weights": [0.1, 1, 0.8]},
    "adversarial": {"width": 4},
    "training": {"epochs": 2, "steps_per_epoch": 3, "batch_size": 2, "learning_rate": 1e-2, "checkpoint_every": 2},
}


def params(**changes: Any) -> TrainMasker:
    return TrainMasker.model_validate(PARAMS | changes)


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return write_two_hands(tmp_path_factory.mktemp("hands") / "clips")


def test_the_discriminator_is_that_of_system_3() -> None:
    network = Discriminator(34, 32)
    assert network(torch.zeros(1, 34, 128, 128)).shape == (1, 1, 5, 5)
    convolutions = [layer for layer in network if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [32, 64, 128, 256, 1]
    assert all(layer.kernel_size == (4, 4) for layer in convolutions)


def test_maps_by_hand() -> None:
    masks = [torch.tensor([[[2, 255]]], dtype=torch.uint8), torch.tensor([[[0, 1]]], dtype=torch.uint8)]
    assert true_maps(masks, [3, 2])[0, :, 0].tolist() == [[0, 0], [0, 0], [1, 0], [1, 0], [0, 1]]
    logits = [torch.zeros(1, 3, 1, 2), torch.tensor([[[[0.0, 0.0]], [[0.0, 3.0]]]]).log1p()]
    found = predicted_maps(logits, masks)[0, :, 0]
    assert found[:3].tolist() == [pytest.approx([1 / 3, 0])] * 3
    assert found[3:].tolist() == [pytest.approx([0.5, 0.2]), pytest.approx([0.5, 0.8])]


def test_the_gradient_reaches_the_segmenter_and_is_the_finite_difference() -> None:
    """System 3 took the argmax first: there the gradient was 0."""
    torch.manual_seed(0)
    adversary = Adversary(TWO, (64, 64), width=2)
    adversary.discriminator.double()
    masks = [torch.randint(0, 3, (2, 64, 64)).to(torch.uint8) for _ in TWO]
    logits = [torch.randn(2, 3, 64, 64, dtype=torch.float64, requires_grad=True) for _ in TWO]

    def taught() -> Tensor:
        both, numbers = adversary.loss(logits, masks, 1.0)
        return both - numbers["discriminator"]

    taught().backward()
    ways = [torch.randn_like(each) for each in logits]
    slope = sum(float((each.grad * way).sum()) for each, way in zip(logits, ways, strict=True))  # type: ignore[operator]
    ends = []
    for move in (1e-6, -2e-6):
        for each, way in zip(logits, ways, strict=True):
            each.data += move * way
        ends.append(taught().item())
    assert abs(slope) > 1e-6
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_each_learns_from_its_own_loss_alone() -> None:
    torch.manual_seed(0)
    adversary = Adversary(TWO, (64, 64), width=2)
    masks = [torch.randint(0, 3, (2, 64, 64)).to(torch.uint8) for _ in TWO]
    logits = [torch.randn(2, 3, 64, 64, requires_grad=True) for _ in TWO]
    grads = []
    for weight in (0.0, 5.0):
        adversary.discriminator.zero_grad()
        adversary.loss(logits, masks, weight)[0].backward()
        grads.append([each.grad.clone() for each in adversary.discriminator.parameters() if each.grad is not None])
        if not weight:
            assert all(each.grad is not None and not each.grad.any() for each in logits)
    assert all(each.grad is not None and each.grad.any() for each in logits)
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


def test_the_gradient_of_each_network_is_clipped_by_its_own_norm(hands: ClipStore) -> None:
    """Not the segmenter's by the discriminator's, which is much greater."""
    norms = {}
    for limit in (None, 0.05):
        known = params(training=PARAMS["training"] | {"clip_grad_norm": limit, "precision": "fp32"})
        task, taken = FrameTask(hands, known, "x"), {}
        networks = {"segmenter": task.student, "discriminator": task.adversary.discriminator}  # type: ignore[union-attr]
        optimizer = known.schedule.make_optimizer(task.model)

        def keep(*_: Any, networks: Any = networks, taken: dict[str, float] = taken) -> None:
            for name, network in networks.items():
                grads = [each.grad for each in network.parameters() if each.grad is not None]
                taken[name] = float(torch.nn.utils.get_total_norm(grads))

        optimizer.step = keep  # type: ignore[method-assign, assignment]
        learner = Learner(task, known.schedule, Processes("fp32"), optimizer, 1)
        learner.step(0, task.batch(0))
        (metrics,) = learner.metrics.read(all_steps=True)
        norms[limit] = taken | {"logged": metrics.norm}
    whole = norms[None]
    assert all(whole[name] > 0.05 for name in ("segmenter", "discriminator"))
    assert whole["logged"] == pytest.approx((whole["segmenter"] ** 2 + whole["discriminator"] ** 2) ** 0.5)
    assert norms[0.05] == pytest.approx(
        {"segmenter": 0.05, "discriminator": 0.05, "logged": whole["logged"]}, rel=1e-4
    )


def test_the_discriminator_tells_shuffled_parts_from_true_ones(hands: ClipStore) -> None:
    """What it is shown as found has the parts of a hand in each other's place, as sure as the truth."""
    torch.manual_seed(0)
    task = FrameTask(hands, params(training=PARAMS["training"] | {"batch_size": 4}), "x")
    assert task.adversary is not None
    optimizer = torch.optim.Adam(task.adversary.discriminator.parameters(), lr=2e-3)

    def pair(step: int) -> tuple[list[Tensor], list[Tensor]]:
        masks = [each.flatten(0, 1) for each in task.batch(step).masks]
        moved = [torch.tensor([0, 2, 1])[each.long()] for each in masks]  # palm and finger change places
        sure = [20 * torch.nn.functional.one_hot(each, 3).movedim(-1, 1).float() for each in moved]
        return sure, masks

    pairs = [pair(step) for step in range(4)]
    for step in range(16):
        loss, _ = task.adversary.loss(*pairs[step % 4], 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found, masks = pair(99)
    own = task.adversary.discriminator
    with torch.no_grad():
        assert own(predicted_maps(found, masks)).max() < own(true_maps(masks, [3, 3])).min()


def test_an_adversarial_training_ends_with_a_masker_and_goes_on_exactly(hands: ClipStore, tmp_path: Path) -> None:
    whole, broken = FrameTask(hands, params(), "x"), FrameTask(hands, params(), "x")
    fit(whole, params().schedule, tmp_path / "whole")

    once, draw = [4], broken.batch

    def batch(step: int) -> Any:
        if step in once:
            once.clear()
            raise InterruptedError
        return draw(step)

    broken.batch = batch  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        fit(broken, params().schedule, tmp_path / "broken")
    again = FrameTask(hands, params(), "x")
    fit(again, params().schedule, tmp_path / "broken")
    assert any(name.startswith("discriminator.") for name in whole.model.state_dict())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert not any("discriminator" in name for name in whole.segmenter.state_dict())


def test_phases_change_data_loss_weight_and_rate() -> None:
    phases = [
        {"epochs": 1, "generated": 1},
        {"epochs": 2, "generated": 0, "adversarial": 0.3, "rate": 0.5, "loss": {"ce": 1, "dice": 0, "focal": 0}},
        {"epochs": 1},
    ]
    training = PARAMS["training"] | {"epochs": 4, "min_learning_rate": 1e-2}
    known = params(training=training, generated={"share": 0.25}, phases=phases)
    steps = (0, 2, 3, 8, 9, 11)
    assert [known.phase(step) for step in steps] == [0, 0, 1, 1, 2, 2]
    assert [known.generated_share(step) for step in steps] == [1, 1, 0, 0, 0.25, 0.25]
    assert [known.adversarial_weight(step) for step in steps] == [None, None, 0.3, 0.3, None, None]
    assert [known.schedule.rate(step) for step in steps] == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.01, 0.01])
    assert params().adversarial_weight(0) == 0.1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phases": [{"epochs": 1}]}, "phases: have 1 epoch, training.epochs is 2"),
        ({"phases": [{"epochs": 2, "generated": 1}]}, "phases[0].generated: needs generated masks"),
        (
            {"adversarial": None, "phases": [{"epochs": 2, "adversarial": 0.1}]},
            "phases[0].adversarial: needs a discriminator",
        ),
        ({"generated": {}}, "adversarial: no phase trains on true masks alone"),
        ({"recoloured": {"attributes": ["color"]}}, "not supported with recoloured"),
    ],
)
def test_params_that_contradict_each_other(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        params(**changes)
    (error,) = caught.value.errors()
    assert said in error["msg"] and "\n" not in error["msg"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"augment": {"crop": [48, 64]}}, "samples of 48x64 are too small for its discriminator"),
        ({"loss": {"class_weights": [1, 2]}}, "class_weights: has 2 weights, map 'left' has 3 classes"),
        ({"maps": ["left", "middle"]}, "no label map 'middle'"),
    ],
)
def test_data_that_do_not_fit(hands: ClipStore, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MaskcastError, match=r"^[^\n]+$") as caught:
        FrameTask(hands, params(**changes), "x")
    assert said in str(caught.value)


def test_an_adversary_needs_classes() -> None:
    with pytest.raises(MaskcastError, match="needs a label map of kind classes, got hair"):
        Adversary([LabelMap("hair", ("background", "hair"), "alpha")], (64, 64), 4)
