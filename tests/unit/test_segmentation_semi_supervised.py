"""Learning from unlabelled frames: views, pseudo masks, resume, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.conftest import write_store
from tests.toy_segmenter import MemoryConfig
from tests.two_maps import MATTE, SQUARES
from torch import Tensor, nn

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.errors import MaskcastError
from maskcast.models.segmentation.table import load_masker
from maskcast.runner.run import run_stage
from maskcast.seed import derive
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.ema import BetterModel
from maskcast.training.loop import fit
from maskcast.training.tasks.segmentation import FrameTask, segmentation_task
from maskcast.training.tasks.segmentation_dropout import DROPPED, FeatureDropout
from maskcast.training.tasks.segmentation_params import SegmentationTraining, UnlabeledParams
from maskcast.training.tasks.segmentation_pseudo import PseudoMasks, cutmix_masks, learnt_share
from maskcast.training.tasks.segmentation_unlabeled import UnlabelledWindows

PARAMS: dict[str, Any] = {
    "model": {"arch": "unet", "width": 4},
    "loss": {"ce": 1, "dice": 0, "focal": 0, "background_weight": 1},
    "augment": {"crop": [24, 32], "crop_on_object": 0.5},
    "training": {"epochs": 2, "steps_per_epoch": 4, "batch_size": 2, "learning_rate": 1e-2, "checkpoint_every": 3},
    "val_frame_step": 11,
    "ema": 0.9,
    "unlabeled": {"batch_size": 4, "burn_in_steps": 2, "threshold": 0.3, "feature_dropout": 0.5},
}


def values(training: dict[str, Any] | None = None, **unlabeled: Any) -> dict[str, Any]:
    changes = {"training": PARAMS["training"] | (training or {}), "unlabeled": PARAMS["unlabeled"] | unlabeled}
    return PARAMS | changes


def params(training: dict[str, Any] | None = None, **unlabeled: Any) -> TrainMasker:
    return TrainMasker.model_validate(values(training, **unlabeled))


class WithMemory(SegmentationTraining):
    """How the toy with state is trained."""

    model: MemoryConfig = MemoryConfig()  # type: ignore[assignment]


def with_memory(training: dict[str, Any] | None = None, **unlabeled: Any) -> WithMemory:
    window = {"frames": 4, "chunk": 3, "burn_in": 1}
    return WithMemory.model_validate(values(training, **unlabeled) | {"model": {}, "window": window})


def test_two_views_share_their_geometry_and_pairs_their_rectangles(store: ClipStore) -> None:
    same = {"brightness": 0, "contrast": 0, "saturation": 0, "blur": 0}
    windows = UnlabelledWindows(store, params(), params(cutmix=1, strong=same).unlabeled)  # type: ignore[arg-type]
    weak, strong, cut, *_ = windows.batch(5)
    assert weak.shape == strong.shape == (4, 1, 24, 32, 3) and cut.shape == (4, 24, 32)
    assert cut.flatten(1).any(1).all() and not cut.flatten(1).all(1).any()
    others = weak[[1, 0, 3, 2]]
    assert torch.equal(strong, torch.where(cut[:, None, ..., None], others, weak))
    windows = UnlabelledWindows(store, params(), params(cutmix=0).unlabeled)  # type: ignore[arg-type]
    weak, strong, cut, *_ = windows.batch(5)
    assert not cut.any() and not torch.equal(weak, strong)
    assert not any(torch.equal(one, two) for one, two in zip(weak, windows.batch(6).weak_BTHWC, strict=True))
    assert torch.equal(strong, windows.batch(5).strong_BTHWC)


def test_unlabelled_frames_come_after_the_burn_in_alone(store: ClipStore) -> None:
    task = FrameTask(store, params(ramp_steps=4), "x")
    assert task.batch(1).views is None and task.batch(2).views is not None
    assert task.semi_supervised is not None
    assert [float(task.semi_supervised.batch(step).weight) for step in (2, 3, 5, 9)] == [0.25, 0.5, 1, 1]


def test_pseudo_masks_by_hand() -> None:
    """Two pixels of class 1 at probability 0.8 and 0.6, one of class 0 at 0.9."""
    probabilities = torch.tensor([[0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.9, 0.05, 0.05]])
    logits = probabilities.log().T.reshape(1, 1, 3, 1, 3)
    labels = (torch.tensor([[[[0, 1, 255]]]], dtype=torch.uint8),)
    pseudo = PseudoMasks([SQUARES], UnlabeledParams(batch_size=2, burn_in_steps=0, threshold=0.7, balance=True))
    assert pseudo((logits,), labels)[0].tolist() == [[[[1, 255, 0]]]]
    # found 3, objects 2; learnt 2, objects 1; labelled 2, objects 1
    assert pseudo.tally.tolist() == [3, 2, 2, 1, 2, 1]
    assert pseudo.get_buffer("sure_0").tolist() == pytest.approx([1 - 0.05 * 0.1, 1 - 0.05 * 0.3, 1])
    pseudo.get_buffer("sure_0").copy_(torch.tensor([1, 0.8, 1]))
    assert pseudo((logits,), labels)[0].tolist() == [[[[1, 1, 0]]]]  # 0.6 is above 0.7 x 0.8
    assert pseudo.statistics() == {"pseudo_learnt": pytest.approx(5 / 6), "pseudo_objects": pytest.approx(4 / 6)}
    assert pseudo.statistics() == {}
    plain = PseudoMasks([MATTE], UnlabeledParams(batch_size=2, burn_in_steps=0))
    (opacity,) = plain((torch.tensor([[[[[-50.0, 0.0, 50.0]]]]]),), labels)
    assert opacity.tolist() == [[[[0, 128, 255]]]]


def test_a_mask_of_which_nothing_is_sure_teaches_nothing() -> None:
    masks = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    assert learnt_share(masks) == 0
    masks[0] = 1
    assert learnt_share(masks) == 0.5


def test_frames_of_a_clip_agree_before_they_are_learnt() -> None:
    """A square is of class 1 in two frames of three; in the third, class 2 is somewhat more probable."""
    probabilities = torch.full((1, 3, 3, 12, 12), 0.01)
    probabilities[:, :, 0] = 0.98
    for t, share in enumerate((0.9, 0.45, 0.9)):
        probabilities[0, t, :, 4:9, 4:9] = torch.tensor([0.05, share, 0.95 - share])[:, None, None]
    labels = (torch.zeros(1, 1, 2, 2, dtype=torch.uint8),)
    settings = {"batch_size": 2, "burn_in_steps": 0, "threshold": 0.0}
    alone = PseudoMasks([SQUARES], UnlabeledParams(**settings))((probabilities.log(),), labels)[0]
    agreed = PseudoMasks([SQUARES], UnlabeledParams(**settings, consistent_frames=3))(
        (probabilities.log(),), labels
    )[0]
    assert [int(mask[6, 6]) for mask in alone[0]] == [1, 2, 1]
    assert [int(mask[6, 6]) for mask in agreed[0]] == [1, 1, 1]
    assert torch.equal(agreed[0] > 0, alone[0] > 0)


def test_masks_are_cut_as_the_views_are() -> None:
    masks = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 2, 1, 2)
    cut = torch.tensor([[[True, False]], [[False, False]], [[False, True]], [[True, True]]])
    assert cutmix_masks(masks, cut)[:, 0, 0].tolist() == [[1, 0], [1, 1], [2, 3], [2, 2]]


def test_features_are_dropped_where_there_are_no_labels() -> None:
    class Two(nn.Module):
        out_channels = (16, 64)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [x, x.repeat(1, 4, 1, 1)]

    encoder = Two()
    dropout, ones = FeatureDropout(encoder, 0.25, samples=4), torch.ones(2 + 8, 16, 2, 2)
    assert torch.equal(encoder(ones)[1], torch.ones(10, 64, 2, 2))
    with dropout(dropout.draw(0, 7), labelled=0.2):  # two rows, then two frames of each of four samples
        same, dropped = encoder(ones)
    assert same is ones and torch.equal(dropped[:2], torch.ones(2, 64, 2, 2))
    assert torch.equal(dropped[2::2], dropped[3::2])
    assert dropped[2:].unique().tolist() == pytest.approx([0, 4 / 3])
    random = torch.Generator().manual_seed(derive(0, 7, DROPPED))
    first, second = (torch.rand(4, channels, generator=random) for channels in (16, 64))
    assert torch.equal(dropped[2::2, :, 0, 0] > 0, second >= 0.25) and not (first >= 0.25).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "model",
    [
        {"arch": "unet", "width": 4},
        {"arch": "smp_unet", "encoder": "tu-test_resnet"},
        {"arch": "recurrent", "base": {"arch": "unet", "width": 4}},
    ],
    ids=lambda model: model["arch"],
)
def test_every_model_with_an_encoder_goes_without_features(store: ClipStore, model: dict[str, Any]) -> None:
    window = {"window": {"frames": 2, "chunk": 1, "burn_in": 0}} if model["arch"] == "recurrent" else {}
    task = segmentation_task(store, TrainMasker.model_validate(values() | {"model": model} | window), "x")
    batch = task.batch(3)
    assert task.semi_supervised is not None and task.semi_supervised.dropout is not None
    assert batch.views is not None
    both, student = task.semi_supervised.student_batch(batch, batch.views), task.student.eval()
    with torch.no_grad():
        (plain,), _ = student(both.frames_BTHWC)
        with task.semi_supervised.dropout(batch.views.kept, 2 / len(both.frames_BTHWC)):
            (perturbed,), _ = student(both.frames_BTHWC)
    torch.testing.assert_close(perturbed[:2], plain[:2])
    assert not any(torch.allclose(one, two) for one, two in zip(perturbed[2:], plain[2:], strict=True))


def test_the_loss_by_hand(store: ClipStore) -> None:
    """That of the labels, and the mean over all pixels of what the average teaches."""
    settings = {"feature_dropout": 0, "weight": 0.5}
    task = FrameTask(store, params({"precision": "fp32"}, **settings), "x")
    batch = task.batch(3)
    with torch.no_grad():
        (logits,), _ = task.averaged.average(batch.views.weak_BTHWC)  # type: ignore[union-attr, misc]
    sure, found = logits.softmax(2).max(2)
    threshold = float(sure.median())
    task = FrameTask(store, params({"precision": "fp32"}, threshold=threshold, **settings), "x")
    loss, _ = task.loss(batch, 3)
    with torch.no_grad():
        pseudo = cutmix_masks(found.masked_fill(sure < threshold, 255).to(torch.uint8), batch.views.cut_BHW)
        frames = torch.cat([batch.frames_BTHWC, batch.views.strong_BTHWC])
        (given,), _ = task.student(frames)
        picked = given[2:, 0].log_softmax(1).gather(1, pseudo.long().clamp_max(2))
        taught = -(picked * (pseudo != 255)).sum() / pseudo.numel()
        expected = task.criteria[0][0](given[:2, 0], batch.masks[0][:, 0]) + 0.5 * taught
    assert 0 < (pseudo != 255).sum() < pseudo.numel()
    torch.testing.assert_close(loss, expected)


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("consistent", [None, 2])
def test_a_killed_run_ends_with_the_same_weights(
    store: ClipStore, tmp_path: Path, memory: bool, consistent: int | None
) -> None:
    settings = (with_memory if memory else params)(consistent_frames=consistent, threshold=0.1)
    unbroken, killed, resumed = (segmentation_task(store, settings, "x") for _ in range(3))
    assert unbroken.burn_in_steps == settings.unlabeled.burn_in_steps
    scores, curve = fit(unbroken, settings.training, tmp_path / "unbroken")

    def dies(step: int) -> Any:
        if step == 7:
            raise Killed
        return type(killed).batch(killed, step)

    killed.batch = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(Killed):
        fit(killed, settings.training, tmp_path / "killed")
    again, resumed_curve = fit(resumed, settings.training, tmp_path / "killed")
    assert resumed_curve == curve and again["jaccard"] == scores["jaccard"]
    for name, weights in unbroken.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name
    assert {"jaccard_average", "jaccard_live", "pseudo_learnt", "pseudo_objects"} <= set(curve[-1])


def test_the_one_that_validates_better_is_kept() -> None:
    model = BetterModel(nn.Linear(1, 1), 0.5)
    scores = {id(model.live): 0.5, id(model.average): 0.25}
    found = model.validate(lambda one: {"jaccard": scores[id(one)]}, "jaccard")
    assert found == {"jaccard": 0.5, "jaccard_average": 0.25, "jaccard_live": 0.5}
    assert model.final is model.live
    best = model.state_dict()
    other = BetterModel(nn.Linear(1, 1), 0.5)
    assert other.final is other.average
    other.load_state_dict(best)
    assert other.final is other.live


def test_a_masker_learns_from_unlabelled_clips_and_is_like_any_other(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips", train=1, val=2, unlabeled=4)
    settings = values(
        {"epochs": 1, "steps_per_epoch": 40, "batch_size": 4}, burn_in_steps=30, threshold=0.7, feature_dropout=0
    )
    metrics = run_stage("train_masker", settings, clips=store.root, masker=tmp_path / "m", metrics=tmp_path / "j")
    assert metrics["val_jaccard"] > 0.4  # untrained 0.02
    assert metrics["val_jaccard"] == max(metrics["val_jaccard_average"], metrics["val_jaccard_live"])
    assert 0.1 < metrics["val_pseudo_learnt"] <= 1 and metrics["val_pseudo_objects"] > 0.03
    masker, description = load_masker(tmp_path / "m")
    assert not any(name.startswith(("live", "average", "pseudo")) for name in masker.state_dict())
    assert metrics["parameters"] == sum(each.numel() for each in masker.parameters())  # of the average, too
    assert description["meta"]["classes"] == ["background", "red", "blue"]


def test_frames_without_labels_of_a_labelled_clip_are_unlabelled(store: ClipStore, tmp_path: Path) -> None:
    clip = store.select("train")[0]
    masks = store.masks(clip).copy()
    masks[4:] = 255
    write_relabelled(tmp_path / "partly", store, {clip.id: NewLabels(masks, range(4))}, {})
    partly = ClipStore(tmp_path / "partly")
    windows = UnlabelledWindows(partly, params(), params().unlabeled)  # type: ignore[arg-type]
    assert [clip.id for clip in windows.clips] == ["train_0", "unlabeled_0", "unlabeled_1"]


def test_frames_of_another_store_that_are_scored_on_are_said(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = store.get("val_1")
    with ClipWriter(tmp_path / "others", height=32, width=48, maps=[store.label_map]) as writer:
        frames = store.frames(bare)[5:15]  # cut elsewhere, under another name
        writer.add("street", split="unlabeled", kind="unlabelled", frames=frames)
    segmentation_task(store, params(), "x", unlabeled=tmp_path / "others")
    said = f"warning: {tmp_path}/others: clip 'street' has frames of clip 'val_1' of split 'val' of {store.root}: "
    assert said in capsys.readouterr().err
    others = write_store(tmp_path / "none", train=2)  # with the frames of the store's training clips
    segmentation_task(store, params(), "x", unlabeled=others.root)
    assert "warning" not in capsys.readouterr().err


def test_frames_of_another_store_take_the_place_of_its_own(store: ClipStore, tmp_path: Path) -> None:
    others = write_store(tmp_path / "others", train=2, val=1, unlabeled=1)
    task = segmentation_task(store, params(), "x", unlabeled=others.root)
    assert task.semi_supervised is not None
    windows = task.semi_supervised.windows
    assert windows.store.root == others.root
    assert [clip.id for clip in windows.clips] == ["train_0", "train_1", "unlabeled_0"]
    wide = write_store(tmp_path / "wide", width=64, train=1, val=1)
    with pytest.raises(MaskcastError, match=r"frames of 32x64, but .* has 32x48; prepare both in one size"):
        segmentation_task(store, params(), "x", unlabeled=wide.root)
    alone = TrainMasker.model_validate(PARAMS | {"unlabeled": None})
    with pytest.raises(MaskcastError, match=r"needs the param train_masker\.unlabeled"):
        segmentation_task(store, alone, "x", unlabeled=others.root)


def test_a_store_without_unlabelled_frames_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips", train=1, val=1)
    line = r"no unlabelled frames, which train_masker\.unlabeled needs; it has train \(labelled\), val"
    with pytest.raises(MaskcastError, match=line):
        FrameTask(store, params(), "x")


def test_clips_that_are_too_short_are_refused(store: ClipStore) -> None:
    with pytest.raises(MaskcastError, match="no unlabelled clip has the 30 frames of a sample; lower"):
        FrameTask(store, params(consistent_frames=30), "x")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"ema": None}, r"unlabeled needs a teacher: set ema, e\.g\. to 0\.99"),
        ({"unlabeled": {"batch_size": 3, "burn_in_steps": 2}}, "multiple of 2"),
        ({"unlabeled": {"batch_size": 4, "burn_in_steps": 8}}, "training ends after 8 steps, before any"),
        ({"unlabeled": {"batch_size": 4, "burn_in_steps": 2, "threshold": 1}}, "less than 1"),
        ({"training": PARAMS["training"] | {"processes": 2}, "unlabeled": {"batch_size": 6, "burn_in_steps": 2}},
         "choose a multiple of 4"),
    ],
)  # fmt: skip
def test_wrong_params_name_their_key(change: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        TrainMasker.model_validate(PARAMS | change)


def test_a_teacher_that_sees_background_alone_ends_the_training(
    store: ClipStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = FrameTask(store, params(threshold=0.05), "x")
    head = task.averaged.average.network.head  # type: ignore[union-attr]
    task.averaged.update = lambda step: head.bias.data.copy_(torch.tensor([50.0, 0, 0]))  # type: ignore
    line = r"the teacher has collapsed to background: objects are 0\.00% of its masks of unlabelled frames,"
    with pytest.raises(MaskcastError, match=line):
        fit(task, params({"epochs": 3}).training, tmp_path)
    said = capfd.readouterr()
    assert (said.err + said.out).count("the teacher has collapsed") == 1  # after the second epoch, before it ends


def test_a_threshold_that_lets_nothing_through_is_said(
    store: ClipStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = params({"learning_rate": 1e-6}, threshold=0.999, balance=False)
    fit(FrameTask(store, settings, "x"), settings.training, tmp_path)
    said = capfd.readouterr()
    assert (
        "train_masker.unlabeled.threshold 0.999: no pixel of the unlabelled frames exceeds it"
        in said.err + said.out
    )


def test_a_threshold_that_lets_background_through_alone_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    pseudo = PseudoMasks([SQUARES], UnlabeledParams(batch_size=2, burn_in_steps=0))
    pseudo.tally.copy_(torch.tensor([1000, 100, 800, 0, 50, 5]))
    assert pseudo.statistics() == {"pseudo_learnt": 0.8, "pseudo_objects": 0.1}
    said = capfd.readouterr()
    assert "threshold 0.9: only background exceeds it, so no object" in said.err + said.out


def test_a_loss_that_is_no_number_ends_the_training(store: ClipStore, tmp_path: Path) -> None:
    settings = params({"learning_rate": 1e30, "clip_grad_norm": None, "warmup_steps": 0})
    with pytest.raises(MaskcastError, match="training diverged; lower learning_rate"):
        fit(FrameTask(store, settings, "x"), settings.training, tmp_path)
