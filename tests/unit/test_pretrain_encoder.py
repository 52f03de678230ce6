"""pretrain_encoder on small clips and images: it learns, resumes exactly, and says what is wrong."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import write_store

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.unlabeled import ClipFrames
from maskcast.errors import MaskcastError
from maskcast.models.encoders.table import load_encoder
from maskcast.models.segmentation.table import load_masker
from maskcast.progress import listening
from maskcast.report.page import Page
from maskcast.runner.run import run_stage
from maskcast.stages.pretrain_encoder import PretrainEncoder, _report_probe, pretrain_encoder
from maskcast.stages.train_masker import TrainMasker, train_masker
from maskcast.training.tasks import encoder as encoder_tasks
from maskcast.training.tasks.encoder import EncoderTask

SIZES = {"dim": 8, "hidden": 16, "sub_batches": 2, "momentum": 0.9}
METHODS: dict[str, dict[str, Any]] = {
    "moco": {"name": "moco", "queue": 32, **SIZES},
    "densecl": {"name": "densecl", "queue": 32, **SIZES},
    "byol": {"name": "byol", **SIZES},
}
PARAMS: dict[str, Any] = {
    "model": {"arch": "unet", "width": 4},
    "method": METHODS["densecl"],
    "views": {"size": [16, 16], "candidates": 2, "max_offset": 0.2},
    "max_frame_distance": 2,
    "training": {
        "epochs": 2,
        "steps_per_epoch": 4,
        "batch_size": 16,
        "learning_rate": 0.05,
        "precision": "fp32",
        "checkpoint_every": 3,
    },
}


def params(**change: Any) -> PretrainEncoder:
    return PretrainEncoder.model_validate(PARAMS | change)


def training(**change: Any) -> dict[str, Any]:
    return {"training": PARAMS["training"] | change}


def outputs(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    return {"encoder": folder / "encoder", "metrics": folder / "metrics.json"}


@pytest.mark.parametrize(("knn", "worse"), [(0.3, True), (0.5, False)])
def test_a_training_that_made_the_classes_harder_to_tell_is_said(tmp_path: Path, knn: float, worse: bool) -> None:
    with listening(page := Page("pretrain_encoder")):
        _report_probe({"knn": knn, "knn_random": 0.4})
    page.write(tmp_path / "page.html", {}, params(), {})
    assert ("The training has made this worse: train longer" in (tmp_path / "page.html").read_text()) == worse


def weights(out: dict[str, Path]) -> bytes:
    return (out["encoder"] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_it_writes_an_encoder_and_its_scores_and_does_so_again(
    store: ClipStore, tmp_path: Path, method: str
) -> None:
    first, second = outputs(tmp_path / "first"), outputs(tmp_path / "second")
    for out in (first, second):
        with listening(page := Page("pretrain_encoder")):
            pretrain_encoder(unlabeled=store.root, params=params(method=METHODS[method]), **out)
    assert weights(first) == weights(second)
    metrics = json.loads(first["metrics"].read_text())
    assert metrics["frames"] == 88 and metrics["epochs"] == 2 and metrics["parameters"] > 1000
    for score in ("linear_probe", "linear_probe_random", "knn", "knn_random"):
        assert 0.2 < metrics[score] <= 1
    assert 0.01 < metrics["embedding_spread"] < 1.5
    encoder, description = load_encoder(first["encoder"])
    assert description["meta"]["method"] == method
    assert len(description["meta"]["mean"]) == len(description["meta"]["std"]) == 3
    assert all(tensor.isfinite().all() for tensor in encoder.state_dict().values())
    assert cv2.imread(str(tmp_path / "first/encoder.resume/views.png")).shape == (32, 128, 3)
    page.write(tmp_path / "page.html", metrics, params(), {})
    text = (tmp_path / "page.html").read_text()
    assert f"accuracy of {metrics['knn']:.3f}, and {metrics['knn_random']:.3f} before the training" in text
    assert ("The training has made this worse" in text) == (metrics["knn"] < metrics["knn_random"])
    assert 'alt="Samples of the first batch"' in text and "two augmented views of the same frames" in text


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("method", ["densecl", "byol"])
def test_a_killed_run_ends_with_the_same_bytes(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    short = params(method=METHODS[method])
    unbroken, killed = outputs(tmp_path / "unbroken"), outputs(tmp_path / "killed")
    pretrain_encoder(unlabeled=store.root, params=short, **unbroken)

    class KilledTask(EncoderTask):
        def loss(self, batch: Any, step: int) -> Any:
            if step == 6:
                raise Killed
            return super().loss(batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(encoder_tasks, "EncoderTask", KilledTask)
        with pytest.raises(Killed):
            pretrain_encoder(unlabeled=store.root, params=short, **killed)
    pretrain_encoder(unlabeled=store.root, params=short, **killed)
    assert weights(unbroken) == weights(killed)
    scores = [json.loads(out["metrics"].read_text()) for out in (unbroken, killed)]
    assert scores[0] | {"train_seconds": 0} == scores[1] | {"train_seconds": 0}


def test_batches_are_a_function_of_seed_and_step(store: ClipStore) -> None:
    def batch(step: int, **change: Any) -> Any:
        given = params(**training(**change))
        return EncoderTask(ClipFrames(store), given, given.method, "x").batch(step)  # type: ignore[arg-type]

    one, again, later, other = batch(3), batch(3), batch(4), batch(3, seed=1)
    assert all(torch.equal(x, y) for x, y in zip(one, again, strict=True))
    assert not torch.equal(one.own, later.own) and not torch.equal(one.own, other.own)
    assert one.own.shape == one.shuffled.shape == (2, 16, 16, 16, 3)
    assert sorted(one.order.tolist()) == list(range(16)) != one.order.tolist()
    assert torch.equal(one.own[:, one.order], one.shuffled)


def test_images_of_any_size_without_labels(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for k in range(40):
        picture = np.random.default_rng(k).integers(0, 256, (20 + k % 3, 30 + k % 5, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{k}.png"), picture)
    out = outputs(tmp_path / "out")
    pretrain_encoder(unlabeled=tmp_path / "images", params=params(), **out)
    metrics = json.loads(out["metrics"].read_text())
    assert metrics["frames"] == 40 and "linear_probe" not in metrics


def test_the_masker_starts_from_the_encoder_or_at_random(store: ClipStore, tmp_path: Path) -> None:
    masker_params = {
        "model": {"arch": "unet", "width": 4},
        "training": {
            "epochs": 1,
            "steps_per_epoch": 1,
            "batch_size": 2,
            "learning_rate": 1e-9,
            "precision": "fp32",
        },
    }

    def masker(name: str, encoder: Path | None) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        given = TrainMasker.model_validate(masker_params)
        train_masker(
            clips=store.root, encoder=encoder, masker=folder / "masker", metrics=folder / "m.json", params=given
        )
        return load_masker(folder / "masker")[0]

    trained, untrained = outputs(tmp_path / "trained"), outputs(tmp_path / "untrained")
    pretrain_encoder(unlabeled=store.root, params=params(), **trained)
    pretrain_encoder(unlabeled=store.root, params=params(method={"name": "none"}), **untrained)
    assert not (untrained["encoder"] / "model.safetensors").exists()
    alone, same, started = (
        masker("alone", None),
        masker("same", untrained["encoder"]),
        masker("started", trained["encoder"]),
    )
    assert all(torch.equal(x, y) for x, y in zip(alone.parameters(), same.parameters(), strict=True))
    encoder = load_file(trained["encoder"] / "model.safetensors")
    for name, tensor in started.network.down.named_parameters():
        torch.testing.assert_close(tensor, encoder[name], rtol=0, atol=1e-6)
    mean = load_encoder(trained["encoder"])[1]["meta"]["mean"]
    torch.testing.assert_close(started.mean, torch.tensor(mean))

    masker_params["model"] = {"arch": "unet", "width": 8}
    with pytest.raises(
        MaskcastError, match=r"pretrain_encoder\.model is .*width: 4.* train_masker\.model .*width: 8"
    ):
        masker("other", trained["encoder"])


def test_a_collapse_ends_the_run(store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class CollapsedTask(EncoderTask):
        def loss(self, batch: Any, step: int) -> Any:
            with torch.no_grad():
                for part in (self.siamese.head, self.siamese.target[1]):
                    part[-1].weight.zero_()
            return super().loss(batch, step)

    monkeypatch.setattr(encoder_tasks, "EncoderTask", CollapsedTask)
    out = outputs(tmp_path / "out")
    given = PARAMS | {"method": METHODS["byol"]} | training(learning_rate=1e-8)
    with pytest.raises(MaskcastError, match=r"collapsed: the embeddings of a batch spread .*choose method moco"):
        run_stage("pretrain_encoder", given, unlabeled=store.root, **out)
    assert not any(path.exists() for path in out.values())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"method": METHODS["moco"] | {"queue": 40}},
            "method.queue 40 must be a multiple of training.batch_size 16",
        ),
        ({"method": METHODS["moco"] | {"queue": 96}}, "method.queue 96 must be below the 88 frames"),
        ({"method": METHODS["moco"] | {"sub_batches": 3}}, "16 must be a multiple of method.sub_batches 3"),
        ({"method": METHODS["moco"] | {"sub_batches": 16}}, "leaves one sample of 16 per part"),
        (training(processes=4), "sub_batches 2 must be a multiple of the 4 processes"),
        ({"method": {"name": "dino"}}, "dino"),
        ({"method": METHODS["moco"] | {"quue": 3}}, "did you mean 'queue'"),
        ({"model": {"arch": "vit"}}, "vit"),
        ({"views": {"scale": [0.5, 0.1]}}, "scale"),
        (
            training(weight_decay=1e9, epochs=1, steps_per_epoch=1),
            "the encoder's feature maps are not finite: training diverged",
        ),
    ],
)
def test_wrong_params_name_their_key(store: ClipStore, tmp_path: Path, change: dict[str, Any], line: str) -> None:
    out = outputs(tmp_path / "out")
    with pytest.raises(MaskcastError, match=line) as error:
        run_stage("pretrain_encoder", PARAMS | change, unlabeled=store.root, **out)
    assert "\n" not in str(error.value)
    assert not any(path.exists() for path in out.values())


def test_a_store_with_nothing_to_learn_from(tmp_path: Path) -> None:
    write_store(tmp_path / "clips", val=1)
    with pytest.raises(MaskcastError, match="no clip of split train or unlabeled has frames"):
        pretrain_encoder(unlabeled=tmp_path / "clips", params=params(), **outputs(tmp_path / "out"))
