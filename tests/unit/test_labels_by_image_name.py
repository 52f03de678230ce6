"""`labels import` finds frames by the names that their images have in the raw data."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.conftest import moving_squares

from maskcast.__main__ import main
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.labelling.formats.coco import coco_mask
from maskcast.runner.run import run_stage

FRAMES, HEIGHT, WIDTH = 12, 16, 24
BOX = [0, 0, WIDTH // 2, 0, WIDTH // 2, HEIGHT, 0, HEIGHT]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepare(video: str, *names: str) -> ClipStore:
    """Writes images of these names below `raw`, and returns `clips`, whose clips overlap."""
    folder = Path("raw/frames", video)
    folder.mkdir(parents=True)
    for name, frame in zip(names, moving_squares(5, len(names), HEIGHT, WIDTH)[0], strict=True):
        cv2.imwrite(str(folder / f"{name}.png"), frame)
    source = {"layout": "frame_folders", "images": "frames/{clip}", "frames": 8, "window_step": 4}
    source |= {"classes": ["background", "red"], "splits": {"unlabeled": ["one"]}}
    params = {"source": source, "height": HEIGHT, "width": WIDTH, "required_splits": [], "workers": 1}
    run_stage("prepare_clips", params, raw=Path("raw"), clips=Path("clips"))
    return ClipStore(Path("clips"))


def label_coco(*names: str) -> list[str]:
    images = [{"id": k, "file_name": name, "height": HEIGHT, "width": WIDTH} for k, name in enumerate(names)]
    red = {"category_id": 1, "segmentation": [BOX], "iscrowd": 0, "bbox": [0, 0, 12, 16], "area": 192}
    annotations = [red | {"id": k, "image_id": k} for k in range(len(names))]
    content = {"images": images, "categories": [{"id": 1, "name": "red"}], "annotations": annotations}
    Path("labels.json").write_text(json.dumps(content))
    return ["coco", "labels.json"]


def label_cvat(name: str) -> list[str]:
    shape = f'<box label="red" xtl="0" ytl="0" xbr="{WIDTH // 2}" ybr="{HEIGHT}" z_order="0"/>'
    image = f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">{shape}</image>'
    Path("labels.xml").write_text(f"<annotations><version>1.1</version>{image}</annotations>")
    return ["cvat-images", "labels.xml"]


def label_labelme(name: str) -> list[str]:
    shape = {"label": "red", "points": [[0, 0], [WIDTH // 2, HEIGHT]], "shape_type": "rectangle"}
    content = {"shapes": [shape], "imagePath": f"../{name}", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    Path("labels.json").write_text(json.dumps(content))
    return ["labelme", "labels.json"]


def label_youtube(name: str) -> list[str]:
    mask = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH // 2, HEIGHT * WIDTH // 2]}
    video = {"id": 1, "height": HEIGHT, "width": WIDTH, "file_names": [name]}
    red = {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [mask]}
    content = {"videos": [video], "categories": [{"id": 1, "name": "red"}], "annotations": [red]}
    Path("labels.json").write_text(json.dumps(content))
    return ["youtube-vis", "labels.json"]


def label_studio(name: str) -> list[str]:
    value = {"x": 0, "y": 0, "width": 50, "height": 100, "rectanglelabels": ["red"]}
    region = {"id": "a", "type": "rectanglelabels", "original_width": WIDTH, "original_height": HEIGHT}
    address = f"/data/local-files/?d=frames/{name}"
    tasks = [{"id": 1, "data": {"image": address}, "annotations": [{"result": [region | {"value": value}]}]}]
    Path("labels.json").write_text(json.dumps(tasks))
    return ["label-studio", "labels.json"]


def imported(form: str, file: str) -> dict[str, list[int]]:
    """Imports a file into `new`; returns the places of the labels in the video, by clip."""
    words = ["labels", "import", "--format", form, file, "--clips", "clips", "--output", "new"]
    assert main(words) == 0
    new = ClipStore(Path("new"))
    clips = [clip for clip in new.clips if clip.kind == "labelled"]
    return {clip.id: [clip.meta["start"] + t for t in labelled_frames(new, clip)] for clip in clips}


@pytest.mark.parametrize("write", [label_coco, label_cvat, label_labelme, label_youtube, label_studio])
@pytest.mark.parametrize(
    ("first", "step", "name"), [(1, 1, "one/000006.png"), (10, 10, "one/000060.png"), (0, 1, "one/000005.png")]
)
def test_a_label_is_of_the_image_that_it_names(first: int, step: int, name: str, write) -> None:
    prepare("one", *(f"{first + step * k:06d}" for k in range(FRAMES)))
    assert imported(*write(name)) == {"one_00000": [5], "one_00004": [5]}


def test_a_number_that_is_no_image_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    prepare("one", *(f"{10 * k:06d}" for k in range(1, FRAMES + 1)))
    capsys.readouterr()
    assert imported(*label_coco("one/000010.png", "one/000005.png")) == {"one_00000": [0]}
    text = capsys.readouterr().err
    assert "1 frame matches no clip in clips" in text
    assert "labels.json: images[1] (one/000005.png)" in text


def test_names_of_images_that_count_from_0_are_not_stored() -> None:
    assert all("frame_names" not in clip.meta for clip in prepare("one", *map(str, range(FRAMES))).clips)


@pytest.mark.parametrize(
    ("pattern", "named"), [("one_{:06d}", "one_00000_000003.png"), ("one_{:04d}", "one_000003.png")]
)
def test_an_export_comes_back_where_images_are_named_as_its_own(pattern: str, named: str) -> None:
    """The fourth image; the third one of the raw data is called `one_3`."""
    clips = prepare("one", *(pattern.format(k) for k in range(1, FRAMES + 1)))
    imported(*label_coco(f"one/{pattern.format(3)}.png"))
    new = ClipStore(Path("new"))
    assert list(labelled_frames(new, new.get("one_00000"))) == [2]
    Path("frames.csv").write_text("clip,frame\none_00000,2\n")
    Path("new").rename("first")
    words = ["labels", "export", "--masks", "first", "--clips", "clips", "--format", "coco", "--output", "out"]
    assert main(words) == 0
    (image,) = Path("out/images").iterdir()
    assert image.name == named.replace("3", "2")
    (exported,) = clips.frames(clips.get("one_00000"))[2:3]
    np.testing.assert_array_equal(cv2.imread(str(image))[..., ::-1], exported)
    assert imported("coco", "out") == {"one_00000": [2]}


@pytest.mark.parametrize(
    ("first", "step", "numbers", "labelled"),
    [
        (10, 10, (10, 30), [0, 2]),
        (10, 10, (10, 30, 500), [0, 2]),  # the last may be an image that no clip shows
        (1, 1, (3, 12), [2, 11]),
        (10, 10, (10,), [10]),  # it may be the frame 10 of an export
        (1, 1, (0, 3), [0, 3]),
        (10, 10, (5, 30), [5]),
    ],
)
def test_numbers_of_masks_are_those_of_images_where_they_cannot_count_frames(
    first: int, step: int, numbers: tuple[int, ...], labelled: list[int]
) -> None:
    prepare("one", *(f"{first + step * k:06d}" for k in range(FRAMES)))
    masks = Path("masks/one")
    masks.mkdir(parents=True)
    (masks.parent / "labels.txt").write_text("red\n")
    for number in numbers:
        cv2.imwrite(str(masks / f"{number:06d}.png"), np.ones((HEIGHT, WIDTH), np.uint8))
    places = imported("png", "masks")
    assert sorted({t for found in places.values() for t in found}) == labelled


def test_lines_of_mots_may_have_the_numbers_of_images() -> None:
    prepare("one", *(f"{10 * k:06d}" for k in range(1, FRAMES + 1)))
    Path("masks").mkdir()
    Path("masks/labels.txt").write_text("red\n")
    counts = coco_mask(np.ones((HEIGHT, WIDTH), bool))["segmentation"]["counts"]
    Path("masks/one.txt").write_text("".join(f"{t} 1001 1 {HEIGHT} {WIDTH} {counts}\n" for t in (20, 60)))
    imported("mots-txt", "masks")
    new = ClipStore(Path("new"))
    found = {clip.meta["start"] + int(t) for clip in new.clips for t in np.flatnonzero(new.masks(clip)[:, 0, 0])}
    assert found == {1, 5}
