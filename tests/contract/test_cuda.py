"""What a GPU must do as a CPU does: stages choose it by themselves where there is one.

Where there is none, a pretended one (``tests/pretended_gpu.py``) shows that these tests are still right about
names and messages; those of kernels, memory and several GPUs need a real one.

Tolerances: float32 is computed in another order on a GPU (relative 1e-4 for outputs of whole networks, 5e-3 for
gradients); bfloat16 has 8 bits (5e-2 for outputs). Sums by atomic additions have no fixed order, so equal runs
give equal bits only with deterministic kernels.
"""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import ROOT, SMALL_DETECTOR, painted_boxes, write_store
from tests.known import know_squares
from tests.pretended_gpu import pretended_gpu
from tests.unit import test_recorded_tasks as recorded_tasks
from torch import Tensor, nn

from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.labels import single_map
from maskcast.models.arithmetic import arithmetic, compile_unsupported_reason
from maskcast.models.cuda_graphs import GraphedCallable
from maskcast.models.detection.configs import FasterRcnnConfig
from maskcast.models.encoders.configs import DenseCLConfig, UNetEncoderConfig
from maskcast.models.encoders.siamese import Normalised, Views
from maskcast.models.forecasting.batches import Window
from maskcast.models.forecasting.configs import ConvLSTMConfig, ForecasterConfig
from maskcast.models.segmentation.configs import MaskLossConfig, SmpConfig, UNetConfig
from maskcast.models.segmentation.losses import MaskLoss
from maskcast.models.segmentation.table import save_masker
from maskcast.progress import listening
from maskcast.stages.generate_masks import GenerateMasks, generate_masks
from maskcast.stages.train_masker import TrainMasker, train_masker
from maskcast.training.feeding import to_device
from maskcast.training.learner import WARM_UP_STEPS
from maskcast.training.loop import fit

pytestmark = pytest.mark.cuda
GPU, HAS_GPU = torch.device("cuda"), torch.cuda.is_available()
STEPS = 10 if HAS_GPU else 5  # of an epoch: a CPU takes its time for those of a pretended one
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
needs_compiler = pytest.mark.skipif(
    not HAS_GPU or compile_unsupported_reason(GPU) is not None, reason="needs an NVIDIA GPU, and a compiler"
)


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nullcontext() if HAS_GPU else pretended_gpu(monkeypatch):
        yield


def params(**training: Any) -> TrainMasker:
    return TrainMasker.model_validate(
        {
            "model": {"arch": "unet", "width": 8},
            "training": {
                "epochs": 2,
                "steps_per_epoch": STEPS,
                "batch_size": 4,
                "learning_rate": 0.01,
                "precision": "bf16",
                "checkpoint_every": 4,
                **training,
            },
        }
    )


class Killed(BaseException):
    """Stands for SIGKILL."""


class KillAt:
    """A listener that ends the process at a step, and keeps the losses until then."""

    def __init__(self, step: int = -1) -> None:
        self.step, self.losses = step, []

    def metrics(self, values: dict[str, float], step: int | None) -> None:
        if "train/loss" in values:
            self.losses.append(values["train/loss"])
        if step == self.step:
            raise Killed

    def file(self, path: Path, folder: str) -> None:
        pass

    def section(self, title: str, content: Any) -> None:
        pass


@contextmanager
def deterministic() -> Iterator[None]:
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def trained(folder: Path, clips: Path, given: TrainMasker) -> dict[str, Tensor]:
    train_masker(clips=clips, params=given, masker=folder, metrics=folder.with_suffix(".json"))
    return load_file(folder / "model.safetensors")


def close(found: Tensor, wanted: Tensor, most: float) -> None:
    error = float(
        (found.cpu().double() - wanted.cpu().double()).norm() / wanted.cpu().double().norm().clamp_min(1e-9)
    )
    assert error < most, (error, most)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_training_ends_like_an_unbroken_one_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    clips, given = write_store(tmp_path / "clips").root, params(precision=precision)
    with deterministic():
        unbroken = trained(tmp_path / "unbroken", clips, given)
        with pytest.raises(Killed), listening(KillAt(STEPS + 3)):
            trained(tmp_path / "killed", clips, given)
        assert not (tmp_path / "killed").exists()
        capsys.readouterr()
        killed = trained(tmp_path / "killed", clips, given)
    assert "resuming at step" in capsys.readouterr().err
    assert math.isfinite(json.loads((tmp_path / "killed.json").read_text())["val_jaccard"])
    for name, weights in unbroken.items():
        assert torch.equal(weights, killed[name]), name


def test_the_first_losses_are_those_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later ones drift apart: training amplifies rounding."""
    clips, given = write_store(tmp_path / "clips").root, params(precision="fp32", learning_rate=1e-4)
    with listening(gpu := KillAt()):
        trained(tmp_path / "gpu", clips, given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with listening(cpu := KillAt()):
        trained(tmp_path / "cpu", clips, given)
    assert len(gpu.losses) == len(cpu.losses) == 2 * STEPS
    assert gpu.losses[:5] == pytest.approx(cpu.losses[:5], rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_masker_that_knows_the_answer_gives_it(tmp_path: Path, precision: str) -> None:
    store = write_store(tmp_path / "clips")
    config, meta = UNetConfig(width=4), {"height": 32, "width": 48}
    save_masker(tmp_path / "masker", know_squares(config.build([store.label_map])), config, meta)
    given = GenerateMasks.model_validate({"precision": precision})
    out = {"masks": tmp_path / "masks", "metrics": tmp_path / "m.json"}
    generate_masks(clips=store.root, masker=tmp_path / "masker", params=given, **out)
    generated = ClipStore(tmp_path / "masks")
    for clip in store.select(kind="labelled"):
        assert np.array_equal(generated.masks(generated.get(clip.id)), store.masks(clip))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("config", [UNetConfig(width=8), SmpConfig(arch="smp_deeplabv3plus", encoder="resnet18")])
def test_a_segmenter_computes_and_learns_as_on_a_cpu(config: Any, precision: str) -> None:
    torch.manual_seed(0)
    model = config.build(single_map(["background", "red", "blue"]))
    batch = 4 if HAS_GPU else 1
    frames = torch.randint(0, 256, (batch, 1, 64, 96, 3), dtype=torch.uint8)
    target = torch.randint(0, 3, (batch, 64, 96), dtype=torch.uint8)

    def run(device: str) -> tuple[Tensor, dict[str, Tensor]]:
        # smp's dropout draws other numbers on a GPU, and a norm of four pooled values makes much of a rounding
        model.to(device).train(isinstance(config, UNetConfig)).zero_grad()
        with arithmetic(torch.device(device), precision):
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                (logits,), _ = model(frames.to(device))
            MaskLoss(MaskLossConfig())(logits.flatten(0, 1), target.to(device)).backward()
        grads = {name: weights.grad.cpu().clone() for name, weights in model.named_parameters()}
        return logits.detach().float().cpu(), grads

    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted, grads = run("cpu")
    model.load_state_dict(before)
    found, own = run("cuda")
    exact = precision == "fp32"
    close(found, wanted, 1e-4 if exact else 5e-2)
    everything = [torch.cat([part.flatten() for part in each.values()]) for each in (own, grads)]
    close(*everything, 5e-3 if exact else 0.3)  # batch norms of few pixels make the most of a rounding


# all pixels: what is drawn of them is drawn on the device
SIZES = {"hidden": 8, "stride": 4, "loss_steps": 11, "loss_stride": 1}
FORECASTERS = [
    *(
        arch(**{name: size for name, size in SIZES.items() if name in arch.model_fields})
        for arch in get_args(get_args(ForecasterConfig)[0])
    ),
    ConvLSTMConfig(**SIZES, motion="none"),
]


@pytest.mark.parametrize("config", FORECASTERS, ids=lambda config: config.arch)
def test_a_forecaster_forecasts_and_learns_as_on_a_cpu(tmp_path: Path, config: Any) -> None:
    store = write_store(tmp_path / "clips")
    torch.manual_seed(0)
    model = config.build(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    clips = list(store.select("val"))
    masks = torch.from_numpy(np.stack([store.masks(clip)[:11] for clip in clips]))
    source = model.batch_source(store, clips)
    parts = [slice(0, 11), slice(11, 22)]
    context, target = (source.batch([Window(k, part, False) for k in range(len(clips))]) for part in parts)
    forecasts, losses, gradients = [], [], []
    for device in (torch.device("cpu"), GPU):
        model.to(device).eval()
        with arithmetic(device, "fp32"):
            forecasts.append(model.forecast(masks.to(device), 5).cpu())
            torch.manual_seed(1)
            loss, logged = model.train().loss(to_device(context, device), to_device(target, device))
            model.zero_grad()
            loss.backward()
        assert all(isinstance(value, Tensor) for value in logged.values())  # nothing made the GPU wait
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]))
    assert (forecasts[0] != forecasts[1]).float().mean() < 0.01
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    close(gradients[1], gradients[0], 1e-2)


# a detector's proposals may change with a rounding; it has a test of its own
RECORDED = {name: made for name, made in recorded_tasks.STEPS.items() if not name.startswith("detector")}


@pytest.mark.parametrize("made", RECORDED.values(), ids=RECORDED)
def test_a_recorded_task_learns_what_a_written_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: Any
) -> None:
    """Its draws among it: a replay draws from the random state of its own step."""
    store, losses = recorded_tasks.write_squares(tmp_path / "clips"), []
    for choice in (False, "auto"):
        task = made(store)
        training = task.params.training.model_copy(update={"learning_rate": 1e-4, "compile": choice})
        if not HAS_GPU and getattr(task, "semi_supervised", None) is None:  # else two shapes are recorded
            training = training.model_copy(update={"steps_per_epoch": WARM_UP_STEPS + 3})
        with listening(kept := KillAt()):
            fit(task, training, tmp_path / str(choice))
        losses.append(kept.losses)
    assert "not recorded" not in capsys.readouterr().err
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_detector_learns_as_on_a_cpu() -> None:
    torch.manual_seed(0)
    detector = FasterRcnnConfig(**SMALL_DETECTOR).build(2).train()
    image, boxes, labels = painted_boxes(0, 48, 64, 2)
    losses = []
    for device in ("cpu", "cuda"):
        detector.to(device)
        with arithmetic(torch.device(device), "fp32"):
            given = [[torch.from_numpy(each).to(device)] for each in (image, boxes, labels)]
            found = detector.losses(*given)
        assert all(torch.isfinite(each) for each in found.values())
        losses.append(sum(float(found[name].detach()) for name in ("loss_objectness", "loss_rpn_box_reg")))
    assert losses[1] == pytest.approx(losses[0], rel=0.2)  # anchors are drawn on the device


@needs_compiler
@pytest.mark.parametrize("version", [1, 2])
def test_a_recorded_detector_learns_what_a_written_one_does(version: int) -> None:
    torch.manual_seed(0)
    detector = FasterRcnnConfig(**SMALL_DETECTOR | {"version": version}).build(2).cuda().train()
    samples = [painted_boxes(k, 48, 64, 2) for k in range(2)]
    images, boxes, labels = (
        [torch.from_numpy(each).cuda() for each in part] for part in zip(*samples, strict=True)
    )
    learned = [weights for weights in detector.parameters() if weights.requires_grad]

    def gradients(batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total = torch.stack(list(detector.losses(*batch).values())).sum()
        total.backward()
        return total.detach(), {}

    recorded, losses, grads = GraphedCallable(gradients, parameters=learned, warm_up_calls=WARM_UP_STEPS), [], []
    assert detector.same_each_step
    for _ in range(WARM_UP_STEPS + 2):
        detector.zero_grad()
        torch.manual_seed(1)  # the draws of both stages
        losses.append(float(recorded((images, boxes, labels))[0]))
        grads.append(torch.cat([weights.grad.flatten() for weights in learned if weights.grad is not None]))
    assert len(recorded._calls) == 1
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-3)
    close(grads[-1], grads[0], 1e-2)


def test_an_encoder_learns_as_on_a_cpu() -> None:
    torch.manual_seed(0)
    encoder = Normalised(UNetEncoderConfig(width=8).build(), torch.full((3,), 0.5), torch.full((3,), 0.25))
    siamese = DenseCLConfig(queue=64, sub_batches=2).build(encoder)
    views = torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8)
    batch = Views(views, views, torch.arange(8), torch.tensor(0))
    start = {name: value.clone() for name, value in siamese.state_dict().items()}
    losses = []
    for device in ("cpu", "cuda"):
        siamese.load_state_dict(start)
        siamese.to(device).train()
        moved = Views(*(part.to(device) for part in batch))
        with arithmetic(torch.device(device), "fp32"):
            loss, logged = siamese.loss(moved)
        assert all(isinstance(value, Tensor) for value in logged.values())  # nothing made the GPU wait
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@needs_compiler
def test_kernels_compute_what_pytorch_does() -> None:
    subprocess.run(
        [sys.executable, "-c", "from tests.kernels import check_all; check_all('cuda')"], cwd=ROOT, check=True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_of_49_classes_is_that_of_a_cpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 49, 40, 60).to(dtype).to(memory_format=torch.channels_last)
    target = torch.randint(0, 49, (4, 40, 60), dtype=torch.uint8)
    target[:, :3] = 255
    gradients, losses = [], []
    for device in ("cpu", "cuda"):
        z = logits.detach().to(device).requires_grad_()
        loss = MaskLoss(MaskLossConfig())(z, target.to(device))
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(z.grad)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    close(gradients[1], gradients[0], 1e-5 if dtype == torch.float32 else 5e-3)


@needs_compiler
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
def test_a_compiled_masker_learns_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = write_store(tmp_path / "clips").root
    losses = []
    for choice in (False, True):
        with listening(kept := KillAt()):
            trained(tmp_path / str(choice), clips, params(precision="fp32", learning_rate=1e-4, compile=choice))
        losses.append(kept.losses)
    assert "not compiled" not in capsys.readouterr().err
    assert losses[1][:5] == pytest.approx(losses[0][:5], rel=1e-3)


@needs_gpu
def test_a_batch_beyond_the_memory_is_said_with_one_that_fits(tmp_path: Path) -> None:
    clips = write_store(tmp_path / "clips", height=160, width=240).root
    total = torch.cuda.get_device_properties(0).total_memory
    large = {
        "model": {"arch": "unet", "width": 32},
        "training": params(batch_size=64, checkpoint_every=100).training,
    }
    given = TrainMasker.model_validate(large | {"training": large["training"].model_dump()})
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2.5 * 2**30) / total))
    expected = r"training\.batch_size 64 does not fit .*; lower it to (\d+), the estimated maximum"
    try:
        with pytest.raises(MaskcastError) as said:
            trained(tmp_path / "large", clips, given)
        found = re.fullmatch(expected, str(said.value))
        assert found is not None, said.value
        fitting = int(found[1])
        assert 1 <= fitting < 64
        smaller = given.training.model_copy(update={"batch_size": fitting, "epochs": 1, "steps_per_epoch": 2})
        trained(tmp_path / "small", clips, given.model_copy(update={"training": smaller}))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@needs_gpu
def test_masks_of_frames_beyond_the_memory_come_in_smaller_batches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "clips", height=160, width=240)
    config = UNetConfig(width=64)
    save_masker(tmp_path / "masker", config.build([store.label_map]), config, {})
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.5 * 2**30) / total)
    try:
        generate_masks(
            clips=store.root,
            masker=tmp_path / "masker",
            masks=tmp_path / "masks",
            metrics=tmp_path / "m.json",
            params=GenerateMasks(batch_size=128, consistent_frames=None),
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "frames at once do not fit into the memory of the GPU: going on with" in capsys.readouterr().err
    assert len(ClipStore(tmp_path / "masks").clips) == len(store.clips)


@needs_two
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_gpus_learn_what_one_does(tmp_path: Path, precision: str) -> None:
    """NCCL, and batch norms over both."""
    clips = write_store(tmp_path / "clips").root
    (tmp_path / "params.yaml").write_text(
        json.dumps({"train_masker": params(precision=precision, learning_rate=1e-4).model_dump(mode="json")})
    )
    scores = []
    for count in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "-m", "maskcast"]
        out = ["--masker", f"{tmp_path}/{count}", "--metrics", f"{tmp_path}/{count}.json"]
        command += ["train_masker", "--params", f"{tmp_path}/params.yaml", "--clips", str(clips), *out]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=800)
        scores.append(load_file(tmp_path / str(count) / "model.safetensors"))
    for name, weights in scores[0].items():
        assert (weights.float() - scores[1][name].float()).abs().mean() < (
            1e-3 if precision == "fp32" else 1e-2
        ), name


def test_batch_norms_over_all_processes_are_converted_on_a_gpu() -> None:
    from maskcast.distributed import sync_batch_norms

    model = nn.Sequential(UNetEncoderConfig(width=4).build()).cuda()
    names = list(model.state_dict())
    sync_batch_norms(model)
    found = [
        type(module).__name__ for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    assert set(found) == {"SyncBatchNorm"} and list(model.state_dict()) == names
