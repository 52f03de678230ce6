"""The detector: class ids, frozen norms, levels of the pyramid, encoders, weights on disk."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import MultiScaleRoIAlign, nms

from maskcast.errors import MaskcastError
from maskcast.models.base import save_model
from maskcast.models.detection.configs import FasterRcnnConfig
from maskcast.models.detection.faster_rcnn import FasterRcnn
from maskcast.models.detection.table import load_detector
from maskcast.models.encoders.configs import SmpEncoderConfig
from maskcast.models.encoders.table import save_encoder

SMALL: dict[str, Any] = {
    "encoder": "tu-test_resnet",  # timm's tiny network for tests
    "width": 16,
    "min_size": 64,
    "max_size": 96,
    "anchor_sizes": (8, 16, 24, 32, 48),
    "proposals": 40,
    "rois": 16,
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def config(**changes: Any) -> FasterRcnnConfig:
    return FasterRcnnConfig(**(SMALL | changes))


def build(classes: int = 3, **changes: Any) -> FasterRcnn:
    torch.manual_seed(0)
    return config(**changes).build(classes)


def images() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    sizes = (64, 80), (48, 56)
    return [torch.randint(0, 256, (*size, 3), generator=random, dtype=torch.uint8) for size in sizes]


def truth() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    boxes = [torch.tensor([[4.0, 6, 30, 40], [40, 8, 70, 60]]), torch.tensor([[10.0, 10, 40, 40]])]
    return boxes, [torch.tensor([0, 2]), torch.tensor([0])]


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]


def step(detector: FasterRcnn, times: int = 3) -> None:
    detector.train()
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.01)
    for _ in range(times):
        sum(detector.losses(images(), *truth()).values()).backward()  # type: ignore[union-attr]
        optimizer.step()


@pytest.mark.parametrize("version", [1, 2])
def test_losses_are_finite_and_reach_every_parameter(version: int) -> None:
    detector = build(version=version).train()
    losses = detector.losses(images(), *truth())
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite()
    without = [name for name, weights in detector.named_parameters() if weights.grad is None]
    assert without == []


def test_class_ids_are_shifted_on_the_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = build().train()
    seen: list[Any] = []
    whole: Callable[..., Any] = detector.network.roi_heads.forward  # type: ignore[union-attr, assignment]
    monkeypatch.setattr(
        detector.network.roi_heads, "forward", lambda *args: (seen.append(args[3]), whole(*args))[1]
    )
    labels = truth()[1]
    detector.losses(images(), truth()[0], labels)
    assert [target["labels"].tolist() for target in seen[0]] == [[1, 3], [1]]
    assert labels[0].tolist() == [0, 2]  # the caller's own stay


def test_class_ids_are_shifted_on_the_way_out_and_class_0_can_be_found() -> None:
    detector = build(classes=2).eval()
    predictor = detector.network.roi_heads.box_predictor  # type: ignore[union-attr]
    for wanted in (0, 1):
        nn.init.zeros_(predictor.cls_score.weight)  # type: ignore[union-attr, arg-type]
        predictor.cls_score.bias.data = torch.eye(3)[wanted + 1] * 9  # type: ignore[union-attr]
        with torch.no_grad():
            found = detector(images())
        assert all(set(image["labels"].tolist()) == {wanted} for image in found)


def test_boxes_are_those_of_the_image_that_was_given() -> None:
    detector = build(min_size=96, max_size=200).eval()
    with torch.no_grad():
        found = detector(images())
    for image, one in zip(images(), found, strict=True):
        height, width = image.shape[:2]
        assert len(one["boxes"]) == len(one["scores"]) == len(one["labels"]) > 0
        assert (one["boxes"].max(0).values <= torch.tensor([width, height, width, height])).all()
        assert one["boxes"][:, 2].max() > width / 2  # and not of one shrunk or grown
        assert (one["scores"].diff() <= 0).all()


@pytest.mark.parametrize("size", [(1, 3000), (3000, 2), (1, 100)])
def test_images_too_long_to_be_resized_are_refused(size: tuple[int, int]) -> None:
    detector = build(min_size=64, max_size=100).eval()
    thin = torch.zeros(*size, 3, dtype=torch.uint8)
    with pytest.raises(
        MaskcastError, match=rf"an image of {size[0]} x {size[1]}: aspect ratio must be below 100 "
    ):
        detector([torch.zeros(9, 9, 3, dtype=torch.uint8), thin])
    assert len(detector([thin[:99, :99]])) == 1


def test_images_without_boxes_train() -> None:
    detector = build().train()
    none = [torch.zeros(0, 4), torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)] * 2
    losses = detector.losses(images(), *none)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    sum(losses.values()).backward()  # type: ignore[union-attr]


def test_frozen_norms_stay_equal_in_training_mode() -> None:
    detector = build(norm="frozen")
    before = {name: value.clone() for name, value in detector.encoder.state_dict().items()}
    kept = {id(value) for norm in norms(detector.encoder) for value in norm.parameters()}
    step(detector)
    assert detector.training and norms(detector.encoder)
    frozen = [name for name, value in detector.encoder.named_parameters() if id(value) in kept]
    frozen += [name for name, _ in detector.encoder.named_buffers()]
    now = detector.encoder.state_dict()
    assert all(torch.equal(now[name], before[name]) for name in frozen)
    assert any(not torch.equal(now[name], before[name]) for name in now)  # the convolutions learn


def test_norms_train_where_they_are_not_frozen() -> None:
    detector = build(norm="sync", version=2)
    means = [norm.running_mean.clone() for norm in norms(detector)]  # type: ignore[union-attr]
    step(detector)
    assert len(norms(detector)) > len(norms(detector.encoder))  # those of version 2's heads and pyramid
    assert all(not torch.equal(a, b.running_mean) for a, b in zip(means, norms(detector), strict=True))  # type: ignore[arg-type]


def test_all_levels_of_the_pyramid_feed_the_box_head() -> None:
    pool = build().network.roi_heads.box_roi_pool  # type: ignore[union-attr]
    assert isinstance(pool, MultiScaleRoIAlign)
    assert pool.featmap_names == ["0", "1", "2", "3"]
    maps = {
        name: torch.full((1, 1, side, side), float(k), requires_grad=True)
        for k, (name, side) in enumerate(zip("0123", (256, 128, 64, 32), strict=True))
    }
    boxes = torch.tensor([[0.0, 0, 40, 40], [0, 0, 150, 150], [0, 0, 300, 300], [0, 0, 900, 900]])
    pooled = pool(maps, [boxes], [(1024, 1024)])
    assert pooled.mean((1, 2, 3)).tolist() == pytest.approx([0, 1, 2, 3])


def test_anchors_are_those_of_the_params() -> None:
    generator = build().network.rpn.anchor_generator  # type: ignore[union-attr]
    assert generator.sizes == ((8,), (16,), (24,), (32,), (48,))  # type: ignore[union-attr]


def test_bf16_leaves_pixels_of_boxes_as_exact_as_fp32() -> None:
    detector = build(min_size=64, max_size=600).eval()
    wide = [torch.randint(0, 256, (64, 600, 3), dtype=torch.uint8)]
    for layer in (
        detector.network.roi_heads.box_predictor.bbox_pred,  # type: ignore[union-attr]
        detector.network.rpn.head.bbox_pred,  # type: ignore[union-attr]
    ):
        nn.init.zeros_(layer.weight)  # type: ignore[union-attr, arg-type]
        nn.init.constant_(layer.bias, 0.03)  # type: ignore[union-attr, arg-type]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        boxes = detector(wide)[0]["boxes"]
    far = boxes[boxes[:, 0] > 256]
    assert boxes.dtype == torch.float32
    assert len(far) and (far % 1 != 0).any(0).all()  # bf16 has even numbers alone above 256


@pytest.mark.parametrize("version", [1, 2])
def test_it_comes_back_from_disk_as_it_was(version: int, tmp_path: Path) -> None:
    detector = build(version=version).eval()
    detector.mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
    save_model(tmp_path, detector, config(version=version), num_classes=3, meta={"classes": list("abc")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded, description = load_detector(tmp_path)
    assert description["meta"] == {"classes": list("abc")}
    with torch.no_grad():
        for one, other in zip(loaded(images()), detector(images()), strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2"])
def test_encoders_of_the_library(encoder: str) -> None:
    with torch.no_grad():
        assert len(build(encoder=encoder).eval()(images())) == 2


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(MaskcastError, match=r"'resnet19' is unknown .*did you mean 'resnet18'"):
        build(encoder="resnet19")


def test_a_vision_transformer_is_refused() -> None:
    with pytest.raises(MaskcastError, match=r"'tu-test_vit' is a vision transformer.* fasterrcnn needs several"):
        build(encoder="tu-test_vit")


def test_without_torchvision_it_says_which_image_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models.detection", None)
    with pytest.raises(MaskcastError, match=r"arch 'fasterrcnn' needs torchvision.*use an image with torchvision"):
        build()


def written_encoder(folder: Path, name: str = "tu-test_resnet", method: str = "moco") -> dict[str, torch.Tensor]:
    """Writes an encoder as pretrain_encoder does and returns its state."""
    torch.manual_seed(5)
    encoder_config = SmpEncoderConfig(arch="smp", encoder=name)
    encoder = encoder_config.build()
    meta = {"method": method, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    save_encoder(folder, encoder if method != "none" else None, encoder_config, meta)
    return encoder.state_dict()


def test_it_starts_from_a_pretrained_encoder(tmp_path: Path) -> None:
    state = written_encoder(tmp_path / "encoder")
    detector = build()
    config(norm="frozen").start_from(detector, tmp_path / "encoder")
    assert all(torch.equal(value, state[name]) for name, value in detector.encoder.state_dict().items())
    assert detector.mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert detector.std.tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_an_encoder_of_method_none_changes_nothing(tmp_path: Path) -> None:
    written_encoder(tmp_path / "encoder", method="none")
    detector = build()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    config().start_from(detector, tmp_path / "encoder")
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_an_encoder_of_another_architecture_is_refused_with_both_keys(tmp_path: Path) -> None:
    written_encoder(tmp_path / "encoder", name="resnet18")
    with pytest.raises(
        MaskcastError, match=r"pretrain_encoder\.model.*resnet18.*train_detector\.model.*test_resnet"
    ):
        config().start_from(build(), tmp_path / "encoder")


def test_it_starts_from_a_local_file(tmp_path: Path) -> None:
    state = written_encoder(tmp_path / "encoder")
    path = tmp_path / "encoder/model.safetensors"
    detector = build()
    config(encoder_weights=path).start_from(detector, None)
    assert all(torch.equal(value, state[name]) for name, value in detector.encoder.state_dict().items())
    with pytest.raises(MaskcastError, match=r"model\.encoder_weights .* both hold weights"):
        config(encoder_weights=path).start_from(build(), tmp_path / "encoder")
    save_file({"odd": torch.zeros(1)}, path)
    with pytest.raises(MaskcastError, match=r"model\.safetensors: missing weights"):
        config(encoder_weights=path).start_from(build(), None)


def test_norms_that_never_learned_are_not_frozen() -> None:
    with pytest.raises(MaskcastError, match=r"model\.norm 'frozen' needs pretrained batch norms"):
        config(norm="frozen").start_from(build(norm="frozen"), None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 3},
        {"anchor_sizes": (8, 16)},
        {"anchor_sizes": (0, 8, 16, 24, 32)},
        {"anchor_sizes": (64, 32, 16, 8, 4)},
        {"min_size": 200, "max_size": 100},
        {"norm": "none"},
        {"backbone": "resnet18"},
    ],
)
def test_params_refuse_what_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        config(**wrong)


def test_numbers_may_come_as_kubeflow_hands_them_over() -> None:
    assert config(version=2.0, anchor_sizes=[8.0, 16.0, 24.0, 32.0, 48.0]) == config()


def test_a_batch_at_once_has_the_losses_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all are drawn, so that nothing depends on which; an image without boxes among them."""

    def kept(boxes_BN4: torch.Tensor, valid_BN: torch.Tensor, threshold: float) -> torch.Tensor:
        keep = torch.zeros_like(valid_BN)
        for image, (boxes, valid) in enumerate(zip(boxes_BN4, valid_BN, strict=True)):
            own = valid.nonzero().flatten()
            keep[image, own[nms(boxes[own], -own.float(), threshold)]] = True
        return keep

    kernels = SimpleNamespace(keep_by_nms=kept)
    monkeypatch.setitem(sys.modules, "maskcast.models.kernels.suppression", kernels)
    detector = build(rois=10**4, version=1).train()
    detector.network.rpn.fg_bg_sampler.batch_size_per_image = 10**6  # type: ignore[union-attr]
    detector.network.rpn.min_size = 4.0  # type: ignore[union-attr]  # a cell; smaller ones reach beyond the border
    pictures, (boxes, labels) = [*images(), images()[1]], truth()
    boxes, labels = [*boxes, torch.zeros(0, 4)], [*labels, torch.zeros(0, dtype=torch.int64)]
    found = []
    for at_once in (False, True):
        monkeypatch.setattr(FasterRcnn, "same_each_step", at_once)
        detector.zero_grad()
        losses = detector.losses(pictures, boxes, labels)
        torch.stack(list(losses.values())).sum().backward()
        grads = {name: weights.grad for name, weights in detector.named_parameters() if weights.grad is not None}
        found.append((losses, grads))
    for own, wanted in zip(found[1], found[0], strict=True):
        assert own.keys() == wanted.keys()
        for name in own:
            torch.testing.assert_close(own[name], wanted[name], rtol=1e-3, atol=1e-5)
