"""The pipeline of photographs: from images with masks to an evaluated and registered masker.

The same DAG as `recipes/photographs/dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py
compares them.
"""

import components as stage
from pipelines.placement import Placement


def photographs(
    on: Placement,
    fetch_dataset: dict,
    prepare_clips: dict,
    train_masker: dict,
    generate_masks: dict,
    evaluate_video: dict,
    register_segmenter: dict,
) -> None:
    """Learn to mask photographs."""
    raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
    clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]

    masker = on.gpu(stage.train_masker(clips=clips, params=train_masker)).outputs["masker"]
    masks = on.gpu(stage.generate_masks(clips=clips, masker=masker, params=generate_masks)).outputs["masks"]

    seen = {"clips": clips, "masks": masks, "masker": masker}
    evaluated = on.cpu(stage.evaluate_video(**seen, params=evaluate_video))
    models = {"masker": masker, "report": evaluated.outputs["report"]}
    on.cpu(stage.register_segmenter(clips=clips, **models, params=register_segmenter))
