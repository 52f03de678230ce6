"""How every training stage ends: with a model folder, its learning curve, the metrics and a line."""

from collections.abc import Callable, Mapping
from pathlib import Path

from maskcast.curves import write_curve
from maskcast.progress import say
from maskcast.rehearsal import rehearsing
from maskcast.training.loop import Task, fit
from maskcast.training.rehearsing import rehearse
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
    before: Path | None = None,
) -> Scores:
    """Trains a task, writes all that comes of it, and returns its scores.

    Args:
        name: that the stage goes by, and the learning curve after it.
        task: what to train, and on what.
        schedule: how long, and how fast.
        resume: folder for the checkpoint (``runner.outputs.resume_dir``).
        out: folder for the model.
        save: writes the trained model there.
        metrics: JSON, flat numbers.
        results: gives them, in order, from ``Trained.scores``.
        summary: gives the line that ends the training; none by default.
        before: the model that the training starts from; its weights are kept where no epoch is better, and its
            learning curves come before this one.

    Raises:
        MaskcastError: see ``fit``.
    """
    train = rehearse if rehearsing() else fit
    scores, curve = train(task, schedule, resume, start_counts=before is not None)
    save(out)
    write_curve(out, name, curve, before)
    write_json(metrics, dict(results(scores)))
    if summary:
        say(summary(scores))
    return scores
