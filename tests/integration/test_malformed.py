"""Malformed input of every kind: one clear line, exit code 2, and nothing left behind."""

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.conftest import write_store
from tests.videos import encode_frames

from maskcast.__main__ import main
from maskcast.labels import single_map
from maskcast.models.base import save_model
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.runner.stage import get_stage

SIZE = (16, 24)
TRAINING = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "learning_rate": 0.01}
PARAMS: dict[str, dict[str, Any]] = {
    "fetch_dataset": {"uri": "data"},
    "prepare_clips": {"source": {"layout": "competition"}, "workers": 1, "on_error": "fail"},
    "train_masker": {"model": {"arch": "unet", "width": 2}, "training": TRAINING},
    "generate_masks": {},
    "pretrain_forecaster": {"model": {"arch": "convlstm", "hidden": 4}, "training": TRAINING},
    "finetune_forecaster": {"training": TRAINING},
    "evaluate": {"pictures": 0},
    "predict": {},
}
VIDEOS = {"source": {"layout": "videos"}}
Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A stage, how its input is spoiled, and what the one line must hold: place, then remedy."""

    name: str
    stage: str
    says: tuple[str, ...]
    spoil: Spoil = lambda folder: None
    params: dict[str, Any] = field(default_factory=dict)
    text: str | None = None  # the params file as it stands, instead of `params`


def write_video(folder: Path, frames: int = 3, size: tuple[int, int] = SIZE, masks: bool = True) -> None:
    folder.mkdir(parents=True)
    for k in range(frames):
        Image.fromarray(np.full((*size, 3), 40 + k, np.uint8)).save(folder / f"image_{k}.png")
    if masks:
        np.save(folder / "mask.npy", np.ones((frames, *size), np.int64))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Well-formed inputs of every stage; each case spoils a copy."""
    folder = tmp_path_factory.mktemp("good")
    for split, number in (("train", 1), ("val", 2)):
        write_video(folder / "raw" / split / f"video_{number}")
    write_video(folder / "data" / "train" / "video_1")
    write_store(folder / "clips", train=1, val=1, hidden=1)
    write_store(folder / "masks", train=1, val=1)
    unet, convlstm = UNetConfig(width=2), ConvLSTMConfig(hidden=4)
    save_masker(folder / "masker", unet.build(single_map("abc")), unet, {})
    for name in ("pretrained", "forecaster"):
        save_model(folder / name, convlstm.build(3), convlstm, num_classes=3, meta={})
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_tracking_store(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("tracking")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        yield


def mask_npy(masks: np.ndarray, folder: Path) -> None:
    np.save(folder / "raw/train/video_1/mask.npy", masks)


def pickled_masks(folder: Path) -> None:
    """The only masks there are would run code to be read."""
    mask_npy(np.array([{}, []], dtype=object), folder)
    remove("raw/val", folder)


def cut(path: str, folder: Path) -> None:
    file = folder / path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def scribble(path: str, folder: Path) -> None:
    """Overwrites the first bytes; the size stays."""
    with (folder / path).open("r+b") as file:
        file.write(b"\xff" * 12)


def flip(path: str, folder: Path) -> None:
    """Changes one bit in the middle; the size stays."""
    data = bytearray((folder / path).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / path).write_bytes(data)


def edit_json(path: str, key: str, value: Any, folder: Path) -> None:
    content = json.loads((folder / path).read_text())
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[last] = value
    (folder / path).write_text(json.dumps(content))


def replace(path: str, old: bytes, new: bytes, folder: Path) -> None:
    (folder / path).write_bytes((folder / path).read_bytes().replace(old, new))


def remove(path: str, folder: Path) -> None:
    shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()


def write_zip(members: dict[str, bytes], folder: Path) -> None:
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def write_bomb(folder: Path) -> None:
    write_zip({"train/zeros.bin": bytes(128 << 20)}, folder)


def write_tar_link(folder: Path) -> None:
    with tarfile.open(folder / "data.tar", "w") as file:
        link = tarfile.TarInfo("train/passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link, io.BytesIO())


def write_movie(folder: Path) -> None:
    (folder / "raw").rename(folder / "unused")
    noise = [np.random.default_rng(k).integers(0, 255, (32, 48, 3), dtype=np.uint8) for k in range(30)]
    encode_frames(folder / "raw/movie.mp4", noise, "mpeg4")


def truncated_movie(folder: Path) -> None:
    write_movie(folder)
    cut("raw/movie.mp4", folder)


def resave_forecaster(classes: int, folder: Path) -> None:
    remove("forecaster", folder)
    config = ConvLSTMConfig(hidden=4)
    save_model(folder / "forecaster", config.build(classes), config, num_classes=classes, meta={})


def resave_masker(name: str, width: int, classes: int, folder: Path) -> None:
    remove(name, folder)
    config = UNetConfig(width=width)
    save_masker(folder / name, config.build(single_map(map(str, range(classes)))), config, {})


def other_weights(folder: Path) -> None:
    resave_masker("masker", 4, 3, folder)
    edit_json("masker/config.json", "model.width", 2, folder)


def unlike_store(name: str, folder: Path, **sizes: int) -> None:
    remove(name, folder)
    write_store(folder / name, train=1, val=1, hidden=1, **sizes)


def a_file_for_a_folder(folder: Path) -> None:
    (folder / "results").write_text("a file where a folder should be")


def training(**values: Any) -> dict[str, Any]:
    return {"training": TRAINING | values}


CASES = [
    # What the user typed.
    Case("YAML syntax error", "train_masker", ("params.yaml: line 3", "fix"), text="train_masker:\n  a: [1,\n"),
    Case("params are a list", "train_masker", ("params.yaml", "map names to values"), text="- 1\n"),
    Case("section missing", "train_masker", ("params.yaml", "'train_masker'", "add it"), text="evaluate: {}\n"),
    Case("section is a number", "train_masker", ("params.yaml", "must map"), text="train_masker: 3\n"),
    Case("params are binary", "train_masker", ("params.yaml", "give a YAML"), text="\udcff\udcfe"),
    Case(
        "NaN", "train_masker", ("training.learning_rate", "change it"), params=training(learning_rate=float("nan"))
    ),
    Case(
        "infinity",
        "train_masker",
        ("training.learning_rate", "change"),
        params=training(learning_rate=float("inf")),
    ),
    Case("unknown key", "train_masker", ("training.epoch:", "did you mean 'epochs'"), params=training(epoch=3)),
    Case("wrong type", "train_masker", ("training.epochs", "'many'", "change it"), params=training(epochs="many")),
    Case("a fraction of an epoch", "train_masker", ("training.epochs", "change it"), params=training(epochs=1.5)),
    Case("negative epochs", "train_masker", ("training.epochs", "-1", "change it"), params=training(epochs=-1)),
    Case(
        "unknown architecture",
        "train_masker",
        ("train_masker.model", "'vit'", "unet"),
        params={"model": {"arch": "vit"}},
    ),
    Case(
        "stride 3",
        "pretrain_forecaster",
        ("model.stride", "1, 2, 4 or 8"),
        params={"model": {"arch": "convlstm", "stride": 3}},
    ),
    Case(
        "unknown context",
        "evaluate",
        ("evaluate.context", "'generated'", "change it"),
        params={"context": "guess"},
    ),
    Case("no horizon", "predict", ("predict.horizon", "change it"), params={"horizon": 0}),
    Case("missing input", "evaluate", ("masks", "does not exist", "run the stage"), partial(remove, "masks")),
    Case("unwritable output", "predict", ("results", "choose a writable path"), a_file_for_a_folder),
    # What was fetched.
    Case("no data", "fetch_dataset", ("nowhere", "fix the path"), params={"uri": "nowhere"}),
    Case(
        "zip with ../",
        "fetch_dataset",
        ("data.zip", "../evil.txt", "pack the archive again"),
        partial(write_zip, {"train/a.txt": b"a", "../evil.txt": b"evil"}),
        {"uri": "data.zip"},
    ),
    Case(
        "zip bomb",
        "fetch_dataset",
        ("data.zip", "zip bomb", "unpack it yourself"),
        write_bomb,
        {"uri": "data.zip"},
    ),
    Case(
        "zip cut short",
        "fetch_dataset",
        ("data.zip", "copy it again"),
        lambda folder: (write_zip({"train/a.txt": os.urandom(999)}, folder), cut("data.zip", folder)),
        {"uri": "data.zip"},
    ),
    Case("link in a tar", "fetch_dataset", ("data.tar", "passwd", "pack"), write_tar_link, {"uri": "data.tar"}),
    Case(
        "symlink out of the tree",
        "fetch_dataset",
        ("passwd", "points outside", "replace it"),
        lambda folder: (folder / "data/train/passwd").symlink_to("/etc/passwd"),
    ),
    Case(
        "checksum",
        "fetch_dataset",
        ("data.zip", "sha256", "fix sha256"),
        partial(write_zip, {"a.txt": b"a"}),
        {"uri": "data.zip", "sha256": "0" * 64},
    ),
    # Raw videos.
    Case(
        "corrupt PNG",
        "prepare_clips",
        ("video_1/image_1.png",),
        partial(scribble, "raw/train/video_1/image_1.png"),
    ),
    Case("PNG cut short", "prepare_clips", ("image_2.png",), partial(cut, "raw/val/video_2/image_2.png")),
    Case("truncated mp4", "prepare_clips", ("movie.mp4", "copy it again"), truncated_movie, VIDEOS),
    Case(
        "mask of the wrong shape",
        "prepare_clips",
        ("mask.npy", "is 8x8", "export both"),
        partial(mask_npy, np.ones((3, 8, 8), np.int64)),
    ),
    Case("class id 49", "prepare_clips", ("mask.npy", "49"), partial(mask_npy, np.full((3, *SIZE), 49))),
    Case("masks of floats", "prepare_clips", ("mask.npy",), partial(mask_npy, np.ones((3, *SIZE)) / 2)),
    Case("pickled masks", "prepare_clips", ("mask.npy",), pickled_masks),
    Case(
        "more masks than frames",
        "prepare_clips",
        ("mask.npy", "fix"),
        partial(mask_npy, np.ones((9, *SIZE), int)),
    ),
    Case(
        "no set of the layout",
        "prepare_clips",
        ("raw", "train", "fetch"),
        lambda f: [remove(f"raw/{s}", f) for s in ("train", "val")],
    ),
    Case(
        "sets without videos",
        "prepare_clips",
        ("raw", "no clips"),
        lambda f: [remove("raw/train/video_1", f), remove("raw/val/video_2", f)],
    ),
    Case(
        "a split loses all its clips",
        "prepare_clips",
        ("'val'", "image_0.png"),
        partial(scribble, "raw/val/video_2/image_0.png"),
        {"on_error": "skip"},
    ),
    Case(
        "duplicate ids",
        "prepare_clips",
        ("'video_1'", "rename"),
        lambda folder: write_video(folder / "raw/val/video_1"),
    ),
    Case(
        "mixed sizes",
        "prepare_clips",
        ("'video_3'", "set height and width"),
        lambda folder: write_video(folder / "raw/train/video_3", size=(8, 8)),
    ),
    Case(
        "unknown layout",
        "prepare_clips",
        ("prepare_clips.source", "competition"),
        params={"source": {"layout": "x"}},
    ),
    # Clip stores.
    Case("index cut short", "train_masker", ("clips/index.json", "again"), partial(cut, "clips/index.json")),
    Case("no index", "train_masker", ("clips/index.json", "give"), partial(remove, "clips/index.json")),
    Case("shard cut short", "train_masker", ("frames-00000.npy", "again"), partial(cut, "clips/frames-00000.npy")),
    Case(
        "shard missing",
        "train_masker",
        ("labels-mask-00000.zst", "again"),
        partial(remove, "clips/labels-mask-00000.zst"),
    ),
    Case(
        "damaged masks",
        "train_masker",
        ("labels-mask-00000.zst", "again"),
        partial(scribble, "clips/labels-mask-00000.zst"),
    ),
    Case(
        "a flipped bit of generated masks",
        "evaluate",
        ("masks/labels-mask-00000.zst", "again"),
        partial(flip, "masks/labels-mask-00000.zst"),
    ),
    Case(
        "damaged frames",
        "train_masker",
        ("frames-00000.npy", "again"),
        partial(scribble, "clips/frames-00000.npy"),
    ),
    Case(
        "index without a key of a group",
        "train_masker",
        ("clips/index.json", "again"),
        partial(edit_json, "clips/index.json", "groups", [{"split": "train"}]),
    ),
    Case(
        "a clip without a key",
        "train_masker",
        ("clips/clips.jsonl", "again"),
        partial(replace, "clips/clips.jsonl", b'"num_frames"', b'"mum_frames"'),
    ),
    Case(
        "a clip with a shard elsewhere",
        "train_masker",
        ("clips/index.json", "again"),
        partial(replace, "clips/clips.jsonl", b'"frames-00000.npy"', b'"../mes-00000.npy"'),
    ),
    Case(
        "index of another format",
        "train_masker",
        ("clips/index.json", "again"),
        partial(edit_json, "clips/index.json", "format", "other/1"),
    ),
    Case("unknown split", "evaluate", ("split: ", "did you mean 'val'"), params={"split": "vall"}),
    Case("missing split", "evaluate", ("clips", "'test'", "prepare"), params={"split": "test"}),
    Case("clips too short", "evaluate", ("'val_0'", "need 41", "lower"), params={"horizon": 30}),
    Case("no generated masks", "predict", ("masks", "'hidden_0'", "run generate_masks")),
    Case(
        "stores of other sizes",
        "evaluate",
        ("masks", "height", "again"),
        partial(unlike_store, "masks", height=16),
    ),
    # Models.
    Case(
        "model of unknown architecture",
        "generate_masks",
        ("masker/config.json", "'vit'"),
        partial(edit_json, "masker/config.json", "model.arch", "vit"),
    ),
    Case(
        "model without config",
        "generate_masks",
        ("masker/config.json", "give"),
        partial(remove, "masker/config.json"),
    ),
    Case(
        "config cut short",
        "generate_masks",
        ("masker/config.json", "a training stage wrote"),
        partial(cut, "masker/config.json"),
    ),
    Case("weights of another shape", "generate_masks", ("model.safetensors", "another network"), other_weights),
    Case(
        "weights cut short",
        "generate_masks",
        ("model.safetensors", "again"),
        partial(cut, "masker/model.safetensors"),
    ),
    Case(
        "forecaster of other classes",
        "evaluate",
        ("forecaster", "5 classes", "train it"),
        partial(resave_forecaster, 5),
    ),
    Case(
        "masker of other classes",
        "generate_masks",
        ("masker", "5 classes"),
        partial(resave_masker, "masker", 2, 5),
    ),
    Case(
        "a masker for a forecaster",
        "evaluate",
        ("forecaster/config.json", "give"),
        partial(resave_masker, "forecaster", 2, 3),
    ),
]


def arguments(case: Case, folder: Path) -> list[str]:
    params = case.text or yaml.safe_dump({case.stage: PARAMS[case.stage] | case.params})
    (folder / "params.yaml").write_text(params, errors="surrogateescape")
    flags = [case.stage, "--params", "params.yaml"]
    for port in get_stage(case.stage).ports:
        place = port.name if port.direction == "in" else f"results/{port.name}"
        if port.direction == "out" or not port.optional:
            flags += [f"--{port.name}", place]
    return flags


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def the_line(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_malformed_input_ends_in_one_line(
    case: Case, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "work"
    shutil.copytree(good, folder)
    monkeypatch.chdir(folder)
    case.spoil(folder)
    flags = arguments(case, folder)
    before = listed(folder)
    assert main(flags) == 2
    line = the_line(capfd.readouterr().err)
    for word in case.says:
        assert word in line
    assert listed(folder) == before


def run(folder: Path, flags: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskcast", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False, **options)


def test_a_full_disk_ends_in_one_line(good: Path, tmp_path: Path) -> None:
    # A limit on the size of files makes write() fail for real, on any machine and without rights to mount.
    folder = tmp_path / "work"
    shutil.copytree(good, folder)
    flags = arguments(Case("", "prepare_clips", ()), folder)
    before = listed(folder)
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # Python would leave halves of it
    done = run(folder, flags, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)), env=env)
    assert done.returncode == 2, done.stderr
    line = the_line(done.stderr)
    assert "no space left" in line
    assert "free some" in line
    assert listed(folder) == before


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["train_maskers", "--params", "params.yaml"], ("'train_maskers'", "did you mean 'train_masker'")),
        (["predict", "--params", "nowhere.yaml", "--clips", "x"], ("nowhere.yaml", "--params")),
    ],
    ids=["unknown stage", "params file missing"],
)
def test_a_wrong_command_ends_in_one_line(
    good: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    flags: list[str],
    says: tuple[str],
) -> None:
    monkeypatch.chdir(good)
    if flags[0] == "predict":
        flags = ["predict", "--params", "nowhere.yaml", "--clips", "clips", "--masks", "masks"]
        flags += ["--masker", "masker", "--forecaster", "forecaster", "--predictions", "results/predictions"]
    before = listed(good)
    assert main(flags) == 2
    line = the_line(capfd.readouterr().err)
    for word in says:
        assert word in line
    assert listed(good) == before
