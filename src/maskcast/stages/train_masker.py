"""train_masker: train a masker, which predicts the class of every pixel, on labelled clips."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskcast.markup import concatenate, element, figure, table
from maskcast.runner.stage import InPath, OutPath, running_name, stage
from maskcast.training.tasks.segmentation_params import SegmentationTraining

if TYPE_CHECKING:
    from maskcast.training.tasks.segmentation_base import SegmentationTask

SAMPLES = 8  # number of drawn samples of the first batch
MIN_GAIN = 0.01  # minimum gain in Jaccard over predicting a single class


class TrainMasker(SegmentationTraining):
    """Params of train_masker."""


@stage
def train_masker(
    *,
    clips: InPath,
    encoder: InPath | None = None,
    start: InPath | None = None,
    masks: InPath | None = None,
    unlabeled: InPath | None = None,
    masker: OutPath,
    metrics: OutPath,
    params: TrainMasker,
) -> None:
    """Trains a masker on the labelled clips of the train split; the best epoch by validation Jaccard is kept.

    Args:
        clips: clip store.
        encoder: output of ``pretrain_encoder``, the initial weights of the masker's encoder.
        start: masker with the initial weights, of the same ``model`` or of its ``base``; they are kept if no epoch
            is better. Its classes may be others; they are matched by name. The param ``anew`` ignores it.
        masks: output of ``generate_masks`` for these clips, by another masker; the param ``generated`` configures
            training on the masks of unlabelled clips.
        unlabeled: another clip store, for the param ``unlabeled``: frames of its train and unlabeled splits,
            without their labels, replace the unlabelled frames of ``clips``.
        masker: the trained masker.
        metrics: JSON, flat numbers.
        params: architecture, training schedule, loss and augmentation.

    Raises:
        MaskcastError: train or val has no labelled clips with frames, the encoder or the start has another
            architecture than ``model``, or training diverges.
    """
    from maskcast.data.clip_store.reader import ClipStore
    from maskcast.dry_run_notes import is_dry_run
    from maskcast.evaluation.metrics import foreground_text
    from maskcast.evaluation.notes import warn_of_lookback
    from maskcast.models.base import best_device, count_parameters
    from maskcast.models.segmentation.table import save_masker
    from maskcast.progress import is_main_process, report_section, say
    from maskcast.reading import pluralize
    from maskcast.runner.fingerprint import fingerprint
    from maskcast.runner.outputs import resume_dir
    from maskcast.training.finish import Scores, finish_training
    from maskcast.training.tasks.segmentation import segmentation_task
    from maskcast.training.tasks.segmentation_reference import reference_of

    store = ClipStore(clips)
    start = None if params.anew else start
    key = fingerprint(
        __name__, params, clips=clips, encoder=encoder, start=start, masks=masks, unlabeled=unlabeled
    )
    task = segmentation_task(store, params, key, encoder, start, masks, unlabeled)
    warn_of_lookback(store, "val")
    _draw_samples(task, resume_dir(masker) / "samples.png")
    meta: dict[str, Any] = {"height": store.height, "width": store.width}
    if task.pretrained is not None:
        meta["encoder_weights"] = task.pretrained.record

    def save(folder: Path) -> None:
        task.finish()
        task.segmenter.to(best_device())
        stored_meta = meta | {"reference": reference_of(task).model_dump(mode="json")}
        save_masker(folder, task.segmenter, params.model, stored_meta)

    def results(scores: Scores) -> Scores:
        run_facts = {name: scores[name] for name in ("best_epoch", "epochs", "train_seconds")}
        val_scores = {f"val_{name}": value for name, value in scores.items() if name not in run_facts}
        return val_scores | run_facts | {"parameters": count_parameters(task.segmenter)}

    size = f"{store.height}x{store.width}"

    def summary(scores: Scores) -> str:
        jaccard = f"{scores['jaccard']:.4f}{foreground_text(scores)}"
        best, epochs = int(scores["best_epoch"]), int(scores["epochs"])
        chosen = (
            f"best epoch {best} of {epochs}" if best else f"the start's, better than {pluralize(epochs, 'epoch')}"
        )
        return f"masker: validation Jaccard {jaccard}, {chosen}, at {size}"

    scores = finish_training(
        running_name("train_masker"),
        task,
        params.schedule,
        resume_dir(masker),
        out=masker,
        save=save,
        metrics=metrics,
        results=results,
        summary=summary,
        start=start,
    )
    if not is_dry_run():  # takes another validation
        warning = _warning(scores["jaccard"], task.validation.majority_class_jaccard())
        if warning:
            say(f"warning: {warning}")
        _report_scores(task, resume_dir(masker) / "classes.md", summary(scores), warning)
    _report_pictures(task, resume_dir(masker) / "pictures")
    if is_main_process():
        samples = resume_dir(masker) / "samples.png"
        report_section("Samples", figure("Samples of the first batch", samples.name, samples.read_bytes()))


def _warning(jaccard: float, constant: float) -> str:
    """Returns a warning if the score is hardly above that of predicting a single class; empty otherwise."""
    if not jaccard < constant + MIN_GAIN:
        return ""
    return (
        f"predicting a single class scores {constant:.4f}, so the masker has learned almost nothing; train "
        "longer, label more, or check the masks of the clips"
    )


def _draw_samples(task: "SegmentationTask", path: Path) -> None:
    """Draws samples of the first batch, after augmentation, with their masks."""
    from maskcast.progress import is_main_process, report_file
    from maskcast.report.overlays import samples_picture

    if not is_main_process():
        return
    batch = task.windows.batch(0)
    frames = batch.frames_BTHWC[:SAMPLES, 0].numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    maps = {
        label_map.name: (label_map.kind, masks[:SAMPLES, 0].numpy())
        for label_map, masks in zip(task.maps, batch.masks, strict=True)
    }
    samples_picture(frames, maps).save(path)
    report_file(path, "masker")


def _report_scores(task: "SegmentationTask", path: Path, lead: str, warning: str) -> None:
    """Shows the scores of each class in the validation clips below lead and warning; MLflow keeps them as text."""
    from maskcast.evaluation.forecasts import size_note
    from maskcast.evaluation.notes import sentence
    from maskcast.models.base import best_device
    from maskcast.progress import is_main_process, report_file, report_section
    from maskcast.report.class_scores import HEADER, class_scores
    from maskcast.report.tables import markdown

    if not is_main_process():
        return
    counts = zip(task.maps, task.validation.counts(task.segmenter.to(best_device())), strict=True)
    tables = {
        label_map.name: class_scores(label_map, counts_of_map)
        for label_map, counts_of_map in counts
        if label_map.kind == "classes"
    }
    note = size_note(task.store.height, task.store.width)
    if tables:
        texts = [f"## {name}\n\n{markdown(HEADER, rows)}" for name, rows in tables.items()]
        path.write_text("\n".join([f"{note}\n", *texts]), encoding="utf-8")
        report_file(path, "masker")
    shown = (
        table(f"Classes of {name}, worst first, those not in the truth last", HEADER, rows)
        for name, rows in tables.items()
    )
    first = [element("p", f"{lead}. {note}")]
    if warning:
        first.append(element("p", element("strong", sentence(warning))))
    report_section("Scores", concatenate([*first, *shown]))


def _report_pictures(task: "SegmentationTask", folder: Path) -> None:
    """Draws predicted masks of validation clips, into a folder that still exists when the run uploads it."""
    from maskcast.models.base import best_device
    from maskcast.progress import report_file, report_section
    from maskcast.report.clip_player import legend
    from maskcast.report.overlays import masker_strip, png_bytes, stack_vertically
    from maskcast.report.paint import class_entries, with_legend

    folder.mkdir(parents=True, exist_ok=True)
    task.segmenter.to(best_device())
    figures = []
    for index, (clip, indices, frames, maps) in enumerate(task.validation.examples(task.segmenter)):
        strips, keys = [], []
        for label_map, truth, predicted in maps:
            title = clip if len(maps) == 1 else f"{clip} · {label_map.name}"
            keys.append(
                class_entries([truth, predicted], label_map.classes) if label_map.kind == "classes" else []
            )
            strips.append(masker_strip(frames, truth, predicted, title, label_map.kind, indices))
        path = folder / f"val_{index}.png"
        stack_vertically([*map(with_legend, strips, keys)]).save(path)
        report_file(path, "masker")
        figures.append(figure(f"Masks of {clip}", path.name, png_bytes(stack_vertically(strips))))
        figures += [legend(key, f"Classes of {one[0].name}") for one, key in zip(maps, keys, strict=True)]
    if figures:
        report_section("Predictions", concatenate(figures))
