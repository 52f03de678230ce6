"""A pipeline in which two stages stand twice: a second masker, of another seed, masks the clips, too."""

import components as stage
from pipelines.placement import Placement


def two_maskers(
    on: Placement,
    fetch_dataset: dict,
    prepare_clips: dict,
    train_masker: dict,
    second_masker: dict,
    generate_masks: dict,
    second_masks: dict,
) -> None:
    """Train two maskers."""
    raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
    clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]
    first = on.gpu(stage.train_masker(clips=clips, params=train_masker)).outputs["masker"]
    second = on.gpu(stage.train_masker(clips=clips, params=second_masker, name="second_masker")).outputs["masker"]
    on.gpu(stage.generate_masks(clips=clips, masker=first, params=generate_masks))
    on.gpu(stage.generate_masks(clips=clips, masker=second, params=second_masks, name="second_masks"))
