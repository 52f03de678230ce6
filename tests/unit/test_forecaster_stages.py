"""pretrain_forecaster and finetune_forecaster on a store of two moving squares."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import moving_squares, write_store

from maskcast.curves import read_curves
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import MASK, single_map
from maskcast.models.base import save_model
from maskcast.models.forecasting.batches import Window
from maskcast.models.forecasting.configs import ObjectsConfig
from maskcast.models.forecasting.flow_forecaster import FlowForecaster
from maskcast.models.forecasting.table import adapt_forecaster, load_forecaster
from maskcast.models.objects.motion import PAST
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.runner.run import run_stage
from maskcast.training.tasks.forecasting_masks import KnownMasks
from maskcast.training.tasks.improvement import is_significantly_better, scores_by_video

TRAINING = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 4, "learning_rate": 3e-3, "precision": "fp32"}
MODEL = {"arch": "convlstm", "hidden": 8, "stride": 4}


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Path]:
    """Clips, their masks as a masker would give them (here: the true ones), and a masker."""
    store = write_store(tmp_path / "clips", train=3, val=2, unlabeled=3)
    confidences = {"train_0": 0.9, "unlabeled_0": 0.2}
    with ClipWriter(tmp_path / "masks", height=32, width=48, maps=single_map(store.classes)) as writer:
        for clip in store.clips:
            masks = (store.frames(clip)[..., 0] > 150).astype(np.uint8) if not clip.maps else store.masks(clip)
            meta = {"mean_confidence": confidences.get(clip.id, 0.8)}
            writer.add(
                clip.id,
                split=clip.split,
                kind=clip.kind,
                masks={MASK: masks},
                confidence={MASK: np.full_like(masks, 200)},
                meta=meta,
            )
    config = UNetConfig(width=4)
    torch.manual_seed(0)
    save_masker(tmp_path / "masker", config.build([store.label_map]), config, {})
    return {name: tmp_path / name for name in ("clips", "masks", "masker")}


def pretrain(stores: dict[str, Path], out: Path, **params: Any) -> dict[str, float]:
    values = {"training": TRAINING, "model": MODEL} | params
    return run_stage("pretrain_forecaster", values, **stores, pretrained=out, metrics=out.with_suffix(".json"))


def test_pretrain_then_finetune_writes_models_and_scores(
    stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = pretrain(stores, tmp_path / "pretrained", min_confidence=0.5)
    said = capsys.readouterr().err
    assert "5 clips to train on; 1 left out, below min_confidence 0.5\n" in said and " (best so far)\n" in said
    assert scores["clips_left_out"] == 1 and scores["clips"] == 5
    assert scores["val_jaccard_last"] >= scores["persistence_val_jaccard_last"]
    assert scores["sequences_per_second"] > 0
    params = {"training": TRAINING, "min_context_frames": 11}
    tuned = run_stage(
        "finetune_forecaster",
        params,
        **stores,
        pretrained=tmp_path / "pretrained",
        forecaster=tmp_path / "forecaster",
        metrics=tmp_path / "tuned.json",
        name="tuned",
    )
    assert json.loads((tmp_path / "tuned.json").read_text())["parameters"] == scores["parameters"]
    assert tuned["persistence_val_jaccard_last"] == scores["persistence_val_jaccard_last"]
    curves = read_curves(tmp_path / "forecaster")
    assert list(curves) == ["pretrain_forecaster", "tuned"]  # each stage by the name that it goes by
    assert max(epoch["jaccard_last"] for epoch in curves["tuned"]) >= tuned["val_jaccard_last"]
    assert len(curves["pretrain_forecaster"]) == scores["epochs"]
    before, description = load_forecaster(tmp_path / "pretrained")
    after, _ = load_forecaster(tmp_path / "forecaster")
    assert description["meta"]["context_frames"] == 11
    store = ClipStore(stores["clips"])
    context = torch.tensor(store.masks(store.get("val_0"))[None, :11])
    assert after.forecast(context, 3).shape == (1, 3, 32, 48)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_labels_are_enough_without_a_masker(
    stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/forecasting.md says: the clips are their own masks, and those without labels are left out."""
    clips = dict.fromkeys(("clips", "masks", "masker"), stores["clips"])
    pretrain(clips, tmp_path / "pretrained")
    said = capsys.readouterr().err
    assert "3 clips to train on\n" in said
    assert "keeps the epoch with the best jaccard, the mean of jaccard_last and jaccard_mean\n" in said
    models = {"pretrained": tmp_path / "pretrained", "forecaster": tmp_path / "forecaster"}
    run_stage("finetune_forecaster", {"training": TRAINING}, **clips, **models, metrics=tmp_path / "tuned.json")
    outputs = {"metrics": tmp_path / "evaluate.json", "report": tmp_path / "report"}
    values = {"context": "truth", "pictures": 0}
    scores = run_stage("evaluate", values, **clips, forecaster=models["forecaster"], **outputs)
    assert scores["clips"] == 2 and 0 < scores["jaccard_last"] <= 1


def test_damaged_curves_of_the_initial_model_are_said_before_the_training(
    stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(stores, tmp_path / "pretrained")
    (tmp_path / "pretrained/learning.json").write_text("[1]")
    capsys.readouterr()
    inputs = {**stores, "pretrained": tmp_path / "pretrained", "forecaster": tmp_path / "forecaster"}
    with pytest.raises(MaskcastError, match=r"pretrained/learning\.json: .*; remove it, or train again"):
        run_stage("finetune_forecaster", {"training": TRAINING}, **inputs, metrics=tmp_path / "tuned.json")
    assert "epoch 0/" not in capsys.readouterr().err


def test_a_forecaster_that_learnt_nothing_is_said(
    stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = pretrain(stores, tmp_path / "pretrained", training=TRAINING | {"learning_rate": 3.0})
    best = max(scores[f"{name}_val_jaccard_last"] for name in ("persistence", "constant_velocity"))
    assert scores["val_jaccard_last"] <= best
    assert f"scores {best:.4f}; train longer" in capsys.readouterr().err


def test_advice_for_a_forecaster_whose_masks_are_not_trained_is_to_choose_another(
    stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlowForecaster, "prepare", lambda self, *_: self.pace.zero_())  # as good as a copy
    pretrain(stores, tmp_path / "pretrained", model={"arch": "flow"})
    said = [capsys.readouterr().err]
    inputs = {**stores, "pretrained": tmp_path / "pretrained", "forecaster": tmp_path / "forecaster"}
    run_stage("finetune_forecaster", {"training": TRAINING}, **inputs, metrics=tmp_path / "tuned.json")
    said.append(capsys.readouterr().err)
    for text in said:
        assert "training does not change the masks of this forecaster, so try another" in text
        assert "train longer" not in text


def test_masks_of_clips_that_are_validated_on_now_are_refused(stores: dict[str, Path], tmp_path: Path) -> None:
    """Clips that are prepared again with other splits have the same ids; masks of before know other splits."""
    before = ClipStore(stores["clips"])
    with ClipWriter(tmp_path / "again", height=32, width=48, maps=[before.label_map]) as writer:
        for clip in before.clips:
            split = {"val_0": "train", "train_0": "val"}.get(clip.id, clip.split)
            masks = {MASK: before.masks(clip)} if clip.maps else {}
            writer.add(clip.id, split=split, kind=clip.kind, frames=before.frames(clip), masks=masks)
    said = rf"masks: clip 'train_0' has split 'train', but split 'val' in {tmp_path}/again; run generate_masks"
    with pytest.raises(MaskcastError, match=said):
        pretrain(stores | {"clips": tmp_path / "again"}, tmp_path / "pretrained")


def add_motion(folder: Path, clips: ClipStore) -> Path:
    """Writes the clips again, and four clips of masks alone."""
    with ClipWriter(folder, height=32, width=48, maps=[clips.label_map]) as writer:
        for clip in clips.clips:
            masks = {MASK: clips.masks(clip)} if clip.maps else {}
            writer.add(clip.id, split=clip.split, kind=clip.kind, frames=clips.frames(clip), masks=masks)
        for k in range(4):
            masks = {MASK: moving_squares(90 + k, 22, 32, 48)[1]}
            writer.add(f"motion_{k}", split="train", kind="labelled", masks=masks)
    return folder


def test_one_class_has_its_score_beside_the_one_with_background(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = np.zeros((22, 32, 48), np.uint8)
    masks[:, 10:14, 20:24] = 1
    with ClipWriter(tmp_path / "clips", height=32, width=48, maps=single_map(["background", "car"])) as writer:
        for split in ("train", "val"):
            writer.add(split, split=split, kind="labelled", masks={MASK: masks})
    stores = {"clips": tmp_path / "clips", "masks": tmp_path / "clips", "masker": tmp_path / "clips"}
    scores = pretrain(stores, tmp_path / "pretrained")
    assert scores["val_jaccard_last_no_background"] <= scores["val_jaccard_last"]
    assert scores["persistence_val_jaccard_last_no_background"] == 1
    told = (
        f"{scores['val_jaccard_last']:.4f} (foreground {scores['val_jaccard_last_no_background']:.4f}) at the last"
    )
    assert f"forecaster: validation Jaccard {told} frame\n" in capsys.readouterr().err


def test_motion_is_learned_from_masks_without_frames(stores: dict[str, Path], tmp_path: Path) -> None:
    stores |= {"clips": add_motion(tmp_path / "more", ClipStore(stores["clips"]))}
    store, generated = ClipStore(stores["clips"]), ClipStore(stores["masks"])
    known = KnownMasks(generated, store)
    assert list(known.alone) == ["motion_0", "motion_1", "motion_2", "motion_3"]
    np.testing.assert_array_equal(known.masks(known.get("motion_2")), store.masks(store.get("motion_2")))
    for clip in generated.clips:
        np.testing.assert_array_equal(known.masks(known.get(clip.id)), generated.masks(clip))
    assert all(known.has_masks(known.get(name)) for name in ("motion_0", "train_0"))
    assert not KnownMasks(store, store).alone  # true masks in place of generated ones are there already

    assert pretrain(stores, tmp_path / "pretrained", model={"arch": "objects", "hidden": 8})["clips"] == 10
    assert pretrain(stores, tmp_path / "frames", model=MODEL | {"input": "frames"})["clips"] == 6
    given = {"pretrained": tmp_path / "pretrained", "forecaster": tmp_path / "forecaster"}
    tuned = run_stage(
        "finetune_forecaster", {"training": TRAINING}, **stores, **given, metrics=tmp_path / "tuned.json"
    )
    assert tuned["clips"] == 3  # nothing can be generated of the others


def test_finetuning_needs_frames(stores: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path / "old", ObjectsConfig(hidden=4).build(3), ObjectsConfig(hidden=4), num_classes=3, meta={})
    label_map = ClipStore(stores["clips"]).label_map
    with ClipWriter(tmp_path / "bare", height=32, width=48, maps=[label_map]) as writer:
        for name, split in (("a", "train"), ("val_0", "val")):
            writer.add(name, split=split, kind="labelled", masks={MASK: moving_squares(1, 22, 32, 48)[1]})
    with pytest.raises(MaskcastError, match="bare: no labelled training clip has frames"):
        run_stage(
            "finetune_forecaster",
            {"training": TRAINING},
            **stores | {"clips": tmp_path / "bare"},
            pretrained=tmp_path / "old",
            forecaster=tmp_path / "new",
            metrics=tmp_path / "new.json",
        )


def test_masks_of_a_context_that_know_what_follows_stop_the_training(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    generated = ClipStore(stores["masks"])
    with ClipWriter(
        tmp_path / "agreeing", height=32, width=48, maps=[generated.label_map], meta={"consistent_frames": 11}
    ) as writer:
        for clip in generated.clips:
            writer.add(clip.id, split=clip.split, kind=clip.kind, masks={MASK: generated.masks(clip)})
    stores |= {"masks": tmp_path / "agreeing"}
    with pytest.raises(
        MaskcastError, match="consistent_frames 11, so masks of the 10 context frames depend on later frames"
    ):
        pretrain(stores, tmp_path / "pretrained", context_frames=10)
    assert pretrain(stores, tmp_path / "frames", context_frames=10, model=MODEL | {"input": "frames"})


def test_pretrain_on_frames_is_scored_through_the_masker(stores: dict[str, Path], tmp_path: Path) -> None:
    scores = pretrain(stores, tmp_path / "frames", model=MODEL | {"input": "frames"})
    assert 0 <= scores["val_jaccard_last"] <= 1
    model, _ = load_forecaster(tmp_path / "frames")
    assert model.input == "frames"


def test_a_threshold_that_leaves_nothing_is_named(stores: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match=r"min_confidence = 0\.95"):
        pretrain(stores, tmp_path / "none", min_confidence=0.95)
    assert not (tmp_path / "none").exists()


def test_validation_clips_must_cover_the_horizon(stores: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match=r"validation clip 'val_0' has 22 frames.*is 31"):
        pretrain(stores, tmp_path / "long", horizon=20)


def test_finetune_takes_a_forecaster_of_other_classes_and_learns_the_classes_anew(
    stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ObjectsConfig(hidden=4)
    torch.manual_seed(1)
    save_model(tmp_path / "other", config.build(49), config, num_classes=49, meta={})
    trained, _ = load_forecaster(tmp_path / "other")
    classes = ClipStore(stores["clips"]).num_classes
    adapted, description, anew = adapt_forecaster(tmp_path / "other", classes)
    assert anew == ["motion.kind.weight"] and description["num_classes"] == classes
    assert torch.equal(adapted.motion.push.weight, trained.motion.push.weight)
    assert adapt_forecaster(tmp_path / "other", 49)[2] == []
    run_stage(
        "finetune_forecaster",
        {"training": TRAINING},
        **stores,
        pretrained=tmp_path / "other",
        forecaster=tmp_path / "x",
        metrics=tmp_path / "x.json",
    )
    assert "motion.kind.weight reinitialized" in capsys.readouterr().err
    assert load_forecaster(tmp_path / "x")[1]["num_classes"] == classes


@pytest.mark.parametrize(("displacements", "start"), [(0.9, "known motion"), (9.0, "constant velocity")])
def test_motion_learned_elsewhere_is_kept_where_it_is_better_than_none(
    stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], displacements: float, start: str
) -> None:
    config = ObjectsConfig(hidden=4)
    model = config.build(49)
    with torch.no_grad():
        model.motion.start.bias[:PAST] = displacements / PAST  # how far objects go, in mean displacements
    save_model(tmp_path / "other", model, config, num_classes=49, meta={})
    scores = run_stage(
        "finetune_forecaster",
        {"training": TRAINING | {"learning_rate": 1e-9}},
        **stores,
        pretrained=tmp_path / "other",
        forecaster=tmp_path / "x",
        metrics=tmp_path / "x.json",
    )
    assert f"starting from {start}" in capsys.readouterr().err
    assert scores["val_jaccard_last"] > scores["persistence_val_jaccard_last"]


@pytest.mark.parametrize(
    ("gains", "last", "sure"),
    [
        ([0.02, 0.02, 0.02], [0.0, 0.0, 0.0], True),
        ([0.03, 0.01], [0.0, 0.0], False),  # a mean of 0.02 with a standard error of 0.01
        ([0.03, 0.02], [0.0, 0.0], True),  # 0.025 with 0.005
        ([0.5], [0.5], False),
        ([0.02, 0.02, 0.02], [0.01, 0.0, -0.02], False),
        ([-0.02, -0.02, -0.02], [0.0, 0.0, 0.0], False),
    ],
)
def test_only_what_gains_more_than_its_spread_surpasses_the_start(
    gains: list[float], last: list[float], sure: bool
) -> None:
    assert is_significantly_better(0.5 + np.array([gains, last]).T, np.full((len(gains), 2), 0.5)) is sure


@pytest.mark.parametrize(("videos", "first", "any_of_10"), [(2, 0.15, 0.56), (5, 0.06, 0.28), (20, 0.03, 0.16)])
def test_how_often_an_epoch_surpasses_the_start_by_chance_is_as_its_docstring_says(
    videos: int, first: float, any_of_10: float
) -> None:
    random, runs = np.random.default_rng(0), 2000
    gains = random.normal(size=(runs, videos))
    better = np.zeros((runs, 10), bool)
    for epoch in range(10):
        scores = np.stack([gains, np.zeros_like(gains)], -1)
        better[:, epoch] = [is_significantly_better(run, np.zeros((videos, 2))) for run in scores]
        gains = 0.8 * gains + 0.6 * random.normal(size=gains.shape)
    assert better[:, 0].mean() == pytest.approx(first, abs=0.02)
    assert better.any(1).mean() == pytest.approx(any_of_10, abs=0.03)


def test_windows_of_one_video_count_as_one_where_there_are_others() -> None:
    clips = [("b", "b_2", 0.4, 0.2), ("a", "a_1", 0.1, 0.0), ("b", "b_1", 0.2, 0.4)]
    np.testing.assert_allclose(scores_by_video(clips), [[0.1, 0.0], [0.3, 0.3]])
    np.testing.assert_allclose(
        scores_by_video([clip for clip in clips if clip[0] == "b"]), [[0.2, 0.4], [0.4, 0.2]]
    )


def test_the_same_run_gives_the_same_weights(stores: dict[str, Path], tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    pretrain(stores, first)
    pretrain(stores, second)
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_specks_of_a_masker_are_no_objects_to_learn_from(tmp_path: Path) -> None:
    masks = np.zeros((8, 40, 60), np.uint8)
    masks[:, 10:18, 10:18] = 1  # seen in all frames
    masks[5:, 30:38, 40:48] = 2  # enters
    masks[2:4, 30:38, 10:18] = 3  # flashes up
    masks[:, 2, 2] = 4  # a pixel
    with ClipWriter(tmp_path / "clips", height=40, width=60, maps=single_map(list("01234"))) as writer:
        writer.add("a", split="train", kind="labelled", masks={MASK: masks})
    store = ClipStore(tmp_path / "clips")
    (tracks,) = ObjectsConfig().build(5).batch_source(store, store.clips).batch([Window(0, slice(0, 8), False)])
    assert tracks[:, :, 0].unique(dim=0).tolist() == [[1, 2]]
