"""Left and right in names: what is a pair, what init proposes, and what stages that prepare data say."""

import json
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.conftest import SMALL_DETECTOR
from tests.lookalikes import frames_of, write_images

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.detection.dataset import DetectionSet
from maskcast.data.mirror_swaps import find_sides
from maskcast.data.sources.annotations import AnnotationsSource
from maskcast.data.sources.base import Listing
from maskcast.data.sources.frame_folders import FrameFoldersSource
from maskcast.errors import MaskcastError
from maskcast.params import validate
from maskcast.proposal.plan import plan_params
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage
from maskcast.stages.prepare_clips import PrepareClips, prepare_clips
from maskcast.training.tasks.detection import DetectorTask

pytestmark = pytest.mark.usefixtures("untimed_steps")


@pytest.mark.parametrize(
    ("names", "pairs", "unpaired"),
    [
        (["background", "left hand", "right hand"], [("left hand", "right hand")], []),
        (
            ["LeftHand", "RightHand", "foot_left", "Foot-Right"],
            [("LeftHand", "RightHand"), ("foot_left", "Foot-Right")],
            [],
        ),
        (["lefthand", "righthand", "bright", "leftover", "copyright"], [("lefthand", "righthand")], []),
        (
            ["hand.L", "hand.R", "l_eye", "r_eye", "EarL", "EarR"],
            [("hand.L", "hand.R"), ("l_eye", "r_eye"), ("EarL", "EarR")],
            [],
        ),
        (["k", "l", "m", "r", "hand.L", "vitamin r"], [], []),  # letters of an alphabet; one side alone is no side
        (["left thumb", "right thumb", "left palm"], [("left thumb", "right thumb")], ["left palm"]),
        (["left", "right", "Left lane"], [("left", "right")], ["Left lane"]),
        (["left hand", "Left-Hand", "right hand"], [], ["left hand", "Left-Hand", "right hand"]),  # ambiguous
        (["left to right arrow", "road", "car"], [], []),
    ],
)
def test_names_that_differ_in_left_and_right_alone_are_pairs(
    names: list[str], pairs: list[tuple[str, str]], unpaired: list[str]
) -> None:
    sides = find_sides(names)
    assert (list(sides.pairs), list(sides.unpaired)) == (pairs, unpaired)


def test_attributes_that_differ_in_left_and_right_alone_make_a_pair() -> None:
    side, part = (None, "Left", "right", "left", None), (None, "thumb", "thumb", "palm", "palm")
    sides = find_sides(["background", "lt", "rt", "lp", "p"], {"side": side, "part": part})
    assert sides.pairs == (("lt", "rt"),) and sides.unpaired == ("lp",)


def write_hands(root: Path, names: Sequence[str]) -> Path:
    """Four sequences with masks of ids, and a list of the names."""
    for k in range(4):
        frames, masks = frames_of(k, 24)
        write_images(root / f"frames/video-{k}", frames, "{:04d}.jpg")
        write_images(root / f"masks/video-{k}", masks, "{:04d}.png")
    (root / "classes.json").write_text(json.dumps(["background", *names]))
    return root


def test_init_proposes_what_names_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_hands(tmp_path / "raw", ["left hand", "right hand"])
    text = plan_params(raw).text(raw)
    assert "mirror_swaps: [left hand, right hand]\n" in text
    assert "# by their names, these trade places in flipped frames; [] if they do not" in text
    written = yaml.safe_load(text)
    keys = list(written["prepare_clips"]["source"])
    assert keys.index("mirror_swaps") == keys.index("classes") + 1
    assert "hflip" not in text and "flip:" not in text
    values = written["prepare_clips"] | {"workers": 1}
    run_stage("prepare_clips", values, raw=raw, clips=tmp_path / "clips")
    clips = ClipStore(tmp_path / "clips")
    assert clips.mirror_swaps == (("left hand", "right hand"),)
    assert "warning" not in capsys.readouterr().err


def test_init_flips_nothing_if_a_class_has_one_side_only(tmp_path: Path) -> None:
    raw = write_hands(tmp_path / "raw", ["left lane", "car"])
    plan = plan_params(raw)
    written = yaml.safe_load(text := plan.text(raw))
    assert written["train_masker"]["augment"]["hflip"] == 0
    assert written["pretrain_forecaster"]["flip"] == written["finetune_forecaster"]["flip"] == 0
    assert "mirror_swaps" not in text and "# a flip would show 'left lane' on the wrong side" in text
    assert any("class 'left lane' has a side and no partner" in warning for warning in plan.findings.warnings)
    for name, section in written.items():
        validate(get_stage(name).params, section, name)


def test_init_proposes_nothing_for_names_without_sides(tmp_path: Path) -> None:
    raw = write_hands(tmp_path / "raw", ["car", "bright light"])
    plan = plan_params(raw)
    assert "mirror_swaps" not in (text := plan.text(raw)) and "flip" not in text
    assert not any("side" in warning for warning in plan.findings.warnings)


def prepare(raw: Path, out: Path, **source: Any) -> list[str]:
    """Prepares the sequences and returns what is said about sides, which the store does not keep."""
    keys = {"layout": "frame_folders", "images": "frames/{clip}", "masks": "masks/{clip}", "encoding": "index"}
    values = {"source": keys | {"frames": 8, "splits": {"val": ["video-3"]}} | source, "workers": 1}
    with redirect_stderr(StringIO()) as said:
        run_stage("prepare_clips", values, raw=raw, clips=out)
    assert not any("flipped" in note for note in ClipStore(out).meta["notes"])
    return [line.strip() for line in said.getvalue().splitlines() if "flipped" in line]


def test_prepare_clips_warns_of_sides_that_nobody_declared(tmp_path: Path) -> None:
    raw, sides = write_hands(tmp_path / "raw", []), ["background", "left hand", "right hand"]
    (note,) = prepare(raw, tmp_path / "silent", classes=sides)
    assert note == (
        "warning: 'left hand' and 'right hand' seem to swap in flipped images, but training swaps only what "
        "source.mirror_swaps declares: set it to [left hand, right hand], or to [] if they do not swap"
    )
    assert ClipStore(tmp_path / "silent").mirror_swaps == ()
    assert prepare(raw, tmp_path / "declared", classes=sides, mirror_swaps=[["left hand", "right hand"]]) == []
    assert ClipStore(tmp_path / "declared").meta["mirror_swaps"] == ["left hand", "right hand"]
    assert prepare(raw, tmp_path / "none", classes=sides, mirror_swaps=[]) == []
    assert ClipStore(tmp_path / "none").meta["mirror_swaps"] == []
    (note,) = prepare(raw, tmp_path / "alone", classes=["background", "left lane", "car"])
    assert note == (
        "warning: 'left lane' has a side, and no partner to swap with in flipped images: "
        "set train_masker.augment.hflip, and flip of the forecasters, to 0"
    )
    five = [*sides, "left foot", "right foot"]
    (note,) = prepare(raw, tmp_path / "five", classes=five)
    assert "'left hand' and 'right hand' (and 1 more pair) seem" in note
    assert "set it to [[left hand, right hand], [left foot, right foot]]" in note
    heart = ["background", "left ventricle", "right ventricle", "left atrium"]
    assert len(prepare(raw, tmp_path / "heart", classes=heart)) == 2
    assert prepare(raw, tmp_path / "known", classes=heart, mirror_swaps=heart[1:3]) == []
    pair = ["left lane", "car"]
    assert prepare(raw, tmp_path / "odd", classes=["background", *pair], mirror_swaps=pair) == []


def test_attributes_of_a_file_of_classes_have_sides(tmp_path: Path) -> None:
    raw = write_hands(tmp_path / "raw", [])
    (raw / "classes.yaml").write_text(
        "background:\nlt: {side: left, part: thumb}\nrt: {side: right, part: thumb}\n"
    )
    (note,) = prepare(raw, tmp_path / "silent", classes="classes.yaml")
    assert "'lt' and 'rt' seem to swap" in note
    assert prepare(raw, tmp_path / "declared", classes="classes.yaml", mirror_swaps=["lt", "rt"]) == []
    with pytest.raises(MaskcastError, match=r"source\.mirror_swaps names 'left', which is none of: lt, rt; fix"):
        prepare(raw, tmp_path / "wrong", classes="classes.yaml", mirror_swaps=["left", "rt"])


class OwnLayout(FrameFoldersSource):
    """A layout of another package, which declares nonsense."""

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        listing = super().listing(raw, height=height, width=width, seed=seed)
        listing.meta["mirror_swaps"] = ["left hand"]
        return listing


def test_a_layout_that_declares_no_pairs_is_told_in_one_line(tmp_path: Path) -> None:
    raw, patterns = write_hands(tmp_path / "raw", []), {"images": "frames/{clip}", "masks": "masks/{clip}"}
    source = OwnLayout(**patterns, classes=("background", "a", "b"), frames=8)
    params = PrepareClips(source=FrameFoldersSource(), workers=1).model_copy(update={"source": source})
    with pytest.raises(
        MaskcastError, match=r"meta of the listing is \['left hand'\], not two names .*; fix the layout"
    ):
        prepare_clips(raw=raw, clips=tmp_path / "clips", params=params)


@pytest.mark.parametrize("layout", [FrameFoldersSource, AnnotationsSource])
@pytest.mark.parametrize(
    ("swaps", "line"),
    [
        (["left", "up"], r"mirror_swaps names 'up', which is none of: left, right"),
        (["background", "left"], r"mirror_swaps names 'background', which is none of: left, right"),
        (["left"], r"mirror_swaps: .*is \['left'\], not two names or pairs of names"),
        ([["left", "right"], ["right", "left"]], r"mirror_swaps: .*has 'left' twice; give it one partner"),
        ("left", r"mirror_swaps: .*is 'left', not a list of pairs of names"),
    ],
)
def test_pairs_of_names_that_do_not_exist_are_refused(layout: Any, swaps: Any, line: str) -> None:
    values: dict[str, Any] = {"classes": ["background", "left", "right"], "mirror_swaps": swaps}
    if layout is AnnotationsSource:
        values |= {"format": "coco", "labels": ["labels.json"]}
    with pytest.raises(MaskcastError, match=line) as caught:
        validate(layout, values, "source")
    assert "\n" not in str(caught.value)


def test_a_pair_reads_and_dumps_the_same(tmp_path: Path) -> None:
    names = ["background", "left", "right", "l eye", "r eye"]
    for given in ([], ["left", "right"], [["left", "right"], ["l eye", "r eye"]]):
        source = validate(FrameFoldersSource, {"classes": names, "mirror_swaps": given}, "source")
        assert source.model_dump(mode="json")["mirror_swaps"] == given
        assert validate(FrameFoldersSource, source.model_dump(mode="json"), "source") == source


def test_detection_sets_keep_pairs_and_warn_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The left hand is in the left half of each image: in mirrored ones it must be a right hand, on the right."""
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    content: dict[str, Any] = {
        "images": [],
        "categories": [{"id": 3, "name": "left hand"}, {"id": 4, "name": "right hand"}],
        "annotations": [],
    }
    for n in range(4):
        Image.fromarray(np.full((40, 60, 3), 60 * n, np.uint8)).save(raw / f"images/{n}.png")
        content["images"].append({"id": n, "file_name": f"{n}.png", "width": 60, "height": 40})
        box = {"id": n, "image_id": n, "category_id": 3, "bbox": [2, 2, 20, 20], "area": 400}
        content["annotations"].append(box)
    (raw / "labels.json").write_text(json.dumps(content))
    source = {"layout": "coco", "train": {"annotations": "labels.json", "images": "images"}}

    def prepared(name: str, **keys: Any) -> DetectionSet:
        run_stage(
            "prepare_detection", {"source": source | keys, "val_share": 0.3}, raw=raw, dataset=tmp_path / name
        )
        return DetectionSet(tmp_path / name)

    warning = "'left hand' and 'right hand' seem to swap in flipped images"
    assert prepared("silent").mirror_swaps == () and warning in capsys.readouterr().err
    assert prepared("none", mirror_swaps=[]).mirror_swaps == () and "flipped" not in capsys.readouterr().err
    declared = prepared("declared", mirror_swaps=["left hand", "right hand"])
    assert declared.mirror_swaps == (("left hand", "right hand"),) and "flipped" not in capsys.readouterr().err
    with pytest.raises(MaskcastError, match=r"mirror_swaps names 'foot', which is none of: left hand, right hand"):
        prepared("wrong", mirror_swaps=["left hand", "foot"])
    params = validate(
        get_stage("train_detector").params,
        {
            "model": SMALL_DETECTOR,
            "training": {
                "phases": [{"learning_rate": 0.01, "epochs": 1}],
                "steps_per_epoch": 1,
                "batch_size": 16,
                "clip_grad_norm": 10,
            },
        },
        "train_detector",
    )
    batch = DetectorTask(declared, params, None, "x").batch(0)
    where = [
        (boxes[0, 0].item() < 20, labels[0].item())
        for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)
    ]
    assert set(where) == {(True, 0), (False, 1)}
