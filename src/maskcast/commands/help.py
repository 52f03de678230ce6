"""The text of ``--help``: the overview of stages and commands, and the params of a stage. Never imports torch."""

import ast
import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import pairwise
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

STAGES = {  # stages by title, in the order of the overview
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
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # by pydantic's name
USAGE = """\
usage: maskcast COMMAND [--help] ...
       maskcast STAGE [--help] --params FILE --<port> PATH ..."""
CLOSING = (
    "`dvc repro` runs all stages in order, with the paths in dvc.yaml and the values in params.yaml. "
    "`maskcast --version` prints version and commit."
)
OMITTED_INPUTS = {  # optional inputs that the pipelines do not use
    "train_masker": ("start", "masks", "unlabeled"),
    "find_learning_rate": ("dataset", "masks", "masker", "pretrained"),
}
VIDEO_STAGES = ("evaluate_video", "register_segmenter")  # stages of the video pipeline, which has two maskers
PORT_PATHS = {  # paths of ports, as in each dvc.yaml of maskcast; other ports are models
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
    """Returns the version, and the commit if known (in a clone, a wheel or an image)."""
    return f"maskcast {version_and_commit()}"


def example(stage: Stage) -> str:
    """Returns a command that runs a stage on the outputs of `dvc repro`, with the paths in dvc.yaml."""
    words = [f"maskcast {stage.name} --params params.yaml"]
    ports = (port.name for port in stage.ports if port.name not in OMITTED_INPUTS.get(stage.name, ()))
    words += [f"--{port} {_port_path(stage, port)}" for port in ports]
    lines = [f"  {words[0]}"]
    for word in words[1:]:
        if len(f"{lines[-1]} {word} \\") > get_width():
            lines[-1] += " \\"
            lines.append(f"     {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _port_path(stage: Stage, port: str) -> str:
    """Returns the path of a port in maskcast's pipelines."""
    if port == "page":
        json_port = "metrics" if stage.tracked else "registration"
        return _port_path(stage, json_port).replace(".json", ".html")
    if stage.name in VIDEO_STAGES and port == "masker":
        return "models/segmenter"  # the recurrent masker
    return PORT_PATHS.get(port, "models/{port}").format(port=port, stage=stage.name)


def _stage_summaries() -> dict[str, str]:
    """Returns a one-line summary of each stage by name."""
    summaries = {}
    for name in stage_names():
        # Docstrings are read, not imported: the params of all stages would take a second.
        source = (Path(stages.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
        summary = summary.removeprefix(f"{name}: ").rstrip(".")
        summaries[name] = summary[:1].lower() + summary[1:]  # as those of commands
    return summaries


def get_width() -> int:
    """Returns the width of help in columns: that of the terminal, or 80."""
    return shutil.get_terminal_size().columns


def describe_params(model: type[BaseModel], indent: str = "  ", tag: str | None = None) -> str:
    """Returns the keys of a params class, one per line; those of nested classes are indented.

    Args:
        model: the params class.
        indent: indentation of the keys.
        tag: key that chooses among several classes, e.g. ``layout``; its value is then the first line.
    """
    width, lines, fields = get_width(), [], dict(model.model_fields)
    if tag is not None:
        values = f"{tag}: {' or '.join(_choices(fields.pop(tag).annotation))}"
        lines += textwrap.wrap(values, width, initial_indent=indent, subsequent_indent=indent + "  ")
        indent += "    "
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        notes = ["required" if field.is_required() else f"default {_plain(default)}"]
        if limits := [f"{bound} {limit}" for bound, limit in _limits(field)]:
            notes.insert(0, ", ".join(limits))
        if choices := _choices(field.annotation):
            notes.insert(0, f"one of {', '.join(map(_plain, choices))}")
        words = [f"{name}:", *_description(model, name).split(), f"({'; '.join(notes)})"]
        lines += textwrap.wrap(
            " ".join(words), width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
        lines += [
            describe_params(nested, indent + "    ", discriminator_of(field))
            for nested in models_in_annotation(field.annotation)
        ]
    return "\n".join(lines)


def _description(model: type[BaseModel], name: str) -> str:
    """Returns the description of a key: its own, or that of the nearest base class which describes it."""
    for base in (base for base in model.__mro__ if issubclass(base, BaseModel) and name in base.model_fields):
        below = _attribute_docstrings(base.__module__).get((base.__qualname__, name))
        if text := base.model_fields[name].description or below:
            return text
    return ""


@cache
def _attribute_docstrings(module: str) -> dict[tuple[str, str], str]:
    """Returns the texts below the attributes of a module's classes, by qualified name of the class and attribute.

    pydantic would read them at each import, too, where nobody needs them, in a quarter of a second per stage.
    """
    found = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = f"{prefix}{getattr(child, 'name', '')}"
            if isinstance(child, ast.ClassDef):
                for attribute, below in pairwise(child.body):
                    match attribute, below:
                        case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                            found[name, key] = inspect.cleandoc(text)
                visit(child, f"{name}.")
            else:
                visit(child, f"{name}.<locals>." if isinstance(child, ast.FunctionDef) else prefix)

    with suppress(OSError, TypeError):  # a package may come without its source
        visit(ast.parse(inspect.getsource(sys.modules[module])), "")
    return found


def _limits(field: FieldInfo) -> Iterator[tuple[str, float]]:
    """Yields the bounds of a number, each with its description, e.g. `at least`."""
    for constraint in field.metadata:
        for name, description in BOUNDS.items():
            if hasattr(constraint, name):
                yield description, getattr(constraint, name)


def _plain(value: Any) -> str:
    """Returns a value as it is written in a params file."""
    if isinstance(value, BaseModel):
        return "as below"
    text: str = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Returns the values of a Literal; empty for any other annotation."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()
