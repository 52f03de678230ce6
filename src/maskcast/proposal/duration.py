"""Estimates how long the pipeline takes on this machine.

Seconds = clips x seconds to prepare a clip + masker steps x seconds per step + frames x seconds to mask a frame +
forecaster steps x seconds per step + 15 per stage. Those per clip, per step of the masker and per masked frame are
measured here.
"""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from maskcast.resources import num_cpus

FORECASTER_STEP_S = {"objects": 0.1, "flow": 0.3}  # seconds per step for 32 or 8 windows on one thread
STAGE_S = 15.0  # overhead of a stage in seconds: imports, tracking, pages
FORECASTERS = ("pretrain_forecaster", "finetune_forecaster")
BUSY = 1.5  # running processes per processor above which measured times are too long
REPEATS = 3  # number of measurements; the fastest counts


def estimate_seconds(
    sections: Mapping[str, Mapping[str, Any]],
    num_frames: int,
    num_val_frames: int,
    num_clips: int,
    clip_seconds: float,
) -> tuple[float, str]:
    """Returns the estimated seconds of `dvc repro`, and the formula with its numbers as text.

    Args:
        sections: params by stage.
        num_frames: number of frames of all clips.
        num_val_frames: number of frames of the validation clips.
        num_clips: number of clips.
        clip_seconds: measured seconds to read a clip in one process; `prepare_clips` has one per processor.
    """
    masker, clips = sections["train_masker"], sections["prepare_clips"]
    size = clips["height"], clips["width"]
    batch, crop = masker["training"]["batch_size"], masker.get("augment", {}).get("crop", size)
    busy = os.getloadavg()[0] > BUSY * num_cpus()
    step, frame = _measure(masker["model"], batch, tuple(crop), size)
    steps, forecast = _steps(masker), sum(_steps(sections[name]) for name in FORECASTERS if name in sections)
    each = FORECASTER_STEP_S[sections["pretrain_forecaster"]["model"]["arch"]] if forecast else 0.0
    stages = 1 + len(sections)  # plus the stage `code`, which has no params
    num_masked = num_frames + num_val_frames // masker["val_frame_step"] * masker["training"]["epochs"]
    clip = clip_seconds / num_cpus()
    seconds = num_clips * clip + steps * step + num_masked * frame + forecast * each + stages * STAGE_S
    formula = (
        f"{num_clips} clips prepared x {clip:.3f} s + {steps} masker steps x {step:.2f} s + {num_masked} frames "
        f"masked x {frame:.3f} s (all measured here"
        + (", while the machine was busy: it may be much less) + " if busy else ") + ")
        + (f"{forecast} forecaster steps x {each} s + " if forecast else "")
        + f"{stages} stages x {STAGE_S:.0f} s"
    )
    return seconds, formula


def _steps(section: Mapping[str, Any]) -> int:
    return int(section["training"]["epochs"] * section["training"]["steps_per_epoch"])


def _measure(
    model: Mapping[str, Any], batch: int, crop: tuple[int, ...], size: tuple[int, int]
) -> tuple[float, float]:
    """Returns the measured seconds of a training step, and of masking a frame."""
    import torch

    from maskcast.evaluation.speed import seconds_of
    from maskcast.labels import single_map
    from maskcast.models.base import best_device
    from maskcast.models.segmentation.configs import FrameConfig

    device = best_device()
    config: FrameConfig = TypeAdapter(FrameConfig).validate_python(model)
    masker = config.build(single_map(("background", "foreground"))).to(device)

    def train() -> None:
        logits, _ = masker(torch.zeros(batch, 1, *crop, 3, dtype=torch.uint8, device=device))
        logits[0].square().mean().backward()

    def mask() -> None:
        with torch.no_grad():
            masker(torch.zeros(4, 1, *size, 3, dtype=torch.uint8, device=device))

    step_s, masks_s = (min(seconds_of(work, device) for _ in range(REPEATS)) for work in (train, mask))
    return step_s, masks_s / 4
