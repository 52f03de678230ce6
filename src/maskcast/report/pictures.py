"""Pictures of forecasts: strips, animations, and a gallery from the best to the worst clip.

Frame numbers count from 1, as in the names of scores: after 11 context frames, the forecast starts at frame 12.

Legend: T context frames, h horizon, H height, W width, C = 3 channels (RGB); all arrays are uint8.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskcast.data.clip_store.frame_index import evenly_spaced, spread
from maskcast.evaluation.view import ForecastView
from maskcast.files import file_stem
from maskcast.report.overlays import MAX_COLUMNS, Row, error_map, grid, overlay, stack_vertically
from maskcast.report.paint import Entry, class_entries

OVERVIEW, OVERVIEW_COLUMNS = "forecast.png", 6
GIF_MS, LAST_FRAMES = 180, 4  # milliseconds per frame; the last frame is shown this many times as long


def draw_strip(view: ForecastView, title: str, columns: int = MAX_COLUMNS) -> Image.Image:
    """Draws context frames, truth, forecasts, and the errors of the first forecast.

    Args:
        view: the forecasts of a clip.
        title: heading.
        columns: maximum number of frames per row, evenly spaced and including the last.
    """
    start = len(view.context)
    context_indices, forecast_indices = evenly_spaced(start, columns), evenly_spaced(len(view.evaluated), columns)
    rows = [
        Row("seen", [_context(view, t) for t in context_indices], [f"frame {t + 1}" for t in context_indices]),
        Row(
            "truth",
            [_truth(view, start + t) for t in forecast_indices],
            [f"frame {start + t + 1}" for t in forecast_indices],
        ),
    ]
    rows += [
        Row(name.replace("_", " "), [_forecast(view, name, t) for t in forecast_indices])
        for name in view.forecasts
    ]
    rows.append(Row("error", [error_map(view.truth[start + t], view.evaluated[t]) for t in forecast_indices]))
    return grid(rows, title, legend=classes_shown(view))


def animate(view: ForecastView, path: Path) -> None:
    """Writes a looping GIF: truth on the left; context, then forecast, on the right."""
    start = len(view.context)
    name = next(iter(view.forecasts))
    sheets, legend = [], classes_shown(view)
    for t in range(len(view.truth)):
        if t < start:
            cells, right = [_context(view, t)] * 2, "seen"
        else:
            cells, right = [_truth(view, t), _forecast(view, name, t - start)], "forecast"
        row = Row("", cells, ["truth" if t >= start else "seen", right])
        sheets.append(grid([row], f"frame {t + 1}", legend=legend))
    write_gif(path, sheets)


def write_gif(path: Path, sheets: Sequence[Image.Image]) -> None:
    """Writes a looping GIF."""
    durations = [GIF_MS] * (len(sheets) - 1) + [LAST_FRAMES * GIF_MS]
    sheets[0].save(path, save_all=True, append_images=list(sheets[1:]), duration=durations, loop=0)


def panels(view: ForecastView, t: int) -> dict[str, np.ndarray]:
    """Returns the pictures (H, W, C) of frame t, counted from 0, by name.

    For context frames, forecasts are replaced by the masks that they start from.
    """
    forecast_index = t - len(view.context)
    mask = view.context[t] if forecast_index < 0 else view.evaluated[forecast_index]
    forecasts = {
        name: _context(view, t) if forecast_index < 0 else _forecast(view, name, forecast_index)
        for name in view.forecasts
    }
    return {"truth": _truth(view, t), **forecasts, "error": error_map(view.truth[t], mask)}


def draw_gallery(
    folder: Path, scores: Sequence[float], count: int, view: Callable[[int], ForecastView], frame_number: int
) -> dict[str, tuple[int, ForecastView]]:
    """Draws `count` clips, evenly spaced by rank from the best to the worst score.

    Writes `strips/<rank>_<clip>.png`, for best, median and worst clip also `gifs/<rank>_<clip>.gif`, and the
    strips of these three as the overview `forecast.png`.

    Args:
        folder: folder of the report.
        scores: for each clip, the Jaccard index of the scored frame. It is NaN for a clip without labels
            there or without true foreground, which is only drawn if all clips are like that.
        count: number of strips to draw.
        view: returns the view of clip n.
        frame_number: number of the scored frame, for headings.

    Returns:
        Index and view of the best, the median and the worst clip, by these names; fewer if fewer clips are drawn.
    """
    for name in ("strips", "gifs"):
        (folder / name).mkdir()
    scored = [n for n, score in enumerate(scores) if not np.isnan(score)] or range(len(scores))
    ranked = sorted(scored, key=lambda n: -scores[n])
    selected = spread(ranked, count)
    named = {selected[len(selected) // 2]: "median"} | {selected[-1]: "worst"} | {selected[0]: "best"}
    overview, featured = [], {}
    for rank, n in enumerate(selected, start=1):
        clip_view = view(n)
        stem = f"{rank:02d}_{file_stem(clip_view.clip_id)}"
        title = f"{clip_view.clip_id} · Jaccard at frame {frame_number}: {scores[n]:.3f}"
        draw_strip(clip_view, title).save(folder / "strips" / f"{stem}.png")
        if n in named:
            animate(clip_view, folder / "gifs" / f"{stem}.gif")
            overview.append(draw_strip(clip_view, f"{named[n]}: {title}", OVERVIEW_COLUMNS))
            featured[named[n]] = n, clip_view
    stack_vertically(overview).save(folder / OVERVIEW)
    return featured


def classes_shown(view: ForecastView) -> list[Entry]:
    """Returns the legend of all classes in a view, so that all its pictures have the same legend."""
    if not view.classes:
        return []
    return class_entries([view.context, view.truth, *view.forecasts.values()], view.classes)


def _context(view: ForecastView, t: int) -> np.ndarray:
    return overlay(None if view.frames is None else view.frames[t], view.context[t])


def _truth(view: ForecastView, t: int) -> np.ndarray:
    return overlay(None if view.frames is None else view.frames[t], view.truth[t])


def _forecast(view: ForecastView, name: str, t: int) -> np.ndarray:
    is_evaluated = name == next(iter(view.forecasts))
    frames = view.forecast_frames if is_evaluated else None
    return overlay(None if frames is None else frames[t], view.forecasts[name][t])
