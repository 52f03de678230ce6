"""Pictures of forecasts: strips, animations, and a gallery from the best clip to the worst.

Frame numbers count from 1, as the names of scores do: after 11 seen frames the forecast starts at frame 12.

Legend: T context frames, h horizon, H height, W width, C = 3 channels (RGB); all arrays are uint8.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from maskcast.data.clip_index import evenly_spaced
from maskcast.report.overlays import MAX_COLUMNS, Row, error_map, grid, overlay, stacked

OVERVIEW, OVERVIEW_COLUMNS = "forecast.png", 6
GIF_MS = 180  # per frame; the last one stays four times as long


@dataclass(frozen=True)
class ForecastView:
    """What one clip's pictures show.

    Args:
        clip_id: heading.
        frames: (T + h, H, W, C), or None for masks alone.
        seen: (T, H, W), the masks that the forecast started from.
        truth: (T + h, H, W), the true masks.
        forecasts: (h, H, W) by the name of the forecaster; the first is the one to judge.
        forecast_frames: (h, H, W, C) of a forecaster of frames, shown under its masks.
    """

    clip_id: str
    frames: np.ndarray | None
    seen: np.ndarray
    truth: np.ndarray
    forecasts: dict[str, np.ndarray]
    forecast_frames: np.ndarray | None = None

    def draw_strip(self, title: str, columns: int = MAX_COLUMNS) -> Image.Image:
        """Draws what was seen, what came, what was forecast, and where the first forecast is wrong.

        Args:
            title: heading.
            columns: at most this many frames a row, spread evenly, the last always among them.
        """
        start = len(self.seen)
        before, after = evenly_spaced(start, columns), evenly_spaced(len(self._judged), columns)
        rows = [
            Row("seen", [self._seen(t) for t in before], [f"frame {t + 1}" for t in before]),
            Row("truth", [self._truth(start + t) for t in after], [f"frame {start + t + 1}" for t in after]),
        ]
        rows += [Row(name.replace("_", " "), [self._forecast(name, t) for t in after]) for name in self.forecasts]
        rows.append(Row("error", [error_map(self.truth[start + t], self._judged[t]) for t in after]))
        return grid(rows, title)

    def animate(self, path: Path) -> None:
        """Writes a looping GIF: truth on the left; on the right what was seen, then what was forecast."""
        start = len(self.seen)
        name = next(iter(self.forecasts))
        sheets = []
        for t in range(len(self.truth)):
            if t < start:
                cells, right = [self._seen(t)] * 2, "seen"
            else:
                cells, right = [self._truth(t), self._forecast(name, t - start)], "forecast"
            sheets.append(grid([Row("", cells, ["truth" if t >= start else "seen", right])], f"frame {t + 1}"))
        durations = [GIF_MS] * (len(sheets) - 1) + [4 * GIF_MS]
        sheets[0].save(path, save_all=True, append_images=sheets[1:], duration=durations, loop=0)

    def panels(self, t: int) -> dict[str, np.ndarray]:
        """Returns what there is to see at frame t, counted from 0: pictures (H, W, C) by name.

        Up to the last seen frame the masks that the forecasts start from stand in their place.
        """
        late = t - len(self.seen)
        judged = self.seen[t] if late < 0 else self._judged[late]
        forecasts = {name: self._seen(t) if late < 0 else self._forecast(name, late) for name in self.forecasts}
        return {"truth": self._truth(t), **forecasts, "error": error_map(self.truth[t], judged)}

    @property
    def _judged(self) -> np.ndarray:
        return next(iter(self.forecasts.values()))

    def _seen(self, t: int) -> np.ndarray:
        return overlay(None if self.frames is None else self.frames[t], self.seen[t])

    def _truth(self, t: int) -> np.ndarray:
        return overlay(None if self.frames is None else self.frames[t], self.truth[t])

    def _forecast(self, name: str, t: int) -> np.ndarray:
        own = self.forecast_frames is not None and name == next(iter(self.forecasts))
        return overlay(self.forecast_frames[t] if own else None, self.forecasts[name][t])  # type: ignore[index]


def draw_gallery(
    folder: Path,
    scores: Sequence[float],
    count: int,
    view: Callable[[int], ForecastView],
    frame_number: int,
) -> dict[str, tuple[int, ForecastView]]:
    """Draws `count` clips spread from the best to the worst score.

    Writes `strips/<rank>_<clip>.png`, for best, median and worst also `gifs/<rank>_<clip>.gif`, and these three
    together as the overview `forecast.png`.

    Args:
        folder: where to.
        scores: one per clip, Jaccard of the last forecast frame.
        count: strips to draw.
        view: gives the view of clip n.
        frame_number: number of the last forecast frame, for the headings.

    Returns:
        Number and view of the best, the median and the worst clip by these names; fewer where fewer are drawn.
    """
    for name in ("strips", "gifs"):
        (folder / name).mkdir()
    ranked = sorted(range(len(scores)), key=lambda n: -scores[n])
    picked = [ranked[place] for place in evenly_spaced(len(ranked), count)]
    named = {picked[len(picked) // 2]: "median"} | {picked[-1]: "worst"} | {picked[0]: "best"}
    overview, featured = [], {}
    for rank, n in enumerate(picked, start=1):
        shown = view(n)
        stem = f"{rank:02d}_{shown.clip_id.replace('/', '_')}"
        title = f"{shown.clip_id} · Jaccard at frame {frame_number}: {scores[n]:.3f}"
        shown.draw_strip(title).save(folder / "strips" / f"{stem}.png")
        if n in named:
            shown.animate(folder / "gifs" / f"{stem}.gif")
            overview.append(shown.draw_strip(f"{named[n]}: {title}", OVERVIEW_COLUMNS))
            featured[named[n]] = n, shown
    stacked(overview).save(folder / OVERVIEW)
    return featured
