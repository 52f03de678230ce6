"""generate_masks: mask the frames of all clips, with a confidence per pixel."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from maskcast.data.labelling.propagation import PropagationParams
from maskcast.inference.consistent_frames import CONTEXT_FRAMES
from maskcast.labels import first_class_map
from maskcast.params import Batch, Names, Params
from maskcast.reading import pluralize
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.writing import write_json

if TYPE_CHECKING:
    from maskcast.data.clip_store.reader import Clip, ClipStore


def _consistent_frames(value: Any) -> Any:
    """Checks a value of one of several types, so that one error names all of them."""
    if value in (None, "things") or (isinstance(value, (int, float)) and value >= 1 and value == int(value)):
        return value
    raise ValueError("must be a number of frames (1 or more), things, or null")


class GenerateMasks(Params):
    """Params of generate_masks."""

    batch_size: Batch = 16
    """Frames per forward pass; a batch may span several clips if the masker has no state."""
    confidence_levels: int = Field(default=8, ge=2, le=256)
    """Number of levels that a confidence is rounded to: few levels compress to almost nothing."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`bf16`: autocast, but fp32 on a CPU without bfloat16; `fp32`: everything in fp32."""
    consistent_frames: Annotated[int | Literal["things"] | None, BeforeValidator(_consistent_frames)] = "things"
    """Number of frames over which each object gets one class: a clip is masked in groups of so many frames. A
    shorter rest is decided together with the frames before it, whose own masks stay as they are. Set it to the
    number of context frames, so that the context does not depend on later frames. null masks each frame
    separately. `things` is 11 if the label map says that all classes are things, else null: stuff has no objects
    to track. A group loses a class that covers less than 1.6 % of the image, summed over its frames (in fewer than
    11 proportionally less), unless one object of the class is in most of them, with a mean probability of at least
    0.7."""
    propagated: PropagationParams | None = None
    """In partly labelled clips of split train, use the labels, and those that optical flow propagates to nearby
    frames, instead of the masker's masks, so these clips cannot be scored; null keeps the masker's masks."""
    maps: Names | None = None
    """Label maps to write; null writes all that the masker has."""


@stage
def generate_masks(
    *, clips: InPath, masker: InPath, masks: OutPath, metrics: OutPath, params: GenerateMasks
) -> None:
    """Masks all clips that have frames, in every split, on all accelerators of the machine.

    The confidence of a pixel is the softmax probability of its class, or for a propagated label the reliability of
    the optical flow. It is rounded to ``confidence_levels`` even steps and stored as a byte, 255 = certain; an
    alpha map has none. A clip's ``meta["mean_confidence"]`` is the mean (0..1) over the pixels of objects, or over
    all pixels if there are none, because background is easy and would hide a bad mask. The store's
    ``meta["consistent_frames"]`` is the number of frames over which classes were made consistent,
    ``meta["generate_masks"]`` all params, ``meta["masker"]`` the digest of the masker, and ``meta["arithmetic"]``
    the arithmetic that ran, e.g. ``fp32 on cpu``. A killed run resumes after the last finished clip, with the same
    bytes as a result; clips that were masked by other code, or in another arithmetic, as on another device, are
    masked again.

    Args:
        clips: clip store.
        masker: output of ``train_masker``.
        masks: clip store with the masks and their confidence.
        metrics: JSON, flat numbers.
        params: batch size, precision and consistency.

    Raises:
        MaskcastError: no clip has frames, or the masker was trained for other maps or classes.
    """
    from maskcast.data.clip_store.finished import FinishedClips
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.digest import digest_json, digest_tree
    from maskcast.errors import MaskcastError
    from maskcast.inference.generation import Generation, all_things, check_maps
    from maskcast.inference.label_propagation import LabelPropagator
    from maskcast.inference.mask_origin import MASKER, PARAMS
    from maskcast.models.arithmetic import performed
    from maskcast.models.base import all_devices
    from maskcast.models.segmentation.table import load_masker
    from maskcast.progress import say
    from maskcast.runner.code_digests import code_digest
    from maskcast.runner.fingerprint import inputs_digest
    from maskcast.runner.outputs import resume_dir

    store = ClipStore(clips)
    clips_with_frames = store.where(lambda group: group.has_frames)
    if not clips_with_frames:
        raise MaskcastError(f"{clips}: no clip has frames to mask; prepare clips with frames")
    model, _ = load_masker(masker)
    maps = check_maps(masker, model, store, params.maps)
    consistent_frames = params.consistent_frames
    if consistent_frames == "things":
        consistent_frames = CONTEXT_FRAMES if all_things(maps, store) else None
    meta = params.model_dump(include={"confidence_levels", "precision"})
    meta |= {"masks": inputs_digest(params, clips=clips, masker=masker), "consistent_frames": consistent_frames}
    meta |= {MASKER: digest_tree(masker), PARAMS: params.model_dump(mode="json")}
    devices = all_devices()
    meta["arithmetic"] = performed(devices[0], params.precision)
    key = digest_json([meta["masks"], meta["arithmetic"], code_digest(__name__)])
    finished = FinishedClips(resume_dir(masks), key)
    propagator = None
    if params.propagated is not None:
        propagator = LabelPropagator(store, maps, params.propagated, params.confidence_levels)
    generation = Generation(store, clips_with_frames, maps, finished)
    result = generation.run(
        masks,
        store.meta | meta,
        model,
        devices,
        batch_size=params.batch_size,
        precision=params.precision,
        consistent_frames=consistent_frames,
        confidence_levels=params.confidence_levels,
        propagator=propagator,
    )
    write_json(metrics, result)
    say(
        f"masked {pluralize(int(result['clips']), 'clip')}, {pluralize(int(result['frames']), 'frame')}, "
        f"{result['bytes_per_frame']:.0f} bytes per frame"
    )
    if shown := first_class_map(maps):
        _show(store, ClipStore(masks, shown.name), generation.doubtful)


def _show(store: "ClipStore", masks: "ClipStore", clips: Sequence["Clip"]) -> None:
    """Shows clips with their masks on the run's page."""
    from maskcast.data.clip_store.frame_index import evenly_spaced
    from maskcast.markup import concatenate, element, figure
    from maskcast.progress import report_section
    from maskcast.report.clip_player import legend
    from maskcast.report.overlays import MAX_COLUMNS, masker_strip, png_bytes
    from maskcast.report.paint import class_entries

    parts = [element("p", "The clips whose masks are the least confident, those without labels first.")]
    for clip in clips:
        masked = masks.get(clip.id)
        indices = evenly_spaced(clip.num_frames, MAX_COLUMNS)
        found = masks.masks(masked)[indices]
        confidence = f"{clip.id}, mean confidence {masked.meta['mean_confidence']:.3f}"
        picture = masker_strip(store.frames(clip)[indices], None, found, clip.id, numbers=indices)
        parts.append(figure(f"Masks of {clip.id}", confidence, png_bytes(picture)))
        parts.append(legend(class_entries([found], masks.classes), f"Classes of {clip.id}"))
    report_section("Masks", concatenate(parts))
