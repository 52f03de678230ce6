"""Clips, maskers and forecasters that are evaluated and ready to be registered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import write_store

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.models.base import save_model
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.stages.evaluate import Evaluate, evaluate

NO_BASELINE: dict[str, Any] = {"beats": []}
"""Of a gate that lets forecasters pass that learnt nothing: none is better than a copy of the last mask."""


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Runs `maskcast models` with these words; returns its exit code and all that it says."""
    capsys.readouterr()
    code = main(["models", *words])
    out, err = capsys.readouterr()
    return code, out + err


class Workshop:
    """Clips, a masker and forecasters of known quality, evaluated: what a pipeline leaves behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clips = write_store(folder / "clips", val=3).root
        torch.manual_seed(0)
        config = UNetConfig(width=4)
        network = config.build([ClipStore(self.clips).label_map])
        save_masker(folder / "masker", network, config, {"height": 32, "width": 48})

    def forecaster(self, seed: int, noise: float = 0.0, clips: Path | None = None) -> dict[str, Path]:
        """Returns the inputs of register_models: without noise the forecaster copies the last mask."""
        place = self.folder / f"{seed}-{noise}-{clips is None}"
        if not place.exists():
            config = ConvLSTMConfig(hidden=4, stride=4, loss_stride=1)
            torch.manual_seed(seed)
            model = config.build(3)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(noise * torch.randn_like(parameter))
            meta = {"context_frames": 11, "horizon": 11}
            save_model(place / "forecaster", model, config, num_classes=3, meta=meta)
            models = {"masker": self.folder / "masker", "forecaster": place / "forecaster"}
            store = clips or self.clips
            out = {"metrics": place / "metrics.json", "report": place / "report"}
            evaluate(clips=store, masks=store, **models, **out, params=Evaluate(context="truth", pictures=0))
        inputs = {"clips": clips or self.clips, "masker": self.folder / "masker"}
        return inputs | {name: place / name for name in ("forecaster", "report")}
