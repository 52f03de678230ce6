"""What ``--help`` says: of all stages and commands, and of the params of one stage. Nothing here imports torch."""

import ast
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from maskcast import stages
from maskcast.commands import COMMANDS, GROUPS
from maskcast.installation import version_and_commit
from maskcast.runner.stage import Stage, stage_names
from maskcast.validation_errors import discriminator_of, models_in_annotation

STAGES = {  # in which order the overview names stages, after the commands
    "stages of a forecaster": (
        "fetch_dataset",
        "prepare_clips",
        "pretrain_encoder",
        "train_masker",
        "generate_masks",
        "pretrain_forecaster",
        "finetune_forecaster",
        "evaluate",
        "predict",
        "register_models",
    ),
    "before training": ("find_learning_rate",),
    "stages of a video masker": ("evaluate_video", "register_segmenter"),
    "stages of a detector": ("prepare_detection", "train_detector", "evaluate_detector", "register_detector"),
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # as pydantic calls them
USAGE = """\
usage: maskcast COMMAND [--help] ...
       maskcast STAGE [--help] --params FILE --<port> PATH ..."""
CLOSING = (
    "`dvc repro` runs all stages in order, with the paths in dvc.yaml and the values in params.yaml. "
    "`maskcast --version` prints version and commit."
)
OMITTED_INPUTS = {  # inputs that the pipelines do without
    "train_masker": ("start", "masks", "unlabeled"),
    "find_learning_rate": ("dataset", "masks", "masker", "pretrained"),
}
VIDEO_STAGES = ("evaluate_video", "register_segmenter")  # stages of the pipeline that has two maskers
PORT_PATHS = {  # of ports in our pipelines, as each dvc.yaml has them; what is not named here is a model
    "raw": "data/{port}",
    "clips": "data/{port}",
    "unlabeled": "data/clips",
    "masks": "data/{port}",
    "base_masks": "data/{port}",
    "dataset": "data/{port}",
    "curves": "results/rates",
    "report": "results/{port}",
    "predictions": "results/{port}",
    "metrics": "results/{stage}.json",
    "registration": "results/{port}.json",
}


def overview() -> str:
    """Returns the help of the command line as a whole."""
    width = get_width()
    lines = [USAGE]
    summaries = COMMANDS | _stage_summaries()
    groups = {**GROUPS, **STAGES}
    grouped = [name for names in groups.values() for name in names]
    groups["more"] = [name for name in summaries if name not in grouped]
    for title, names in groups.items():
        lines += ["", f"{title}:"] if names else []
        for name in names:
            indent = f"  {name:21s}"
            lines += textwrap.wrap(summaries[name], width, initial_indent=indent, subsequent_indent=" " * 23)
    lines += ["", *textwrap.wrap(CLOSING, width)]
    return "\n".join(lines)


def version() -> str:
    """Returns the version, and the commit where it is known: in a clone, a wheel or an image."""
    return f"maskcast {version_and_commit()}"


def example(stage: Stage) -> str:
    """Returns a command that runs a stage on what `dvc repro` leaves, with paths as in dvc.yaml."""
    words = [f"maskcast {stage.name} --params params.yaml"]
    ports = (port.name for port in stage.ports if port.name not in OMITTED_INPUTS.get(stage.name, ()))
    words += [f"--{port} {_place(stage, port)}" for port in ports]
    lines = [f"  {words[0]}"]
    for word in words[1:]:
        if len(f"{lines[-1]} {word} \\") > get_width():
            lines[-1] += " \\"
            lines.append(f"     {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _place(stage: Stage, port: str) -> str:
    """Returns the path of a port in our pipelines."""
    if port == "page":
        measured = "metrics" if stage.tracked else "registration"
        return _place(stage, measured).replace(".json", ".html")
    if stage.name in VIDEO_STAGES and port == "masker":
        return "models/segmenter"  # the one that remembers
    return PORT_PATHS.get(port, "models/{port}").format(port=port, stage=stage.name)


def _stage_summaries() -> dict[str, str]:
    """Returns what each stage does."""
    found = {}
    for name in stage_names():
        # Docstrings are read, not imported: the params of all stages would take a second.
        source = (Path(stages.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
        summary = summary.removeprefix(f"{name}: ").rstrip(".")
        found[name] = summary[:1].lower() + summary[1:]  # as those of commands
    return found


def get_width() -> int:
    """Returns how many columns help has: those of the terminal, or 80."""
    return shutil.get_terminal_size().columns


def describe_params(model: type[BaseModel], indent: str = "  ", tag: str | None = None) -> str:
    """Returns the keys of a params class, nested classes indented below theirs.

    Of classes that the key ``tag`` chooses among, e.g. `layout`, each begins with its value.
    """
    width, lines, fields = get_width(), [], dict(model.model_fields)
    if tag is not None:
        values = f"{tag}: {' or '.join(_choices(fields.pop(tag).annotation))}"
        lines += textwrap.wrap(values, width, initial_indent=indent, subsequent_indent=indent + "  ")
        indent += "    "
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        notes = ["required" if field.is_required() else f"default {_plain(default)}"]
        if limits := [f"{said} {limit}" for said, limit in _limits(field)]:
            notes.insert(0, ", ".join(limits))
        if choices := _choices(field.annotation):
            notes.insert(0, f"one of {', '.join(map(_plain, choices))}")
        words = [f"{name}:", *(field.description or "").split(), f"({'; '.join(notes)})"]
        lines += textwrap.wrap(
            " ".join(words), width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
        lines += [
            describe_params(nested, indent + "    ", discriminator_of(field))
            for nested in models_in_annotation(field.annotation)
        ]
    return "\n".join(lines)


def _limits(field: FieldInfo) -> Iterator[tuple[str, float]]:
    """Yields the bounds of a number, each after what it is."""
    for bound in field.metadata:
        for name, said in BOUNDS.items():
            if hasattr(bound, name):
                yield said, getattr(bound, name)


def _plain(value: Any) -> str:
    """Returns a value as a params file has it."""
    if isinstance(value, BaseModel):
        return "as below"
    text: str = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Returns the values of a Literal, and nothing of any other annotation."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()
