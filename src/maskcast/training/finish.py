"""The common end of all training stages: model folder, learning curve, metrics and a line of summary."""

from collections.abc import Callable, Mapping
from pathlib import Path

from maskcast.curves import read_curves, write_curves
from maskcast.data.trained_frames import count_trained, write_trained_frames
from maskcast.dry_run_notes import is_dry_run
from maskcast.progress import is_main_process, say
from maskcast.reading import pluralize
from maskcast.training.dry_run_training import dry_run_training
from maskcast.training.loop import Task, fit
from maskcast.training.schedule import Schedule
from maskcast.writing import write_json

Scores = Mapping[str, float]


def finish_training(
    name: str,
    task: Task,
    schedule: Schedule,
    resume: Path,
    *,
    out: Path,
    save: Callable[[Path], None],
    metrics: Path,
    results: Callable[[Scores], Mapping[str, float]],
    summary: Callable[[Scores], str] | None = None,
    start: Path | None = None,
) -> Scores:
    """Trains a task, writes the model, learning curve and metrics, and returns the scores.

    Args:
        name: of the stage; the learning curve is named after it.
        task: what to train, and on what.
        schedule: length and learning rates of the training.
        resume: folder for the checkpoint (``runner.outputs.resume_dir``).
        out: folder for the model.
        save: writes the trained model to a folder.
        metrics: JSON file of flat numbers.
        results: makes the metrics, in their order, from ``Trained.scores``.
        summary: makes the line that is printed at the end; none by default.
        start: folder of the model that the training starts from. Its weights are kept if no epoch is better, and
            its learning curves precede this one.

    Raises:
        MaskcastError: see ``fit``; or the learning curves or the list of frames of ``start`` are damaged.
    """
    before = read_curves(start) if start else {}  # before the training, as it may be damaged
    if start and is_main_process():
        _warn_of_trained(start, task)
    train = dry_run_training if is_dry_run() else fit
    scores, curve = train(task, schedule, resume, validate_start=start is not None)
    save(out)
    write_curves(out, {**before, name: curve})
    if is_main_process():  # the outputs of the others are discarded, and it reads an eighth of the frames
        learned = start is None or scores["best_epoch"] > 0  # else the weights are those of ``start``
        write_trained_frames(out, task.frame_hashes("train") if learned else [], start)
    write_json(metrics, dict(results(scores)))
    if summary:
        say(summary(scores))
    return scores


def _warn_of_trained(start: Path, task: Task) -> None:
    """Warns if the model to start from was trained on clips of the validation."""
    trained, validated = count_trained(start, lambda: task.frame_hashes("val"))
    if trained:
        clips = pluralize(validated, "validation clip")
        say(
            f"warning: {start}: was trained on {trained} of {clips}, so validation scores are too high, also to "
            "choose the best epoch; put others into val (source.splits), or start from other weights"
        )
