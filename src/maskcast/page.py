"""The page of a run: one HTML file with its scores, curves and pictures, whole in itself.

`run_stage` writes one for every learning or measuring stage: a browser opens it after `dvc repro`, and the
Kubeflow UI shows it as the stage's HTML artifact.
"""

import base64
import html
from collections import defaultdict
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

PICTURES = {".png": "image/png", ".gif": "image/gif"}
TEXTS = (".md",)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #24292f }
table { border-collapse: collapse } td { padding: .15rem 1rem .15rem 0; border-bottom: 1px solid #d8dee4 }
td + td { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 1.5rem 0 } img { max-width: 100%; image-rendering: pixelated } figcaption { color: #57606a }
pre { overflow-x: auto; background: #f6f8fa; padding: .75rem }
"""


class Page:
    """Collects what a stage reports; a listener of ``progress``."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._files: dict[str, str] = {}  # caption to HTML

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Takes one point of each curve; numbers without a step are no curve."""
        if step is not None:
            for name, value in values.items():
                self._curves[name].append((step, value))

    def file(self, path: Path, folder: str) -> None:
        """Takes a picture (PNG, GIF) or a text (Markdown) into the page; MLflow alone keeps other kinds."""
        caption = f"{folder}/{path.name}" if folder not in ("", ".") else path.name
        if path.suffix in PICTURES:
            self._files[caption] = _picture(path.read_bytes(), PICTURES[path.suffix], caption)
        elif path.suffix in TEXTS:
            text = html.escape(path.read_text(encoding="utf-8"))
            self._files[caption] = (
                f"<figure><figcaption>{html.escape(caption)}</figcaption><pre>{text}</pre></figure>"
            )

    def write(self, path: Path, metrics: Mapping[str, float]) -> None:
        """Writes the page with the stage's final ``metrics`` on top."""
        rows = "\n".join(f"<tr><td>{html.escape(k)}</td><td>{v:.6g}</td></tr>" for k, v in metrics.items())
        curves = _picture(_plot(self._curves), "image/png", "curves by step") if self._curves else ""
        title = html.escape(self.stage)
        head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        body = "\n".join([f"<h1>{title}</h1>", "<table>", rows, "</table>", curves, *self._files.values()])
        page = f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>\n{body}\n</body></html>\n"
        path.write_text(page, encoding="utf-8")


def _picture(data: bytes, kind: str, caption: str) -> str:
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    caption = html.escape(caption)
    return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def _plot(curves: Mapping[str, list[tuple[int, float]]]) -> bytes:
    """Returns a PNG of all curves, small multiples in columns of three."""
    from matplotlib.figure import Figure

    rows = -(-len(curves) // 3)
    figure = Figure(figsize=(12, 2.4 * rows), layout="constrained")
    for place, (name, points) in enumerate(sorted(curves.items()), 1):
        axes = figure.add_subplot(rows, 3, place)
        axes.plot(*zip(*points, strict=True), color="#0969da", linewidth=1, marker="." if len(points) < 40 else "")
        axes.set_title(name, fontsize=9, loc="left")
        axes.tick_params(labelsize=7)
        axes.grid(color="#d8dee4", linewidth=0.5)
        axes.set_axisbelow(True)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return png.getvalue()
