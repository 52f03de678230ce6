"""Forecast the clips whose future nobody has labelled."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydantic import Field

from maskcast.data.clip_writer import ClipWriter
from maskcast.data.clips import Clip
from maskcast.errors import MaskcastError
from maskcast.labels import Split, id_key
from maskcast.params import Params, is_null
from maskcast.progress import say, track
from maskcast.reading import counted
from maskcast.report.paint import PAPER, class_entries, palette, with_legend
from maskcast.runner.stage import InPath, OutPath, stage

if TYPE_CHECKING:
    from maskcast.inference.forecast import Forecast

LEGEND = 960, 8  # pixels: width, and height above the names


class Predict(Params):
    """Params of predict."""

    split: Split = "hidden"
    """Split whose clips are forecast; where it has none, there is nothing to predict."""
    label_map: str | None = Field(None, exclude_if=is_null)
    """The label map that is forecast, of kind classes; null is the only one there is."""
    context_frames: int = Field(11, ge=1)
    """Frames that are seen."""
    horizon: int = Field(11, ge=1)
    """Frames that are forecast."""
    batch_size: int = Field(8, ge=1)
    """Clips forecast at once."""
    png: bool = False
    """Whether to write palette PNGs, png/<clip>/mask_<k>.png with k counted from 0 as in image_<k>.png, and
    png/classes.png: which colour is which class."""
    submission: bool = False
    """Whether to write the last masks as submission.pt, one (N, H, W) uint8 tensor, and submission_ids.txt."""
    frame_png: int | None = Field(None, ge=1)
    """Frame, counted from 1, that a forecaster of frames also draws as png/<clip>/image_<k>.png."""


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
    """Forecast the clips whose future nobody has labelled.

    Where there are none, the predictions are an empty clip store.

    Args:
        clips: clip store.
        masks: clip store of generated masks, the context.
        masker: the masker, used by a forecaster of frames.
        forecaster: the model that forecasts.
        predictions: clip store with the forecast masks and their confidence in the numeric order of clip ids (the
            clips' meta holds `first_frame`, counted from 0), and what `params` asks for besides. A forecaster of
            frames also writes frames.npy, (N, horizon, H, W, 3) uint8, in the same order.
        params: what to forecast and to write.

    Raises:
        MaskcastError: models and stores do not fit, or a key asks for what there is not.
    """
    import torch

    from maskcast.inference.forecast import (
        ForecastSetting,
        check_agreement,
        forecast_clips,
        in_batches,
        load_models,
        open_stores,
    )
    from maskcast.models.base import best_device

    prepared, generated = open_stores(clips, masks, params.label_map)
    found_clips = prepared.where(lambda group: group.split == params.split)
    chosen = sorted(found_clips, key=lambda clip: id_key(clip.id))
    device = best_device()
    model, masking = load_models(forecaster, masker, prepared, device)
    last = params.context_frames + params.horizon
    makes_frames = model.input.needs_masker
    if params.frame_png is not None and not (makes_frames and params.context_frames < params.frame_png <= last):
        raise MaskcastError(
            f"predict.frame_png: {params.frame_png} is no forecast frame; a forecaster of frames offers "
            f"{params.context_frames + 1} to {last} (this one forecasts {model.input}): change or remove the key"
        )
    if params.png or params.frame_png is not None:
        _check_folders(chosen)
    if not makes_frames and any(clip.num_frames > params.context_frames for clip in chosen):
        check_agreement(generated, params.context_frames)
    setting = ForecastSetting(masking, params.context_frames, params.horizon, device)
    batches = in_batches(chosen, params.batch_size)
    forecasts = forecast_clips(model, setting, prepared, generated, batches)
    label_map = prepared.label_map
    writer = ClipWriter(
        predictions,
        height=prepared.height,
        width=prepared.width,
        maps=[label_map],
        meta={"clips": prepared.digest, "context_frames": params.context_frames},
    )
    frames = None
    if makes_frames:
        shape = (len(chosen), params.horizon, prepared.height, prepared.width, 3)
        frames = _new_array(predictions / "frames.npy", shape)
    last_masks: list[np.ndarray] = []
    done, shown = 0, set[int]()
    with writer:
        for batch, found in track(forecasts, "predict", total=len(batches)):
            for n, clip in enumerate(batch):
                writer.add(
                    clip.id,
                    split=clip.split,
                    kind="hidden" if clip.kind == "hidden" else "unlabelled",
                    masks={label_map.name: found.masks[n]},
                    confidence={} if found.confidence is None else {label_map.name: found.confidence[n]},
                    meta={**clip.meta, "first_frame": params.context_frames},
                )
            part = slice(done, done + len(batch))
            if params.submission:
                last_masks.append(found.masks[:, -1].copy())  # a view would keep the others
            if frames is not None:
                frames[part] = found.frames
            _draw(predictions / "png", batch, found, params)
            shown |= set(np.unique(found.masks).tolist())
            done = part.stop
    if frames is not None:
        frames.flush()
    if params.png:
        (predictions / "png").mkdir(exist_ok=True)
        legend = class_entries([np.array(sorted(shown))], label_map.classes)
        with_legend(Image.new("RGB", LEGEND, PAPER), legend).save(predictions / "png" / "classes.png")
    if params.submission:
        none = np.empty((0, prepared.height, prepared.width), np.uint8)
        torch.save(torch.from_numpy(np.concatenate([none, *last_masks])), predictions / "submission.pt")
        ids = "".join(f"{clip.id}\n" for clip in chosen)
        (predictions / "submission_ids.txt").write_text(ids, encoding="utf-8")
    if not chosen:
        say(f"nothing to predict: no clip of split {params.split!r} in {clips}; the output is an empty clip store")
        return
    say(f"{counted(len(chosen), 'clip')} forecast, frames {params.context_frames + 1} to {last}")


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap | None:
    """Returns an array on disk; one without elements cannot be mapped, and is written at once."""
    if 0 in shape:
        np.save(path, np.empty(shape, np.uint8))
        return None
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _check_folders(clips: Sequence[Clip]) -> None:
    """Checks that no two clips share a folder of images.

    Raises:
        MaskcastError: two do.
    """
    found: dict[str, str] = {}
    for clip in clips:
        twin = found.setdefault(_folder_name(clip), clip.id)
        if twin != clip.id:
            raise MaskcastError(
                f"predict.png: clips {twin!r} and {clip.id!r} would share the folder {_folder_name(clip)!r}; "
                "rename one of them, or ask for no png"
            )


def _folder_name(clip: Clip) -> str:
    return clip.id.replace("/", "_")


def _draw(folder: Path, batch: Sequence[Clip], found: "Forecast", params: Predict) -> None:
    for n, clip in enumerate(batch):
        place = folder / _folder_name(clip)
        if params.png or params.frame_png is not None:
            place.mkdir(parents=True)
        if params.png:
            for k, mask_HW in enumerate(found.masks[n], start=params.context_frames):
                image = Image.fromarray(mask_HW)
                image.putpalette(palette().tobytes())
                image.save(place / f"mask_{k}.png")
        if params.frame_png is not None:
            assert found.frames is not None
            k = params.frame_png - 1
            Image.fromarray(found.frames[n, k - params.context_frames]).save(place / f"image_{k}.png")
