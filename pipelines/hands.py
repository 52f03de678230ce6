"""The pipeline of two hands: a masker of complete hands, and a second masker that also learns from its masks.

The same DAG as `recipes/hands/dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py
compares them.
"""

import components as stage
from pipelines.placement import Placement


def hands(
    on: Placement,
    fetch_dataset: dict,
    prepare_clips: dict,
    first: dict,
    first_masks: dict,
    second: dict,
    generate_masks: dict,
    evaluate_video: dict,
    register_segmenter: dict,
) -> None:
    """Learn to segment complete hands, including occluded parts."""
    raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
    clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]

    base = on.gpu(stage.train_masker(clips=clips, params=first, name="first")).outputs["masker"]
    by_base = on.gpu(stage.generate_masks(clips=clips, masker=base, params=first_masks, name="first_masks"))
    pseudo = by_base.outputs["masks"]
    trained = on.gpu(stage.train_masker(clips=clips, start=base, masks=pseudo, params=second, name="second"))
    masker = trained.outputs["masker"]
    masks = on.gpu(stage.generate_masks(clips=clips, masker=masker, params=generate_masks)).outputs["masks"]

    both = {"masks": masks, "base_masks": pseudo}
    evaluated = on.cpu(stage.evaluate_video(clips=clips, **both, masker=masker, params=evaluate_video))
    models = {"masker": masker, "report": evaluated.outputs["report"]}
    on.cpu(stage.register_segmenter(clips=clips, **models, params=register_segmenter))
