"""Whole stages on a GPU that is pretended: host and device are kept apart, and scores are those of the CPU."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import SMALL_DETECTOR, moving_squares, write_detection_set
from tests.pretended_gpu import pretended_gpu
from tests.registered import clips_of_squares, write_registered
from tests.unit.test_loop import Regression
from tests.unit.test_recorded_tasks import SQUARES, UNET
from torch import Tensor
from torch.nn import functional

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.evaluation.speed import measure_speed
from maskcast.inference import worker
from maskcast.inference.segment import segment_whole
from maskcast.inference.worker import CALLS_IN_PIECES, MAX_GRAPHS, Worker
from maskcast.models.cuda_graphs import WARM_UP_CALLS, GraphRecorder
from maskcast.models.objects.tracks import find_objects, track_objects
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.registry.export import _in_float32
from maskcast.registry.forecast_models import MaskerModel
from maskcast.registry.loading import load_address
from maskcast.runner.run import run_stage
from maskcast.training.compiling import MIN_COMPILED_STEPS
from maskcast.training.dry_run_training import dry_run_training
from maskcast.training.schedule import TrainingParams

TRAINING: dict[str, Any] = {
    "epochs": 2,
    "steps_per_epoch": 6,
    "batch_size": 4,
    "learning_rate": 0.001,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("squares") / "clips"
    with ClipWriter(root, height=32, width=48, maps=[SQUARES]) as writer:
        for k, split in enumerate(["train", "train", "val", "unlabeled", "hidden"]):
            frames, masks = moving_squares(k, 22, 32, 48)
            kind, labels = ("labelled", {"squares": masks}) if split in ("train", "val") else ("unlabelled", {})
            writer.add(f"clip_{k}", split=split, kind=kind, frames=frames, masks=labels)
    return root


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pretended_gpu(monkeypatch):
        yield


def pipeline(clips: Path, made: Path) -> dict[str, float]:
    """Runs the stages from the encoder to predictions; returns their metrics."""
    made.mkdir()
    encoder, masker, masks = made / "encoder", made / "masker", made / "masks"
    pretrained, finetuned = made / "pretrained", made / "forecaster"

    def outputs(name: str) -> dict[str, Path]:
        return {"metrics": made / f"{name}.json", "page": made / f"{name}.html"}

    method = {"name": "moco", "queue": 16, "sub_batches": 2}
    values: dict[str, Any] = {"model": UNET, "method": method, "views": {"size": [16, 16]}, "training": TRAINING}
    run_stage("pretrain_encoder", values, unlabeled=clips, encoder=encoder, **outputs("encoder"))
    values = {"model": UNET, "training": TRAINING | {"optimizer": "muon"}, "ema": 0.9}
    run_stage("train_masker", values, clips=clips, encoder=encoder, masker=masker, **outputs("masker"))
    run_stage("generate_masks", {}, clips=clips, masker=masker, masks=masks, **outputs("masks"))
    given = {"clips": clips, "masks": masks, "masker": masker}
    values = {"model": {"arch": "objects", "hidden": 8}, "training": TRAINING}
    run_stage("pretrain_forecaster", values, **given, pretrained=pretrained, **outputs("pretrained"))
    values = {"training": TRAINING}
    finetuning = outputs("finetuned")
    run_stage("finetune_forecaster", values, **given, pretrained=pretrained, forecaster=finetuned, **finetuning)
    given["forecaster"] = finetuned
    run_stage("evaluate", {"pictures": 1}, **given, report=made / "report", **outputs("evaluated"))
    run_stage("predict", {}, **given, predictions=made / "predictions")
    return {
        f"{path.stem}.{name}": value
        for path in made.glob("*.json")
        for name, value in json.loads(path.read_text()).items()
    }


def scores(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "jaccard" in name or name.endswith("loss")}


def test_the_pipeline_gives_the_scores_of_a_cpu(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pretended_gpu(patch):
        on_gpu = scores(pipeline(clips, tmp_path / "gpu"))
    on_cpu = scores(pipeline(clips, tmp_path / "cpu"))
    assert len(on_cpu) > 20
    assert on_gpu == pytest.approx(on_cpu, abs=0.02, nan_ok=True)


MASKERS: dict[str, dict[str, Any]] = {
    "memory": {
        "model": {"arch": "recurrent", "base": UNET},
        "window": {"frames": 3, "chunk": 2, "burn_in": 1, "alone": 0.5},
        "training": TRAINING | {"precision": "bf16"},
    },
    "unlabeled": {
        "ema": 0.9,
        "unlabeled": {"batch_size": 4, "burn_in_steps": 2, "ramp_steps": 3, "threshold": 0.3},
        "augment": {"crop": [16, 32]},
        "training": TRAINING | {"epochs": 1},
    },
}


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("values", MASKERS.values(), ids=MASKERS)
def test_maskers_are_trained_and_mask(values: dict[str, Any], clips: Path, tmp_path: Path) -> None:
    masker, metrics = tmp_path / "masker", tmp_path / "metrics.json"
    found = run_stage(
        "train_masker", {"model": UNET, "training": TRAINING} | values, clips=clips, masker=masker, metrics=metrics
    )
    assert 0 < found["val_jaccard"] < 1
    masks = {"masks": tmp_path / "masks", "metrics": metrics}
    run_stage("generate_masks", {"propagated": {"frames": 2}}, clips=clips, masker=masker, **masks)


@pytest.mark.usefixtures("_gpu")
def test_detectors_are_trained_and_scored(tmp_path: Path) -> None:
    dataset = write_detection_set(tmp_path / "set", train=4, val=2, unlabeled=2)
    training = {
        "phases": [{"learning_rate": 0.02, "epochs": 1}],
        "steps_per_epoch": 3,
        "batch_size": 2,
        "precision": "fp32",
    }
    detector, metrics = tmp_path / "detector", tmp_path / "metrics.json"
    values = {"model": SMALL_DETECTOR, "training": training}
    run_stage("train_detector", values, dataset=dataset, detector=detector, metrics=metrics)
    found = run_stage(
        "evaluate_detector", {}, dataset=dataset, detector=detector, metrics=metrics, report=tmp_path / "report"
    )
    assert 0 <= found["AP"] <= 1


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, _gpu: None) -> list[int]:
    """An entry for each call that is recorded."""
    record, entries = GraphRecorder.__call__, []

    def counted(*given: Any) -> Any:
        entries.append(1)
        return record(*given)

    monkeypatch.setattr(GraphRecorder, "__call__", counted)
    return entries


def test_sessions_of_a_model_share_a_recorded_network(tmp_path: Path, recorded: list[int]) -> None:
    torch.manual_seed(0)
    config = UNetConfig(width=2)
    save_masker(tmp_path, config.build([SQUARES]), config, {})
    model = MaskerModel(tmp_path, "fp32")
    frames, _ = moving_squares(0, WARM_UP_CALLS + 4, 32, 48)
    wanted = model.mask_clip(frames, None).masks
    first, second = model.session(), model.session()
    for t, frame in enumerate(frames):
        for session in (first, second):
            if t % 3 == 0:
                session.reset()
            np.testing.assert_array_equal(session.step(frame).maps["squares"], wanted[t])
    assert len(recorded) == 1
    for _ in range(WARM_UP_CALLS + 1):
        np.testing.assert_array_equal(model.mask_clip(frames, None).masks, wanted)
        assert model.mask_clip(frames, 2).confidence is not None
    assert len(recorded) == 2


def test_an_export_is_compared_with_the_model_in_float32_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = str(write_registered(tmp_path, consistent_frames=2, precision="bf16"))
    clips = clips_of_squares(2)
    wanted = _in_float32(load_address(artifact).model, clips)
    with pretended_gpu(monkeypatch):
        np.testing.assert_array_equal(_in_float32(load_address(artifact).model, clips), wanted)


def test_the_shapes_that_were_not_used_for_longest_are_recorded_again(recorded: list[int]) -> None:
    torch.manual_seed(0)
    worker = Worker(UNetConfig(width=2).build([SQUARES]).eval().to("cuda"), "fp32")

    def use(width: int) -> int:
        for _ in range(WARM_UP_CALLS + 1):
            segment_whole(worker, np.zeros((1, 16, width, 3), np.uint8), batch_size=1)
        return len(recorded)

    widths = [16 * (k + 1) for k in range(MAX_GRAPHS + 1)]
    assert [use(width) for width in widths] == list(range(1, len(widths) + 1))
    assert use(widths[-1]) == len(widths)
    assert use(widths[0]) == len(widths) + 1


def test_what_does_not_fit_concerns_frames_of_its_size(recorded: list[int]) -> None:
    torch.manual_seed(0)
    segmenter = UNetConfig(width=2).build([SQUARES]).eval().to("cuda")
    whole = segmenter.forward

    def tight(frames_BTHWC: Tensor, state: Any = ()) -> Any:
        if frames_BTHWC.shape[1] * frames_BTHWC.shape[3] > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(frames_BTHWC, state)

    segmenter.forward = tight  # type: ignore[method-assign]
    worker = Worker(segmenter, "fp32")
    for width in (16, 64, 16):
        for _ in range(WARM_UP_CALLS + 1):
            assert (
                len(segment_whole(worker, np.zeros((4, 16, width, 3), np.uint8), batch_size=4)["squares"].masks)
                == 4
            )
    assert len(recorded) == 2  # of the small frames, before and after the large ones


@pytest.mark.usefixtures("_gpu")
def test_memory_that_was_short_for_a_while_slows_no_later_clip() -> None:
    torch.manual_seed(0)
    segmenter = UNetConfig(width=2).build([SQUARES]).eval().to("cuda")
    whole, sizes, shortages = segmenter.forward, [], [0]

    def forward(frames_BTHWC: Tensor, state: Any = ()) -> Any:
        sizes.append(frames_BTHWC.shape[1])
        if shortages[0]:
            shortages[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(frames_BTHWC, state)

    segmenter.forward = forward  # type: ignore[method-assign]
    worker = Worker(segmenter, "fp32")

    def tried(frames: int) -> list[int]:
        sizes.clear()
        segment_whole(worker, np.zeros((frames, 16, 16, 3), np.uint8), batch_size=frames)
        return list(sizes)

    tried(8)
    shortages[0] = 1
    assert tried(8) == [8, 4, 4]
    assert tried(8) == [4, 4]
    for _ in range(CALLS_IN_PIECES):
        tried(4)
    assert tried(8) == [8]
    shortages[0] = 1
    assert tried(1) == [1, 1]


def test_threads_that_share_a_worker_get_their_own_results(
    recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shared = Worker(UNetConfig(width=2).build([SQUARES]).eval().to("cuda"), "fp32")
    clips = [moving_squares(k, 1, 32, 48)[0] for k in range(2)]

    def confidence(k: int) -> np.ndarray:
        found = segment_whole(shared, clips[k], batch_size=1)["squares"].confidence
        assert found is not None
        return found.copy()

    for _ in range(WARM_UP_CALLS + 1):
        wanted = [confidence(0), confidence(1)]
    assert len(recorded) == 1 and (wanted[0] != wanted[1]).any()
    decoded, second_replayed, first = worker._decoded, threading.Event(), threading.get_ident()

    def decode(*given: Any) -> Any:
        if threading.get_ident() != first:
            second_replayed.set()
        elif second.ident is None:
            second.start()
            second_replayed.wait(1)  # it would have replaced the logits of the first
        return decoded(*given)

    monkeypatch.setattr(worker, "_decoded", decode)
    found: list[np.ndarray] = []
    second = threading.Thread(target=lambda: found.append(confidence(1)))
    np.testing.assert_array_equal(confidence(0), wanted[0])
    second.join()
    np.testing.assert_array_equal(found[0], wanted[1])


@pytest.mark.usefixtures("_gpu")
def test_tracks_on_a_gpu_need_no_atomic_additions(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.stack([torch.from_numpy(moving_squares(seed, 5, 32, 48)[1]) for seed in (0, 1)])
    wanted = track_objects(masks, find_objects(masks, 3))

    def atomic(*_: Any) -> None:
        raise AssertionError("their order differs from run to run")

    monkeypatch.setattr(Tensor, "index_add_", atomic)
    found = track_objects(masks.cuda(), find_objects(masks.cuda(), 3))
    assert torch.equal(found.visible_BTN.cpu(), wanted.visible_BTN)
    assert torch.allclose(found.centre_BTN2.cpu(), wanted.centre_BTN2, atol=1e-5)
    assert torch.allclose(found.std_BTN2.cpu(), wanted.std_BTN2, atol=1e-5)


@pytest.mark.usefixtures("_gpu")
def test_a_long_training_of_which_no_part_can_be_compiled_has_a_dry_run(tmp_path: Path) -> None:
    training = TrainingParams(
        epochs=2, steps_per_epoch=MIN_COMPILED_STEPS, batch_size=8, learning_rate=0.02, precision="fp32"
    )
    assert dry_run_training(Regression(scores=[0.1, 0.2]), training, tmp_path).scores["score"] == 0.2


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize(
    ("mixed", "error"),
    [
        (lambda here, there: here + there, "expected all tensors to be on cuda:0"),
        (lambda here, there: torch.cat([here.sum()[None], there]), "expected all tensors to be on cuda:0"),
        (lambda here, there: functional.mse_loss(there, here), "expected all tensors to be on cuda:0"),
        (lambda here, there: here[there.long()], "indices should be on the same device"),
        (lambda here, there: there.numpy(), "can't convert cuda:0"),
        (lambda here, there: torch.from_numpy(there.detach().numpy()), "can't convert cuda:0"),
    ],
)
def test_it_fails_as_a_gpu_does(mixed: Any, error: str) -> None:
    here = torch.arange(3.0)
    there = here.to("cuda")
    assert there.device.type == "cuda" and there.is_cuda and here.device.type == "cpu"
    with pytest.raises((RuntimeError, TypeError), match=error):
        mixed(here, there)


@pytest.mark.usefixtures("_gpu")
def test_what_a_gpu_does_goes_on_there() -> None:
    model = torch.nn.Linear(3, 2)
    model.to("cuda")
    x = torch.arange(6.0).view(2, 3).cuda()
    loss = (model(x) * torch.tensor(2.0)).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    weights, grads = model.weight, model.weight.grad
    assert isinstance(grads, Tensor)
    assert {each.device.type for each in (weights, grads, loss, x[0], x.new_zeros(2), torch.zeros_like(x))} == {
        "cuda"
    }
    assert x.cpu().numpy().tolist() == x.tolist() and x.cpu().device.type == "cpu"


@pytest.mark.usefixtures("_gpu")
def test_the_memory_of_a_masker_is_what_is_above_that_before_it(clips: Path) -> None:
    store = ClipStore(clips)
    _, speed = measure_speed(
        lambda: UNetConfig(width=4).build([SQUARES]).eval(), store.frames(store.clips[0]), 4, "fp32"
    )
    assert speed.memory_mib == 0.75  # of 1 MiB, less a quarter
