"""Pictures of forecasts: strips, animations, and a gallery from the best clip to the worst.

Frame numbers count from 1, as the names of scores do: after 11 seen frames the forecast starts at frame 12.

Legend: T context frames, h horizon, H height, W width, C = 3 channels (RGB); all arrays are uint8.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.evaluation.view import ForecastView
from maskcast.files import file_stem
from maskcast.report.overlays import MAX_COLUMNS, Row, error_map, grid, overlay, stacked
from maskcast.report.paint import Entry, class_entries

OVERVIEW, OVERVIEW_COLUMNS = "forecast.png", 6
GIF_MS, LAST_FRAMES = 180, 4  # per frame; the last one stays so many times as long


def draw_strip(view: ForecastView, title: str, columns: int = MAX_COLUMNS) -> Image.Image:
    """Draws what was seen, what came, what was forecast, and where the first forecast is wrong.

    Args:
        view: what to draw.
        title: heading.
        columns: at most this many frames a row, spread evenly, the last always among them.
    """
    start = len(view.seen)
    before, after = evenly_spaced(start, columns), evenly_spaced(len(view.judged), columns)
    rows = [
        Row("seen", [_seen(view, t) for t in before], [f"frame {t + 1}" for t in before]),
        Row("truth", [_truth(view, start + t) for t in after], [f"frame {start + t + 1}" for t in after]),
    ]
    rows += [Row(name.replace("_", " "), [_forecast(view, name, t) for t in after]) for name in view.forecasts]
    rows.append(Row("error", [error_map(view.truth[start + t], view.judged[t]) for t in after]))
    return grid(rows, title, legend=classes_shown(view))


def animate(view: ForecastView, path: Path) -> None:
    """Writes a looping GIF: truth on the left; on the right what was seen, then what was forecast."""
    start = len(view.seen)
    name = next(iter(view.forecasts))
    sheets, legend = [], classes_shown(view)
    for t in range(len(view.truth)):
        if t < start:
            cells, right = [_seen(view, t)] * 2, "seen"
        else:
            cells, right = [_truth(view, t), _forecast(view, name, t - start)], "forecast"
        row = Row("", cells, ["truth" if t >= start else "seen", right])
        sheets.append(grid([row], f"frame {t + 1}", legend=legend))
    write_gif(path, sheets)


def write_gif(path: Path, sheets: Sequence[Image.Image]) -> None:
    """Writes an animation that repeats."""
    durations = [GIF_MS] * (len(sheets) - 1) + [LAST_FRAMES * GIF_MS]
    sheets[0].save(path, save_all=True, append_images=list(sheets[1:]), duration=durations, loop=0)


def panels(view: ForecastView, t: int) -> dict[str, np.ndarray]:
    """Returns what there is to see at frame t, counted from 0: pictures (H, W, C) by name.

    Up to the last seen frame the masks that the forecasts start from stand in their place.
    """
    late = t - len(view.seen)
    judged = view.seen[t] if late < 0 else view.judged[late]
    forecasts = {name: _seen(view, t) if late < 0 else _forecast(view, name, late) for name in view.forecasts}
    return {"truth": _truth(view, t), **forecasts, "error": error_map(view.truth[t], judged)}


def draw_gallery(
    folder: Path, scores: Sequence[float], count: int, view: Callable[[int], ForecastView], frame_number: int
) -> dict[str, tuple[int, ForecastView]]:
    """Draws `count` clips spread from the best to the worst score.

    Writes `strips/<rank>_<clip>.png`, for best, median and worst also `gifs/<rank>_<clip>.gif`, and these three
    together as the overview `forecast.png`.

    Args:
        folder: where to.
        scores: one per clip, Jaccard of the frame that it is judged by; a clip without labels there has NaN, is
            neither the best nor the worst, and is drawn only where all are like it.
        count: strips to draw.
        view: gives the view of clip n.
        frame_number: number of that frame, for the headings.

    Returns:
        Number and view of the best, the median and the worst clip by these names; fewer where fewer are drawn.
    """
    for name in ("strips", "gifs"):
        (folder / name).mkdir()
    scored = [n for n, score in enumerate(scores) if not np.isnan(score)] or range(len(scores))
    ranked = sorted(scored, key=lambda n: -scores[n])
    picked = [ranked[place] for place in evenly_spaced(len(ranked), count)]
    named = {picked[len(picked) // 2]: "median"} | {picked[-1]: "worst"} | {picked[0]: "best"}
    overview, featured = [], {}
    for rank, n in enumerate(picked, start=1):
        shown = view(n)
        stem = f"{rank:02d}_{file_stem(shown.clip_id)}"
        title = f"{shown.clip_id} · Jaccard at frame {frame_number}: {scores[n]:.3f}"
        draw_strip(shown, title).save(folder / "strips" / f"{stem}.png")
        if n in named:
            animate(shown, folder / "gifs" / f"{stem}.gif")
            overview.append(draw_strip(shown, f"{named[n]}: {title}", OVERVIEW_COLUMNS))
            featured[named[n]] = n, shown
    stacked(overview).save(folder / OVERVIEW)
    return featured


def classes_shown(view: ForecastView) -> list[Entry]:
    """Returns the classes of all masks of a view, so that each of its pictures has the same legend."""
    if not view.classes:
        return []
    return class_entries([view.seen, view.truth, *view.forecasts.values()], view.classes)


def _seen(view: ForecastView, t: int) -> np.ndarray:
    return overlay(None if view.frames is None else view.frames[t], view.seen[t])


def _truth(view: ForecastView, t: int) -> np.ndarray:
    return overlay(None if view.frames is None else view.frames[t], view.truth[t])


def _forecast(view: ForecastView, name: str, t: int) -> np.ndarray:
    own = name == next(iter(view.forecasts))
    frames = view.forecast_frames if own else None
    return overlay(None if frames is None else frames[t], view.forecasts[name][t])
