"""A pipeline as one graph: every form gives the masks of the model that was trained."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.conftest import full_disk, moving_squares
from tests.registered import FACTS, HEIGHT, HORIZON, SEEN, WIDTH, clips_of_squares, write_registered

from maskcast.__main__ import main
from maskcast.data.images import RESIZE
from maskcast.errors import MaskcastError
from maskcast.inference.segment import segment_whole
from maskcast.inference.worker import Worker
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.configs import ConvLSTMConfig, FlowConfig, ObjectsConfig, SimVPConfig
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.table import load_masker
from maskcast.registry import export as exporting
from maskcast.registry import graphs
from maskcast.registry.export import export
from maskcast.registry.graphs import SUFFIXES, run_exported
from maskcast.registry.loading import load_address

PLAIN = ConvLSTMConfig(hidden=4, stride=4, motion="none", residual=False)  # is traced in a third of the time
SERVING = Path(__file__).resolve().parents[2] / "docs/serving.md"


def as_trained(parts: Path, clips_BTHWC: np.ndarray) -> np.ndarray:
    """Returns the forecast of the models that a training stage wrote, without the registry."""
    masker, forecaster = load_masker(parts / "masker")[0], load_forecaster(parts / "forecaster")[0]
    found = [segment_whole(Worker(masker, "fp32"), clip_THWC, batch_size=SEEN) for clip_THWC in clips_BTHWC]
    masks = np.stack([one["mask"].masks for one in found])
    return forecaster.forecast(torch.from_numpy(masks), HORIZON).numpy()


def cache_of(trace: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that calls another once."""
    known: list[Any] = []

    def once(*given: Any) -> Any:
        known[:] = known or [trace(*given)]
        return known[0]

    return once


@pytest.fixture(autouse=True)
def _a_graph_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To load takes seconds: what `export` has loaded for its check is not loaded again from the same bytes."""
    load, known = graphs.load_graph, {}

    def once(path: Path) -> Callable[..., list[np.ndarray]]:
        content = (path.suffix, path.read_bytes())
        if content not in known:
            known[content] = load(path)
        return known[content]

    monkeypatch.setattr(graphs, "load_graph", once)


def test_all_forms_agree_with_the_trained_model_and_none_is_written_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_address(str(write_registered(tmp_path, frame_rate=12.5)))
    clips = clips_of_squares(5)
    wanted = as_trained(tmp_path / "parts", clips)
    assert set(np.unique(wanted)) == {0, 1, 2}
    assert np.array_equal(loaded.model.predict(clips), wanted)
    # tracing takes seconds: all forms are written from one trace
    monkeypatch.setattr(exporting, "trace", cache_of(exporting.trace))
    for form, suffix in SUFFIXES.items():
        told = export(loaded, form, tmp_path / form)
        assert "pixels differ from the model in float32" in told
        assert {path.name for path in (tmp_path / form).iterdir()} == {f"model{suffix}", "export.json"}
        about = json.loads((tmp_path / form / "export.json").read_text())
        assert about["model"]["digest"] == loaded.digest
        assert about["input"]["shape"] == ["clips", FACTS["context_frames"], FACTS["height"], FACTS["width"], 3]
        assert about["input"]["resize"] == RESIZE
        assert (about["input"]["frame_stride"], about["input"]["frame_rate"]) == (FACTS["frame_stride"], 12.5)
        assert about["checked"]["share_different"] <= exporting.MAX_DIFFERENT_SHARE
        found = run_exported(tmp_path / form, clips[:1])  # it was traced and checked with other numbers
        assert (found != wanted[:1]).mean() <= exporting.MAX_DIFFERENT_SHARE
    written = onnx.load(tmp_path / "onnx/model.onnx")
    onnx.checker.check_model(written)
    assert json.loads(written.metadata_props[0].value)["classes"] == ["background", "red", "blue"]

    head = loaded.model.masker.network.network.head  # now the model has other weights than were traced
    head.bias = torch.nn.Parameter(head.bias.detach() + torch.tensor([0.0, 9.0, 0.0]))
    (tmp_path / "out").mkdir()
    before = tmp_path / "torch-export/model.pt2"  # written again it would be the same
    monkeypatch.setattr(exporting, "write_graph", lambda program, path, *_: shutil.copy(before, path))
    with pytest.raises(MaskcastError, match=r"as torch-export, \d+ of \d+ pixels differ .* nothing is written"):
        export(loaded, "torch-export", tmp_path / "out")
    assert not list(tmp_path.glob("out*/*"))


@pytest.mark.parametrize(
    "config",
    [ObjectsConfig(hidden=8), SimVPConfig(hidden=4, stride=4, blocks=1, motion="none")],
    ids=["objects", "simvp"],
)
def test_other_forecasters_are_one_graph_too(config: ModelConfig, tmp_path: Path) -> None:
    loaded = load_address(str(write_registered(tmp_path, config)))
    export(loaded, "torch-export", tmp_path / "out")
    clips = clips_of_squares(5)
    found = run_exported(tmp_path / "out", clips)
    assert (found != as_trained(tmp_path / "parts", clips)).mean() <= exporting.MAX_DIFFERENT_SHARE


def flickering(count: int, seen: int) -> np.ndarray:
    """Returns clips whose red square is blue in every second frame, so that frames disagree on its class."""
    clips = clips_of_squares(count)[:, :seen]
    for k, clip in enumerate(clips):
        masks = moving_squares(100 + k, SEEN, HEIGHT, WIDTH)[1][:seen]
        clip[1::2][masks[1::2] == 1] = clip[masks == 2].mean(0).astype(np.uint8)
    return clips


def test_frames_that_agree_are_two_graphs_and_a_file_between_that_needs_no_maskcast(tmp_path: Path) -> None:
    config = ObjectsConfig(hidden=8, whole=True)
    seen, horizon = 3, 1  # each frame makes the graphs longer
    facts = {"consistent_frames": seen, "context_frames": seen, "horizon": horizon}
    loaded = load_address(str(write_registered(tmp_path, config, **facts)))
    clips, folder = flickering(3, seen), tmp_path / "out"
    told = export(loaded, "onnx", folder)
    files = ", ".join(f"{folder}/{name}" for name in ("masker.onnx", "agree.py", "forecaster.onnx"))
    assert f": {files}: 0 of " in told
    assert {path.name for path in folder.iterdir()} == {
        "masker.onnx",
        "agree.py",
        "forecaster.onnx",
        "export.json",
    }
    for step in ("masker", "forecaster"):
        onnx.checker.check_model(onnx.load(folder / f"{step}.onnx"))
    wanted = loaded.model.predict(clips)
    assert wanted.shape[1] == horizon
    assert not np.array_equal(wanted, as_trained(tmp_path / "parts", clips)[:, :horizon])
    assert np.array_equal(run_exported(folder, clips), wanted)
    np.save(tmp_path / "clips.npy", clips)
    documented = re.findall("```python\n(import json\n.*?)```", SERVING.read_text(), re.DOTALL)[-1]
    program = f"""
import sys
sys.modules["maskcast"] = None
import numpy as np
clips = np.load({str(tmp_path / "clips.npy")!r})
{documented.replace("exported", str(folder))}
np.save({str(tmp_path / "future.npy")!r}, future)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert np.array_equal(np.load(tmp_path / "future.npy"), wanted)


def test_what_is_no_graph_is_said_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_address(str(write_registered(tmp_path)))
    monkeypatch.setattr(loaded.model.forecaster.network, "forecast", lambda masks, _: masks[: int(masks.sum())])
    with pytest.raises(MaskcastError, match=r"cannot be exported as one graph \([A-Za-z]+: .+\); serve it"):
        export(loaded, "onnx", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_flow_is_no_graph_which_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_address(str(write_registered(tmp_path, FlowConfig())))
    with pytest.raises(
        MaskcastError,
        match=r"one graph \(NotImplementedError: OpenCV finds the flow, so only the masker .*\); serve it",
    ):
        export(loaded, "onnx", tmp_path / "out")
    assert "aten" not in capfd.readouterr().err


def test_the_folder_of_a_downloaded_pipeline_is_exported_as_what_it_is_unless_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_registered(tmp_path, PLAIN).rename(tmp_path / "champion")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(exporting, "trace", cache_of(exporting.trace))
    with full_disk(20_000), pytest.raises(MaskcastError, match=f"^{tmp_path}/full.*free some"):  # and no abort
        export(load_address("./champion"), "torch-export", tmp_path / "full")
    assert not list(tmp_path.glob("full*"))
    assert main(["models", "export", "./champion", "--format", "torch-export", "--output", "graph"]) == 0
    assert "champion: graph/model.pt2: 0 of" in capsys.readouterr().out
    wanted = as_trained(tmp_path / "parts", clips_of_squares(1))
    assert (
        run_exported(tmp_path / "graph", clips_of_squares(1)) != wanted
    ).mean() <= exporting.MAX_DIFFERENT_SHARE
    assert main(["models", "export", "champion", "--format", "torch-export", "--output", "other"]) == 2
    assert "no models: sqlite:///" in capsys.readouterr().err  # the alias of the registry


@pytest.mark.parametrize("place", ["thesis", "parts/masker", "parts", ".", ".."])
def test_an_export_replaces_exports_alone(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_registered(tmp_path / "here")
    (tmp_path / "here/thesis").mkdir()
    (tmp_path / "here/thesis/thesis.tex").write_text("of a year")
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    words = ["models", "export", "parts/masker", "--format", "torch-export", "--output", place]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--output is replaced as a whole, but " in said
    assert sorted(tmp_path.rglob("*")) == before
