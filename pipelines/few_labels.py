"""The few-labels pipeline: a masker, and a second round that continues from it with its generated masks.

The same DAG as `recipes/few-labels/dvc.yaml`; both are written by hand, and tests/contract/test_dag_agreement.py
compares them.
"""

import components as stage
from pipelines.placement import Placement


def few_labels(
    on: Placement,
    fetch_dataset: dict,
    prepare_clips: dict,
    pretrain_encoder: dict,
    train_masker: dict,
    generate_masks: dict,
    second_masker: dict,
) -> None:
    """Learn to segment in rounds, from few labels."""
    raw = on.io(stage.fetch_dataset(params=fetch_dataset)).outputs["raw"]
    clips = on.cpu(stage.prepare_clips(raw=raw, params=prepare_clips)).outputs["clips"]

    encoder = on.gpu(stage.pretrain_encoder(unlabeled=clips, params=pretrain_encoder)).outputs["encoder"]
    first = on.gpu(stage.train_masker(clips=clips, encoder=encoder, params=train_masker)).outputs["masker"]
    masks = on.gpu(stage.generate_masks(clips=clips, masker=first, params=generate_masks)).outputs["masks"]
    on.gpu(stage.train_masker(clips=clips, start=first, masks=masks, params=second_masker, name="second_masker"))
