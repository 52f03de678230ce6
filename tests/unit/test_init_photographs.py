"""maskcast init on photographs, which have no time: a masker is trained, and nothing is forecast."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.conftest import ROOT
from tests.lookalikes import davis, frames_of, photographs, write_images
from tests.unit.test_init_label_files import dump

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.errors import MaskcastError
from maskcast.proposal.plan import ParamsPlan, plan_params
from maskcast.proposal.report import format_plan
from maskcast.runner.run import run_stage
from pipelines.compile import stages_of

pytestmark = pytest.mark.usefixtures("untimed_steps")

WORDS = ("apple", "beach", "cat at home", "dog", "elm", "fox", "gate", "house", "island", "jar")
HASHES = [hashlib.md5(word.encode()).hexdigest() for word in WORDS]
ONE_SIZE = ((40, 64),)
NO_NUMBER, SIZES = "their names have no running number", "sizes change from image to image"


def prepared(start: ParamsPlan, raw: Path, clips: Path, **more: int) -> ClipStore:
    values = yaml.safe_load(start.text(raw))["prepare_clips"] | {"workers": 1} | more
    run_stage("prepare_clips", values, raw=raw, clips=clips)
    return ClipStore(clips)


@pytest.mark.parametrize(
    ("names", "sizes", "why"),
    [
        (WORDS, ONE_SIZE, NO_NUMBER),
        (HASHES, ONE_SIZE, NO_NUMBER),
        ([f"{word}{k}_{word[::-1]}" for k, word in enumerate(WORDS)], ONE_SIZE, NO_NUMBER),
        ([f"IMG_{1000 + 7 * k * k}" for k in range(10)], ((40, 64), (64, 40), (48, 48)), SIZES),
        ([f"{kind}_{k}" for kind in ("pug", "Bengal") for k in (1, 2, 5, 17, 103)], ((40, 64), (64, 40)), SIZES),
    ],
    ids=["words", "hashes", "words around numbers", "camera", "kinds"],
)
@pytest.mark.parametrize("ending", ["", "_mask"])
def test_photographs_get_a_masker_and_no_forecaster(
    names: Sequence[str], sizes: Sequence[tuple[int, int]], why: str, ending: str, tmp_path: Path
) -> None:
    photographs(tmp_path, names, sizes, ending)
    start = plan_params(tmp_path)
    source = start.findings.source
    assert (source["images"], source["masks"]) == ("images/{clip}.jpg", f"masks/{{clip}}{ending}.png")
    assert (source["frames"], source["splits"]) == (1, {"val": 0.2})
    assert start.clips == {"train": 8, "val": 2}
    assert start.findings.photographs == why
    text = start.text(tmp_path)
    assert list(yaml.safe_load(text)) == list(stages_of("photographs"))
    assert text.startswith(f"# Params of the pipeline photographs for {tmp_path}, proposed by ")
    said = " ".join(format_plan(start, tmp_path, tmp_path / "params.yaml").split())
    assert f"check: treated as photographs, because {why}: nothing is forecast." in said
    assert (
        "photographs 10, 10 with masks" in said
        and "wrote" in said
        and " dvc repro or on Kubeflow: maskcast pipeline submit --pipeline photographs " in said
    )
    assert "7 stages x 15 s" in said and "forecaster" not in said and "sequences" not in said


@pytest.mark.parametrize(("images", "test"), [(49, 0), (50, 10)])
def test_of_many_photographs_some_select_nothing(images: int, test: int, tmp_path: Path) -> None:
    photographs(tmp_path, [hashlib.md5(bytes([k])).hexdigest() for k in range(images)], ONE_SIZE)
    start = plan_params(tmp_path)
    assert start.findings.source["splits"] == {"val": 0.2} | ({"test": 0.2} if test else {})
    assert start.clips == {"train": images - 10 - test, "val": 10} | ({"test": test} if test else {})


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("recipes/photographs/dvc.yaml", None),
        (None, "this needs a project, but the folder of the file has no dvc.yaml"),
        (
            "dvc.yaml",
            "this needs a project of the pipeline photographs: the dvc.yaml beside the file also reads section",
        ),
    ],
)
def test_a_project_of_another_pipeline_is_told(beside: str | None, said: str | None, tmp_path: Path) -> None:
    photographs(tmp_path / "raw", WORDS)
    if beside is not None:
        shutil.copy(ROOT / beside, tmp_path)
    lines = " ".join(
        format_plan(plan_params(tmp_path / "raw"), tmp_path / "raw", tmp_path / "params.yaml").split()
    )
    if said is None:
        assert lines.endswith(" dvc repro or on Kubeflow: maskcast pipeline submit --pipeline photographs")
    else:
        assert said in lines and "(`maskcast new FOLDER --pipeline photographs` creates one" in lines


def test_the_params_of_another_pipeline_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs(tmp_path / "raw", WORDS)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "raw", "--force"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(
        "error: params.yaml: not written: the dvc.yaml beside it reads section pretrain_encoder,"
    )
    assert "`maskcast new FOLDER --pipeline photographs`" in line and "--params" in line
    assert (tmp_path / "params.yaml").read_text() == "seed: 1\n"
    assert main(["init", "raw", "--params", "photographs.yaml"]) == 0
    shutil.copy(ROOT / "recipes/photographs/dvc.yaml", tmp_path)
    assert main(["init", "raw", "--force"]) == 0


def test_few_photographs_are_no_sequence_that_is_too_short(tmp_path: Path) -> None:
    photographs(tmp_path, ["2011_000003", "2011_000006", "2011_000025"])
    assert plan_params(tmp_path).clips == {"train": 2, "val": 1}


@pytest.mark.parametrize("drifts", [True, False])
def test_few_numbered_images_are_photographs_unless_neighbours_are_alike(drifts: bool, tmp_path: Path) -> None:
    scenes = np.random.default_rng(0).integers(0, 255, (6, 5, 8, 3))
    if drifts:
        scenes = 128 + np.cumsum(scenes // 8 - 16, axis=0)
    write_images(tmp_path / "images", scenes.clip(0, 255).astype(np.uint8).repeat(8, 1).repeat(8, 2), "{:04d}.png")
    write_images(tmp_path / "masks", (frames_of(0, 6)[1] > 0) * np.uint8(255), "{:04d}.png")
    if drifts:
        with pytest.raises(MaskcastError, match="the sequences have 6 frames: a clip to learn from and one to be"):
            plan_params(tmp_path)
    else:
        assert plan_params(tmp_path).clips == {"train": 5, "val": 1}


@pytest.mark.parametrize("labels", ["masks", "files"])
@pytest.mark.parametrize("videos", [1, 5])
def test_a_project_of_photographs_takes_few_frames_of_a_video(
    videos: int, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(videos):
        frames, masks = frames_of(k, 6)
        folder = f"/{'abcde'[k]}" if videos > 1 else ""
        write_images(tmp_path / f"raw/images{folder}", frames, "{:04d}.png")
        write_images(tmp_path / f"raw/masks{folder}", (masks > 0) * np.uint8(255), "{:04d}.png")
    if labels == "files":
        shutil.rmtree(tmp_path / "raw/masks")
        images = sorted((tmp_path / "raw/images").rglob("*.png"))
        names = [path.relative_to(tmp_path / "raw/images").as_posix() for path in images]
        listed = [{"id": k, "file_name": name, "height": 40, "width": 64} for k, name in enumerate(names)]
        square = {"category_id": 1, "segmentation": [[8, 8, 24, 8, 24, 24, 8, 24]], "bbox": [8, 8, 16, 16]}
        dump(
            tmp_path / "raw/labels.json",
            {
                "images": listed,
                "annotations": [square | {"id": k, "image_id": k, "area": 256} for k in range(len(names))],
                "categories": [{"id": 1, "name": "dog"}],
            },
        )
    monkeypatch.chdir(tmp_path)
    assert main(["init", "raw"]) == 2
    way_out = "; or, for masks without a forecast, run init in a project of `maskcast new FOLDER --pipeline "
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"{way_out}photographs`")
    shutil.copy(ROOT / "recipes/photographs/dvc.yaml", tmp_path)
    assert main(["init", "raw"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "treated as photographs, because the project is of the pipeline photographs: nothing is forecast. A"
        in said
    )
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    source = params["prepare_clips"]["source"]
    assert list(params) == list(stages_of("photographs")) and source["frames"] == 1
    assert source.get("split_by") == ("time" if videos == 1 else None)
    run_stage("prepare_clips", params["prepare_clips"] | {"workers": 1}, raw="raw", clips="clips")
    scored = [clip.id for clip in ClipStore(Path("clips")).clips if clip.split == "val"]
    assert len({clip.split("_")[0] for clip in scored}) == 1 and len(scored) == (1 if videos == 1 else 6)


@pytest.mark.parametrize("drifts", [True, False])
def test_numbered_images_of_one_size_are_frames_where_neighbours_are_alike(drifts: bool, tmp_path: Path) -> None:
    scenes = np.random.default_rng(0).integers(0, 255, (24, 5, 8, 3))
    if drifts:  # by some 15 grey levels a frame
        scenes = 128 + np.cumsum(scenes // 4 - 32, axis=0)
    write_images(tmp_path / "images", scenes.clip(0, 255).astype(np.uint8).repeat(8, 1).repeat(8, 2), "{:04d}.png")
    write_images(tmp_path / "masks", (frames_of(0, 24)[1] > 0) * np.uint8(255), "{:04d}.png")
    start = plan_params(tmp_path)
    if not drifts:
        assert start.findings.photographs == "neighbouring images are no more alike than distant ones"
        assert start.findings.source["images"] == "images/{clip}.png" and start.clips == {"train": 19, "val": 5}
    else:
        assert not start.findings.photographs and start.findings.source["split_by"] == "time"


def test_each_photograph_is_a_clip_with_its_mask(tmp_path: Path) -> None:
    photographs(tmp_path / "raw", WORDS, ((40, 64), (64, 40)))
    for word in WORDS[5:]:
        (tmp_path / f"raw/masks/{word}.png").unlink()
    start = plan_params(tmp_path / "raw")
    assert start.findings.source["splits"] == {"val": 0.2}
    store = prepared(start, tmp_path / "raw", tmp_path / "clips")
    splits = {clip.id: clip.split for clip in store.clips}
    assert sorted(splits.values()) == ["train"] * 4 + ["unlabeled"] * 5 + ["val"]
    assert {clip.num_frames for clip in store.clips} == {1}
    with Image.open(tmp_path / "raw/masks/apple.png") as mask:
        assert (store.masks(store.get("apple_00000"))[0] == (np.asarray(mask) > 0)).all()


def test_splits_that_folders_are_named_after_are_taken(tmp_path: Path) -> None:
    for split, names in (("train", WORDS[:6]), ("val", WORDS[6:])):
        photographs(tmp_path, names, ONE_SIZE, folder=f"/{split}")
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "images/{clip}" and start.findings.source["splits"] == {
        "val": ("val",)
    }
    assert start.clips == {"train": 6, "val": 4}


def test_photographs_in_folders_of_splits_and_places_keep_their_splits(tmp_path: Path) -> None:
    """Cityscapes has folders of cities in those of splits."""
    for place in ("train/aachen", "train/ulm", "val/lindau", "test/bonn"):
        photographs(tmp_path, [f"{word} {place[-3:]}" for word in WORDS[:4]], ONE_SIZE, folder=f"/{place}")
    start = plan_params(tmp_path)
    assert start.findings.photographs and start.findings.source["images"] == "images/*/{clip}"
    assert start.clips == {"train": 8, "val": 4, "test": 4}


def test_photographs_of_coco_keep_their_splits_and_have_instances_not_keypoints(tmp_path: Path) -> None:
    """As `annotations_trainval2017.zip` has them."""
    for split, words in (("train", WORDS[:6]), ("val", WORDS[6:])):
        images, annotations = [], []
        for k, word in enumerate(words, 1):
            write_images(
                tmp_path / f"{split}2017", frames_of(k, 1, (40, 64) if k % 2 else (64, 40))[0], f"{word}.jpg"
            )
            images.append(
                {"id": k, "file_name": f"{word}.jpg", "height": 40 if k % 2 else 64, "width": 64 if k % 2 else 40}
            )
            square = [10, 10, 20, 10, 20, 20, 10, 20]
            annotations.append({"id": k, "image_id": k, "category_id": 1, "segmentation": [square]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
        dump(tmp_path / f"annotations/instances_{split}2017.json", content)
        people = content | {"categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}]}
        dump(tmp_path / f"annotations/person_keypoints_{split}2017.json", people)
        dump(
            tmp_path / f"annotations/captions_{split}2017.json",
            {"images": images, "annotations": [{"caption": "A cat"}]},
        )
    start = plan_params(tmp_path)
    assert start.findings.source["classes"] == ["background", "cat"] and start.clips == {"train": 6, "val": 4}


@pytest.mark.parametrize("alone", [True, False])
def test_photographs_for_test_are_not_learnt_from(alone: bool, tmp_path: Path) -> None:
    """Where there is no folder called `val`, and no list, they are in lists or folders of their own."""
    for split, names in (("train", WORDS[:6]), ("test", WORDS[6:])):
        photographs(tmp_path, names, ONE_SIZE, folder="" if alone else f"/{split}")
        if alone:
            (tmp_path / f"{split}.txt").write_text("".join(f"images/{name}.jpg\n" for name in names))
    start = plan_params(tmp_path)
    assert start.clips == ({"train": 5, "val": 1, "test": 4} if alone else {"train": 6, "val": 4})
    assert start.findings.reasons["splits"].endswith("test: as test.txt lists them") is alone
    assert any("test serves as val" in warning for warning in start.findings.warnings) is not alone


def test_photographs_of_one_number_in_folders_of_splits_are_found_by_their_names(tmp_path: Path) -> None:
    for split, numbers in (("train", range(4)), ("val", range(4, 8))):
        photographs(tmp_path, [f"{animal}{k}" for animal in ("cat", "dog") for k in numbers], folder=f"/{split}")
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "images/*/{clip}.*" and start.clips == {"train": 8, "val": 8}


def test_masks_that_are_gifs_are_said(tmp_path: Path) -> None:
    photographs(tmp_path, WORDS)
    for path in (tmp_path / "masks").iterdir():
        Image.open(path).save(path.with_suffix(".gif"))
        path.unlink()
    said = (
        "10 videos are left out, e.g. masks/apple.gif: GIFs are read as videos: save them as PNG where they are "
    )
    assert any(warning.startswith(said) for warning in inspect_folder(tmp_path).warnings)


@pytest.mark.parametrize(
    ("frames", "masks"),
    [("train", "train_masks"), ("Dataset1/imagesTr", "Dataset1/labelsTr"), ("one/images", "one/masks")],
)
@pytest.mark.parametrize(("tail", "mask_tail"), [("", "_mask"), ("_img", "_mask"), ("", "")])
def test_photographs_of_one_folder_are_drawn_and_not_split_by_time(
    frames: str, masks: str, tail: str, mask_tail: str, tmp_path: Path
) -> None:
    """Their names are in the order of their kinds, so the last ones are of one kind."""
    names = [f"{kind}_{k}" for kind in ("ape", "bee", "cat") for k in (1, 5, 17, 103)]
    photographs(tmp_path / "all", names, ((40, 64), (64, 40), (48, 48)))
    for folder, ending, path in ((frames, tail, "images"), (masks, mask_tail, "masks")):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for file in (tmp_path / "all" / path).iterdir():
            shutil.copy(file, tmp_path / f"raw/{folder}/{file.stem}{ending}{file.suffix}")
    start = plan_params(tmp_path / "raw")
    assert start.findings.source.get("split_by") is None
    assert start.findings.source["splits"] == {"val": 0.2} and start.clips == {"train": 10, "val": 2}


def test_many_photographs_in_folders_get_no_test(tmp_path: Path) -> None:
    for kind in ("cats", "dogs"):
        photographs(tmp_path, [str(k) for k in range(30)], ((40, 64), (64, 40)), folder=f"/{kind}")
    source = inspect_folder(tmp_path).source
    assert source["split_by"] == "time" and source["splits"] == {"val": 0.2}


def test_of_folders_with_one_kind_each_a_part_of_each_is_scored_on(tmp_path: Path) -> None:
    for kind in ("cats", "dogs"):  # whose images have the same names
        photographs(tmp_path, [str(k) for k in range(10)], ((40, 64), (64, 40)), folder=f"/{kind}")
    photographs(tmp_path, [str(k) for k in range(4)], ((40, 64), (64, 40)), folder="/owls")
    shutil.rmtree(tmp_path / "masks/owls")
    start = plan_params(tmp_path)
    assert start.findings.source["split_by"] == "time"
    assert start.findings.source["splits"] == {"val": 0.2}
    assert start.clips == {"train": 16, "val": 4, "unlabeled": 4} and not start.left_out
    store = prepared(start, tmp_path, tmp_path / "out")
    assert [clip.id for clip in store.clips if clip.split == "val"] == [
        "cats_00008",
        "cats_00009",
        "dogs_00008",
        "dogs_00009",
    ]


def test_photographs_without_masks_of_a_place_that_is_scored_on_are_not_learnt_from(tmp_path: Path) -> None:
    """Each labelled folder is scored on, and its other camera shows the same."""
    for n, place in enumerate(("s1/camA", "s1/camB", "s2/camA", "s2/camB")):
        for k, word in enumerate(WORDS):
            frames, masks = frames_of(10 * n + k, 1)
            write_images(tmp_path / place / "rgb", np.roll(frames, 7 * k + n, 2), f"{word}.jpg")
            if place.endswith("camA"):
                write_images(tmp_path / place / "mask", masks, f"{word}.png")
    source = inspect_folder(tmp_path).source
    assert source["split_by"] == "time"
    assert source["splits"] == {"val": 0.2, "hidden": ("s1/camB", "s2/camB")}


def test_a_folder_for_each_photograph_is_no_sequence(tmp_path: Path) -> None:
    for word in WORDS:
        photographs(tmp_path / word, ["image"], ONE_SIZE)
    start = plan_params(tmp_path)
    assert start.findings.photographs == "no two images belong together"
    assert start.findings.source["images"] == "{clip}/images" and start.clips == {"train": 8, "val": 2}


def test_a_folder_for_each_photograph_may_hold_its_mask(tmp_path: Path) -> None:
    for k, word in enumerate(WORDS):
        frames, masks = frames_of(k, 1)
        write_images(tmp_path / word, frames, "image.png")
        write_images(tmp_path / word, masks, "mask.png")
    start = plan_params(tmp_path)
    assert (start.findings.source["images"], start.findings.source["masks"]) == (
        "{clip}/image.png",
        "{clip}/mask.png",
    )
    assert start.findings.photographs == "no two images belong together" and start.clips == {"train": 8, "val": 2}


@pytest.mark.parametrize("alike", [True, False])
def test_a_numbered_folder_may_hold_each_frame_and_its_mask(alike: bool, tmp_path: Path) -> None:
    truth = {f"street{n}": frames_of(n, 24) for n in range(3)}
    others = np.random.default_rng(0).integers(0, 255, (24, 5, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    for name, (frames, masks) in truth.items():
        for t in range(24):
            place = tmp_path / "raw" / name / f"{t:06d}"
            write_images(place, (frames if alike else others)[t : t + 1], "rgb.png")
            write_images(place, masks[t : t + 1], "mask.png")
    start = plan_params(tmp_path / "raw")
    assert start.findings.source["images"] == "{clip}/{frame}/rgb.png" and start.clips.keys() == {"train", "val"}
    assert bool(start.findings.photographs) is not alike and not start.left_out
    for clip in (store := prepared(start, tmp_path / "raw", tmp_path / "clips")).clips:
        masks = truth[clip.meta["video"]][1][clip.meta["start"] :][: clip.num_frames]
        assert clip.num_frames == (22 if alike else 1) and (store.masks(clip) == masks).all()


def test_frames_that_are_named_by_number_need_no_folder_each(tmp_path: Path) -> None:
    for n, place in enumerate(("day1/ab", "day1/cd", "day2/ef", "day2/gh")):
        frames, masks = frames_of(n, 24)
        write_images(tmp_path / place, frames, "{:04d}_rgb.jpg", 100 * n)
        write_images(tmp_path / place, masks, "{:04d}_mask.png", 100 * n)
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "*/{clip}/{frame}_rgb.jpg" and len(start.findings.sequences) == 4


def test_photographs_without_masks_are_to_be_labelled(tmp_path: Path) -> None:
    photographs(tmp_path, WORDS, ONE_SIZE)
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    start = plan_params(tmp_path)
    said = " ".join(format_plan(start, tmp_path, tmp_path / "params.yaml").split())
    assert "photographs 10, none with masks" in said and "label some of them" in said
    assert " dvc repro prepare_clips " in said and "Kubeflow" not in said and start.clips == {"unlabeled": 10}


def test_frames_of_another_size_make_no_photographs_of_a_video(tmp_path: Path) -> None:
    davis(tmp_path, sequences=2, labelled=2)
    for k in (5, 11):  # two damaged frames
        for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            path = tmp_path / f"{kind}/480p/seq-0/{k:05d}.{ending}"
            Image.open(path).resize((32, 20)).save(path)
    assert not inspect_folder(tmp_path).photographs


def test_photographs_of_a_coco_file_are_clips_of_their_own(tmp_path: Path) -> None:
    images, annotations = [], []
    for k, word in enumerate(WORDS, 1):
        frames, _ = frames_of(k, 1, (40, 64) if k % 2 else (64, 40))
        write_images(tmp_path / "images", frames, f"{word}.jpg")
        images.append({"id": k, "file_name": f"{word}.jpg", "height": frames.shape[1], "width": frames.shape[2]})
        square = [10, 10, 20, 10, 20, 20, 10, 20]
        annotations.append({"id": k, "image_id": k, "category_id": 1, "segmentation": [square]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    dump(tmp_path / "labels.json", content)
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "images/{clip}.jpg" and start.clips == {"train": 8, "val": 2}
    assert list(yaml.safe_load(start.text(tmp_path))) == list(stages_of("photographs"))


def test_photographs_of_labelme_are_clips_with_what_was_drawn(tmp_path: Path) -> None:
    for k, word in enumerate(WORDS):
        write_images(tmp_path / "raw", frames_of(k, 1, (40, 64) if k % 2 else (64, 40))[0], f"{word}.jpg")
        shape = {"label": "cat", "points": [[5, 5], [15, 5], [15, 25], [5, 25]], "shape_type": "polygon"}
        content = {"version": "5.4.1", "shapes": [shape], "imagePath": f"{word}.jpg", "imageData": None}
        if k:  # the first is not labelled
            dump(tmp_path / f"raw/{word}.json", content)
    start = plan_params(tmp_path / "raw")
    source = start.findings.source
    assert (source["format"], source["labels"], source["images"]) == ("labelme", ["*.json"], "{clip}.jpg")
    assert start.clips == {"train": 7, "val": 2, "unlabeled": 1}
    store = prepared(start, tmp_path / "raw", tmp_path / "clips", height=40, width=64)
    expected = np.zeros((40, 64), np.uint8)
    expected[5:25, 5:15] = 1  # of a lying one, whose size stays
    assert (store.masks(store.get("beach_00000"))[0] == expected).all()


def test_photographs_of_roboflow_are_found_by_their_names(tmp_path: Path) -> None:
    files = [f"{word.replace(' ', '-')}_jpg.rf.{digest}.jpg" for word, digest in zip(WORDS, HASHES, strict=True)]
    for split, names in (("train", files[:7]), ("valid", files[7:])):
        for name in names:
            write_images(tmp_path / split, frames_of(1, 1)[0], name)
        content = {
            "images": [{"id": k, "file_name": name, "height": 40, "width": 64} for k, name in enumerate(names)],
            "annotations": [
                {"id": k, "image_id": k, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
                for k in range(len(names))
            ],
            "categories": [{"id": 1, "name": "cat"}],
        }
        dump(tmp_path / split / "_annotations.coco.json", content)
    start = plan_params(tmp_path)
    assert start.findings.source["images"] == "*/{clip}_jpg.rf.*.jpg" and start.clips.total() == 10


@pytest.mark.parametrize("beside", [None, "images/clip.gif"])
def test_photographs_of_several_endings_are_all_found(beside: str | None, tmp_path: Path) -> None:
    """A pattern without an ending would also find videos, so beside these the commonest ending is taken."""
    photographs(tmp_path, ("beach", "boat", "car", "hill", "mill", "oak", "pond", "two dogs"))
    for name in ("beach", "car", "hill"):
        path = tmp_path / f"images/{name}.jpg"
        Image.open(path).save(path.with_suffix(".PNG"))
        path.unlink()
    if beside:
        Image.new("L", (8, 8)).save(tmp_path / beside)
    found = inspect_folder(tmp_path)
    if beside:
        assert found.source["images"] == "images/{clip}.jpg"
        said = "masks of beach, car, hill (3 sequences) have no frames that images/{clip}.jpg finds"
        assert said in found.warnings
    else:
        assert found.source["images"] == "images/{clip}.*" and len(found.labelled) == 8
        assert not any("no frames" in warning or "left out" in warning for warning in found.warnings)


def test_masks_beside_photographs_of_several_endings_are_not_taken_for_photographs(tmp_path: Path) -> None:
    photographs(tmp_path, ("beach", "boat", "car", "hill"))
    for name in ("beach", "boat", "car", "hill"):
        (tmp_path / f"masks/{name}.png").rename(tmp_path / f"images/{name}_mask.png")
    for name in ("beach", "car"):
        path = tmp_path / f"images/{name}.jpg"
        Image.open(path).save(path.with_suffix(".webp"), lossless=True)
        path.unlink()
    assert ".*" not in inspect_folder(tmp_path).source["images"]
