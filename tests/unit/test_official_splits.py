"""Official splits of lists and tables: those that hold sequences out do so beside other files and columns."""

import json
from pathlib import Path

import pytest

from maskcast.data.footage import Footage
from maskcast.data.inspection.official_splits import Official, OfficialSplits
from maskcast.data.sources.sequence_files import SequenceFiles

NAMES = tuple(f"seq{k:02d}" for k in range(6))
COLUMNS = "seq00,dev,train\nseq01,prod,train\nseq02,dev,train\nseq03,prod,train\nseq04,dev,test\nseq05,prod,test\n"
LABELME = {"shapes": [], "imagePath": "fold0_00000.png"}


def official(raw: Path, files: dict[str, str], names: tuple[str, ...] = NAMES) -> Official:
    for name, text in files.items():
        (raw / name).write_text(text)
    frames = {name: Footage([raw / "frames" / name / "0000.png"]) for name in names}
    footage = {name: SequenceFiles(one, [None], [range(1)]) for name, one in frames.items()}
    return OfficialSplits(raw, footage, {}).of(names)


def lines(*numbers: int, more: str = "") -> str:
    return "".join(f"seq{k:02d}{more}\n" for k in numbers)


HELD_OUT: dict[str, tuple[dict[str, str], dict[str, tuple[str, ...]]]] = {  # files, and the splits that they say
    "a column of words that also name splits": (
        {"meta.csv": f"name,stage,split\n{COLUMNS}"},
        {"test": ("seq04", "seq05")},
    ),
    "without a header": ({"meta.csv": COLUMNS}, {"test": ("seq04", "seq05")}),
    "a note in one cell": (
        {"meta.csv": "name,split,note\n" + lines(0, 1, 2, 3, more=",train,") + "seq04,test,eval\nseq05,test,\n"},
        {"test": ("seq04", "seq05")},
    ),
    "records with a second key": (
        {
            "splits.json": json.dumps(
                [
                    {"stage": "test", "name": name, "split": "val" if name == "seq05" else "train"}
                    for name in NAMES
                ]
            )
        },
        {"val": ("seq05",)},
    ),
    "a copy of val": (
        {"train.txt": lines(0, 1, 2, 3), "val.txt": lines(4, 5), "eval.txt": lines(4, 5)},
        {"val": ("seq04", "seq05")},
    ),
    "scores": (
        {"train.txt": lines(0, 1, 2), "val.txt": lines(3), "test.txt": lines(4, 5), "eval_J.txt": "seq03 0.8\n"},
        {"val": ("seq03",), "test": ("seq04", "seq05")},
    ),
    "a part of train": (
        {"train.txt": lines(0, 1, 2, 3), "test.txt": lines(4, 5), "dev.txt": lines(2, 3)},
        {"test": ("seq04", "seq05")},
    ),
    "keys that name a split twice": (
        {"splits.json": '{"eval": ["seq04"], "val": ["seq04"], "test": ["seq05"]}'},
        {"val": ("seq04",), "test": ("seq05",)},
    ),
    "another name for what remains": (
        {"train.txt": lines(0, 1, 2), "val.txt": lines(3), "holdout.txt": lines(4, 5)},
        {"val": ("seq03",), "test": ("seq04", "seq05")},
    ),
    "delimiters in a header": (
        {"meta.csv": "seq|clip|cam,split\n" + lines(0, 1, 2, 3, more=",train") + lines(4, 5, more=",val")},
        {"val": ("seq04", "seq05")},
    ),
    "a list in a cell": (
        {"meta.csv": "seq,a;b;c,split\n" + lines(0, 1, 2, 3, more=",1;2,train") + lines(4, 5, more=",3;4,val")},
        {"val": ("seq04", "seq05")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HELD_OUT)
def test_what_is_held_out_stays_so_beside_other_words(case: str, tmp_path: Path) -> None:
    files, splits = HELD_OUT[case]
    found = official(tmp_path, files)
    assert found.splits == splits and not any("not used" in check or "omits" in check for check in found.checks)


def test_lists_of_frames_under_other_names_are_none_of_sequences(tmp_path: Path) -> None:
    found = official(
        tmp_path, {"train.txt": lines(0, 1, 2, 3, more="/1.png"), "dev.txt": lines(0, 1, more="/2.png")}
    )
    assert found.checks[0] == "dev.txt, train.txt were not used: seq00 is in two splits there"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([f"fold0_{k:05d}.json" for k in range(3)], False),  # labelme's
        ([f"scaffold0_{k:05d}.txt" for k in range(3)], False),
        (["unfolded.txt"], False),
        (["folds.txt"], True),
    ],
)
def test_labels_and_words_that_hold_fold_are_no_tables(names: list[str], said: bool, tmp_path: Path) -> None:
    texts = {".json": json.dumps(LABELME), ".txt": "fold0 val\nfold1 test\nfold2 train\n"}
    found = official(tmp_path, {name: texts[Path(name).suffix] for name in names}, ("fold0", "fold1", "fold2"))
    assert bool(found.splits) == said and not found.checks


def test_all_folds_are_said_in_one_line(tmp_path: Path) -> None:
    found = official(tmp_path, {f"fold{k}.txt": lines(k) for k in range(5)})
    (check,) = found.checks
    assert check.startswith("fold0.txt, fold1.txt, fold2.txt and 2 more were not used: no row says train")


def test_files_of_single_images_are_not_read(tmp_path: Path) -> None:
    text = json.dumps({"file": "seq00/0000.png"})
    assert official(tmp_path, {"fold0_0.json": text}).checks
    assert not official(tmp_path, {f"fold0_{k}.json": text for k in range(101)}).checks


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,subset\n" + lines(0, 1, 2, more=",day") + lines(3, 4, 5, more=",night"), False),
        ("name,fold,note\n" + lines(0, 1, 2, more=",0,") + lines(3, 4, more=",1,") + "seq05,1,eval\n", True),
    ],
)
def test_only_folds_are_said_to_be_no_splits(table: str, said: bool, tmp_path: Path) -> None:
    found = official(tmp_path, {"meta.csv": table})
    assert not found.splits and len(found.checks) == said
    assert all(check.startswith("meta.csv was not used: no row says train") for check in found.checks)
