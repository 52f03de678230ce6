"""`maskcast labels`: out, in, and what to label next, as people type it."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.conftest import moving_squares, write_store
from tests.videos import encode

from maskcast.__main__ import main
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.images import read_image
from maskcast.data.labelling.formats.table import FORMATS
from maskcast.data.labelling.propagated_store import write_propagated
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.data.video_files.frames import read_video
from maskcast.errors import MaskcastError
from maskcast.evaluation.forecasts import scored_clips
from maskcast.labels import IGNORE, MASK, LabelMap, single_map
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.params import validate
from maskcast.runner.run import run_stage
from maskcast.stages.train_masker import TrainMasker
from maskcast.training.tasks.segmentation import segmentation_task


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipStore:
    """`clips`, here; every split but test."""
    monkeypatch.chdir(tmp_path)
    return write_store(Path("clips"), height=16, width=24, train=1, val=1, unlabeled=2, hidden=2)


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


def import_one_frame(output: str) -> int:
    """Imports a label of one frame of an unlabelled clip; returns the exit status."""
    image = {"id": 1, "file_name": "unlabeled_0_000003.png", "height": 16, "width": 24}
    content = {"images": [image], "categories": [{"id": 1, "name": "red"}], "annotations": []}
    Path("a.json").write_text(json.dumps(content))
    return main(["labels", "import", "--format", "coco", "a.json", "--clips", "clips", "--output", output])


def test_new_labels_share_the_frames_and_are_what_a_store_written_anew_is(store: ClipStore) -> None:
    assert import_one_frame("new") == 0
    new = ClipStore(Path("new"))
    frames = sorted(path.name for path in Path("clips").glob("frames-*"))
    assert frames and all(Path("new", name).samefile(Path("clips", name)) for name in frames)
    maps = tuple(new.maps.values())
    with ClipWriter(Path("anew"), height=16, width=24, maps=maps, meta=new.meta) as writer:
        writer.skipped += new.skipped
        for clip in new.clips:
            writer.add(
                clip.id,
                split=clip.split,
                kind=clip.kind,
                frames=new.frames(clip) if clip.has_frames else None,
                masks={MASK: new.masks(clip)} if clip.maps else {},
                meta=clip.meta,
            )
    assert {path.name for path in Path("new").iterdir()} == {path.name for path in Path("anew").iterdir()}
    assert all(path.read_bytes() == Path("anew", path.name).read_bytes() for path in Path("new").iterdir())


def test_new_labels_do_not_hide_that_frames_are_damaged(store: ClipStore) -> None:
    with Path("clips/frames-00000.npy").open("r+b") as file:
        file.seek(500)
        byte = file.read(1)
        file.seek(500)
        file.write(bytes([byte[0] ^ 1]))
    assert import_one_frame("new") == 0
    with pytest.raises(MaskcastError, match=r"new/frames-00000\.npy: contents differ from index\.json"):
        ClipStore(Path("new")).verify()


def test_labels_that_fail_midway_leave_nothing_and_the_frames_as_they_were(
    store: ClipStore, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = Path("clips/labels-mask-00000.zst")
    masks.write_bytes(masks.read_bytes()[:-1] + b"?")  # of the last clip with masks, after frames were linked
    before = {path.name: path.read_bytes() for path in Path("clips").iterdir()}
    assert import_one_frame("new") == 2
    assert "not sound masks of clip" in capsys.readouterr().err
    assert not list(Path().glob("new*"))
    assert {path.name: path.read_bytes() for path in Path("clips").iterdir()} == before


def test_what_does_not_pair_is_listed(store: ClipStore, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"else_{t:06d}.png" for t in range(7)] + ["unlabeled_0_000003.png"]
    images = [{"id": k, "file_name": name, "height": 16, "width": 24} for k, name in enumerate(names)]
    content = {"images": images, "categories": [{"id": 1, "name": "red"}], "annotations": []}
    Path("a.json").write_text(json.dumps(content))
    words = ["labels", "import", "--format", "coco", "a.json", "--clips", "clips", "--rename", "rot=red"]
    assert main([*words, "--output", "new"]) == 0
    said = capsys.readouterr()
    assert "--rename 'rot=red': no labelled frame has 'rot'" in said.err
    assert "warning: a.json does not know blue: its pixels count as background in 1 frame; label" in said.err
    assert (
        "7 frames match no clip in clips (<video or clip>_<frame>.png or <video or clip>/<frame>.png, frames from "
        "0 on, as in exports, or <video>/<name of the image in the raw data>):" in said.err
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


def write_windows(root: Path, starts: tuple[int, ...], length: int, **labelled: tuple[int, ...]) -> ClipStore:
    """Writes windows of one video `street`; those of a split's starts have labels, the others are `unlabeled`."""
    frames, truth = moving_squares(5, 44, 16, 24)
    with ClipWriter(root, height=16, width=24, maps=single_map(("background", "red", "blue"))) as writer:
        for start in starts:
            split = next((name for name, given in labelled.items() if start in given), "unlabeled")
            masks = {} if split == "unlabeled" else {MASK: truth[start : start + length]}
            writer.add(
                f"street_{start:05d}",
                split=split,
                kind="labelled" if masks else "unlabelled",
                frames=frames[start : start + length],
                masks=masks,
                meta={"video": "street", "start": start, "stride": 1},
            )
    return ClipStore(root)


def write_coco(names: tuple[str, ...], width: int = 24, height: int = 16) -> None:
    """Writes `a.json`: the left half of each frame is red."""
    images = [{"id": k, "file_name": name, "height": height, "width": width} for k, name in enumerate(names)]
    box = [0, 0, width // 2, 0, width // 2, height, 0, height]
    red = {"category_id": 1, "segmentation": [box], "iscrowd": 0, "bbox": [0, 0, width // 2, height]}
    annotations = [red | {"id": k + 1, "image_id": k, "area": width * height // 2} for k in range(len(names))]
    content = {"images": images, "categories": [{"id": 1, "name": "red"}], "annotations": annotations}
    Path("a.json").write_text(json.dumps(content))


def import_coco(clips: str, output: str, *words: str) -> ClipStore:
    given = ["labels", "import", "--format", "coco", "a.json", "--clips", clips, "--output", output]
    assert main([*given, *words]) == 0
    return ClipStore(Path(output))


def labelled_places(store: ClipStore) -> dict[str, list[int]]:
    """Returns the labelled frames of each clip by their number in the video."""
    return {
        clip.id: [clip.video_frames[t] for t in labelled_frames(store, clip)]
        for clip in store.clips
        if clip.kind == "labelled"
    }


@pytest.mark.parametrize("name", ["street_00008_000003.png", "street_000011.png"])
def test_a_label_is_of_its_frame_in_every_clip_of_the_video(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_windows(Path("windows"), (0, 4, 8, 12), 8)
    write_coco((name,))
    found = import_coco("windows", "new")
    assert labelled_places(found) == {"street_00004": [11], "street_00008": [11]}
    assert "labelled 1 frame of 2 clips, and 1 more where clips overlap: new" in capsys.readouterr().out
    first, second = (found.masks(found.get(f"street_{start:05d}"))[11 - start] for start in (4, 8))
    np.testing.assert_array_equal(first, second)
    assert (first[:, :12] == 1).all() and (first[:, 12:] == 0).all()
    assert [clip.split for clip in found.clips] == ["unlabeled", "train", "train", "unlabeled"]


def test_labels_that_overlap_keep_what_each_clip_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_windows(Path("windows"), (0, 4), 8)
    write_coco(("street_00000_000004.png",))
    content = json.loads(Path("a.json").read_text())
    content["images"].append({"id": 7, "file_name": "street_00004_000000.png", "height": 16, "width": 24})
    for images in (content["images"], content["images"][::-1]):
        Path("a.json").write_text(json.dumps(content | {"images": images}))
        found = import_coco("windows", f"new{images[0]['id']}")
        assert (found.masks(found.get("street_00000"))[4, :, :12] == 1).all()
        assert (found.masks(found.get("street_00004"))[0] == 0).all()
    write_coco(("street_000004.png", "street_00004_000000.png"))
    words = ("labels", "import", "--format", "coco", "a.json", "--clips", "windows", "--output", "twice")
    assert "frame 0 of clip 'street_00004' is listed twice" in failed(capsys, *words)


def test_only_clips_that_have_a_file_of_mots_become_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of one clip lists frames 2 and 5, the last of which is in another clip, too."""
    monkeypatch.chdir(tmp_path)
    write_windows(Path("windows"), (0, 4, 8), 8)
    with ClipWriter(Path("masks"), height=16, width=24, maps=single_map(("background", "red", "blue"))) as writer:
        red = np.isin(np.arange(8), (2, 5))[:, None, None] * np.ones((1, 16, 24), np.uint8)
        meta = {"video": "street", "start": 0, "stride": 1}
        writer.add("street_00000", split="train", kind="labelled", masks={MASK: red.astype(np.uint8)}, meta=meta)
    assert main(["labels", "export", "--format", "mots-txt", "--masks", "masks", "--output", "out"]) == 0
    words = ["labels", "import", "--format", "mots-txt", "--first-frame", "0", "out", "--output", "new"]
    assert main([*words, "--clips", "windows"]) == 0
    found = labelled_places(ClipStore(Path("new")))
    assert found == {"street_00000": list(range(8)), "street_00004": [5]}


def test_exported_labels_are_found_again_in_clips_that_are_cut_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Window step 8, then 5: all six labels remain; frame 11, which two clips share, is exported once."""
    monkeypatch.chdir(tmp_path)
    write_windows(Path("old"), (0, 8, 16, 24), 12, train=(0, 8, 16, 24))
    Path("frames.csv").write_text(
        "clip,frame\nstreet_00000,2\nstreet_00000,11\nstreet_00008,3\nstreet_00008,7\n"
        "street_00016,1\nstreet_00024,0\nstreet_00024,9\n"
    )
    words = ["labels", "export", "--format", "coco", "--masks", "old", "--clips", "old", "--frames", "frames.csv"]
    assert main([*words, "--output", "out"]) == 0
    said = capsys.readouterr()
    assert "wrote 6 frames of 4 clips as coco: out" in said.out
    assert "images and masks are 24x16 (width x height), the size of the clips" in said.err
    numbers = [2, 11, 15, 17, 24, 33]
    assert sorted(path.name for path in Path("out/images").iterdir()) == [f"street_{n:06d}.png" for n in numbers]
    write_windows(Path("new"), tuple(range(0, 31, 5)), 12)
    words = ["labels", "import", "--format", "coco", "out", "--clips", "new", "--output", "labelled"]
    assert main(words) == 0
    found = ClipStore(Path("labelled"))
    places = labelled_places(found)
    assert {n for frames in places.values() for n in frames} == set(numbers)
    truth = moving_squares(5, 44, 16, 24)[1]
    for clip_id, frames in places.items():
        start = found.get(clip_id).meta["start"]
        assert frames == [n for n in numbers if start <= n < start + 12]
        for n in frames:
            np.testing.assert_array_equal(found.masks(found.get(clip_id))[n - start], truth[n])


def test_of_clips_that_overlap_the_one_with_labels_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first clip's masks are generated; of the second clip, frames 4 and 6 of the video have labels."""
    monkeypatch.chdir(tmp_path)
    red, blue = np.ones((8, 16, 24), np.uint8), np.full((8, 16, 24), 2, np.uint8)
    maps, meta = single_map(("background", "red", "blue")), {"labelled_frames": ["mask"]}
    with ClipWriter(Path("masks"), height=16, width=24, maps=maps, meta=meta) as writer:
        for start, masks, split, kind in ((0, red, "unlabeled", "unlabelled"), (4, blue, "train", "labelled")):
            of_clip = {"video": "street", "start": start, "stride": 1}
            of_clip |= {"labelled_frames": {"mask": [0, 2]}} if kind == "labelled" else {}
            writer.add(f"street_{start}", split=split, kind=kind, masks={MASK: masks}, meta=of_clip)
    Path("frames.csv").write_text("clip,frame\nstreet_0,4\nstreet_0,5\nstreet_4,0\nstreet_4,1\nstreet_4,2\n")
    words = ["labels", "export", "--format", "png", "--masks", "masks", "--frames", "frames.csv"]
    assert main([*words, "--output", "out"]) == 0
    found = {file.stem: int(np.asarray(Image.open(file)).max()) for file in Path("out/masks/street").iterdir()}
    assert found == {"000004": 2, "000005": 1, "000006": 2}


def test_images_are_exported_at_the_size_of_the_raw_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    encode(Path("raw/phone.mp4"), "libx264", frames=20, size=(48, 72))
    source = {"layout": "videos", "frames": 8, "window_step": 4, "classes": ["background", "red", "blue"]}
    params = {"source": source, "height": 16, "width": 24, "required_splits": [], "workers": 1}
    Path("params.yaml").write_text(yaml.safe_dump({"prepare_clips": params}))
    run_stage("prepare_clips", params, raw=Path("raw"), clips=Path("clips"))
    store = ClipStore(Path("clips"))
    with ClipWriter(Path("masks"), height=16, width=24, maps=single_map(store.classes)) as writer:
        for k, clip in enumerate(store.clips):
            writer.add(
                clip.id,
                split="unlabeled",
                kind="unlabelled",
                masks={MASK: moving_squares(k, 8, 16, 24)[1]},
                confidence={MASK: np.full((8, 16, 24), 128, np.uint8)},
                meta=clip.meta,
            )
    Path("frames.csv").write_text("clip,frame\nphone_00004,3\nphone_00012,7\n")
    words = ["labels", "export", "--masks", "masks", "--frames", "frames.csv", "--raw", "raw"]
    capsys.readouterr()
    for name in set(FORMATS) - {"cvat-video", "mots-txt", "cityscapes"}:
        assert main([*words, "--format", name, "--clips", "clips", "--output", name]) == 0
        assert "images and masks are 72x48 (width x height), the size in raw" in capsys.readouterr().err
        whole = read_video(Path("raw/phone.mp4"))
        for number in (7, 19):
            image = read_image(Path(name, f"images/phone_{number:06d}.png"))
            np.testing.assert_array_equal(image, whole[number])
        assert len(list(Path(name, "images").iterdir())) == 2
        reader = {"label-studio": "label-studio-predictions"}.get(name, name)
        read = ["labels", "import", "--format", reader, name, "--clips", "clips", "--output", f"{name}-back"]
        assert main(read) == 0
        found, masks = ClipStore(Path(f"{name}-back")), ClipStore(Path("masks"))
        for clip_id, t in (("phone_00004", 3), ("phone_00012", 7)):
            mask = found.masks(found.get(clip_id))[t]
            np.testing.assert_array_equal(mask, masks.masks(masks.get(clip_id))[t])
    coco = [*words, "--format", "coco", "--output", "no"]
    assert "--raw: give --clips, too" in failed(capsys, *coco)
    nowhere = failed(capsys, *coco, "--clips", "clips", "--raw", "nowhere")
    assert "--raw nowhere: no such folder; give the raw data" in nowhere
    encode(Path("raw/phone.mp4"), "libx264", frames=20, size=(48, 72), first=7)
    assert "raw: clip 'phone_00004' shows something else; give the raw data and the --params" in failed(
        capsys, *coco, "--clips", "clips"
    )
    params["source"] = source | {"window_step": 5}
    Path("params.yaml").write_text(yaml.safe_dump({"prepare_clips": params}))
    assert "raw: has no clip 'phone_00004'; give the" in failed(capsys, *coco, "--clips", "clips")


def test_files_name_a_video_without_its_extension_unless_two_videos_are_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frames, truth = moving_squares(5, 4, 16, 24)
    for root, videos in {"one": ["a/street.mp4", "b"], "two": ["street.mp4", "street.MOV"]}.items():
        with ClipWriter(Path(root), height=16, width=24, maps=single_map(("background", "red", "blue"))) as writer:
            for k, video in enumerate(videos):
                meta = {"video": video, "start": 3, "stride": 1}
                writer.add(f"{k}", split="train", kind="labelled", frames=frames, masks={MASK: truth}, meta=meta)
        words = ["labels", "export", "--format", "coco", "--masks", root, "--output", f"{root}-out"]
        assert main(words) == 0
        named = [one["name"] for one in json.loads(Path(f"{root}-out/annotations.json").read_text())["videos"]]
        assert named == {"one": ["a/street", "b"]}.get(root, videos)
        assert (
            main(
                ["labels", "import", "--format", "coco", f"{root}-out", "--clips", root, "--output", f"{root}-in"]
            )
            == 0
        )
        assert "labelled 8 frames of 2 clips" in capsys.readouterr().out
    for name, root in (("a%2Fstreet.mp4", "one"), ("b.mp4", "one"), ("street.mp4", "two")):
        write_coco((f"{name}_000004.png",))
        import_coco(root, f"{name}-{root}")
    write_coco(("street_000004.png",))  # which of the two?
    words = ("labels", "import", "--format", "coco", "a.json", "--clips", "two", "--output", "no")
    assert "a.json: has 1 frame, none of a clip in two" in failed(capsys, *words)


def test_a_video_that_was_annotated_in_cvat_labels_its_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The task holds the file of the video, at its own size; frames 5, 10 and 11 are outside of all clips."""
    monkeypatch.chdir(tmp_path)
    with ClipWriter(Path("clips"), height=16, width=24, maps=single_map(("background", "red", "blue"))) as writer:
        for start in (0, 1, 6):
            meta = {"video": "street.mp4", "start": start, "stride": 1}
            frames = np.zeros((4, 16, 24, 3), np.uint8)
            writer.add(f"street_{start}", split="unlabeled", kind="unlabelled", frames=frames, meta=meta)
    boxes = "".join(
        f'<box frame="{t}" keyframe="1" outside="0" occluded="0" xtl="0" ytl="0" xbr="240" ybr="320" z_order="0"/>'
        for t in (3, 5, 6)
    )
    Path("annotations.xml").write_text(
        "<annotations><version>1.1</version><meta><task><name>my task</name><size>12</size>"
        "<original_size><width>480</width><height>320</height></original_size><source>street.mp4</source></task>"
        f'</meta><track id="0" label="red" source="manual">{boxes}</track></annotations>'
    )
    words = ["labels", "import", "--format", "cvat-video", "annotations.xml", "--clips", "clips"]
    assert main([*words, "--empty", "unlabelled", "--output", "new"]) == 0
    assert "3 frames match no clip in clips" in capsys.readouterr().err
    found = ClipStore(Path("new"))
    assert labelled_places(found) == {"street_0": [3], "street_1": [3, 4], "street_6": [6, 7, 8, 9]}
    assert (found.masks(found.get("street_0"))[3, :, :12] == 1).all()
    assert (found.masks(found.get("street_0"))[3, :, 12:] == 0).all()


def test_frames_of_a_store_that_may_have_been_cut_by_time_are_found_by_clip_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `fps`, older stores counted start and stride in frames taken, and did not list the video's numbers."""
    monkeypatch.chdir(tmp_path)
    meta = {"video": "street.mp4", "start": 8, "stride": 1, "frame_rate": 5.0}
    with ClipWriter(Path("clips"), height=16, width=24, maps=single_map(("background", "red", "blue"))) as writer:
        frames, masks = moving_squares(5, 8, 16, 24)
        writer.add("street_00008", split="train", kind="labelled", frames=frames, masks={MASK: masks}, meta=meta)
    assert main(["labels", "export", "--format", "png", "--masks", "clips", "--output", "out"]) == 0
    assert {path.name for path in Path("out/masks").iterdir()} == {"street_00008", "labels.txt"}
    write_coco(("street_000009.png",))
    words = ("labels", "import", "--format", "coco", "a.json", "--clips", "clips", "--output", "new")
    assert "has 1 frame, none of a clip in clips" in failed(capsys, *words)


def test_a_video_that_has_the_name_of_a_clip_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames, truth = moving_squares(5, 8, 16, 24)
    with ClipWriter(Path("clips"), height=16, width=24, maps=single_map(("background", "red", "blue"))) as writer:
        for video in ("a", "a_00008"):
            writer.add(
                f"{video}_00008",
                split="train",
                kind="labelled",
                frames=frames,
                masks={MASK: truth},
                meta={"video": video, "start": 8, "stride": 1},
            )
    assert main(["labels", "export", "--format", "coco", "--masks", "clips", "--output", "out"]) == 0
    videos = [one["name"] for one in json.loads(Path("out/annotations.json").read_text())["videos"]]
    assert videos == ["a", "a_00008_00008"]


def test_labels_of_any_size_with_the_aspect_of_the_frames_are_resized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_windows(Path("windows"), (0,), 8)
    for width, height in ((240, 160), (12, 8), (241, 160)):
        write_coco(("street_000003.png",), width, height)
        found = import_coco("windows", f"new{width}")
        mask = found.masks(found.get("street_00000"))[3]
        assert (mask[:, :12] == 1).all() and (mask[:, 12:] == 0).all()
    words = ("labels", "import", "--format", "coco", "a.json", "--clips", "windows", "--output", "no")
    for width, height in ((160, 240), (240, 120)):
        write_coco(("street_000003.png",), width, height)
        assert (
            f"is {width}x{height}, the clips of windows are 24x16 (width x height), of another aspect"
            in failed(capsys, *words)
        )


def test_labels_may_have_the_aspect_of_any_source_of_distorted_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Videos of aspects 1.33, 1.5 and 1.78, as `labels export --raw` writes them, in clips of 1.78."""
    monkeypatch.chdir(tmp_path)
    frames, meta = np.zeros((4, 72, 128, 3), np.uint8), {"source_aspect": [1.333, 1.778]}
    maps = single_map(("background", "red", "blue"))
    with ClipWriter(Path("clips"), height=72, width=128, maps=maps, meta=meta) as writer:
        writer.add("a", split="unlabeled", kind="unlabelled", frames=frames)
    for width, height in ((128, 72), (120, 80), (120, 90)):
        write_coco(("a_000003.png",), width, height)
        import_coco("clips", f"new{width}-{height}")
    for width, height in ((90, 120), (200, 80)):
        write_coco(("a_000003.png",), width, height)
        words = ("labels", "import", "--format", "coco", "a.json", "--clips", "clips", "--output", "no")
        assert "of another aspect ratio" in failed(capsys, *words)


def test_labels_have_the_aspect_of_the_source_of_their_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a portrait and two landscape videos in a store, rotated and cropped labels are told by their clip."""
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    for name, (height, width) in {"phone": (96, 72), "film": (72, 96), "wide": (72, 128)}.items():
        encode(Path(f"raw/{name}.mp4"), "libx264", frames=4, size=(height, width))
    source = {"layout": "videos", "frames": 4, "classes": ["background", "red", "blue"]}
    params = {"source": source, "height": 72, "width": 96, "workers": 1, "required_splits": []}
    run_stage("prepare_clips", params, raw=Path("raw"), clips=Path("clips"))
    aspects = {clip.id: clip.meta.get("source_aspect") for clip in ClipStore(Path("clips")).clips}
    assert aspects == {"film_00000": None, "phone_00000": 0.75, "wide_00000": 1.778}
    for name, size in (("film", (96, 72)), ("phone", (72, 96)), ("phone", (96, 72)), ("wide", (128, 72))):
        write_coco((f"{name}_000003.png",), *size)
        import_coco("clips", f"new-{name}-{size[0]}")
    for name, size in (("film", (72, 96)), ("film", (128, 72)), ("phone", (128, 72)), ("wide", (72, 128))):
        write_coco((f"{name}_000003.png",), *size)
        words = ("labels", "import", "--format", "coco", "a.json", "--clips", "clips", "--output", "no")
        assert "of another aspect ratio" in failed(capsys, *words)


def test_a_video_that_is_scored_on_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As prepare_clips does, which puts a video with some labels into one split."""
    monkeypatch.chdir(tmp_path)
    write_windows(Path("windows"), (0, 8, 16), 8)
    write_coco(("street_000003.png",))
    found = import_coco("windows", "val", "--split", "val")
    left = [("val", "unlabelled")] * 2
    assert [(clip.split, clip.kind) for clip in found.clips] == [("val", "labelled"), *left]
    assert [clip.id for clip in scored_clips(found, "val")] == ["street_00000"]
    assert "2 clips without labels left the split unlabeled, because labels of the" in capsys.readouterr().err
    write_windows(Path("some"), (0, 8, 16), 8, val=(16,))
    found = import_coco("some", "followed")
    assert [(clip.split, clip.kind) for clip in found.clips] == [
        ("val", "labelled"),
        ("val", "unlabelled"),
        ("val", "labelled"),
    ]
    said = capsys.readouterr().err
    assert "1 clip joins the split val, because other labels of the same video are in it" in said
    assert "1 clip without labels left the split unlabeled" in said
    write_windows(Path("rest"), (0, 8, 16), 8, train=(16,))
    found = import_coco("rest", "trained")
    assert [clip.split for clip in found.clips] == ["train", "unlabeled", "train"]
    assert "joins" not in capsys.readouterr().err


def test_a_split_that_is_given_is_that_of_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    warning = "warning: 2 training clips and labels that are scored are from the same video, e.g. 'street_000"
    write_coco(("street_000003.png",))
    write_windows(Path("trained"), (0, 8, 16), 8, train=(16,))
    found = import_coco("trained", "val", "--split", "val")
    assert [clip.split for clip in found.clips] == ["val", "unlabeled", "train"]
    assert f"{warning}08'" in capsys.readouterr().err
    write_windows(Path("scored"), (0, 8, 16), 8, val=(16,))
    found = import_coco("scored", "train", "--split", "train")
    assert [clip.split for clip in found.clips] == ["train", "unlabeled", "val"]
    assert f"{warning}00'" in capsys.readouterr().err


def test_a_video_whose_labels_are_in_several_splits_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_windows(Path("both"), (0, 8, 16, 24), 8, train=(16,), val=(24,))
    write_coco(("street_000003.png",))
    found = import_coco("both", "new")
    assert [clip.split for clip in found.clips] == ["train", "unlabeled", "train", "val"]
    assert "warning: 3 training clips and labels that are scored are from the" in capsys.readouterr().err


def test_objects_are_labelled_in_whole_clips_and_other_clips_of_their_video_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    maps = (LabelMap("objects", ("background", "red"), "instances"),)
    with ClipWriter(Path("clips"), height=16, width=24, maps=maps) as writer:
        for start in (0, 2, 4):
            frames = np.zeros((4, 16, 24, 3), np.uint8)
            meta = {"video": "street", "start": start, "stride": 1}
            writer.add(f"street_{start}", split="unlabeled", kind="unlabelled", frames=frames, meta=meta)
    write_coco(tuple(f"street_0_{t:06d}.png" for t in range(4)))
    found = import_coco("clips", "one", "--split", "val")
    assert [(clip.split, clip.kind) for clip in found.clips] == [("val", "labelled")] + [("val", "unlabelled")] * 2
    assert "2 clips without labels left the split unlabeled" in capsys.readouterr().err
    write_coco(tuple(f"street_{t:06d}.png" for t in range(8)))
    found = import_coco("clips", "all", "--split", "val")
    assert [clip.split for clip in found.clips] == ["val"] * 3
    assert all((found.masks(clip)[:, :, :12] > 0).all() for clip in found.clips)
    write_coco(("street_000003.png",))
    words = ("labels", "import", "--format", "coco", "a.json", "--clips", "clips", "--output", "no")
    assert "has objects, so all frames need labels" in failed(capsys, *words)


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
    assert "Frames count from 0, as in frames.csv" in page and "Colours" not in page, "nothing is found"
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
    key = re.search('aria-label="Colours of classes">(.*?)</ul>', Path("suggested/frames.html").read_text())[1]
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
            "hidden clips, which cannot be labelled; remove their frames from it: 'hidden_0', 'hidden_1'",
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
    size = {"height": 16, "width": 24}
    images = [{"id": k, "file_name": f"hidden_{k}_000000.png", **size} for k in range(2)]
    content = {"images": images, "categories": [{"id": 1, "name": "red"}], "annotations": []}
    Path("hidden.json").write_text(json.dumps(content))
    before = sorted(Path().rglob("*"))
    assert message in failed(capsys, "labels", *words.split())
    assert sorted(Path().rglob("*")) == before


def test_hidden_clips_do_not_go_out(store: ClipStore, capsys: pytest.CaptureFixture[str]) -> None:
    """A masker masks them like all clips, for forecasts; what is exported can be imported again."""
    with ClipWriter(Path("masks"), height=16, width=24, maps=single_map(store.classes)) as writer:
        for clip_id, kind, split in (("unlabeled_0", "unlabelled", "unlabeled"), ("hidden_0", "hidden", "hidden")):
            masks = moving_squares(1, store.get(clip_id).num_frames, 16, 24)[1]
            writer.add(clip_id, split=split, kind=kind, masks={MASK: masks})
    words = ["--format", "coco", "--clips", "clips", "--output"]
    assert main(["labels", "export", *words, "out", "--masks", "masks"]) == 0
    assert "left out 1 hidden clip, which cannot be labelled" in "".join(capsys.readouterr())
    assert not list(Path("out").rglob("hidden*"))
    assert main(["labels", "import", *words, "labelled", "out"]) == 0


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
    write_relabelled(Path("again"), ClipStore("green"), labels, {})
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
