"""The page of a run: one self-contained HTML file with its scores, curves and pictures.

`run_stage` writes a page for each stage that trains or evaluates. It can be opened after `dvc repro`, Kubeflow
shows it as the stage's HTML artifact, and MLflow keeps it with the run. It works on phones, in light and dark
mode, by keyboard and with screen readers. Its content security policy allows no external resources, and no script
but its own.
"""

import base64
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from maskcast.digest import DATA_HASH, DVC_HASH
from maskcast.markup import Html, collapsible, concatenate, element, figure, table
from maskcast.params import flatten
from maskcast.redaction import redacted
from maskcast.report.charts import line_chart
from maskcast.report.page_style import SCRIPT, STYLE

INDEX = "index.html"  # index with links to all pages of a folder
GENERATOR = element("meta", name="generator", content="maskcast")  # identifies pages of maskcast
PICTURES = {".png": "image/png", ".gif": "image/gif"}
SCORES = {  # by name in the metrics, most important first: name of a stage's score in the index
    "miou": "mIoU",
    "jaccard_last": "Jaccard of the last frame",
    "jaccard": "Jaccard",
    "val_jaccard_last": "validation Jaccard of the last frame",
    "val_jaccard": "validation Jaccard",
    "AP": "AP",
    "val_AP": "validation AP",
}
FIRST = ("Scores", "Curves")  # sections that come before all others
ORIGIN = {
    "maskcast.git_sha": "commit",
    "maskcast.image": "image",
    "maskcast.version": "maskcast",
    "maskcast.code": "installed maskcast",
    "maskcast.params_hash": "hash of the params",
    "maskcast.group": "group of runs",
}


class Page:
    """Collects what a stage reports and shows; a listener of ``progress``."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._curves: dict[str, dict[int, float]] = defaultdict(dict)  # by name and step
        self._pictures: dict[str, tuple[bytes, str]] = {}  # content and media type, by caption
        self._sections: dict[str, Html] = {}  # by title

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Sets the point of each curve at a step; metrics without a step are ignored."""
        if step is not None:
            for name, value in values.items():
                self._curves[name][step] = value

    def file(self, path: Path, folder: str) -> None:
        """Adds a picture (PNG, GIF) to the page; other files are only kept by MLflow."""
        caption = f"{folder}/{path.name}" if folder not in ("", ".") else path.name
        if path.suffix in PICTURES:
            self._pictures[caption] = path.read_bytes(), PICTURES[path.suffix]

    def section(self, title: str, content: Html) -> None:
        """Adds a section made by the stage; a page with such sections does not show the stage's pictures."""
        self._sections[title] = content

    def write(self, path: Path, metrics: Mapping[str, float], params: BaseModel, tags: Mapping[str, str]) -> None:
        """Writes the page.

        Args:
            path: File of the page.
            metrics: The stage's final metrics; without sections of the stage's own they come first.
            params: The stage's params.
            tags: Where it ran; see ``provenance.run_tags``.
        """
        numbers = table("Final numbers", ["name", "value"], [[k, _number(v)] for k, v in metrics.items()])
        has_sections = bool(self._sections)
        sections = dict(self._sections)
        sections["All numbers" if has_sections else "Scores"] = (
            collapsible("Final numbers", numbers) if has_sections else numbers
        )
        # a single point is no curve
        curves = {name: sorted(points.items()) for name, points in self._curves.items() if len(points) > 1}
        if curves:
            charts = [_curve(name, curves[name], metrics) for name in sorted(curves, key=_rank)]
            sections["Curves"] = element("div", *charts, class_="charts")
        sections = dict(sorted(sections.items(), key=lambda each: each[0] not in FIRST))  # sorting is stable
        if self._pictures and not has_sections:
            figures = (figure(caption, caption, *picture) for caption, picture in self._pictures.items())
            sections["Pictures"] = concatenate(figures)
        sections["Lineage"] = _lineage(params, tags)
        path.write_text(document(self.stage, sections, INDEX, _score(metrics)), encoding="utf-8")


def _rank(curve: str) -> tuple[bool, bool, int, str]:
    """Returns the sort key of a curve: validation first, by `SCORES`, then the loss, then the others by name."""
    score = curve.removeprefix("val/")
    place = list(SCORES).index(score) if score in SCORES else len(SCORES)
    return not curve.startswith("val/"), curve != "train/loss", place, curve


def _curve(name: str, points: Sequence[tuple[float, float]], metrics: Mapping[str, float]) -> Html:
    """Returns the chart of a curve; a validation score marks the best epoch, if the stage has one."""
    mark = None
    if name.startswith("val/") and {"best_epoch", "epochs"} <= metrics.keys():
        best, epochs = int(metrics["best_epoch"]), int(metrics["epochs"])
        after = epochs - best  # counted from the end, as a start has a point before the first epoch
        if after < len(points):
            mark = points[-1 - after][0], f"best epoch, {best} of {epochs}"
    return line_chart(name, {name: points}, x_label="step", mark=mark)


def _score(metrics: Mapping[str, float]) -> str:
    """Returns the main score of a stage as text; empty if there is none."""
    name = next((name for name in SCORES if name in metrics), None)
    if name is None:
        return ""
    without_background = metrics.get(f"{name}_no_background")
    suffix = "" if without_background is None else f" ({without_background:.4f} without background)"
    return f"{SCORES[name]} {metrics[name]:.4f}{suffix}"


def _lineage(params: BaseModel, tags: Mapping[str, str]) -> Html:
    facts = [[text, tags[tag]] for tag, text in ORIGIN.items() if tag in tags]
    for prefix, text in ((DATA_HASH, "input"), (DVC_HASH, "DVC's hash of")):
        facts += [
            [f"{text} {tag.removeprefix(prefix)}", name] for tag, name in tags.items() if tag.startswith(prefix)
        ]
    values = [[key, _param(value)] for key, value in flatten(params.model_dump(mode="json")).items()]
    return element(
        "div",
        table("Code and inputs", ["fact", "value"], facts),
        table("Params, including seeds", ["param", "value"], values),
        class_="facts",
    )


def _number(value: float) -> str:
    """Returns a final metric as text: counts and large numbers as integers, others with six digits."""
    if not math.isfinite(value):
        return "n/a"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1e5 else f"{value:.6g}"


def _param(value: object) -> str:
    """Returns a param as written in a params file."""
    return redacted(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def document(
    title: str, sections: Mapping[str, Html], index: str | None = None, score: str = "", *, in_store: bool = False
) -> str:
    """Returns a whole page.

    Args:
        title: heading.
        sections: sections by title.
        index: name of the index page beside it; its link is shown only for local files.
        score: score for the index page, stored as the page's description.
        in_store: whether the page is part of a data set: its pictures may be separate files, and it contains no
            time, so that equal data have equal bytes.
    """
    ids = {name: re.sub(r"\W+", "-", name.lower()).strip("-") for name in sections}
    links = [element("li", element("a", name, href=f"#{ids[name]}")) for name in sections]
    parts = [
        element("section", element("h2", name, id=ids[name]), content, aria_labelledby=ids[name])
        for name, content in sections.items()
    ]
    body = [
        element("a", "Skip to content", href="#content", class_="skip"),
        element(
            "header",
            element("a", "All pages", href=index, class_="index", hidden=True) if index else "",
            element("h1", title),
            element("nav", element("ul", *links), aria_label="Sections") if len(links) > 1 else "",
        ),
        element("main", *parts, id="content", tabindex=-1),
        element("footer", "Written by maskcast." if in_store else f"Written {_now()} UTC by maskcast."),
        element("script", Html(SCRIPT)),
    ]
    images = "data: 'self' file:" if in_store else "data:"
    policy = f"default-src 'none'; img-src {images}; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}"
    head = [
        element("meta", charset="utf-8"),
        GENERATOR,
        element("meta", name="description", content=score) if score else "",
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(STYLE)),
    ]
    return f"<!doctype html>\n{element('html', element('head', *head), element('body', *body), lang='en')}\n"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
