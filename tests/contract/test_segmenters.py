"""What every segmenter must do; a new config in the union needs a case here."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import pytest
import torch
from pydantic import Field, TypeAdapter
from safetensors.torch import save_file
from tests.toy_segmenter import MemoryConfig
from torch import Tensor
from torch.nn import functional as F

from maskcast.errors import MaskcastError
from maskcast.inference.predictions import Predictions, concatenate
from maskcast.inference.segment import segment, segment_whole
from maskcast.inference.streaming_consistency import StreamingConsistency
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap, single_map
from maskcast.models.encoders.smp import unwrapped
from maskcast.models.segmentation import table
from maskcast.models.segmentation.attributes import fold_parts, share_parts
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.models.segmentation.configs import RecurrentConfig, SegmenterConfig, SmpConfig, UNetConfig
from maskcast.models.segmentation.table import load_masker, save_masker

SMALL, SMALL_VIT = "tu-test_resnet", "tu-test_vit"  # timm's tiny networks for tests
CASES: dict[str, SegmenterModelConfig] = {
    "unet": UNetConfig(width=8),
    "smp_unet": SmpConfig(arch="smp_unet", encoder=SMALL),
    "smp_unetplusplus": SmpConfig(arch="smp_unetplusplus", encoder=SMALL),
    "smp_deeplabv3plus": SmpConfig(arch="smp_deeplabv3plus", encoder="mobilenet_v2"),
    "smp_dpt": SmpConfig(arch="smp_dpt", encoder=SMALL_VIT),
    "recurrent": RecurrentConfig(base=UNetConfig(width=8)),
    "recurrent_logits": RecurrentConfig(base=UNetConfig(width=8), place="logits", cell="lstm"),
    "recurrent_own_outputs": RecurrentConfig(
        base=SmpConfig(arch="smp_unet", encoder=SMALL), place="decoder_split", sees="own_outputs"
    ),
    "memory": MemoryConfig(),  # a segmenter with state, known to these tests alone
}
MORE_DECODERS = (  # of one library and one wrapper: their logits and their cut are tested alone
    "smp_deeplabv3",
    "smp_fpn",
    "smp_linknet",
    "smp_manet",
    "smp_pspnet",
    "smp_segformer",
    "smp_upernet",
)
AND_MEMORY: Any = Annotated[get_args(SegmenterConfig)[0] | MemoryConfig, Field(discriminator="arch")]
FIVE = single_map("abcde")
HAND_AND_HAIR = (
    LabelMap("hand", ("background", "left", "right")),
    LabelMap("hair", ("background", "hair"), "alpha"),
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=CASES)
def config(request: pytest.FixtureRequest) -> SegmenterModelConfig:
    return CASES[request.param]


def frames(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))


def build(config: SegmenterModelConfig, maps: Sequence[LabelMap] = FIVE) -> Any:
    torch.manual_seed(0)
    return config.build(maps).eval()


def test_every_config_of_the_union_has_a_case() -> None:
    archs = {
        arch
        for member in get_args(get_args(SegmenterConfig)[0])
        for arch in get_args(member.model_fields["arch"].annotation)
    }
    assert archs <= {*CASES, *MORE_DECODERS}


@pytest.mark.parametrize("arch", ["smp_unet", "smp_dpt", *MORE_DECODERS])
def test_any_decoder_is_cut_open_and_gives_what_it_gave_whole(arch: str) -> None:
    encoder = SMALL_VIT if arch == "smp_dpt" else SMALL
    base, clip = SmpConfig.model_validate({"arch": arch, "encoder": encoder}), frames(1, 2, 64, 64)
    segmenter = build(RecurrentConfig(base=base, place="decoder"))
    whole = build(base)
    whole.load_state_dict({name: segmenter.state_dict()[name] for name in whole.state_dict()})
    with torch.no_grad():
        (logits,), (alone,), state = segmenter.with_frames_alone(clip)
        torch.testing.assert_close(alone, whole(clip)[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, alone)
    assert len(state) == len(segmenter.state_names) == 1


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_each_map_has_logits_of_the_size_of_the_frames(
    config: SegmenterModelConfig, size: tuple[int, int]
) -> None:
    segmenter = build(config, HAND_AND_HAIR)
    with torch.no_grad():
        (hand, hair), state = segmenter(frames(2, 3, *size))
    assert hand.shape == (2, 3, 3, *size) and hair.shape == (2, 3, 1, *size)
    assert hand.isfinite().all() and hair.isfinite().all()
    assert segmenter.maps == HAND_AND_HAIR
    assert segmenter.stateful == config.stateful == bool(state)
    assert all(len(tensor) == 2 for tensor in state)


@pytest.mark.parametrize("config", [UNetConfig(width=8), SmpConfig(arch="smp_unet", encoder=SMALL)])
def test_mirrored_frames_have_mirrored_logits(config: SegmenterModelConfig, tmp_path: Path) -> None:
    plain, masker, clip = build(config, HAND_AND_HAIR), build(config, HAND_AND_HAIR), frames(2, 3, 33, 47)
    masker.mirror = True
    save_masker(tmp_path, masker, config, {})
    loaded, _ = load_masker(tmp_path)
    with torch.no_grad():
        (alone, turned), (means, means_turned) = (
            [one(x)[0] for x in (clip, clip.flip(3))] for one in (plain, loaded)
        )
        for one, other, mean, mean_turned in zip(alone, turned, means, means_turned, strict=True):
            torch.testing.assert_close(mean, (one + other.flip(4)) / 2)
            torch.testing.assert_close(mean, mean_turned.flip(4))
            assert not torch.allclose(mean, one)
        assert torch.equal(masker.train()(clip)[0][0], plain.train()(clip)[0][0])  # it learns as ever


@pytest.mark.parametrize("arch", ["smp_unet", "smp_unetplusplus", "smp_dpt", *MORE_DECODERS])
def test_one_decoder_gives_both_hands(arch: str) -> None:
    """A softmax over 17 classes for each of two maps: 34 channels of one head."""
    hands = [LabelMap(name, tuple(map(str, range(17)))) for name in ("left", "right")]
    encoder = SMALL_VIT if arch == "smp_dpt" else SMALL
    segmenter = build(SmpConfig.model_validate({"arch": arch, "encoder": encoder}), hands)
    with torch.no_grad():
        (left, right), _ = segmenter(frames(1, 1, 64, 64))
        whole = segmenter.network(segmenter.normalised(frames(1, 1, 64, 64)))
    assert left.shape == right.shape == (1, 1, 17, 64, 64)
    assert torch.equal(torch.cat([left, right], 2)[:, 0], whole)


def test_the_networks_of_system_3_are_configs() -> None:
    """A U-Net with the encoder of Xception, and a U-Net++ with RegNetY of 3.2 GF."""
    for arch, encoder in (("smp_unet", "xception"), ("smp_unetplusplus", "tu-regnety_032")):
        with torch.device("meta"):  # no weights are drawn
            network, _ = SmpConfig.model_validate({"arch": arch, "encoder": encoder}).network(34)
            assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 34, 64, 64)


@pytest.mark.parametrize(
    ("encoder", "multiple"),
    [
        ("vit_small_patch16_dinov3.lvd1689m", 32),
        ("vit_small_patch14_dinov2.lvd142m", 28),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 28),
        ("vit_small_patch8_224.dino", 32),
        ("vit_base_patch16_siglip_224", 32),
    ],
)
def test_any_patch_fits_any_frame_and_every_weight_learns(encoder: str, multiple: int) -> None:
    config = SmpConfig(arch="smp_dpt", encoder=f"tu-{encoder}")
    with torch.device("meta"):
        segmenter: Any = config.build(FIVE)
        (logits,), _ = segmenter(torch.zeros(1, 2, 33, 115, 3, dtype=torch.uint8))
        logits.sum().backward()
        for shape in ((multiple, multiple), (3 * multiple, 4 * multiple)):
            assert segmenter.network.eval()(torch.zeros(1, 3, *shape)).shape == (1, 5, *shape)
    assert logits.shape == (1, 2, 5, 33, 115) and segmenter.multiple == multiple
    assert [name for name, weights in segmenter.named_parameters() if weights.grad is None] == []


def test_positions_of_a_vision_transformer_are_interpolated_to_the_frame() -> None:
    """A grey frame has other tokens at each place: those of corners at any size, and none of them is another's."""
    encoder: Any = build(CASES["smp_dpt"]).network.encoder
    with torch.no_grad():
        encoder.model.pos_embed.mul_(100)  # freshly initialised ones are small
        for values in encoder.model.blocks.parameters():
            values.zero_()  # a token is its position
        small, large = (encoder(torch.zeros(1, 3, *size))[0] for size in ((64, 96), (192, 288)))
    assert small.shape[2:] == (4, 6) and large.shape[2:] == (12, 18)
    places_BC = F.normalize(F.avg_pool2d(large, 3).flatten(2)[0].t()), F.normalize(small.flatten(2)[0].t())
    assert (places_BC[0] @ places_BC[1].t()).argmax(1).tolist() == list(range(24))


def test_clips_of_a_batch_do_not_mix(config: SegmenterModelConfig) -> None:
    segmenter, batch = build(config), frames(2, 3, 64, 64)
    with torch.no_grad():
        (both,), _ = segmenter(batch)
        (alone,), _ = segmenter(batch[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)  # the last bits may depend on the batch


def test_a_clip_in_chunks_is_the_clip_in_one(config: SegmenterModelConfig) -> None:
    segmenter, clip = build(config, HAND_AND_HAIR), frames(7, 32, 32).numpy()

    def agreeing(chunks: list[np.ndarray], batch_size: int) -> list[Predictions]:
        consistency, worker = StreamingConsistency(4), Worker(segmenter, "fp32")
        pieces = segment(worker, chunks, batch_size=batch_size, objects=True)
        return [*chain.from_iterable(map(consistency.add, pieces)), *consistency.end()]

    whole = concatenate(agreeing([clip], batch_size=3))
    for sizes in ((1,) * 7, (2, 0, 5), (7,)):
        chunks = np.split(clip, np.cumsum(sizes)[:-1])
        pieces = agreeing(chunks, batch_size=3)
        assert [len(piece["hand"].masks) for piece in pieces] == [4, 3]
        assert_equal(pieces, whole)
    batches = concatenate(agreeing([clip], batch_size=7))
    assert (batches["hand"].masks == whole["hand"].masks).mean() > 0.999
    assert np.abs(batches["hair"].masks.astype(int) - whole["hair"].masks).max() <= 1


def assert_equal(pieces: list[Predictions], whole: Predictions) -> None:
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([piece[name].masks for piece in pieces]), whole[name].masks)
        if whole[name].confidence is not None:
            found = np.concatenate([piece[name].confidence for piece in pieces])  # type: ignore[misc]
            np.testing.assert_array_equal(found, whole[name].confidence)


def test_masks_are_bytes_and_confidence_is_a_probability(config: SegmenterModelConfig) -> None:
    found = segment_whole(Worker(build(config), "fp32"), frames(2, 64, 64).numpy(), batch_size=2)["mask"]
    assert found.masks.dtype == np.uint8 and found.confidence is not None
    assert found.masks.shape == found.confidence.shape == (2, 64, 64)
    assert (found.confidence >= 1 / 5 - 1e-6).all() and (found.confidence <= 1 + 1e-6).all()
    hair = segment_whole(Worker(build(config, HAND_AND_HAIR[1:]), "fp32"), frames(2, 64, 64).numpy(), batch_size=2)
    assert hair["hair"].masks.dtype == np.uint8 and hair["hair"].confidence is None


def test_it_comes_back_from_disk_as_it_was(
    config: SegmenterModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SegmenterConfig", AND_MEMORY)
    masker = build(config, HAND_AND_HAIR)
    masker.mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
    save_masker(tmp_path, masker, config, {"height": 64})
    loaded, description = load_masker(tmp_path)
    assert loaded.maps == HAND_AND_HAIR and not loaded.training
    assert description["num_classes"] == 3
    assert (
        description["meta"]["classes"] == ["background", "left", "right"] and description["meta"]["height"] == 64
    )
    with torch.no_grad():
        for one, other in zip(loaded(frames(1, 2, 64, 64))[0], masker(frames(1, 2, 64, 64))[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_it_overfits_two_frames(config: SegmenterModelConfig) -> None:
    segmenter = build(config, single_map("abc")).train()
    masks = torch.zeros(2, 48, 48, dtype=torch.long)
    masks[0, 4:24, 4:28], masks[0, 28:44, 20:44] = 1, 2
    masks[1, 20:44, 4:24], masks[1, 4:20, 16:44] = 1, 2
    batch = torch.tensor([[40, 40, 40], [220, 60, 60], [60, 60, 220]], dtype=torch.uint8)[masks]
    rate = 3e-3 if config == CASES["smp_dpt"] else 1e-2  # attention learns nothing from large steps
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=rate)
    for _ in range(30):
        (logits,), _ = segmenter(batch[None])
        loss = F.cross_entropy(logits[0], masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # in training mode: 30 steps are too few for the running statistics of the norms
        (logits,), _ = segmenter(batch[None])
        assert (logits[0].argmax(1) == masks).float().mean() > 0.93


def test_its_head_learns_classes_from_their_parts_and_ends_plain(config: SegmenterModelConfig) -> None:
    attributes = {"side": (None, "left", "right", "left", "right"), "part": (None, "palm", "palm", "arm", "arm")}
    maps = (HAND_AND_HAIR[1], LabelMap("hand", tuple("abcde"), attributes=attributes))
    segmenter, batch = build(config, maps), frames(1, 2, 64, 64)
    names, head = set(segmenter.state_dict()), config.head_of(segmenter)
    share_parts(head, maps)
    (hair, hand), _ = segmenter(batch)
    hand[:, :, 1].sum().backward()  # of the left palm
    shared = {name: one for name, one in segmenter.named_parameters() if name.endswith("shared")}
    for part, learns in enumerate((True, False, True, False)):  # left, right, palm, arm
        assert any(one.grad is not None and bool(one.grad[part].any()) for one in shared.values()) == learns
    with torch.no_grad():
        fold_parts(head)
        assert set(segmenter.state_dict()) == names
        torch.testing.assert_close(list(segmenter(batch)[0]), [hair, hand], rtol=1e-4, atol=1e-4)


def test_configs_survive_yaml_and_json(config: SegmenterModelConfig) -> None:
    assert TypeAdapter(AND_MEMORY).validate_python(config.model_dump(mode="json")) == config


def test_instances_are_refused(config: SegmenterModelConfig) -> None:
    with pytest.raises(
        MaskcastError, match=r"label map 'objects' has kind instances, which maskers do not support"
    ):
        config.build([LabelMap("objects", ("background", "hand"), "instances")])


@pytest.mark.parametrize(("wrong", "close"), [("resnet19", "resnet18"), ("tu-resnet19", "tu-resnet18")])
def test_an_unknown_encoder_is_named_with_what_was_meant(wrong: str, close: str) -> None:
    with pytest.raises(MaskcastError, match=f"{wrong!r} is unknown.*did you mean .*{close!r}"):
        SmpConfig(arch="smp_unet", encoder=wrong).build(FIVE)


def test_an_encoder_that_does_not_fit_is_said() -> None:
    with pytest.raises(MaskcastError, match="'mit_b0' does not fit smp_unetplusplus"):
        SmpConfig(arch="smp_unetplusplus", encoder="mit_b0").build(FIVE)


@pytest.mark.parametrize("arch", ["smp_unet", "smp_deeplabv3plus", "smp_upernet"])
def test_a_vision_transformer_is_refused_by_decoders_of_several_strides(arch: str) -> None:
    line = rf"'tu-vit_small_patch16_dinov3' is a vision transformer.* and {arch} needs several; .* of arch smp_dpt"
    with pytest.raises(MaskcastError, match=line):
        SmpConfig.model_validate({"arch": arch, "encoder": "tu-vit_small_patch16_dinov3"}).build(FIVE)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-convnext_tiny", "tu-swin_tiny_patch4_window7_224"])
def test_dpt_refuses_what_is_no_vision_transformer(encoder: str) -> None:
    line = f"'{encoder}' is no plain vision transformer .* smp_dpt needs; choose one, e.g. 'tu-vit_small_patch16_"
    with pytest.raises(MaskcastError, match=line):
        SmpConfig(arch="smp_dpt", encoder=encoder).build(FIVE)


@pytest.mark.parametrize(("arch", "encoder"), [("smp_unet", SMALL), ("smp_dpt", SMALL_VIT)])
def test_encoder_weights_come_from_a_local_file(arch: Any, encoder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "encoder.safetensors"
    config = SmpConfig(arch=arch, encoder=encoder, encoder_weights=path)
    other, masker = config.build(FIVE), config.build(FIVE)
    state = {
        name: tensor.contiguous() for name, tensor in unwrapped(config.encoder_of(other)).state_dict().items()
    }
    save_file(state, path)
    config.load_pretrained(masker)
    for name, tensor in unwrapped(config.encoder_of(masker)).state_dict().items():
        torch.testing.assert_close(tensor, state[name])
    name = next(iter(state))
    save_file({k: v for k, v in state.items() if k != name}, path)
    with pytest.raises(MaskcastError, match=f"encoder.safetensors: missing weights {name}"):
        config.load_pretrained(masker)
    path.unlink()
    with pytest.raises(MaskcastError, match=r"encoder\.safetensors: not found"):
        config.load_pretrained(masker)


def test_a_model_of_before_label_maps_has_one_called_mask(tmp_path: Path) -> None:
    config = UNetConfig(width=2)
    save_masker(tmp_path, config.build(FIVE), config, {})
    path = tmp_path / "config.json"
    description = json.loads(path.read_text())
    del description["meta"]["maps"]
    path.write_text(json.dumps(description))
    assert load_masker(tmp_path)[0].maps == FIVE
    path.write_text(json.dumps(description | {"meta": {}}))
    with pytest.raises(MaskcastError, match=r"config\.json: no classes or label maps .* train the masker again"):
        load_masker(tmp_path)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"format": "maskcast-model/1", "model": {"arch": "convlstm"}, "num_classes": 2, "meta": {}})
    )
    with pytest.raises(
        MaskcastError, match=r"config\.json: model: 'convlstm' is no installed masker; give the folder"
    ):
        load_masker(tmp_path)


ALL = {**CASES, **{arch: SmpConfig.model_validate({"arch": arch, "encoder": SMALL}) for arch in MORE_DECODERS}}
BEFORE = (LabelMap("mask", ("background", "a", "b")), LabelMap("hair", ("background", "hair"), "alpha"))
AFTER = (
    LabelMap("hair", ("background", "hair"), "alpha"),
    LabelMap("lid", ("background", "lid")),
    LabelMap("mask", ("background", "b", "c", "d")),
)


@pytest.mark.parametrize("arch", [arch for arch in ALL if arch != "recurrent_logits"])
def test_a_start_with_other_classes_keeps_those_of_the_same_name(
    arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SegmenterConfig", AND_MEMORY)
    config, clip = ALL[arch], frames(1, 2, 64, 64)
    trained, segmenter = build(config, BEFORE), build(config, AFTER)
    for part in trained.modules():  # as if it were trained: norms know the frames, logits are large
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        trained.train()(clip)
    trained.eval()
    head = config.head_of(trained)
    assert isinstance(head, torch.nn.Conv2d) and head.bias is not None
    torch.nn.init.normal_(head.weight, std=0.5)
    torch.nn.init.normal_(head.bias)
    save_masker(tmp_path, trained, config, {})
    table.start_from_masker(segmenter, config, tmp_path)
    said = capsys.readouterr().err
    new = "new: background (map lid), lid (map lid), c (map mask), d (map mask); dropped: a (map mask)"
    assert f"trained on other classes, which are matched by name; {new}\n" in said
    with torch.no_grad():
        (mask, hair), _ = trained(clip)
        (hair_after, lid, mask_after), _ = segmenter.eval()(clip)
    torch.testing.assert_close(hair_after, hair, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mask_after[:, :, :2], mask[:, :, [0, 2]], rtol=1e-4, atol=1e-4)
    assert (mask_after.argmax(2) >= 2).float().mean() < 1e-3  # hardly a pixel is of a new class
    assert not torch.equal(lid[:, :, 0], lid[:, :, 1])  # a new map has fresh weights

    segmenter.train()
    optimizer = torch.optim.Adam([weights for weights in segmenter.parameters() if weights.requires_grad], 1e-4)
    truth = torch.full((2, 64, 64), 2)
    losses = []
    for _ in range(5):
        logits, _ = segmenter(torch.cat([clip, clip]))
        loss = F.cross_entropy(logits[2].float().flatten(0, 1), torch.cat([truth, truth]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[1:]) < losses[0]  # the new class is learnt


def test_a_start_with_other_classes_whose_memory_depends_on_them_is_refused(tmp_path: Path) -> None:
    config, said = (
        CASES["recurrent_logits"],
        r"classes differ from .* and memories\.0\.\S+ depends on the classes; use",
    )
    save_masker(tmp_path, build(config, single_map(("background", "a", "b"))), config, {})
    for classes in (("background", "b", "c"), ("background", "b")):
        with pytest.raises(MaskcastError, match=said):
            table.start_from_masker(build(config, single_map(classes)), config, tmp_path)
    base = UNetConfig(width=8)
    save_masker(tmp_path / "base", build(base, single_map(("background", "a", "b"))), base, {})
    segmenter, clip = build(config, single_map(("background", "b", "c"))), frames(1, 2, 32, 32)
    table.start_from_masker(segmenter, config, tmp_path / "base")  # which has no memory yet
    with torch.no_grad():
        before, after = load_masker(tmp_path / "base")[0](clip)[0][0], segmenter(clip)[0][0]
    torch.testing.assert_close(after[:, :, :2], before[:, :, [0, 2]])


@pytest.mark.parametrize(
    ("head_of", "said"),
    [
        (SegmenterModelConfig.head_of, r"and Other does not name its last convolution \(head_name\); use"),
        (lambda _, segmenter: segmenter.look, "and its head, Conv2d, is not a convolution to the logits; use"),
    ],
)
def test_a_start_with_other_classes_needs_a_head_that_is_named(
    head_of: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(MemoryConfig):
        pass

    monkeypatch.setattr(Other, "head_of", head_of)
    monkeypatch.setattr(table, "SegmenterConfig", AND_MEMORY)
    config = Other()
    save_masker(tmp_path, build(config, single_map("ab")), config, {})
    with pytest.raises(MaskcastError, match=f"classes differ from those of the clips, {said}"):
        table.start_from_masker(build(config, single_map("abc")), config, tmp_path)
    table.start_from_masker(build(config, single_map("ab")), config, tmp_path)


def test_a_start_needs_a_class_besides_the_background_and_says_if_that_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CASES["unet"]
    save_masker(tmp_path, build(config, single_map(("background", "a"))), config, {})
    for classes, said in ((("background", "b"), " but the background"), (("void", "b"), "")):
        with pytest.raises(MaskcastError, match=f"and they have no class in common{said}; use"):
            table.start_from_masker(build(config, single_map(classes)), config, tmp_path)
    for classes in (("void", "a"), ("a", "background"), ("background", "a", "b")):
        table.start_from_masker(build(config, single_map(classes)), config, tmp_path)
        told = "class 'void' of map 'mask' comes first, but is new: " in capsys.readouterr().err
        assert told == ("void" in classes)


def test_classes_in_another_order_are_taken_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, clip = CASES["unet"], frames(1, 1, 32, 32)
    save_masker(tmp_path, build(config, single_map("abc")), config, {})
    segmenter = build(config, single_map("cab"))
    table.start_from_masker(segmenter, config, tmp_path)
    assert capsys.readouterr().err.endswith("which are matched by name; in another order\n")
    with torch.no_grad():
        torch.testing.assert_close(segmenter(clip)[0][0][:, :, [1, 2, 0]], load_masker(tmp_path)[0](clip)[0][0])
