"""What every loss of classes and every augmentation must do: maskcast's, and those of docs/add-a-model.md."""

import importlib.util
import re
import sys
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tests.conftest import ROOT
from torch import Tensor, nn

from maskcast.data.augment.frames import Augmentation, AugmentParams, augment
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, LabelMap, single_map
from maskcast.models.segmentation.config import LossConfig
from maskcast.models.segmentation.configs import MaskLossConfig
from maskcast.models.segmentation.losses import CustomLoss
from maskcast.seed import rng
from maskcast.training.tasks.segmentation_base import _criterion
from maskcast.training.tasks.segmentation_params import SegmentationTraining

THREE = LabelMap("mask", ("background", "red", "blue"))
MAPS = (THREE, LabelMap("hair", ("background", "hair"), "alpha"))
PAGE = (ROOT / "docs/add-a-model.md").read_text(encoding="utf-8")


def documented(name: str, factory: pytest.TempPathFactory) -> Any:
    """Returns a module of the page."""
    file = factory.mktemp("page") / f"{name}.py"
    (source,) = re.findall(rf"```python\n(# mynets/{name}\.py\n.*?)```", PAGE, re.DOTALL)
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["standard", "dice", "lovasz", "per_image", "buffer"])
def loss(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LossConfig:
    if request.param == "buffer":
        return Weighted()
    if request.param in ("standard", "dice"):
        return MaskLossConfig(dice=1, focal=0, ce=0) if request.param == "dice" else MaskLossConfig()
    return documented("lovasz", tmp_path_factory).LovaszConfig(per_image=request.param == "per_image")


@pytest.fixture(scope="module", params=["standard", "erasing"])
def augmentation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Augmentation:
    values = {"hflip": 0.5, "zoom": (0.8, 1.2), "crop": (20, 24), "noise": 3.0}
    if request.param == "standard":
        return AugmentParams.model_validate(values)
    return documented("erasing", tmp_path_factory).ErasingConfig(**values)


class Weighted(LossConfig):
    def build(self, label_map: LabelMap) -> nn.Module:
        return nn.CrossEntropyLoss(torch.arange(1.0, label_map.num_classes + 1), ignore_index=IGNORE)


def value(config: LossConfig, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the loss as a training computes it, and the gradient of the logits."""
    given = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "learning_rate": 0.1}
    criterion = _criterion(THREE, SegmentationTraining.model_validate({"training": given}), config)
    logits = logits.clone().requires_grad_()
    found = criterion(logits, target)
    found.backward()
    assert logits.grad is not None
    return found.detach(), logits.grad


def sample() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 8, 12), dtype=torch.uint8)
    target[:, :3] = IGNORE
    return torch.randn(2, 3, 8, 12), target


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_is_one_number_that_falls_along_its_gradient(loss: LossConfig, dtype: torch.dtype) -> None:
    logits, target = sample()
    found, gradient = value(loss, logits.to(dtype), target)
    assert found.shape == () and found.dtype == torch.float32 and gradient.isfinite().all()
    better, _ = value(loss, logits - 0.5 * gradient.float() / gradient.float().norm(), target)
    assert better < found


def test_pixels_without_a_label_do_not_count(loss: LossConfig) -> None:
    logits, target = sample()
    found, gradient = value(loss, logits, target)
    assert not gradient[:, :, :3].any() and gradient[:, :, 3:].any()
    other = logits.clone()
    other[:, :, :3] = 7 * torch.randn(2, 3, 3, 12)
    torch.testing.assert_close(value(loss, other, target)[0], found)


def test_a_batch_without_a_label_costs_nothing(loss: LossConfig) -> None:
    logits, target = sample()
    found, gradient = value(loss, logits, torch.full_like(target, IGNORE))
    assert found == 0 and not gradient.any()


def test_every_loss_and_augmentation_of_maskcast_has_a_case() -> None:
    for key, base, known in (("loss", LossConfig, MaskLossConfig), ("augment", Augmentation, AugmentParams)):
        annotation = SegmentationTraining.model_fields[key].annotation
        assert (get_args(annotation) or (annotation,)) == (known,) and issubclass(known, base)


def test_a_loss_that_is_no_number_is_told_so() -> None:
    with pytest.raises(
        MaskcastError, match=r"^train_masker\.loss: CrossEntropyLoss returns a tensor of shape \(2, 8"
    ):
        CustomLoss(nn.CrossEntropyLoss(reduction="none", ignore_index=IGNORE))(*sample())


def a_float(logits: torch.Tensor, target: torch.Tensor) -> float:
    return 1.0


def test_a_loss_that_is_no_tensor_is_told_so() -> None:
    with pytest.raises(
        MaskcastError, match=r"^train_masker\.loss: a_float returns float; return a tensor of one nu"
    ):
        CustomLoss(a_float)(*sample())


def example() -> tuple[np.ndarray, dict[LabelMap, np.ndarray]]:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    return frames, {one: random.integers(0, 3, (2, 30, 40), dtype=np.uint8) for one in MAPS}


def test_an_augmentation_goes_by_its_generator_alone(augmentation: Augmentation) -> None:
    made = [augment(*example(), augmentation, rng(seed)) for seed in (1, 1, 2)]
    (frames, masks), (same, same_masks), (other, _) = made
    assert frames.shape == (2, 20, 24, 3) and tuple(masks) == MAPS
    assert (frames == same).all() and all((masks[one] == same_masks[one]).all() for one in MAPS)
    assert (frames != other).any()


def test_an_augmentation_leaves_the_clip_alone(augmentation: Augmentation) -> None:
    frames, masks = example()
    augment(frames, masks, augmentation, rng(0))
    before, masks_before = example()
    assert (frames == before).all() and all((masks[one] == masks_before[one]).all() for one in MAPS)


def test_an_own_augmentation_comes_after_the_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    erasing = documented("erasing", tmp_path_factory).ErasingConfig(share=0.9, noise=20.0)
    frames, masks = augment(*example(), erasing, rng(3))
    plain, plain_masks = augment(*example(), AugmentParams(noise=20.0), rng(3))
    hidden = (frames == 127).all((0, 3))
    assert hidden.sum() > 20 and (frames[:, ~hidden] == plain[:, ~hidden]).all()
    assert all((masks[one] == plain_masks[one]).all() for one in MAPS)


class Wider(Augmentation):
    def change(self, frames_THWC: np.ndarray, masks: Any, random: np.random.Generator) -> Any:
        return frames_THWC / 255, masks


def test_an_augmentation_that_changes_the_form_is_told_so() -> None:
    frames, _ = example()
    said = r"^train_masker\.augment: Wider\.change returns frames float64 \(2, 30, 40, 3\), masks 'mask' uint8 \(2"
    with pytest.raises(MaskcastError, match=said + r".*; return frames uint8 \(2, 30, 40, 3\), masks 'mask'"):
        augment(frames, {single_map("abc")[0]: np.zeros((2, 30, 40), np.uint8)}, Wider(), rng(0))


class Returned(Augmentation):
    """Returns what it is told to."""

    make: Any = None

    def change(self, frames_THWC: np.ndarray, masks: Any, random: np.random.Generator) -> Any:
        return self.make(frames_THWC, masks)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda frames, masks: frames, r"Returned\.change returns ndarray; return frames uint8"),
        (
            lambda frames, masks: (None, masks),
            r".* returns \(NoneType, a dict of LabelMap to ndarray, .*\); return frames",
        ),
        (lambda frames, masks: (frames, frames), r".* returns \(ndarray, ndarray\); return frames uint8"),
        (
            lambda frames, masks: (frames, {"mask": frames}),
            r".* returns \(ndarray, a dict of str to ndarray\); return",
        ),
        (lambda frames, masks: None, r"Returned\.change returns NoneType; return frames uint8"),
        (
            lambda frames, masks: (frames, {one: each + 7 for one, each in masks.items()}),
            r"Returned\.change returns class id [789] in masks '\w+'; return ids below 3, or 255 for no label$",
        ),
    ],
)
def test_an_augmentation_that_returns_what_cannot_be_learnt_is_told_so(make: Any, said: str) -> None:
    with pytest.raises(MaskcastError, match=rf"^train_masker\.augment: {said}"):
        augment(*example(), Returned(make=make), rng(0))


def test_an_augmentation_may_take_labels_away() -> None:
    without = Returned(make=lambda frames, masks: (frames, {one: each | IGNORE for one, each in masks.items()}))
    assert all((each == IGNORE).all() for each in augment(*example(), without, rng(0))[1].values())
