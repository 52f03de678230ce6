"""Pictures, pixel by pixel where it matters."""

from colorsys import rgb_to_hsv
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from maskcast.data.masks.colours import CANVAS, palette
from maskcast.evaluation.view import ForecastView
from maskcast.report import overlays, paint
from maskcast.report.overlays import Row, error_map, grid, masker_strip, matte, matte_error, overlay
from maskcast.report.paint import FALSE_ALARM, MISSED, RIGHT, WRONG_CLASS, elided, font
from maskcast.report.pictures import draw_gallery, draw_strip
from maskcast.serving.video_writer import draw_frames


def make_view(clip_id: str = "video_7", frames: bool = True) -> ForecastView:
    rng = np.random.default_rng(0)
    masks = np.zeros((7, 32, 48), np.uint8)
    for t in range(7):
        masks[t, 8:20, 4 + 3 * t : 16 + 3 * t] = 1
    pictures = rng.integers(0, 255, (7, 32, 48, 3), dtype=np.uint8) if frames else None
    forecasts = {"forecaster": np.roll(masks[4:], 2, 2), "constant_velocity": masks[4:]}
    return ForecastView(clip_id, pictures, masks[:4], masks, forecasts)


VISION = {  # of linear RGB: Machado, Oliveira and Fernandes 2009, table 1, severity 1
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def distances(colours_N3: np.ndarray, vision: str) -> np.ndarray:
    """Returns the distances of sRGB colours in CIE 1976 L*a*b*, (N, N)."""
    encoded = colours_N3 / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = (linear @ VISION[vision].T).clip(0, 1)
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = seen @ np.array(to_xyz).T / (0.95047, 1, 1.08883)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
    return np.linalg.norm(lab[:, None] - lab, axis=-1) + 1e3 * np.eye(len(lab))


@pytest.mark.parametrize(("count", "vision", "least"), [
    (8, "normal", 45), (8, "deuteranopia", 20), (8, "protanopia", 20),
    (60, "normal", 14), (60, "deuteranopia", 7), (60, "protanopia", 7),
])  # fmt: skip
def test_colours_of_classes_differ_in_all_kinds_of_vision(count: int, vision: str, least: float) -> None:
    assert distances(palette()[: count + 1], vision).min() > least


def test_each_class_has_a_colour() -> None:
    assert palette().shape == (256, 3) and len(np.unique(palette(), axis=0)) > 250


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 220, 0), (255, 255, 255), (0, 0, 0)]
)
def test_a_mask_has_the_hue_of_its_key_on_frames_of_any_colour(colour: tuple[int, int, int]) -> None:
    frame = np.full((8, 8, 3), colour, np.uint8)
    for k in range(1, 61):
        painted, key = overlay(frame, np.full((8, 8), k, np.uint8))[4, 4], palette()[k]
        hues = [rgb_to_hsv(*(shown / 255))[0] for shown in (painted, key)]
        off = abs(hues[0] - hues[1])
        assert min(off, 1 - off) < 0.02, (k, painted, key)


@pytest.mark.parametrize(("height", "width"), [(2000, 2), (1, 2000)])
def test_a_picture_of_a_narrow_frame_can_be_drawn(height: int, width: int) -> None:
    sheet = grid([Row("", [np.zeros((height, width, 3), np.uint8)])], "narrow", (320, 640))
    assert sheet.width > 0 and sheet.height < 5000


def test_an_overlay_changes_objects_and_leaves_background() -> None:
    frame = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:7, 2:7] = 3
    mask[0, 0] = 255
    picture = overlay(frame, mask, opacity=0.5)
    np.testing.assert_array_equal(picture[mask != 3], 100)
    np.testing.assert_array_equal(picture[4, 4], np.round(0.5 * palette()[3] + 50))
    np.testing.assert_array_equal(picture[2, 4], np.round(0.45 * palette()[3].astype(float) + 0.55 * 255))  # rim
    np.testing.assert_array_equal(overlay(None, mask)[1, 1], palette()[0])
    np.testing.assert_array_equal(overlay(frame, None), frame)


@pytest.mark.parametrize("share", [0.1, 1])
def test_an_overlay_mixes_colours_and_grey_in_single_precision(share: float) -> None:
    """The same formula for all pixels gives the same picture."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)[:, ::-1]
    mask = np.where(rng.random((60, 80)) < share, rng.integers(0, 256, (60, 80)), 0).astype(np.uint8)
    mask[20:40] = np.repeat(mask[20:40, ::20], 20, axis=1)
    colour = palette()[mask].astype(np.float32)
    shown = ((mask != 0) & (mask != 255))[..., None]
    mixed = np.float32(0.6) * colour + np.float32(0.4) * frame.mean(-1, dtype=np.float32, keepdims=True)
    for given, inside in ((frame, np.where(shown, mixed, frame)), (None, colour)):
        rim = overlays.outline(mask)[..., None] & shown
        expected = np.round(np.where(rim, np.float32(0.45) * colour + np.float32(0.55 * 255), inside))
        np.testing.assert_array_equal(overlay(given, mask), expected.astype(np.uint8))


def test_an_error_map_tells_the_kinds_of_errors_apart() -> None:
    truth = np.array([[0, 1, 1, 0, 1, 255]], np.uint8)
    prediction = np.array([[0, 1, 0, 1, 2, 1]], np.uint8)
    expected = [overlays.CANVAS, RIGHT, MISSED, FALSE_ALARM, WRONG_CLASS, overlays.CANVAS]
    np.testing.assert_array_equal(error_map(truth, prediction)[0], expected)


@pytest.mark.parametrize("frames", [True, False])
def test_a_strip_has_a_row_per_layer_and_is_reproducible(frames: bool) -> None:
    view = make_view(frames=frames)
    strip, again = draw_strip(view, "title"), draw_strip(view, "title")
    assert strip.tobytes() == again.tobytes()
    pixels = np.asarray(strip)
    for colour in (MISSED, FALSE_ALARM, RIGHT, palette()[1] if not frames else RIGHT):
        assert (pixels == colour).all(-1).any()
    assert draw_strip(view, "title", columns=2).width < strip.width


def test_masker_strips_with_and_without_truth() -> None:
    view = make_view()
    masks = view.truth
    with_truth, without = masker_strip(view.frames, masks, masks), masker_strip(view.frames, None, masks)
    assert with_truth.height > without.height
    assert with_truth.width == without.width


def test_a_strip_numbers_frames_as_in_their_clip() -> None:
    view = make_view()
    frames, masks = view.frames[[0, 6]], view.truth[[0, 6]]
    strip = np.asarray(masker_strip(frames, masks, masks, "t", numbers=[0, 6]))
    all_of_them = np.asarray(masker_strip(view.frames, view.truth, view.truth, "t"))
    gutter = strip.shape[1] - 2 * 124 - 12
    captions = slice(48, 68)
    shown = strip[captions, gutter + 124 : gutter + 244]
    assert (shown == all_of_them[captions, gutter + 6 * 124 : gutter + 6 * 124 + 120]).all()
    assert (shown != all_of_them[captions, gutter + 124 : gutter + 244]).any()


def test_the_gallery_spans_best_to_worst(tmp_path: Path) -> None:
    scores = [0.2, 0.9, 0.5, 0.7, 0.1]
    featured = draw_gallery(tmp_path, scores, 3, lambda n: make_view(f"video_{n}"), 7)
    assert sorted(p.name for p in (tmp_path / "strips").iterdir()) == [
        "01_video_1.png",
        "02_video_2.png",
        "03_video_4.png",
    ]
    with Image.open(tmp_path / "gifs" / "01_video_1.gif") as gif:
        assert gif.n_frames == 7
        assert gif.info["loop"] == 0
    assert [(name, n, view.clip_id) for name, (n, view) in featured.items()] == [
        ("best", 1, "video_1"),
        ("median", 2, "video_2"),
        ("worst", 4, "video_4"),
    ]
    with (
        Image.open(tmp_path / "forecast.png") as overview,
        Image.open(tmp_path / "strips" / "01_video_1.png") as strip,
    ):
        assert overview.height == 3 * strip.height


def test_a_gallery_of_one_clip(tmp_path: Path) -> None:
    draw_gallery(tmp_path, [0.5], 6, lambda n: make_view("a/b"), 7)
    assert [p.name for p in (tmp_path / "strips").iterdir()] == ["01_a_b.png"]


def test_a_clip_whose_name_is_too_long_for_a_file_is_drawn(tmp_path: Path) -> None:
    draw_gallery(tmp_path, [0.5], 6, lambda n: make_view("手" * 90), 7)
    assert len(list(tmp_path.glob("*/01_手手手*"))) == 2


def test_a_heading_that_is_too_long_loses_its_middle() -> None:
    text = "a video of a street corner in the rain · a model version 12"
    assert elided(text, 1000, 17) == text
    short = elided(text, 200, 17)
    assert 180 < font(17, text).getlength(short) <= 200
    assert short.startswith("a video") and short.endswith("version 12")
    assert elided(text, 0, 17) == "…"


@pytest.mark.parametrize("name", ["Straße", "Hélène", "łódź", "Клип №1", "Ψυχή", "clip \N{MIDDLE DOT} map…"])
def test_names_of_many_alphabets_are_drawn_in_letters(name: str) -> None:
    letters = font(17, name)
    boxes = [bytes(letters.getmask(each)) == bytes(letters.getmask(paint.MISSING_GLYPH)) for each in name]
    assert not any(boxes)
    masks = [np.array([[1]], np.uint8)]
    rows = [Row(name, [overlay(None, masks[0])], [name])]
    entries = paint.class_entries(masks, ("", name))
    assert grid(rows, name, legend=entries).tobytes() == grid(rows, name, legend=entries).tobytes()


@pytest.mark.parametrize("end", ["\n", "\r", "\x85"])
def test_a_name_with_a_line_break_is_drawn_on_a_line(end: str) -> None:
    cell = np.zeros((8, 8, 3), np.uint8)
    broken, plain = (
        grid([Row(name, [cell], [name])], name, legend=[(name, (1, 2, 3))]) for name in (f"a{end}b", "a b")
    )
    assert broken.tobytes() == plain.tobytes()


def test_letters_that_no_shipped_font_has_are_drawn_in_one_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Letters of nobody's alphabet, which a font that comes with matplotlib has, stand for Chinese ones.
    (tmp_path / "broken.ttf").write_text("no font")
    rare = Path(matplotlib.get_data_path(), "fonts/ttf/STIXNonUni.ttf")
    found = [str(tmp_path / "broken.ttf"), str(rare)]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: found)
    for text, drawn in (("\ue000\ue001", True), ("\ue002\u732b", False)):
        letters = font(17, text)
        boxes = [bytes(letters.getmask(each)) == bytes(letters.getmask(paint.MISSING_GLYPH)) for each in text]
        assert any(boxes) != drawn
        assert elided(text, 1000, 17) == text


def test_what_is_plain_is_drawn_in_one_font() -> None:
    assert font(11, "red cube 0.97 (crowd)") is font(11, "truth \N{MIDDLE DOT} map")


def test_a_matte_keeps_what_is_opaque_and_shows_how_far_it_is_off() -> None:
    frame = np.full((1, 3, 3), 200, np.uint8)
    kept = matte(frame, np.array([[255, 0, 51]], np.uint8))
    assert kept[0, 0].tolist() == [200] * 3 and kept[0, 1].tolist() == list(CANVAS)
    assert kept[0, 2].tolist() == [round(0.2 * 200 + 0.8 * channel) for channel in CANVAS]
    off = matte_error(np.array([[255, 10, 90]], np.uint8), np.array([[250, 20, 90]], np.uint8))
    assert off[0, :, 0].tolist() == [5, 10, 0]


def test_a_legend_names_the_classes_that_occur_below_the_picture_and_counts_those_without_room() -> None:
    masks = [np.array([[0, 2], [255, 2]], np.uint8), np.array([[7]], np.uint8)]
    entries = paint.class_entries(masks, ("background", "cat", "dog"))
    assert entries == [("dog", tuple(palette()[2].tolist())), ("class 7", tuple(palette()[7].tolist()))]
    for width in (352, 672):
        picture = Image.new("RGB", (width, 40), (1, 2, 3))
        shown = np.asarray(paint.with_legend(picture, entries))
        assert (shown[:40] == (1, 2, 3)).all()
        assert shown.shape == (40 + 27, width, 3)
        for _, colour in entries:
            assert 80 < (shown[40:] == colour).all(-1).sum() <= 121
        assert paint.with_legend(picture, []).tobytes() == picture.tobytes()
    many = [(f"a kind of thing {k}", tuple(palette()[k].tolist())) for k in range(1, 49)]
    lines = paint._lines(many, 320, paint.MAX_LINES)
    assert len(lines) == paint.MAX_LINES
    named = [name for line in lines for name, _ in line]
    assert named[-1] == f"and {48 - (len(named) - 1)} more"
    assert all(sum(map(paint._width, (name for name, _ in line))) <= 320 + paint.GAP for line in lines)
    whole = np.asarray(paint.legend_picture(many))  # which leaves none out
    assert all((whole == colour).all(-1).any() for _, colour in many)
    ((name, _),) = paint._lines([("long " * 40, (9, 9, 9))], 320, 6)[0]
    assert "…" in name
    assert paint._width(name) <= 320 + paint.GAP


def test_strips_and_films_have_a_legend_and_each_picture_of_a_film_is_of_one_size() -> None:
    view = make_view()
    named = replace(view, classes=("background", "car"))
    plain, legend = draw_strip(view, "title"), draw_strip(named, "title")
    assert (legend.width, legend.height) == (plain.width, plain.height + 27)
    for height, width in ((80, 120), (720, 1280)):
        frames, masks = np.zeros((2, height, width, 3), np.uint8), np.zeros((3, height, width), np.uint8)
        masks[0, :9, :9], masks[2, :9, :9] = 1, 2
        films = [
            draw_frames(frames, masks[:2], [masks[2:]], names, "t", "123")
            for names in (("", "cat", "dog"), ("", "c", "d"))
        ]
        assert len({picture.size for film in films for picture in film}) == 1
        assert films[0][1].height - 18 * 1.5 > height * min(max(width, 320), 640) / width
        rows = [np.asarray(film[1])[-27:] for film in films]
        assert (rows[0] != rows[1]).any()
        for k in (1, 2):
            assert (rows[0] == palette()[k]).all(-1).sum() > 80


def test_futures_stand_beside_the_forecast_in_a_film() -> None:
    frames, mask = np.zeros((1, 80, 120, 3), np.uint8), np.zeros((2, 80, 120), np.uint8)
    futures = [np.full((1, 80, 120), k, np.uint8) for k in range(12)]
    seen, coming = draw_frames(frames, mask[:1], futures, [str(k) for k in range(12)], "t", "12")
    assert seen.size == coming.size and seen.width > 3 * 320 and seen.height > 3 * 320 * 80 / 120
    shown = {tuple(colour) for colour in np.asarray(coming).reshape(-1, 3)[::7].tolist()}
    assert [k for k in range(1, 12) if tuple(palette()[k].tolist()) in shown] == [1, 2, 3, 4, 5, 6, 7, 8]
