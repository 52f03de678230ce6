"""find_learning_rate: train for some steps at rising learning rates, and suggest one."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from maskcast.errors import MaskcastError
from maskcast.markup import Html, concatenate, element
from maskcast.params import Params, validate
from maskcast.progress import report_section, say
from maskcast.runner.stage import InPath, OutPath, get_stage, stage
from maskcast.writing import write_json

if TYPE_CHECKING:
    from maskcast.training.range_test import Sweep
    from maskcast.training.task import Task

NEEDS = {  # inputs by stage
    "train_masker": ("clips",),
    "pretrain_encoder": ("clips",),
    "pretrain_forecaster": ("clips", "masks", "masker"),
    "finetune_forecaster": ("clips", "masks", "masker", "pretrained"),
    "train_detector": ("dataset",),
}


class FindLearningRate(Params):
    """Params of find_learning_rate."""

    of: Literal[
        "train_masker", "pretrain_encoder", "pretrain_forecaster", "finetune_forecaster", "train_detector"
    ] = "train_masker"
    """The stage whose training is tested."""
    values: dict[str, Any]
    """The params of that stage; learning rates and the length of the schedule are ignored."""
    lowest: float = Field(default=1e-6, ge=1e-38)  # of fp32
    """Learning rate of the first step."""
    highest: float = Field(default=1.0, gt=0)
    """Learning rate of the last step; a sweep stops earlier if the loss diverges."""
    steps: int = Field(default=100, ge=20, le=100_000)
    """Steps of a sweep; the rate grows by the same factor at each step."""
    weight_decays: tuple[float, ...] = ()
    """Runs a sweep for each of these; if empty, that of `values` is used."""
    batch_sizes: tuple[int, ...] = ()
    """Runs a sweep for each of these; if empty, that of `values` is used."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.highest <= self.lowest:
            raise ValueError(f"highest {self.highest:g} must be above lowest {self.lowest:g}")
        return self


@stage
def find_learning_rate(
    *,
    clips: InPath | None = None,
    dataset: InPath | None = None,
    masks: InPath | None = None,
    masker: InPath | None = None,
    pretrained: InPath | None = None,
    curves: OutPath,
    metrics: OutPath,
    params: FindLearningRate,
) -> None:
    """Runs a learning-rate range test: trains at rising rates, suggests the one where the loss falls fastest.

    Args:
        clips: clip store; for pretrain_encoder, its ``unlabeled``.
        dataset: detection set, for train_detector.
        masks: generated masks, to train a forecaster.
        masker: masker that generated the masks, to train a forecaster.
        pretrained: forecaster to finetune, for finetune_forecaster.
        curves: folder with losses.csv of all sweeps; the page has the curves.
        metrics: JSON, flat numbers.
        params: stage, range of rates and number of steps.

    Raises:
        MaskcastError: an input is missing, the params of the stage are invalid, or a sweep has no usable loss.
    """
    from maskcast.training.range_test import range_test

    ports = {"clips": clips, "dataset": dataset, "masks": masks, "masker": masker, "pretrained": pretrained}
    inputs = {name: path for name, path in ports.items() if path is not None}
    for name in NEEDS[params.of]:
        if name not in inputs:
            raise MaskcastError(f"find_learning_rate: --{name} is missing; {params.of} requires it")
    sweeps: dict[str, Sweep] = {}
    for title, values in _variants(params).items():
        task = _task(params.of, values, inputs, curves)
        sweeps[title] = range_test(task, values.training, params.lowest, params.highest, params.steps)
        say(f"{title}: {_summary(sweeps[title])}")
    _write(curves, sweeps)
    report_section("Loss by learning rate", _report(sweeps))
    numbers = {"sweeps": float(len(sweeps))}
    for title, sweep in sweeps.items():
        if sweep.suggestion is not None:
            numbers[f"suggestion/{title}" if len(sweeps) > 1 else "suggestion"] = sweep.suggestion
    write_json(metrics, numbers)


def _variants(params: FindLearningRate) -> dict[str, Any]:
    """Returns the params of the training of each sweep, by name; all are checked before the first one begins."""
    training = params.values.get("training")
    if not isinstance(training, dict):
        raise MaskcastError(f"find_learning_rate: values.training is missing; give the params of {params.of}")
    variants = {}
    for decay in params.weight_decays or (None,):
        for batch in params.batch_sizes or (None,):
            overrides = {"weight_decay": decay, "batch_size": batch}
            given = {name: value for name, value in overrides.items() if value is not None}
            title = ", ".join(f"{name} {value:g}" for name, value in given.items()) or params.of
            values = params.values | {"training": training | given}
            variants[title] = validate(get_stage(params.of).params, values, "find_learning_rate: values")
    return variants


def _task(stage_name: str, params: Any, inputs: Mapping[str, Path], out: Path) -> "Task":
    """Returns a new training task of a stage; archives are unpacked beside ``out``."""
    if stage_name == "train_masker":
        from maskcast.data.clip_store.reader import ClipStore
        from maskcast.training.tasks.segmentation import segmentation_task

        return segmentation_task(ClipStore(inputs["clips"]), params, stage_name)
    if stage_name == "pretrain_encoder":
        from maskcast.data.unlabeled import open_frames
        from maskcast.runner.outputs import resume_dir
        from maskcast.stages.pretrain_encoder import encoder_task

        return encoder_task(open_frames(inputs["clips"], resume_dir(out)), params, stage_name)
    if stage_name == "train_detector":
        from maskcast.data.detection.dataset import DetectionSet
        from maskcast.training.tasks.detection import DetectorTask

        return DetectorTask(DetectionSet(inputs["dataset"]), params, None, stage_name)
    stores = (inputs["clips"], inputs["masks"], inputs["masker"])
    if stage_name == "pretrain_forecaster":
        from maskcast.stages.pretrain_forecaster import pretraining

        return pretraining(*stores, params)[0]
    from maskcast.stages.finetune_forecaster import finetuning

    return finetuning(*stores, inputs["pretrained"], params)[0]


def _summary(sweep: "Sweep") -> str:
    ending = f"the loss diverged at {sweep.rates[-1]:.1e}" if sweep.diverged else "the loss did not diverge"
    at_lowest = f"it is lowest at {sweep.lowest_loss_rate:.1e}"
    if sweep.suggestion is None or sweep.steepest is None:
        return f"the loss falls at no rate ({at_lowest}; {ending}); widen lowest to highest, or increase steps"
    fastest = f"the loss falls fastest at {sweep.steepest:.1e}"
    return f"learning_rate {sweep.suggestion:.1e} ({fastest}; {at_lowest}; {ending})"


def _report(sweeps: Mapping[str, "Sweep"]) -> Html:
    """Returns the section of the page: a summary and the loss curves, without diverged points."""
    from maskcast.report.charts import line_chart

    limit = 1.5 * max(sweep.smoothed[0] for sweep in sweeps.values())
    lines = {
        title: [
            point for point in zip(sweep.rates, sweep.smoothed, strict=True) if point[1] <= limit or limit <= 0
        ]
        for title, sweep in sweeps.items()
    }
    summaries = element("ul", *(element("li", f"{title}: {_summary(sweep)}") for title, sweep in sweeps.items()))
    return concatenate([summaries, line_chart("Smoothed loss", lines, x_label="learning rate", log_x=True)])


def _write(folder: Path, sweeps: Mapping[str, "Sweep"]) -> None:
    """Writes losses.csv."""
    from maskcast.report.tables import write_csv

    folder.mkdir()
    rows = [
        [title, step, *(f"{value:.6g}" for value in values)]
        for title, sweep in sweeps.items()
        for step, values in enumerate(zip(sweep.rates, sweep.losses, sweep.smoothed, strict=True))
    ]
    write_csv(folder / "losses.csv", ["sweep", "step", "learning_rate", "loss", "smoothed"], rows)
