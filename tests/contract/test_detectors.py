"""What every detector must do; a new one of the union needs small params in CASES."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tests.conftest import SMALL_DETECTOR

from maskcast.models.base import save_model
from maskcast.models.detection.base import Detector
from maskcast.models.detection.configs import DetectorConfig, FasterRcnnConfig
from maskcast.models.detection.table import load_detector

CASES: dict[str, Any] = {"fasterrcnn": FasterRcnnConfig(**SMALL_DETECTOR)}
SIZES = ((48, 64), (56, 50))
CLASSES = 3
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=CASES)
def config(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.fixture(scope="module")
def detector(config: Any) -> Detector:
    torch.manual_seed(0)
    return config.build(CLASSES).eval()


def images() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (*size, 3), generator=random, dtype=torch.uint8) for size in SIZES]


def test_every_detector_of_the_union_has_a_case() -> None:
    union = get_args(DetectorConfig)  # of one member there is no union yet
    members = get_args(union[0]) if union else (DetectorConfig,)
    assert {type(config) for config in CASES.values()} == set(members)


def test_boxes_are_those_of_the_image_best_first(detector: Detector) -> None:
    with torch.no_grad():
        found = detector(images())
    for (height, width), image in zip(SIZES, found, strict=True):
        boxes, scores, labels = image["boxes"], image["scores"], image["labels"]
        assert 0 < len(boxes) <= detector.most_boxes and boxes.shape == (len(scores), 4)
        assert (boxes >= 0).all() and (boxes[:, 2:] <= torch.tensor([width, height])).all()
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert labels.dtype == torch.int64 and (labels >= 0).all() and (labels < CLASSES).all()


def test_an_image_without_boxes_has_losses_that_reach_the_encoder(config: Any) -> None:
    torch.manual_seed(0)
    detector = config.build(CLASSES).train()
    boxes = [torch.tensor([[4.0, 6, 30, 40]]), torch.zeros(0, 4)]
    losses = detector.losses(images(), boxes, [torch.tensor([2]), torch.zeros(0, dtype=torch.int64)])
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()
    gradients = [parameter.grad for parameter in detector.encoder.parameters() if parameter.requires_grad]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_it_comes_back_from_disk_as_it_was(config: Any, detector: Detector, tmp_path: Path) -> None:
    save_model(tmp_path, detector, config, num_classes=CLASSES, meta={"classes": list("abc")})
    loaded, description = load_detector(tmp_path)
    assert description["meta"] == {"classes": list("abc")} and not loaded.training
    with torch.no_grad():
        for ours, theirs in zip(detector(images()), loaded(images()), strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in ("boxes", "scores", "labels"))
