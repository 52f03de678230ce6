"""Everything that reads files of others: small sound samples of each, and the function that reads them.

A sample is a folder; its files are attacked one at a time, and then all of it is read as the project does.
"""

import base64
import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from PIL import Image
from tests.attacks import of_runs

from maskcast.data.sources.base import SourceConfig
from maskcast.errors import MaskcastError
from maskcast.reading import read_file, read_json

SIZE = (16, 24)
CLASSES = ("background", "car", "person")


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Attributes:
        write: writes a sound sample into a folder.
        read: reads it.
        files: names or patterns of those that are attacked.
        agree: makes the checksums of a sample those of its harmed files, so that more than these are tried.
    """

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    files: tuple[str, ...]
    agree: Callable[[Path], object] = lambda folder: None


def frames_of(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, *size, 3), dtype=np.uint8)


def save_images(folder: Path, images: Sequence[np.ndarray], name: str = "{:05d}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(k))


def save_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def save_video(path: Path, frames: np.ndarray, codec: str = "mpeg4") -> None:
    from tests.videos import encode_frames

    encode_frames(path, frames, codec)


# The clip store.


def write_store(folder: Path) -> None:
    from maskcast.data.clip_store.writer import ClipWriter
    from maskcast.labels import LabelMap

    maps = (LabelMap("mask", CLASSES), LabelMap("objects", CLASSES, "instances"))
    masks = np.random.default_rng(1).integers(0, 3, (3, *SIZE)).astype(np.uint8)
    objects = 7 * (masks > 1).astype(np.uint16)
    both, sure = {"mask": masks, "objects": objects}, {"mask": masks + 9}
    with ClipWriter(folder / "clips", height=SIZE[0], width=SIZE[1], maps=maps) as writer:
        kinds = {"split": "train", "kind": "labelled"}
        writer.add("a", frames=frames_of(3), masks=both, confidence=sure, objects={"objects": {7: 1}}, **kinds)
        writer.add("b", frames=frames_of(2), split="hidden", kind="hidden")


def write_store_1(folder: Path) -> None:
    import zstandard

    root = folder / "clips"
    root.mkdir()
    np.save(root / "frames-00000.npy", frames_of(3))
    masks = zstandard.compress(np.ones((3, *SIZE), np.uint8).tobytes())
    (root / "masks-00000.zst").write_bytes(masks)
    shards: dict[str, Any] = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in root.iterdir()
    }
    shards["frames-00000.npy"]["frames"] = 3
    clip = {"id": "a", "split": "train", "kind": "labelled", "num_frames": 3, "confidence": None, "meta": {}}
    clip["frames"] = {"shard": "frames-00000.npy", "start": 0, "size": 3}
    clip["masks"] = {"shard": "masks-00000.zst", "start": 0, "size": len(masks)}
    index = {
        "format": "maskcast-clips/1",
        "height": SIZE[0],
        "width": SIZE[1],
        "classes": CLASSES,
        "clips": [clip],
    }
    save_json(root / "index.json", index | {"meta": {}, "skipped": [], "shards": shards})


def agreeing_store(folder: Path) -> None:
    index = folder / "clips/index.json"
    with suppress(Exception):  # where the index itself was harmed
        content = read_json(index)
        for name, shard in content["shards"].items():
            shard["bytes"] = (index.parent / name).stat().st_size
        index.write_text(json.dumps(content))


def read_store(folder: Path) -> None:
    from maskcast.data.clip_store.reader import ClipStore

    store = ClipStore(folder / "clips")
    for clip in store.clips:
        store.get(clip.id)
        if clip.has_frames:
            store.frames(clip).sum()
        for name in clip.maps:
            one = store.of(name)
            one.masks(clip).sum()
            if one.has_confidence(clip):
                one.confidence(clip, slice(1, None)).sum()


# Raw layouts.


def write_competition(folder: Path) -> None:
    for split in ("train", "val"):
        video = folder / f"raw/{split}/video_{len(split)}"
        save_images(video, frames_of(3), "image_{}.png")
        np.save(video / "mask.npy", np.ones((3, *SIZE), np.uint8))
        (video.parent / "annotations.txt").write_text(f"{video.name} 0 2 0 \n")


def write_clevrer(folder: Path) -> None:
    save_video(folder / "raw/video_train/video_00003.mp4", frames_of(22))
    item = {"object_id": 0, "location": [0.0, 0.0, 0.2], "orientation": [0.0, 0.0, 0.0]}
    known = {"object_id": 0, "shape": "cube", "material": "rubber", "color": "red"}
    trajectory = [{"frame_id": k, "objects": [item]} for k in range(22)]
    content = {"object_property": [known], "motion_trajectory": trajectory}
    for number in (3, 6):
        save_json(folder / f"raw/annotation_train/annotation_{number:05d}.json", content)


def write_frame_folders(folder: Path) -> None:
    for clip in ("a", "b"):
        save_images(folder / f"raw/JPEGImages/{clip}", frames_of(8), "{:05d}.jpg")
        save_images(folder / f"raw/Annotations/{clip}", [np.full(SIZE, k % 3, np.uint8) for k in range(8)])
    (folder / "raw/classes.yaml").write_text("background:\ncar: {part: wheel}\nperson:\n")


def write_panoptic(folder: Path) -> None:
    names = [f"{word}.png" for word in ("ant", "bee", "cow", "dog")]
    for k, (name, frame) in enumerate(zip(names, frames_of(4), strict=True)):
        save_images(folder / "raw/images", [frame], name)
        save_images(folder / "raw/panoptic", [np.full((*SIZE, 3), (7, k, 0), np.uint8)], name)
    images = [{"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for k, name in enumerate(names)]
    annotations = [
        {"image_id": k, "file_name": name, "segments_info": [{"id": 7 + 256 * k, "category_id": 1 + k % 2}]}
        for k, name in enumerate(names)
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES[1:], 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    save_json(folder / "raw/panoptic.json", content)


def write_videos(folder: Path) -> None:
    save_video(folder / "raw/one.mp4", frames_of(8))
    save_video(folder / "raw/two.avi", frames_of(8))
    save_video(folder / "raw/three.mkv", frames_of(8), "libx264")


def write_green_screen(folder: Path) -> None:
    from maskcast.simulator.figures import simulate_green_screen

    for number in range(2):
        frames, alpha = simulate_green_screen(number, frames=3, height=SIZE[0], width=SIZE[1])
        save_images(folder / f"raw/videos/actor_{number}", frames)
        save_images(folder / f"raw/mattes/actor_{number}", alpha)
    save_images(folder / "raw/backgrounds", frames_of(2), "wall_{}.png")


def write_green_log(folder: Path) -> None:
    for split in ("train", "val"):
        root = folder / f"raw/{split}"
        save_images(root / "input", frames_of(2), "{}.jpg")
        save_images(root / "labels", frames_of(2), "{}.jpg")
        names = {"inputs": "input", "labels": "labels"}
        save_json(
            root / "out_log.json",
            {key: [[f"x/{at}/{k}.jpg", k == 0] for k in (0, 1)] for key, at in names.items()},
        )


def read_raw(folder: Path, **source: Any) -> None:
    from maskcast.params import validate
    from maskcast.stages.prepare_clips import PrepareClips

    params = validate(PrepareClips, {"source": source, "height": SIZE[0], "width": SIZE[1]}, "params.yaml")
    assert isinstance(params.source, SourceConfig)
    listing = params.source.listing(folder / "raw", height=SIZE[0], width=SIZE[1], seed=0)
    for _, reason in listing.skipped:
        assert len(reason) < 1000, reason
    for clip in (*listing.clips, *listing.backgrounds):
        clip.load()


def inspect(folder: Path) -> None:
    from maskcast.data.inspection.inspect_folder import inspect_folder

    inspect_folder(folder / "raw")


# Labels.


def label_map_of(name: str) -> str:
    """The map that is exchanged: objects, where the format numbers them through a clip."""
    return "mask" if name.startswith("label-studio") else "objects"


def write_labels(folder: Path, name: str) -> None:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.data.labelling.exporting import export_labels
    from maskcast.data.labelling.formats.table import get_format

    write_store(folder)
    form = get_format(name)
    store = ClipStore(folder / "clips", label_map_of(name))
    export_labels(folder / "labels", form, store, None if form.whole_clips else {"a": [0, 1, 2]}, None)


def read_labels(folder: Path, name: str) -> None:
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.data.labelling.formats.table import get_format
    from maskcast.data.labelling.importing import import_labels

    form = get_format(name)
    store = ClipStore(folder / "clips", label_map_of(name))
    import_labels(folder / "out", form, folder / "labels", store, rename={}, empty="background", split="train")


def write_annotated(folder: Path) -> None:
    """Tasks of Label Studio that people annotated: shapes, brushes and bitmasks."""
    write_labels(folder, "label-studio")
    file = next((folder / "labels").rglob("*.json"))
    tasks = json.loads(file.read_text())
    shapes: dict[str, dict[str, Any]] = {"polygonlabels": {"points": [[10, 10], [90, 10], [50, 90]]}, "ellipselabels": {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10}}  # fmt: skip
    picture = io.BytesIO()
    Image.fromarray(np.full((*SIZE, 4), 255, np.uint8)).save(picture, "PNG")
    text = base64.b64encode(picture.getvalue()).decode()
    shapes["bitmasklabels"] = {"imageDataURL": f"data:image/png;base64,{text}"}
    for number, task in enumerate(tasks):
        task["id"], result = number, task.pop("predictions")[0]["result"]
        for kind, value in shapes.items():
            known = {"id": kind, "type": kind, "original_width": SIZE[1], "original_height": SIZE[0]}
            result.append(known | {"value": value | {kind: ["car"]}})
        task["annotations"] = [{"result": result}]
    file.write_text(json.dumps(tasks))


def read_frames(folder: Path) -> None:
    from maskcast.data.labelling.exporting import read_frames_list

    read_frames_list(folder / "frames.csv")


# Detection.


def write_detection(folder: Path, layout: str) -> None:
    pictures = {"coco": "pictures", "voc": "JPEGImages", "label_files": "training/images"}[layout]
    save_images(folder / "raw" / pictures, frames_of(2), "{}.jpg")
    if layout == "coco":
        save_json(folder / "raw/labels.json", coco_truth(False))
    if layout == "voc":
        for place in ("Annotations", "ImageSets/Main"):
            (folder / "raw" / place).mkdir(parents=True)
        (folder / "raw/ImageSets/Main/train.txt").write_text("0\n1\n")
        for k in range(2):
            box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
            size = "<size><width>24</width><height>16</height><depth>3</depth></size>"
            text = f"<annotation>{size}<object><name>car</name>{box}</object></annotation>"
            (folder / f"raw/Annotations/{k}.xml").write_text(text)
    if layout == "label_files":
        (folder / "raw/training/labels").mkdir()
        for k in range(2):
            (folder / f"raw/training/labels/{k}.yml").write_text(
                "labels: [car, cat]\nbboxes: [[1, 2, 9, 8], [0, 0, 4, 4]]\n"
            )


def coco_truth(masks: bool = True) -> dict[str, Any]:
    images = [{"id": 10 + k, "file_name": f"{k}.jpg", "height": SIZE[0], "width": SIZE[1]} for k in range(2)]
    annotations: list[dict[str, Any]] = [
        {"id": k, "image_id": 10 + k % 2, "category_id": 1 + k % 2, "bbox": [1, 2, 8, 6], "area": 48, "iscrowd": 0}
        for k in range(3)
    ]
    if masks:
        from pycocotools import mask as coco_mask

        packed = coco_mask.encode(np.asfortranarray(np.ones(SIZE, np.uint8)))
        text = {"size": list(SIZE), "counts": packed["counts"].decode()}
        forms = [[[1, 1, 9, 1, 9, 8]], {"size": list(SIZE), "counts": [10, 40, SIZE[0] * SIZE[1] - 50]}, text]
        for one, form in zip(annotations, forms, strict=True):
            one["segmentation"] = form
    return {
        "images": images,
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "cat"}],
        "annotations": annotations,
    }


def read_detection(folder: Path, **source: Any) -> None:
    from maskcast.data.images import read_image
    from maskcast.params import validate
    from maskcast.stages.prepare_detection import PrepareDetection

    params = validate(PrepareDetection, {"source": source}, "params.yaml")
    for images in params.source.listing(folder / "raw").splits.values():
        for one in images:
            read_image(one.path)


def write_detection_store(folder: Path) -> None:
    from tests.conftest import write_detection_set

    write_detection_set(folder / "set", train=2, val=1)


def agreeing_detection(folder: Path) -> None:
    about = folder / "set/dataset.json"
    with suppress(Exception):
        content = read_json(about)
        for name, split in content["splits"].items():
            split["sha256"] = hashlib.sha256(read_file(about.parent / f"{name}.json")).hexdigest()
        about.write_text(json.dumps(content))


def read_detection_store(folder: Path) -> None:
    from maskcast.data.detection.dataset import DetectionSet

    data = DetectionSet(folder / "set")
    for name in data.about["splits"]:
        split = data.split(name)
        split.digest()
        for n in range(len(split)):
            split.image(n), split.boxes(n), split.labels(n)


def write_coco(folder: Path) -> None:
    truth = coco_truth()
    keys = ("image_id", "category_id", "bbox", "segmentation")
    save_json(folder / "gt.json", truth)
    save_json(
        folder / "dt.json", [{key: one[key] for key in keys} | {"score": 0.5} for one in truth["annotations"]]
    )


def read_coco(folder: Path) -> None:
    from maskcast.evaluation.coco.evaluator import evaluate
    from maskcast.evaluation.coco.files import read_detections, read_truth

    for kind in ("bbox", "segm"):
        truth = read_truth(folder / "gt.json", kind)
        evaluate(truth, read_detections(folder / "dt.json", truth, kind), kind)


# Params and pointers.


def write_params(folder: Path) -> None:
    root = Path(__file__).parents[2]
    (folder / "params.yaml").write_text((root / "params.yaml").read_text())


def read_params(folder: Path) -> None:
    from maskcast.params import flatten, load_params_file, params_hash, section, validate
    from maskcast.runner.stage import get_stage

    path = folder / "params.yaml"
    content = load_params_file(path)
    for name in ("prepare_clips", "train_masker", "evaluate", "fetch_dataset"):
        values = section(content, name, str(path))
        params = validate(get_stage(name).params, values, f"{path}: {name}")
        params_hash(params)
        flatten(params.model_dump())


def write_cluster(folder: Path) -> None:
    root = Path(__file__).parents[2]
    (folder / "cluster.yaml").write_text((root / "pipelines/cluster.yaml").read_text())


def read_cluster(folder: Path) -> None:
    from pipelines.cluster import load_cluster

    load_cluster(folder / "cluster.yaml")


def write_pointers(folder: Path) -> None:
    (folder / ".dvc").mkdir()
    (folder / "data.dvc").write_text("outs:\n- md5: abc.dir\n  size: 3\n  path: data\n")
    (folder / "ref").mkdir()
    save_json(folder / "ref/REFERENCE.json", {"format": "maskcast-reference/1", "digest": "a" * 32, "store": "/x"})
    save_json(folder / "learning.json", {"train_masker": [{"epoch": 1, "loss": 0.5, "miou": 0.1}]})


def read_pointers(folder: Path) -> None:
    from maskcast.curves import read_curves
    from maskcast.runner.references import resolve_reference
    from maskcast.stages.fetch_dataset import _read_pointer

    _read_pointer(folder / "data.dvc", folder / "copy")
    os.environ["MASKCAST_DATA"] = "/x"
    try:
        resolve_reference(folder / "ref")
    except MaskcastError as error:
        if "does not exist" not in str(error) and "data is stored in" not in str(error):
            raise
    read_curves(folder)


def write_finished(folder: Path) -> None:
    from maskcast.data.clip_store.compression import compress
    from maskcast.data.clip_store.finished import FinishedClip, FinishedClips

    layer = compress(np.ones((3, *SIZE), np.uint8))
    FinishedClips(folder, "f").save(0, FinishedClip({"mask": layer}, {"mask": layer}, {"x": 1}))


def read_finished(folder: Path) -> None:
    from maskcast.data.clip_store.finished import FinishedClips

    FinishedClips(folder, "f").load(0)


# Archives.


def write_archives(folder: Path) -> None:
    members = {"train/a.txt": b"a" * 500, "train/b/c.bin": bytes(300), "mask.npy": b"x"}
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    for name, mode in (("data.tar", "w"), ("data.tar.gz", "w:gz"), ("data.tar.xz", "w:xz")):
        with tarfile.open(folder / name, mode) as packed:  # type: ignore[call-overload]
            packed.add(folder / "data.zip", "inner.txt")
    (folder / "data.tar.zst").write_bytes(zstandard.compress((folder / "data.tar").read_bytes()))


def read_archives(folder: Path) -> None:
    from maskcast.stages.fetch_dataset import FetchDataset, fetch_dataset

    for number, archive in enumerate(sorted(folder.glob("data.*"))):
        fetch_dataset(raw=folder / f"raw_{number}", params=FetchDataset(uri=str(archive)))


# Images.


def write_images(folder: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    pictures = {"a.png": grey, "b.jpg": frames_of(1)[0], "c.bmp": grey, "d.webp": frames_of(1)[0], "e.tif": grey}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(grey).convert("P").save(folder / "f.png")
    Image.fromarray(grey.astype(np.uint16) * 1000).save(folder / "g.png")
    Image.fromarray(grey / np.float32(100)).save(folder / "h.tiff")


def read_images(folder: Path) -> None:
    from maskcast.data.images import image_files, read_image
    from maskcast.data.masks.stored import read_mask

    for path in image_files(folder):
        for read in (read_image, read_mask):
            try:
                read(path)
            except MaskcastError as error:
                assert path.name in str(error), error
                if path.name != "b.jpg" and read is read_image:
                    raise


LABELS = {
    name: Reader(partial(write_labels, name=name), partial(read_labels, name=name), ("labels/**/*.*",))
    for name in ("coco", "youtube-vis", "mots", "mots-txt", "cityscapes", "cvat-images", "cvat-video", "labelme", "label-studio-predictions")
}  # fmt: skip
RAW = {
    "competition": (write_competition, {}, ("image_1.png", "mask.npy", "annotations.txt")),
    "clevrer": (write_clevrer, {"frames": 3}, ("annotation_00003.json", "annotation_00006.json", "*.mp4")),
    "frame_folders": (
        write_frame_folders,
        {"images": "JPEGImages/{clip}", "masks": "Annotations/{clip}", "classes": "classes.yaml", "frames": 3, "splits": {"val": 0.5}},
        ("00001.jpg", "00001.png", "classes.yaml"),
    ),
    "annotations": (
        write_panoptic,
        {"format": "coco", "labels": ["panoptic.json"], "images": "images/{clip}.png", "classes": CLASSES, "frames": 1, "splits": {"val": 0.5}},
        ("panoptic.json", "panoptic/*.png"),
    ),
    "videos": (write_videos, {"frames": 3}, ("*.mp4", "*.avi", "*.mkv")),
    "green_screen": (
        write_green_screen,
        {"seconds": 0.1, "splits": {"val": 0.5}, "mattes": "mattes", "foreground": "person"},
        ("00001.png", "wall_0.png"),
    ),
    "green_log": (write_green_log, {}, ("out_log.json", "1.jpg")),
}  # fmt: skip
DETECTION: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "coco": ({"train": {"annotations": "labels.json", "images": "pictures"}}, ("labels.json", "1.jpg")),
    "voc": ({"val": None}, ("1.xml", "train.txt")),
    "label_files": ({"train": "training", "val": None}, ("1.yml",)),
}
STORE_FILES = (
    "index.json",
    "index.json",
    "clips.jsonl",
    "clips.npy",
    "frames-*.npy",
    "labels-*.zst",
    "confidence-*.zst",
)
READERS: dict[str, Reader] = {
    "clip store": Reader(write_store, read_store, STORE_FILES, agreeing_store),
    "clip store of format 1": Reader(write_store_1, read_store, ("index.json", "*.npy", "*.zst"), agreeing_store),
    "finished clips": Reader(write_finished, read_finished, ("*.clip",)),
    **{
        f"raw {name}": Reader(write, partial(read_raw, layout="green_screen" if name == "green_log" else name, **values), files)
        for name, (write, values, files) in RAW.items()
    },
    **{f"labels {name}": reader for name, reader in LABELS.items()},
    "labels label-studio": Reader(write_annotated, partial(read_labels, name="label-studio"), ("labels/**/*.json",)),
    "list of frames": Reader(lambda folder: (folder / "frames.csv").write_text("clip,frame\na,0\na,1\n"), read_frames, ("*.csv",)),
    **{
        f"detection {name}": Reader(partial(write_detection, layout=name), partial(read_detection, layout=name, **values), files)
        for name, (values, files) in DETECTION.items()
    },
    **{
        f"init {name}": Reader(RAW[name][0], inspect, RAW[name][2]) for name in ("annotations", "competition", "frame_folders", "videos")
    },
    "detection set": Reader(write_detection_store, read_detection_store, ("dataset.json", "train.json"), agreeing_detection),
    "COCO files": Reader(write_coco, read_coco, ("gt.json", "dt.json")),
    "params": Reader(write_params, read_params, ("params.yaml",)),
    "cluster file": Reader(write_cluster, read_cluster, ("cluster.yaml",)),
    "pointers": Reader(write_pointers, read_pointers, ("data.dvc", "REFERENCE.json", "learning.json")),
    "archives": Reader(write_archives, read_archives, ("data.zip", "data.tar", "data.tar.*")),
    "images": Reader(write_images, read_images, ("*.*",)),
    "lists of hands": Reader(of_runs.write_hand_lists, of_runs.read_hand_lists, ("*.jsonl", "*.json", "*.pt")),
    "checkpoint": Reader(of_runs.write_checkpoint, of_runs.read_checkpoint, ("checkpoint.pt", "fingerprint.json")),
    "model folders": Reader(of_runs.write_model, of_runs.read_model, ("model.safetensors", "config.json")),
    "pipeline": Reader(of_runs.write_pipeline, of_runs.read_pipeline, ("dvc.yaml",)),
    "squashfs": Reader(of_runs.write_squashfs, of_runs.read_squashfs, ("data.sqsh",)),
}  # fmt: skip
