"""generate_masks: frames of all clips -> the masker's masks, with a confidence per pixel."""

import copy
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from maskcast.data.clip_index import FrameIndex
from maskcast.data.clip_writer import ClipWriter
from maskcast.data.clips import Clip, ClipStore
from maskcast.data.finished import FinishedClip, FinishedClips
from maskcast.data.packing import packed
from maskcast.digest import fingerprint
from maskcast.errors import MaskcastError
from maskcast.inference.consistency import join_frames, predictor
from maskcast.inference.segment import predict_on_all, quantise
from maskcast.models.base import all_devices
from maskcast.models.segmentation.base import Masker
from maskcast.models.segmentation.table import load_masker
from maskcast.params import Params
from maskcast.progress import say, track
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import InPath, OutPath, stage


class GenerateMasks(Params):
    """Params of generate_masks."""

    batch_size: int = Field(default=16, ge=1)
    """Frames per forward pass; batches run on over the borders of clips."""
    confidence_levels: int = Field(default=8, ge=2, le=256)
    """Steps between 0 and 1 to which a confidence is rounded: few compress to almost nothing."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast to bf16 or everything in fp32."""
    consistent_frames: int | None = Field(default=None, ge=1)
    """Frames that agree on the class of each object: a clip's first so many, then the next. With the number of
    context frames, a context knows nothing of what comes after it; null masks each frame by itself."""


@stage
def generate_masks(
    *, clips: InPath, masker: InPath, masks: OutPath, metrics: OutPath, params: GenerateMasks
) -> None:
    """Masks every clip that has frames, of every split and kind, on all accelerators of the machine.

    The confidence of a pixel is the softmax probability of its class, rounded to ``confidence_levels`` even
    steps and stored as a byte, 255 = certain. A clip's ``meta["mean_confidence"]`` is the mean (0..1) over the
    pixels masked as an object, or over all where there is none: background is easy and would hide a bad mask.
    A killed run goes on after the last finished clip and ends with the same bytes.

    Raises:
        MaskcastError: when no clip has frames, or the masker was trained for other classes.
    """
    store = ClipStore(clips)
    found = store.where(lambda group: group.has_frames)
    if not found:
        raise MaskcastError(f"{clips}: no clip has frames to mask; prepare clips from videos")
    model, description = load_masker(masker)
    if description["meta"].get("classes") != list(store.classes):
        raise MaskcastError(
            f"{masker}: trained for {description['num_classes']} classes that are not the {store.num_classes} of "
            f"{clips}; train a masker on these clips"
        )
    name = fingerprint(params, clips=clips, masker=masker)
    finished = FinishedClips(resume_dir(masks), name)
    replicas = [copy.deepcopy(model).to(device) for device in all_devices()]
    started, done = time.monotonic(), sum(clip.num_frames for clip in found[: finished.count(len(found))])
    label_map = store.label_map.name
    for index, (mask, confidence) in _generate(store, found, finished.count(len(found)), replicas, params):
        mean = {"mean_confidence": mean_confidence(mask, confidence)}
        finished.save(index, FinishedClip({label_map: packed(mask)}, {label_map: packed(confidence)}, mean))
    seconds = time.monotonic() - started

    totals: defaultdict[str, list[float]] = defaultdict(list)
    meta = {"masks": name} | params.model_dump(include={"confidence_levels", "precision", "consistent_frames"})
    with ClipWriter(
        masks, height=store.height, width=store.width, maps=[store.label_map], meta=store.meta | meta
    ) as writer:
        for index, clip in enumerate(found):
            done_clip = finished.load(index)
            mean_sure = done_clip.meta["mean_confidence"]
            totals[clip.kind].append(mean_sure)
            writer.add(
                clip.id,
                split=clip.split,
                kind=clip.kind,
                masks=done_clip.masks,
                confidence=done_clip.confidence,
                meta=clip.meta | {"mean_confidence": round(mean_sure, 4)},
            )
    frames = sum(clip.num_frames for clip in found)
    size = sum(file.stat().st_size for file in masks.glob("*.zst"))
    result = {"clips": len(found), "frames": frames, "bytes_per_frame": size / frames}
    result |= {f"mean_confidence_{kind}": float(np.mean(values)) for kind, values in totals.items()}
    if frames > done:
        result["frames_per_second"] = (frames - done) / seconds
    metrics.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(f"masked {len(found)} clips, {frames} frames, {size / frames:.0f} bytes a frame")


def mean_confidence(mask: np.ndarray, confidence: np.ndarray) -> float:
    """Returns the mean confidence, 0..1, over the pixels masked as an object, or over all if there is none."""
    objects = mask > 0
    return float(confidence[objects].mean() if objects.any() else confidence.mean()) / 255


def _generate(
    store: ClipStore, clips: Sequence[Clip], first: int, replicas: list[Masker], params: GenerateMasks
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """Yields (index, (masks, confidence)) of clips from ``first`` on.

    Batch k holds frames k * batch_size and on of all clips laid end to end, wherever the run starts and however
    many replicas there are, because the last bits of a convolution may depend on what it is batched with.
    """
    index = FrameIndex(clips)
    total, start = len(index), index.start(first)
    lows = range(start - start % params.batch_size, total, params.batch_size)
    pieces = (index.pieces(low, min(low + params.batch_size, total)) for low in lows)
    batches = (np.concatenate([store.frames(clips[k])[part] for k, part in some]) for some in pieces)
    found = predict_on_all(predictor(params.consistent_frames), replicas, batches, params.precision)
    waiting: list[tuple[Any, ...]] = []  # of each frame what the predictor found
    skip = start - lows[0] if lows else 0
    for batch in track(found, "generating masks", total=len(lows)):
        waiting += list(zip(*batch, strict=True))[skip:]
        skip = 0
        while first < len(clips) and len(waiting) >= clips[first].num_frames:
            size = clips[first].num_frames
            masks, confidence = join_frames(waiting[:size], params.consistent_frames)
            yield first, (masks, quantise(confidence, params.confidence_levels))
            waiting, first = waiting[size:], first + 1
