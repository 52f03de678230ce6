"""Params of the training of a segmenter; nothing here imports torch."""

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from maskcast.data.augment.colours import ColourParams, Probability
from maskcast.data.augment.frames import Augmentation, AugmentParams
from maskcast.data.augment.strong import StrongColours
from maskcast.data.labelling.propagation import PropagationParams
from maskcast.models.segmentation.config import MaskerModelConfig
from maskcast.models.segmentation.configs import MaskLossConfig, MatteLossConfig, SegmenterConfig, UNetConfig
from maskcast.params import MAX_BATCH_SIZE, Names, Params
from maskcast.plugins import with_plugins
from maskcast.reading import pluralize
from maskcast.training.schedule import TrainingParams, phase_at
from maskcast.training.tasks.segmentation_phases import (
    AdversarialParams,
    GeneratedParams,
    Loss,
    PhasedTraining,
    SegmentationPhase,
)

if TYPE_CHECKING:
    Augment = Augmentation
else:
    Augment = with_plugins(AugmentParams, "maskcast.augmentations", Augmentation, "name", "standard")


class WindowParams(Params):
    """Frames of a clip that a model with state learns from in one step."""

    frames: int = Field(default=8, ge=1)
    """Frames that contribute to the loss."""
    chunk: int = Field(default=4, ge=1)
    """Frames through which gradients flow back (truncated back-propagation through time)."""
    burn_in: int = Field(default=0, ge=0)
    """Frames before these that are run without gradients or loss, so that the state is that of a clip already
    under way."""
    alone: float = Field(default=0.0, ge=0)
    """Weight of the loss of each frame masked on its own, without the memory of a `recurrent` model."""

    @property
    def total(self) -> int:
        """Frames that are seen."""
        return self.burn_in + self.frames


class UnlabeledParams(Params):
    """Learning from frames without labels, by pseudo masks of a teacher: the running average of the weights."""

    batch_size: int = Field(ge=2, le=MAX_BATCH_SIZE, multiple_of=2)
    """Unlabelled samples per step, summed over all processes. A sample is one frame, `consistent_frames` frames,
    or a window if the model has a state."""
    burn_in_steps: int = Field(ge=0)
    """Steps of supervised training before the teacher's pseudo masks are used."""
    ramp_steps: int = Field(default=0, ge=0)
    """Steps after the burn-in over which `weight` rises to its full value."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the loss on pseudo masks."""
    threshold: float = Field(default=0.9, ge=0, lt=1)
    """Minimum probability of the teacher's class for a pixel to be used; opacity is learnt at every pixel."""
    balance: bool = False
    """Lowers the threshold of each class by the mean probability that the teacher gives its pixels (FlexMatch), so
    that hard classes are learnt, too."""
    consistent_frames: int | None = Field(default=None, ge=1)
    """Frames of a clip over which each object gets one class before they are learnt. 1 gives each object one class
    within a frame; null uses the teacher's pixels as they are."""
    strong: StrongColours = StrongColours()
    """Colour augmentation of the student's view."""
    cutmix: Probability = 0.5
    """Probability that a rectangle of the student's view is pasted from another clip."""
    feature_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the channels of the encoder's feature maps that is dropped for the student (UniMatch V2). No effect
    on a model whose config names no encoder."""


class PropagatedParams(PropagationParams):
    """Learning from frames around those that have labels, which optical flow carries to them."""

    share: float = Field(default=0.7, gt=0, lt=1)
    """Share of the samples drawn from frames with propagated labels. It is less if these frames are so few that
    each would be drawn more often than a labelled frame."""


class RecolouredParams(ColourParams):
    """Labelled samples in other colours, which teach all of a class but what its colours say.

    So do unlabelled ones, all of them, where ``unlabeled.strong.hue`` turns their hues.
    """

    attributes: list[str] = Field(min_length=1)
    """Class attributes that recolouring changes, e.g. [color]."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the labelled samples that are recoloured."""
    hue: float = Field(default=0.5, ge=0, le=0.5)
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    saturation: float = Field(default=0.3, ge=0, le=1)


class SegmentationTraining(Params):
    """How a segmenter is trained."""

    model: SegmenterConfig = UNetConfig()
    """Architecture and its sizes."""
    loss: Loss = MaskLossConfig()
    """Loss of label maps of kind classes: its terms, their weights and reductions."""
    matte_loss: MatteLossConfig | None = None
    """Loss of alpha maps, e.g. {l1: 1, laplacian: 1, coherence: 5} as in Robust Video Matting. null uses the mean
    absolute difference of opacity and of its gradient."""
    augment: Augment = AugmentParams()
    """Augmentation of training frames."""
    training: TrainingParams
    """Schedule; a sample of ``batch_size`` is one frame, or one window of a clip if the model has a state."""
    val_frame_step: int = Field(default=1, ge=1)
    """Validate on every n-th frame of the validation clips."""
    maps: Names | None = None
    """Label maps to learn; null learns all of kind classes or alpha."""
    window: WindowParams | None = None
    """Windows of frames that a model with a state trains on; null for a model without one."""
    mirror: bool = False
    """Horizontal-flip test-time augmentation: wherever this masker is used, average the logits of a frame and its
    flipped copy, in nearly twice the time. Not for classes that a flip swaps (`source.mirror_swaps`)."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights. Of the average and the weights themselves,
    the one that validates better is kept. null keeps no average."""
    unlabeled: UnlabeledParams | None = None
    """Semi-supervised training on unlabelled frames, too; null trains on labelled frames only."""
    propagated: PropagatedParams | None = None
    """For clips with labels in some frames only: train on nearby frames, too, with labels propagated by optical
    flow. null does not."""
    recoloured: RecolouredParams | None = None
    """Show some labelled samples in other colours, if classes have attributes; null does not."""
    generated: GeneratedParams | None = None
    """A second round of training: learn from the masks given as ``--masks``, too; null does not."""
    anew: bool = False
    """Ignore the masker given as ``--start`` and begin with new weights, as a second masker of another
    architecture must."""
    adversarial: AdversarialParams | None = None
    """A discriminator trained alongside, whose loss rewards masks that look real; null for none."""
    phases: list[SegmentationPhase] | None = Field(default=None, min_length=1)
    """Training in phases, one after the other, e.g. [{epochs: 3, generated: 1}, {epochs: 7, generated: 0}]; null
    trains the same way throughout."""
    attributes: bool = True
    """Learn classes by their shared attributes, if the clips' label maps have any (docs/your-data.md), so that a
    class without labels is recognised by its attributes. false learns each class separately."""

    @property
    def schedule(self) -> TrainingParams:
        """The schedule, with the rates of the phases where there are any."""
        if self.phases is None:
            return self.training
        return PhasedTraining(**dict(self.training), phases=self.phases)

    def phase(self, step: int) -> int:
        """Returns the index of the phase that a step belongs to; 0 without phases."""
        return phase_at([phase.epochs for phase in self.phases or ()], step // self.training.steps_per_epoch)

    def generated_share(self, step: int) -> float:
        """Returns the share of a step's samples that is drawn from generated masks."""
        share = None if self.phases is None else self.phases[self.phase(step)].generated
        return share if share is not None else 0.0 if self.generated is None else self.generated.share

    def adversarial_weight(self, step: int) -> float | None:
        """Returns the weight of the adversarial loss; None in steps without it, which draw generated masks."""
        if self.adversarial is None or self.generated_share(step):
            return None
        weight = None if self.phases is None else self.phases[self.phase(step)].adversarial
        return self.adversarial.weight if weight is None else weight

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        phases = self.phases or []
        if phases and (total := sum(phase.epochs for phase in phases)) != self.training.epochs:
            raise ValueError(
                f"phases: have {pluralize(total, 'epoch')}, training.epochs is {self.training.epochs}; make "
                "them equal"
            )
        for number, phase in enumerate(phases):
            if phase.generated and self.generated is None:
                raise ValueError(f"phases[{number}].generated: needs generated masks; give generated, e.g. {{}}")
            if phase.adversarial is not None and self.adversarial is None:
                raise ValueError(
                    f"phases[{number}].adversarial: needs a discriminator; give adversarial, e.g. {{}}"
                )
        starts = [
            self.training.steps_per_epoch * sum(phase.epochs for phase in phases[:n]) for n in range(len(phases))
        ]
        if self.adversarial is not None and all(self.generated_share(step) for step in starts or [0]):
            raise ValueError(
                "adversarial: no phase trains on true masks alone, which the discriminator needs; set "
                "phases, one with generated: 0, or set adversarial to null"
            )
        return self

    @model_validator(mode="after")
    def _weights_fit_the_classes(self) -> Self:
        losses = [self.loss, *(phase.loss for phase in self.phases or ())]
        weighed = any(isinstance(one, MaskLossConfig) and one.class_weights is not None for one in losses)
        if self.recoloured is not None and weighed:
            raise ValueError("loss.class_weights: not supported with recoloured; set one of them to null")
        return self

    @model_validator(mode="after")
    def _window_is_for_models_with_state(self) -> Self:
        if self.model.stateful and self.window is None:
            raise ValueError(
                f"model {self.model.arch!r} has state and needs window; set it, e.g. {{frames: 8, chunk: 4}}"
            )
        if not self.model.stateful and self.window is not None:
            raise ValueError(f"model {self.model.arch!r} has no state; set window to null")
        if self.window is not None and self.window.alone and getattr(self.model, "frozen", "base") == "base":
            raise ValueError(
                f"model {self.model.arch!r} has no trainable single-frame part; set window.alone to 0, "
                "or model.frozen to nothing or encoder"
            )
        return self

    @model_validator(mode="after")
    def _mirror_is_for_networks_of_frames(self) -> Self:
        if self.mirror and not isinstance(self.model, MaskerModelConfig):
            raise ValueError(f"mirror: model {self.model.arch!r} is not a single-frame network; set it to false")
        return self

    @model_validator(mode="after")
    def _unlabeled_fits(self) -> Self:
        if self.unlabeled is None:
            return self
        if self.ema is None:
            raise ValueError("unlabeled needs a teacher: set ema, e.g. to 0.99")
        processes = self.training.world_size
        if self.unlabeled.batch_size % (2 * processes):
            raise ValueError(
                f"unlabeled.batch_size {self.unlabeled.batch_size}: samples are mixed in pairs, which cannot be "
                f"divided among nodes x processes = {processes}; choose a multiple of {2 * processes}"
            )
        if self.unlabeled.burn_in_steps >= self.training.steps:
            raise ValueError(
                f"unlabeled.burn_in_steps {self.unlabeled.burn_in_steps}: training ends after "
                f"{pluralize(self.training.steps, 'step')}, before any unlabelled frame; lower it"
            )
        return self
