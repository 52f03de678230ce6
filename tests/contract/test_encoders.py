"""An encoder's weights load by name, with every key checked, wherever they are to be used."""

from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
import torchvision
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import nn

from maskcast.errors import MaskcastError
from maskcast.labels import single_map
from maskcast.models.encoders.configs import EncoderConfig, SmpEncoderConfig, UNetEncoderConfig
from maskcast.models.encoders.smp import unwrapped
from maskcast.models.encoders.table import load_encoder, load_into, save_encoder
from maskcast.models.segmentation.configs import SegmenterConfig

META = {"method": "moco", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
CONFIGS: dict[str, Any] = {
    "unet": UNetEncoderConfig(width=4),
    "resnet18": SmpEncoderConfig(arch="smp", encoder="resnet18"),
    "mobilenet_v2": SmpEncoderConfig(arch="smp", encoder="mobilenet_v2"),
    "timm": SmpEncoderConfig(arch="smp", encoder="tu-test_resnet"),
    "vit": SmpEncoderConfig(arch="smp", encoder="tu-test_vit"),
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_every_encoder_of_the_union_has_a_case() -> None:
    assert {type(config) for config in CONFIGS.values()} == set(get_args(get_args(EncoderConfig)[0]))


def write(folder: Path, config: Any, **meta: Any) -> nn.Module:
    """Writes an encoder with weights of its own and returns it."""
    torch.manual_seed(7)
    encoder = config.build()
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    save_encoder(folder, encoder, config, META | meta)
    return encoder.eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = one.state_dict(), other.state_dict()
    return pairs[0].keys() == pairs[1].keys() and all(
        torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0]
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_it_comes_back_from_disk_with_maps_of_the_sizes_it_says(name: str, tmp_path: Path) -> None:
    encoder = write(tmp_path, CONFIGS[name])
    loaded, description = load_encoder(tmp_path)
    assert same(encoder, loaded) and not loaded.training
    assert description["meta"] == META
    assert TypeAdapter(EncoderConfig).validate_python(description["model"]) == CONFIGS[name]
    with torch.no_grad():
        maps = loaded(torch.zeros(1, 3, 64, 96))
    assert [x.shape[1] for x in maps] == list(loaded.out_channels)  # type: ignore[call-overload]
    assert maps[-1].shape[2:] == (64 // loaded.output_stride, 96 // loaded.output_stride)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("encoder", "masker"),
    [
        ("unet", {"arch": "unet", "width": 4}),
        ("resnet18", {"arch": "smp_unet", "encoder": "resnet18"}),
        ("mobilenet_v2", {"arch": "smp_deeplabv3plus", "encoder": "mobilenet_v2"}),
        ("timm", {"arch": "smp_unetplusplus", "encoder": "tu-test_resnet"}),
        ("vit", {"arch": "smp_dpt", "encoder": "tu-test_vit"}),
    ],
)
def test_a_masker_starts_from_it(encoder: str, masker: dict[str, Any], tmp_path: Path) -> None:
    trained = write(tmp_path, CONFIGS[encoder])
    config: Any = TypeAdapter(SegmenterConfig).validate_python(masker)
    built = config.build(single_map("abc"))
    assert load_into(config.encoder_of(built), tmp_path, config.encoder_config, "train_masker.model")
    assert same(unwrapped(config.encoder_of(built)), unwrapped(trained))


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "tu-resnet18", "tu-test_resnet"])
def test_torchvision_and_timm_load_it(name: str, tmp_path: Path) -> None:
    """Strictly: not a key is missing or left over."""
    write(tmp_path, SmpEncoderConfig(arch="smp", encoder=name))
    weights = load_file(tmp_path / "model.safetensors")
    networks: list[nn.Module] = []
    with torch.device("meta"):  # no time for initial weights
        if not name.startswith("tu-"):
            network = getattr(torchvision.models, name)()
            setattr(network, "fc" if name == "resnet50" else "classifier", nn.Identity())
            networks.append(network)
        if name in ("resnet50", "tu-resnet18"):
            networks.append(timm.create_model(name.removeprefix("tu-"), num_classes=0))
        if name != "mobilenet_v2":
            networks.append(timm.create_model(name.removeprefix("tu-"), features_only=True))
    for network in networks:
        network.load_state_dict(weights, assign=True)


def test_without_a_method_there_are_no_weights_and_nothing_is_loaded(tmp_path: Path) -> None:
    save_encoder(tmp_path, None, CONFIGS["unet"], {"method": "none"})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    other: Any = SmpEncoderConfig(arch="smp", encoder="tu-test_resnet")
    encoder = other.build()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    assert load_into(encoder, tmp_path, other, "train_masker.model") is None
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    torch.manual_seed(1)
    one = load_encoder(tmp_path)[0]
    torch.manual_seed(1)
    assert same(one, UNetEncoderConfig(width=4).build())


def test_another_architecture_names_both_params(tmp_path: Path) -> None:
    write(tmp_path, CONFIGS["unet"])
    line = (
        r"pretrain_encoder\.model is \{arch: unet, width: 4\}, but train_masker\.model needs "
        r"\{arch: unet, width: 8\}; make the two params agree"
    )
    config = UNetEncoderConfig(width=8)
    with pytest.raises(MaskcastError, match=line):
        load_into(config.build(), tmp_path, config, "train_masker.model")


def test_damage_is_said(tmp_path: Path) -> None:
    config = CONFIGS["unet"]
    with pytest.raises(MaskcastError, match=r"config\.json: no such model; give the folder"):
        load_encoder(tmp_path)
    write(tmp_path, config)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(MaskcastError, match="not a file of weights in safetensors"):
        load_encoder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MaskcastError, match="no such file of weights in safetensors"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"format": "maskcast-model/1", "model": {"arch": "convlstm"}, "meta": {}}'
    )
    with pytest.raises(
        MaskcastError, match=r"config\.json: not an encoder .*give the folder that pretrain_encoder wrote"
    ):
        load_encoder(tmp_path)


@pytest.mark.parametrize(("wrong", "close"), [("resnet19", "resnet18"), ("tu-resnet19", "tu-resnet18")])
def test_an_unknown_encoder_is_named_with_what_was_meant(wrong: str, close: str) -> None:
    with pytest.raises(MaskcastError, match=f"{wrong!r} is unknown.*did you mean .*{close!r}"):
        SmpEncoderConfig(arch="smp", encoder=wrong).build()


def test_old_names_of_timms_encoders_are_told_the_new_one() -> None:
    with pytest.raises(MaskcastError, match=r"'timm-skresnet18' is an old name .* mean 'tu-skresnet18'"):
        SmpEncoderConfig(arch="smp", encoder="timm-skresnet18").build()
