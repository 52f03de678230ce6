"""predict: forecast clips whose true future is not labelled."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydantic import Field

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.masks.colours import palette_image
from maskcast.errors import MaskcastError
from maskcast.files import file_stem
from maskcast.labels import Split, natural_sort_key
from maskcast.params import Batch, Params
from maskcast.progress import say, track
from maskcast.reading import pluralize
from maskcast.report.paint import class_entries, legend_picture
from maskcast.runner.stage import InPath, OutPath, stage

if TYPE_CHECKING:
    from maskcast.inference.forecast import BatchForecast


class Predict(Params):
    """Params of predict."""

    split: Split = "hidden"
    """Split whose clips are forecast; if it has none, nothing is predicted."""
    label_map: str | None = None
    """The label map to forecast, of kind classes or instances; null if there is only one."""
    context_frames: int = Field(11, ge=1)
    """Number of context frames."""
    horizon: int = Field(11, ge=1, le=10_000)
    """Number of frames to forecast."""
    batch_size: Batch = 8
    """Clips per batch."""
    png: bool = False
    """Whether to write palette PNGs, png/<clip>/mask_<k>.png with k counted from 0 as in image_<k>.png, and
    png/classes.png, a legend of class colours."""
    submission: bool = False
    """Whether to write the last masks as submission.pt, one (N, H, W) uint8 tensor, and submission_ids.txt."""
    frame_png: int | None = Field(None, ge=1)
    """Number of a frame, counted from 1, that a forecaster of frames also writes as png/<clip>/image_<k>.png."""


@stage
def predict(
    *,
    clips: InPath,
    masks: InPath,
    masker: InPath,
    forecaster: InPath,
    predictions: OutPath,
    params: Predict,
) -> None:
    """Forecasts clips whose true future is not labelled.

    If there are none, the predictions are an empty clip store.

    Args:
        clips: clip store.
        masks: clip store of generated masks, used as context.
        masker: the masker, used by a forecaster of frames.
        forecaster: the model that forecasts.
        predictions: clip store with the forecast masks and their confidence in the numeric order of clip ids (the
            clips' meta contains `first_frame`, counted from 0), and the files that `params` requests. A forecaster
            of frames also writes frames.npy, (N, horizon, H, W, 3) uint8, in the same order.
        params: split, windows and files to write.

    Raises:
        MaskcastError: models and stores do not match, or ``frame_png`` is not a forecast frame.
    """
    from maskcast.data.clip_store.frame_index import in_batches
    from maskcast.inference.forecast import (
        ForecastSetting,
        check_consistent_frames,
        forecast_clips,
        load_models,
        open_stores,
    )
    from maskcast.models.base import best_device

    prepared, generated = open_stores(clips, masks, params.label_map)
    chosen = sorted(
        prepared.where(lambda group: group.split == params.split), key=lambda clip: natural_sort_key(clip.id)
    )
    device = best_device()
    model, masker_model = load_models(forecaster, masker, prepared, device)
    last = params.context_frames + params.horizon
    forecasts_frames = model.input.needs_masker
    if params.frame_png is not None and not (
        forecasts_frames and params.context_frames < params.frame_png <= last
    ):
        raise MaskcastError(
            f"predict.frame_png: {params.frame_png} is not a forecast frame; a forecaster of frames supports "
            f"{params.context_frames + 1} to {last} (this one forecasts {model.input}): change or remove the key"
        )
    if params.png or params.frame_png is not None:
        _check_folders(chosen)
    if not forecasts_frames and any(clip.num_frames > params.context_frames for clip in chosen):
        check_consistent_frames(generated, params.context_frames)
    setting = ForecastSetting(masker_model, params.context_frames, params.horizon, device)
    batches = in_batches(chosen, params.batch_size)
    forecasts = forecast_clips(model, setting, prepared, generated, batches)
    out = _Predictions(predictions, prepared, chosen, params, forecasts_frames=forecasts_frames)
    with out.writer:
        for batch, forecast in track(forecasts, "predicting batches", total=len(batches)):
            out.add(batch, forecast)
    out.finish()
    if not chosen:
        say(
            f"nothing to predict: no clip of split {params.split!r} in {clips}, so the output is an empty clip "
            f"store; to forecast clips, set predict.split to a split that has some: {prepared.holds()}"
        )
        return
    say(f"{pluralize(len(chosen), 'clip')} forecast, frames {params.context_frames + 1} to {last}")


class _Predictions:
    """Writer of the predictions: a clip store, and the files that the params request.

    Args:
        root: folder to write.
        prepared: the clip store.
        chosen: the clips to forecast, in order.
        params: params of the stage.
        forecasts_frames: whether the forecaster forecasts frames, too.
    """

    def __init__(
        self, root: Path, prepared: ClipStore, chosen: Sequence[Clip], params: Predict, *, forecasts_frames: bool
    ) -> None:
        self.root, self.params, self.chosen, self.label_map = root, params, chosen, prepared.label_map
        self.size = prepared.height, prepared.width
        self.writer = ClipWriter(
            root,
            height=prepared.height,
            width=prepared.width,
            maps=[self.label_map],
            meta={"clips": prepared.digest, "context_frames": params.context_frames},
        )
        self._frames = None
        if forecasts_frames:
            self._frames = _create_array(root / "frames.npy", (len(chosen), params.horizon, *self.size, 3))
        self._last_masks = [np.empty((0, *self.size), np.uint8)]
        self._done, self._class_ids = 0, set[int]()

    def add(self, batch: Sequence[Clip], forecast: "BatchForecast") -> None:
        """Writes the forecast of a batch."""
        name = self.label_map.name
        for n, clip in enumerate(batch):
            self.writer.add(
                clip.id,
                split=clip.split,
                kind="hidden" if clip.kind == "hidden" else "unlabelled",
                masks={name: forecast.masks[n]},
                confidence={} if forecast.confidence is None else {name: forecast.confidence[n]},
                meta={**clip.meta, "first_frame": self.params.context_frames},
            )
            self._draw(n, clip, forecast)
        if self.params.submission:
            self._last_masks.append(forecast.masks[:, -1].copy())  # a view would keep the others
        if self._frames is not None:
            self._frames[self._done : self._done + len(batch)] = forecast.frames
        self._class_ids |= set(np.unique(forecast.masks).tolist())
        self._done += len(batch)

    def finish(self) -> None:
        """Writes the files that concern all clips."""
        import torch

        if self._frames is not None:
            self._frames.flush()
        if self.params.png:
            folder = self.root / "png"
            folder.mkdir(exist_ok=True)
            legend = class_entries([np.array(sorted(self._class_ids))], self.label_map.classes)
            legend_picture(legend).save(folder / "classes.png")
        if self.params.submission:
            torch.save(torch.from_numpy(np.concatenate(self._last_masks)), self.root / "submission.pt")
            ids = "".join(f"{clip.id}\n" for clip in self.chosen)
            (self.root / "submission_ids.txt").write_text(ids, encoding="utf-8")

    def _draw(self, n: int, clip: Clip, forecast: "BatchForecast") -> None:
        """Writes the images of clip ``n`` of a batch that the params request."""
        first, folder = self.params.context_frames, self.root / "png" / file_stem(clip.id)
        if self.params.png or self.params.frame_png is not None:
            folder.mkdir(parents=True)
        if self.params.png:
            for k, mask_HW in enumerate(forecast.masks[n], start=first):
                palette_image(mask_HW).save(folder / f"mask_{k}.png")
        if self.params.frame_png is not None:
            assert forecast.frames is not None
            k = self.params.frame_png - 1
            Image.fromarray(forecast.frames[n, k - first]).save(folder / f"image_{k}.png")


def _create_array(path: Path, shape: tuple[int, ...]) -> np.memmap | None:
    """Returns a memory-mapped array, or writes an empty one, which cannot be mapped, and returns None."""
    if 0 in shape:
        np.save(path, np.empty(shape, np.uint8))
        return None
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _check_folders(clips: Sequence[Clip]) -> None:
    """Checks that no two clips share a folder of images.

    Raises:
        MaskcastError: two clips share one.
    """
    clip_of: dict[str, str] = {}
    for clip in clips:
        other = clip_of.setdefault(file_stem(clip.id), clip.id)
        if other != clip.id:
            raise MaskcastError(
                f"predict.png: clips {other!r} and {clip.id!r} would share the folder {file_stem(clip.id)!r}; "
                "rename one of them, or set png to false"
            )
