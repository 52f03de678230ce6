"""generate_masks: what it writes, that a killed run ends alike, and what it refuses."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from tests.conftest import moving_squares
from tests.toy_segmenter import MemoryConfig
from torch import Tensor, nn

from maskcast import progress
from maskcast.data.clip_store.finished import FinishedClips
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.inference import clip_packing
from maskcast.inference.generation import Generation, check_maps
from maskcast.inference.predictions import MeanConfidence, quantise
from maskcast.inference.segment import segment_raw_and_consistent, segment_whole
from maskcast.inference.worker import Worker
from maskcast.labels import MASK, LabelMap, single_map
from maskcast.models import arithmetic
from maskcast.models.arithmetic import performed
from maskcast.models.base import all_devices
from maskcast.models.segmentation.base import PROBE, Masker, Segmenter, State
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import load_masker, save_masker
from maskcast.params import validate
from maskcast.progress import listening
from maskcast.report.page import Page
from maskcast.stages.generate_masks import GenerateMasks, generate_masks

PARAMS = GenerateMasks(batch_size=8, confidence_levels=5, precision="fp32")


@pytest.fixture
def masker(tmp_path: Path) -> Path:
    """An untrained masker of three classes."""
    torch.manual_seed(0)
    config = UNetConfig(width=2)
    save_masker(tmp_path / "masker", config.build(single_map(["background", "red", "blue"])), config, {})
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
        expected, confidence, *_ = segment_whole(Worker(model, "fp32"), store.frames(clip), batch_size=22)["mask"]
        assert (masks.masks(generated) == expected).mean() > 0.999  # the last bits may depend on the batch
        levels = masks.confidence(generated)
        assert set(np.unique(levels)) <= {0, 64, 128, 191, 255}
        np.testing.assert_allclose(levels / 255, confidence, atol=1 / 8 + 0.01)
        assert not generated.has_frames
        mean = MeanConfidence()
        mean.add(masks.masks(generated), levels)
        assert generated.meta["mean_confidence"] == pytest.approx(mean.value, abs=1e-4)
    assert metrics["clips"] == 7
    assert metrics["frames"] == 6 * 22 + 11
    assert metrics["frames_per_second"] > 0
    assert 0 < metrics["bytes_per_frame"] < 2 * 32 * 48
    assert {"mean_confidence_labelled", "mean_confidence_unlabelled", "mean_confidence_hidden"} <= set(metrics)


def test_the_page_shows_the_least_confident_clips_those_without_labels_first(
    store: ClipStore, masker: Path, tmp_path: Path
) -> None:
    with listening(page := Page("generate_masks")):
        masks, metrics = run(store, masker, tmp_path / "out")
    page.write(tmp_path / "page.html", metrics, PARAMS, {})
    text = (tmp_path / "page.html").read_text()
    order = sorted(masks.clips, key=lambda clip: (clip.kind == "labelled", clip.meta["mean_confidence"]))
    shown = re.findall(r"<figcaption>(\S+), mean confidence (0\.\d{3})</figcaption>", text)
    assert shown == [(clip.id, f"{clip.meta['mean_confidence']:.3f}") for clip in order[:4]]
    assert len({clip.kind for clip in order[:4]}) > 1, "the store has fewer clips without labels"
    assert text.count("data:image/png;base64,") == 4 and 'aria-label="Classes of ' in text


def test_progress_is_told_in_frames_of_all_frames(
    store: ClipStore,
    masker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)
    run(store, masker, tmp_path / "out")
    frames = sum(clip.num_frames for clip in store.clips)
    said = capsys.readouterr().err
    assert f"masking frames: {frames - 1}/{frames} (" in said and re.search(r"/s, \d+ s left\)", said)


def test_a_terminal_that_cannot_redraw_a_bar_gets_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the captured stream as a terminal
    monkeypatch.setenv("TERM", "dumb")
    assert list(progress.track(range(3), "counting")) == [0, 1, 2]
    assert "counting: 2/3 (0 s, " in capsys.readouterr().err


class Killed(BaseException):
    """Stands for SIGKILL."""


class Watched(Masker):
    """A masker that counts the batches of all its copies, and may be killed at one of them."""

    def __init__(self, masker: Masker, killed_at: int = 0) -> None:
        super().__init__(masker.network, masker.multiple, masker.maps)
        self.load_state_dict(masker.state_dict())
        self.killed_at, self.used = killed_at, Used()

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        if frames_BTHWC.shape[2] != PROBE:  # a look at how large its steps are
            self.used.batches.append(id(self))
            if len(self.used.batches) == self.killed_at:
                raise Killed
        return super().forward(frames_BTHWC, state)


class Used:
    """Which copy had each batch; the copies share it."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __deepcopy__(self, memo: object) -> "Used":
        return self


def generate(store: ClipStore, masker: Segmenter, scratch: Path, out: Path, devices: int = 1) -> dict[str, bytes]:
    """Generates masks of all clips; returns the files of the store."""
    masks = Generation(store, store.clips, masker.maps, FinishedClips(scratch, "name"))
    masks.run(
        out,
        {},
        masker.eval(),
        [torch.device("cpu")] * devices,
        batch_size=8,
        precision="fp32",
        consistent_frames=3,
        confidence_levels=5,
    )
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_killed_run_ends_with_the_same_bytes(store: ClipStore, masker: Path, tmp_path: Path) -> None:
    model, _ = load_masker(masker)
    assert isinstance(model, Masker)
    unbroken = generate(store, model, tmp_path / "a", tmp_path / "unbroken")
    killed, again = Watched(model, killed_at=9), Watched(model)
    with pytest.raises(Killed):
        generate(store, killed, tmp_path / "b", tmp_path / "killed")
    done = len(list((tmp_path / "b").rglob("*.clip")))
    assert done in (1, 2)  # the second one may wait to be packed
    (tmp_path / "b/name/0000004.clip").write_bytes(bytes(300))  # as a power loss may leave one
    assert generate(store, again, tmp_path / "b", tmp_path / "resumed") == unbroken
    assert len(again.used.batches) == 18 - done * 22 // 8  # 143 frames are 18 batches


def test_what_cannot_be_written_ends_the_run_and_loses_no_masks(
    store: ClipStore, masker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips are written while others are masked."""
    model, _ = load_masker(masker)
    assert isinstance(model, Masker)
    unbroken = generate(store, model, tmp_path / "a", tmp_path / "unbroken")
    second, add = store.clips[1].id, ClipWriter.add

    def full(writer: ClipWriter, clip_id: str, **given: Any) -> None:
        if clip_id == second:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(writer, clip_id, **given)

    with monkeypatch.context() as patch:
        patch.setattr(ClipWriter, "add", full)
        with pytest.raises(OSError, match="No space left"):
            generate(store, model, tmp_path / "b", tmp_path / "full")
    assert not (tmp_path / "full" / "index.json").exists()
    assert len(list((tmp_path / "b").rglob("*.clip"))) >= 2
    assert generate(store, model, tmp_path / "b", tmp_path / "resumed") == unbroken


def test_a_clip_whose_masks_are_not_there_is_an_error(
    store: ClipStore, masker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no store of the clips before it."""
    model, _ = load_masker(masker)
    assert isinstance(model, Masker)
    save = FinishedClips.save
    monkeypatch.setattr(
        FinishedClips, "save", lambda own, index, clip: save(own, index, clip) if index != 1 else None
    )
    with pytest.raises(MaskcastError, match=r"0000001\.clip"):
        generate(store, model, tmp_path / "a", tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()


class Colours(Segmenter):
    """Gives each pixel the class of the most similar colour: grey, red or blue."""

    def __init__(self, maps: Sequence[LabelMap]) -> None:
        super().__init__(maps)
        self.sharpness = nn.Parameter(torch.tensor(1 / 3000))

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        colours_K3 = torch.tensor([[90, 90, 90], [220, 40, 40], [40, 60, 220]]).to(frames_BTHWC.device)
        distance_BTHWK = (frames_BTHWC[..., None, :] - colours_K3).float().square().sum(-1)
        return self.per_map((-self.sharpness * distance_BTHWK).movedim(-1, 2)), state


@pytest.mark.parametrize("cpus", [1, 2])
def test_it_says_which_class_was_mostly_removed(
    cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In four groups of three frames there is a red square. The blue dot is in one, one, all and none of each."""
    monkeypatch.setattr(clip_packing, "num_cpus", lambda: cpus)
    maps = single_map(["background", "red", "blue"])
    with ClipWriter(tmp_path / "clips", height=32, width=48, maps=maps) as writer:
        for name, dots in (("a", (1, 4)), ("b", (0, 1, 2))):
            frames = np.full((6, 32, 48, 3), 90, np.uint8)
            frames[:, 4:20, 4:20] = 220, 40, 40
            frames[dots, 25:27, 40:42] = 40, 60, 220
            writer.add(name, split="unlabeled", kind="unlabelled", frames=frames)
    clips, masker = ClipStore(tmp_path / "clips"), Colours(maps)
    said = (
        "warning: consistent masks removed class 'blue' (mean probability 1.00) in 2 of 3 groups of 3 frames that "
        "show it, as too small: a small object is kept if it is in most frames of a group, with a mean "
        "probability of at least 0.7; train the masker for longer, "
    )
    generate(clips, masker, tmp_path / "kept", tmp_path / "masks")
    assert capsys.readouterr().err.count(said) == 1
    generate(clips, masker, tmp_path / "kept", tmp_path / "again")  # as a run that was killed at the end
    assert capsys.readouterr().err.count(said) == 1
    masks = ClipStore(tmp_path / "masks")
    blue = [(masks.masks(clip) == 2).sum() for clip in masks.clips]
    assert blue == [0, 3 * 4]
    monkeypatch.setattr("maskcast.inference.excluded_classes.MIN_PROBABILITY", 1.01)  # as of specks
    generate(clips, masker, tmp_path / "kept", tmp_path / "specks")
    assert "warning" not in capsys.readouterr().err


def test_several_devices_and_processors_write_the_same_bytes(
    store: ClipStore, masker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_masker(masker)
    assert isinstance(model, Masker)
    three = Watched(model)
    monkeypatch.setattr(clip_packing, "num_cpus", lambda: 1)  # a thread packs
    one = generate(store, model, tmp_path / "a", tmp_path / "one")
    monkeypatch.setattr(clip_packing, "num_cpus", lambda: 3)  # three processes do
    assert generate(store, three, tmp_path / "b", tmp_path / "three", devices=3) == one
    assert len(set(three.used.batches)) == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            lambda *_: os.kill(os.getpid(), signal.SIGKILL),
            r"^a process that makes masks consistent died, perhaps for la",
        ),
        (Mock(side_effect=MaskcastError("clip 0: wrong")), r"^clip 0: wrong$"),
    ],
)
def test_a_fault_of_a_process_that_packs_ends_the_run(
    fault: Callable[..., None],
    said: str,
    store: ClipStore,
    masker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clip_packing, "num_cpus", lambda: 2)
    monkeypatch.setattr(FinishedClips, "save", fault)
    with pytest.raises(MaskcastError, match=said):
        generate(store, load_masker(masker)[0], tmp_path / "a", tmp_path / "masks")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("devices", [1, 3])
def test_a_masker_with_state_sees_each_clip_from_its_first_frame(
    store: ClipStore, tmp_path: Path, devices: int
) -> None:
    torch.manual_seed(0)
    model = MemoryConfig().build([store.label_map]).eval()
    generate(store, model, tmp_path / "a", tmp_path / "masks", devices)
    masks = ClipStore(tmp_path / "masks")
    for clip in store.clips:
        found = segment_raw_and_consistent(
            Worker(model, "fp32"), store.frames(clip), batch_size=8, consistent_frames=3
        )[1]["mask"]
        np.testing.assert_array_equal(masks.masks(masks.get(clip.id)), found.masks)


def test_finished_clips_of_other_params_are_not_used(store: ClipStore, masker: Path, tmp_path: Path) -> None:
    run(store, masker, tmp_path / "out")
    (tmp_path / "out/masks").rename(tmp_path / "out/first")
    other, _ = run(store, masker, tmp_path / "out", PARAMS.model_copy(update={"confidence_levels": 2}))
    assert set(np.unique(other.confidence(other.clips[0]))) <= {0, 255}


def test_finished_clips_of_another_arithmetic_are_masked_again(
    store: ClipStore, masker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may be killed on one machine and resumed on another; the store records one arithmetic."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    params = PARAMS.model_copy(update={"precision": "bf16", "confidence_levels": 256})
    written: dict[tuple[str, bool], tuple[str, list[bytes]]] = {}
    for out, has_bf16 in (("resumed", True), ("resumed", False), ("unbroken", False)):
        monkeypatch.setattr(arithmetic, "_cpu_has_bf16", lambda has=has_bf16: has)
        masks, _ = run(store, masker, tmp_path / out, params)
        levels = [masks.confidence(clip).tobytes() for clip in masks.clips]
        written[out, has_bf16] = masks.meta["arithmetic"], levels
        shutil.rmtree(masks.root)  # as if it had been killed at the end
    assert written["resumed", True][1] != written["resumed", False][1]
    assert written["resumed", False] == written["unbroken", False]


def test_bf16_masks_like_fp32(store: ClipStore, masker: Path, tmp_path: Path) -> None:
    exact, _ = run(store, masker, tmp_path / "fp32")
    rough, _ = run(store, masker, tmp_path / "bf16", PARAMS.model_copy(update={"precision": "bf16"}))
    device = all_devices()[0]
    assert exact.meta["arithmetic"] == f"fp32 on {device.type}"
    assert rough.meta["arithmetic"] == performed(device, "bf16")
    clip = exact.clips[0].id
    assert (exact.masks(exact.get(clip)) == rough.masks(rough.get(clip))).mean() > 0.9


def test_frames_that_agree_know_nothing_of_those_after_them(
    store: ClipStore, masker: Path, tmp_path: Path
) -> None:
    model, _ = load_masker(masker)
    clip = store.clips[0]
    with torch.no_grad():  # untrained, it sees one class everywhere: now each is as likely
        model.network.head.weight *= 20
        (logits_BTKHW,), _ = model(torch.from_numpy(store.frames(clip).copy())[None])
        model.network.head.bias -= logits_BTKHW.mean((0, 1, 3, 4))
    save_masker(tmp_path / "moody", model, UNetConfig(width=2), {})
    masker = tmp_path / "moody"
    masks, _ = run(store, masker, tmp_path / "out", PARAMS.model_copy(update={"consistent_frames": 11}))
    for part in (slice(0, 11), slice(11, 22)):
        expected, confidence, *_ = segment_raw_and_consistent(
            Worker(model, "fp32"), store.frames(clip)[part], batch_size=11, consistent_frames=11
        )[1]["mask"]
        assert confidence is not None
        assert (masks.masks(masks.get(clip.id))[part] == expected).mean() > 0.99
        levels = masks.confidence(masks.get(clip.id))[part]
        assert (np.abs(levels / 255 - confidence) < 1 / 8 + 0.01).mean() > 0.99
    alone, _ = run(store, masker, tmp_path / "alone")
    assert (alone.masks(alone.get(clip.id)) != masks.masks(masks.get(clip.id))).any()
    assert [store.meta["consistent_frames"] for store in (masks, alone)] == [11, None]


@pytest.mark.parametrize(
    ("by_masker", "by_store", "asked", "agreeing"),
    [
        (False, False, "things", None),  # as CamVid's: stuff has no objects to follow
        (True, False, "things", 11),  # as of plain videos, whose masker knows what it was taught
        (False, True, "things", 11),  # as of a masker from before maps said it
        (True, True, None, None),
        (False, False, 2, 2),
    ],
)
def test_frames_agree_by_default_where_classes_are_things(
    store: ClipStore, tmp_path: Path, by_masker: bool, by_store: bool, asked: Any, agreeing: int | None
) -> None:
    clip, config, classes = store.clips[0], UNetConfig(width=2), store.classes
    with ClipWriter(tmp_path / "told", height=32, width=48, maps=single_map(classes, things=by_store)) as writer:
        writer.add(clip.id, split="unlabeled", kind="unlabelled", frames=store.frames(clip))
    save_masker(tmp_path / "masker", config.build(single_map(classes, things=by_masker)), config, {})
    params = GenerateMasks(consistent_frames=asked)
    masks, _ = run(ClipStore(tmp_path / "told"), tmp_path / "masker", tmp_path / "out", params)
    assert masks.meta["consistent_frames"] == agreeing
    assert masks.label_map.things == by_masker


@pytest.mark.parametrize("wrong", [0, 2.5, "thing", [11]])
def test_a_wrong_number_of_agreeing_frames_is_told_in_one_line(wrong: Any) -> None:
    said = r"^generate_masks\.consistent_frames: .*a number of frames \(1 or more\), things, or null, got .*$"
    with pytest.raises(MaskcastError, match=said):
        validate(GenerateMasks, {"consistent_frames": wrong}, "generate_masks")
    assert validate(GenerateMasks, {"consistent_frames": 11.0}, "").consistent_frames == 11  # as KFP gives it


def test_quantise_by_hand() -> None:
    assert quantise(np.array([0, 0.49, 0.51, 1.0]), 2).tolist() == [0, 0, 255, 255]
    assert quantise(np.array([0.2, 0.3, 0.7, 0.9]), 3).tolist() == [0, 128, 128, 255]
    assert quantise(np.array([0.5]), 256).tolist() == [128]


def test_mean_confidence_looks_at_objects() -> None:
    sure = np.array([[255, 51], [102, 255]], np.uint8)
    mean, none = MeanConfidence(), MeanConfidence()
    mean.add(np.array([0, 1], np.uint8), sure[0])
    mean.add(np.array([2, 0], np.uint8), sure[1])
    assert mean.value == pytest.approx(0.3)
    none.add(np.zeros((2, 2), np.uint8), sure)
    assert none.value == pytest.approx(0.65)


def test_only_the_maps_that_are_named_are_written(tmp_path: Path) -> None:
    maps = (LabelMap("hand", ("background", "left")), LabelMap("hair", ("background", "foreground"), "alpha"))
    frames, hand = moving_squares(0, 5, 32, 48)
    with ClipWriter(tmp_path / "clips", height=32, width=48, maps=maps) as writer:
        masks = {"hand": np.minimum(hand, 1), "hair": (hand > 0) * np.uint8(255)}
        writer.add("a", split="train", kind="labelled", frames=frames, masks=masks)
    config, store = UNetConfig(width=2), ClipStore(tmp_path / "clips")
    save_masker(tmp_path / "masker", config.build(maps), config, {})
    both, metrics = run(store, tmp_path / "masker", tmp_path / "both")
    assert set(both.maps) == {"hand", "hair"} and both.clips[0].maps == ("hand", "hair")
    assert both.of("hand").has_confidence(both.clips[0]) and not both.of("hair").has_confidence(both.clips[0])
    assert 0 < metrics["mean_confidence_labelled"] <= 1
    hair, metrics = run(
        store, tmp_path / "masker", tmp_path / "hair", PARAMS.model_copy(update={"maps": ["hair"]})
    )
    assert set(hair.maps) == {"hair"} and "mean_confidence_labelled" not in metrics
    np.testing.assert_array_equal(hair.masks(hair.clips[0]), both.of("hair").masks(both.clips[0]))
    with pytest.raises(
        MaskcastError, match=r"label map 'beard' not found \(maps: hand, hair\); set maps to one of these"
    ):
        check_maps(tmp_path / "masker", load_masker(tmp_path / "masker")[0], store, ["beard"])


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
