"""The walk of docs/your-data.md, command by command, and `maskcast init` on real data."""

import json
import shlex
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tests.conftest import ROOT
from tests.dags import calls
from tests.documented import commands
from tests.lookalikes import camvid, davis, mixed, photographs, plain_videos
from tests.unit.test_init_label_files import cvat_coco

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore

WALK = [(one.folder, str(one)) for one in commands() if one.file == "docs/your-data.md"]
WRITERS = {
    "davis": davis,
    "camvid": camvid,
    "export": cvat_coco,
    "videos": plain_videos,
    "photographs": partial(photographs, names=["beach", "two dogs", "elm", "fox", "oak"]),
    "streets": mixed,
}
TRAINED = ("photographs", "streets")  # all stages run there; of the others, what reads the data does
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    """A clone of the project, as far as stages need it, with look-alikes of data sets in the user's home."""
    for name, write in WRITERS.items():
        write(tmp_path / "home/data" / name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    monkeypatch.chdir(folder)
    shutil.copy(empty_database, folder / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return folder


def repro(folder: Path, last: str | None, steps: int = 2) -> None:
    """Runs the stages of dvc.yaml one after the other, with the params of `init` and few steps a training."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for values in params.values():
        if "training" in values:
            values["training"] |= {"epochs": 1, "steps_per_epoch": steps, "batch_size": 2, "warmup_steps": 0}
    params["prepare_clips"]["workers"] = 1
    (folder / "small.yaml").write_text(yaml.safe_dump(params))
    for name, call in calls(yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]).items():
        ports = [word for port, path in call.ports.items() for word in (f"--{port}", path)]
        assert main([name, "--params", "small.yaml", *ports]) == 0
        if name == last:
            return


def test_the_walk_works_as_it_is_written(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holidays = shutil.copytree(clone.parent / "home/data/photographs/images", clone.parent / "home/holidays")
    shutil.copy(holidays / "beach.jpg", clone)
    looked_at = []
    *walk, fetched, after = WALK
    assert len(walk) == 20
    assert (fetched[1], after[1]) == ("dvc repro --force fetch_dataset", "dvc repro")  # in test_dvc.py
    for folder, command in walk:
        place = clone / folder
        monkeypatch.chdir(place)
        words = [str(Path(word).expanduser()) if word.startswith("~") else word for word in shlex.split(command)]
        if words[:2] == ["maskcast", "init"]:
            assert main(words[1:]) == 0, capsys.readouterr().err
            looked_at.append(Path(words[2]).name)
            continue
        if words[:2] in (["maskcast", "new"], ["maskcast", "models"], ["maskcast", "segment"]):
            assert main(words[1:]) == 0, capsys.readouterr().err
        if words[:2] != ["dvc", "repro"]:
            continue
        assert f"  {command}\n" in capsys.readouterr().out or words[2:] == ["prepare_clips"]
        shutil.rmtree(place / "data", ignore_errors=True)
        steps = 40 if looked_at[-1] == "photographs" else 2  # the walk promotes this masker
        repro(place, None if looked_at[-1] in TRAINED else "prepare_clips", steps)
        splits = {clip.split for clip in ClipStore(place / "data/clips").clips}
        assert splits == (
            {"unlabeled"} if looked_at[-1] == "videos" else {"train", "val"} | (splits & {"unlabeled"})
        )
    assert looked_at == ["davis", "davis", "camvid", "export", "videos", "photographs", "streets"]
    assert "nothing to predict" not in capsys.readouterr().err
    assert {clip.split for clip in ClipStore(clone / "results/predictions").clips} == {"unlabeled"}
    assert "jaccard_last" in json.loads((clone / "results/evaluate.json").read_text())
    assert json.loads((clone / "results/registration.json").read_text())["versions"]["maskcast"] == 1
    for path in (clone / "beach.jpg", *holidays.iterdir()):
        mask = (
            clone / "masked" / (path.stem if path.parent == clone else "holidays") / f"masks/mask/{path.stem}.png"
        )
        with Image.open(mask) as found, Image.open(path) as photograph:
            assert found.size == photograph.size


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("davis2016_val", "images JPEGImages/480p/{clip}, masks Annotations/480p/{clip}"),
        ("camvid", "images {clip}/images, masks {clip}/labels"),
        ("davis2017_multiobj", "images {clip}_orig.mp4, masks {clip}"),
        ("clevrer", "CLEVRER's release"),
        ("sam2_videos", "videos without masks"),
    ],
)
def test_real_data_is_found(
    name: str, line: str, shared_data: Path, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(shared_data / name), "--force"]) == 0  # which lists the clips as prepare_clips does
    assert line in " ".join(capsys.readouterr().out.split())
    assert yaml.safe_load((clone / "params.yaml").read_text())["fetch_dataset"]["uri"] == str(shared_data / name)
