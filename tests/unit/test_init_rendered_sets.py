"""`maskcast init` in folders of rendered videos, with several kinds of images of each frame."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.lookalikes import HEIGHT, WIDTH, frames_of, write_images

from maskcast.errors import MaskcastError
from maskcast.proposal.plan import plan_params

pytestmark = pytest.mark.usefixtures("untimed_steps")

LENGTH = 24
ROAD, SKY, CAR = (128, 64, 128), (90, 200, 255), (200, 0, 0)


def in_colours(masks: np.ndarray) -> np.ndarray:
    return np.array([ROAD, SKY, CAR], np.uint8)[masks]


def ramp(count: int) -> np.ndarray:
    """Returns images (T, H, W) of 16 bits, as of distances."""
    return np.stack(
        [np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 20 + k for k in range(count)]
    )


def virtual_kitti(root: Path, depth: str) -> None:
    for k, scene in enumerate(("Scene01", "Scene02", "Scene06")):
        frames, masks = frames_of(k, LENGTH)
        place = root / scene / "clone/frames"
        write_images(place / "rgb/Camera_0", frames, "rgb_{:05d}.jpg")
        write_images(place / "classSegmentation/Camera_0", in_colours(masks), "classgt_{:05d}.png")
        write_images(place / "depth/Camera_0", ramp(LENGTH), depth)
        write_images(place / "forwardFlow/Camera_0", frames[:, :, ::-1], "flow_{:05d}.png")
        (root / scene / "clone/colors.txt").write_text(
            "Category r g b\nRoad 128 64 128\nSky 90 200 255\nCar 200 0 0\n"
        )


def synthia(root: Path, *, colours: bool) -> None:
    """Writes labels of 16 bits in three channels, class and object, with or without their colours."""
    for k, name in enumerate(("SYNTHIA-SEQS-01-FALL", "SYNTHIA-SEQS-02-FALL", "SYNTHIA-SEQS-04-FALL")):
        frames, masks = frames_of(k, LENGTH)
        tail = "Stereo_Left/Omni_F"
        write_images(root / name / "RGB" / tail, frames, "{:06d}.png")
        if colours:
            write_images(root / name / "GT/COLOR" / tail, in_colours(masks), "{:06d}.png")
        (root / name / "GT/LABELS" / tail).mkdir(parents=True)
        for number, mask in enumerate(masks):
            rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
            rgb[..., 2] = mask
            cv2.imwrite(str(root / name / "GT/LABELS" / tail / f"{number:06d}.png"), rgb)


@pytest.mark.parametrize("depth", ["depth_{:05d}.png", "{:05d}.png"])
def test_colour_images_are_the_frames_and_depth_and_flow_are_left_out(depth: str, tmp_path: Path) -> None:
    virtual_kitti(tmp_path, depth)
    found = plan_params(tmp_path).findings
    assert found.source["images"] == "{clip}/clone/frames/rgb/Camera_0"
    assert found.source["masks"] == "{clip}/clone/frames/classSegmentation/Camera_0"
    assert found.source["classes"] == ["Road", "Sky", "Car"]
    left_out = [warning for warning in found.warnings if "left out" in warning]
    assert [warning.partition(", as the name ")[2].partition(" says")[0] for warning in left_out] == [
        "'depth'",
        "'forwardFlow'",
    ]


def test_masks_that_cannot_be_read_do_not_hide_those_that_can(tmp_path: Path) -> None:
    synthia(tmp_path / "both", colours=True)
    found = plan_params(tmp_path / "both").findings
    assert found.source["masks"] == "{clip}/GT/COLOR/Stereo_Left/Omni_F"
    assert found.source["values"].keys() == {"#804080", "#5ac8ff", "#c80000"}
    (warning,) = (warning for warning in found.warnings if "16-bit colours" in warning)
    assert warning.startswith(f"{3 * LENGTH} images left out: ") and "GT/LABELS" in warning
    synthia(tmp_path / "alone", colours=False)
    with pytest.raises(MaskcastError, match="masks with 16-bit colours are not supported"):
        plan_params(tmp_path / "alone")


@pytest.mark.parametrize("name", ["align_depth", "depth_left", "disp_occ_0", "kinect-depth-raw"])
def test_depth_has_words_beside_it(name: str, tmp_path: Path) -> None:
    for k, video in enumerate(("a", "b", "c")):
        frames, masks = frames_of(k, LENGTH)
        write_images(tmp_path / video / "align_rgb", frames, "{:05d}.jpg")
        write_images(tmp_path / video / name, ramp(LENGTH), "{:05d}.png")
        write_images(tmp_path / video / "2Dseg/mask", in_colours(masks), "{:05d}.png")
    found = plan_params(tmp_path).findings
    assert (found.source["images"], found.source["masks"]) == ("{clip}/align_rgb", "{clip}/2Dseg/mask")
    assert any(f"as the name {name!r} says" in warning for warning in found.warnings)
