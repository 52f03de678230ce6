"""What ``--help`` says: of all stages and commands, and of the params of one stage. Nothing here imports torch."""

import ast
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from maskcast import stages
from maskcast.runner.stage import stage_names


def overview(commands: Mapping[str, str]) -> str:
    """Returns the help of the command line as a whole.

    Args:
        commands: what each command beside the stages does, by name.
    """
    lines = ["usage: maskcast <stage> [--help] --params params.yaml --<port> PATH ...", "", "stages:"]
    for name in stage_names():
        # Docstrings are read, not imported: the params of all stages would take a second.
        source = (Path(stages.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
        lines.append(f"  {name:22s}{summary.removeprefix(f'{name}: ')}")
    lines += ["", "commands:"] + [f"  {name:22s}{summary}" for name, summary in commands.items()]
    lines += ["", "`dvc repro` runs all stages in order with the paths in dvc.yaml and the values in params.yaml."]
    return "\n".join(lines)


def describe(model: type[BaseModel], indent: str = "  ", tag: object = None) -> str:
    """Returns the keys of a params class, nested classes indented below theirs.

    Of classes that the key ``tag`` chooses among, e.g. `layout`, each begins with its value.
    """
    width, lines, fields = shutil.get_terminal_size(fallback=(110, 24)).columns, [], dict(model.model_fields)
    if isinstance(tag, str):
        lines.append(f"{indent}{tag}: {' or '.join(_choices(fields.pop(tag).annotation))}")
        indent += "    "
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        notes = ["required" if field.is_required() else f"default {_plain(default)}"]
        if choices := _choices(field.annotation):
            notes.insert(0, f"one of {', '.join(map(_plain, choices))}")
        words = [f"{name}:", *(field.description or "").split(), f"({'; '.join(notes)})"]
        lines += textwrap.wrap(
            " ".join(words), width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
        lines += [describe(nested, indent + "    ", field.discriminator) for nested in _nested(field.annotation)]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    """Returns a value as a params file has it."""
    if isinstance(value, BaseModel):
        return "as below"
    text: str = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Returns the values of a Literal, and nothing of any other annotation."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _nested(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _nested(arg)]
