"""The summary of a finished pipeline: scores, gain, report and next commands."""

import csv
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.evaluation.definitions import condition
from maskcast.reading import pluralize, read_json, validated
from maskcast.registry.store import CHAMPION, PIPELINE, Registry
from maskcast.report.tables import format_table
from maskcast.runner.mlflow_errors import convert_mlflow_errors
from maskcast.simulator.camera import CLASSES

COLUMNS = {
    "jaccard_last": "last",
    "jaccard_last_no_background": "without background",
    "jaccard_mean": "mean",
    "accuracy_last": "accuracy",
}
BASELINES = {  # baselines by name, with their names in the sentence
    "persistence": "copying the last mask",
    "constant_velocity": "constant velocity",
    "rigid_body": "`rigid_body`, which is given camera and physics",
}
LEVEL = 0.005  # smaller differences of Jaccard count as none


def summary(results: Path) -> str:
    """Returns the table of scores, a sentence on the gain, the path of the report, and the next commands.

    Args:
        results: folder with ``evaluate.json``, ``evaluate.html`` and, if models were registered,
            ``registration.json``.

    Raises:
        MaskcastError: it has no scores of forecasts.
    """
    if not (results / "evaluate.json").exists() and (results / "index.html").exists():
        raise MaskcastError(
            f"{results / 'evaluate.json'}: not found, as this pipeline does not forecast; open "
            f"{results / 'index.html'}, the index of its pages"
        )
    scores = _read(results / "evaluate.json")
    ends = [name.removeprefix("jaccard_h") for name in scores]
    frames = sorted(int(end) for end in ends if end.isdecimal())
    if "jaccard_last" not in scores and "accuracy_last" in scores:
        raise MaskcastError(
            f"{results / 'evaluate.json'}: has no Jaccard, because no true mask has foreground; evaluate clips "
            "whose last frames show objects"
        )
    if "jaccard_last" not in scores or not frames:
        raise MaskcastError(f"{results / 'evaluate.json'}: has no scores of forecasts; run `dvc repro` first")
    models = {"forecaster": "", **{name: f"_{name}" for name in BASELINES if f"jaccard_last_{name}" in scores}}
    columns = {key: title for key, title in COLUMNS.items() if key in scores}
    rows = [[name, *(f"{scores[key + suffix]:.3f}" for key in columns)] for name, suffix in models.items()]
    record = results / "report/evaluation.json"
    facts = _read(record) if record.is_file() else {}
    size = " at {}x{}".format(*facts["size"]) if "size" in facts else ""  # none in older records
    title = f"macro Jaccard of frame {frames[-1]} (last) and of frames {frames[0]} to {frames[-1]} (mean)"
    lines = [
        format_table(["", *columns.values()], rows, f"{pluralize(int(scores['clips']), 'clip')}{size}, {title}"),
        *_condition(facts, int(scores["clips"])),
        "",
    ]
    sentence = textwrap.wrap(gain(scores, frames[-1]), shutil.get_terminal_size().columns)
    lines += [
        *sentence,
        *_verdict(results),
        *_selection(facts),
        "",
        f"report: {(results / 'evaluate.html').absolute()}",
        "next:",
    ]
    return "\n".join([*lines, *(f"  {line}" for line in next_commands(results))])


def _verdict(results: Path) -> list[str]:
    """Returns lines with the gate's verdict and the score that it compares; none if nothing was registered."""
    registration = results / "registration.json"
    if not registration.is_file():
        return []
    content = _read(registration)
    name, score = content["model"], content["gate"]["score"]
    rivals = [each for each in content["thresholds"] if each.get("baseline") in BASELINES]
    compared = [
        f"{each['value']:.3f} {'>' if each['passed'] else '<='} {each['theirs']:.3f} of {each['baseline']}"
        for each in rivals
    ]
    column = f" (the column {COLUMNS[score]})" if score in COLUMNS else ""
    text = (
        f"The gate {'passed' if content['passed'] else 'failed'} {name} version {content['versions'][name]}. It "
        f"compares {score}{column}{': ' if compared else ''}{', '.join(compared)}."
    )
    return textwrap.wrap(text, shutil.get_terminal_size().columns)


def _condition(facts: Mapping[str, Any], clips: int) -> list[str]:
    """Returns a line on what was scored; none if that is unknown."""
    if not {"split", "context", "context_frames", "horizon"} <= facts.keys():
        return []
    seen = facts["context"], facts["context_frames"], facts["horizon"]
    return [f"scored on: {condition(facts['split'], clips, *seen)}"]


def _selection(facts: Mapping[str, Any]) -> list[str]:
    """Returns a line if the scored clips also selected the epochs of the trainings; none if that is unknown."""
    if facts.get("split") != "val":
        return []
    return ["These clips selected the epochs, too; expect slightly less on new clips."]


def gain(scores: Mapping[str, float], frame: int) -> str:
    """Returns a sentence that compares a forecaster with the baselines.

    Args:
        scores: contents of ``evaluate.json``.
        frame: number of the last frame with a score (frames without labels have none).
    """
    parts = []
    for name, called in BASELINES.items():
        if f"jaccard_last_{name}" in scores:
            ahead = scores["jaccard_last"] - scores[f"jaccard_last_{name}"]
            way = "level with" if abs(ahead) < LEVEL else f"{abs(ahead):.2f} {'above' if ahead > 0 else 'below'}"
            parts.append(f"{way} {called}")
    alone = scores.get("jaccard_last_no_background")
    without = "" if alone is None else f" ({alone:.2f} without background)"
    text = f"{', '.join(parts[:-1])} and {parts[-1]}" if parts[1:] else "".join(parts)
    return f"At frame {frame} the forecaster's Jaccard of {scores['jaccard_last']:.2f}{without} is {text}."


def next_commands(results: Path) -> list[str]:
    """Returns the three commands to run next, in the syntax of the user's shell.

    Args:
        results: folder with the output of ``register_models``, which may be missing.
    """
    registration = results / "registration.json"
    maskcast = program_name()
    if not registration.is_file():
        return [f"{maskcast} {words}" for words in ("forecast sample", "register_models --help", "models list")]
    content = _read(registration)
    name, number, champion = content["model"], content["versions"][content["model"]], content["champion"]
    models = f"{maskcast} models" + ("" if name == PIPELINE else f" --name {name}")
    video = "sample" if _has_sample_classes(results / "report/per_class.csv") else "VIDEO"
    film = f"{maskcast} forecast {video} --model models:/{name}/{number}"
    if _is_champion(name, number):
        return [film, f"{models} list", f"{maskcast} serve --model models:/{name}@{CHAMPION}"]
    if content["passed"]:
        return [film, f"{models} list", f"{models} promote {number}"]
    comparable = champion and not content.get("incomparable")
    why = f"{models} compare {champion} {number}" if comparable else f"{maskcast} register_models --help"
    return [film, f"{models} list", why]


def program_name() -> str:
    """Returns the command for this program: its name, or its path if it is not on PATH."""
    script = Path(sys.executable).with_name("maskcast")
    found = shutil.which("maskcast")
    if sys.prefix == sys.base_prefix or (found is not None and Path(found).absolute() == script.absolute()):
        return "maskcast"
    return shlex.quote(os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script))


def _has_sample_classes(per_class: Path) -> bool:
    """Whether an evaluated model has the classes of the sample; also true if its classes are unknown."""
    if not per_class.is_file():
        return True
    with per_class.open(encoding="utf-8", newline="") as file:
        classes = [row.get("class") for row in csv.DictReader(file)]
    return classes == list(CLASSES)


def _is_champion(name: str, number: int) -> bool:
    """Whether a version is already champion; false if the server is unreachable."""
    try:
        with convert_mlflow_errors():
            return number == Registry(name).aliases().get(CHAMPION)
    except MaskcastError:
        return False


def _read(path: Path) -> dict[str, Any]:
    return validated(
        dict[str, Any],
        read_json(path, "scores", "run `dvc repro` first"),
        path,
        "a table of scores",
        "run `dvc repro` again",
    )
