"""Whole, in chunks, streamed, by the command, served, by MLflow's raw model and exported: the same masks."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from tests.conftest import ROOT, moving_squares
from tests.registered import CLASSES
from tests.unit.test_serving_sessions import ask, connect, server

import maskcast
from maskcast.__main__ import main
from maskcast.data.images import RESIZE
from maskcast.errors import MaskcastError
from maskcast.inference.segment import segment
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.models.segmentation.configs import RecurrentConfig, UNetConfig
from maskcast.models.segmentation.recurrent import RecurrentSegmenter
from maskcast.models.segmentation.table import load_masker, save_masker
from maskcast.registry.bundle import write_bundle
from maskcast.registry.export_segmenter import export_segmenter, run_frames
from maskcast.registry.kinds import SegmenterDescription
from maskcast.registry.loading import LoadedMasker, load_address, masker_of
from maskcast.registry.runtime import PyfuncModel, load_bundle

HEIGHT, WIDTH, FRAMES = 36, 48, 6
MAPS = (LabelMap("squares", CLASSES), LabelMap("matte", ("background", "foreground"), "alpha"))
CASES: dict[str, SegmenterModelConfig] = {
    "unet": UNetConfig(width=4),
    "recurrent": RecurrentConfig(base=UNetConfig(width=4)),
}


def load_trained(folder: Path) -> LoadedMasker:
    return masker_of(load_address(str(folder), trained=True))


def trained(folder: Path, config: SegmenterModelConfig, **told: Any) -> Path:
    """Writes a masker of random weights whose memory is no zero and whose logits are far apart."""
    torch.manual_seed(0)
    network = config.build(MAPS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        network.get_submodule("network.head").weight.mul_(20)
    save_masker(folder, network, config, {"height": HEIGHT, "width": WIDTH} | told)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_every_way_gives_the_same_masks(case: str, tmp_path: Path) -> None:
    masker = trained(tmp_path / "masker", CASES[case])
    frames, _ = moving_squares(0, FRAMES, HEIGHT, WIDTH)
    network, _ = load_masker(masker)
    pieces = list(segment(Worker(network, "fp32"), np.split(frames, [1, 4]), batch_size=1))
    wanted = {one.name: np.concatenate([piece[one.name].masks for piece in pieces]) for one in MAPS}
    assert len(np.unique(wanted["squares"])) > 1
    if network.stateful:  # they remember: the last frame alone has other masks
        alone = next(segment(Worker(network, "fp32"), [frames[-1:]], batch_size=1))
        assert not np.array_equal(alone["matte"].masks[0], wanted["matte"][-1])

    def assert_same(found: dict[str, Any]) -> None:
        for name, masks in wanted.items():
            np.testing.assert_array_equal(found[name], masks)

    pieces = list(segment(Worker(network, "fp32"), [frames], batch_size=4))
    batches = {name: np.concatenate([piece[name].masks for piece in pieces]) for name in wanted}
    np.testing.assert_array_equal(batches["squares"], wanted["squares"])
    assert np.abs(batches["matte"].astype(int) - wanted["matte"]).max() <= 1

    about = SegmenterDescription(
        precision="fp32", height=HEIGHT, width=WIDTH, classes=CLASSES, label_map="squares"
    )
    write_bundle(tmp_path / "bundle", about, {"segmenter": masker})
    raw = PyfuncModel(load_bundle(tmp_path / "bundle")).get_raw_model()
    for model in (maskcast.Segmenter(masker), raw):
        with model.session() as session:  # type: ignore[union-attr]
            steps = [session.step(frame) for frame in frames]
        assert_same({name: [step.maps[name] for step in steps] for name in wanted})

    with server(masker) as address, connect(address) as client:
        client.recv()
        answers = np.stack([ask(client, frame)[1] for frame in frames], 1)
    assert_same(dict(zip(wanted, answers, strict=True)))

    (tmp_path / "video").mkdir()
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "video" / f"{t}.png")
    assert main(["segment", f"{tmp_path}/video", "--model", str(masker), "--output", f"{tmp_path}/out"]) == 0
    folders = {"squares": "masks/squares", "matte": "mattes/matte"}
    assert_same({name: images(tmp_path / "out/video" / folder) for name, folder in folders.items()})

    for form in ("onnx", "torch-export") if network.stateful else ("onnx",):
        graph = tmp_path / form
        assert main(["models", "export", str(masker), "--format", form, "--output", str(graph)]) == 0
        about_it = json.loads((graph / "export.json").read_text())
        assert about_it["input"]["resize"] == RESIZE
        found = run_frames(graph, frames[None], about_it)
        np.testing.assert_array_equal(found["squares_ids"][0], wanted["squares"])
        assert np.abs(found["matte_opacity"][0].astype(int) - wanted["matte"]).max() <= 1
        with torch.no_grad():
            (squares, matte), _ = network(torch.from_numpy(frames[None]))
        np.testing.assert_allclose(found["squares_logits"], squares, atol=1e-4)
        np.testing.assert_allclose(found["matte_logits"], matte, atol=1e-4)
        assert [each["input"] for each in about_it["states"]] == list(network.state_names)
    check_names(tmp_path / "onnx/segmenter.onnx")
    run_documented(tmp_path / "onnx", frames, wanted["squares"])


def images(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]


def check_names(path: Path) -> None:
    """Every tensor and every axis of free length has a name that programs can use."""
    model = onnx.load(path)
    onnx.checker.check_model(model)
    for tensor in (*model.graph.input, *model.graph.output):
        assert re.fullmatch("[a-z][a-z0-9_]*", tensor.name)
        first, *others = tensor.type.tensor_type.shape.dim
        assert first.dim_param == "clips"
        assert all(axis.dim_value > 0 for axis in others)


def run_documented(graph: Path, frames: np.ndarray, wanted: np.ndarray) -> None:
    """The program of docs/streaming.md runs an exported segmenter."""
    text = (ROOT / "docs/streaming.md").read_text()
    programs = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    program = next(each for each in programs if "onnxruntime" in each)
    found: list[np.ndarray] = []
    values = {"frames": frames, "show": found.append}
    exec(program.replace("exported/", f"{graph}/").replace("mask_ids", "squares_ids"), values)
    np.testing.assert_array_equal(np.stack(found), wanted)


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_trained(trained(tmp_path / "masker", UNetConfig(width=2)))
    monkeypatch.setattr("maskcast.registry.export_segmenter.LOGIT_TOLERANCE", -1.0)
    with pytest.raises(
        MaskcastError, match=r"as torch-export, logits differ by at most .* nothing is written; export it in"
    ):
        export_segmenter(loaded, "torch-export", tmp_path / "out")
    unknown = load_trained(trained(tmp_path / "other", UNetConfig(width=2), height=None))
    with pytest.raises(MaskcastError, match=r"other: config.json has no height and width; train the masker again"):
        export_segmenter(unknown, "torch-export", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"masker", "other"}


def test_of_a_matte_alone_no_classes_are_told(tmp_path: Path) -> None:
    config = UNetConfig(width=2)
    (matte,) = (one for one in MAPS if one.kind == "alpha")
    save_masker(tmp_path / "masker", config.build([matte]), config, {"height": HEIGHT, "width": WIDTH})
    told = export_segmenter(load_trained(tmp_path / "masker"), "torch-export", tmp_path / "out")
    assert re.search(r": logits differ by at most \S+$", told)


class Nameless(RecurrentSegmenter):
    """A network whose author has forgotten the names of its state."""

    state_names = ()


def test_a_state_without_names_is_no_graph_which_is_one_line(tmp_path: Path) -> None:
    loaded = load_trained(trained(tmp_path / "masker", CASES["recurrent"]))
    loaded.model.network.__class__ = Nameless
    said = (
        r": Nameless\.state_names names 0 tensors of its state, which has \d; name each, e\.g\. state_names = \("
    )
    with pytest.raises(MaskcastError, match=said):
        export_segmenter(loaded, "onnx", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
