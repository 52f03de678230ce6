"""Fixtures that all tests share."""

import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import torch

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.sources.base import Arrays
from maskcast.labels import MASK, single_map
from maskcast.runner import mlflow_client

ROOT = Path(__file__).resolve().parents[1]
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that needs weights has a hub of its own
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let jobs ignore it, and their children
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup lets them ignore it


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """The garbage collector need not look through what is imported and collected: a million objects that stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Bit-for-bit comparisons need one thread, and the test processes share two cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def new_tables(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Makes MLflow's tables in a new file; MLflow takes a second for the first, the others are copies."""
    folder, make, lock = tmp_path_factory.mktemp("mlflow"), mlflow_client.create_tables, threading.Lock()

    def copy(path: Path) -> None:
        with lock:
            if not (made := folder / "whole.db").exists():
                make(begun := folder / f"{os.getpid()}.db")  # a child that was forked may be killed over it
                begun.replace(made)
        shutil.copy(made, path)

    return copy


@pytest.fixture(scope="session", autouse=True)
def _tables_are_made_once(new_tables: Callable[[Path], None]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_client, "create_tables", new_tables)
        yield


def lacking(what: str) -> NoReturn:
    """Ends a test that cannot run here: CI has everything, so there it fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and masks, which is not part of the repository."""
    folder = Path(os.environ.get("MASKCAST_SHARED_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        lacking(f"{folder} is absent: set MASKCAST_SHARED_DATA to the folder of real data")
    return folder


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Lets no file of this process grow above so many bytes within the block; Python ignores SIGXFSZ."""
    limit, bytecode = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python would leave halves of it, in the packages of all who share them
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        sys.dont_write_bytecode = bytecode


@contextmanager
def unlisted(folder: Path) -> Iterator[None]:
    """Lets nobody list a folder within the block, not even root, which becomes nobody; paths must be relative."""
    is_root = os.geteuid() == 0
    Path.cwd().chmod(0o755)  # pytest's folders are root's alone
    folder.chmod(0)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


def files_of(folder: Path) -> dict[str, bytes]:
    """Returns the contents of all files below a folder, by their paths."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def layers_of(arrays: Arrays) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns the frames and the masks of a clip that a source with one label map loaded."""
    return arrays.frames, arrays.masks.get(MASK)


def moving_squares(seed: int, num_frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames (T, H, W, 3) and masks (T, H, W) of two squares, classes 1 and 2, moving steadily."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((num_frames, height, width), np.uint8)
    for class_id in (1, 2):
        y, x = rng.uniform(2, height - 12), rng.uniform(2, width - 12)
        dy, dx = rng.uniform(-0.5, 0.5, 2)
        for t in range(num_frames):
            top, left = round(y + dy * t), round(x + dx * t)
            masks[t, max(top, 0) : max(top + 9, 0), max(left, 0) : max(left + 9, 0)] = class_id
    colours = np.array([[90, 90, 90], [220, 40, 40], [40, 60, 220]], np.uint8)
    noise = rng.integers(0, 12, (num_frames, height, width, 3), dtype=np.uint8)
    return colours[masks] + noise, masks


def write_store(root: Path, *, height: int = 32, width: int = 48, **counts: int) -> ClipStore:
    """Writes a small clip store with ``counts`` clips per split and returns it opened."""
    counts = counts or {"train": 2, "val": 2, "unlabeled": 2, "hidden": 1}
    kinds = {"unlabeled": "unlabelled", "hidden": "hidden"}
    with ClipWriter(root, height=height, width=width, maps=single_map(["background", "red", "blue"])) as writer:
        for index, (split, count) in enumerate(counts.items()):
            for k in range(count):
                frames, masks = moving_squares(100 * index + k, 11 if split == "hidden" else 22, height, width)
                kind = kinds.get(split, "labelled")
                labels = {MASK: masks} if kind == "labelled" else {}
                writer.add(f"{split}_{k}", split=split, kind=kind, frames=frames, masks=labels)
    return ClipStore(root)


@pytest.fixture
def untimed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """`init` does not time steps to say how long a training takes."""
    monkeypatch.setattr("maskcast.proposal.duration._measure", lambda *_: (0.1, 0.01))


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    """A small clip store with every split but test."""
    return write_store(tmp_path / "clips")


@pytest.fixture(scope="session")
def real_windows(shared_data: Path) -> np.ndarray:
    """Windows (84, 22, 160, 240) of real CLEVRER masks: every fifth frame, starting at every second."""
    windows = []
    for folder in sorted((shared_data / "clevrer" / "DERIVED_masks").glob("*_*/")):
        files = sorted(folder.glob("*.png"))
        masks = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[::2, ::2] for file in files])
        span = 21 * 5 + 1
        windows += [masks[start : start + span : 5] for start in range(0, len(masks) - span + 1, 2)]
    return np.stack(windows)


def painted_boxes(seed: int, height: int, width: int, boxes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns an image (H, W, 3), boxes (N, 4) and labels (N,): red (0) and blue (1) rectangles, apart."""
    rng = np.random.default_rng(seed)
    image = rng.integers(80, 100, (height, width, 3), dtype=np.uint8)
    found, labels = [], rng.integers(0, 2, boxes)
    slot = width // max(boxes, 1)
    for k, label in enumerate(labels):
        w, h = rng.integers(slot // 2, slot - 1), rng.integers(height // 3, height - 4)
        left, top = k * slot + rng.integers(0, slot - w), rng.integers(0, height - h)
        image[top : top + h, left : left + w] = ((220, 40, 40), (40, 60, 220))[label]
        found.append((left, top, left + w, top + h))
    return image, np.array(found, np.float32).reshape(-1, 4), labels.astype(np.int64)


SMALL_DETECTOR: dict[str, Any] = {
    "version": 1,
    "encoder": "tu-test_resnet",
    "width": 16,
    "min_size": 48,
    "max_size": 80,
    "anchor_sizes": [8, 16, 24, 32, 48],
    "proposals": 40,
    "rois": 32,
}


def write_detection_set(root: Path, *, unlabeled: int = 0, boxes: int = 2, **counts: int) -> Path:
    """Writes a small detection set of ``counts`` images per split, every fourth of them without boxes."""
    classes, splits = ["red", "blue"], {}
    for number, (split, count) in enumerate((counts or {"train": 6, "val": 4}).items()):
        (root / "images" / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for k in range(count):
            height, width = 48 + 4 * (k % 3), 64 + 6 * (k % 2)
            image, found, labels = painted_boxes(100 * number + k, height, width, boxes if k % 4 != 3 else 0)
            cv2.imwrite(str(root / "images" / split / f"{k}.png"), image[..., ::-1])
            images.append({"id": 10 + k, "file_name": f"{k}.png", "height": height, "width": width})
            for (x1, y1, x2, y2), label in zip(found.tolist(), labels.tolist(), strict=True):
                box = [x1, y1, x2 - x1, y2 - y1]
                one = {"id": len(annotations) + 1, "image_id": 10 + k, "category_id": label, "bbox": box}
                annotations.append(one | {"area": box[2] * box[3], "iscrowd": 0})
        categories = [{"id": k, "name": name} for k, name in enumerate(classes)]
        content = {"images": images, "categories": categories, "annotations": annotations}
        raw = json.dumps(content).encode()
        (root / f"{split}.json").write_bytes(raw)
        splits[split] = {"sha256": hashlib.sha256(raw).hexdigest()}
    for k in range(unlabeled):
        (root / "unlabeled").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "unlabeled" / f"{k}.png"), painted_boxes(900 + k, 48, 64, boxes)[0][..., ::-1])
    about = {"format": "maskcast-detection/1", "classes": classes, "original_ids": [7, 3], "splits": splits}
    (root / "dataset.json").write_text(json.dumps(about))
    return root
