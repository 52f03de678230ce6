"""Training a masker that remembers: from a masker of single frames, with frames alone beside, by cyclic rates."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.conftest import write_store

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.labels import single_map
from maskcast.models.base import WEIGHTS
from maskcast.models.encoders.configs import UNetEncoderConfig
from maskcast.models.encoders.table import save_encoder
from maskcast.models.segmentation.table import load_masker, save_masker
from maskcast.stages.train_masker import TrainMasker, train_masker
from maskcast.training.schedule import TrainingParams
from maskcast.training.tasks.segmentation import WindowTask, segmentation_task

TRAINING = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 2, "learning_rate": 1e-2, "precision": "fp32"}
UNET = {"arch": "unet", "width": 4}
RECURRENT = {"arch": "recurrent", "base": UNET, "place": "decoder"}
WINDOW = {"frames": 4, "chunk": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return write_store(tmp_path_factory.mktemp("clips") / "clips", train=2, val=1)


def params(**values: Any) -> TrainMasker:
    return TrainMasker.model_validate({"training": TRAINING, "model": RECURRENT, "window": WINDOW} | values)


def trained(store: ClipStore, folder: Path, values: TrainMasker, start: Path | None = None) -> Path:
    metrics = folder.with_suffix(".json")
    train_masker(clips=store.root, start=start, masker=folder, metrics=metrics, params=values)
    return folder


def test_it_starts_from_a_masker_of_frames(store: ClipStore, tmp_path: Path) -> None:
    frames = trained(store, tmp_path / "frames", params(model=UNET, window=None))
    frozen = trained(store, tmp_path / "frozen", params(model=RECURRENT | {"frozen": "base"}), frames)
    base, both = load_masker(frames)[0].state_dict(), load_masker(frozen)[0].state_dict()
    assert all(torch.equal(tensor, both[name]) for name, tensor in base.items())
    assert json.loads((tmp_path / "frozen.json").read_text())["parameters"] < 10_000
    (curve,) = json.loads((frozen / "learning.json").read_text()).values()
    scores = json.loads((tmp_path / "frames.json").read_text())
    assert (curve[0]["epoch"], curve[0]["jaccard"]) == (0, pytest.approx(scores["val_jaccard"], abs=1e-6))
    on = trained(store, tmp_path / "on", params(), frozen)
    assert load_masker(on)[0].state_dict().keys() == both.keys()


def test_a_start_that_does_not_fit_is_refused(store: ClipStore, tmp_path: Path) -> None:
    frames = params(model=UNET | {"width": 2}, window=None)
    wrong, other, encoder = tmp_path / "wrong", tmp_path / "other", tmp_path / "encoder"
    save_masker(wrong, frames.model.build((store.label_map,)), frames.model, {})
    save_masker(other, frames.model.build(single_map("ab")), frames.model, {})
    config = UNetEncoderConfig(width=4)
    save_encoder(encoder, config.build(), config, {"method": "moco", "mean": [0.5] * 3, "std": [0.2] * 3})
    with pytest.raises(MaskcastError, match=r"wrong: is \{arch: unet, width: 2\}; set .*, or anew to true"):
        segmentation_task(store, params(), "x", start=wrong)
    with pytest.raises(MaskcastError, match=r"other: its label maps and classes differ from those of the clips"):
        segmentation_task(store, params(), "x", start=other)
    with pytest.raises(MaskcastError, match=r"nothing/config\.json: no such model; give the folder"):
        segmentation_task(store, params(), "x", start=tmp_path / "nothing")
    with pytest.raises(MaskcastError, match=r"wrong: conflicts with the encoder; remove --encoder"):
        segmentation_task(store, params(), "x", encoder, wrong)


def test_a_start_is_left_alone_by_what_begins_anew(store: ClipStore, tmp_path: Path) -> None:
    short: dict[str, Any] = {"window": None, "training": TRAINING | {"epochs": 1, "steps_per_epoch": 1}}
    narrow, start = params(model=UNET | {"width": 2}, window=None), tmp_path / "start"
    save_masker(start, narrow.model.build((store.label_map,)), narrow.model, {})
    alone = trained(store, tmp_path / "alone", params(model=UNET, **short))
    anew = trained(store, tmp_path / "anew", params(model=UNET, anew=True, **short), start)
    assert (anew / WEIGHTS).read_bytes() == (alone / WEIGHTS).read_bytes()


def test_a_window_that_no_clip_has_room_for_is_refused(store: ClipStore) -> None:
    told = r"1004 frames of window\.burn_in \+ window\.frames, and labels in the last 4 of them; lower these"
    with pytest.raises(MaskcastError, match=told):
        segmentation_task(store, params(window=WINDOW | {"burn_in": 1000}), "x")


def test_frames_alone_add_their_loss(store: ClipStore) -> None:
    """By hand: a memory that adds nothing yet has the loss of its base twice over."""
    losses = []
    for alone in (0.0, 0.5):
        task = segmentation_task(store, params(window=WINDOW | {"alone": alone}), "x")
        assert isinstance(task, WindowTask)
        losses.append([loss.item() for loss, _ in task.losses(task.batch(0), 0)])
    assert losses[1] == pytest.approx([1.5 * loss for loss in losses[0]], rel=1e-5)


def test_frames_alone_do_not_teach_the_discriminator(tmp_path: Path) -> None:
    store, totals = write_store(tmp_path / "clips", height=64, width=64, train=1, val=1), {}
    for adversarial in (None, {"width": 4}):
        for alone in (0.0, 0.5):
            task = segmentation_task(store, params(window=WINDOW | {"alone": alone}, adversarial=adversarial), "x")
            assert isinstance(task, WindowTask)
            totals[bool(adversarial), alone] = sum(loss.item() for loss, _ in task.losses(task.batch(0), 0))
    added = [totals[adversarial, 0.5] - totals[adversarial, 0.0] for adversarial in (False, True)]
    assert added[1] == pytest.approx(added[0], rel=1e-4)


def test_frames_alone_need_a_base_that_learns() -> None:
    frozen = RECURRENT | {"frozen": "base"}
    with pytest.raises(ValidationError, match=r"'recurrent' has no trainable single-frame part"):
        params(model=frozen, window=WINDOW | {"alone": 0.5})


def test_cyclic_rates_halve_their_peaks() -> None:
    values = TRAINING | {"epochs": 5, "learning_rate": 1.0, "min_learning_rate": 0.2, "cycle_steps": 2}
    training = TrainingParams.model_validate(values)
    found = [training.rate(step) for step in range(9)]
    assert found == pytest.approx([0.2, 0.6, 1.0, 0.6, 0.2, 0.4, 0.6, 0.4, 0.2])
    assert training.rate(10**6) == pytest.approx(0.2)  # 2**250,000 is no float
    warmed = training.model_copy(update={"warmup_steps": 4})
    found = [warmed.rate(step) for step in range(11)]
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.6, 0.2, 0.4, 0.6, 0.4, 0.2])


def test_frames_that_are_only_seen_leave_the_weights_a_gradient(store: ClipStore) -> None:
    """By autocast, which keeps what it casts; earlier versions of PyTorch kept it without a gradient."""
    task = segmentation_task(store, params(window={"frames": 2, "chunk": 2, "burn_in": 1}), "x")
    assert isinstance(task, WindowTask)
    with torch.autocast("cpu", torch.bfloat16):
        ((loss, _),) = task.losses(task.batch(0), 0)
    loss.backward()
    assert all(weights.grad is not None for weights in task.student.network.parameters())
