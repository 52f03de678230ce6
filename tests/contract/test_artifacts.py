"""What commit 46791c4 wrote is read, answered with and resumed from (tests/artifacts/46791c4/README.md)."""

import hashlib
import json
import lzma
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import ROOT

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.detection.dataset import DetectionSet
from maskcast.digest import digest_tree, sha256_of
from maskcast.inference.detect import detect_images
from maskcast.inference.segment import segment_whole
from maskcast.inference.worker import Worker
from maskcast.models.detection.table import load_detector
from maskcast.models.forecasting.table import load_forecaster
from maskcast.models.segmentation.table import load_masker
from maskcast.params import load_params_file, section
from maskcast.registry.artifact import load_artifact
from maskcast.registry.evaluations import read_evaluation
from maskcast.registry.frame_models import EncoderModel
from maskcast.runner.fingerprint import fingerprint
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import get_stage
from maskcast.training.checkpoint import OWNER

ARTIFACTS = ROOT / "tests/artifacts/46791c4"
SEEN = HORIZON = 11
ANSWERS: dict[str, Any] = json.loads((ARTIFACTS / "answers/answers.json").read_text())
REGISTERED: dict[str, Any] = json.loads((ARTIFACTS / "registered/registry.json").read_text())
MODELS = {
    "pipeline": {"masker": "masker", "forecaster": "forecaster/finetuned"},
    "detector": {"detector": "detector"},
}
LAYERS = ("frames", "masks", "confidence")
EQUAL_PIXELS = 0.999  # other processors round differently
CERTAIN = 0.1  # score from which on a box is compared: those just above the least score come and go
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
Run = Callable[..., Path]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the artifacts, with what is compressed unpacked."""
    folder = tmp_path_factory.mktemp("artifacts") / "46791c4"
    shutil.copytree(ARTIFACTS, folder)
    for file in folder.rglob("*.xz"):
        file.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
        file.unlink()
    return folder


@pytest.fixture
def run(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a stage beside nothing, so that no run is tracked, and returns the folder of its outputs by port."""
    monkeypatch.delenv("MASKCAST_RESUME_DIR", raising=False)

    def run(name: str, params: str | None = None, **inputs: str) -> Path:
        stage, file = get_stage(name), kept / "params" / f"{params or name}.yaml"
        values = stage.params.model_validate(section(load_params_file(file), name, str(file)))
        ports = {port.name for port in stage.ports if port.direction == "out" and port.name != "page"}
        outputs = {port: tmp_path / port for port in ports}
        stage.function(**{port: kept / path for port, path in inputs.items()}, **outputs, params=values)
        return tmp_path

    return run


def machine() -> str:
    """Returns a digest of what the last bits of a sum depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().partition("\n\n")[0].splitlines() if cpuinfo.exists() else []
    first = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    names = ("model name", "cpu family", "model", "stepping", "cache size")
    known = {
        "machine": platform.machine(),
        "processor": ", ".join(first.get(name, "") for name in names),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    if "ONEDNN_MAX_CPU_ISA" in os.environ:
        known["onednn"] = os.environ["ONEDNN_MAX_CPU_ISA"]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def answer(name: str) -> dict[str, np.ndarray]:
    with np.load(ARTIFACTS / "answers" / f"{name}.npz") as file:
        return dict(file)


def assert_same_pixels(found: np.ndarray, recorded: np.ndarray) -> None:
    assert (found.shape, found.dtype) == (recorded.shape, recorded.dtype)
    assert np.mean(found == recorded) >= EQUAL_PIXELS


def assert_same_boxes(found_N6: np.ndarray, recorded_N6: np.ndarray) -> None:
    """Compares rows of x1, y1, x2, y2, score and label, each certain one with the nearest of the other side."""
    for ours_N6, theirs_N6 in ((found_N6, recorded_N6), (recorded_N6, found_N6)):
        for box_6 in ours_N6[ours_N6[:, 4] > CERTAIN]:
            nearest = np.abs(theirs_N6 - box_6).max(1).argmin()
            np.testing.assert_allclose(theirs_N6[nearest], box_6, rtol=1e-3, atol=1e-3)


def assert_metrics(file: Path, recorded: dict[str, float]) -> None:
    found = json.loads(file.read_text())
    assert {name: found[name] for name in recorded} == pytest.approx(recorded, rel=1e-4, abs=1e-4)


def arrays_of(store: ClipStore) -> dict[str, dict[str, str]]:
    """Returns the sha256 of every array of a clip store."""
    found: dict[str, dict[str, str]] = {}
    for clip in store.clips:
        has = {"frames": clip.has_frames, "masks": store.has_masks(clip), "confidence": store.has_confidence(clip)}
        arrays = {
            layer: np.ascontiguousarray(getattr(store, layer)(clip)) for layer, there in has.items() if there
        }
        found[clip.id] = {layer: hashlib.sha256(array.data).hexdigest() for layer, array in arrays.items()}
    return found


@pytest.mark.parametrize("name", ["clips", "masks"])
def test_a_clip_store_reads_the_same_arrays(kept: Path, name: str) -> None:
    store = ClipStore(kept / name)
    store.verify()
    assert arrays_of(store) == ANSWERS["arrays"][name]
    splits = [("train", "labelled")] * 2 + [("val", "labelled")] * 2
    splits += [("unlabeled", "unlabelled"), ("hidden", "hidden")]
    assert [(clip.split, clip.kind) for clip in store.clips] == splits
    assert (store.classes, store.height, store.width) == (("background", "red", "blue"), 24, 32)
    assert [clip.num_frames for clip in store.clips] == [22] * 5 + [11]


def test_inputs_have_the_digests_that_name_them(kept: Path) -> None:
    """Checkpoints, registered versions and evaluations name data and models by these."""
    names = [name for name in ANSWERS["digests"] if (kept / name).exists()]
    assert len(names) >= 10
    assert {name: digest_tree(kept / name) for name in names} == {name: ANSWERS["digests"][name] for name in names}


@torch.inference_mode()
def test_the_masker_answers_as_recorded(kept: Path) -> None:
    store, recorded = ClipStore(kept / "clips"), answer("masker")
    frames = store.frames(store.get("val_0"))
    masker, description = load_masker(kept / "masker")
    assert description["meta"]["classes"] == ["background", "red", "blue"]
    found = segment_whole(Worker(masker, "fp32"), frames, batch_size=len(frames))["mask"]
    assert_same_pixels(found.masks, recorded["masks"])
    (logits_BTKHW,), _ = masker(torch.tensor(frames[:2])[None])
    np.testing.assert_allclose(logits_BTKHW[0].numpy(), recorded["logits"], **CLOSE)
    assert np.mean(recorded["masks"] == store.masks(store.get("val_0"))) > 0.98


@pytest.mark.parametrize("name", ["objects", "finetuned", "convlstm", "convgru", "frames"])
def test_a_forecaster_answers_as_recorded(kept: Path, name: str) -> None:
    store, recorded = ClipStore(kept / "clips"), answer(f"forecaster-{name}")
    model, description = load_forecaster(kept / "forecaster" / name)
    assert (description["meta"]["context_frames"], description["meta"]["horizon"]) == (SEEN, HORIZON)
    context = torch.from_numpy(
        np.stack([getattr(store, model.input)(clip)[:SEEN] for clip in store.select("val")])
    )
    assert_same_pixels(model.forecast(context, HORIZON).numpy(), recorded["forecast"])
    if model.input == "masks":
        masks, confidence = model.forecast_with_confidence(context, HORIZON)
        assert_same_pixels(masks.numpy(), recorded["forecast"])
        apart = np.abs(confidence.numpy().astype(int) - recorded["confidence"])
        assert np.mean(apart <= 1) >= EQUAL_PIXELS


def test_the_encoder_answers_as_recorded(kept: Path) -> None:
    store = ClipStore(kept / "clips")
    features = EncoderModel(kept / "encoder").predict(store.frames(store.get("val_0"))[:4])
    np.testing.assert_allclose(features, answer("encoder")["features"], **CLOSE)


def test_the_detector_answers_as_recorded(kept: Path) -> None:
    recorded, split = answer("detector"), DetectionSet(kept / "dataset").split("val")
    detector, description = load_detector(kept / "detector")
    assert description["meta"] == {"classes": ["red", "blue"], "original_ids": [7, 3]}
    certain = 0
    for n in range(len(split)):
        (found,) = detect_images(detector, [split.image(n)], "fp32")
        known = [recorded[f"{name}_{n}"] for name in ("boxes", "scores", "labels")]
        assert_same_boxes(np.column_stack(found), np.column_stack(known))
        certain += int((known[1] > CERTAIN).sum())
    assert certain >= 2


@pytest.mark.parametrize("kind", REGISTERED)
def test_a_registered_model_loads_by_its_digest_and_answers_as_recorded(kept: Path, kind: str) -> None:
    folder, recorded = kept / "registered" / kind, answer(f"registered-{kind}")["prediction"]
    model, _ = load_artifact(folder, REGISTERED[kind]["digest"])
    found = model.predict(np.array(json.loads((folder / "input_example.json").read_text()), np.uint8))
    assert (found.dtype, found.shape) == (recorded.dtype, recorded.shape)
    if kind == "detector":
        for ours_N6, theirs_N6 in zip(found, recorded, strict=True):
            assert_same_boxes(ours_N6, theirs_N6)
    elif found.dtype == np.uint8:
        assert_same_pixels(found, recorded)
    else:
        np.testing.assert_allclose(found, recorded, **CLOSE)


@pytest.mark.parametrize("kind", ["pipeline", "detector"])
def test_the_evaluation_of_a_registered_model_is_read_and_named_as_then(kept: Path, kind: str) -> None:
    """The gate compares a candidate with a champion that was registered then."""
    record, tags = read_evaluation(kept / "registered" / f"{kind}-evaluation"), REGISTERED[kind]["tags"]
    assert record.digest == tags["maskcast.evaluation"]
    assert record.facts["data"] == tags["maskcast.data"]
    scores = {name: f"{record.scores[name]:.6f}" for name in record.measure.headline if name in record.scores}
    assert scores == {name: tags[f"maskcast.score.{name}"] for name in scores}
    record.check_models(**{name: kept / place for name, place in MODELS[kind].items()})


@pytest.mark.parametrize("stage", ["train_masker", "pretrain_forecaster", "train_detector"])
def test_a_killed_run_goes_on_where_it_stopped_and_ends_with_the_recorded_weights(
    kept: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    about = json.loads((kept / "checkpoint" / stage / "run.json").read_text())
    output = tmp_path / about["output"]
    shutil.copytree(kept / "checkpoint" / stage / "left", resume_dir(output))
    values = section(load_params_file(kept / about["params"]), stage, stage)
    inputs = {port: kept / path for port, path in about["inputs"].items()}
    params = get_stage(stage).params.model_validate(values)  # then, it lacked some keys
    name = fingerprint(f"maskcast.stages.{stage}", params, **inputs)
    (resume_dir(output) / OWNER).write_text(json.dumps({"fingerprint": name}))
    run(stage, Path(about["params"]).stem, **about["inputs"])
    assert f"resuming at step {about['step']} of {about['steps']}" in capsys.readouterr().err
    found, recorded = (load_file(folder / "model.safetensors") for folder in (output, kept / about["result"]))
    assert found.keys() == recorded.keys()
    torch.testing.assert_close(found, recorded, rtol=1e-3, atol=1e-3)
    lasting = {name: value for name, value in about["metrics"].items() if "second" not in name}
    assert_metrics(tmp_path / "metrics", lasting)
    if machine() == about["machine"]:
        assert sha256_of(output / "model.safetensors") == about["weights_sha256"]


def test_a_run_that_was_killed_under_another_fingerprint_starts_anew(
    kept: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    about = json.loads((kept / "checkpoint/pretrain_forecaster/run.json").read_text())
    output = tmp_path / about["output"]
    shutil.copytree(kept / "checkpoint/pretrain_forecaster/left", resume_dir(output))
    run("pretrain_forecaster", Path(about["params"]).stem, **about["inputs"])
    said = capsys.readouterr().err
    assert "checkpoint of a run with other params, data or code; starting from scratch" in said
    assert "resuming" not in said and (output / "model.safetensors").exists()


def test_generated_masks_are_those_recorded(kept: Path, run: Run) -> None:
    out = run("generate_masks", clips="clips", masker="masker")
    found, recorded = ClipStore(out / "masks"), ClipStore(kept / "masks")
    for layer in ("masks", "confidence"):
        ours, theirs = (np.concatenate([getattr(s, layer)(c) for c in s.clips]) for s in (found, recorded))
        assert_same_pixels(ours, theirs)
    assert_metrics(out / "metrics", ANSWERS["metrics"]["generate_masks"])
    if machine() == ANSWERS["machine"]:
        assert arrays_of(found) == ANSWERS["arrays"]["masks"]


def test_an_evaluation_measures_what_it_did_and_says_so_in_the_same_words(kept: Path, run: Run) -> None:
    out = run("evaluate", clips="clips", masks="masks", **MODELS["pipeline"])
    assert_metrics(out / "metrics", ANSWERS["metrics"]["evaluate"])
    found, recorded = (
        read_evaluation(folder) for folder in (out / "report", kept / "registered/pipeline-evaluation")
    )
    params = found.facts["params"]  # which the artifacts are older than, as than the size and the arithmetic
    assert params.keys() == {"evaluate"}
    newer = {"params": params, "size": [24, 32], "arithmetic": "forecasts fp32 on cpu"}
    assert found.facts == recorded.facts | newer
    if machine() == ANSWERS["machine"]:
        assert found.digest == recorded.digest
    for name, scores in recorded.per_item.items():
        assert found.per_item[name] == pytest.approx(scores, rel=1e-4, abs=1e-4)


def test_an_evaluation_of_a_detector_measures_what_it_did(kept: Path, run: Run) -> None:
    out = run("evaluate_detector", dataset="dataset", detector="detector")
    assert_metrics(out / "metrics", ANSWERS["metrics"]["evaluate_detector"])
    folders = (out / "report", kept / "registered/detector-evaluation")
    found, recorded = (read_evaluation(folder) for folder in folders)
    assert found.facts == recorded.facts | {"arithmetic": "fp32 on cpu"}


@pytest.mark.parametrize("name", ["finetuned", "frames"])
def test_predictions_are_those_recorded(kept: Path, run: Run, name: str) -> None:
    out = run("predict", clips="clips", masks="masks", masker="masker", forecaster=f"forecaster/{name}")
    store, recorded = ClipStore(out / "predictions"), answer(f"predict-{name}")
    assert [clip.id for clip in store.clips] == list(recorded)
    for clip in store.clips:
        assert_same_pixels(store.masks(clip), recorded[clip.id])
    last = torch.load(out / "predictions/submission.pt", weights_only=True)
    np.testing.assert_array_equal(last.numpy(), np.stack([store.masks(clip)[-1] for clip in store.clips]))
    if machine() == ANSWERS["machine"]:
        assert arrays_of(store) == ANSWERS["predictions"][name]
