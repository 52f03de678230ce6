"""encoder_weights: from a hub on this machine, its cache, files, and what is said where there are none."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import save, save_file
from tests.hub import COMMIT, Hub
from tests.registered import FACTS

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.labels import single_map
from maskcast.models.detection.configs import FasterRcnnConfig
from maskcast.models.encoders.configs import SmpEncoderConfig
from maskcast.models.encoders.pretrained import Pretrained
from maskcast.models.encoders.smp import hub_location
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.configs import SmpConfig
from maskcast.models.segmentation.table import load_masker
from maskcast.params import params_hash
from maskcast.registry.card import model_card
from maskcast.registry.evaluations import FORECASTS, EvaluationRecord
from maskcast.registry.kinds import ForecastDescription

TIMM, SMP = "tu-test_resnet", "mobilenet_v2"
REPO = "timm/test_resnet.r160_in1k"
MASKER = ForecastDescription(kind="masker", **FACTS)
RECORD = EvaluationRecord("", FORECASTS, {"context": "generated", "data": ""}, {}, {}, {})
COLOURS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Weights as timm publishes them: of the whole classifier, by timm's own names."""
    torch.manual_seed(7)
    return timm.create_model("test_resnet").state_dict()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def files(published: dict[str, torch.Tensor]) -> dict[str, bytes]:
    config = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": COLOURS}
    return {
        f"{REPO}/model.safetensors": save(published),
        f"{REPO}/config.json": json.dumps(config).encode(),
        "somebody/pickled/pytorch_model.bin": b"pickle",
        "somebody/bare/model.safetensors": save(published),
    }


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(files) as hub:
        hub.take_over(monkeypatch, tmp_path / "cache")
        yield hub


def start(weights: object, encoder: str = TIMM, **more: object) -> tuple[Segmenter, Pretrained]:
    config = SmpConfig.model_validate({"arch": "smp_unet", "encoder": encoder, "encoder_weights": weights} | more)
    masker = config.build(single_map("abc"))
    loaded = config.load_pretrained(masker)
    assert loaded is not None
    return masker, loaded


def first_weights(masker: Segmenter) -> torch.Tensor:
    state = masker.get_submodule("network.encoder.model").state_dict()
    return next(value for name, value in state.items() if name.endswith("weight"))


@pytest.mark.parametrize("weights", ["pretrained", f"hf-hub:{REPO}@main", f"hf-hub:{REPO}@{COMMIT}"])
def test_timms_weights_come_from_the_hub_pinned_by_revision_and_digest(
    hub: Hub, published: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str], weights: str
) -> None:
    masker, loaded = start(weights)
    torch.testing.assert_close(first_weights(masker), next(iter(published.values())), rtol=0, atol=0)
    digest = hashlib.sha256(hub.files[f"{REPO}/model.safetensors"]).hexdigest()
    assert loaded.record == {"origin": f"hf-hub:{REPO}@{COMMIT}", "sha256": digest}
    assert loaded.colours == (COLOURS["mean"], COLOURS["std"])
    said = capsys.readouterr().err
    assert f"starts from hf-hub:{REPO}@{COMMIT} (sha256 {digest})" in said
    assert ("is commit" in said) == (weights[-40:] != COMMIT)  # what moves is said with what to pin
    start(weights, encoder_sha256=digest)
    with pytest.raises(MaskcastError, match=rf"is {digest}, expected {'0' * 64} \(model\.encoder_sha256\)"):
        start(weights, encoder_sha256="0" * 64)


def test_what_is_in_the_cache_needs_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    first, _ = start("pretrained")
    asked = len(hub.asked)
    again, _ = start(f"hf-hub:{REPO}@{COMMIT}")  # a commit never changes
    assert len(hub.asked) == asked and torch.equal(first_weights(first), first_weights(again))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline, loaded = start("pretrained")
    assert torch.equal(first_weights(first), first_weights(offline)) and loaded.origin.endswith(COMMIT)


def test_a_closed_network_is_said_with_the_way_around(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MaskcastError) as error:
        start("pretrained", SMP)
    line, place = str(error.value), hub_location(SMP)
    repo, _, revision = place.partition("@")
    assert f"hf-hub:{place}: model.safetensors is not in the cache {tmp_path / 'cache'}" in line
    assert "there is no network access (HF_HUB_OFFLINE is set)" in line
    assert f"`hf download {repo} --revision {revision} --local-dir FOLDER`" in line
    assert "set model.encoder_weights to it" in line and "\n" not in line


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ("hf-hub:nobody/nothing@main", "repository not found at "),
        (f"hf-hub:{REPO}@v9", "revision not found"),
        ("hf-hub:somebody/pickled@main", "model.safetensors not found, and pickle is not supported"),
    ],
)
def test_what_the_hub_does_not_have_is_said(hub: Hub, weights: str, line: str) -> None:
    with pytest.raises(MaskcastError, match=line):
        start(weights)


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ("hf-hub:timm/resnet18.a1_in1k", "needs a revision"),
        ("hf-hub:resnet18@main", "must be hf-hub:<owner>/<name>@<revision>"),
        ("weights/resnet18.pth", "is pickle, which runs code"),
        ("pytorch_model.bin", "is pickle, which runs code"),
        ("", "must be pretrained, "),
    ],
)
@pytest.mark.parametrize("family", [{"arch": "smp_unet"}, {"arch": "fasterrcnn"}])
def test_names_are_checked_before_anything_is_fetched(family: dict[str, str], weights: str, line: str) -> None:
    model = SmpConfig if family["arch"] == "smp_unet" else FasterRcnnConfig
    with pytest.raises(ValidationError, match=line):
        model.model_validate(family | {"encoder_weights": weights})
    with pytest.raises(ValidationError, match="encoder_sha256 is the digest of encoder_weights, which is null"):
        model.model_validate(family | {"encoder_sha256": "0" * 64})


def test_a_folder_that_was_fetched_elsewhere_is_taken_with_its_colours(
    tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    folder = tmp_path / "fetched"
    folder.mkdir()
    with pytest.raises(MaskcastError, match=r"model\.safetensors not found in the folder"):
        start(folder)
    save_file(published, folder / "model.safetensors")
    masker, loaded = start(folder)
    assert torch.equal(first_weights(masker), next(iter(published.values()))) and loaded.colours is None
    about: dict[str, Any] = {"mean": [25.5, 51, 76.5], "std": [51, 51, 51], "input_range": [0, 255]}
    (folder / "config.json").write_text(json.dumps(about))  # as segmentation-models-pytorch has it
    colours = start(folder)[1].colours
    assert colours is not None
    assert [*colours[0], *colours[1]] == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.2, 0.2])
    (folder / "config.json").write_text(json.dumps(about | {"input_space": "BGR"}))
    with pytest.raises(MaskcastError, match=r"config\.json: the weights expect BGR frames"):
        start(folder)


def test_weights_that_do_not_cover_the_encoder_are_refused(
    tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "part.safetensors"
    lost = next(name for name in published if name.startswith("layer4") and name.endswith("conv1.weight"))
    save_file({name: value for name, value in published.items() if name != lost}, path)
    with pytest.raises(MaskcastError, match=rf"part\.safetensors: missing weights \S*{lost} "):
        start(path)
    save_file(published, path)
    with pytest.raises(MaskcastError, match=r"part\.safetensors: .*belongs to another network"):
        start(path, SMP)
    with pytest.raises(MaskcastError, match=r"part\.safetensors: .*belongs to another network"):
        start(path, "tu-test_efficientnet")


def test_loading_draws_nothing_from_the_seed(tmp_path: Path, published: dict[str, torch.Tensor]) -> None:
    save_file(published, tmp_path / "a.safetensors")
    config = SmpConfig(arch="smp_unet", encoder=TIMM, encoder_weights=str(tmp_path / "a.safetensors"))
    masker = config.build(single_map("abc"))
    before = torch.random.get_rng_state()
    config.load_pretrained(masker)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_classifier_that_nobody_wants_is_left_out_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import timm

    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "whole.safetensors")
    start(tmp_path / "whole.safetensors", "tu-test_efficientnet")
    assert not caplog.messages


def test_a_vision_transformer_takes_what_timm_publishes(tmp_path: Path) -> None:
    """With a classifier, and positions of another size of images, which timm interpolates to the encoder's own."""
    published = timm.create_model("test_vit", img_size=96).state_dict()
    save_file(published, tmp_path / "whole.safetensors")
    masker, _ = start(tmp_path / "whole.safetensors", "tu-test_vit", arch="smp_dpt")
    loaded = masker.get_submodule("network.encoder.model").state_dict()
    differs = [name for name in loaded if loaded[name].shape != published[name].shape]
    assert differs == ["pos_embed"] and published.keys() - loaded.keys() == {"head.weight", "head.bias"}
    assert all(torch.equal(loaded[name], published[name]) for name in loaded if name not in differs)
    corner = loaded["pos_embed"][0, 1], published["pos_embed"][0, 1]
    assert torch.cosine_similarity(*corner, dim=0) > 0.9


def test_weights_of_the_library_itself_may_have_their_classifier(tmp_path: Path) -> None:
    encoder = SmpEncoderConfig(arch="smp", encoder=SMP).build()
    state = dict(encoder.state_dict())
    save_file(
        state | {"classifier.1.weight": torch.zeros(2, 2), "classifier.1.bias": torch.zeros(2)}, tmp_path / "a"
    )
    masker, _ = start(tmp_path / "a", SMP)
    loaded = masker.get_submodule("network.encoder").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


def test_encoders_without_weights_on_the_hub_are_named() -> None:
    with pytest.raises(MaskcastError, match="'tu-botnet50ts_256' has no pretrained weights on the hub"):
        hub_location("tu-botnet50ts_256")


def test_a_detector_takes_weights_and_colours_and_may_freeze_its_norms(hub: Hub) -> None:
    sizes = {"encoder": TIMM, "width": 8, "norm": "frozen", "min_size": 64, "max_size": 64}
    config = FasterRcnnConfig.model_validate(sizes | {"encoder_weights": "pretrained"})
    detector = config.build(2)
    loaded = config.start_from(detector, None)
    assert loaded is not None and loaded.origin == f"hf-hub:{REPO}@{COMMIT}"
    assert detector.mean.tolist() == pytest.approx(COLOURS["mean"])


def test_two_spellings_of_a_path_have_one_hash() -> None:
    paths = ("models/a.safetensors", "./models/a.safetensors")
    values = [{"arch": "smp_unet", "encoder": "resnet18", "encoder_weights": path} for path in paths]
    assert len({params_hash(SmpConfig.model_validate(each)) for each in values}) == 1


def test_a_stage_records_what_it_started_from(
    store: ClipStore, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As people run it, the hub named by the environment; what was fetched is there when the hub is gone."""
    from huggingface_hub import constants

    values = {
        "model": {"arch": "smp_unet", "encoder": TIMM, "encoder_weights": "pretrained"},
        "training": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 1e-3},
        "val_frame_step": 16,
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"train_masker": values}))
    command = f"train_masker --params params.yaml --clips {store.root} --masker masker --metrics metrics.json"
    with Hub(files) as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        python = [sys.executable, "-m", "maskcast", *command.split()]
        done = subprocess.run(python, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    masker, description = load_masker(tmp_path / "masker")
    assert description["model"]["encoder_weights"] == "pretrained"
    digest = hashlib.sha256(files[f"{REPO}/model.safetensors"]).hexdigest()
    record = {"origin": f"hf-hub:{REPO}@{COMMIT}", "sha256": digest}
    assert description["meta"]["encoder_weights"] == record
    assert masker.mean.tolist() == pytest.approx(COLOURS["mean"])
    card = model_card(MASKER, {"masker": tmp_path / "masker"}, RECORD, {})
    assert f"- masker.encoder_weights.origin: `{record['origin']}`" in card
    assert f"- masker.encoder_weights.sha256: `{digest}`" in card
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf/hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert start("pretrained")[1].record == record
