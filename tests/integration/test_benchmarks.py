"""Every benchmark, at toy size: it starts, measures and prints its table."""

import csv
import importlib.util
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tests.conftest import ROOT, moving_squares
from tests.integration.project import shrink
from tests.lookalikes import davis, write_images

from maskcast.data import loading
from maskcast.models.base import save_model
from maskcast.models.forecasting.configs import ObjectsConfig
from maskcast.proposal import values as proposed
from maskcast.simulator.camera import Motion, paint_masks, yaw_rotations

BENCHMARKS = ROOT / "benchmarks"
TOY: dict[str, list[str]] = {
    "data_by_reference": [
        *("--params", "small.yaml", "--clips", "2", "--least", "0.01", "--until", "generate_masks")
    ],
    "hand_lmdb": ["--few", "5", "--many", "12"],
    "agreeing": ["--rounds", "1", "--clips", "2"],
    "clip_store": ["--rounds", "1", "--few", "10", "--many", "20"],
    "coco": ["--rounds", "1", "--images", "30"],
    "forecast_losses": ["simulated", "--clips", "2", "--frames", "4", "3", "--size", "32", "48"],
    "forecaster": ["--rounds", "1", "--hidden", "2", "--batch", "1"],
    "gpu": ["--toy", "--out", "gpu", "--models", "U-Net", "--parts", "masks", "loops", "compiled"],
    "jaccard": ["--rounds", "1", "--masks", "2"],
    "label_suggestions": [
        *("--seeds", "0", "--budgets", "2", "4", "--clips", "2", "--validation", "1"),
        *("--steps", "2", "--batch", "2"),
    ],
    "losses": ["--rounds", "1", "--shape", "1", "5", "16", "24", "--losses", "CE"],
    "reader": ["--rounds", "1", "--clips", "1"],
    "request_memory": [
        *("--rounds", "1", "--models", "pipeline", "--frames", "4", "--size", "32", "48", "--classes", "3")
    ],
    "semi": ["--rounds", "1", "--labelled", "4", "--unlabelled", "4", "--precision", "fp32"],
    "serving": ["--rounds", "1"],
    "slotformer": ["simulated", "--clips", "2", "--step", "16", "--size", "32", "48"],
    "simulator": ["--clips", "1", "--groups", "1", "--strides", "5"],
    "streaming": ["--rounds", "1", "--frames", "6", "12", "--size", "32", "48", "--base", "unet"],
}
ELSEWHERE = {
    "few_labels_real": "test_real_sets_are_learnt_from_few_labels",
    "gpu_kernels": "test_every_kernel_compiles_for_a_gpu",
    "forecasting": "test_the_tables_of_forecasters_are_rebuilt",
    "image_startup": "needs a Docker Engine and an image of this project",
    "unseen_sequences": "test_sequences_that_nobody_labelled_are_scored",
    "worst_windows": "test_the_worst_windows_are_drawn_with_what_happened",
}
STARTED = ("request_memory", "streaming")  # whose commands are forked
PEERS = {"coco": "pycocotools", "jaccard": "torchmetrics"}  # what the extra `benchmarks` installs


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs benchmarks as their command does, in an empty folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    path = str(BENCHMARKS / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    runpy.run_path(path, run_name="__main__")


@pytest.mark.usefixtures("untimed_steps")
def test_sequences_that_nobody_labelled_are_scored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is proposed, but few frames in a step, and clips that this process reads."""
    training = proposed._training
    monkeypatch.setattr(proposed, "_training", lambda *given: training(*given) | {"epochs": 2, "batch_size": 2})
    monkeypatch.setattr(loading, "num_cpus", lambda: 1)
    frames, masks = moving_squares(0, 60, 64, 96)
    write_images(tmp_path / "data/camvid/take/images", frames, "{:03d}.png")
    write_images(tmp_path / "data/camvid/take/labels", masks, "{:03d}.png")
    davis(tmp_path / "data/davis2016_val", size=(64, 96))
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "lite0.safetensors")
    arguments = ["data", "--work", "work", "--only", "camvid", "--seeds", "0", "--steps", "1"]
    arguments += ["--weights", str(tmp_path / "lite0.safetensors")]
    run(monkeypatch, "unseen_sequences", *arguments)
    said = capsys.readouterr().out
    assert re.search(r"\| camvid \| at random \| 1 \| 0\.\d+ \[", said)
    assert re.search(r"\| camvid \| ImageNet \| 1 \| 0\.\d+ \[", said)
    before = {path: path.stat().st_mtime_ns for path in Path("work/runs").iterdir()}
    shutil.copy("lite0.safetensors", "other.safetensors")
    run(monkeypatch, "unseen_sequences", *arguments, "--weights", str(tmp_path / "other.safetensors"))
    again = {path.stem for path, then in before.items() if path.stat().st_mtime_ns != then}
    assert len(before) == 2 and again == {"camvid_0_ImageNet_0"}  # what is there of the same values stays


def test_each_is_here() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if not path.stem.startswith("_")}
    assert scripts == TOY.keys() | ELSEWHERE.keys(), "a new benchmark needs a toy size in TOY"


WRONG = {
    "agreeing": (["--rounds", "0"], "--rounds: '0': give a whole number from 1 on"),
    "coco": (["--images", "-1"], "--images: '-1': give a whole number from 1 on"),
    "data_by_reference": (["--until", "genrate_masks"], "--until: invalid choice: 'genrate_masks'"),
    "few_labels_real": ([".", "--arms", "nobody"], "--arms: nobody: choose among "),
    "forecast_losses": (["simulated", "--stride", "0"], "--stride: '0': give a whole number from 1 on"),
    "forecasting": ([".", "--values", "nowhere.yaml"], "nowhere.yaml: no such file of values"),
    "label_suggestions": (["--budgets", "20", "10"], "--budgets 20 10: give them ascending, each once"),
    "semi": (["--unlabelled", "5"], "--unlabelled 5: give an even number from 4 on"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments, said = WRONG[name]
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, name, *arguments)
    assert said in (capsys.readouterr().err.splitlines() or [ended.value.code])[-1]


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("few_labels_real", ["."], "values.yaml: section 'sets' is missing (sections: arms); add it"),
        ("label_suggestions", [], "work: cannot be read or written (File exists); choose another path"),
    ],
)
def test_a_folder_or_file_of_another_kind_is_one_line(
    name: str, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("work").write_text("of somebody")
    Path("values.yaml").write_text("arms: {}")
    values = ["--values", "values.yaml"] if name == "few_labels_real" else []
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, name, *words, "--work", "work", *values)
    assert said in str(ended.value.code)


@pytest.mark.parametrize("name", TOY)
def test_it_measures_at_toy_size(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if name == "simulator":
        monkeypatch.setenv("MASKCAST_SHARED_DATA", str(request.getfixturevalue("shared_data")))
    if name in STARTED:
        monkeypatch.setattr(sys, "executable", str(request.getfixturevalue("programs") / "python3"))
    if name == "data_by_reference":
        Path("small.yaml").write_text(yaml.safe_dump(shrink(yaml.safe_load((ROOT / "params.yaml").read_text()))))
    with suppress(SystemExit) if name in PEERS else nullcontext():  # toy sizes say nothing about speed
        run(monkeypatch, name, *TOY[name])
    said = capfd.readouterr().out
    assert "commit " in said
    assert name != "simulator" or ("nan" not in said and re.search(r"frames and masks\W+[1-9]", said))
    assert name not in PEERS or (PEERS[name] in said and "(equal)" in said)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="PyTorch's CPU builds come without Triton")
def test_every_kernel_compiles_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends with an error where one spills more than a little."""
    run(monkeypatch, "gpu_kernels", "--first", "--compute", "80")
    said = capfd.readouterr().out
    models = ROOT / "src/maskcast/models"
    sources = [*(models / "kernels").glob("*.py"), models / "segmentation/loss_kernels.py"]
    kernels = [
        f"{path.stem}.{name}" for path in sources for name in re.findall(r"def (\w+_kernel)\(", path.read_text())
    ]
    assert len(kernels) > 15
    for kernel in kernels:
        assert kernel in said
    assert "still_loss.still_kernel, backward" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a card")
def test_without_a_card_that_is_said_and_all_models_step(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "gpu", "--toy", "--out", "gpu", "--parts", "steps", "graphs")
    assert "No card here" in capfd.readouterr().out
    with Path("gpu/gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    stepped = [row for row in rows if row["part"] == "steps" and row["batch"]]
    assert len(stepped) == 7 and all(float(row["per_s"]) > 0 and float(row["tflop_s"]) > 0 for row in stepped)
    assert [row["note"] for row in rows if row["part"] == "graphs"] == ["RuntimeError: no card"] * 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a card")
def test_without_a_card_full_sizes_are_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "gpu", "--out", "gpu")
    assert ended.value.code == "error: no GPU that PyTorch can use; use --toy for small sizes on the CPU"


def test_the_longest_kernels_of_a_step_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "gpu", "--toy", "--out", "gpu", "--parts", "kernels", "--models", "U-Net")
    with Path("gpu/gpu.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    longest = row["note"].split(", ")
    assert len(longest) == 12 and all(re.fullmatch(r".+ \d+\.\d\d ms \(\d+x\)", one) for one in longest)
    assert sum(float(one.split()[-3]) for one in longest) <= float(row["ms"]) + 0.1


def test_a_detector_is_trained_by_a_graph_though_it_finds_boxes_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    forms = importlib.import_module("_gpu.forms")
    captured: list[object] = []

    def capture(call: Callable[[], object]) -> Callable[[], object]:
        captured.append(call)
        return call

    monkeypatch.setattr(forms, "CARD", True)
    monkeypatch.setattr(forms, "_captured", capture)
    run(monkeypatch, "gpu", "--toy", "--out", "gpu", "--parts", "graphs", "--models", "Faster", "MoCo")
    with Path("gpu/gpu.csv").open(newline="") as file:
        _, detector, encoder = csv.DictReader(file)
    assert float(detector["per_s"]) > 0 and not detector["infer_per_s"] and not detector["note"]
    assert float(encoder["infer_per_s"]) > 0 and len(captured) == 3


@pytest.mark.parametrize(("name", "peer"), PEERS.items())
def test_it_measures_ours_alone_where_the_peer_is_missing(
    name: str, peer: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for module in [peer, *(name for name in sys.modules if name.startswith(f"{peer}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    run(monkeypatch, name, *TOY[name])
    said = capfd.readouterr().out
    assert f"{peer} is not installed, ours is measured alone: uv pip install 'maskcast[benchmarks]'" in said


def test_the_tables_of_forecasters_are_rebuilt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the shipped values, but small: every section that trains and scores is one of theirs."""
    values = yaml.safe_load((BENCHMARKS / "forecasting.yaml").read_text())
    small = {"height": 32, "width": 48}
    simulated = {"layout": "synthetic", "train": 2, "val": 1, "unlabeled": 0, "hidden": 0, "render": False}
    for store, val in (("simulated", 1), ("real_stride_5", 2)):  # CLEVRER's release is 20 GB
        values["stores"][store] = {"source": simulated | {"val": val}, "workers": 1, **small}
    values["stores"] = {name: values["stores"][name] for name in ("simulated", "real_stride_5")}
    values["scores"] = {name: values["scores"][name] | {"pictures": 0} for name in values["stores"]}
    short = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "warmup_steps": 0}
    values["forecasters"] = {
        name: one | {"training": one["training"] | short, "val_clips": 1}
        for name, one in values["forecasters"].items()
        if name in ("objects", "flow")
    }
    video = values["videos"]["davis2016_val"]
    video["prepare_clips"] |= {"workers": 1, **small}
    video["prepare_clips"]["source"] |= {"splits": {"val": ["camel"], "test": ["dog"]}}
    video["finetune_forecaster"]["training"] |= short
    values["videos"] = {"davis2016_val": video}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "data/clevrer").mkdir(parents=True)
    for seed, clip in enumerate(("bear", "camel", "dog")):
        folder = tmp_path / "data/davis2016_val/Annotations/480p" / clip
        folder.mkdir(parents=True)
        for t, mask in enumerate(moving_squares(seed, 23, 32, 48)[1]):
            Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(folder / f"{t:05d}.png")
    run(monkeypatch, "forecasting", "data", "--work", "work", "--seeds", "0", "--values", "small.yaml")
    said = capsys.readouterr().out
    assert said.startswith("Macro Jaccard, absent classes left out, true context; seeds 0")
    for name in ("objects", "flow", "persistence", "constant velocity", "rigid body"):
        assert said.count(f"\n| {name} |") == 2
    gains = said.split("minus that of rigid body, real stride 5, mean of the seeds:\n\n")[1].split("\n\n")[0]
    header, _, *by_video, last = gains.splitlines()
    assert header == "| video | flow | objects |" and len(by_video) == 2
    cells = [[float(cell) for cell in row.split("|")[2:4]] for row in by_video]
    interval = r" ([+-]\d\.\d{3}) \[([+-]\d\.\d{3}), ([+-]\d\.\d{3})\] "
    found = re.fullmatch(rf"\| mean over the clips \[95 % interval\] \|{interval}\|{interval}\|", last)
    assert found is not None
    for name, of, numbers in (("flow", 0, found.groups()[:3]), ("objects", 1, found.groups()[3:])):
        mean, low, high = map(float, numbers)
        assert low <= mean <= high and mean == pytest.approx(np.mean([row[of] for row in cells]), abs=1.1e-3)
        scores = json.loads((tmp_path / f"work/{name}/0/real_stride_5.json").read_text())
        pooled = scores["jaccard_mean"] - scores["jaccard_mean_rigid_body"]  # of all clips together
        assert mean == pytest.approx(pooled, abs=0.1)
    assert "minus that of rigid body, davis2016 val" not in said  # which knows no such scene
    assert (tmp_path / "work/results.md").read_text() in said
    run(monkeypatch, "forecasting", "data", "--work", "work", "--seeds", "0", "--values", "small.yaml")
    assert "finetune" not in capsys.readouterr().err  # what is there is not made again
    trained = tmp_path / "work/objects/0/model.made.json"
    before = trained.stat().st_mtime_ns
    values["stores"]["simulated"]["source"] = simulated | {"train": 3}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    run(monkeypatch, "forecasting", "data", "--work", "work", "--seeds", "0", "--values", "small.yaml")
    assert trained.stat().st_mtime_ns > before  # what it learns from is another store


def test_the_truth_says_what_happened_to_an_object() -> None:
    losses = importlib.import_module("forecast_losses")
    frames = np.arange(20)
    places = np.full((20, 6, 3), 0.2)
    places[:, 0, :2] = [-1.0, 0.0]  # rests
    places[:, 1, 0], places[:, 1, 1] = -1.0 + 0.02 * frames, 1.0  # moves freely
    places[:, 2, 0], places[:, 2, 1] = 0.5 + 0.02 * np.abs(frames - 15), -0.5  # turns round after frame 15
    places[:, 3, 0], places[:, 3, 1] = 0.5 + 0.02 * np.abs(frames - 8), 0.8  # and this one after frame 8
    places[:, 4, :2] = [0.0, 2.0]
    places[:, 5, :2] = [-0.8, 0.0]  # before the first, as the camera sees it
    kinds = np.arange(17, 23).astype(np.uint8)  # spheres
    masks = paint_masks(Motion(kinds, places, yaw_rotations(np.zeros((20, 6)))), 80, 120)
    masks[:12][masks[:12] == 21] = 0  # comes after the context
    motion = Motion(kinds, places, yaw_rotations(np.zeros((20, 6))))
    assert losses.cases(losses.World(motion, frames, masks), 10) == {
        0: "background",
        17: "partly hidden",
        18: "moves freely",
        19: "hit in the forecast",
        20: "hit in the last two seen frames",
        21: "arrives later",
        22: "rests",
    }


def test_objects_are_matched_as_slotformer_does() -> None:
    matched_iou = importlib.import_module("slotformer").matched_iou
    truth, found = np.zeros((2, 8), int), np.zeros((2, 8), int)
    truth[:, :4], truth[:, 4:6] = 3, 5
    found[:, :2], found[:, 4:8] = 9, 1
    assert matched_iou(truth, found) == pytest.approx((4 / 8 + 4 / 8) / 2)
    assert matched_iou(truth, np.zeros_like(truth)) == pytest.approx(8 / 16 / 2)  # one region for two objects
    assert np.isnan(matched_iou(np.zeros_like(truth), found))


def test_the_worst_windows_are_drawn_with_what_happened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = ObjectsConfig(hidden=4)
    save_model(tmp_path / "model", config.build(49), config, num_classes=49, meta={})
    small = ("--clips", "3", "--windows", "2", "--frames", "4", "3", "--size", "32", "48")
    run(monkeypatch, "worst_windows", "simulated", "model", "--out", "worst", *small)
    page = Path("worst/index.html").read_text()
    assert page.count("IoU of each object at the last frame</caption>") == 2 and page.count("data:image/png") == 2
    losses = importlib.import_module("forecast_losses")
    assert any(f'<td class="text">{case}</td>' in page for case in losses.CASES)
    with Image.open("worst/worst.png") as sheet:
        assert sheet.width > 100


def test_real_sets_are_learnt_from_few_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the shipped values, but small."""
    values = yaml.safe_load((BENCHMARKS / "few_labels_real.yaml").read_text())
    davis = values["sets"]["davis2016_val"] | {"height": 24, "width": 32, "workers": 1}
    values["sets"] = {"davis2016_val": davis}
    short = {"steps_per_epoch": 3, "batch_size": 2, "warmup_steps": 0}
    for section in ("pretrain_encoder", "train_masker"):
        values[section]["training"] |= short
    values["pretrain_encoder"]["views"]["size"] = [16, 16]
    values["train_masker"]["augment"]["crop"] = [16, 16]
    davis["source"] |= {"frames": 5, "window_step": 5}
    for arm in ("supervised for longer", "propagated for longer"):
        values["arms"][arm] |= {"training": {"steps_per_epoch": 4}}
    for arm in ("mean teacher", "both"):
        values["arms"][arm] |= {
            "unlabeled": {"batch_size": 2, "burn_in_steps": 1},
            "training": {"steps_per_epoch": 2},
        }
    second = {"generated": {"threshold": 0.0}, "training": short}  # what has learnt nothing is sure of nothing
    values["arms"]["two rounds"] = {"training": short, "second": second}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    frames, masks = moving_squares(0, 20, 24, 32)
    for part, pictures in (("JPEGImages", frames), ("Annotations", np.where(masks > 0, 255, 0).astype(np.uint8))):
        folder = tmp_path / "data/davis2016_val" / part / "480p/bear"
        folder.mkdir(parents=True)
        for t, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / f"{t:05d}.{'jpg' if part == 'JPEGImages' else 'png'}")
    arguments = ("data", "--work", "work", "--seeds", "0", "--shares", "20", "--values", "small.yaml")
    run(monkeypatch, "few_labels_real", *arguments)
    said = capsys.readouterr().out
    assert all(arm in said for arm in values["arms"]) and said.count("| davis2016_val | 20 % (2) |") == 2
    with Path("work/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["arm"] for row in rows} == values["arms"].keys()
    assert all(row["labelled"] == "2" for row in rows)
    assert all(0 <= float(row[score]) <= 1 for row in rows for score in ("jaccard", "between"))
    run(monkeypatch, "few_labels_real", *arguments)
    assert "training" not in capsys.readouterr().err  # what is there is not made again
    values["arms"]["supervised"] = {"training": {"learning_rate": 0.002}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    before = {path: path.stat().st_mtime_ns for path in Path("work/runs").iterdir()}
    run(monkeypatch, "few_labels_real", *arguments)
    changed = [path.stem for path, then in before.items() if path.stat().st_mtime_ns != then]
    assert changed == ["davis2016_val_20_supervised_0"]
    values["train_masker"]["training"]["learning_rate"] = 0.003  # the rows of other arms are not of these values
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    run(monkeypatch, "few_labels_real", *arguments, "--arms", "supervised")
    with Path("work/results.csv").open(newline="") as file:
        assert [row["arm"] for row in csv.DictReader(file)] == ["supervised"]


def test_frames_are_suggested_again_for_other_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for steps, trains in (("2", True), ("2", False), ("3", True)):
        run(monkeypatch, "label_suggestions", *TOY["label_suggestions"], "--steps", steps)
        out, err = capsys.readouterr()
        assert ("epoch" in err) == trains
        said.append(out)
    assert said[0] == said[1] and "2 clips, 3 steps of 2 crops, commit " in said[2]
