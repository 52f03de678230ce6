"""A masker on a vision transformer: from frames alone to a graph for ONNX Runtime, in tiny real trainings."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from maskcast.data.clip_store.reader import ClipStore
from maskcast.models.segmentation.table import load_masker
from maskcast.registry.graphs import trace, write_graph
from maskcast.runner.run import run_stage
from maskcast.training.tasks import segmentation
from maskcast.training.tasks.segmentation import FrameTask

VIT = "tu-test_vit"  # timm's tiny network for tests
SCHEDULE: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "precision": "bf16"}
PRETRAINING = {
    "model": {"arch": "smp", "encoder": VIT},
    "method": {"name": "moco", "dim": 8, "hidden": 16, "queue": 32, "sub_batches": 2},
    "views": {"size": [16, 24]},
    "training": SCHEDULE | {"steps_per_epoch": 2, "batch_size": 16},
}
PARAMS = {
    "model": {"arch": "smp_dpt", "encoder": VIT},
    "training": SCHEDULE | {"steps_per_epoch": 4, "batch_size": 2, "checkpoint_every": 2},
    "val_frame_step": 8,
}


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_from_frames_alone_to_a_graph(store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tmp_path / "encoder"
    run_stage("pretrain_encoder", PRETRAINING, unlabeled=store.root, encoder=encoder, metrics=tmp_path / "e.json")

    def masker(name: str, params: dict[str, Any], **given: Path) -> Path:
        out = tmp_path / name
        run_stage("train_masker", params, clips=store.root, masker=out, metrics=tmp_path / f"{name}.json", **given)
        return out

    unbroken = masker("unbroken", PARAMS, encoder=encoder)
    started = load_file(encoder / "model.safetensors")["blocks.0.attn.qkv.weight"]
    trained = load_file(unbroken / "model.safetensors")["network.encoder.model.blocks.0.attn.qkv.weight"]
    assert 0 < (trained - started).abs().max() < 0.01

    class KilledTask(FrameTask):
        def loss(self, batch: Any, step: int) -> Any:
            if step == 3:
                raise Killed
            return super().loss(batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(segmentation, "FrameTask", KilledTask)
        with pytest.raises(Killed):
            masker("killed", PARAMS, encoder=encoder)
    killed = masker("killed", PARAMS, encoder=encoder)
    assert (killed / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()

    slow = PARAMS | {"training": SCHEDULE | {"learning_rate": 1e-9, "steps_per_epoch": 1, "batch_size": 2}}
    again = load_file(masker("again", slow, start=unbroken) / "model.safetensors")
    head = "network.segmentation_head.0.weight"
    torch.testing.assert_close(again[head], load_file(unbroken / "model.safetensors")[head], rtol=0, atol=1e-6)

    class Logits(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            return segmenter(frames)[0][0]

    segmenter, _ = load_masker(unbroken)
    graph, clips = Logits(), torch.randint(0, 256, (3, 2, 40, 56, 3), dtype=torch.uint8)
    graph.segmenter = segmenter
    write_graph(trace(graph, "masker", clips.numpy()), tmp_path / "m.onnx", ["frames"], ["logits"], {})
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (found,) = session.run(None, {"frames": clips.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), segmenter(clips)[0][0], rtol=1e-3, atol=1e-3)
