"""Dense pretraining: samples by hand, whole maskers that come back, errors that name the param."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from maskcast.data import unlabeled
from maskcast.data.augment.views import ViewParams, same_views
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.unlabeled import ClipFrames
from maskcast.errors import MaskcastError
from maskcast.labels import single_map
from maskcast.models.encoders.configs import DenoiseConfig, MaskedConfig, NextFrameConfig
from maskcast.models.encoders.dense import PretextSample, pretext_sample, sums
from maskcast.models.encoders.table import load_encoder
from maskcast.models.segmentation.configs import SegmenterConfig
from maskcast.models.segmentation.pretrained import DECODER, load_decoder, save_decoder
from maskcast.models.segmentation.table import load_masker
from maskcast.runner.run import run_stage
from maskcast.stages.pretrain_encoder import PretrainEncoder, pretrain_encoder
from maskcast.stages.train_masker import TrainMasker, train_masker
from maskcast.training.feeding import prefetch_in_processes
from maskcast.training.tasks.dense import DenseTask

UNET = {"arch": "unet", "width": 4}
METHODS: dict[str, dict[str, Any]] = {
    "denoise": {"name": "denoise"},
    "masked": {"name": "masked", "patch": 4},
    "next_frame": {"name": "next_frame", "distance": 2},
}
PARAMS: dict[str, Any] = {
    "model": UNET,
    "network": UNET,
    "method": METHODS["denoise"],
    "views": {"size": [16, 16], "recolour": 0.0, "grey": 0.0, "blurred": 0.0},
    "training": {
        "epochs": 2,
        "steps_per_epoch": 4,
        "batch_size": 16,
        "learning_rate": 0.05,
        "precision": "fp32",
        "checkpoint_every": 3,
    },
}
MASKER: dict[str, Any] = {
    "model": UNET,
    "training": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 1e-9, "precision": "fp32"},
}
COLOURS = np.array([0.5, 0.5, 0.5], np.float32), np.array([0.25, 0.25, 0.5], np.float32)


def task_of(store: ClipStore, method: str, **change: Any) -> DenseTask:
    params = PretrainEncoder.model_validate(PARAMS | {"method": METHODS[method]} | change)
    assert params.network is not None
    return DenseTask(ClipFrames(store), params, params.method, params.network, "x")  # type: ignore[arg-type]


def test_noise_is_added_in_deviations_of_the_colours_and_predicted() -> None:
    view = np.full((8, 8, 3), 100, np.uint8)
    seen, noise, weight = pretext_sample(DenoiseConfig(sigma=2.0), view, view, COLOURS, np.random.default_rng(0))
    np.testing.assert_allclose(seen, 100 + 2 * 255 * COLOURS[1] * noise, rtol=1e-5)
    assert 0.8 < np.std(noise) < 1.2 and np.asarray(weight).min() == 1


def test_hidden_patches_are_the_mean_colour_and_alone_count() -> None:
    view = np.random.default_rng(1).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    seen, target, weight = pretext_sample(
        MaskedConfig(patch=4, ratio=0.5), view, view, COLOURS, np.random.default_rng(0)
    )
    hidden = np.asarray(weight) == 1
    assert (np.asarray(seen)[hidden] == 127.5).all() and (np.asarray(seen)[~hidden] == view[~hidden]).all()
    np.testing.assert_allclose(target, (view / 255 - COLOURS[0]) / COLOURS[1], rtol=1e-4, atol=1e-5)
    corners = hidden[::4, ::4]
    assert corners.sum() == 3 and (hidden == corners.repeat(4, 0).repeat(4, 1)[:10, :8]).all()


def test_predicted_is_what_the_later_frame_has_more() -> None:
    now, later = np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 5, np.uint8)
    seen, target, _ = pretext_sample(NextFrameConfig(), now, later, COLOURS, np.random.default_rng(0))
    assert (np.asarray(seen) == 10).all()
    np.testing.assert_allclose(np.asarray(target)[0, 0], -5 / (255 * COLOURS[1]), rtol=1e-5)


def test_the_loss_is_the_mean_square_over_what_counts() -> None:
    target = torch.tensor([[[[1.0, 0, 0], [0, 2, 0]]]])
    weight = torch.tensor([[[1.0, 0.0]]])
    error, nothing, count = sums(torch.zeros(1, 3, 1, 2), PretextSample(target, target, weight))
    assert (error.item(), nothing.item(), count.item()) == pytest.approx((1 / 3, 1 / 3, 1))
    assert sums(target.permute(0, 3, 1, 2), PretextSample(target, target, weight))[0].item() == 0


def test_the_same_place_of_two_frames_in_the_same_colours() -> None:
    frame = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    params = ViewParams(size=(8, 8), scale=(0.1, 0.3), candidates=3, blurred=1.0)
    for seed in range(5):
        first, second = same_views(frame, frame, params, np.random.default_rng(seed))
        assert (first == second).all()


def test_frames_that_do_not_move_leave_nothing_to_explain(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "still", height=32, width=32, maps=single_map(["background", "a"])) as clips:
        clips.add("still", split="unlabeled", kind="unlabelled", frames=np.full((4, 32, 32, 3), 9, np.uint8))
    assert task_of(ClipStore(tmp_path / "still"), "next_frame").validate() == {}


@pytest.mark.parametrize("method", METHODS)
def test_samples_are_a_function_of_seed_and_step(store: ClipStore, method: str) -> None:
    task, again = task_of(store, method), task_of(store, method)
    one, same, later = task.batch(3), again.batch(3), task.batch(4)
    assert all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(one, same, strict=True))
    assert not torch.equal(torch.as_tensor(one.seen), torch.as_tensor(later.seen))
    assert [tuple(part.shape) for part in one] == [(16, 16, 16, 3), (16, 16, 16, 3), (16, 16, 16)]
    assert task.pictures(2).shape == (2, 2, 16, 16, 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_makes_the_same_samples(
    store: ClipStore, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a GPU trains; batches were made before, too, by threads, which a forked process does without."""
    task = task_of(store, "masked")
    task.frames.threads = threads
    first = task.batch(0), task.batch(1)
    monkeypatch.delattr(unlabeled, "joined_thread_pool")
    again = list(prefetch_in_processes(task, range(2), workers=1))
    for one, two in zip(first, again, strict=True):
        assert all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(one, two, strict=True))


def test_a_later_frame_is_so_far_away_or_its_lack_is_said(store: ClipStore, tmp_path: Path) -> None:
    frames = ClipFrames(store)
    clip = frames.clips[0]
    for index, first in ((0, 0), (clip.num_frames - 1, clip.num_frames - 3)):
        one, later = frames.pair(index, 2)
        assert (one == store.frames(clip)[first]).all() and (later == store.frames(clip)[first + 2]).all()
    with pytest.raises(MaskcastError, match=r"has 22 frames, and none is 22 later .*lower .*method\.distance"):
        frames.pair(0, 22)


def pretrained(store: ClipStore, folder: Path, **change: Any) -> Path:
    folder.mkdir()
    out = folder / "encoder"
    params = PretrainEncoder.model_validate(PARAMS | change)
    pretrain_encoder(unlabeled=store.root, encoder=out, metrics=folder / "m.json", params=params)
    return out


def about(meta: dict[str, Any]) -> dict[str, Any]:
    return {"meta": meta, "sha256": {}}


def masker_of(store: ClipStore, folder: Path, encoder: Path, **change: Any) -> Any:
    out, params = folder / "masker", TrainMasker.model_validate(MASKER | change)
    train_masker(clips=store.root, encoder=encoder, masker=out, metrics=folder / "t.json", params=params)
    return load_masker(out)[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_masker_starts_from_encoder_and_decoder(store: ClipStore, tmp_path: Path, method: str) -> None:
    first = pretrained(store, tmp_path / "first", method=METHODS[method])
    metrics = json.loads((tmp_path / "first/m.json").read_text())
    assert {"explained", "linear_probe", "knn_random"} <= metrics.keys() and metrics["frames"] == 88
    _, description = load_encoder(first)  # other models take the encoder alone
    assert description["meta"]["network"] == UNET and description["meta"]["method"] == method
    masker = masker_of(store, tmp_path / "first", first)
    weights = {f"network.down.{k}": v for k, v in load_file(first / "model.safetensors").items()}
    weights |= load_file(first / DECODER)
    learned = dict(masker.named_parameters())
    assert learned.keys() - weights.keys() == {"network.head.weight", "network.head.bias"}
    for name, tensor in learned.items():
        if name in weights:
            torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(masker.mean, torch.tensor(description["meta"]["mean"]))


def test_it_learns_to_predict(store: ClipStore, tmp_path: Path) -> None:
    training = PARAMS["training"] | {"steps_per_epoch": 30, "learning_rate": 0.2}
    pretrained(store, tmp_path / "out", method=METHODS["masked"], training=training)
    assert json.loads((tmp_path / "out/m.json").read_text())["explained"] > 0.3


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_killed_run_ends_with_the_same_bytes(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskcast.training.tasks import dense

    class KilledTask(DenseTask):
        def loss(self, batch: Any, step: int) -> Any:
            if step == 6:
                raise Killed
            return super().loss(batch, step)

    unbroken = pretrained(store, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr(dense, "DenseTask", KilledTask)
        with pytest.raises(Killed):
            pretrained(store, tmp_path / "killed")
    out = tmp_path / "killed/encoder"
    run_stage("pretrain_encoder", PARAMS, unlabeled=store.root, encoder=out, metrics=tmp_path / "killed/m.json")
    for name in ("model.safetensors", DECODER):
        assert (unbroken / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "values",
    [
        UNET,
        {"arch": "smp_unet"},
        {"arch": "smp_unetplusplus", "encoder": "tu-test_resnet"},
        {"arch": "smp_deeplabv3plus", "encoder": "mobilenet_v2"},
        {"arch": "smp_dpt", "encoder": "tu-test_vit"},
    ],
    ids=lambda values: values["arch"],
)
def test_all_but_the_head_goes_to_other_classes(values: dict[str, Any], tmp_path: Path) -> None:
    config: Any = TypeAdapter(SegmenterConfig).validate_python(values)
    one, other = config.build(single_map("abc")).eval(), config.build(single_map("abcde")).eval()
    save_decoder(tmp_path, one, config)
    config.encoder_of(other).load_state_dict(config.encoder_of(one).state_dict())
    assert load_decoder(other, config, tmp_path, about({"network": config.model_dump(mode="json")}))
    states = one.state_dict(), other.state_dict()
    new = {name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])}
    head = config.head_of(other)
    assert new == {
        f"{name}.{part}" for name, module in other.named_modules() if module is head for part in ("weight", "bias")
    }


def test_a_decoder_whose_numbers_are_not_finite_is_said(tmp_path: Path) -> None:
    config: Any = TypeAdapter(SegmenterConfig).validate_python(UNET)
    segmenter, meta = config.build(single_map("ab")), {"network": config.model_dump(mode="json")}
    segmenter.get_parameter("network.up.0.0.weight").data[0] = torch.nan
    save_decoder(tmp_path, segmenter, config)
    with pytest.raises(
        MaskcastError, match=rf"{DECODER}: network\.up\.0\.0\.weight .* not finite; train or fetch"
    ):
        load_decoder(config.build(single_map("ab")), config, tmp_path, about(meta))


def test_a_decoder_of_another_masker_or_a_damaged_one_is_said(store: ClipStore, tmp_path: Path) -> None:
    smp, encoder = {"arch": "smp_unet"}, {"arch": "smp", "encoder": "resnet18"}
    config: Any = TypeAdapter(SegmenterConfig).validate_python({"arch": "smp_fpn"})
    meta = {"network": TypeAdapter(SegmenterConfig).validate_python(smp).model_dump(mode="json")}
    line = (
        r"pretrain_encoder\.network is \{arch: smp_unet, encoder: resnet18\}, but train_masker\.model is "
        r"\{arch: smp_fpn, encoder: resnet18\}; make the two params agree"
    )
    with pytest.raises(MaskcastError, match=line):
        load_decoder(config.build(single_map("ab")), config, tmp_path, about(meta))
    assert not load_decoder(config.build(single_map("ab")), config, tmp_path, about({"method": "moco"}))
    with pytest.raises(MaskcastError, match="not a network"):
        load_decoder(config.build(single_map("ab")), config, tmp_path, about({"network": encoder}))
    out = pretrained(store, tmp_path / "out")
    state = load_file(out / DECODER)
    state.pop(next(iter(state)))
    save_file(state, out / DECODER)
    with pytest.raises(MaskcastError, match=r"decoder\.safetensors: contents differ from the sha256"):
        masker_of(store, tmp_path, out)
    description = json.loads((out / "config.json").read_text())
    del description["sha256"]
    (out / "config.json").write_text(json.dumps(description))
    with pytest.raises(MaskcastError, match=r"decoder\.safetensors: network\.up.* \(1 in all\) differs; pretrain"):
        masker_of(store, tmp_path, out)
    (out / DECODER).unlink()
    with pytest.raises(MaskcastError, match="no such file of weights in safetensors"):
        masker_of(store, tmp_path, out)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"network": None}, r"method 'denoise' trains encoder and decoder; set network to train_masker\.model"),
        ({"network": {"arch": "unet", "width": 8}}, "encoder of network is .*'width': 8.*; set model to it"),
        ({"network": {"arch": "recurrent", "base": UNET}}, "'recurrent' has state; use"),
        ({"method": {"name": "moco"}}, "method 'moco' trains only an encoder; set network to null"),
        ({"method": {"name": "denoise", "sigma": 0}}, "sigma"),
        ({"method": {"name": "masked", "ratio": 1}}, "ratio"),
        ({"method": {"name": "next_frame", "distance": 30}}, r"none is 30 later .*lower .*method\.distance"),
    ],
)
def test_wrong_params_name_their_key(store: ClipStore, tmp_path: Path, change: dict[str, Any], line: str) -> None:
    out = {"encoder": tmp_path / "e", "metrics": tmp_path / "m.json"}
    with pytest.raises(MaskcastError, match=line) as error:
        run_stage("pretrain_encoder", PARAMS | change, unlabeled=store.root, **out)
    assert "\n" not in str(error.value)


def test_images_have_no_next_frame(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "images").mkdir()
    for k in range(4):
        cv2.imwrite(str(tmp_path / f"images/{k}.png"), np.full((20, 30, 3), 40 * k, np.uint8))
    out = {"encoder": tmp_path / "e", "metrics": tmp_path / "m.json"}
    for method in ("next_frame", "denoise"):
        params = PretrainEncoder.model_validate(PARAMS | {"method": METHODS[method]})
        if method == "next_frame":
            with pytest.raises(MaskcastError, match="images have no next frame; give a clip store"):
                pretrain_encoder(unlabeled=tmp_path / "images", params=params, **out)
        else:
            pretrain_encoder(unlabeled=tmp_path / "images", params=params, **out)
    assert (out["encoder"] / DECODER).exists()


def test_a_last_step_after_which_predictions_are_no_numbers_is_said(tmp_path: Path) -> None:
    """Its loss and weights are finite; images, unlike clips with labels, have no probe that would notice it."""
    import cv2

    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    short = PARAMS["training"] | {"epochs": 1, "steps_per_epoch": 1, "learning_rate": 1e8}
    out = {"encoder": tmp_path / "e", "metrics": tmp_path / "m.json"}
    with pytest.raises(MaskcastError, match=r"^step 0: explained nan in validation: training diverged; lower"):
        pretrain_encoder(
            unlabeled=tmp_path / "images",
            params=PretrainEncoder.model_validate(PARAMS | {"training": short}),
            **out,
        )
