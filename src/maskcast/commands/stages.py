"""The command line of a stage, made from its signature and its params."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcast.commands.help import describe
from maskcast.params import load_params_file, section
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage


def run(stage: str, arguments: Sequence[str]) -> int:
    """Runs a stage; returns the exit code 0."""
    the_stage = get_stage(stage)
    parser = argparse.ArgumentParser(
        prog=f"maskcast {stage}",
        description=the_stage.summary,
        epilog=f"keys of section {stage!r} in the params file:\n{describe(the_stage.params)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--params", metavar="FILE", required=True, help=f"YAML file with a section {stage!r}")
    parser.add_argument(
        "--name",
        default=stage,
        help="what it goes by: its section of params, its run and page (default: %(default)s)",
    )
    for port in the_stage.ports:
        kind = "input path" if port.direction == "in" else "output path, replaced as a whole on success"
        required = not port.optional
        parser.add_argument(f"--{port.name}", metavar="PATH", required=required, help=kind)
    given = vars(parser.parse_args(arguments))
    params_file, name = Path(given.pop("params")), given.pop("name")
    values = section(load_params_file(params_file), name, str(params_file))
    paths = {port: path for port, path in given.items() if path is not None}
    run_stage(stage, values, name=name, where=f"{params_file}: {name}", **paths)
    return 0
