"""The page of a run: scores, curves and pictures in one file that needs nothing else."""

import base64
import hashlib
import json
import math
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from maskcast.markup import Html, element, table
from maskcast.params import Params
from maskcast.progress import report, report_file
from maskcast.report.index import write_index
from maskcast.report.page import Page
from maskcast.runner.run import run_stage
from maskcast.runner.stage import OutPath, stage


class Given(Params):
    seed: int = 7
    note: str = "<i>"


def test_holds_scores_curves_pictures_and_lineage(tmp_path: Path) -> None:
    page = Page("train_masker")
    for step in range(3):
        page.metrics({"train/loss": 1.0 / (step + 1)}, step)
    page.metrics({"val_jaccard": 0.5}, None)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "val<0>.png")
    page.file(tmp_path / "val<0>.png", "masker")
    (tmp_path / "scores.csv").write_text("a,b")
    page.file(tmp_path / "scores.csv", "")
    tags = {
        "maskcast.git_sha": "abc",
        "maskcast.data_hash.clips": "def",
        "maskcast.dvc_hash.clips": "ghi.dir",
        "mlflow.source.name": "unshown",
    }
    page.write(tmp_path / "page.html", {"val_jaccard": 0.5}, Given(), tags)
    text = (tmp_path / "page.html").read_text()
    assert '<th scope="row">val_jaccard</th><td>0.5</td>' in text
    assert '<th scope="row">1</th><td>0.5</td>' in text  # the curve's numbers
    assert len(re.findall("data:image/png;base64,", text)) == 1
    assert "masker/val&lt;0&gt;.png" in text
    assert "a,b" not in text
    for name, value in (
        ("commit", "abc"),
        ("input clips", "def"),
        ("DVC&#x27;s hash of clips", "ghi.dir"),
        ("seed", "7"),
        ("note", "&lt;i&gt;"),
    ):
        assert f'<th scope="row">{name}</th><td class="text">{value}</td>' in text
    assert "unshown" not in text
    assert re.findall(r'(?:src|href)="(?!data:|#)([^"]*)', text) == ["index.html"]  # hidden but among files


def test_scores_and_the_loss_come_first_and_single_points_are_no_curves(tmp_path: Path) -> None:
    page = Page("train_masker")
    for step in range(2):
        page.metrics({"train/border": 1.0, "train/loss": 2.0, "val/jaccard": 0.5}, step)
    page.metrics({"val/accuracy": 1.0}, 1)
    page.write(tmp_path / "page.html", {}, Given(), {})
    titles = re.findall(r"<figcaption>([^<]*)</figcaption>", (tmp_path / "page.html").read_text())
    assert titles == ["val/jaccard", "train/loss", "train/border"]


def test_its_policy_allows_its_own_style_and_script_alone(tmp_path: Path) -> None:
    Page("x").write(tmp_path / "page.html", {}, Given(), {})
    text = (tmp_path / "page.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#x27;", "'")
    hashes = [
        base64.b64encode(hashlib.sha256(re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1].encode()).digest())
        for tag in ("style", "script")
    ]
    style, script = (f"'sha256-{each.decode()}'" for each in hashes)
    assert policy == f"default-src 'none'; img-src data:; style-src {style}; script-src {script}"
    assert not re.search(r"<[^>]* (style|on\w+)=", text)


def test_a_stage_that_shows_sections_keeps_its_pictures_off_the_page(tmp_path: Path) -> None:
    page = Page("evaluate")
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    page.section("Own <part>", element("p", "shown"))
    page.file(tmp_path / "a.png", "")
    page.write(tmp_path / "page.html", {}, Given(), {})
    text = (tmp_path / "page.html").read_text()
    assert '<h2 id="own-part">Own &lt;part&gt;</h2><p>shown</p>' in text
    assert '<a href="#own-part">' in text
    assert "a.png" not in text and "data:image" not in text.partition("<body>")[2]


def test_what_is_not_markup_is_escaped() -> None:
    evil = '"><script>x</script>'
    safe = "&quot;&gt;&lt;script&gt;x&lt;/script&gt;"
    assert element("p", evil, Html("<b>"), class_=evil, hidden=True, open=False, x=0) == (
        f'<p class="{safe}" hidden x="0">{safe}<b></p>'
    )
    assert element("img", alt=None, aria_label="a") == '<img aria-label="a">'
    assert table(evil, [evil, evil], [[evil, evil]]).count(safe) == 6
    assert "<script" not in table(evil, [evil, evil], [[evil, evil]])


def test_a_measuring_stage_has_a_page(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    @stage
    def measure(*, metrics: OutPath, params: Params) -> None:
        """Measures."""
        report({"val/score": 0.5}, step=0)
        report({"val/score": 0.25}, step=1)
        Image.new("RGB", (2, 2)).save(tmp_path / "look.png")
        report_file(tmp_path / "look.png")
        metrics.write_text(json.dumps({"score": 0.25}))

    run_stage("measure", {}, metrics=tmp_path / "m.json", page=tmp_path / "m.html")
    text = (tmp_path / "m.html").read_text()
    assert '<th scope="row">score</th><td>0.25</td>' in text
    assert 'alt="look.png"' in text
    assert 'aria-label="val/score, by step' in text
    assert '<a href="m.html">measure</a>' in (tmp_path / "index.html").read_text()


def test_the_index_leads_to_no_page_that_dvc_has_removed_for_a_run_that_stops(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    @stage
    def measure(*, metrics: OutPath, params: Params) -> None:
        """Measures."""
        links.append((tmp_path / "index.html").exists() and (tmp_path / "index.html").read_text().count("m.html"))
        if len(links) > 1:
            raise KeyboardInterrupt
        metrics.write_text(json.dumps({"score": 0.25}))

    links: list[int] = []
    outputs = {"metrics": tmp_path / "m.json", "page": tmp_path / "m.html"}
    run_stage("measure", {}, **outputs)
    assert (tmp_path / "index.html").read_text().count("m.html") == 1
    for others in (0, 1):
        if others:
            Page("other").write(tmp_path / "other.html", {}, Params(), {})
        outputs["page"].unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            run_stage("measure", {}, **outputs)
        assert (tmp_path / "index.html").exists() == bool(others)
    assert links == [False, False, 0]


def test_the_index_links_to_all_pages_of_ours_and_leaves_the_index_of_others_alone(tmp_path: Path) -> None:
    for name in ("first", "second & last"):
        Page(name).write(tmp_path / f"{name[:6].strip()}.html", {"score": 1.0}, Params(), {})
    (tmp_path / "foreign.html").write_text("<title>of somebody else</title>")
    os.utime(tmp_path / "first.html", (1, 1))
    index = tmp_path / "index.html"
    assert write_index(tmp_path) == index
    assert "<nav" not in index.read_text()  # it has one section
    links = re.findall(r'<a href="([^"#][^"]*)">([^<]*)</a>', index.read_text())
    assert links == [("first.html", "first"), ("second.html", "second &amp; last")]
    assert write_index(tmp_path) == index and sorted(tmp_path.glob("*.partial")) == []
    index.write_text("<title>of somebody else</title>")
    assert write_index(tmp_path) is None and index.read_text() == "<title>of somebody else</title>"
    assert write_index(tmp_path / "nowhere") is None


def test_the_index_leads_to_pages_of_any_name_and_passes_over_what_is_none(tmp_path: Path) -> None:
    names = ["lr#1.html", "50%25?.html", os.fsdecode(b"caf\xe9.html")]
    for name in names:
        Page("stage").write(tmp_path / name, {"score": 1.0}, Params(), {})
    (tmp_path / ".#stage.html").symlink_to("somebody@host.123")  # as an editor marks a file that it changes
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.html")
    index = write_index(tmp_path)
    assert index is not None
    links = re.findall(r'<a href="([^"#][^"]*)">stage</a>', index.read_text())
    assert sorted(map(unquote_to_bytes, links)) == sorted(map(os.fsencode, names))


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"epochs": 3.0, "val_jaccard": 0.51234}, "validation Jaccard 0.5123"),
        (
            {"jaccard": 0.9, "jaccard_last": 0.517, "jaccard_last_no_background": 0.12},
            "Jaccard of the last frame 0.5170 (0.1200 without background)",
        ),
        ({"AP": 0.25, "AP50": 0.5}, "AP 0.2500"),
        ({"epochs": 3.0}, ""),
    ],
)
def test_the_index_tells_the_main_score_of_each_page(metrics: dict[str, float], told: str, tmp_path: Path) -> None:
    Page("stage").write(tmp_path / "stage.html", metrics, Params(), {})
    index = write_index(tmp_path)
    assert index is not None
    (row,) = re.findall('<tr><th scope="row"><a href="stage.html">.*?</tr>', index.read_text())
    assert re.findall("<td[^>]*>(.*?)</td>", row)[0] == told


def test_columns_of_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    cells = ["name", "0.068 to 1e-05", Html("<strong>12,345.6%</strong>"), "n/a", "of -", "2 clips"]
    text = table("All", ["first", "span", "best", "none", "words", "counts"], [cells, ["other", "", "-", 3, 4, 5]])
    assert re.findall('class="text">([^<]*)<', text) == ["words", "counts", "of -", "2 clips", "4", "5"]
    assert table("None", ["first", "second"], []).count("<th") == 3  # thead among them


def test_counts_are_whole_and_params_are_written_as_in_a_params_file(tmp_path: Path) -> None:
    class Mixed(Params):
        nothing: str | None = None
        wide: bool = True
        names: tuple[str, ...] = ("a", "é")
        later: bool = False

    numbers = {
        "parameters": 12345678,
        "seconds": 1234567.8,
        "score": 0.123456789,
        "tiny": 1.25e-9,
        "none": math.nan,
    }
    Page("x").write(tmp_path / "page.html", numbers, Mixed(), {})
    rows = re.findall('<th scope="row">([^<]*)</th><td[^>]*>([^<]*)</td>', (tmp_path / "page.html").read_text())
    assert dict(rows) == {
        "parameters": "12,345,678",
        "seconds": "1,234,568",
        "score": "0.123457",
        "tiny": "1.25e-09",
        "none": "n/a",
        "nothing": "null",
        "later": "false",
        "wide": "true",
        "names": "[&quot;a&quot;, &quot;é&quot;]",
    }
