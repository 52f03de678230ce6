"""The command line of a stage, derived from its signature and params class."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcast.commands import COMMANDS
from maskcast.commands.help import describe_params, example
from maskcast.commands.parser import CommandParser, resolve_name
from maskcast.params import load_params_file, section
from maskcast.runner.run import run_stage
from maskcast.runner.stage import Stage, get_stage, stage_names


def run(word: str, arguments: Sequence[str]) -> int:
    """Runs the stage with the name ``word``; returns the exit code 0.

    Raises:
        MaskcastError: the name is unknown, or the stage failed.
    """
    stage = resolve_name(word, "stage or command", [*stage_names(), *COMMANDS])
    the_stage = get_stage(stage)
    parser = CommandParser(
        prog=f"maskcast {stage}",
        description=the_stage.summary,
        epilog=_epilog(the_stage) if {"-h", "--help"}.intersection(arguments) else None,
    )
    add_arguments(parser, stage)
    given = vars(parser.parse_args(arguments))
    params_file, name = Path(given.pop("params")), given.pop("name")
    values = section(load_params_file(params_file), name, str(params_file))
    paths = {port: path for port, path in given.items() if path is not None}
    run_stage(stage, values, name=name, where=f"{params_file}: {name}", **paths)
    return 0


def _epilog(stage: Stage) -> str:
    keys = f"keys of section {stage.name!r} in the params file:\n{describe_params(stage.params)}"
    return f"example:\n{example(stage)}\n\n{keys}"


def add_arguments(parser: argparse.ArgumentParser, stage: str) -> None:
    """Declares the flags of a stage."""
    parser.add_argument("--params", metavar="FILE", required=True, help=f"YAML file with a section {stage!r}")
    parser.add_argument(
        "--name",
        default=stage,
        help="name of its section in the params file, of its run and of its page (default: %(default)s)",
    )
    the_stage = get_stage(stage)
    titles = {"in": "inputs", "out": "outputs, replaced as a whole on success"}
    groups = {direction: parser.add_argument_group(title) for direction, title in titles.items()}
    for port in the_stage.ports:
        meaning = the_stage.port_description(port.name).replace("``", "`").replace("%", "%%")
        groups[port.direction].add_argument(
            f"--{port.name}", metavar="PATH", required=not port.optional, help=meaning
        )
