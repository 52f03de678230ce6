"""Line charts as inline SVG, each with its numbers in a table for accessibility."""

import math
from collections.abc import Mapping, Sequence

from maskcast.data.clip_store.frame_index import spread
from maskcast.markup import Html, collapsible, element, table

WIDTH, HEIGHT = 360, 230  # about the width of a phone, so that text is not scaled
TOP, BOTTOM = 10, 38
MIN_LEFT, MIN_RIGHT, DIGIT = 44, 10, 7  # widths in pixels: y axis, right margin, digit
MAX_POINTS, MAX_ROWS = 400, 40
MAX_DOTS = 30  # maximum number of points of a line that also get dots
TICKS = 5  # approximate number of ticks on an axis
STYLES = 8  # CSS classes line-0 to line-7

Points = Sequence[tuple[float, float]]


def line_chart(
    title: str,
    lines: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str = "",
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
    mark: tuple[float, str] | None = None,
) -> Html:
    """Returns a figure with chart, legend and, collapsed, the numbers.

    If there are many points, evenly spaced ones are drawn and listed, including the first and the last.

    Args:
        title: Caption.
        lines: (x, y) by name; points that are not finite are missing in the table, and skipped by the line.
        x_label: Meaning of x.
        y_label: Meaning of y.
        y_range: Minimum and maximum of the y axis; None fits the lines.
        log_x: Logarithmic x axis, for x > 0, with a tick at each x, or at powers of ten if there are many.
        mark: An x that is marked by a vertical line, and its meaning.
    """
    lines = {name: spread(points, MAX_POINTS) for name, points in lines.items()}
    finite = {
        name: [point for point in points if all(map(math.isfinite, point))] for name, points in lines.items()
    }
    drawn = [point for points in finite.values() for point in points]
    if not drawn:
        return element("p", f"{title}: no finite numbers.")
    scale = math.log if log_x else float
    xs = sorted({x for x, _ in drawn})
    x_low, x_high = xs[0], xs[-1]
    y_low, y_high = y_range or (min(y for _, y in drawn), max(y for _, y in drawn))
    y_ticks = _ticks(y_low, y_high)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
    left = max(MIN_LEFT, 8 + DIGIT * max(len(f"{tick:g}") for tick in y_ticks))
    integers_only = all(float(x).is_integer() for x, _ in drawn)
    inner_ticks = [tick for tick in _ticks(x_low, x_high, integers_only=integers_only) if x_low <= tick <= x_high]
    x_ticks = _log_ticks(xs) if log_x else inner_ticks
    right = max([MIN_RIGHT, *(math.ceil(DIGIT * len(f"{tick:g}") / 2) for tick in x_ticks)])

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - scale(x_low)) / (scale(x_high) - scale(x_low)) if x_high > x_low else 0.5
        up = (y - y_low) / (y_high - y_low)
        return round(left + across * (WIDTH - left - right), 1), round(
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1
        )

    parts: list[Html] = []
    for tick in y_ticks:
        _, y = to_pixels(x_low, tick)
        parts.append(element("line", x1=left, x2=WIDTH - right, y1=y, y2=y, class_="rule"))
        parts.append(element("text", f"{tick:g}", x=left - 6, y=y + 4, text_anchor="end"))
    for label, x in _without_overlap([(f"{tick:g}", to_pixels(tick, y_low)[0]) for tick in x_ticks]):
        parts.append(element("text", label, x=x, y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    parts.append(element("text", x_label, x=(left + WIDTH - right) / 2, y=HEIGHT - 4, text_anchor="middle"))
    if mark is not None:
        x, _ = to_pixels(mark[0], y_low)
        parts.append(element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark"))
    for k, points in reversed(list(enumerate(finite.values()))):  # the first line is drawn on top
        positions = [to_pixels(*point) for point in points]
        parts.append(element("polyline", points=" ".join(f"{x},{y}" for x, y in positions), class_=_style(k)))
        if len(positions) <= MAX_DOTS:
            parts += [element("circle", cx=x, cy=y, r=2.5, class_=f"dot dot-{k % STYLES}") for x, y in positions]
    label = f"{title}, {y_label + ' ' if y_label else ''}by {x_label}; the numbers follow as a table"
    chart = element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)
    caption = (f"{title}: {y_label}" if y_label else title) + (f"; vertical line: {mark[1]}" if mark else "")
    return element(
        "figure",
        element("figcaption", caption),
        chart,
        _legend(list(lines)),
        _numbers(title, x_label, lines),
        class_="chart",
    )


def _style(k: int) -> str:
    """Returns the CSS classes of line k; beyond `STYLES` lines, colours repeat with dots."""
    return f"line line-{k % STYLES}" + (" again" if k >= STYLES else "")


def _legend(names: Sequence[str]) -> Html:
    if len(names) < 2:
        return Html()
    swatch = {"viewBox": "0 0 28 8", "aria_hidden": "true"}
    entries = [
        element("li", element("svg", element("path", d="M0 4H28", class_=_style(k)), **swatch), name)
        for k, name in enumerate(names)
    ]
    return element("ul", *entries, class_="legend")


def _numbers(title: str, x_label: str, lines: Mapping[str, Points]) -> Html:
    caption, xs = f"{title}, by {x_label}", {x for points in lines.values() for x, _ in points}
    if sum(map(len, lines.values())) >= len(xs) * len(lines) / 2:
        return collapsible("Numbers", _table(caption, x_label, lines))
    # lines with different x would leave most cells of a common table empty
    return collapsible("Numbers", *(_table(f"{caption}: {name}", x_label, {name: lines[name]}) for name in lines))


def _table(caption: str, x_label: str, lines: Mapping[str, Points]) -> Html:
    by_x = {name: dict(points) for name, points in lines.items()}
    xs = sorted({x for values in by_x.values() for x in values})
    shown = spread(xs, MAX_ROWS)
    rows = [[f"{x:g}", *(_format_value(values.get(x)) for values in by_x.values())] for x in shown]
    return table(caption, [x_label, *lines], rows)


def _format_value(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _without_overlap(ticks: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Returns ticks (text, position) that do not overlap: the first, the last, and as many as fit between."""
    kept: list[tuple[str, float]] = []
    for text, x in (*ticks[:1], *ticks[-1:], *ticks[1:-1]):
        if all(abs(x - other_x) > DIGIT * (len(text) + len(other) + 1) / 2 for other, other_x in kept):
            kept.append((text, x))
    return kept


def _log_ticks(xs: Sequence[float]) -> Sequence[float]:
    """Returns the x values themselves if they are few, else the powers of ten between them."""
    powers = [
        10.0**n for n in range(math.ceil(math.log10(xs[0]) - 1e-9), math.floor(math.log10(xs[-1]) + 1e-9) + 1)
    ]
    return powers if len(xs) > MAX_DOTS and len(powers) > 1 else xs


def _ticks(low: float, high: float, *, integers_only: bool = False) -> list[float]:
    """Returns round numbers (1, 2, 2.5 or 5 times a power of ten apart) from below `low` to above `high`."""
    if high <= low:
        margin = abs(low) / 10 or 0.5
        low, high = low - margin, high + margin
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    step = max(math.ceil(step), 1) if integers_only else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]
