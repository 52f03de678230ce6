"""`maskcast labels`: out, in, and what to label next, as people type it."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import moving_squares, write_store

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling.propagated_store import write_propagated
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.labels import IGNORE, MASK, single_map
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.params import validate
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.tasks.segmentation import segmentation_task


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipStore:
    """`clips`, here; every split but test."""
    monkeypatch.chdir(tmp_path)
    return write_store(Path("clips"), height=16, width=24, train=1, val=1, unlabeled=2, hidden=1)


@pytest.fixture
def masks(store: ClipStore) -> ClipStore:
    """`masks`, here: what a masker might have made of the unlabelled clips."""
    with ClipWriter(Path("masks"), height=16, width=24, maps=single_map(store.classes)) as writer:
        for k in range(2):
            found = moving_squares(200 + k, 22, 16, 24)[1]
            writer.add(
                f"unlabeled_{k}",
                split="unlabeled",
                kind="unlabelled",
                masks={MASK: found},
                confidence={MASK: np.full_like(found, 128)},
            )
    return ClipStore(Path("masks"))


@pytest.fixture
def masker(store: ClipStore) -> Path:
    """`masker`, here, of random weights."""
    torch.manual_seed(0)
    config = UNetConfig(width=4)
    save_masker(Path("masker"), config.build(single_map(store.classes)), config, {})
    return Path("masker")


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns the line of a command that fails."""
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert not list(Path().glob("*.partial"))
    return line


def test_masks_go_out_with_their_frames_and_come_back_as_labels(
    masks: ClipStore, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["labels", "export", "--format", "cvat-images", "--masks", "masks", "--clips", "clips"]
    assert main([*words, "--output", "out"]) == 0
    assert "wrote 44 frames of 2 clips as cvat-images: out" in capsys.readouterr().out
    assert {path.name for path in Path("out").iterdir()} == {"annotations.xml", "labels.json", "images"}
    assert json.loads(Path("out/labels.json").read_text())[0]["name"] == "red"
    words = ["labels", "import", "--format", "cvat_images", "out/annotations.xml", "--clips", "clips"]
    assert main([*words, "--output", "labelled"]) == 0
    assert "labelled 44 frames of 2 clips: labelled" in capsys.readouterr().out
    found, before = ClipStore(Path("labelled")), ClipStore(Path("clips"))
    assert [clip.id for clip in found.clips] == [clip.id for clip in before.clips]
    for clip in found.clips:
        old = before.get(clip.id)
        np.testing.assert_array_equal(found.frames(clip), before.frames(old))
        if clip.id in masks:
            assert (clip.split, clip.kind) == ("train", "labelled")
            np.testing.assert_array_equal(found.masks(clip), masks.masks(masks.get(clip.id)))
        else:
            assert (clip.split, clip.kind, clip.meta) == (old.split, old.kind, old.meta)
    found.verify()


def test_what_does_not_pair_is_listed(store: ClipStore, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"else_{t:06d}.png" for t in range(7)] + ["unlabeled_0_000003.png"]
    images = [{"id": k, "file_name": name, "height": 16, "width": 24} for k, name in enumerate(names)]
    content = {"images": images, "categories": [{"id": 1, "name": "red"}], "annotations": []}
    Path("a.json").write_text(json.dumps(content))
    words = ["labels", "import", "--format", "coco", "a.json", "--clips", "clips", "--rename", "rot=red"]
    assert main([*words, "--output", "new"]) == 0
    said = capsys.readouterr()
    assert "--rename 'rot=red': no labelled frame has 'rot'" in said.err
    assert (
        "7 frames match no clip in clips (<clip>_<frame>.png or <clip>/<frame>.png, frames from 0 on):" in said.err
    )
    assert "a.json: images[4] (else_000004.png)" in said.err
    assert "... and 2 more" in said.err
    assert "1 frame is listed without annotation: treated as background (--empty background)" in said.err
    assert "labelled 1 frame of 1 clip: new" in said.out


def test_labels_of_frames_are_added_to_those_that_a_clip_had(store: ClipStore) -> None:
    def annotate(clips: str, frame: int, output: str) -> ClipStore:
        image = {"id": 1, "file_name": f"unlabeled_1_{frame:06d}.png", "height": 16, "width": 24}
        content = {"images": [image], "categories": [{"id": 1, "name": "red"}], "annotations": []}
        Path("a.json").write_text(json.dumps(content))
        words = ["labels", "import", "--format", "coco", "a.json", "--clips", clips, "--output", output]
        assert main([*words, "--split", "val"]) == 0
        return ClipStore(Path(output))

    annotate("clips", 5, "once")
    found = annotate("once", 3, "twice")
    clip = found.get("unlabeled_1")
    assert (clip.split, clip.meta) == ("val", {"labelled_frames": {"mask": [3, 5]}})
    assert [t for t, mask in enumerate(found.masks(clip)) if (mask != IGNORE).any()] == [3, 5]
    found = annotate("clips", 0, "else")  # a clip that had all its labels keeps the others
    assert main(["labels", "import", "--format", "coco", "a.json", "--clips", "else", "--output", "e2"]) == 0


def test_clips_that_are_scored_on_beside_clips_of_their_video_that_are_not_are_said(
    store: ClipStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with ClipWriter(Path("windows"), height=16, width=24, maps=single_map(store.classes)) as writer:
        for start in (0, 11):
            frames, _ = moving_squares(start, 22, 16, 24)
            meta = {"video": "street", "start": start, "stride": 1}
            writer.add(f"street_{start}", split="unlabeled", kind="unlabelled", frames=frames, meta=meta)
    words = ["labels", "import", "--format", "coco", "a.json", "--clips", "windows", "--output"]
    said = "warning: 1 clip of split val and training clips are from the same video, e.g. 'street_0'"
    for starts, split, warned in (((0,), "val", True), ((0,), "train", False), ((0, 11), "val", False)):
        images = [{"id": n, "file_name": f"street_{n}_000003.png", "height": 16, "width": 24} for n in starts]
        content = {"images": images, "categories": [{"id": 1, "name": "red"}], "annotations": []}
        Path("a.json").write_text(json.dumps(content))
        assert main([*words, f"{split}{len(starts)}", "--split", split]) == 0
        assert (said in capsys.readouterr().err) == warned


def test_a_masker_learns_from_the_frames_with_labels_alone(masks: ClipStore, masker: Path) -> None:
    with Path("frames.csv").open("w", encoding="utf-8-sig") as file:  # as a spreadsheet saves it
        csv.writer(file).writerows([["clip", "frame"], ["unlabeled_0", 4], ["unlabeled_1", 9]])
    words = ["--format", "coco", "--masks", "masks", "--frames", "frames.csv", "--output", "out"]
    assert main(["labels", "export", *words]) == 0
    assert main(["labels", "import", "--format", "coco", "out", "--clips", "clips", "--output", "labelled"]) == 0
    training = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 8, "learning_rate": 0.001}
    params = {"model": {"arch": "unet", "width": 4}, "training": training}
    task = segmentation_task(ClipStore(Path("labelled")), validate(TrainMasker, params, ""), "f")
    drawn = torch.cat([task.batch(step).masks[0] for step in range(8)])
    assert not (drawn == IGNORE).all(dim=(1, 2, 3)).any()


def test_frames_are_suggested_as_a_list_and_a_page(
    store: ClipStore, masker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["labels", "suggest", "--clips", "clips", "--masker", "masker", "--budget", "6"]
    assert main([*words, "--output", "suggested"]) == 0
    assert "suggested 6 frames by random: suggested" in capsys.readouterr().out
    with Path("suggested/frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["clip"] for row in rows} <= {"unlabeled_0", "unlabeled_1"}
    page = Path("suggested/frames.html").read_text()
    assert page.count("<img ") == 6
    assert f"{rows[0]['clip']}, frame {rows[0]['frame']}" in page
    assert "Frames count from 0, as in frames.csv" in page and "Classes" not in page, "nothing is found"
    assert "All pages" not in page, "there are no others"
    export = ["labels", "export", "--format", "coco", "--masks", "clips", "--frames", "suggested/frames.csv"]
    assert "has no masks of map 'mask'" in failed(capsys, *export, "--output", "o")
    assert main([*words[:-1], "50", "--method", "class-uncertainty", "--spacing", "11", "--output", "all"]) == 0
    assert "4 of 50 frames (--budget): no other frame is at least 11 (--spacing)" in capsys.readouterr().err


def test_frames_of_a_video_are_far_apart_and_far_from_labels_also_where_its_clips_overlap(
    store: ClipStore, masker: Path
) -> None:
    frames, truth = moving_squares(7, 22, 16, 24)
    with ClipWriter(Path("windows"), height=16, width=24, maps=single_map(store.classes)) as writer:
        for start in (0, 11, 22, 33):  # of every second frame of a video; the last has labels
            given = {"masks": {MASK: truth}} if start == 33 else {}
            kind = "labelled" if given else "unlabelled"
            meta = {"video": "street", "start": 2 * start, "stride": 2}
            writer.add(f"street_{2 * start}", split="train", kind=kind, frames=frames, meta=meta, **given)
    words = ["labels", "suggest", "--clips", "windows", "--masker", "masker", "--budget", "50"]
    assert main([*words, "--method", "random", "--spacing", "4", "--output", "suggested"]) == 0
    with Path("suggested/frames.csv").open() as file:
        found = sorted(int(row["clip"].partition("_")[2]) // 2 + int(row["frame"]) for row in csv.DictReader(file))
    assert found[0] <= 3 and 33 - 3 - 4 < found[-1] <= 33 - 4
    assert np.diff(found).min() >= 4


def test_the_page_of_suggestions_has_a_key_of_the_classes_that_are_found(store: ClipStore) -> None:
    config = UNetConfig(width=4)
    model = config.build(single_map(store.classes))
    bias = next(value for name, value in reversed(list(model.named_parameters())) if name.endswith("bias"))
    with torch.no_grad():
        bias[2] = 100
    save_masker(Path("blue"), model, config, {})
    words = ["labels", "suggest", "--clips", "clips", "--masker", "blue", "--budget", "1"]
    assert main([*words, "--output", "suggested"]) == 0
    key = re.search('aria-label="Classes">(.*?)</ul>', Path("suggested/frames.html").read_text())[1]
    assert re.findall("</svg>([^<]*)</li>", key) == ["blue"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export --format cocoo --masks clips --output o", "unknown format 'cocoo'; did you mean 'coco'?"),
        ("export --format coco --masks nothing --output o", "nothing/index.json: no clip store found"),
        ("export --format coco --masks clips --map sky --output o", "no label map 'sky'; it has mask"),
        ("export --format coco --masks clips --frames no.csv --output o", "no.csv: no such list of frames"),
        (
            "export --format coco --masks clips --frames bad.csv --output o",
            "bad.csv: line 2: needs the columns clip",
        ),
        (
            "export --format coco --masks clips --frames far.csv --output o",
            "clip 'train_0' has frames 0 to 21, not 99",
        ),
        (
            "export --format coco --masks clips --frames two.csv --output o",
            "two.csv: line 3: frame 1 of 'train_0' is listed twice",
        ),
        ("export --format cityscapes --masks clips --output o", "Cityscapes has no class 'red' (2 unknown)"),
        ("export --format coco --masks clips --output clips", "clips: already exists (--output)"),
        ("import --format coco no.json --clips clips --output o", "no.json: file or folder not found; give"),
        (
            "import --format coco a.json --clips clips --rename a --output o",
            "--rename a: use THEIRS=OURS, a class",
        ),
        (
            "import --format coco hidden.json --clips clips --output o",
            "clip 'hidden_0' is hidden and cannot be labelled; remove its frames from",
        ),
        ("suggest --clips clips --masker masker --budget 0 --output o", "--budget: got 0; give 1 or more"),
        ("suggest --clips clips --masker clips --output o", "clips"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    words: str, message: str, store: ClipStore, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.csv").write_text("name,frame\na,1\n")
    Path("far.csv").write_text("clip,frame\ntrain_0,99\n")
    Path("two.csv").write_text("clip,frame\ntrain_0,1\ntrain_0,1\n")
    image = {"id": 1, "file_name": "hidden_0_000000.png", "height": 16, "width": 24}
    content = {"images": [image], "categories": [{"id": 1, "name": "red"}], "annotations": []}
    Path("hidden.json").write_text(json.dumps(content))
    before = sorted(Path().rglob("*"))
    assert message in failed(capsys, "labels", *words.split())
    assert sorted(Path().rglob("*")) == before


def test_labels_are_carried_and_go_out_to_be_corrected(
    store: ClipStore, masks: ClipStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frame 4 of a clip that had no labels is labelled; frames 2 to 6 then have masks to correct."""
    Path("frames.csv").write_text("clip,frame\nunlabeled_0,4\n")
    export = ["labels", "export", "--format", "cvat-images"]
    assert main([*export, "--masks", "masks", "--frames", "frames.csv", "--output", "out"]) == 0
    words = ["labels", "import", "--format", "cvat-images", "out", "--clips", "clips"]
    assert main([*words, "--output", "labelled"]) == 0
    words = ["labels", "propagate", "--frames", "2", "--clips", "labelled"]
    assert main([*words, "--output", "near"]) == 0
    assert capsys.readouterr().out.endswith("propagated the labels of 1 frame to 4 more, of 1 clip: near\n")
    near, labelled = ClipStore(Path("near")), ClipStore(Path("labelled"))
    (clip,) = near.clips
    assert (clip.id, clip.meta["labelled_frames"]) == ("unlabeled_0", {"mask": [2, 3, 4, 5, 6]})
    assert np.array_equal(near.masks(clip)[4], labelled.masks(labelled.get("unlabeled_0"))[4])
    assert (near.confidence(clip)[4] == 255).all() and (near.masks(clip)[7:] == IGNORE).all()
    assert main([*export, "--masks", "near", "--clips", "clips", "--output", "again"]) == 0
    assert len(list(Path("again/images").iterdir())) == 5
    assert "in some but not all of its frames; use" in failed(capsys, *words[:-1], "clips", "--output", "none")
    assert "--frames: got 0; give 1 or more" in failed(capsys, *words, "--frames", "0", "--output", "none")


def test_a_written_store_has_what_its_meta_names(store: ClipStore) -> None:
    """Labels of some frames, then masks around them; the store has two maps, left-out clips and backgrounds."""
    frames, found = moving_squares(0, 4, 16, 24)
    maps, pairs = single_map(["background", "left", "right"]), [["left", "right"], ["one", "other"]]
    meta = {"mirror_swaps": pairs, "backgrounds": {"train": 1}}
    for folder in ("green/backgrounds", "green/left-out"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "0000.png").touch()
    with ClipWriter(Path("written"), height=16, width=24, maps=maps, meta=meta) as writer:
        writer.add("a", split="train", kind="labelled", frames=frames, masks={MASK: found})
        writer.skip("b", "no screen")
    for path in Path("written").iterdir():
        path.rename(Path("green") / path.name)
    labels = {"a": NewLabels(np.where(np.arange(4)[:, None, None] == 1, found, IGNORE).astype(np.uint8), [1])}
    write_relabelled(Path("again"), ClipStore("green"), labels, "train")
    again = ClipStore("again")
    assert again.skipped == [{"item": "b", "reason": "no screen"}] and Path("again/left-out/0000.png").is_file()
    assert Path("again/backgrounds/0000.png").is_file()
    write_propagated(Path("near"), again, 1)
    near = ClipStore("near")
    assert "backgrounds" not in near.meta and near.mirror_swaps == (("left", "right"),)


def test_where_frames_count_from_is_a_matter_of_mots(store: ClipStore, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("labels", "import", "--first-frame", "1", "--clips", "clips", "--output", "out", "labels.json")
    line = failed(capsys, *words, "--format", "coco")
    assert line.endswith(
        "--first-frame: coco identifies frames by their names; omit it (only for png, mots and mots-txt)"
    )
