"""The base of all segmentation tasks: training windows, losses, validation and initial weights.

Legend: B samples, T frames of a sample, H height, W width, C = 3 channels, K channels of logits.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.statistics import frame_statistics
from maskcast.data.trained_frames import hashes_of_scored, hashes_of_trained
from maskcast.distributed import seed_own_draws
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.rebuilding import check_rebuilt
from maskcast.models.segmentation.attributes import fold_parts, share_parts
from maskcast.models.segmentation.base import Masker, Segmenter
from maskcast.models.segmentation.config import LossConfig
from maskcast.models.segmentation.configs import MaskLossConfig
from maskcast.models.segmentation.losses import AlphaLoss, CustomLoss, MaskLoss
from maskcast.models.segmentation.matte_losses import MatteLoss
from maskcast.models.segmentation.probing import check_first_state, probe_logits
from maskcast.models.segmentation.table import build_segmenter
from maskcast.plugins import is_plugin, returned_error
from maskcast.seed import seed_libraries
from maskcast.training.ema import BetterModel, EmaModel
from maskcast.training.task import Task
from maskcast.training.tasks.segmentation_adversarial import Adversary
from maskcast.training.tasks.segmentation_initial_weights import load_initial_weights
from maskcast.training.tasks.segmentation_map_loss import MapLoss
from maskcast.training.tasks.segmentation_params import SegmentationTraining
from maskcast.training.tasks.segmentation_pseudo import learnt_share
from maskcast.training.tasks.segmentation_recoloured import class_groups
from maskcast.training.tasks.segmentation_semi_supervised import SemiSupervised
from maskcast.training.tasks.segmentation_validation import Validation
from maskcast.training.tasks.segmentation_windows import LabelledWindows, Windows, chosen_maps


class SegmentationTask(Task):
    """Base of the tasks for segmenters with and without state.

    Args:
        store: the clips.
        params: of the stage.
        fingerprint: identifies params, data and code.
        encoder: folder that ``pretrain_encoder`` wrote, with weights to start from.
        start: folder that ``train_masker`` wrote, with weights to start from.
        generated: masks that ``generate_masks`` wrote for the unlabelled clips, to learn from.
        unlabeled: clips to learn from without labels, instead of the unlabelled clips of ``store``.

    Raises:
        MaskcastError: if a label map does not exist, there are no training or validation clips, or the weights to
            start from do not fit.
    """

    monitor = "jaccard"

    def __init__(
        self,
        store: ClipStore,
        params: SegmentationTraining,
        fingerprint: str,
        encoder: Path | None = None,
        start: Path | None = None,
        generated: Path | None = None,
        unlabeled: Path | None = None,
    ) -> None:
        self.store, self.params, self.fingerprint = store, params, fingerprint
        self.maps = chosen_maps(store, params.maps)
        self.windows = LabelledWindows(store, self.maps, params, generated)
        self.validation = Validation(store, self.maps, params)
        seed_libraries(params.training.seed)
        self.student = build_segmenter(params.model, [replace(one, attributes={}) for one in self.maps])
        if self.student.stateful != params.model.stateful:
            config_name, network = type(params.model).__name__, type(self.student).__name__
            raise MaskcastError(
                f"train_masker.model: {config_name}.stateful is {params.model.stateful}, {network}.stateful is "
                f"{self.student.stateful}; make them equal"
            )
        if isinstance(self.student, Masker):
            self.student.mirror = params.mirror
        measure_colours = partial(frame_statistics, store, self.windows.clips)
        self.pretrained = load_initial_weights(self.student, params.model, encoder, start, measure_colours)
        if self.pretrained is not None:
            self.fingerprint = self.pretrained.renamed(fingerprint)
        # a head that was trained before is not changed
        self._parts = params.attributes and start is None and any(label_map.attributes for label_map in self.maps)
        if self._parts:
            share_parts(params.model.head_of(self.student), self.maps)
        self.averaged = None if params.ema is None else BetterModel(self.student, params.ema)
        self.model: nn.Module = self.student if self.averaged is None else self.averaged
        phase_losses = [phase.loss or params.loss for phase in params.phases or ()] or [params.loss]
        self.criteria = [[_criterion(label_map, params, loss) for label_map in self.maps] for loss in phase_losses]
        self.adversary = None
        if params.adversarial is not None:
            size = params.augment.crop or (store.height, store.width)
            self.adversary = Adversary(self.maps, size, params.adversarial.width)
            if self.averaged is None:
                self.model = EmaModel(self.student, None)
            self.model.add_module("discriminator", self.adversary.discriminator)
        self.groups = class_groups(self.maps, params.recoloured)
        self.semi_supervised = None
        if params.unlabeled is not None and self.averaged is not None:
            others = None if unlabeled is None else ClipStore(unlabeled)
            self.burn_in_steps = params.unlabeled.burn_in_steps
            self.semi_supervised = SemiSupervised(store, params, params.unlabeled, self.averaged, others)
        elif unlabeled is not None:
            raise MaskcastError(
                f"{unlabeled}: needs the param train_masker.unlabeled; set it, e.g. to "
                "{batch_size: 48, burn_in_steps: 400}, and ema, e.g. to 0.99"
            )

    @property
    def segmenter(self) -> Segmenter:
        """The segmenter to keep: the network, or the running average of its weights if that validates better."""
        return self.student if self.averaged is None else self.averaged.final

    @property
    def networks(self) -> Sequence[nn.Module]:
        """The segmenter and, if there is one, the discriminator, whose gradients differ by orders of magnitude."""
        return [self.student] if self.adversary is None else [self.student, self.adversary.discriminator]

    def batch(self, step: int) -> Windows:
        """Returns this process's windows, augmented: a pure function of (seed, step)."""
        batch = self.windows.batch(step)
        if self.semi_supervised is None or not self.semi_supervised.is_active(step):
            return batch
        return batch._replace(views=self.semi_supervised.batch(step))

    def validate(self) -> dict[str, float]:
        """Returns ``jaccard`` and ``accuracy`` over all pixels of the validation frames (``Validation.scores``).

        With a running average they are the scores of the better network, and ``jaccard_average`` and
        ``jaccard_live`` are those of both. With unlabelled frames, the numbers of ``PseudoMasks.statistics`` are
        added.
        """
        if self.averaged is None:
            return self.validation.scores(self.student)
        statistics = {} if self.semi_supervised is None else self.semi_supervised.pseudo.statistics()
        return self.averaged.validate(self.validation.scores, "jaccard") | statistics

    def frame_hashes(self, split: Literal["train", "val"]) -> Sequence[np.ndarray]:
        """Returns hashes (N,) of frames of each labelled training clip, or of each validation clip."""
        if split == "train":
            return hashes_of_trained(self.store, self.windows.clips)
        return hashes_of_scored(self.store, self.validation.clips)

    def finish(self) -> None:
        """Converts the trained segmenter to the form that is saved, with a plain convolution as its head."""
        for kept, learnt in zip(self.segmenter.parameters(), self.student.parameters(), strict=True):
            kept.requires_grad_(learnt.requires_grad)  # the average has none, the saved network may
        if self._parts:
            fold_parts(self.params.model.head_of(self.segmenter))

    def check_rebuilt(self) -> None:
        """Checks a segmenter of another package: its first state, and what it is when it is built anew."""
        config = self.params.model
        if not is_plugin(config):
            return

        def rebuild() -> Segmenter:
            again = build_segmenter(config, self.student.maps)
            if isinstance(again, Masker):
                again.mirror = self.params.mirror
            if self._parts:
                share_parts(config.head_of(again), self.maps)
            return again

        segmenter = self.segmenter.eval()
        check_rebuilt(segmenter, config, rebuild, probe_logits)
        check_first_state(segmenter)

    def end_step(self, step: int) -> None:
        """Updates the running average of the weights."""
        if self.averaged is not None:
            self.averaged.update(step + 1)

    @property
    def same_each_step(self) -> bool:
        """Whether the loss does the same in each step (``models/cuda_graphs.py``).

        It does not with phases or a discriminator, which depend on the step's number, with masks made consistent
        over frames, which happens on the host, or with a loss of another package, of which nothing is known. The
        config of a network says whether the network does.
        """
        consistent = (
            self.semi_supervised is not None and self.semi_supervised.unlabeled.consistent_frames is not None
        )
        known = self.params.model.same_each_step and isinstance(self.params.loss, MaskLossConfig)
        return known and self.adversary is None and self.params.phases is None and not consistent

    def _begin(self, batch: Windows, step: int) -> Windows:
        """Returns the student's samples of this step, labelled ones first."""
        seed_own_draws(self.params.training.seed, step)
        if self.semi_supervised is None or batch.views is None:
            return batch
        return self.semi_supervised.student_batch(batch, batch.views)

    def _feature_dropout(self, batch: Windows, windows: Windows) -> AbstractContextManager[None]:
        """Returns a context in which the student's features of unlabelled samples are perturbed."""
        if self.semi_supervised is None or self.semi_supervised.dropout is None or batch.views is None:
            return nullcontext()
        labelled_share = len(batch.frames_BTHWC) / len(windows.frames_BTHWC)
        return self.semi_supervised.dropout(batch.views.kept, labelled_share)

    def _map_losses(self, masks: Sequence[Tensor], batch: Windows, step: int) -> list[list[MapLoss]]:
        """Returns the losses of each map, given the masks (B, T, H, W) of all frames of the windows.

        Labelled samples that are recoloured and others are weighted by their shares. The loss of pseudo masks is a
        mean over all their pixels, in which pixels that are not learnt count as 0.
        """
        labelled, losses = len(batch.frames_BTHWC), []
        layers = zip(self.maps, self.criteria[self.params.phase(step)], self.groups, masks, strict=True)
        for label_map, criterion, groups, masks_BTHW in layers:
            if groups is None:
                parts = [MapLoss(criterion, masks_BTHW, slice(labelled))]
            else:
                first, share = self.windows.recoloured, self.windows.recoloured_share
                parts = [
                    MapLoss(criterion, masks_BTHW, slice(first), groups, share),
                    MapLoss(criterion, masks_BTHW, slice(first, labelled), weight=1 - share),
                ]
            if self.semi_supervised is not None and batch.views is not None:
                pseudo, weight = slice(labelled, None), batch.views.weight
                if label_map.kind == "classes":
                    weight = weight * learnt_share(masks_BTHW[pseudo])
                turned = groups if self.semi_supervised.unlabeled.strong.hue else None
                parts.append(MapLoss(criterion, masks_BTHW, pseudo, turned, weight))
            losses.append(parts)
        return losses

    def _loss(
        self,
        logits: Sequence[Tensor],
        masks: Sequence[Tensor],
        losses: Sequence[Sequence[MapLoss]],
        batch: Windows,
        step: int,
        share: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the summed losses of all maps, and numbers to log.

        The adversarial loss is computed on labelled samples.

        Args:
            logits: (B, T, K, H, W) of each map.
            masks: (B, T, H, W) of each map.
            losses: what `_map_losses` returned; these are the next frames.
            batch: of the step.
            step: of the training.
            share: of the windows' frames that these are.
        """
        total = self._sum_of_maps(logits, losses)
        if self.adversary is None:
            return total, {}
        weight = self.params.adversarial_weight(step)
        if weight is None:
            return total + self.adversary.zero_loss(), {}
        labelled = len(batch.frames_BTHWC)
        predicted, truth = ([each[:labelled].flatten(0, 1) for each in layer] for layer in (logits, masks))
        loss, numbers = self.adversary.loss(predicted, truth, weight)
        return total + share * loss, {name: share * value for name, value in numbers.items()}

    def _sum_of_maps(self, logits: Sequence[Tensor], losses: Sequence[Sequence[MapLoss]]) -> Tensor:
        """Returns the summed losses of all maps, without the adversarial loss (see `_loss`)."""
        layers = zip(losses, logits, strict=True)
        parts = [one.of_next(logits_BTKHW) for map_losses, logits_BTKHW in layers for one in map_losses]
        return sum(parts[1:], parts[0])


def _criterion(label_map: LabelMap, params: SegmentationTraining, loss: LossConfig) -> nn.Module:
    if label_map.kind != "alpha":
        criterion: Any = loss.build(label_map)
        if not callable(criterion):
            raise returned_error(
                loss, "build", "a module or function from logits and class ids to the loss", criterion
            )
        return criterion if isinstance(criterion, MaskLoss) else CustomLoss(criterion)
    return AlphaLoss() if params.matte_loss is None else MatteLoss(params.matte_loss)
