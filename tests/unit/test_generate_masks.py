"""generate_masks: what it writes, that a killed run ends alike, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskcast.data.clip_writer import ClipWriter
from maskcast.data.clips import ClipStore
from maskcast.errors import MaskcastError
from maskcast.inference import consistency
from maskcast.inference.consistency import make_consistent, predict_regions
from maskcast.inference.segment import predict_masks, quantise
from maskcast.labels import MASK, single_map
from maskcast.models.base import save_model
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import load_masker
from maskcast.stages import generate_masks as stage_module
from maskcast.stages.generate_masks import GenerateMasks, generate_masks, mean_confidence

PARAMS = GenerateMasks(batch_size=8, confidence_levels=5, precision="fp32")


@pytest.fixture
def masker(tmp_path: Path) -> Path:
    """An untrained masker of three classes."""
    torch.manual_seed(0)
    config = UNetConfig(width=2)
    meta = {"classes": ["background", "red", "blue"]}
    save_model(tmp_path / "masker", config.build(3), config, num_classes=3, meta=meta)
    return tmp_path / "masker"


def run(
    store: ClipStore, masker: Path, out: Path, params: GenerateMasks = PARAMS
) -> tuple[ClipStore, dict[str, float]]:
    out.mkdir(exist_ok=True)
    generate_masks(
        clips=store.root, masker=masker, masks=out / "masks", metrics=out / "metrics.json", params=params
    )
    return ClipStore(out / "masks"), json.loads((out / "metrics.json").read_text())


def test_every_clip_gets_the_maskers_masks(store: ClipStore, masker: Path, tmp_path: Path) -> None:
    masks, metrics = run(store, masker, tmp_path / "out")
    model, _ = load_masker(masker)
    assert [(c.id, c.split, c.kind) for c in masks.clips] == [(c.id, c.split, c.kind) for c in store.clips]
    assert masks.classes == store.classes
    for clip in store.clips:
        generated = masks.get(clip.id)
        expected, confidence = predict_masks(model, store.frames(clip), "fp32")
        assert (masks.masks(generated) == expected).mean() > 0.999  # the last bits may depend on the batch
        levels = masks.confidence(generated)
        assert set(np.unique(levels)) <= {0, 64, 128, 191, 255}
        np.testing.assert_allclose(levels / 255, confidence, atol=1 / 8 + 0.01)
        assert not generated.has_frames
        mean = mean_confidence(masks.masks(generated), levels)
        assert generated.meta["mean_confidence"] == pytest.approx(mean, abs=1e-4)
    assert metrics["clips"] == 7
    assert metrics["frames"] == 6 * 22 + 11
    assert metrics["frames_per_second"] > 0
    assert 0 < metrics["bytes_per_frame"] < 2 * 32 * 48
    assert {"mean_confidence_labelled", "mean_confidence_unlabelled", "mean_confidence_hidden"} <= set(metrics)


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_killed_run_ends_with_the_same_bytes(
    store: ClipStore, masker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, _ = run(store, masker, tmp_path / "unbroken")
    calls = 0

    def counted(*args: object) -> tuple[np.ndarray, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise Killed
        return predict_masks(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(consistency, "predict_masks", counted)
    with pytest.raises(Killed):
        run(store, masker, tmp_path / "killed")
    assert len(list((tmp_path / "killed/masks.resume").rglob("*.clip"))) == 2
    resumed, metrics = run(store, masker, tmp_path / "killed")
    assert calls < 9 + 18  # 143 frames are 18 batches
    assert metrics["clips"] == 7
    for path in sorted(unbroken.root.iterdir()):
        assert path.read_bytes() == (resumed.root / path.name).read_bytes()


def test_several_devices_write_the_same_bytes(
    store: ClipStore, masker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = run(store, masker, tmp_path / "one")
    used = set()

    def watched(model: torch.nn.Module, *args: object) -> tuple[np.ndarray, np.ndarray]:
        used.add(id(model))
        return predict_masks(model, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(stage_module, "all_devices", lambda: [torch.device("cpu")] * 3)
    monkeypatch.setattr(consistency, "predict_masks", watched)
    three, metrics = run(store, masker, tmp_path / "three")
    assert len(used) == 3
    assert metrics["clips"] == 7
    for path in sorted(one.root.iterdir()):
        assert path.read_bytes() == (three.root / path.name).read_bytes()


def test_finished_clips_of_other_params_are_not_used(store: ClipStore, masker: Path, tmp_path: Path) -> None:
    run(store, masker, tmp_path / "out")
    (tmp_path / "out/masks").rename(tmp_path / "out/first")
    other, _ = run(store, masker, tmp_path / "out", PARAMS.model_copy(update={"confidence_levels": 2}))
    assert set(np.unique(other.confidence(other.clips[0]))) <= {0, 255}


def test_bf16_masks_like_fp32(store: ClipStore, masker: Path, tmp_path: Path) -> None:
    exact, _ = run(store, masker, tmp_path / "fp32")
    rough, _ = run(store, masker, tmp_path / "bf16", PARAMS.model_copy(update={"precision": "bf16"}))
    clip = exact.clips[0].id
    assert (exact.masks(exact.get(clip)) == rough.masks(rough.get(clip))).mean() > 0.9


def test_frames_that_agree_know_nothing_of_those_after_them(
    store: ClipStore, masker: Path, tmp_path: Path
) -> None:
    model, description = load_masker(masker)
    clip = store.clips[0]
    with torch.no_grad():  # untrained, it sees one class everywhere: now each is as likely
        model.network.head.weight *= 20
        logits_BKHW = model(torch.from_numpy(store.frames(clip).copy()))
        model.network.head.bias -= logits_BKHW.mean((0, 2, 3))
    save_model(tmp_path / "moody", model, UNetConfig(width=2), num_classes=3, meta=description["meta"])
    masker = tmp_path / "moody"
    masks, _ = run(store, masker, tmp_path / "out", PARAMS.model_copy(update={"consistent_frames": 11}))
    for part in (slice(0, 11), slice(11, 22)):
        expected, confidence = make_consistent(*predict_regions(model, store.frames(clip)[part], "fp32"))
        assert (masks.masks(masks.get(clip.id))[part] == expected).mean() > 0.99
        levels = masks.confidence(masks.get(clip.id))[part]
        assert (np.abs(levels / 255 - confidence) < 1 / 8 + 0.01).mean() > 0.99
    alone, _ = run(store, masker, tmp_path / "alone")
    assert (alone.masks(alone.get(clip.id)) != masks.masks(masks.get(clip.id))).any()
    assert [store.meta["consistent_frames"] for store in (masks, alone)] == [11, None]


def test_quantise_by_hand() -> None:
    assert quantise(np.array([0, 0.49, 0.51, 1.0]), 2).tolist() == [0, 0, 255, 255]
    assert quantise(np.array([0.2, 0.3, 0.7, 0.9]), 3).tolist() == [0, 128, 128, 255]
    assert quantise(np.array([0.5]), 256).tolist() == [128]


def test_mean_confidence_looks_at_objects() -> None:
    confidence = np.array([[255, 51], [102, 255]], np.uint8)
    assert mean_confidence(np.array([[0, 1], [2, 0]], np.uint8), confidence) == pytest.approx(0.3)
    assert mean_confidence(np.zeros((2, 2), np.uint8), confidence) == pytest.approx(0.65)


def test_a_masker_of_other_classes_is_refused(masker: Path, tmp_path: Path) -> None:
    with ClipWriter(
        tmp_path / "other", height=8, width=8, maps=single_map(["background", "blue", "red"])
    ) as writer:
        writer.add("a", split="unlabeled", kind="unlabelled", frames=np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(MaskcastError, match="trained for 3 classes that are not the 3"):
        run(ClipStore(tmp_path / "other"), masker, tmp_path / "out")


def test_clips_without_frames_are_refused(masker: Path, tmp_path: Path) -> None:
    with ClipWriter(
        tmp_path / "other", height=8, width=8, maps=single_map(["background", "red", "blue"])
    ) as writer:
        writer.add("a", split="train", kind="labelled", masks={MASK: np.zeros((2, 8, 8), np.uint8)})
    with pytest.raises(MaskcastError, match="no clip has frames"):
        run(ClipStore(tmp_path / "other"), masker, tmp_path / "out")
