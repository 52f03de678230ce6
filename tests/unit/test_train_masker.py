"""train_masker on small clips: it learns, resumes exactly, and says what is wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import moving_squares
from tests.two_maps import MATTE, SQUARES, write_two_maps

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.statistics import frame_statistics
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.masks.colours import palette
from maskcast.errors import MaskcastError
from maskcast.labels import LOOKBACK, MASK, single_map
from maskcast.models.encoders.configs import SmpEncoderConfig
from maskcast.models.encoders.table import save_encoder
from maskcast.models.segmentation.table import load_masker, save_masker
from maskcast.progress import listening
from maskcast.report.overlays import masker_strip
from maskcast.report.page import Page
from maskcast.runner.run import run_stage
from maskcast.stages.train_masker import TrainMasker, train_masker
from maskcast.training.tasks import segmentation
from maskcast.training.tasks.segmentation import FrameTask

PARAMS = {
    "model": {"arch": "unet", "width": 8},
    "loss": {"ce": 1, "dice": 0.2, "focal": 0, "background_weight": 1},
    "augment": {"hflip": 0.5, "crop": [24, 32]},
    "training": {
        "epochs": 3,
        "steps_per_epoch": 25,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "checkpoint_every": 10,
    },
    "val_frame_step": 8,
}


def params(**training: object) -> TrainMasker:
    return TrainMasker.model_validate(PARAMS | {"training": PARAMS["training"] | training})  # type: ignore[operator]


def outputs(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    return {"masker": folder / "masker", "metrics": folder / "metrics.json"}


def test_it_learns_two_colours_and_leaves_a_masker(store: ClipStore, tmp_path: Path) -> None:
    out = outputs(tmp_path / "out")
    train_masker(clips=store.root, params=params(epochs=2, steps_per_epoch=30), **out)
    metrics = json.loads(out["metrics"].read_text())
    assert metrics["val_jaccard"] > 0.8
    assert metrics["epochs"] == 2
    assert metrics["parameters"] > 1000
    assert all(isinstance(value, int | float) for value in metrics.values())
    masker, description = load_masker(out["masker"])
    assert description["meta"]["classes"] == ["background", "red", "blue"]
    mean, std = frame_statistics(store, store.select("train"))
    np.testing.assert_array_equal(masker.mean, mean)
    np.testing.assert_array_equal(masker.std, std)
    pictures = sorted((tmp_path / "out/masker.resume/pictures").iterdir())
    assert [path.name for path in pictures] == ["val_0.png", "val_1.png"]
    with Image.open(pictures[0]) as shown:  # a mask over its frame has mixed colours, its key has not
        assert (np.asarray(shown) == palette()[1]).all(-1).any()


def test_clips_that_look_back_at_training_frames_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for meta in ({}, {LOOKBACK: 11}):
        root = tmp_path / f"clips{len(meta)}"
        with ClipWriter(root, height=32, width=48, maps=single_map(["background", "a", "b"]), meta=meta) as writer:
            for seed, split in enumerate(("train", "val")):
                frames, masks = moving_squares(seed, 4, 32, 48)
                writer.add(split, split=split, kind="labelled", frames=frames, masks={MASK: masks})
        train_masker(
            clips=root, params=params(epochs=1, steps_per_epoch=2), **outputs(tmp_path / f"out{len(meta)}")
        )
        said = "warning: clips of val may begin with frames of the split before, e.g. of train (source.lookback)"
        assert (said in capsys.readouterr().err) == bool(meta)


def test_a_last_step_after_which_masks_say_nothing_ends_the_training(store: ClipStore, tmp_path: Path) -> None:
    """Its loss and its weights are finite, and masks of background have a score."""
    short = params(epochs=1, steps_per_epoch=1, learning_rate=1e8)
    with pytest.raises(
        MaskcastError, match="logits are not finite numbers: its training diverged; lower learning"
    ):
        train_masker(clips=store.root, params=short, **outputs(tmp_path / "out"))
    assert not (tmp_path / "out/metrics.json").exists()


def test_two_maps_are_trained_generated_and_shown(tmp_path: Path) -> None:
    store, out = write_two_maps(tmp_path / "clips"), outputs(tmp_path / "out")
    short = params(epochs=1, steps_per_epoch=2).model_copy(update={"val_frame_step": 1})
    with listening(page := Page("train_masker")):
        train_masker(clips=store.root, params=short, **out)
    masker, description = load_masker(out["masker"])
    assert masker.maps == (SQUARES, MATTE) and description["num_classes"] == 3
    metrics = json.loads(out["metrics"].read_text())
    scores = {f"val_{score}{name}" for score in ("jaccard", "accuracy") for name in ("", "_squares", "_matte")}
    scores.add("val_mad_matte")
    assert set(metrics) == scores | {"best_epoch", "epochs", "train_seconds", "parameters"}
    (picture,) = (tmp_path / "out/masker.resume/pictures").iterdir()
    one = masker_strip(store.frames(store.clips[2]), *[store.of("squares").masks(store.clips[2])] * 2)
    with Image.open(picture) as shown:
        assert shown.height > 1.8 * one.height  # a strip of each map, the matte's without a legend
    with Image.open(tmp_path / "out/masker.resume/samples.png") as shown:
        assert shown.width > 4 * 120 and shown.height > 3 * 80  # 4 samples, and their masks of two maps
    page.write(tmp_path / "page.html", metrics, short, {})
    text = (tmp_path / "page.html").read_text()
    order = ["<caption>Classes of squares", "val_0.png</figcaption>", "samples.png</figcaption>"]
    assert sorted(order, key=text.index) == order and "classes.md" not in text
    assert text.count('<ul class="legend" aria-label="Classes of squares">') == 1
    assert "masker: validation Jaccard" in text and text.count("data:image/png;base64,") == 2
    told = (tmp_path / "out/masker.resume/classes.md").read_text()
    size = "All scores are at 16x24 (height x width), the size of the clips."
    assert told.startswith(f"{size}\n\n## squares\n") and "matte" not in told
    assert size in text
    rows = re.findall(r"^\| (background|red|blue) \| ([\d.]+) \|", told, re.MULTILINE)
    found = [float(jaccard) for _, jaccard in rows]
    assert len(rows) == 3 and found == sorted(found)
    assert np.mean(found) == pytest.approx(metrics["val_jaccard_squares"], abs=1e-3)


def test_one_class_has_its_score_beside_the_one_with_background(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = np.zeros((2, 32, 48), np.uint8)
    masks[:, 10:14, 20:24] = 1
    with ClipWriter(tmp_path / "clips", height=32, width=48, maps=single_map(["background", "car"])) as writer:
        for split in ("train", "val"):
            frames = np.repeat(200 * masks[..., None], 3, axis=-1)
            writer.add(split, split=split, kind="labelled", masks={MASK: masks}, frames=frames)
    out = outputs(tmp_path / "out")
    train_masker(clips=tmp_path / "clips", params=params(epochs=1, steps_per_epoch=1), **out)
    metrics = json.loads(out["metrics"].read_text())
    assert metrics["val_jaccard_no_background"] < metrics["val_jaccard"]
    told = (
        f"{metrics['val_jaccard']:.4f} (foreground {metrics['val_jaccard_no_background']:.4f}), best epoch 1 of 1"
    )
    assert f"masker: validation Jaccard {told}, at 32x48\n" in capsys.readouterr().err


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("start_classes", [None, ("background", "blue", "green")])
def test_a_killed_run_ends_with_the_same_bytes(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_classes: tuple[str, ...] | None
) -> None:
    short = params(epochs=2, steps_per_epoch=6, checkpoint_every=4)
    unbroken, killed = outputs(tmp_path / "unbroken"), outputs(tmp_path / "killed")
    start = None
    if start_classes is not None:
        start = tmp_path / "start"
        save_masker(start, short.model.build(single_map(start_classes)), short.model, {})
    train_masker(clips=store.root, start=start, params=short, **unbroken)

    class KilledTask(FrameTask):
        def loss(self, batch: object, step: int) -> object:  # type: ignore[override]
            if step == 9:
                raise Killed
            return super().loss(batch, step)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(segmentation, "FrameTask", KilledTask)
        with pytest.raises(Killed):
            train_masker(clips=store.root, start=start, params=short, **killed)
    train_masker(clips=store.root, start=start, params=short, **killed)
    assert load_masker(killed["masker"])[0].maps == (store.label_map,)
    first, second = (out["masker"] / "model.safetensors" for out in (unbroken, killed))
    assert first.read_bytes() == second.read_bytes()


def test_a_class_that_is_added_later_is_learnt_and_the_others_are_kept(tmp_path: Path) -> None:
    scores = []
    training = params(epochs=2, steps_per_epoch=40, batch_size=8, learning_rate=3e-3)
    for name, classes, ids in (
        ("old", ["background", "red"], [0, 1, 0]),
        ("new", ["background", "blue", "red"], [0, 2, 1]),
    ):
        with ClipWriter(tmp_path / f"{name} clips", height=32, width=48, maps=single_map(classes)) as writer:
            for n, split in enumerate(["train"] * 6 + ["val"] * 3):
                frames, masks = moving_squares(n, 22, 32, 48)
                labels = {MASK: np.array(ids, np.uint8)[masks]}
                writer.add(f"{split}_{n}", split=split, kind="labelled", frames=frames, masks=labels)
        start = tmp_path / "old/masker" if scores else None
        out = outputs(tmp_path / name)
        train_masker(clips=tmp_path / f"{name} clips", start=start, params=training, **out)
        curves = json.loads((out["masker"] / "learning.json").read_text())
        scores.append([epoch["jaccard"] for epoch in curves["train_masker"]])
    (_, old), (before, *_, new) = scores
    assert old > 0.9
    assert 0.6 < before < 0.7  # two of three classes
    assert new > 0.9


def test_batches_are_a_function_of_seed_and_step(store: ClipStore) -> None:
    task, again, other = (FrameTask(store, params(seed=seed), "x") for seed in (1, 1, 2))
    assert torch.equal(task.batch(3)[0], again.batch(3)[0])
    assert not torch.equal(task.batch(3)[0], task.batch(4)[0])
    assert not torch.equal(task.batch(3)[0], other.batch(3)[0])
    assert task.batch(0)[0].shape == (4, 1, 24, 32, 3)
    assert [masks.shape for masks in task.batch(0).masks] == [(4, 1, 24, 32)]


def test_a_masker_that_learnt_nothing_is_said(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(page := Page("train_masker")):
        train_masker(clips=store.root, params=params(epochs=1, learning_rate=1e-9), **outputs(tmp_path / "none"))
    said = capsys.readouterr().err
    assert "predicting a single class scores 0.3" in said and "has learned almost nothing; train longer" in said
    page.write(tmp_path / "page.html", {}, params(), {})
    shown = (tmp_path / "page.html").read_text()
    assert shown.index("<h2") < shown.index("<strong>Predicting a single class scores 0.3") < shown.index("<table")
    train_masker(clips=store.root, params=params(epochs=2, steps_per_epoch=30), **outputs(tmp_path / "some"))
    assert "almost nothing" not in capsys.readouterr().err


def test_the_best_epoch_is_named_and_marked(store: ClipStore, tmp_path: Path) -> None:
    """Large steps spoil a start that has learned the clips."""
    train_masker(clips=store.root, params=params(epochs=1), **outputs(tmp_path / "start"))
    spoiling = PARAMS | {"training": PARAMS["training"] | {"learning_rate": 0.5, "steps_per_epoch": 2}}
    out = outputs(tmp_path / "out") | {"page": tmp_path / "out/page.html"}
    run_stage("train_masker", spoiling, clips=store.root, start=tmp_path / "start/masker", **out)
    assert json.loads(out["metrics"].read_text())["best_epoch"] == 0
    text = out["page"].read_text()
    assert "the start&#x27;s, better than 3 epochs" in text
    titles = re.findall(r"<h2[^>]*>([^<]*)", text)
    assert titles == ["Scores", "Curves", "Predictions", "Samples", "All numbers", "Lineage"]
    captions = re.findall(r"<figcaption>((?:val|train)/[^<]*)", text)
    assert captions[:2] == [f"val/{name}; vertical line: best epoch, 0 of 3" for name in ("jaccard", "accuracy")]
    assert text.count('class="mark"') == 2


def test_every_frame_can_be_drawn_and_masks_fit(store: ClipStore) -> None:
    whole = params(batch_size=64).model_copy(
        update={
            "augment": TrainMasker.model_validate(PARAMS).augment.model_copy(update={"hflip": 0.0, "crop": None})
        }
    )
    task = FrameTask(store, whole, "x")
    clips = store.select("train")
    known = {store.frames(c)[t].tobytes(): store.masks(c)[t].tobytes() for c in clips for t in range(c.num_frames)}
    batches = [task.batch(step) for step in range(6)]
    frames, masks = (torch.cat(parts) for parts in zip(*((one[0], *one[1]) for one in batches), strict=True))
    drawn = {frame.numpy().tobytes(): mask.numpy().tobytes() for frame, mask in zip(frames, masks, strict=True)}
    assert drawn == known


def test_statistics_are_those_of_the_frames(store: ClipStore) -> None:
    clips = store.select("train")
    mean, std = frame_statistics(store, clips)
    pixels = np.concatenate([store.frames(clip) for clip in clips]).reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)


def test_a_store_without_labelled_clips_is_refused(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "clips", height=8, width=8, maps=single_map(["background", "a"])) as writer:
        writer.add("a", split="unlabeled", kind="unlabelled", frames=np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(MaskcastError, match="holds no labelled clips in split 'train'"):
        train_masker(clips=tmp_path / "clips", params=params(), **outputs(tmp_path / "out"))


def test_masks_without_frames_are_refused(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "clips", height=8, width=8, maps=single_map(["background", "a"])) as writer:
        writer.add("a", split="train", kind="labelled", masks={MASK: np.zeros((2, 8, 8), np.uint8)})
    with pytest.raises(MaskcastError, match="no labelled clip of split 'train' has frames"):
        train_masker(clips=tmp_path / "clips", params=params(), **outputs(tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model": {"arch": "unet", "widht": 4}}, "unknown key; did you mean 'width'"),
        ({"model": {"arch": "vnet"}}, "vnet"),
        ({"loss": {"ce": -1}}, "loss.ce"),
        ({"loss": {"ce": 0, "dice": 0, "focal": 0}}, "nothing would be learnt"),
        ({"loss": {"dice": 0, "focal": 0, "class_weights": [0, 0, 0]}}, "class_weights are all 0"),
        ({"augment": {"crop": [0, 3]}}, "crop"),
        ({"val_frame_step": 0}, "val_frame_step"),
        ({"maps": ["mask", "mask"]}, "maps: duplicate name 'mask'; list it once"),
    ],
)
def test_wrong_params_name_their_key(
    store: ClipStore, tmp_path: Path, change: dict[str, object], line: str
) -> None:
    out = outputs(tmp_path / "out")
    with pytest.raises(MaskcastError, match=line) as error:
        run_stage("train_masker", PARAMS | change, clips=store.root, **out)
    assert "\n" not in str(error.value)
    assert not any(path.exists() for path in out.values())


def test_one_encoder_to_start_from_is_enough(store: ClipStore, tmp_path: Path) -> None:
    config = SmpEncoderConfig(arch="smp", encoder="tu-test_resnet")
    meta = {"method": "moco", "mean": [0.5] * 3, "std": [0.25] * 3}
    save_encoder(tmp_path / "encoder", config.build(), config, meta)
    weights = str(tmp_path / "encoder/model.safetensors")
    model = {"model": {"arch": "smp_unet", "encoder": config.encoder, "encoder_weights": weights}}
    with pytest.raises(MaskcastError, match=r"encoder_weights; set that to null"):
        train_masker(
            clips=store.root,
            encoder=tmp_path / "encoder",
            params=TrainMasker.model_validate(PARAMS | model),
            **outputs(tmp_path / "out"),
        )
