"""Semi-supervised training of a segmenter: on unlabelled frames its running average is its teacher.

Legend: B samples, T frames per sample, H height, W width, C = 3 channels, K channels of logits.
"""

import torch

from maskcast.data.clip_store.reader import ClipStore
from maskcast.models.segmentation.base import Segmenter
from maskcast.training.ema import BetterModel
from maskcast.training.tasks.segmentation_dropout import FeatureDropout
from maskcast.training.tasks.segmentation_params import SegmentationTraining, UnlabeledParams
from maskcast.training.tasks.segmentation_pseudo import PseudoMasks, cutmix_masks
from maskcast.training.tasks.segmentation_unlabeled import UnlabelledWindows, Views
from maskcast.training.tasks.segmentation_windows import Windows


class SemiSupervised:
    """Makes the student's batches from unlabelled windows.

    Args:
        store: the clips.
        params: of the training.
        unlabeled: the part of ``params`` for unlabelled frames.
        ema: student and teacher; the state of the pseudo masks is added to it.
        others: clips to use instead of the unlabelled ones of ``store``.

    Attributes:
        dropout: perturbs the student's features of unlabelled samples; None if the params or the model do not.

    Raises:
        MaskcastError: if there are no unlabelled frames.
    """

    def __init__(
        self,
        store: ClipStore,
        params: SegmentationTraining,
        unlabeled: UnlabeledParams,
        ema: BetterModel[Segmenter],
        others: ClipStore | None,
    ) -> None:
        self.params, self.unlabeled, self._ema = params, unlabeled, ema
        self.windows = UnlabelledWindows(store, params, unlabeled, others)
        self.pseudo = PseudoMasks(ema.live.maps, unlabeled)
        ema.add_module("pseudo", self.pseudo)
        self.dropout: FeatureDropout | None = None
        if unlabeled.feature_dropout and params.model.encoder_config is not None:
            encoder = params.model.encoder_of(ema.live)
            self.dropout = FeatureDropout(encoder, unlabeled.feature_dropout, unlabeled.batch_size)

    def is_active(self, step: int) -> bool:
        """Whether this step learns from unlabelled frames."""
        return step >= self.unlabeled.burn_in_steps

    def batch(self, step: int) -> Views:
        """Returns this process's unlabelled windows: a pure function of (seed, step)."""
        views = self.windows.batch(step)
        if self.dropout is None:
            return views
        return views._replace(kept=self.dropout.draw(self.params.training.seed, step))

    def student_batch(self, batch: Windows, views: Views) -> Windows:
        """Returns the labelled windows, followed by the student's views with the teacher's masks."""
        teacher = self._ema.average
        assert teacher is not None
        with torch.no_grad():
            logits, _ = teacher(views.weak_BTHWC)
        masks = [cutmix_masks(each, views.cut_BHW) for each in self.pseudo(logits, batch.masks)]
        strong_BTHWC = views.strong_BTHWC
        if self.params.window is None:  # a sample of a model without state is a frame
            strong_BTHWC, *masks = (each.flatten(0, 1)[:, None] for each in (strong_BTHWC, *masks))
        both = zip(batch.masks, masks, strict=True)
        return Windows(torch.cat([batch.frames_BTHWC, strong_BTHWC]), tuple(map(torch.cat, both)))
