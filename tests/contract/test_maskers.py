"""What every masker must do; a new architecture is a new line in CONFIGS."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch.nn import functional as F

from maskcast.errors import MaskcastError
from maskcast.inference.segment import predict_masks
from maskcast.models.base import save_model
from maskcast.models.encoders.smp import bare
from maskcast.models.segmentation.configs import MaskerModelConfig, SegmenterConfig, SmpConfig, UNetConfig
from maskcast.models.segmentation.smp import CLASS_NAMES
from maskcast.models.segmentation.table import load_masker

SMALL = "tu-test_resnet"  # timm's tiny network for tests
CONFIGS = {
    "unet": UNetConfig(width=8),
    "smp_unet": SmpConfig(arch="smp_unet", encoder=SMALL),
    "smp_unetplusplus": SmpConfig(arch="smp_unetplusplus", encoder=SMALL),
    "smp_deeplabv3plus": SmpConfig(arch="smp_deeplabv3plus", encoder="mobilenet_v2"),
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=CONFIGS)
def config(request: pytest.FixtureRequest) -> MaskerModelConfig:
    return CONFIGS[request.param]


def frames(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))


def test_the_table_is_complete() -> None:
    assert set(CONFIGS) == {"unet", *CLASS_NAMES}


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_logits_have_the_size_of_the_frames(config: MaskerModelConfig, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    masker = config.build(num_classes=5).eval()
    with torch.no_grad():
        logits = masker(frames(2, *size))
    assert logits.shape == (2, 5, *size)
    assert logits.isfinite().all()


def test_frames_of_a_batch_do_not_mix_and_masks_are_bytes(config: MaskerModelConfig) -> None:
    torch.manual_seed(0)
    masker = config.build(num_classes=5).eval()
    batch = frames(2, 64, 64).numpy()
    masks, confidence = predict_masks(masker, batch, "fp32")
    alone, _ = predict_masks(masker, batch[1:], "fp32")
    assert masks.dtype == np.uint8
    assert masks.shape == confidence.shape == (2, 64, 64)
    assert (masks[1:] == alone).mean() > 0.999  # the last bits may depend on the batch
    assert (confidence >= 1 / 5 - 1e-6).all() and (confidence <= 1 + 1e-6).all()


def test_it_comes_back_from_disk_as_it_was(config: MaskerModelConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    masker = config.build(num_classes=5).eval()
    masker.mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
    save_model(tmp_path, masker, config, num_classes=5, meta={"classes": list("abcde")})
    loaded, description = load_masker(tmp_path)
    assert description["meta"] == {"classes": list("abcde")}
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(frames(1, 64, 64)), masker(frames(1, 64, 64)), rtol=1e-5, atol=1e-5)


def test_it_overfits_two_frames(config: MaskerModelConfig) -> None:
    torch.manual_seed(0)
    masker = config.build(num_classes=3)
    masks = torch.zeros(2, 48, 48, dtype=torch.long)
    masks[0, 4:24, 4:28], masks[0, 28:44, 20:44] = 1, 2
    masks[1, 20:44, 4:24], masks[1, 4:20, 16:44] = 1, 2
    batch = torch.tensor([[40, 40, 40], [220, 60, 60], [60, 60, 220]], dtype=torch.uint8)[masks]
    optimizer = torch.optim.AdamW(masker.parameters(), lr=1e-2)
    for _ in range(30):
        loss = F.cross_entropy(masker(batch), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # in training mode: 30 steps are too few for the running statistics of the norms
        assert (masker(batch).argmax(1) == masks).float().mean() > 0.93


@pytest.mark.parametrize(("wrong", "close"), [("resnet19", "resnet18"), ("tu-resnet19", "tu-resnet18")])
def test_an_unknown_encoder_is_named_with_what_was_meant(wrong: str, close: str) -> None:
    with pytest.raises(MaskcastError, match=f"{wrong!r} is unknown.*did you mean .*{close!r}"):
        SmpConfig(arch="smp_unet", encoder=wrong).build(2)


def test_an_encoder_that_does_not_fit_is_said() -> None:
    with pytest.raises(MaskcastError, match="'mit_b0' does not fit smp_unetplusplus"):
        SmpConfig(arch="smp_unetplusplus", encoder="mit_b0").build(2)


def test_encoder_weights_come_from_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "encoder.safetensors"
    config = SmpConfig(arch="smp_unet", encoder=SMALL, encoder_weights=path)
    other, masker = config.build(2), config.build(2)
    state = {name: tensor.contiguous() for name, tensor in bare(config.encoder_of(other)).state_dict().items()}
    save_file(state, path)
    config.load_pretrained(masker)
    for name, tensor in bare(config.encoder_of(masker)).state_dict().items():
        torch.testing.assert_close(tensor, state[name])
    name = next(iter(state))
    save_file({k: v for k, v in state.items() if k != name}, path)
    with pytest.raises(MaskcastError, match=f"encoder.safetensors: lacks {name}"):
        config.load_pretrained(masker)
    path.unlink()
    with pytest.raises(MaskcastError, match=r"encoder\.safetensors: cannot be read"):
        config.load_pretrained(masker)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"format": "maskcast-model/1", "model": {"arch": "convlstm"}, "num_classes": 2, "meta": {}})
    )
    with pytest.raises(MaskcastError, match=r"config\.json"):
        load_masker(tmp_path)


def test_configs_survive_yaml_and_json(config: MaskerModelConfig) -> None:
    assert TypeAdapter(SegmenterConfig).validate_python(config.model_dump(mode="json")) == config
