"""maskcast init: what it finds in folders of users, and what it writes."""

import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from socketserver import BaseRequestHandler
from typing import Any

import numpy as np
import pytest
import timm
import yaml
from PIL import Image
from safetensors.torch import save
from tests.conftest import ROOT, write_detection_set
from tests.hub import COMMIT, Hub
from tests.lookalikes import LOOKALIKES, davis, frames_of, write_images, write_mp4

from maskcast import progress
from maskcast.__main__ import main
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.frame_names import NameIndex, name_key
from maskcast.data.inspection.guess_patterns import Guess, guess_patterns
from maskcast.data.inspection.image_groups import ImageGroup
from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.data.sources.base import Arrays, RawClip
from maskcast.data.sources.splits import time_parts
from maskcast.data.video_files.frames import count_frames
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.models.segmentation.table import load_masker
from maskcast.proposal import duration, plan
from maskcast.proposal.plan import plan_params
from maskcast.proposal.report import format_plan
from maskcast.proposal.values import Proposal, propose_params, with_predicted_split
from maskcast.runner.run import run_stage
from maskcast.stages.prepare_clips import PrepareClips
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.tasks.segmentation import segmentation_task

pytestmark = pytest.mark.usefixtures("untimed_steps")

EXPECTED: dict[str, dict[str, Any]] = {
    "davis": {
        "images": "JPEGImages/480p/{clip}",
        "masks": "Annotations/480p/{clip}",
        "splits": {"val": ("seq-2",)},
    },
    "camvid": {
        "images": "701_StillsRaw_full/{clip}_{frame}.png",
        "masks": "LabeledApproved_full/{clip}_{frame}_L.png",
        "encoding": "index",
    },
    "segnet_camvid": {"images": "{clip}", "masks": "{clip}annot", "splits": {"val": ("val",), "test": ("test",)}},
    "sequence_folders": {"images": "{clip}/images", "masks": "{clip}/labels", "offset": 0},
    "cityscapes": {
        "images": "leftImg8bit/train/{clip}/{frame}_leftImg8bit.png",
        "masks": "gtFine/train/{clip}/{frame}_gtFine_labelIds.png",
    },
    "one_sequence": {"images": "frames/{frame}.png", "masks": "masks/{frame}.png", "split_by": "time"},
    "plain_videos": {"layout": "videos"},
    "mixed": {
        "images": "videos/{clip}.mp4",
        "masks": "masks/{clip}",
        "offset": 1,
        "splits": {"val": ("street-4",)},
    },
    "competition": {"layout": "competition", "num_classes": 3},
}


def stages_of(path: Path) -> list[str]:
    return [name for name in yaml.safe_load(path.read_text())["stages"] if name != "code"]


really_measured = duration._measure


@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_layout_is_found_and_can_be_prepared(name: str, tmp_path: Path) -> None:
    LOOKALIKES[name](tmp_path)
    start = plan_params(tmp_path)  # lists the clips as prepare_clips will
    assert {key: start.findings.source.get(key) for key in EXPECTED[name]} == EXPECTED[name]
    if start.findings.trainable:
        assert start.clips["train"] >= 1 and start.clips["val"] >= 1
    written = yaml.safe_load(start.text(tmp_path))
    assert written["fetch_dataset"]["uri"] == str(tmp_path)
    assert set(written) == {*stages_of(ROOT / "dvc.yaml")}
    assert (written["prepare_clips"].get("required_splits") == []) == (name == "plain_videos")


def test_the_competition_is_known_below_a_folder_beside_what_macos_leaves(tmp_path: Path) -> None:
    LOOKALIKES["competition"](tmp_path / "release")
    (tmp_path / "__MACOSX/release").mkdir(parents=True)
    assert inspect_folder(tmp_path).source["layout"] == "competition"


def test_empty_masks_of_the_competition_are_said(tmp_path: Path) -> None:
    LOOKALIKES["competition"](tmp_path)
    for path in tmp_path.rglob("mask.npy"):
        np.save(path, np.zeros_like(np.load(path)))
    found = inspect_folder(tmp_path)
    assert found.source["num_classes"] == 2 and "the masks hold only 0" in " ".join(found.warnings)


def test_the_competition_is_known_by_images_of_any_kind_in_capitals_too(tmp_path: Path) -> None:
    LOOKALIKES["competition"](tmp_path)
    expected = inspect_folder(tmp_path)
    for number, path in enumerate(sorted(tmp_path.glob("*/data/video_*/image_*.png"))):
        if number % 2:
            path.rename(path.with_suffix(".PNG"))
        else:
            Image.open(path).save(path.with_suffix(".jpg"))
            path.unlink()
    found = inspect_folder(tmp_path)
    assert (found.source, found.sequences, found.sizes) == (expected.source, expected.sequences, expected.sizes)


def test_every_value_that_comes_from_the_data_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    LOOKALIKES["mixed"](tmp_path / "streets")
    (tmp_path / "dvc.yaml").touch()
    assert main(["init", "streets"]) == 0
    said, text = capsys.readouterr().out, (tmp_path / "params.yaml").read_text()
    assert "videos and mask images by sequence: images videos/{clip}.mp4" in " ".join(said.split())
    assert "6 (24 frames each), 2 with masks on 48 of 48 frames" in said
    assert "6 of 6 at stride 1 (22 frames)" in " ".join(said.split())
    assert "24 per second: a clip lasts 0.9 s" in said
    assert "check: masks are paired with frames by number (offset 1)" in said
    assert "500 masker steps x 0.10 s" in " ".join(said.split()) and "11 stages x 15 s" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80
    assert said.endswith("wrote params.yaml; read it, then:\n  dvc repro\n")
    (tmp_path / "dvc.yaml").unlink()
    assert main(["init", "streets", "--force"]) == 0
    assert "this needs a project, but the folder of the file has no dvc.yaml" in capsys.readouterr().out
    for reason in ("unlabeled: the 4 without masks", "the masks hold 0, 1, 2", "frames have 40x64"):
        assert reason in text


def test_slow_work_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An `init` of 200 s said nothing."""
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)
    davis(tmp_path)
    inspect_folder(tmp_path)
    said = capsys.readouterr().err
    assert "looking at folders: 2/" in said and "looking at sequences: 2/4 (" in said
    assert "measuring frames: 2/4 (" in said
    monkeypatch.setattr(progress, "SLOW_S", 0.01)
    with progress.doing("counting sheep"):
        end, said = time.monotonic() + 60, ""
        while "\n" not in said and time.monotonic() < end:
            said += capsys.readouterr().err
            time.sleep(0.01)
    assert said == "counting sheep ...\n"


def test_a_file_that_is_there_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    davis(tmp_path / "mine")
    params = tmp_path / "params.yaml"
    params.write_text("mine: 1\n")
    assert main(["init", "mine"]) == 2
    assert "params.yaml: already exists; overwrite it with --force" in capsys.readouterr().err
    assert params.read_text() == "mine: 1\n"
    assert main(["init", "mine", "--force", "--params", "."]) == 2
    assert capsys.readouterr().err == "error: .: is a folder; choose a file with --params\n"
    assert main(["init", "mine", "--params", "other.yaml"]) == 0
    assert params.read_text() == "mine: 1\n" and "JPEGImages" in (tmp_path / "other.yaml").read_text()
    assert main(["init", "nothing-there", "--force"]) == 2 and params.read_text() == "mine: 1\n"
    assert main(["init", "mine", "--force"]) == 0 and "JPEGImages" in params.read_text()
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def iphone(root: Path) -> None:
    root.mkdir(exist_ok=True)
    for k in range(2):
        (root / f"IMG_{k}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")


def files_only(root: Path) -> None:
    (root / "readme.txt").write_text("none")


def masks_only(root: Path) -> None:
    write_images(root / "masks/one", frames_of(0, 4)[1], "{:04d}.png")


def short(root: Path) -> None:
    davis(root, sequences=2, labelled=2, length=7)


def jpeg_masks(root: Path) -> None:
    for k in range(2):
        frames, masks = frames_of(k, 24)
        write_images(root / f"frames/{k}", frames, "{:04d}.png")
        write_images(root / f"labels/{k}", masks * np.uint8(60), "{:04d}.jpg")


def apart(root: Path) -> None:
    for k, (name, other) in enumerate((("oak", "u1"), ("elm", "u2"))):
        write_images(root / f"left/{name}", frames_of(k, 24)[0], "{:04d}.png")
        write_images(root / f"right/{other}", frames_of(k, 24)[1], "{:04d}.png")


def boxes(root: Path) -> None:
    write_detection_set(root, train=2, val=1)


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (boxes, r"\.json: images with boxes, no videos: .* `maskcast new FOLDER --pipeline detection`"),
        (files_only, "holds no images and no videos; give the folder"),
        (iphone, r"no videos \(2 files are neither .*, e.g. IMG_0.HEIC: save them as PNG, or unpack them\)"),
        (masks_only, "holds 1 folder of masks, and no frames"),
        (short, "sequences have 7, 7 frames: a clip to learn from and one to be scored on need 8 frames each"),
        (jpeg_masks, "JPEG changes the values of a mask; export"),
        (apart, r"frames \(left/elm, left/oak\) and masks \(right/u1, right/u2\) have no pattern in common"),
    ],
)
def test_what_cannot_be_learnt_from_is_said(write: Callable[[Path], None], line: str, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(MaskcastError, match=line):
        inspect_folder(tmp_path)


def one_off(root: Path) -> None:
    """Writes masks of which one folder counts from 1."""
    for k, split in enumerate(("train", "val")):
        frames, masks = frames_of(k, 24)
        write_images(root / split / "images", frames, "{:04d}.jpg")
        write_images(root / split / "masks", masks, "{:04d}.png", k)


def one_off_in_names(root: Path) -> None:
    for k, name in enumerate("abc"):
        frames, masks = frames_of(k, 24)
        split = "val" if name == "c" else "train"
        write_images(root / f"images/{split}", frames, f"{name}_{{:04d}}.jpg")
        write_images(root / f"masks/{split}", masks, f"{name}_{{:04d}}.png", int(name == "c"))


def mask_each(root: Path) -> None:
    """Writes the form of DSB 2018: a folder for each image, and in it one mask for each object."""
    for k in range(4):
        frames, masks = frames_of(k, 1)
        write_images(root / f"id{k}/images", frames, f"id{k}.png")
        for value in (1, 2):
            write_images(root / f"id{k}/masks", (masks == value) * np.uint8(255), f"{'xy'[value - 1]}.png")


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (
            one_off,
            "^val: its 24 frames have the numbers 0 to 23, its 24 masks 1 to 24, .* rename its masks, by -1",
        ),
        (one_off_in_names, "^c: its 24 frames have the numbers 0 to 23, its 24 masks 1 to 24"),
        (mask_each, "^id0: one frame has several masks, e.g. one per object, but only one"),
    ],
)
def test_masks_that_may_be_of_other_frames_are_refused(
    write: Callable[[Path], None], line: str, tmp_path: Path
) -> None:
    write(tmp_path)
    with pytest.raises(MaskcastError, match=line):
        inspect_folder(tmp_path)


def small_masks(root: Path, size: tuple[int, int] = (16, 12)) -> None:
    davis(root, sequences=2, labelled=2)
    for path in root.glob("Annotations/480p/*/*.png"):
        Image.open(path).resize(size).save(path)


def links_out(root: Path) -> None:
    davis(root / "all")
    for kind in ("JPEGImages", "Annotations"):
        (root / "some" / kind).mkdir(parents=True)
        (root / "some" / kind / "seq-0").symlink_to(root / "all" / kind / "480p/seq-0")


@pytest.mark.parametrize(
    ("write", "folder", "line"),
    [
        (small_masks, ".", r"00000\.png: is 16x12, .* is \d+x\d+ \(width x height\); export both at one size"),
        (
            links_out,
            "some",
            "some/Annotations/seq-0: symbolic link to .* points outside of .*some, .* or replace it by its target",
        ),
    ],
)
def test_what_would_stop_the_first_stages_is_said(
    write: Callable[[Path], None], folder: str, line: str, tmp_path: Path
) -> None:
    write(tmp_path)
    with pytest.raises(MaskcastError, match=line):
        plan_params(tmp_path / folder)


def test_masks_of_another_size_and_the_same_aspect_ratio_are_said(tmp_path: Path) -> None:
    small_masks(tmp_path, (16, 10))
    said = [line for line in plan_params(tmp_path).findings.warnings if "resized to their frames" in line]
    assert len(said) == 1 and "are 16x10 (width x height)" in said[0]


def test_sequences_and_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    davis(tmp_path, sequences=3, labelled=3)
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind / "480p/empty").mkdir()
    write_images(tmp_path / "Annotations/480p/lonely", frames_of(0, 2)[1], "{:05d}.png")
    for path in tmp_path.glob("Annotations/480p/*/00003.png"):
        path.write_bytes(b"")
    start = plan_params(tmp_path)
    said = "masks of lonely (1 sequence) have no frames that JPEGImages/480p/{clip} finds"
    assert said in start.findings.warnings
    assert list(start.findings.sequences) == ["seq-0", "seq-1", "seq-2"]
    assert [name for name, _ in start.left_out] == ["empty"]
    for split in ("train", "val"):
        line = next(line for line in start.findings.warnings if f"({split}) will be left out" in line)
        assert "00003.png: not a readable image" in line
        assert line in start.findings.warnings[:2]  # of many warnings a few are told


def test_masks_that_are_no_images_are_said(tmp_path: Path) -> None:
    davis(tmp_path, sequences=2, labelled=0)
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/seq-0.npy", np.zeros((24, 8, 8), np.uint8))
    assert "1 file is neither images nor videos, e.g. masks/seq-0.npy" in " ".join(
        inspect_folder(tmp_path).warnings
    )


def test_short_sequences_get_short_clips(tmp_path: Path) -> None:
    davis(tmp_path, sequences=3, labelled=3, length=12)
    start = plan_params(tmp_path)
    assert start.findings.context == 6 and start.findings.source["frames"] == 12
    written = yaml.safe_load(start.text(tmp_path))
    for stage in ("pretrain_forecaster", "finetune_forecaster", "evaluate", "predict"):
        assert (written[stage]["context_frames"], written[stage]["horizon"]) == (6, 6)


@pytest.mark.parametrize("name", ["no", "2", "1e5", "a: b", "#x", "[c", "d\ne", "person"])
def test_names_of_classes_are_read_as_they_are(name: str) -> None:
    source = {"layout": "frames", "splits": {}, "classes": {name: 1}}
    proposal = Proposal({"prepare_clips": {"source": source}}, {f"prepare_clips.source.classes.{name}": "why"})
    assert yaml.safe_load(proposal.text("")) == proposal.sections


def test_predict_forecasts_a_split_that_has_clips(tmp_path: Path) -> None:
    davis(tmp_path / "few", sequences=4, labelled=2)
    davis(tmp_path / "all", sequences=2, labelled=2)
    few, both = (plan_params(tmp_path / name) for name in ("few", "all"))
    assert few.clips == {"train": 1, "val": 1, "unlabeled": 2} and both.clips == {"train": 1, "val": 1}
    assert few.proposal.sections["predict"]["split"] == "unlabeled"
    assert "split: unlabeled # no clip is hidden, which is the default here" in few.text(tmp_path)
    assert "split" not in both.proposal.sections["predict"]
    assert "# no clip is hidden or unlabeled: `split: val` here forecasts those of val" in both.text(tmp_path)
    hidden = with_predicted_split(both.proposal, {"train": 1, "val": 1, "unlabeled": 2, "hidden": 1})
    assert "split" not in hidden.sections["predict"]  # the default has clips


def test_names_of_classes_come_from_a_list_beside_the_masks(tmp_path: Path) -> None:
    LOOKALIKES["camvid"](tmp_path)
    (tmp_path / "label_colors.txt").write_text("0 0 0\tRoad\n200 0 0\tCar\n0 0 200\tVoid\n", "utf-8-sig")
    found = inspect_folder(tmp_path)
    assert (found.source["classes"], found.source["ignore"]) == (["Road", "Car"], 2)
    assert not any("set them" in warning for warning in found.warnings)
    for path in (tmp_path / "LabeledApproved_full").iterdir():
        Image.open(path).convert("RGB").save(path)
    found = inspect_folder(tmp_path)
    assert found.source["values"] == {"#000000": "Road", "#c80000": "Car", "#0000c8": "ignore"}
    assert found.source["classes"] == ["Road", "Car"] and plan_params(tmp_path).clips["val"] >= 1
    (tmp_path / "label_colors.txt").write_text("1 2 3\tOther\n4 5 6\tThings\n")
    assert "Other" not in inspect_folder(tmp_path).source["classes"]


def test_masks_of_cvat_have_names_in_a_map_and_objects_beside_the_classes(tmp_path: Path) -> None:
    """CVAT's export `Segmentation mask 1.1` of the frames of a video, which has the form of Pascal VOC."""
    frames, masks = frames_of(0, 48)
    write_images(tmp_path / "JPEGImages", frames, "frame_{:06d}.PNG")
    for folder, colours in (
        ("SegmentationClass", [(0, 0, 0), (250, 42, 93), (51, 221, 255)]),
        ("SegmentationObject", [(0, 0, 0), (128, 0, 0), (0, 128, 0)]),
    ):
        write_images(tmp_path / folder, np.array(colours, np.uint8)[masks], "frame_{:06d}.png")
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nred car:250,42,93::\nperson:51,221,255::\n"
    )
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("frame_000000\n")
    found = inspect_folder(tmp_path)
    assert found.source["masks"] == "SegmentationClass/{clip}_{frame}.png"
    assert found.source["values"] == {"#000000": "background", "#fa2a5d": "red car", "#33ddff": "person"}
    assert found.source["classes"] == ["background", "red car", "person"]


def sparse(root: Path, every: int) -> None:
    """Writes two sequences of 48 frames, of which every so-manyth has a mask."""
    for k in range(2):
        frames, masks = frames_of(k, 48)
        write_images(root / f"frames/{k}", frames, "{:04d}.png")
        for t in range(0, 48, every):
            write_images(root / f"masks/{k}", (masks[t : t + 1] > 0) * np.uint8(255), "{:04d}.png", t)


def test_of_few_masks_each_forecast_frame_gets_one_in_some_clip(tmp_path: Path) -> None:
    sparse(tmp_path, 10)
    found = inspect_folder(tmp_path)
    step = found.source["labelled_window_step"]
    frames = {mask - start for start in range(0, 48 - 21, step) for mask in range(0, 48, 10)}
    assert set(range(11, 22)) <= frames and 1 <= step < 11
    assert any(
        warning.startswith("10 of the 96 frames of labelled sequences have a mask:") for warning in found.warnings
    )
    assert "  propagated: {frames: 8} # labelled frames keep their masks" in propose_params(tmp_path, found).text(
        ""
    )


def test_frames_without_a_mask_are_not_drawn_to_learn_from(tmp_path: Path) -> None:
    """Without that, nine samples of ten would teach nothing."""
    sparse(tmp_path / "raw", 10)
    values = yaml.safe_load(propose_params(tmp_path / "raw", inspect_folder(tmp_path / "raw")).text(""))
    run_stage("prepare_clips", values["prepare_clips"], raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    for clip in store.select("train"):
        start = clip.meta["start"]
        known = [mask - start for mask in range(0, 48, 10) if start <= mask < start + 22]
        assert clip.meta["labelled_frames"] == {"mask": known} and labelled_frames(store, clip) == known
    params = TrainMasker.model_validate(values["train_masker"] | {"propagated": None})
    batch = segmentation_task(store, params, "x").batch(0)
    assert (batch.masks[0] != IGNORE).flatten(1).any(1).all()


def test_masks_too_few_to_score_a_forecast_are_said(tmp_path: Path) -> None:
    sparse(tmp_path, 48)
    with pytest.raises(
        MaskcastError, match=r"2 of the 96 frames of labelled sequences have a mask, too few .* 22"
    ):
        inspect_folder(tmp_path)


def test_of_three_masks_in_a_long_video_only_clips_around_them_are_close_together(tmp_path: Path) -> None:
    """Else each of its frames would be in 20 clips, and be stored, and masked, 20 times."""
    labelled = (17, 300, 590)
    frames, masks = frames_of(0, 600)
    write_images(tmp_path / "frames/walk", frames[:, ::4, ::4], "{:04d}.png")
    for t in labelled:
        write_images(tmp_path / "masks/walk", masks[t : t + 1, ::4, ::4], "{:04d}.png", t)
    found = inspect_folder(tmp_path)
    values = PrepareClips.model_validate({"source": found.source, "height": 8, "width": 16})
    clips = values.source.listing(tmp_path, height=8, width=16, seed=0).clips
    around = [clip for clip in clips if {*labelled} & {*range(s := clip.meta["start"], s + found.frames)}]
    assert found.source["labelled_window_step"] == 1 and found.source["window_step"] == found.frames
    assert len(around) >= 2 * found.frames and len(clips) - len(around) <= 600 / found.frames
    ahead = {t - clip.meta["start"] for clip in around if clip.split == "val" for t in labelled}
    assert {*range(found.context, found.frames)} <= ahead


@pytest.mark.parametrize(("length", "step", "context"), [(48, 40, 8), (24, 8, 8), (16, 5, 6)])
def test_of_few_masks_in_short_sequences_clips_are_so_short_that_every_forecast_frame_gets_one(
    length: int, step: int, context: int, tmp_path: Path
) -> None:
    for k in range(2):
        frames, masks = frames_of(k, length)
        write_images(tmp_path / f"frames/{k}", frames, "{:03d}.png")
        for t in range(0, length, step):
            write_images(tmp_path / f"masks/{k}", masks[t : t + 1], "{:03d}.png", t)
    found = plan_params(tmp_path).findings
    assert (found.context, found.source["frames"]) == (context, 2 * context)
    starts = range(0, length - 2 * context + 1, found.source["labelled_window_step"])
    ahead = {t - start for start in starts for t in range(0, length, step)}
    assert set(range(context, 2 * context)) <= ahead
    assert any(f"{context} context and {context} forecast frames" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("data", "data: contains {}/data/raw,"),
        (".", ".: contains {}/data/raw,"),
        ("data/raw", "data/raw: is a folder"),
        ("results/predictions", "results/predictions: is in {}/results,"),
        ("models", "models: is a folder"),
    ],
)
def test_the_folder_that_the_pipeline_writes_into_is_refused(
    folder: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    davis(tmp_path / folder, sequences=1)
    message = f"^{re.escape(place.format(tmp_path.resolve()))} where the pipeline writes; move your data elsewhere"
    with pytest.raises(MaskcastError, match=message):
        plan_params(Path(folder))


LISTS: dict[str, tuple[str, str]] = {  # of the official files: what they are called, what a line has
    "DAVIS 2017": ("ImageSets/2017/{}.txt", "{name}"),
    "DAVIS 2016": (
        "ImageSets/480p/{}.txt",
        "/JPEGImages/480p/{name}/00000.jpg /Annotations/480p/{name}/00000.png 1",
    ),
    "paths of folders": ("lists/{}ing.txt", "JPEGImages/480p/{name}/"),
    "videos": ("{}.txt", "videos/{name}.mp4"),
    "frames": ("{}.txt", "{name}_000012.jpg"),
    "pairs": ("{}.lst", "images/{name}/0000.png\tmasks/{name}/0000.png"),
}


@pytest.mark.parametrize("form", LISTS)
@pytest.mark.parametrize("split", ["val", "test"])
def test_lists_of_splits_are_taken(form: str, split: str, tmp_path: Path) -> None:
    """What a list holds out for `test` is never learnt from, where there is no `val`, either."""
    davis(tmp_path)
    name, line = LISTS[form]
    if split == "val":
        name = name.replace("{}ing", "{}")
    for called, sequences in (("train", ("seq-0", "seq-1")), (split, ("seq-2", "seq-3"))):
        path = tmp_path / name.format(called)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line.format(name=one)}\n" for one in sequences), "utf-8-sig")  # as on Windows
    (tmp_path / "ImageSets/2016").mkdir(parents=True)  # of fewer sequences
    (tmp_path / "ImageSets/2016/val.txt").write_text("seq-0\n")
    found, origin = inspect_folder(tmp_path), f"as {name.format(split)} lists them"
    if split == "val":
        assert found.source["splits"] == {"val": ("seq-2", "seq-3")}
        assert found.reasons["splits"] == f"val: {origin}; the rest is train"
    else:
        assert found.source["splits"] == {"val": ("seq-0",), "test": ("seq-2", "seq-3")}
        said = "val: 20% of the 2 labelled ones that are not for test, drawn with seed 0; "
        assert found.reasons["splits"] == f"{said}test: {origin}; the rest is train"


@pytest.mark.parametrize(("videos", "test"), [(49, 0), (50, 10)])
def test_of_many_videos_some_select_nothing(videos: int, test: int, tmp_path: Path) -> None:
    """Training selects its best epoch on `val`, so scores on other clips are taken where labels allow it."""
    davis(tmp_path, videos, videos, 16, (16, 24))
    found = inspect_folder(tmp_path)
    splits = found.source["splits"]
    assert {split: len(members) for split, members in splits.items()} == {"val": 10} | (
        {"test": test} if test else {}
    )
    assert not set(splits["val"]) & set(splits.get("test", ()))
    text = f"val: 20% of the {videos} labelled sequences, drawn with seed 0"
    assert found.reasons["splits"] == text + ("; test: another 20%" if test else "") + "; the rest is train"


def with_classes(root: Path, classes: dict[str, tuple[int, ...]]) -> None:
    """Writes sequences whose masks have these classes."""
    for k, (name, values) in enumerate(classes.items()):
        frames, masks = frames_of(k, 24)
        write_images(root / "frames" / name, frames, "{:03d}.png")
        masks[:] = 0
        for place, value in enumerate(values):
            masks[:, 8 * place : 8 * place + 8, :16] = value
        write_images(root / "masks" / name, masks, "{:03d}.png")


def test_parts_of_a_video_count_once_for_a_test_split(tmp_path: Path) -> None:
    with_classes(tmp_path, {f"video{k // 2:02d}_{k % 2:05d}": (1,) for k in range(50)})
    splits = inspect_folder(tmp_path).source["splits"]
    assert {split: len(members) for split, members in splits.items()} == {"val": 10}


@pytest.mark.parametrize(
    ("classes", "val", "seed"),
    [
        ({"a": (1, 2), "b": (1, 2), "c": (1, 2)}, "c", 0),
        ({"a": (1, 2), "b": (1,), "c": (1, 2, 3)}, "a", 4),
        ({"a": (1,), "b": (1, 2), "c": (1, 2, 3)}, "b", 1),
        ({"a": (1, 2), "b": (1, 2), "c": (1, 2, 255)}, "c", 0),
    ],
)
def test_validation_leaves_each_class_something_to_be_learned_from(
    classes: dict[str, tuple[int, ...]], val: str, seed: int, tmp_path: Path
) -> None:
    """Of several draws the one with most classes in train is taken, then the one with most of them in val."""
    with_classes(tmp_path, classes)
    found = inspect_folder(tmp_path)
    assert found.source["splits"] == {"val": (val,)}
    said = ", so that train and val have more of the classes than with seed 0" if seed else ""
    text = f"val: 20% of the 3 labelled sequences, drawn with seed {seed}{said}; the rest is train"
    assert found.reasons["splits"] == text


TABLES = {
    "splits.csv": "name,split\nseq-0,train\nseq-1,train\nseq-2,Val\nseq-3,test\n",
    "meta/sequences.csv": "test,JPEGImages/480p/seq-3\ntrain,seq-0\nval,seq-2\ntrain,seq-1\n",
    "dataset_splits.json": '{"train": ["seq-0", "seq-1"], "valid": ["seq-2.mp4"], "test": ["seq-3"]}',
    "spreadsheet.csv": "name;split\nseq-0;train\nseq-1;train\nseq-2;val\nseq-3;test\n",
    "splits.tsv": "name\tframes\tsplit\nseq-0\t24\ttrain\nseq-2\t24\tdev\nseq-1\t24\ttrain\nseq-3\t24\teval\n",
    "splits.yaml": "train: [seq-0, seq-1]\nval: [seq-2]\nheld-out: [seq-3]\n",
    "split.yml": "{seq-0: train, seq-1: train, seq-2: val, seq-3: test}\n",
    "split_of_videos.json": '{"seq-0": "train", "seq-1": "train", "seq-2": "val", "seq-3": "test"}',
    "split.json": '[{"video": "seq-0", "split": "train"}, {"video": "seq-2", "split": "dev"}, '
    '{"video": "seq-3", "split": "holdout"}, {"video": "seq-1", "split": "train"}]',
    "splits.txt": "seq-0 train\nseq-1 train\nseq-2 val\nseq-3 test\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_splits_are_taken(name: str, tmp_path: Path) -> None:
    davis(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / name).write_text(TABLES[name])
    (tmp_path / "a.csv").write_text("frame,note\nseq-0,test\nseq-1,blurred\nseq-2,cut\n")
    (tmp_path / "b_split.json").write_text("{")
    found = inspect_folder(tmp_path)
    assert found.source["splits"] == {"val": ("seq-2",), "test": ("seq-3",)}
    assert found.reasons["splits"] == f"val: as {name} lists them; the rest is train"


HELD_OUT: dict[str, tuple[dict[str, str], dict[str, tuple[str, ...]]]] = {  # files, and the splits that they say
    "dev and eval": (
        {"train.txt": "a\nb\nc\n", "dev.txt": "d\n", "eval.txt": "e\n"},
        {"val": ("d",), "test": ("e",)},
    ),
    "the dev part of test": ({"train.txt": "a\nb\nc\n", "test-dev.txt": "d\ne\n"}, {"test": ("d", "e")}),
    "the names of Windows": (
        {"train.txt": "D:\\images\\a\nD:\\images\\b\nD:\\images\\c\n", "Holdout.lst": "D:\\images\\e\\0.png\nd\n"},
        {"test": ("d", "e")},
    ),
    "lists in JSON": (
        {"train_split.json": '["a", "b", "c"]', "val_split.json": '["d"]', "test_split.json": '["e"]'},
        {"val": ("d",), "test": ("e",)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("case", HELD_OUT)
def test_what_is_held_out_under_other_names_is_never_learnt_from(case: str, encoding: str, tmp_path: Path) -> None:
    lists, splits = HELD_OUT[case]
    sequences_called(tmp_path, "a", "b", "c", "d", "e")
    for name, text in lists.items():
        (tmp_path / name).write_text(text, encoding)
    found = inspect_folder(tmp_path)
    assert {**found.source["splits"], **splits} == found.source["splits"]
    assert not any("omits" in warning or "not used" in warning for warning in found.warnings)


def test_folders_for_evaluation_are_held_out(tmp_path: Path) -> None:
    for k, place in enumerate(("train a", "train b", "train c", "eval d", "holdout e")):
        split, name = place.split()
        frames, masks = frames_of(k, 24)
        write_images(tmp_path / split / "images" / name, frames, "{:04d}.png")
        write_images(tmp_path / split / "masks" / name, masks, "{:04d}.png")
    assert inspect_folder(tmp_path).source["splits"]["test"] == ("d", "e")


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"train.txt": "a\nb\n", "val.txt": "c\n"}, "train.txt omits 2 sequences with labels (d, e), which may"),
        ({"train.txt": "a\nb\nc\nd\n"}, "train.txt omits 1 sequence with labels (e), which may be trained on"),
        ({"splits.csv": "name,split\na,train\nb,train\nc,val\nd,mine\ne,spare\n"}, "splits.csv omits 2 sequences"),
        ({"folds.csv": "video,fold\na,0\nb,1\nc,2\nd,3\ne,4\n"}, "folds.csv was not used: no row says train"),
        ({"meta.csv": "video,fold\na,0\nb,1\nc,2\nd,3\ne,4\n"}, "meta.csv was not used: no row says train"),
        ({"split.yaml": "fold0: [a, b]\nfold1: [c, d, e]\n"}, "split.yaml was not used: no row says train"),
        ({"meta.csv": "video,weather\na,sun\nb,rain\n"}, None),
    ],
)  # fmt: skip
def test_lists_that_leave_the_split_of_sequences_open_are_said(
    lists: dict[str, str], said: str | None, tmp_path: Path
) -> None:
    sequences_called(tmp_path, "a", "b", "c", "d", "e")
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    warnings = [one for one in inspect_folder(tmp_path).warnings if "omits" in one or "not used" in one]
    assert len(warnings) == (said is not None) and all(one.startswith(said or "") for one in warnings)


def test_lists_of_frames_that_cut_through_sequences_are_none_of_sequences(tmp_path: Path) -> None:
    davis(tmp_path)
    for split, frame in (("train", 1), ("val", 2)):
        (tmp_path / f"{split}.txt").write_text("".join(f"seq-{k}_{frame:05d}\n" for k in range(4)))
    found = inspect_folder(tmp_path)
    assert "drawn with seed 0" in found.reasons["splits"]
    assert "val.txt, train.txt were not used: seq-0 is in two splits there" in found.warnings


def sequences_called(root: Path, *names: str, labelled: int | None = None) -> None:
    """Writes sequences of these names, the first ones with masks."""
    davis(root, len(names), len(names) if labelled is None else labelled)
    for kind in ("JPEGImages", "Annotations"):
        for k, name in enumerate(names):
            if (folder := root / kind / f"480p/seq-{k}").is_dir():
                folder.rename(folder.with_name(name))


@pytest.mark.parametrize(
    "lists",
    [
        {"val.txt": "run-b\r\njump\n\nframes/walk 02\nCAF\u00c9 1/000001.jpg\n", "train.txt": "WALK 01\n"},
        {"splits.json": '{"val": ["run-b", "jump", "walk 2"], "test": [], "Valid": ["caf\u00e9 1"]}'},
        {"splits.csv": "no,name,split\n7,run-b,val\n8,JUMP,val\n9,walk 02,val\n8,caf\u00e9 1,val\n"},
    ],
)
def test_lists_ignore_case_zeros_and_unicode_forms_and_keep_spaces(lists: dict[str, str], tmp_path: Path) -> None:
    """A name that is not found in a list would be learnt from, though it is held out."""
    names = ("walk 01", "walk 02", "walk", "Run-B", "jump", "Cafe\u0301 1")  # decomposed, as macOS writes them
    sequences_called(tmp_path, *names)
    for name, text in lists.items():
        (tmp_path / name).write_text(text, "utf-8")
    found = inspect_folder(tmp_path)
    assert {*found.source["splits"]["val"]} == {"walk 02", "Run-B", "jump", "Cafe\u0301 1"}
    assert not any("match" in warning or "used" in warning for warning in found.warnings)


COUNTED = {  # lists that count their rows, beside names that numbers match without leading zeros
    "as pandas writes it": (
        5,
        "splits.csv",
        ",video,split\n0,00004,val\n1,00003,train\n2,00002,val\n3,00000,train\n",
    ),
    "not all are there": (5, "splits.csv", "no,video,split\n0,00004,val\n1,00009,train\n2,00002,val\n"),
    "numbers without zeros": (1, "splits.csv", ",video,split\n0,4,val\n1,3,train\n2,2,val\n3,0,train\n"),
    "names with other zeros": (5, "splits.csv", "video,split\n4,val\n3,train\n002,val\n"),
    "a table of one split": (5, "val.csv", "no,video\n0,00004\n1,00002\n"),
    "words of lines": (5, "val.txt", "0 00004\n1 00002\n"),
}


@pytest.mark.parametrize("case", COUNTED)
def test_counters_in_lists_are_no_names(case: str, tmp_path: Path) -> None:
    """Else the first sequences would be held out, and those that the list holds out learnt from, in silence."""
    width, name, text = COUNTED[case]
    sequences_called(tmp_path, *(f"{k:0{width}d}" for k in range(5)))
    (tmp_path / name).write_text(text)
    found = inspect_folder(tmp_path)
    assert found.source["splits"] == {"val": (f"{2:0{width}d}", f"{4:0{width}d}")}
    assert found.reasons["splits"] == f"val: as {name} lists them; the rest is train"


def test_names_that_match_nothing_take_no_time() -> None:
    """In a list of frames, most parts of paths name no sequence; a key of each took six times as long."""
    index, before = NameIndex(f"video_{k:06d}" for k in range(100)), name_key.cache_info().misses
    assert not any(index.find(f"frame_{k}.jpg") for k in range(1000))
    assert name_key.cache_info().misses == before
    assert index.find("VIDEO_7") == "video_000007"


def test_names_in_lists_that_match_no_sequence_are_said(tmp_path: Path) -> None:
    sequences_called(tmp_path, "a", "b", "c", "unlabelled", labelled=3)
    (tmp_path / "val.txt").write_text("# by hand\nb\nghost\nunlabelled\nlost one\n")
    (tmp_path / "train.txt").write_text("a\nc\n")
    (tmp_path / "test.csv").write_text("name,length\nx,3\n")
    found = inspect_folder(tmp_path)
    assert found.source["splits"]["val"] == ("b",)
    assert (
        "2 of 5 names in val.txt match no sequence: ghost, lost one; 1 of 1 name in test.csv match no sequence: x"
        in (found.warnings)
    )


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (
            {"train.txt": "walk 01\njump\n", "val.txt": "jump\nrun-b\n"},
            "val.txt, train.txt were not used: jump is in two splits there",
        ),
        (
            {"sets/val.txt": "x\ny\n", "sets/train.txt": "jump\n"},
            "sets/val.txt was not used: no name there matches a sequence",
        ),
        ({"splits.csv": "jump,val\njump,test\n"}, "splits.csv was not used: jump is in two splits there"),
        ({"splits.json": '{"test": ["x"]}'}, "splits.json was not used: no name there matches a sequence"),
        ({"val.txt": "jump\nrun-b\nwalk 01\n"}, "val.txt was not used: no sequence would be left to train on"),
        ({"val_log.txt": "epoch 1\n", "train.txt": "jump\n"}, None),
    ],
)
def test_lists_that_are_not_used_are_said(lists: dict[str, str], said: str | None, tmp_path: Path) -> None:
    sequences_called(tmp_path, "walk 01", "jump", "run-b")
    for name, text in lists.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = inspect_folder(tmp_path)
    assert "drawn with seed" in found.reasons["splits"]
    assert [warning for warning in found.warnings if "not used" in warning] == ([said] if said else [])


def test_folders_for_train_and_test_alone_are_not_mixed(tmp_path: Path) -> None:
    for k, place in enumerate(("train/a", "train/b", "train/c", "test/d")):
        frames, masks = frames_of(k, 24)
        write_images(tmp_path / f"images/{place}", frames, "{:04d}.jpg")
        write_images(tmp_path / f"masks/{place}", masks, "{:04d}.png")
    assert inspect_folder(tmp_path).source["splits"] == {"val": ("c",), "test": ("d",)}
    for name in ("b", "c"):
        shutil.rmtree(tmp_path / f"images/train/{name}")
        shutil.rmtree(tmp_path / f"masks/train/{name}")
    found = inspect_folder(tmp_path)
    assert found.source["splits"] == {"val": ("d",)}
    said = "test serves as val, because a alone has other masks: the model is chosen and scored on the same clips"
    assert said in found.warnings


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("labelled", ["train", "train, val"])
def test_nothing_is_learnt_from_a_test_without_masks(labelled: str, flat: bool, tmp_path: Path) -> None:
    """Its sequences are folders, or in the names of files; those of a val without masks are unlabelled."""
    for k, place in enumerate(("train/a", "train/b", "val/c", "test/d")):
        frames, masks = frames_of(k, 24)
        split, name = place.split("/")
        folder, file = (split, f"{name}_{{:04d}}") if flat else (place, "{:04d}")
        write_images(tmp_path / f"images/{folder}", frames, f"{file}.jpg")
        if split in labelled:
            write_images(tmp_path / f"masks/{folder}", masks, f"{file}.png")
    start = plan_params(tmp_path)
    val = {"val": ("c",)} if "val" in labelled else {"val": ("a",)}
    assert start.findings.source["splits"] == val | {"hidden": ("d",)}
    assert start.clips["hidden"] == 1 and not start.left_out
    assert start.findings.reasons["splits"].endswith("hidden: the 1 of test, without masks: not used for training")


def test_sequences_without_masks_among_folders_that_hold_both_are_unlabelled(tmp_path: Path) -> None:
    """Beside them lies what a server of Synology leaves behind."""
    for k in range(4):
        frames, masks = frames_of(k, 24)
        write_images(tmp_path / f"take{k}", frames, "{:04d}.png")
        write_images(tmp_path / f"take{k}/@eaDir/0000.png", frames[:1], "SYNOPHOTO_THUMB_M.jpg")
        if k < 2:
            write_images(tmp_path / f"take{k}", masks, "{:04d}_mask.png")
    start = plan_params(tmp_path)
    assert start.clips == {"train": 1, "val": 1, "unlabeled": 2} and not start.left_out


def test_names_that_look_like_numbers_are_quoted(tmp_path: Path) -> None:
    for k, name in enumerate(("0016E5", "0006R0")):
        frames, masks = frames_of(k, 24)
        write_images(tmp_path / f"frames/{name}", frames, "{:04d}.png")
        write_images(tmp_path / f"masks/{name}", (masks > 0) * np.uint8(255), "{:04d}.png")
    text = plan_params(tmp_path).text(tmp_path)
    assert "splits: {val: ['0016E5']}" in text or "splits: {val: ['0006R0']}" in text


def test_phones_and_deep_frames_are_told(tmp_path: Path) -> None:
    for k in range(2):
        frames, masks = frames_of(k, 24)
        folder = tmp_path / f"frames/{k}"
        folder.mkdir(parents=True)
        for t, pixels in enumerate(frames):
            image = Image.fromarray(pixels)
            exif = Image.Exif()
            exif[0x0112] = 6  # turn it by a quarter
            image.save(folder / f"{t:04d}.jpg", exif=exif)
        write_images(tmp_path / f"masks/{k}", np.rot90(masks, 3, (1, 2)).copy() * np.uint8(255), "{:04d}.png")
    found = inspect_folder(tmp_path)
    assert list(found.sizes) == [(64, 40)]
    assert ("orientation", "2 sequences are rotated as EXIF says") in found.rows


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", frames_of(9, 24)[0])
    with pytest.raises(MaskcastError, match=r"a\.mp4: is a file; give the folder that holds the videos"):
        inspect_folder(tmp_path / "a.mp4")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.mp4")
    (tmp_path / "a.7z").write_bytes(b"7z")
    for name in ("a.zip", "a.7z"):
        with pytest.raises(MaskcastError, match=f"{name}: is an archive: unpack it first; give the folder"):
            inspect_folder(tmp_path / name)


def test_frames_that_lie_in_the_folder_itself_are_one_sequence(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", frames_of(0, 24)[0], "frame {:04d}.png")
    start = plan_params(tmp_path / "mine")
    assert start.findings.source["images"] == "{frame}.png" and start.findings.frames == 22
    assert dict(start.clips) == {"unlabeled": 1} and not start.findings.warnings


@pytest.mark.parametrize(("video", "masks"), [("videos/a.mp4", "masks/a.mp4"), ("a.mp4", "a_mask.mp4")])
def test_videos_of_masks_are_no_videos_to_learn_from(video: str, masks: str, tmp_path: Path) -> None:
    for name in (video, masks):
        write_mp4(tmp_path / name, frames_of(9, 24)[0])
    said = f"{masks} is named like the masks of {video}, but masks are read from images: .*`ffmpeg -i {masks} "
    with pytest.raises(MaskcastError, match=said):
        inspect_folder(tmp_path)


def test_masks_beside_videos_that_nobody_reads_are_said(tmp_path: Path) -> None:
    for name in ("videos/b", "masks/a"):
        write_mp4(tmp_path / f"{name}.mp4", frames_of(9, 24)[0])
    (tmp_path / "all.json").write_text('{"images": [], "annotations": [{"bbox": []}], "categories": []}')
    found = inspect_folder(tmp_path)
    assert found.source["layout"] == "videos" and not found.trainable
    assert "masks/a.mp4 is named like a mask" in found.warnings[0]
    assert "all.json is not read" in found.warnings[1]


def test_videos_beside_frames_are_said(tmp_path: Path) -> None:
    davis(tmp_path)
    write_mp4(tmp_path / "more/a.mp4", frames_of(9, 24)[0])
    assert any(
        "1 video is left out, e.g. more/a.mp4: one source" in warning
        for warning in inspect_folder(tmp_path).warnings
    )
    (tmp_path / "more/a.mp4").rename(tmp_path / "JPEGImages/480p/a.mp4")  # where the pattern finds it
    found = inspect_folder(tmp_path)
    assert "a.mp4" in found.sequences and not any("left out" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("count", "numbers", "offset"),
    [(2, range(24), None), (1, range(1, 25), 1), (2, (6, *range(14, 24)), 0), (2, range(1, 24, 2), 1)],
)
def test_masks_lie_beside_a_video_in_a_folder_called_after_it(
    count: int, numbers: Sequence[int], offset: int | None, tmp_path: Path
) -> None:
    """Few masks have the numbers of their frames; those of a video may count from 1."""
    for k in range(count):
        frames, masks = frames_of(k, 24)
        write_mp4(tmp_path / f"v{k}.mp4", frames)
        for number in numbers:
            at = number - (offset or 0)
            write_images(tmp_path / f"v{k}_masks", masks[at : at + 1], "{:05d}.png", number)
    source = plan_params(tmp_path).findings.source
    assert (source["images"], source["masks"], source.get("offset")) == ("{clip}.mp4", "{clip}_masks", offset)


def test_videos_of_several_endings_are_all_taken(tmp_path: Path) -> None:
    for k, name in enumerate(("a.mp4", "b.mp4", "c.avi", "d.MOV")):
        frames, masks = frames_of(k, 24)
        write_mp4(tmp_path / "films" / f"{name[0]}.mp4", frames)
        (tmp_path / "films" / f"{name[0]}.mp4").rename(tmp_path / "films" / name)
        if name[0] in "bc":
            write_images(tmp_path / "masks" / name[0], masks, "{:04d}.png")
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "films/{clip}.*" and not start.left_out
    assert set(start.findings.sequences) == {"a", "b", "c", "d"} and set(start.findings.labelled) == {"b", "c"}
    write_mp4(tmp_path / "more/deep/e.mp4", frames_of(9, 24)[0])
    assert any(
        "1 video is left out, e.g. more/deep/e.mp4: they do not fit the pattern films/{clip}.*" in warning
        for warning in inspect_folder(tmp_path).warnings
    )


def test_files_of_several_pages_are_said(tmp_path: Path) -> None:
    davis(tmp_path / "all", sequences=2, labelled=2)
    pages = [Image.fromarray(frame) for frame in frames_of(0, 3)[0]]
    for root in ("all/stacks", "alone"):
        (tmp_path / root).mkdir(parents=True)
        pages[0].save(tmp_path / root / "film.tif", save_all=True, append_images=pages[1:])
    line = "film.tif: has 3 pages or animation frames; save each as a separate file (ImageJ"
    assert any(line in warning for warning in inspect_folder(tmp_path / "all").warnings)
    with pytest.raises(MaskcastError, match=re.escape(line)):
        inspect_folder(tmp_path / "alone")


def test_numbers_of_objects_are_no_classes(tmp_path: Path) -> None:
    for k in range(2):
        frames, masks = frames_of(k, 24)
        write_images(tmp_path / f"frames/{k}", frames, "{:04d}.png")
        for t, mask in enumerate(masks):
            path = tmp_path / f"masks/{k}/{t:04d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(mask > 0, mask + np.uint16(300 * k + 100), 0).astype(np.uint16)).save(path)
    start = plan_params(tmp_path)
    assert start.findings.source["encoding"] == "binary"
    assert start.findings.source["classes"] == ["background", "foreground"]
    assert any("are taken as object ids, and all of them as" in one for one in start.findings.warnings)


def test_the_estimate_is_steps_times_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    training = {"epochs": 2, "steps_per_epoch": 10, "batch_size": 4}
    sections: dict[str, dict[str, Any]] = {
        "prepare_clips": {"height": 40, "width": 64},
        "train_masker": {
            "training": training,
            "model": {"width": 4},
            "augment": {"crop": [16, 16]},
            "val_frame_step": 4,
        },
        "pretrain_forecaster": {"model": {"arch": "flow"}, "training": training},
        "finetune_forecaster": {"training": training},
    }
    for load, note in (
        (0.0, "measured here) + "),
        (99.0 * os.cpu_count(), "measured here, while the machine was busy"),
    ):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        monkeypatch.setattr(duration, "num_cpus", lambda: 4)
        seconds, told = duration.estimate_seconds(sections, 100, 40, num_clips=9, clip_seconds=8.0)
        assert seconds == pytest.approx(9 * 8 / 4 + 20 * 0.1 + (100 + 2 * 10) * 0.01 + 40 * 0.3 + 5 * 15)
        text = "9 clips prepared x 2.000 s + 20 masker steps x 0.10 s + 120 frames masked x 0.010 s (all "
        assert told.startswith(text + note)


def test_the_size_of_the_stored_frames_is_said(tmp_path: Path) -> None:
    davis(tmp_path)
    start = plan_params(tmp_path)
    size = start.proposal.sections["prepare_clips"]
    num_bytes = start.clips.total() * 22 * 3 * size["height"] * size["width"]
    told = " ".join(format_plan(start, tmp_path, tmp_path / "params.yaml").split())
    assert f"; their frames take {num_bytes / 1e6:.1f} MB" in told
    assert f"{start.clips.total()} clips prepared x " in start.text(tmp_path)


def test_clips_are_timed_at_the_size_to_which_they_are_resized() -> None:
    """Reading without a size took another time than prepare_clips takes."""
    sizes = []

    def load(size: tuple[int, int] | None = None) -> Arrays:
        sizes.append(size)
        return Arrays(np.zeros((1, 4, 6, 3), np.uint8), {})

    clips = [RawClip(f"{k}", "train", "labelled", load, resizes=bool(k)) for k in range(2)]
    for clip in clips:
        assert plan._read_clips([clip], (4, 6))[0] == []
    assert sizes == [None, (4, 6)]


def test_a_step_and_four_frames_are_timed_with_what_the_device_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskcast.evaluation.speed.seconds_of", lambda work, device: (work(), 8.0)[1])
    assert really_measured({"arch": "unet", "width": 4}, 2, (16, 16), (32, 48)) == (8.0, 2.0)


def test_video_is_forecast_by_its_flow_and_single_things_by_their_tracks(tmp_path: Path) -> None:
    davis(tmp_path)
    found = inspect_folder(tmp_path)
    models = []
    for layout in ("frame_folders", "clevrer"):
        found.source["layout"] = layout
        models.append(propose_params(tmp_path, found).sections["pretrain_forecaster"]["model"])
    assert models == [{"arch": "flow"}, {"arch": "objects", "whole": True}]


LITE0 = "timm/tf_efficientnet_lite0.in1k"


@pytest.fixture
def lite0() -> dict[str, bytes]:
    """What the hub has of the encoder that is proposed; the weights are random ones."""
    weights = timm.create_model("tf_efficientnet_lite0").state_dict()
    config = json.dumps({"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}})
    return {f"{LITE0}/config.json": config.encode(), f"{LITE0}/model.safetensors": save(weights)}


def test_the_masker_starts_from_weights_of_imagenet_where_a_hub_answers(
    lite0: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    davis(tmp_path / "set", size=(64, 96))
    with Hub(lite0) as hub:
        hub.take_over(monkeypatch, tmp_path / "cache")
        assert main(["init", "set"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        weights = f"hf-hub:{LITE0}@{COMMIT}"  # of a commit, so that all who train take the same
        assert "masker smp_unet, initialised with ImageNet weights" in said
        assert [name.partition(" ")[0] for name in hub.asked if name.endswith(".safetensors")] == ["HEAD"]
        params = yaml.safe_load((tmp_path / "params.yaml").read_text())
        masker = params["train_masker"]
        masker["training"] |= {"epochs": 1, "steps_per_epoch": 1}
        clips, encoder, metrics = Path("clips"), Path("encoder"), Path("metrics.json")
        run_stage("prepare_clips", params["prepare_clips"], raw=Path("set"), clips=clips)
        paths = {"encoder": encoder, "metrics": metrics}
        run_stage("pretrain_encoder", params["pretrain_encoder"], unlabeled=clips, **paths)
        run_stage("train_masker", masker, clips=clips, masker=Path("masker"), **paths)
    trained, description = load_masker(tmp_path / "masker")
    assert description["meta"]["encoder_weights"]["origin"] == weights
    assert trained.std.tolist() == [0.25] * 3


def test_where_no_hub_answers_the_masker_starts_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    davis(tmp_path / "set", size=(64, 96))
    assert main(["init", "set"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "masker unet, randomly initialised forecaster flow: extrapolates the optical flow of the masks" in said
    assert "its masks are not trained" in said and "also try objects" in said
    assert "check: the masker will be randomly initialised: hf-hub:" in said and "HF_HUB_OFFLINE is set" in said
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["train_masker"]["model"]["arch"] == "unet"


class SilentHandler(BaseRequestHandler):
    """Hangs up on everybody who calls."""

    server: Hub

    def handle(self) -> None:
        self.server.asked.append(self.request.recv(4).decode())


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries took half a minute of each `init` without a network."""
    monkeypatch.chdir(tmp_path)
    davis(tmp_path / "set", size=(64, 96))
    with Hub({}) as hub:
        hub.take_over(monkeypatch, tmp_path / "cache")
        monkeypatch.setattr(hub, "RequestHandlerClass", SilentHandler)
        assert main(["init", "set"]) == 0
        assert hub.asked.count("HEAD") == 1


def test_small_frames_and_single_sequences_are_learnt_from_at_random(tmp_path: Path) -> None:
    davis(tmp_path / "small")
    davis(tmp_path / "one", 1, 1, 60, size=(64, 96))
    for name in ("small", "one"):
        start = plan_params(tmp_path / name, lambda: pytest.fail("nobody is asked"))
        assert start.proposal.sections["train_masker"]["model"] == {"arch": "unet", "width": 16}


def test_a_folder_of_frames_and_one_of_masks_are_found_among_others(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    write_images(tmp_path / "images", frames, "{:03d}_image.png", 1)
    write_images(tmp_path / "annotations", masks, "{:03d}_annotation.png", 1)
    write_images(tmp_path / "plants", (masks > 0) * np.uint8(255), "{:03d}_mask.png", 1)
    write_images(tmp_path / "test", frames_of(1, 24)[0], "take-{:02d}.jpg")
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "images/{frame}_image.png"
    assert found.source["masks"] == "annotations/{frame}_annotation.png"
    assert found.labelled == {"sequence": 60}
    assert any("84 images are left out, e.g. test/take-00.jpg" in warning for warning in found.warnings)


@pytest.mark.parametrize(("images", "masks"), [("{}_images", "{}_masks"), ("img-{}", "gt-{}")])
def test_the_names_of_folders_may_say_what_they_hold(images: str, masks: str, tmp_path: Path) -> None:
    for k, split in enumerate(("train", "val")):
        frames, labels = frames_of(k, 24)
        write_images(tmp_path / images.format(split), frames, "{:03d}.png")
        write_images(tmp_path / masks.format(split), labels, "{:03d}.png")
    source = plan_params(tmp_path).findings.source
    assert (source["images"], source["masks"]) == (images.format("{clip}"), masks.format("{clip}"))
    assert source["splits"] == {"val": ("val",)}


def test_the_folders_that_share_most_names_are_taken(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    write_images(tmp_path / "images", frames, "{:03d}.jpg")
    write_images(tmp_path / "masks", masks, "{:03d}.png")
    write_images(tmp_path / "test_images", frames_of(1, 24)[0], "{:02d}.png")
    write_images(tmp_path / "test_masks", frames_of(1, 24)[1], "{:02d}.png")
    write_images(tmp_path / "masked", masks, "{:03d}.png")
    assert inspect_folder(tmp_path).source["masks"] == "masks/{frame}.png"


def test_augmented_pairs_in_one_folder_are_left_out(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 40)
    for folder, images in (("image", frames), ("label", masks)):
        write_images(tmp_path / "train" / folder, images, "{}.png")
        write_images(tmp_path / "train/aug", images, f"{folder}_{{}}_77.png")
    write_images(tmp_path / "test", frames_of(1, 40)[0], "{}.png")
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "{clip}/image" and found.labelled == {"train": 40}


def test_drawings_beside_masks_are_frames(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    write_images(tmp_path / "images", (frames > 128) * np.uint8(255), "{}.png")
    write_images(tmp_path / "masks", masks, "{}.png")
    write_images(tmp_path / "results", frames_of(1, 24)[0], "{}.png")
    source = inspect_folder(tmp_path).source
    assert (source["images"], source["masks"]) == ("images/{frame}.png", "masks/{frame}.png")


def test_a_sequence_with_masks_at_its_beginning_alone_is_cut_there(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 150)
    write_images(tmp_path / "frames", frames, "frame{}.png")
    write_images(tmp_path / "masks", masks[:60], "frame{}.png")
    start = plan_params(tmp_path)
    assert start.findings.source["splits"] == {"val": 0.75}  # frames 38 to 149, of which 38 to 59 have masks
    assert start.clips["train"] >= 1 and start.clips["val"] >= 1


@pytest.mark.parametrize(
    ("labelled", "context", "begin"),
    [(range(20), 5, 10), (range(40, 60), 9, 42), (range(20, 40), 9, 22), (range(0, 60, 10), 11, 29)],
)
def test_a_single_sequence_is_cut_so_that_both_parts_have_masks(
    labelled: range, context: int, begin: int, tmp_path: Path
) -> None:
    frames, masks = frames_of(0, 60)
    write_images(tmp_path / "frames", frames, "{}.png")
    write_images(tmp_path / "all", masks, "{}.png")
    (tmp_path / "masks").mkdir()
    for number in labelled:
        (tmp_path / "all" / f"{number}.png").rename(tmp_path / "masks" / f"{number}.png")
    shutil.rmtree(tmp_path / "all")
    start = plan_params(tmp_path)
    assert start.findings.context == context
    assert time_parts(range(60), start.findings.source["splits"]) == {
        "train": range(begin),
        "val": range(begin, 60),
    }
    assert start.clips["train"] >= 1 and start.clips["val"] >= 1


def test_sequences_without_masks_beside_a_single_one_with_masks_are_unlabelled(tmp_path: Path) -> None:
    """Few labelled and many unlabelled: the one with masks is cut by time, the others stay whole."""
    davis(tmp_path, 5, 1, 60)
    (tmp_path / "test.txt").write_text("seq-4\n")
    start = plan_params(tmp_path)
    assert start.findings.source["split_by"] == "time"
    assert start.findings.source["splits"] == {"val": 0.37, "hidden": ("seq-4",)}
    assert start.findings.reasons["splits"] == (
        "val: the last 37% of 60 frames; the rest is train; unlabeled: the 3 without masks; hidden: the 1 of "
        "test, without masks: not used for training"
    )
    assert not start.left_out and set(start.clips) == {"train", "val", "unlabeled", "hidden"}
    values = yaml.safe_load(start.text(tmp_path))["prepare_clips"] | {"workers": 1}
    run_stage("prepare_clips", values, raw=tmp_path, clips=tmp_path / "clips")
    clips = ClipStore(tmp_path / "clips").clips
    assert {clip.meta["video"] for clip in clips if clip.split == "unlabeled"} == {"seq-1", "seq-2", "seq-3"}


def test_masks_too_close_together_are_said(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    write_images(tmp_path / "frames", frames, "{}.png")
    write_images(tmp_path / "masks", masks[:4], "{}.png")
    with pytest.raises(MaskcastError, match=r"of 4 frames of 60, too close together: 8 frames to "):
        plan_params(tmp_path)


def test_masks_that_fit_two_folders_of_frames_are_paired_with_the_one_they_cover(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    write_images(tmp_path / "film/all", frames_of(1, 90)[0], "{}.png")
    write_images(tmp_path / "shots", frames, "{}.png")
    write_images(tmp_path / "masks", masks, "{}.png")
    assert inspect_folder(tmp_path).source["images"] == "shots/{frame}.png"


def test_pictures_that_pair_with_no_frame_are_no_masks_in_silence(tmp_path: Path) -> None:
    """Curves that a trainer draws into `runs/train` beside the frames of `train`."""
    for k, split in enumerate(("train", "validation")):
        write_images(tmp_path / f"set/{split}/images", frames_of(k, 30)[0], "{:04d}.png")
    for name in ("Box", "Mask"):
        write_images(tmp_path / "runs/train28", frames_of(0, 1)[1], f"{name}F{{}}_curve.png", 1)
    with pytest.raises(MaskcastError, match=r"no sequence with masks can be read: .*/runs/train28: .*move"):
        inspect_folder(tmp_path)


def test_a_poster_beside_videos_is_no_sequence(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 30)
    for name in ("a", "b"):
        write_mp4(tmp_path / f"{name}.mp4", frames)
    write_images(tmp_path, frames[:1], "poster{}.jpg")
    found = inspect_folder(tmp_path)
    assert found.source["layout"] == "videos" and found.sequences == {"a.mp4": 30, "b.mp4": 30}
    write_images(tmp_path / "masks/a", masks, "{:04d}.png")
    found = inspect_folder(tmp_path)
    assert found.labelled == {"a": 30}
    assert "1 image left out: . has too few images for a clip, and there are videos" in found.warnings


def test_short_videos_get_short_clips(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", frames_of(0, 10)[0])
    (tmp_path / "notes.doc").write_text("none")
    start = plan_params(tmp_path)
    assert start.findings.source["frames"] == 10 and dict(start.clips) == {"unlabeled": 1}


def test_a_single_sequence_is_cut_where_its_numbers_leave_no_gap(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 65)
    for folder, images, ending in (("images", frames, "jpg"), ("masks", masks, "png")):
        write_images(tmp_path / folder, images[:63], f"frame_{{:04d}}.{ending}", 1)
        write_images(tmp_path / folder, images[63:], f"photo_{{}}_12-34.{ending}", 4)
    start = plan_params(tmp_path)
    assert start.clips["train"] >= 1 and start.clips["val"] == 1
    assert any("they do not go on at photo_4_12-34.jpg" in warning for warning in start.findings.warnings)


def test_parts_too_short_between_gaps_are_said(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 36)
    for folder, images in (("images", frames), ("masks", masks)):
        for first in range(0, 36, 12):
            write_images(tmp_path / folder, images[first : first + 12], "{:03d}.png", 2 * first)
    with pytest.raises(MaskcastError, match="have 12 frames without a gap in their numbers: a clip to learn from"):
        inspect_folder(tmp_path)


def test_grey_masks_in_three_channels_are_masks(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    soft = np.array([np.asarray(Image.fromarray((one > 0) * np.uint8(255)).resize((640, 400))) for one in masks])
    write_images(tmp_path / "images", frames.repeat(10, 1).repeat(10, 2), "{:03d}.png")
    write_images(tmp_path / "masks", soft[..., None].repeat(3, -1), "{:03d}.png")
    assert len(np.unique(soft)) > 64  # and so no ids
    assert inspect_folder(tmp_path).labelled == {"sequence": 60}


def test_masks_with_the_colours_of_photographs_are_said(tmp_path: Path) -> None:
    for k, split in enumerate(("train", "val")):
        frames, masks = frames_of(k, 24)
        write_images(tmp_path / f"{split}_images", frames, "{:03d}.jpg")
        noise = np.random.default_rng(k).integers(0, 40, frames.shape, np.uint8)
        write_images(tmp_path / f"{split}_masks", (masks > 0)[..., None] * np.uint8(200) + noise, "{:03d}.jpg")
    with pytest.raises(
        MaskcastError, match="train_masks is named like masks, or looks like them, and has the names of"
    ):
        inspect_folder(tmp_path)
    for split in ("train", "val"):  # overlays beside masks
        write_images(tmp_path / f"{split}_labels", frames_of(0, 24)[1], "{:03d}.png")
    found = inspect_folder(tmp_path)
    assert set(found.labelled) == {"train", "val"} and found.source["images"] == "{clip}_images"
    assert (
        "24 images left out: train_masks has the names of train_images, and too many colours for masks"
        in found.warnings
    )


def test_values_that_are_too_many_for_classes_are_foreground(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    write_images(tmp_path / "images", frames, "{:03d}.png")
    (tmp_path / "masks").mkdir()
    for k, mask in enumerate(masks):
        coloured = np.where(mask[..., None] > 0, np.array([k * 4, 255 - k, 9], np.uint8), np.uint8(0))
        coloured[0, :5] = [[200 + one, k, 200] for one in range(5)]
        Image.fromarray(coloured).save(tmp_path / f"masks/{k:03d}.png")
    start = plan_params(tmp_path)
    assert start.findings.source["encoding"] == "binary"
    assert any("values are too many for classes" in warning for warning in start.findings.warnings)


@pytest.mark.parametrize("name", ["frames/000.png", "a.mp4", "labels.json"])
def test_pointers_of_git_lfs_are_said(name: str, tmp_path: Path) -> None:
    write_images(tmp_path / "b", frames_of(0, 24)[0], "{:03d}.png")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    line = f"{Path(name).name} is a pointer of Git LFS and not the file itself; run `git lfs pull`"
    if path.suffix == ".mp4":
        with pytest.raises(MaskcastError, match=re.escape(line.replace(" is", ": is"))):
            count_frames(path)
    else:
        assert any(line.replace("png is", "png: is") in warning for warning in inspect_folder(tmp_path).warnings)


def test_thousands_of_sequences_are_looked_through_in_seconds() -> None:
    """Of as many as YouTube-VOS has: pairing each folder with each took minutes."""
    names = [f"{k:08x}" for k in range(3000)]
    frames, masks = (
        [ImageGroup((kind, name), "", (Path(f"{name}/0.png"),), kind == "masks") for name in names]
        for kind in ("frames", "masks")
    )
    began = time.process_time()
    guess = guess_patterns(frames, [], masks)
    assert guess == Guess("frames/{clip}", "masks/{clip}")
    assert time.process_time() - began < 20


@pytest.mark.parametrize("place", ["{kind}/{clip}", "{clip}/{kind}"])
def test_a_name_that_is_in_those_of_folders_is_no_pattern(place: str, tmp_path: Path) -> None:
    frames, masks = frames_of(0, 60)
    for kind, images in (("frames", frames), ("masks", masks)):
        write_images(tmp_path / place.format(kind=kind, clip="a"), images, "{:03d}.png")
    source = inspect_folder(tmp_path).source
    patterns = [place.replace("{kind}", kind) for kind in ("frames", "masks")]
    assert [source["images"], source["masks"]] == patterns


def test_a_folder_that_holds_frames_and_masks_is_not_called_after_masks(tmp_path: Path) -> None:
    """`extra` has frames of other videos with the same numbers."""
    for k, name in enumerate(("labelled/images/a", "labelled/images/b", "extra/images/c")):
        frames, masks = frames_of(k, 24)
        write_images(tmp_path / name, frames, "{:03d}.jpg")
        if k < 2:
            write_images(tmp_path / name.replace("images", "masks"), masks, "{:03d}.png")
    found = inspect_folder(tmp_path)
    assert (found.source["images"], found.source["masks"]) == ("labelled/images/{clip}", "labelled/masks/{clip}")
    assert set(found.labelled) == {"a", "b"}


def test_overlays_by_sequence_are_no_frames(tmp_path: Path) -> None:
    for k in range(2):
        frames, masks = frames_of(k, 24)
        for folder, images in (("overlay", frames), ("rgb", frames), ("masks", masks)):
            write_images(tmp_path / f"{folder}/seq-{k}", images, "{:03d}.png")
    found = inspect_folder(tmp_path)
    assert found.source["images"] == "rgb/{clip}"
    assert "24 images left out: overlay/seq-0 holds pictures of masks" in found.warnings


def test_what_is_said_counts_parts_between_gaps_and_tells_each_thing_once(tmp_path: Path) -> None:
    for name, jump in (("a", 0), ("b", 50)):
        frames, masks = frames_of(0, 48)
        for folder, images in (("frames", frames), ("masks", masks)):
            write_images(tmp_path / folder / name, images[:24], "{:03d}.png")
            write_images(tmp_path / folder / name, images[24:], "{:03d}.png", 24 + jump)
    write_images(tmp_path / "masks/a", masks[:2], "{:03d}.png", 90)
    said = " ".join(format_plan(plan_params(tmp_path), tmp_path, Path("params.yaml")).split())
    assert "long enough are 2 of 2 at stride 1 (22 frames); 1 of 2 at stride 2 (43 frames)" in said
    assert said.count("2 masks (090.png, 091.png) without a frame") == 1
    assert "masker unet, randomly initialised" in said


def test_without_masks_nothing_is_said_of_a_masker_and_no_hub_is_asked(tmp_path: Path) -> None:
    write_images(tmp_path / "a", frames_of(0, 24, (96, 128))[0], "{:03d}.png")
    start = plan_params(tmp_path, lambda: pytest.fail("asked for weights"))
    assert "randomly" not in format_plan(start, tmp_path, Path("params.yaml"))
    assert "of the labelled pixels" not in start.text(tmp_path)


@pytest.mark.parametrize("place", ["", "{}/"])
def test_frames_and_masks_in_one_folder_may_differ_in_their_endings(place: str, tmp_path: Path) -> None:
    for k in range(2 if place else 1):
        frames, masks = frames_of(k, 60)
        write_images(tmp_path / place.format(k), frames, "{:03d}.jpg")
        write_images(tmp_path / place.format(k), masks, "{:03d}.png")
    start = plan_params(tmp_path)
    patterns = [place.format("{clip}") + name for name in ("{frame}.jpg", "{frame}.png")]
    assert [start.findings.source["images"], start.findings.source["masks"]] == patterns
    assert start.clips["train"] and start.clips["val"]
    write_images(tmp_path / "raw", frames, "{:03d}.jpg")
    write_images(tmp_path / "raw", frames, "{:03d}.png")  # no masks, so each frame is there twice
    assert inspect_folder(tmp_path / "raw").source["images"] == "{frame}.jpg"


def test_what_is_said_of_a_single_labelled_sequence_is_so(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 30)
    for name in ("a", "b"):
        write_images(tmp_path / "frames" / name, frames, "{:03d}.png")
    write_images(tmp_path / "masks/a", masks, "{:03d}.png")
    found = inspect_folder(tmp_path)
    assert "sequences are too short: clips have 7 context and 7 forecast frames, not 11 and 11" in found.warnings
    assert not any(warning.startswith("left out") for warning in found.warnings)
    assert found.reasons["splits"].endswith("; the rest is train; unlabeled: the 1 without masks")


@pytest.mark.parametrize(
    ("frames", "masks", "expected"),
    [
        # a sequence of the same name elsewhere
        (
            ["train/rgb/one", "val/rgb/two"],
            ["train/truth/one", "val/truth/two", "pred/one"],
            ("*/rgb/{clip}", "*/truth/{clip}"),
        ),
        (["a/input", "flow/a"], ["a/labels"], ("{clip}/input", "{clip}/labels")),
        # sequences without masks, whose names differ in numbers from that with masks
        (["train/i_1/rgb", "val/i_2/rgb", "val/i_3/rgb"], ["train/i_1/y"], ("*/{clip}/rgb", "*/{clip}/y")),
    ],
)
def test_patterns_that_are_most_alike_are_taken(
    frames: list[str], masks: list[str], expected: tuple[str, str], tmp_path: Path
) -> None:
    images, labels = frames_of(0, 48)
    for folders, written in ((frames, images), (masks, labels)):
        for folder in folders:
            write_images(tmp_path / folder, written, "{:03d}.png")
    source = inspect_folder(tmp_path).source
    assert (source["images"], source["masks"]) == expected


def test_several_sequences_in_one_folder_are_found_beside_other_folders(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 24)
    for name in ("take1", "take2"):
        write_images(tmp_path / "a/set/rgb", frames, name + "_{:03d}.png")
        write_images(tmp_path / "a/set/labels", masks, name + "_{:03d}.png")
        write_images(tmp_path / "b/set/all", frames, name + "_{:03d}.png")
        write_images(tmp_path / "b/set/all", masks, name + "_{:03d}_mask.png")
    write_images(tmp_path / "a/set/thermal", frames, "{:03d}.png")
    assert (
        set(inspect_folder(tmp_path / "a").labelled)
        == set(inspect_folder(tmp_path / "b").labelled)
        == {"take1", "take2"}
    )


def test_a_number_is_no_word_for_masks(tmp_path: Path) -> None:
    frames, masks = frames_of(0, 48)
    for name in ("take_2", "take_3"):
        write_images(tmp_path / "rgb" / name, frames, "{:03d}.png")
    write_images(tmp_path / "labels/take_1", masks, "frame{:03d}.png")
    with pytest.raises(MaskcastError, match="have no pattern in common"):
        inspect_folder(tmp_path)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{split}/{name}_{{:04d}}.jpg", "{split}_masks/{name}_{{:04d}}.png"),  # the folders of masks fit `*`, too
        ("images/{split}/{name}_{{:04d}}.jpg", "masks/{split}/{name}_{{:04d}}.png"),
        ("{split}/{name}/rgb/{{:04d}}.jpg", "{split}/{name}/labels/{{:04d}}.png"),  # most masks lie in val
    ],
)
@pytest.mark.parametrize("names", ["abcd", ("v1", "v2", "v3", "v4")])
def test_sequences_in_folders_of_splits_are_all_found(
    images: str, masks: str, names: Sequence[str], tmp_path: Path
) -> None:
    for k, (name, split) in enumerate(zip(names, ("train", "train", "val", "test"), strict=True)):
        frames, truth = frames_of(k, 60 if split == "val" else 24)
        for pattern, pixels in ((images, frames), (masks, truth)):
            path = tmp_path / pattern.format(split=split, name=name)
            write_images(path.parent, pixels, path.name)
    start = plan_params(tmp_path)
    assert start.findings.source["splits"] == {"val": (names[2],), "test": (names[3],)}
    assert {*start.findings.sequences} == {*names} and not start.left_out


@pytest.mark.parametrize("names", [("frame_{:04d}.jpg", "mask_{:03d}.png"), ("frame_{:04d}.jpg", "{:04d}.png")])
@pytest.mark.parametrize("folders", [(".", "mask"), ("images", "masks")])
def test_frames_and_masks_of_one_sequence_may_begin_with_other_words(
    folders: tuple[str, str], names: tuple[str, str], tmp_path: Path
) -> None:
    for folder, pixels, name in zip(folders, frames_of(0, 48), names, strict=True):
        write_images(tmp_path / folder, pixels, name, 1)
    found = inspect_folder(tmp_path)
    assert list(found.labelled.values()) == [48] and not found.source.get("offset")


def test_names_that_would_be_patterns_are_refused(tmp_path: Path) -> None:
    davis(tmp_path)
    (tmp_path / "JPEGImages").rename(tmp_path / "im{frame}")
    with pytest.raises(MaskcastError, match=r"no pattern finds names that hold \{ or \*; rename these folders"):
        inspect_folder(tmp_path)


def test_names_of_sequences_may_differ_in_case_and_in_the_form_of_an_accent(tmp_path: Path) -> None:
    """Other ones that differ in no more stay apart."""
    davis(tmp_path, sequences=4, labelled=4)
    images, masks = (tmp_path / name / "480p" for name in ("JPEGImages", "Annotations"))
    for number, (ours, theirs) in enumerate(
        (("Take", "take"), (f"Tu{chr(0x308)}r", f"T{chr(0xFC)}r"), ("A", "a"))
    ):
        (images / f"seq-{number}").rename(images / ours)
        (masks / f"seq-{number}").rename(masks / theirs)
    write_images(images / "a", frames_of(5, 24)[0], "{:05d}.jpg")
    start = plan_params(tmp_path)
    assert {*start.findings.labelled} == {"Take", f"Tu{chr(0x308)}r", "a", "seq-3"}
    assert start.clips.total() == 5 and not start.left_out
