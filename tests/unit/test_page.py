"""The page of a run: scores, curves and pictures in one file that needs nothing else."""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from maskcast import stage as stage_module
from maskcast.page import Page
from maskcast.progress import report, report_file
from maskcast.stage import OutPath, StageParams, run_stage, stage


def test_holds_scores_curves_and_pictures(tmp_path: Path) -> None:
    page = Page("train_masker")
    for step in range(3):
        page.metrics({"train/loss": 1.0 / (step + 1)}, step)
    page.metrics({"val_jaccard": 0.5}, None)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "val<0>.png")
    page.file(tmp_path / "val<0>.png", "masker")
    (tmp_path / "scores.md").write_text("| a | <b> |")
    page.file(tmp_path / "scores.md", ".")
    (tmp_path / "scores.csv").write_text("a,b")
    page.file(tmp_path / "scores.csv", "")
    page.write(tmp_path / "page.html", {"val_jaccard": 0.5})
    text = (tmp_path / "page.html").read_text()
    assert "<tr><td>val_jaccard</td><td>0.5</td></tr>" in text
    assert len(re.findall("data:image/png;base64,", text)) == 2
    assert "masker/val&lt;0&gt;.png" in text
    assert "<pre>| a | &lt;b&gt; |</pre>" in text
    assert "a,b" not in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_a_measuring_stage_has_a_page(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_module, "_REGISTRY", {})
    monkeypatch.setattr(stage_module, "get_stage", lambda name: stage_module._REGISTRY[name])

    @stage
    def measure(*, metrics: OutPath, params: StageParams) -> None:
        """Measures."""
        report({"val/score": 0.25}, step=1)
        Image.new("RGB", (2, 2)).save(tmp_path / "look.png")
        report_file(tmp_path / "look.png")
        metrics.write_text(json.dumps({"score": 0.25}))

    run_stage("measure", {}, metrics=tmp_path / "m.json", page=tmp_path / "m.html")
    text = (tmp_path / "m.html").read_text()
    assert "<td>score</td><td>0.25</td>" in text
    assert 'alt="look.png"' in text
    assert 'alt="curves by step"' in text
