"""A forecaster of masks: a network over patches of the masks, which reads the context once.

The forecast is the last mask with every object moved along its trajectory, plus corrections at full resolution.
Before training, objects stay and corrections are 0, so that an untrained network repeats the last mask.

Shapes: B clips, T context frames, h horizon, S sampled steps, K classes, N objects, C channels, H height, W width,
I rows and J columns of the sampled pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.distributed import all_sum, rank_indices, world_size
from maskcast.labels import IGNORE
from maskcast.models.arithmetic import fixed_shapes, without_autocast
from maskcast.models.forecasting.base import Forecaster, known
from maskcast.models.forecasting.batches import (
    Batch,
    BatchSource,
    PixelBatches,
    TrackBatch,
    TracksAndMasks,
    prepare_motion,
)
from maskcast.models.forecasting.label_codec import EmbeddedClasses, OneHotClasses
from maskcast.models.forecasting.pixels import Pixels, needs_no_logits, pixel_loss, stacked, still_pixel_loss
from maskcast.models.forecasting.translator import Translator
from maskcast.models.limits import check_size, chunk_slices, strips
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.picks import ALL, Pick, picked
from maskcast.models.objects.scene import Scene, observe
from maskcast.models.objects.tracks import find_classes
from maskcast.models.objects.warp import Renderer, as_bytes, by_class, front_object
from maskcast.models.recurrent.stack import Recurrent

TEMPORARY_TENSORS = 5  # temporary tensors of the size of the logits
EXTRA_NUMBERS = 32  # further numbers in memory per pixel
GATES = 5  # numbers per cell and channel of the state: the input of four gates, and the state


class MaskForecaster(Forecaster):
    """Forecasts masks from masks.

    Args:
        codec: encodes class ids, and decodes states to logits.
        dynamics: network from past states to future states.
        residual: forecast changes of the last mask; else every pixel anew.
        motion: learned motion of the objects; with None objects stay.
        feedback: feed the network's forecast back as input.
        pixels: which pixels enter the loss.
    """

    same_each_step = True

    def __init__(
        self,
        codec: EmbeddedClasses | OneHotClasses,
        dynamics: Recurrent | Translator,
        *,
        residual: bool,
        motion: ObjectMotion | None,
        feedback: bool,
        pixels: Pixels,
    ) -> None:
        super().__init__()
        self.codec, self.dynamics, self.num_classes = codec, dynamics, codec.num_classes
        self.feedback, self.pixels = feedback, pixels
        self.render = Renderer() if residual else None
        self.motion = motion
        self.fixed_shapes = [f"dynamics.{part}" for part in dynamics.fixed_shapes]

    def batch_source(self, store: ClipStore, clips: Sequence[Clip]) -> BatchSource:
        """Returns a source of masks or, if objects move, of tracks of all windows and masks of some."""
        if self.motion is None:
            return PixelBatches(store, clips, self.input)
        return TracksAndMasks(store, clips, self.pixels.clips, self.motion.completion)

    def prepare(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        """Fits the ground plane and trains the completion of cut observations, if objects move."""
        if self.motion is not None:
            prepare_motion(self.motion, store, clips)

    def reset_to_persistence(self) -> None:
        """Resets it to forecasting the last mask; a network that is not residual is not changed."""
        if self.render is not None:
            self.codec.reset()
        if self.motion is not None:
            self.motion.reset_to_persistence()

    def reset_to_constant_velocity(self) -> None:
        """Resets it to objects of constant velocity, if it moves objects."""
        self.reset_to_persistence()
        if self.motion is not None:
            self.motion.reset_to_constant_velocity()

    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks that follow (B, T, H, W) uint8 ones; 255 counts as class 0.

        A residual network forecasts only classes of the context, because it cannot know which others enter later.
        """
        if torch.compiler.is_compiling():
            return self._forecast_as_graph(context_BTHW, horizon)
        return self._forecast(context_BTHW, horizon, with_confidence=False)[0]

    def forecast_with_confidence(self, context_BTHW: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns the same masks, and the probability of each pixel's class, (B, horizon, H, W) uint8, 255 = 1."""
        return self._forecast(context_BTHW, horizon, with_confidence=True)

    @property
    def draws_futures(self) -> bool:
        """Whether futures differ by seed: only motion is drawn."""
        return self.motion is not None

    def future(self, context_BTHW: Tensor, horizon: int, seed: int) -> Tensor:
        """Returns masks like ``forecast``, with randomly drawn trajectories (``objects.futures``)."""
        return self._forecast(context_BTHW, horizon, with_confidence=False, seed=seed)[0]

    def _forecast_as_graph(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the same as ``forecast`` with shapes independent of data: all clips and classes at once."""
        context_BTHW = known(context_BTHW)
        scene = observe(context_BTHW, self.num_classes, self.motion, horizon)
        logits_BhKHW = self._logits(scene, self._run(scene, context_BTHW, horizon))
        if self.render is not None:
            absent_BK = F.pad(find_classes(context_BTHW, self.num_classes)[:, 1:] == 0, (1, 0))
            logits_BhKHW = logits_BhKHW.masked_fill(absent_BK[:, None, :, None, None], float("-inf"))
        return logits_BhKHW.argmax(2).to(torch.uint8)

    def _forecast(
        self, context_BTHW: Tensor, horizon: int, with_confidence: bool, seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns masks (B, h, H, W) and, if asked for, the probability of each pixel's class, uint8 (255 = 1).

        Clips, steps and rows are processed in parts, so that memory is bounded.
        """
        frames, height, width = context_BTHW.shape[1:]
        numbers = -(-GATES * self.codec.channels // self.codec.stride**2)
        check_size(f"a clip of {frames} frames of {height} x {width}", frames * height * width, numbers)
        if self.feedback:
            check_size(f"a frame of {height} x {width}", height * width, TEMPORARY_TENSORS * self.num_classes)
        masks = torch.empty(len(context_BTHW), horizon, height, width, dtype=torch.uint8)
        masks = masks.to(context_BTHW.device)
        confidence = torch.empty_like(masks)
        for part in chunk_slices(len(context_BTHW), frames * height * width * numbers):
            part_confidence = confidence[part] if with_confidence else None
            self._forecast_some(context_BTHW[part], masks[part], part_confidence, seed)
        return masks, confidence

    def _forecast_some(
        self, context_BTHW: Tensor, masks_BhHW: Tensor, confidence_BhHW: Tensor | None, seed: int | None
    ) -> None:
        """Writes the results of ``_forecast`` for a part of the clips."""
        context_BTHW = known(context_BTHW)
        horizon, height, width = masks_BhHW.shape[1:]
        scene = observe(context_BTHW, self.num_classes, self.motion, horizon, seed)
        states = self._run(scene, context_BTHW, horizon)
        for clip in range(len(context_BTHW)):
            own = slice(clip, clip + 1)
            own_scene, own_states = scene.pick(own), [state[own] for state in states]
            classes = None if self.render is None else self._classes_of(context_BTHW[own])
            count = self.num_classes if classes is None else len(classes)
            for steps, rows in strips(horizon, height, width, TEMPORARY_TENSORS * count + EXTRA_NUMBERS):
                logits_SKIJ = self._logits(own_scene, own_states, steps, rows, classes=classes)[0]
                best_SIJ = logits_SKIJ.max(1).indices  # argmax is 6 times as slow over this axis on a CPU
                masks_BhHW[clip, steps, rows] = best_SIJ if classes is None else classes[best_SIJ]
                if confidence_BhHW is not None:
                    likely_SIJ = (logits_SKIJ.amax(1) - logits_SKIJ.logsumexp(1)).exp_()
                    confidence_BhHW[clip, steps, rows] = as_bytes(likely_SIJ)

    def loss(self, context: Batch, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of forecasting ``target`` after ``context``, and its terms.

        It is the cross entropy over a sample of pixels (see ``Pixels``), plus the error of all clips' trajectories
        if objects move. Targets of 255 are ignored.
        """
        if self.motion is None:
            assert isinstance(context, Tensor) and isinstance(target, Tensor)
            return self._pixel_loss(context, target, len(context))
        assert isinstance(context, TrackBatch) and isinstance(target, TrackBatch)
        counted = len(rank_indices(min(self.pixels.clips, world_size() * len(context.tracks_BTS8))))
        some = slice(max(1, counted))  # at least one clip for fixed shapes; it may not count
        pixels, parts = self._pixel_loss(context.masks_CTHW[some], target.masks_CTHW[some], counted)
        trajectories, errors = self.motion.loss(context.tracks_BTS8, target.tracks_BTS8)
        return pixels + trajectories, parts | errors

    def _pixel_loss(
        self, context_BTHW: Tensor, target_BhHW: Tensor, counted: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the cross entropy over the sampled pixels of the first ``counted`` clips, and its terms."""
        horizon, device = target_BhHW.shape[1], target_BhHW.device
        context_BTHW = known(context_BTHW)
        with fixed_shapes(device):
            scene = observe(context_BTHW, self.num_classes, self.motion, horizon, fill=False)
            states = self._run(scene, context_BTHW, horizon)
            labelled_h = None
            if not self.feedback and self.pixels.steps < horizon:  # else all steps are taken, labelled or not
                labelled_h = all_sum((target_BhHW[:counted].flatten(2).amin(2) < IGNORE).sum(0)) > 0
            drawn = self.pixels.draw(target_BhHW.shape[1:], device, labelled_h, all_steps=self.feedback)
            codec, target_C = self.codec, target_BhHW
            if (
                self.motion is None
                and isinstance(codec, EmbeddedClasses)
                and needs_no_logits(drawn, context_BTHW, codec)
            ):
                if isinstance(drawn.steps, Tensor):
                    states = list(stacked(states, drawn.steps).unbind(1))
                    target_C = picked(target_C, 1, drawn.steps)
                summed, count = still_pixel_loss(codec, self.render, scene, states, target_C)
            else:
                summed, count = pixel_loss(self._logits(scene, states, *drawn), target_C, drawn, counted)
        mean = all_sum(summed) / all_sum(count).clamp(min=1)
        return mean, {"cross_entropy": mean.detach()}

    def _classes_of(self, context_BTHW: Tensor) -> Tensor:
        """Returns the class ids in the context, ascending, always with class 0."""
        (seen,) = find_classes(context_BTHW, self.num_classes)
        seen[0] = 1
        return seen.nonzero().flatten()

    def _run(self, scene: Scene, context_BTHW: Tensor, horizon: int) -> list[Tensor]:
        """Returns the state (B, C, H/stride, W/stride) of every step of the forecast."""

        def feed(state_BCHW: Tensor) -> Tensor:
            probability = self._logits(scene, [state_BCHW], slice(1))[:, 0].softmax(1)
            hard = F.one_hot(probability.argmax(1), self.num_classes).movedim(-1, 1)
            return self.codec.encode_soft(hard + probability - probability.detach())

        seen_BTCHW = self.codec.encode(context_BTHW.flatten(0, 1)).unflatten(0, context_BTHW.shape[:2])
        return self.dynamics(seen_BTCHW, horizon, feed if self.feedback else None)

    def _logits(
        self,
        scene: Scene,
        states: list[Tensor],
        steps: Pick = ALL,
        rows: Pick = ALL,
        columns: Pick = ALL,
        classes: Tensor | None = None,
    ) -> Tensor:
        """Returns the logits (B, S, K, I, J) of the picked steps, rows, columns and classes (None: all)."""
        last_BHW = scene.last_mask
        classes = torch.arange(self.num_classes, device=last_BHW.device) if classes is None else classes
        # the state may be larger than the image, because of padding
        rows, columns = (
            slice(*pick.indices(size)) if isinstance(pick, slice) else pick
            for pick, size in zip((rows, columns), last_BHW.shape[1:], strict=True)
        )
        state_BSCHW = stacked(states, steps)
        half = slice(None, None, self.codec.fine)
        guide_BSIJ = last_BHW[:, None, half, half].expand(-1, state_BSCHW.shape[1], -1, -1)
        base: Tensor | float = 0.0
        if self.render is not None:
            with without_autocast(state_BSCHW.device):
                then = scene.masks, scene.seen, scene.trajectory.pick(steps=steps)
                drawn = self.render(*then, rows, columns)
                base = by_class(drawn, scene.object_BN, classes, self.render.absent)
                if self.motion is not None:
                    with torch.no_grad():
                        drawn = self.render(*then, half, half)
                        guide_BSIJ = front_object(drawn, scene.object_BN)
        change = self.codec.correct(state_BSCHW.flatten(0, 1), guide_BSIJ.flatten(0, 1), rows, columns, classes)
        return base + change.unflatten(0, state_BSCHW.shape[:2])
