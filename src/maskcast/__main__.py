"""The command line: ``python -m maskcast <stage> --params params.yaml --<port> PATH ...``."""

import argparse
import ast
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from maskcast.errors import MaskcastError
from maskcast.memory import keep_freed_memory

COMMANDS = {  # by name: where it is, and what it does
    "evaluate-coco": (
        "maskcast.commands.evaluate_coco:evaluate_coco",
        "score detections (boxes or masks) against a COCO ground truth",
    ),
    "forecast": ("maskcast.commands.forecast:forecast", "forecast any video by a registered model"),
    "models": (
        "maskcast.commands.models:models",
        "list, compare, promote, roll back and export registered models",
    ),
    "serve": ("maskcast.serving.server:serve", "answer requests for forecasts over HTTP"),
    "write-annotations": (
        "maskcast.__main__:write_annotations",
        "write annotations.txt for a folder of clips in the competition layout",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one stage or command; returns the exit code (0 done, 2 a mistake that one line on stderr explains)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    try:
        code = _run_command(arguments)
        sys.stdout.flush()
        return code
    except MaskcastError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who read the output has had enough, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run_command(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        return _run_stage(name, rest)
    module, _, function = COMMANDS[name][0].partition(":")
    code: int = getattr(importlib.import_module(module), function)(rest)
    return code


def _overview() -> str:
    from maskcast import stages
    from maskcast.runner.stage import stage_names

    lines = ["usage: python -m maskcast <stage> [--help] --params params.yaml --<port> PATH ...", "", "stages:"]
    for name in stage_names():
        # The docstring is read without importing the stage: importing torch takes seconds.
        source = (Path(stages.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
        lines.append(f"  {name:22s}{summary.removeprefix(f'{name}: ')}")
    lines += ["", "commands:"] + [f"  {name:22s}{summary}" for name, (_, summary) in COMMANDS.items()]
    lines += ["", "`dvc repro` runs all stages in order with the paths in dvc.yaml and the values in params.yaml."]
    return "\n".join(lines)


def _run_stage(name: str, arguments: Sequence[str]) -> int:
    from maskcast.params import load_params_file, section
    from maskcast.runner.run import run_stage
    from maskcast.runner.stage import get_stage

    the_stage = get_stage(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m maskcast {name}",
        description=the_stage.summary,
        epilog=f"keys of section {name!r} in the params file:\n{_describe(the_stage.params)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--params", metavar="FILE", required=True, help=f"YAML file with a section {name!r}")
    for port in the_stage.ports:
        kind = "input path" if port.direction == "in" else "output path, replaced as a whole on success"
        required = not port.optional
        parser.add_argument(f"--{port.name}", metavar="PATH", required=required, help=kind)
    given = vars(parser.parse_args(arguments))
    params_file = Path(given.pop("params"))
    values = section(load_params_file(params_file), name, str(params_file))
    paths = {port: path for port, path in given.items() if path is not None}
    run_stage(name, values, where=f"{params_file}: {name}", **paths)
    return 0


def write_annotations(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code 0."""
    from maskcast.data import annotations

    parser = argparse.ArgumentParser(
        prog="python -m maskcast write-annotations",
        description="Writes FOLDER/annotations.txt: one line 'video_<id> 0 <last frame> 0' per video.",
    )
    parser.add_argument("start", type=int, help="first video id")
    parser.add_argument("end", type=int, help="one past the last video id")
    parser.add_argument("folder", type=Path, help="folder that holds the videos")
    parser.add_argument("frames", type=int, help="frames per video (22, or 11 for hidden ones)")
    given = parser.parse_args(arguments)
    print(annotations.write_annotations(given.start, given.end, given.folder, given.frames))
    return 0


def _describe(model: type[BaseModel], indent: str = "  ", tag: object = None) -> str:
    """Returns the keys of a params class, nested classes indented below theirs.

    Of classes that the key ``tag`` chooses among, e.g. `layout`, each begins with its value.
    """
    import shutil
    import textwrap

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
        lines += [_describe(nested, indent + "    ", field.discriminator) for nested in _nested(field.annotation)]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    """Returns a value as a params file has it."""
    if isinstance(value, BaseModel):
        return "as below"
    import yaml
    from pydantic_core import to_jsonable_python

    text: str = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Returns the values of a Literal, and nothing of any other annotation."""
    from typing import Literal, get_args, get_origin

    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _nested(annotation: Any) -> list[type[BaseModel]]:
    from typing import get_args

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _nested(arg)]


if __name__ == "__main__":
    sys.exit(main())
