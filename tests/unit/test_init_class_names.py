"""`maskcast init` takes the names of classes from lists in the forms that tools and data sets have."""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.lookalikes import frames_of, write_images

from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.data.masks.soft_edges import edge_colours
from maskcast.data.masks.survey import survey_masks
from maskcast.proposal.plan import plan_params

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
NAMES = ["background", "car", "person"]
CAR, PERSON = {"name": "car", "id": 1, "color": [9, 9, 9]}, {"name": "person", "id": 2, "color": [7, 7, 7]}
IDS: dict[str, Any] = {  # file: content
    "id2label.json": {"0": "background", "1": "car", "2": "person"},
    "class_names.json": {"1": "car", "2": "person"},
    "classes.json": NAMES,
    "categories.json": [CAR, PERSON],
    "labels.json": {"info": {}, "categories": [CAR, PERSON]},
    "dataset.json": {"labels": {"background": 0, "car": 1, "person": 2}, "numTraining": 3},  # nnU-Net
    "obj_class_to_machine_color.json": {"car": [1, 1, 1], "person": [2, 2, 2]},  # Supervisely
    "classes.csv": "id,name,r,g,b\n0,background,0,0,0\n1,car,255,0,0\n2,person,0,0,255\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, car\n2, person\n",  # Roboflow
    "objectInfo150.txt": "Idx\tRatio\tTrain\tName\n1\t0.1576\t11664\tcar\n2\t0.1072\t60\tperson\n",  # ADE20K
    "class_shares.csv": "Idx,Ratio,Name\n1,0.1,car\n2,0.2,person\n",
    "class_sizes.csv": "name,id,size,kind\ncar,1,70,vehicle\nperson,2,50,human\n",
    "labels.txt": "0: background\n1: car\n2: person\n",
    "class_labels.txt": "0 background\n1 car\n2 person\n",
}
BY_COLOUR: dict[str, Any] = {
    "class_list.json": {"#000000": "background", "#ff0000": "car", "#0000ff": "person"},  # A2D2
    "colors.json": {"background": "#000000", "car": "#FF0000", "person": "#0000FF"},
    "palette.json": {"background": [0, 0, 0], "car": [255, 0, 0], "person": [0, 0, 255]},
    "labels.json": [{"name": "car", "color": "#ff0000", "id": 9}, {"name": "person", "color": "#0000ff", "id": 3}],
    "config_v2.json": {  # Mapillary Vistas
        "labels": [
            {"name": name, "readable": name, "color": colour.tolist()}
            for name, colour in zip(NAMES, COLOURS, strict=True)
        ]
    },
    "meta.json": {"classes": [{"title": "car", "color": "#FF0000"}, {"title": "person", "color": "#0000FF"}]},
    "classes.csv": "name,color\nbackground,#000000\ncar,#ff0000\nperson,#0000ff\n",
    "class_dict.csv": "id,name,r,g,b\n0,background,0,0,0\n1,car,255,0,0\n2,person,0,0,255\n",
    "label_colors.csv": "name,kind,r,g,b,count\nbackground,a,0,0,0,7\ncar,b,255,0,0,9\nperson,b,0,0,255,3\n",
}
OTHERS: dict[str, Any] = {  # which are no lists of these classes
    "classes.json": [{"name": "car", "id": 4}, {"name": "person", "id": 7}, {"name": "dog", "id": 9}],
    "label_counts.txt": "car 31\nperson 12\ndog 5\n",
    "labels.csv": "0,car\n0,person\n1,dog\n",
    "classes.csv": "Rank,Ratio,Train,Name\n1,0.1,100,car\n2,0.2,50,person\n",
    "class_ids.csv": "name,id,train id,label id\ncar,1,0,7\nperson,2,1,9\n",
    "class_counts.txt": "title\n1 car 31\n2 person 12\n",
    "dataset.json": {"background": 0, "car": 1, "person": 2},
    "class.json": {"labels": 3},
    "color.json": {"car": [0, 0, 999], "person": True},
}


def write(root: Path, name: str, content: Any, *, colours: bool) -> None:
    for k, video in enumerate(("a", "b")):
        frames, masks = frames_of(k, 24)
        write_images(root / "frames" / video, frames, "{:04d}.jpg")
        write_images(root / "masks" / video, COLOURS[masks] if colours else masks, "{:04d}.png")
    content = content if isinstance(content, str | bytes) else json.dumps(content)
    (root / name).write_bytes(content.encode() if isinstance(content, str) else content)


NUMBERED: dict[str, tuple[str, str | bytes, list[str]]] = {  # file, content, names
    "CVAT": ("labelmap.txt", "# label:color_rgb\nbackground:0,0,0::\nCell 1, a:255,0,0::\nCell 2:0,0,255::\n", []),
    "table": ("class_dict.csv", 'name,r,g,b\nbackground,0,0,0\n"Cell 1, a",255,0,0\nCell 2,0,0,255\n', []),
    "semicolons": ("class_dict.csv", "background;0;0;0\nCell 1, a;255;0;0\nCell 2;0;0;255\n", []),
    "triples": ("classes.csv", 'background,"(0, 0, 0)"\n"Cell 1, a","(255, 0, 0)"\nCell 2,"(0, 0, 255)"\n', []),
    "words": ("colors.txt", "0 0 0 background\n255 0 0 Cell 1, a\n0 0 255 Cell 2\n", []),
    "words, colours last": ("colors.txt", "Cell 1, a 255 0 0\nCell 2 0 0 255\n", []),
    "words, hexadecimal": ("colors.txt", "background #000000\nCell 1, a #ff0000\nCell 2 #0000ff\n", []),
    "ids": ("labels.csv", 'id,name\n0,background\n1,"Cell 1, a"\n2,Cell 2\n', []),
    "ids under a title": ("labels.csv", 'Our cells\nbackground,0\n"Cell 1, a",1\nCell 2,2\n', []),
    "ids and words": ("labels.txt", "0: background\n1: Cell 1, a\n2: Cell 2\n", []),
    "names alone": ("classes.txt", "background\nCell 1, a\nCell 2\n", []),
    "names against the order of numbers": ("classes.txt", "background\nmilk 2\nwater 1\n", ["milk 2", "water 1"]),
    "numbers first": ("classes.txt", "background\n2 wheeler\n4 wheeler\n", ["2 wheeler", "4 wheeler"]),
    "labelme": ("labels.txt", "__ignore__\n_background_\nCell 1, a\nCell 2\n", []),
    "names with colons": ("colors.txt", "background: 0, 0, 0\nCell 1, a: 255, 0, 0\nCell 2: 0, 0, 255\n", []),
    "ids after colons": ("labels.txt", "background: 0\nwhite cell: 1\nCell 2: 2\n", ["white cell", "Cell 2"]),
    "commas in colours": ("colors.txt", "background 0,0,0\nCell 1, a 255,0,0\nCell 2 0,0,255\n", []),
    "opacity": ("classes.csv", 'background,0,0,0,255\n"Cell 1, a",255,0,0,255\nCell 2,0,0,255,255\n', []),
    "3D Slicer": ("colors.txt", "0 background 0 0 0 0\n1 Cell 1, a 255 0 0 255\n2 Cell 2 0 0 255 255\n", []),
    "ITK-SNAP": (
        "labels.txt",
        '# IDX R G B A VIS MSH LABEL\n0 0 0 0 0 0 0 "background"\n'
        '1 255 0 0 1 1 1 "Cell 1, a"\n2 0 0 255 1 1 1 "Cell 2"\n',
        [],
    ),
    "a header of words": ("labels.txt", "label_id label_name\n1 Cell 1, a\n2 Cell 2\n", []),
    "a header before colours": (
        "colors.txt",
        "class_name r g b\nbackground 0 0 0\nCell 1, a 255 0 0\nCell 2 0 0 255\n",
        [],
    ),
    "a title of words": ("colors.txt", "All 3 cells\n0 0 0 background\n255 0 0 Cell 1, a\n0 0 255 Cell 2\n", []),
    "a remark": ("labels.txt", "// classes\n0 background\n1 Cell 1, a\n2 Cell 2\n", []),
    "a last line": ("labels.csv", 'background,0\n"Cell 1, a",1\nCell 2,2\nend\n', []),
    "UTF-16": ("classes.txt", "background\r\nKäste\r\nStraße\r\n".encode("utf-16"), ["Käste", "Straße"]),
}


@pytest.mark.parametrize("case", NUMBERED)
def test_names_keep_their_numbers_and_commas(case: str, tmp_path: Path) -> None:
    name, content, names = NUMBERED[case]
    coloured = "255" in str(content)
    write(tmp_path, name, content, colours=coloured)
    found = inspect_folder(tmp_path)
    names = ["background", *(names or ["Cell 1, a", "Cell 2"])]
    names[0] = "_background_" if case == "labelme" else "background"
    assert found.source["classes"] == names and not found.warnings
    if coloured:
        wanted = dict(zip(("#000000", "#ff0000", "#0000ff"), names, strict=True))
        assert found.source["values"] == wanted


def test_lists_of_windows_are_read_with_a_word(tmp_path: Path) -> None:
    for name, text in {
        "classes.csv": "background;0;0;0\nKäste;255;0;0\nÜber;0;0;255\n",
        "class_list.json": '{"#000000": "background", "#ff0000": "Käste", "#0000ff": "Über"}',
    }.items():
        write(tmp_path / name, name, text.encode("cp1252"), colours=True)
        found = inspect_folder(tmp_path / name)
        assert found.source["classes"] == ["background", "Käste", "Über"]
        assert found.warnings == [f"{name} is not UTF-8, so it is read as Windows-1252: check its accents"]


@pytest.mark.parametrize("name", IDS)
def test_ids_have_their_names(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, IDS[name], colours=False)
    source = inspect_folder(tmp_path).source
    assert (source["classes"], source["encoding"]) == (NAMES, "index")


@pytest.mark.parametrize("name", BY_COLOUR)
def test_colours_have_their_names(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, BY_COLOUR[name], colours=True)
    source = inspect_folder(tmp_path).source
    assert source["values"] == {"#000000": "background", "#ff0000": "car", "#0000ff": "person"}
    assert {*source["classes"]} == {*NAMES} and source["classes"][0] == "background"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "car\nperson\ndog\n"),
        ("classes.txt", "0: car\n1: person\n2: dog\n"),
        ("categories.json", [{"id": k, "name": name} for k, name in enumerate(("car", "person", "dog"))]),
    ],
)
def test_a_list_without_the_background_is_asked_about(name: str, content: Any, tmp_path: Path) -> None:
    write(tmp_path, name, content, colours=False)
    found = inspect_folder(tmp_path)
    assert found.source["classes"] == ["car", "person", "dog"]
    (warning,) = found.warnings
    assert re.fullmatch(
        rf"{name} calls 0 'car', which has \d\d% of the pixels: if 0 .* `background` before it.*", warning
    )


@pytest.mark.parametrize(
    ("name", "content"), [("classes.txt", "car\nperson\n"), ("classes.json", ["car", "person"])]
)
def test_names_in_order_of_all_values_but_0_are_those_of_1_and_more(
    name: str, content: Any, tmp_path: Path
) -> None:
    write(tmp_path, name, content, colours=False)
    found = inspect_folder(tmp_path)
    assert found.source["classes"] == NAMES
    (warning,) = found.warnings
    assert warning.startswith(f"{name} has a name less than the masks have values, so its first is taken for")


def test_a_frequent_class_may_be_the_first_of_a_list(tmp_path: Path) -> None:
    write(tmp_path, "classes.txt", "road\nperson\ndog\n", colours=False)
    for path in tmp_path.glob("masks/*/*.png"):  # 0 has less than half, but more than 1 and 2
        mask = np.asarray(Image.open(path)).copy()
        mask[: len(mask) // 3], mask[len(mask) // 3 : 2 * len(mask) // 3] = 1, 2
        Image.fromarray(mask).save(path)
    assert inspect_folder(tmp_path).warnings == []


SOFT = "# label:color_rgb\nbackground:0,0,0::\ncar:255,0,0::\nperson:0,0,255::\n"


def soften(root: Path) -> None:
    for path in root.glob("masks/*/*.png"):
        image = Image.open(path)
        large = image.resize((3 * image.width, 3 * image.height), Image.Resampling.BILINEAR)
        large.resize(image.size, Image.Resampling.BOX).save(path)


def test_soft_edges_of_colours_are_no_classes(tmp_path: Path) -> None:
    write(tmp_path, "labelmap.txt", SOFT, colours=True)
    soften(tmp_path)
    found = inspect_folder(tmp_path)
    assert found.source["classes"] == NAMES
    kinds = Counter(found.source["values"].values())
    assert (kinds["car"], kinds["person"], kinds["background"]) == (1, 1, 1) and kinds["ignore"] > 5
    assert found.source["values"]["#ff0000"] == "car" and any("soft edges are" in one for one in found.warnings)
    assert not plan_params(tmp_path).left_out
    (tmp_path / "labelmap.txt").unlink()
    assert inspect_folder(tmp_path).source["classes"] == ["background", "class 0000ff", "class ff0000"]


def test_colours_that_a_list_lacks_are_said(tmp_path: Path) -> None:
    write(tmp_path, "labelmap.txt", SOFT, colours=True)
    for path in list(tmp_path.glob("masks/*/*.png"))[::3]:
        image = Image.open(path).copy()
        image.paste((9, 99, 9), (0, 0, 2, 2))
        image.save(path)
    found = inspect_folder(tmp_path)
    assert "class 096309" in found.source["classes"]
    assert (
        "labelmap.txt lacks 1 colour of the masks (#096309), so it is not used: add them to it" in found.warnings
    )
    (tmp_path / "more_labels.txt").write_text("0 0 0 background\n255 0 0 car\n0 0 255 person\n9 99 9 tree\n")
    found = inspect_folder(tmp_path)
    assert found.source["classes"] == [*NAMES, "tree"] and found.warnings == []


def test_colours_of_classes_on_a_line_are_no_soft_edges(tmp_path: Path) -> None:
    for k, red in enumerate(range(248, 24, -8)):  # each mixes black and the first
        mask = np.zeros((8, 8, 3), np.uint8)
        mask[2:6, 2:6] = (red, 0, 0)
        write_images(tmp_path, mask[None], "{:04d}.png", k)
    assert edge_colours(survey_masks(sorted(tmp_path.iterdir()), 255)) == []


def test_areas_of_shades_are_no_soft_edges(tmp_path: Path) -> None:
    mask = np.full((36, 60, 3), 255, np.uint8)  # 9 shades from white to red, all in each file
    for k in range(9):
        mask[6:30, 3 + 6 * k : 9 + 6 * k, 1:] = 230 - 25 * k
    for number in range(3):
        write_images(tmp_path, mask[None], "{:04d}.png", number)
    assert edge_colours(survey_masks(sorted(tmp_path.iterdir()), 255)) == []


def test_black_that_is_rare_may_be_a_class(tmp_path: Path) -> None:
    write(tmp_path, "notes.txt", "", colours=False)
    for path in tmp_path.glob("masks/*/*.png"):
        Image.fromarray(np.array([(255, 255, 255), (255, 0, 0), (0, 0, 0)], np.uint8)[Image.open(path)]).save(path)
    found = inspect_folder(tmp_path)
    assert found.source["values"]["#000000"] == "background"
    assert any("if #ffffff is the background, swap the names of both" in one for one in found.warnings)


def test_palettes_that_differ_are_told_by_colour(tmp_path: Path) -> None:
    write(tmp_path, "labelmap.txt", SOFT, colours=False)
    for path in tmp_path.glob("masks/*/*.png"):
        order = [0, 2, 1] if path.parent.name == "b" else [0, 1, 2]
        image = Image.fromarray(np.array(order, np.uint8)[Image.open(path)])
        image.putpalette(COLOURS[order].tobytes())
        image.save(path)
    found = inspect_folder(tmp_path)
    assert found.source["values"] == {"#000000": "background", "#ff0000": "car", "#0000ff": "person"}
    (warning,) = found.warnings
    assert (
        "index 1 of the palette has another colour in masks/b/0000.png, so classes are told by colour" in warning
    )
    assert not plan_params(tmp_path).left_out


@pytest.mark.parametrize("name", OTHERS)
def test_ids_of_others_are_no_names(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, OTHERS[name], colours=False)
    assert inspect_folder(tmp_path).source["classes"] == ["background", "class 1", "class 2"]


def test_a_superscript_is_part_of_a_name(tmp_path: Path) -> None:
    write(tmp_path, "classes.txt", "0 background\n1 wall ²\n2 car\n", colours=False)
    assert inspect_folder(tmp_path).source["classes"] == ["background", "wall ²", "car"]


def test_what_means_no_label_in_params_names_no_class(tmp_path: Path) -> None:
    write(tmp_path, "labels.txt", "0: background\n1: ignore\n2: person\n", colours=False)
    assert inspect_folder(tmp_path).source["classes"] == ["background", "void", "person"]
    write(tmp_path, "labels.txt", "0: void\n1: ignore\n2: person\n", colours=False)
    assert inspect_folder(tmp_path).source["classes"] == ["void", "_void", "person"]


def test_pipes_are_no_lists(tmp_path: Path) -> None:
    write(tmp_path, "labels.txt", IDS["labels.txt"], colours=False)
    for name in ("classes.txt", "val.txt", "splits.csv"):
        os.mkfifo(tmp_path / name)
    assert inspect_folder(tmp_path).source["classes"] == NAMES


def test_the_colour_of_most_pixels_comes_first_where_no_class_is_called_background(tmp_path: Path) -> None:
    """Class 0 is what scores without background leave out; A2D2's list begins with a car."""
    write(tmp_path, "class_list.json", {"#ff0000": "car 1", "#000000": "sky", "#0000ff": "person"}, colours=True)
    assert inspect_folder(tmp_path).source["classes"] == ["sky", "car 1", "person"]
