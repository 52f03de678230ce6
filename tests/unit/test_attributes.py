"""Attributes of classes: the classes file, the head that learns from parts, and the plain one that it leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tests.conftest import moving_squares
from tests.two_maps import MATTE

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.sources.classes import read_classes
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.errors import MaskcastError
from maskcast.labels import MASK, LabelMap
from maskcast.models.segmentation.attributes import fold_parts, parts_of, share_parts
from maskcast.stages.train_masker import TrainMasker, train_masker
from maskcast.training.tasks import segmentation
from maskcast.training.tasks.segmentation import FrameTask

LOOKS, COLOURS = ("plain", "dotted", "striped"), ("red", "green", "blue")
CLASSES = ("background", *(f"{look} {colour}" for look in LOOKS for colour in COLOURS))
ATTRIBUTES = {
    "look": (None, *(look for look in LOOKS for _ in COLOURS)),
    "colour": (None, *(colour for _ in LOOKS for colour in COLOURS)),
}
SQUARES = LabelMap(MASK, CLASSES, attributes=ATTRIBUTES)
SHORT = {"epochs": 1, "steps_per_epoch": 4, "batch_size": 2, "learning_rate": 1e-2, "precision": "fp32"}
PARAMS: dict[str, Any] = {"model": {"arch": "unet", "width": 4}, "training": SHORT}
TAUGHT = {"ema": 0.9, "unlabeled": {"batch_size": 2, "burn_in_steps": 1, "threshold": 0.01}}


def store_of(root: Path, label_map: LabelMap = SQUARES) -> ClipStore:
    """Writes clips of squares, one of them without labels."""
    with ClipWriter(root, height=16, width=24, maps=[label_map]) as writer:
        for seed, split in enumerate(("train", "train", "val", "unlabeled")):
            frames, masks = moving_squares(seed, 4, 16, 24)
            kind, given = ("unlabelled", {}) if split == "unlabeled" else ("labelled", {MASK: masks})
            writer.add(f"{split}_{seed}", split=split, kind=kind, frames=frames, masks=given)
    return ClipStore(root)


def train(store: ClipStore, out: Path, **values: Any) -> Path:
    out.mkdir(exist_ok=True)
    masker, metrics = out / "masker", out / "metrics.json"
    train_masker(clips=store.root, masker=masker, metrics=metrics, params=TrainMasker(**PARAMS | values))
    return masker


@pytest.mark.parametrize("parts", [True, False])
def test_a_class_that_no_label_shows_is_known_by_its_parts(parts: bool) -> None:
    """Features say look and colour; `striped blue` is in no label."""
    torch.manual_seed(0)
    pixels_PC = torch.cat([torch.eye(3)[[k // 3 for k in range(9)]], torch.eye(3)[[k % 3 for k in range(9)]]], 1)
    ids_P = torch.arange(1, 10)
    head = torch.nn.Conv2d(6, 10, 1)
    if parts:
        share_parts(head, [SQUARES])
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05)
    for _ in range(100):
        logits_PK = head(pixels_PC[:8, :, None, None])[..., 0, 0]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits_PK, ids_P[:8]).backward()
        optimizer.step()
    fold_parts(head)
    found = head(pixels_PC[:, :, None, None])[..., 0, 0].argmax(1)
    assert found[:8].tolist() == ids_P[:8].tolist()
    assert (CLASSES[int(found[8])] == "striped blue") == parts


@pytest.mark.parametrize("how", [{}, TAUGHT])
def test_what_is_saved_has_a_plain_head(how: dict[str, Any], tmp_path: Path) -> None:
    store = store_of(tmp_path / "clips")
    masker = train(store, tmp_path / "parts", **how)
    plain = train(store_of(tmp_path / "plain_clips", LabelMap(MASK, CLASSES)), tmp_path / "plain", **how)
    described, as_ever = (json.loads((folder / "config.json").read_text()) for folder in (masker, plain))
    for one in (described, as_ever):
        one["meta"].pop("reference")  # what it makes of the clips
        one.pop("sha256")
    assert described == as_ever
    one, other = load_file(masker / "model.safetensors"), load_file(plain / "model.safetensors")
    assert {name: w.shape for name, w in one.items()} == {name: w.shape for name, w in other.items()}
    off = load_file(train(store, tmp_path / "off", attributes=False, **how) / "model.safetensors")
    assert all(torch.equal(off[name], other[name]) for name in other)  # off is as if there were none
    assert not torch.equal(one["network.head.weight"], other["network.head.weight"])


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, training = store_of(tmp_path / "clips"), SHORT | {"steps_per_epoch": 6, "checkpoint_every": 2}

    class KilledTask(FrameTask):
        def loss(self, batch: object, step: int) -> object:  # type: ignore[override]
            if step == 5:
                raise Killed
            return super().loss(batch, step)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(segmentation, "FrameTask", KilledTask)
        with pytest.raises(Killed):
            train(store, tmp_path / "killed", training=training, **TAUGHT)
    again, unbroken = (
        train(store, tmp_path / name, training=training, **TAUGHT) for name in ("killed", "unbroken")
    )
    assert (again / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()


def test_logits_are_sums_of_parts() -> None:
    """By hand: the palms are not told apart, so each has its own logit, too; an opacity has no parts."""
    side, part = (None, "left", "right", "left", "left"), (None, "thumb", "thumb", "palm", "palm")
    classes = ("background", "left thumb", "right thumb", "palm", "other palm")
    maps = (MATTE, LabelMap("hand", classes, attributes={"side": side, "part": part}))
    left, right, thumb, palm = torch.eye(4)
    assert torch.equal(
        parts_of(maps), torch.stack([0 * left, 0 * left, left + thumb, right + thumb, *[left + palm] * 2])
    )
    head, features = torch.nn.Conv2d(3, 6, 1), torch.randn(1, 3, 4, 4)
    own = head(features)[0]
    share_parts(head, maps)
    values = {name: torch.randn_like(value) for name, value in head.named_parameters() if name.endswith("shared")}
    assert [tuple(value.shape) for value in values.values()] == [(4, 3, 1, 1), (4,)]
    head.load_state_dict(values, strict=False)
    left, right, thumb, palm = torch.nn.functional.conv2d(features, *values.values())[0]
    expected = [own[0], own[1], left + thumb, right + thumb, own[4] + left + palm, own[5] + left + palm]
    found = head(features)[0]
    torch.testing.assert_close(found, torch.stack(expected))
    fold_parts(head)
    assert type(head) is torch.nn.Conv2d and set(head.state_dict()) == {"weight", "bias"}
    torch.testing.assert_close(head(features)[0], found)


def test_a_head_of_another_kind_is_said() -> None:
    with pytest.raises(
        MaskcastError, match=r"its head, Linear, is not a convolution to the 10 logits.*attributes to false"
    ):
        share_parts(torch.nn.Linear(3, 5), [SQUARES])
    share_parts(torch.nn.Linear(3, 5), [LabelMap(MASK, CLASSES)])  # nothing to share


def test_a_store_keeps_attributes_and_does_not_mention_none(tmp_path: Path) -> None:
    store = store_of(tmp_path / "clips")
    assert store.label_map.attributes == ATTRIBUTES
    assert store.label_map == LabelMap(MASK, CLASSES)  # maskers from before this may mask these clips
    plain = store_of(tmp_path / "plain", LabelMap(MASK, CLASSES))
    assert "attributes" not in (plain.root / "index.json").read_text() and not plain.label_map.attributes
    with pytest.raises(MaskcastError, match=r"attribute 'side' has 1 values for 10 classes"):
        LabelMap("hand", CLASSES, attributes={"side": (None,)})


def test_a_classes_file_says_names_and_what_they_share(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(
        "background:\nleft thumb: {side: left, part: thumb}\nright thumb: {part: thumb, side: right}\narm:\n"
    )
    assert read_classes(tmp_path, "classes.yaml") == (
        ("background", "left thumb", "right thumb", "arm"),
        {"side": (None, "left", "right", None), "part": (None, "thumb", "thumb", None)},
    )
    assert read_classes(tmp_path, ("a", "b")) == (("a", "b"), {})


def test_no_class_is_called_as_what_means_no_label() -> None:
    with pytest.raises(ValidationError, match="'ignore' means no label, and cannot name a class; rename it"):
        FrameFoldersSource(images="{clip}", masks="{clip}", classes=("background", "ignore"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("- background\n- thumb\n", "must map names to values"),
        ("background:\nignore:\n", r"'ignore' means no label, and cannot name a class; rename it"),
        ("background:\n", r"\b1 class; give 2 to 255, the background first"),
        ("background:\nthumb: left\n", r"'thumb': 'left'; write a class a line, e\.g\. `left thumb: \{side: left"),
        ("background:\n1: {side: left}\n", r"1: \{'side': 'left'\}; write a class a line.*names as text"),
        ("background:\nthumb: {on: left}\n", r"'thumb': True: 'left' is not text; put it in quotes"),
        ("background:\nthumb: {side: 3}\n", r"'thumb': 'side': 3 is not text; put it in quotes"),
        (
            "background:\nthumb: {side: a}\nthumb: {side: b}\n",
            r"line 3: not valid YAML \(duplicate key 'thumb'\)",
        ),
        ("background: {\n", r"line 2: not valid YAML"),
    ],
)
def test_a_wrong_classes_file_is_said(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(MaskcastError, match=rf"classes\.yaml: .*{match}"):
        read_classes(tmp_path, "classes.yaml")


def test_a_missing_classes_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        MaskcastError, match=r"classes\.txt: no such classes file; put it there, or list the names in"
    ):
        read_classes(tmp_path, "classes.txt")
