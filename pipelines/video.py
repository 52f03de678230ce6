"""The video pipeline: from green-screen clips to an evaluated and registered masker with memory.

The same DAG as `recipes/video/dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py
compares them.
"""

import components as stage
from pipelines.placement import Placement


def video(
    on: Placement,
    fetch_dataset: dict,
    prepare_clips: dict,
    train_masker: dict,
    train_segmenter: dict,
    base_masks: dict,
    generate_masks: dict,
    evaluate_video: dict,
    register_segmenter: dict,
) -> None:
    """Learn temporally consistent masks of videos."""
    raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
    clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]

    base = on.gpu(stage.train_masker(clips=clips, params=train_masker)).outputs["masker"]
    trained = on.gpu(stage.train_masker(clips=clips, start=base, params=train_segmenter, name="train_segmenter"))
    segmenter = trained.outputs["masker"]

    by_base = on.gpu(stage.generate_masks(clips=clips, masker=base, params=base_masks, name="base_masks"))
    masked = on.gpu(stage.generate_masks(clips=clips, masker=segmenter, params=generate_masks))
    masks = {"masks": masked.outputs["masks"], "base_masks": by_base.outputs["masks"]}

    evaluated = on.cpu(stage.evaluate_video(clips=clips, **masks, masker=segmenter, params=evaluate_video))
    models = {"masker": segmenter, "report": evaluated.outputs["report"]}
    on.cpu(stage.register_segmenter(clips=clips, **models, params=register_segmenter))
