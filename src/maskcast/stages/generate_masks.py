"""generate_masks: frames of all clips -> the masker's masks, with a confidence per pixel."""

from typing import Literal

from pydantic import Field

from maskcast.params import Params, is_null
from maskcast.runner.stage import InPath, OutPath, stage


class GenerateMasks(Params):
    """Params of generate_masks."""

    batch_size: int = Field(default=16, ge=1)
    """Frames per forward pass; batches run on over the borders of clips where the masker has no state."""
    confidence_levels: int = Field(default=8, ge=2, le=256)
    """Steps between 0 and 1 to which a confidence is rounded: few compress to almost nothing."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast to bf16 or everything in fp32."""
    consistent_frames: int | None = Field(default=None, ge=1)
    """Frames that agree on the class of each object: a clip's first so many, then the next. With the number of
    context frames, a context knows nothing of what comes after it; null masks each frame by itself."""
    maps: list[str] | None = Field(default=None, min_length=1, exclude_if=is_null)
    """Label maps to write; null writes all that the masker knows."""


@stage
def generate_masks(
    *, clips: InPath, masker: InPath, masks: OutPath, metrics: OutPath, params: GenerateMasks
) -> None:
    """Masks every clip that has frames, of every split and kind, on all accelerators of the machine.

    The confidence of a pixel is the softmax probability of its class, rounded to ``confidence_levels`` even
    steps and stored as a byte, 255 = certain; an alpha map has none. A clip's ``meta["mean_confidence"]`` is the
    mean (0..1) over the pixels masked as an object, or over all where there is none: background is easy and would
    hide a bad mask. A killed run goes on after the last finished clip and ends with the same bytes.

    Raises:
        MaskcastError: when no clip has frames, or the masker was trained for other maps or classes.
    """
    import json

    from maskcast.data.clips import ClipStore
    from maskcast.data.finished import FinishedClips
    from maskcast.digest import fingerprint
    from maskcast.errors import MaskcastError
    from maskcast.inference.generation import Generation, check_maps
    from maskcast.models.base import all_devices
    from maskcast.models.segmentation.table import load_masker
    from maskcast.progress import say
    from maskcast.runner.outputs import resume_dir

    store = ClipStore(clips)
    found = store.where(lambda group: group.has_frames)
    if not found:
        raise MaskcastError(f"{clips}: no clip has frames to mask; prepare clips from videos")
    model, _ = load_masker(masker)
    maps = check_maps(masker, model, store, params.maps)
    name = fingerprint(params, clips=clips, masker=masker)
    generation = Generation(store, found, maps, FinishedClips(resume_dir(masks), name))
    speed = generation.run(
        model,
        all_devices(),
        batch_size=params.batch_size,
        precision=params.precision,
        consistent_frames=params.consistent_frames,
        confidence_levels=params.confidence_levels,
    )
    meta = {"masks": name} | params.model_dump(include={"confidence_levels", "precision", "consistent_frames"})
    result = generation.write(masks, store.meta | meta) | speed
    metrics.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(
        f"masked {result['clips']:.0f} clips, {result['frames']:.0f} frames, "
        f"{result['bytes_per_frame']:.0f} bytes a frame"
    )
