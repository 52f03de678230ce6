"""The page of an evaluation in a browser: on a desk and a phone, in the dark, by keyboard, without the network."""

import json
import re
import shutil
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from tests.conftest import lacking
from tests.unit.test_evaluate import as_generated

from maskcast.curves import write_curves
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.left_out import LeftOut
from maskcast.errors import IllustratedError
from maskcast.labels import MASK, single_map
from maskcast.markup import figure, table
from maskcast.models.base import save_model
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.params import Params
from maskcast.report.charts import line_chart
from maskcast.report.left_out_page import write_left_out
from maskcast.report.page import Page as ReportPage
from maskcast.runner.run import run_stage

EVIL = '<script>document.title = "run"</script>'
CLASSES = ["background", EVIL, *(f"class {k}" for k in range(2, 49))]
FRAMES = 22

CONTRASTS = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = channels(colour).slice(0, 3).map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const worst = {};
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!text || ["SCRIPT", "title"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const ink = luminance(element.tagName === "text" ? style.fill : style.color), back = luminance(paper(element));
    const ratio = (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
    worst[element.tagName] = Math.min(worst[element.tagName] ?? 99, ratio);
  }
  return worst;
}"""  # WCAG 2.2, contrast ratio of every element that holds text


CLIPPED = """() => {
  const found = [];
  for (const chart of document.querySelectorAll("svg")) {
    const frame = chart.getBoundingClientRect(), boxes = [];
    for (const text of chart.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      const out = Math.max(frame.left - box.left, box.right - frame.right, frame.top - box.top, 0);
      const touches = other => box.left < other.right && other.left < box.right
        && box.top + 3 < other.bottom && other.top + 3 < box.bottom;  // a line is higher than its letters
      if (out > 1 || boxes.some(touches)) found.push(text.textContent);
      boxes.push(box);
    }
  }
  return found;
}"""  # texts of charts that leave their chart, or touch others


def write_clips(root: Path) -> Path:
    """Three clips of noise, 49 classes, with moving squares: the hardest to compress."""
    rng = np.random.default_rng(0)
    with ClipWriter(root, height=160, width=240, maps=single_map(CLASSES)) as writer:
        for n in range(3):
            masks = np.zeros((FRAMES, 160, 240), np.uint8)
            for k in range(48):
                top, left = rng.integers(0, 130), rng.integers(0, 150)
                for t in range(FRAMES):
                    masks[t, top : top + 20, left + 3 * t : left + 3 * t + 20] = k + 1
            frames = rng.integers(0, 255, (FRAMES, 160, 240, 3), dtype=np.uint8)
            writer.add(f"<b>{n}</b>", split="val", kind="labelled", frames=frames, masks={MASK: masks})
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """What the stages evaluate and register_models leave, and the MLflow server (a file) that they report to."""
    root = tmp_path_factory.mktemp("report")
    shutil.copy(empty_database, root / "mlflow.db")
    clips = write_clips(root / "clips")
    forecaster, masker = ConvLSTMConfig(hidden=4, stride=8, motion="none"), UNetConfig(width=2)
    save_model(root / "forecaster", forecaster.build(49), forecaster, num_classes=49, meta={})
    save_masker(root / "masker", masker.build([ClipStore(clips).label_map]), masker, {})
    epochs = [{"epoch": n, "loss": 1 / n, "jaccard": 1 - 1 / n} for n in range(1, 6)]
    write_curves(root / "masker", {"train_masker": epochs})
    models = {"masker": root / "masker", "forecaster": root / "forecaster"}
    masks = as_generated(ClipStore(clips), root / "masks", root / "masker")
    outputs = {"metrics": root / "metrics.json", "report": root / "report", "page": root / "page.html"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run_stage("evaluate", {"pictures": 3}, clips=clips, masks=masks, **models, **outputs)
        registered = {"registration": root / "registration.json", "page": root / "registration.html"}
        run_stage("register_models", {}, clips=clips, **models, report=root / "report", **registered)
    write_hard_page(root / "hard.html")
    return root


def write_hard_page(path: Path) -> None:
    """Writes a page of charts with long names and small numbers, a wide picture, and numbers of all sizes."""
    page, name = ReportPage("train_masker"), "a_name_that_has_no_place_where_it_could_be_broken_into_lines"
    for step in range(100):
        page.metrics({f"train/{name}": 1.25e-05 * step, "train/large": -1e7 * step}, 12345 * step)
    for step in (375, 750, 1500):
        page.metrics({"val/jaccard": step / 2000}, step)
    data = BytesIO()
    Image.new("RGB", (2000, 300)).save(data, "PNG")
    page.section("Pictures", figure("A wide one", name, data.getvalue()))
    lines = {f"{name}_{k}": [(x, k / 9) for x in (0.5, 1, 90, 95, 100)] for k in range(8)}
    page.section("By share", line_chart(name, lines, x_label="%", log_x=True))
    page.section("By name", table(name, ["name", "why", "value"], [[name, f"{name} " * 9, "0.1 to 0.2"]]))
    page.write(path, {name: 1e9}, Params(), {})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        lacking("chromium is absent: install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.fixture
def opened(browser: Browser, folder: Path):
    """Opens the page; what it asks for besides itself, and what its console says, fails the test."""
    contexts, requests, said = [], [], []

    def open_page(width: int = 1200, name: str = "page.html", **how) -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **how))
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url.partition(",")[0]))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((folder / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    own = {page.as_uri() for page in folder.glob("*.html")}
    assert [url for url in requests if url not in own and not url.startswith("data:image/")] == []
    assert said == []


@pytest.mark.parametrize(("stage", "name"), [("evaluate", "page.html"), ("register_models", "registration.html")])
def test_it_is_one_small_file_and_the_same_in_mlflow(folder: Path, stage: str, name: str) -> None:
    page = (folder / name).read_bytes()
    assert len(page) < 5_000_000
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maskcast")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`maskcast.stage` = '{stage}'")
    artifact = Path(client.download_artifacts(run.info.run_id, f"{stage}.html"))
    assert artifact.read_bytes() == page


def test_scores_are_those_of_the_stage_and_names_stay_text(folder: Path, opened) -> None:
    page, metrics = opened(), json.loads((folder / "metrics.json").read_text())
    assert page.title() == "evaluate"  # the script in a class name did not run
    row = page.locator("#scores + * >> xpath=.. >> css=tbody tr").first
    assert f"{metrics['jaccard_last']:.4f}" in row.inner_text()
    assert page.locator("section", has=page.locator("#by-class")).get_by_role("rowheader", name=EVIL).count() == 1
    assert page.get_by_role("heading", name=re.compile("Best: <b>")).count() == 1
    assert page.locator("section", has=page.locator("#lineage")).get_by_text("input forecaster").count() == 1
    curves = page.locator("section", has=page.locator("#learning-curves"))
    assert curves.get_by_text("Loss of train masker").count() and curves.locator("figure").count() == 2
    assert page.locator("script").count() == 1


def test_a_slider_moves_the_frames_by_pointer_and_keyboard(opened) -> None:
    page = opened()
    clip = page.locator(".clip").first
    slider, panel = clip.get_by_role("slider"), clip.locator(".panels svg").first

    def state() -> tuple[str | None, bytes]:
        return slider.get_attribute("aria-valuetext"), panel.screenshot()

    text, last = state()
    assert re.fullmatch(rf"frame {FRAMES} of {FRAMES}, forecast, Jaccard 0\.\d+", text or "")
    slider.focus()
    slider.press("Home")
    text, first = state()
    assert text == f"frame 1 of {FRAMES}, seen"
    slider.press("ArrowRight")
    text, second = state()
    assert text == f"frame 2 of {FRAMES}, seen"
    assert panel.get_attribute("aria-label") == f"truth, {text}"
    assert clip.locator(".now").inner_text() == text
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    text, middle = state()
    assert 8 < int(text.split()[1]) < 16
    assert len({first, second, middle, last}) == 4
    # another clip stays
    assert page.locator(".clip").nth(1).get_by_role("slider").input_value() == str(FRAMES - 1)


def test_a_button_plays_a_clip_and_stops_it(opened) -> None:
    page = opened()
    clip = page.locator(".clip").first
    button, slider = clip.get_by_role("button", name="Play"), clip.get_by_role("slider")
    button.click()
    seen = set()
    while len(seen) < 4:
        seen.add(slider.input_value())
        page.wait_for_timeout(50)
    clip.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    stopped = slider.input_value()
    page.wait_for_timeout(500)
    assert slider.input_value() == stopped and clip.locator(".now").inner_text().startswith("frame ")
    button.click()
    slider.press("Home")  # whoever moves the slider looks at one frame
    page.wait_for_timeout(500)
    assert slider.input_value() == "0" and button.is_visible()


def test_pages_lead_to_each_other_through_their_index(opened) -> None:
    page = opened()
    page.get_by_role("link", name="All pages").click()
    assert page.url.endswith("/index.html")
    assert page.locator("main").get_by_role("link").all_inner_texts() == ["evaluate", "register_models"]
    page.get_by_role("link", name="register_models").click()
    assert page.get_by_role("heading", level=1).inner_text() == "register_models"


def test_without_scripts_nothing_can_be_played(opened) -> None:
    assert opened(java_script_enabled=False).get_by_role("button").count() == 0


def test_without_scripts_the_last_frame_is_shown(opened) -> None:
    with_scripts, without = opened(), opened(java_script_enabled=False)
    pictures = [page.locator(".panels").first.screenshot() for page in (with_scripts, without)]
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(opened, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    for details in page.locator("details").all():
        details.evaluate("each => each.open = true")
    contrasts = page.evaluate(CONTRASTS)
    assert {"P", "TD", "TH", "A", "SUMMARY", "text", "FIGCAPTION", "CAPTION"} <= contrasts.keys()
    assert min(contrasts.values()) >= 4.5, contrasts
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]


@pytest.mark.parametrize("name", ["page.html", "registration.html", "hard.html"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_screen(opened, width: int, name: str) -> None:
    page = opened(width, name)
    for details in page.locator("details").all():
        details.evaluate("each => each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CLIPPED) == []


@pytest.mark.parametrize("name", ["page.html", "registration.html"])
def test_nothing_is_cut_off_on_paper(opened, name: str) -> None:
    page = opened(718, name)  # A4 between the margins of Chromium
    page.emulate_media(media="print")
    for details in page.locator("details").all():
        details.evaluate("each => each.open = true")
    for frame in page.locator(".scroll").all():
        assert frame.evaluate("e => e.scrollWidth <= e.clientWidth"), frame.get_attribute("aria-label")


def test_a_slider_is_long_enough_for_a_finger(opened) -> None:
    page = opened(360)
    slider = page.get_by_role("slider").first.bounding_box()
    assert slider["width"] >= 200 and slider["height"] >= 24


def test_a_screen_reader_finds_its_way(opened) -> None:
    page = opened()
    assert page.locator("html").get_attribute("lang") == "en"
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1
    levels = [int(each.evaluate("e => e.tagName[1]")) for each in page.locator("h1, h2, h3").all()]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for selector, check in {
        "img": "e => !!e.alt",
        "input": "e => e.labels.length === 1 && !!e.getAttribute('aria-label')",
        "table": "e => !!e.caption && e.querySelectorAll('th:not([scope])').length === 0",
        "svg:not([aria-hidden])": "e => e.getAttribute('role') === 'img' && !!e.getAttribute('aria-label')",
        "nav a, main a": "e => !!document.getElementById(e.hash.slice(1))",
        "[id]": "e => document.querySelectorAll('#' + CSS.escape(e.id)).length === 1",
        ".scroll": "e => e.tabIndex === 0 && !!e.getAttribute('aria-label')",
    }.items():
        found = page.locator(selector).all()
        assert found or selector == "img"
        assert all(each.evaluate(check) for each in found), selector


def test_the_keyboard_sees_where_it_is(opened) -> None:
    page = opened()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    assert skip.evaluate("e => e === document.activeElement") and skip.bounding_box()["x"] >= 0
    assert skip.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


@pytest.mark.parametrize("ui", ["kubeflow", "mlflow"])
def test_links_lead_to_sections_inside_the_frames_of_kubeflow_and_mlflow(
    browser: Browser, folder: Path, ui: str
) -> None:
    around = browser.new_page(viewport={"width": 900, "height": 700})
    around.route("http://ui.test/*", lambda route: route.fulfill(body="<h1>UI</h1>", content_type="text/html"))
    around.goto("http://ui.test/runs")
    around.evaluate(
        """([page, ui]) => {
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.width = 880;
          frame.height = 600;
          if (ui === "kubeflow") frame.srcdoc = page;
          else frame.src = URL.createObjectURL(new Blob([page], { type: "text/html" }));
          return new Promise(done => { frame.onload = done; document.body.replaceChildren(frame); });
        }""",
        [(folder / "page.html").read_text(encoding="utf-8"), ui],
    )
    report = around.frame_locator("iframe")
    report.get_by_role("link", name="Confusions").click()
    heading = report.get_by_role("heading", name="Confusions")
    assert heading.evaluate("e => e === document.activeElement && Math.abs(e.getBoundingClientRect().top) < 2")
    assert report.get_by_role("heading", level=1).inner_text() == "evaluate"
    around.close()


def test_pictures_beside_a_page_of_left_out_clips_are_shown(browser: Browser, tmp_path: Path) -> None:
    found = LeftOut(tmp_path)
    for number in range(2):
        found.add(f"{EVIL}_{number}", IllustratedError("too little screen", np.full((40, 900, 3), 99, np.uint8)))
    path = write_left_out(found)
    assert path is not None
    said: list[str] = []
    for place in (path.as_uri(), f"http://clips.test/{path.name}"):  # as a file, and from a server
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.route(
            "http://clips.test/*", lambda route: route.fulfill(path=path.with_name(Path(route.request.url).name))
        )
        page.goto(place)
        assert page.evaluate("[...document.images].map(image => image.naturalWidth)") == [900, 900]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.get_by_role("heading", name=EVIL).count() == 2 and page.title() == "Clips that are left out"
        assert page.get_by_text("too little screen").count() == 2
        page.close()
    assert said == []


def test_the_page_of_a_registration_opens_too(opened) -> None:
    page = opened(360, "registration.html", color_scheme="dark")
    assert "There is no champion yet" in page.get_by_role("main").inner_text()
    assert re.search(r"failed: jaccard_mean 0\.\d+, required > ", page.get_by_role("main").inner_text())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert min(page.evaluate(CONTRASTS).values()) >= 4.5
