"""What a GPU must do as a CPU does: stages choose it by themselves where there is one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import write_store
from tests.known import know_squares

from maskcast.data.clips import ClipStore
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.progress import listening
from maskcast.stages.generate_masks import GenerateMasks, generate_masks
from maskcast.stages.train_masker import TrainMasker, train_masker

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
PARAMS = TrainMasker.model_validate(
    {
        "model": {"arch": "unet", "width": 8},
        "training": {
            "epochs": 2,
            "steps_per_epoch": 10,
            "batch_size": 4,
            "learning_rate": 0.01,
            "precision": "bf16",
            "checkpoint_every": 4,
        },
    }
)


class Killed(BaseException):
    """Stands for SIGKILL."""


class KillAt:
    """A listener that ends the process at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def metrics(self, values: dict[str, float], step: int | None) -> None:
        if step == self.step:
            raise Killed

    def file(self, path: Path, folder: str) -> None:
        pass


def test_a_masker_trains_in_bfloat16_and_goes_on_after_a_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = write_store(tmp_path / "clips").root
    outs = [{"masker": tmp_path / name, "metrics": tmp_path / f"{name}.json"} for name in ("unbroken", "killed")]
    train_masker(clips=clips, params=PARAMS, **outs[0])
    with pytest.raises(Killed), listening(KillAt(15)):
        train_masker(clips=clips, params=PARAMS, **outs[1])
    assert not outs[1]["masker"].exists()
    capsys.readouterr()
    train_masker(clips=clips, params=PARAMS, **outs[1])
    assert "resuming at step" in capsys.readouterr().err
    scores = [json.loads(out["metrics"].read_text())["val_jaccard"] for out in outs]
    assert all(map(math.isfinite, scores))
    unbroken, killed = (load_file(out["masker"] / "model.safetensors") for out in outs)
    for name, weights in unbroken.items():  # sums on a GPU have no fixed order
        assert (weights.float() - killed[name].float()).abs().mean() < 0.01, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_masker_that_knows_the_answer_gives_it(tmp_path: Path, precision: str) -> None:
    store = write_store(tmp_path / "clips")
    config, meta = UNetConfig(width=4), {"height": 32, "width": 48}
    save_masker(tmp_path / "masker", know_squares(config.build([store.label_map])), config, meta)
    params = GenerateMasks.model_validate({"precision": precision})
    generate_masks(
        clips=store.root,
        masker=tmp_path / "masker",
        masks=tmp_path / "masks",
        metrics=tmp_path / "m.json",
        params=params,
    )
    generated = ClipStore(tmp_path / "masks")
    for clip in store.select(kind="labelled"):
        assert np.array_equal(generated.masks(generated.get(clip.id)), store.masks(clip))


def test_a_forecaster_forecasts_what_it_does_on_the_cpu(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips")
    torch.manual_seed(0)
    model = ConvLSTMConfig(hidden=8, stride=4).build(3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    context = torch.from_numpy(np.stack([store.masks(clip)[:11] for clip in store.select("val")]))
    wanted = model.forecast(context, 5)
    assert len(wanted.unique()) > 1
    found = model.cuda().forecast(context.cuda(), 5)
    assert found.device.type == "cuda"
    assert (found.cpu() != wanted).float().mean() < 0.01
