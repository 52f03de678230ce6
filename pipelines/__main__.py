"""The command line of the pipelines on Kubeflow: ``python -m pipelines <command>``."""

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence

from maskcast.errors import MaskcastError

COMMANDS = {
    "compile": "compile",
    "run-local": "local",
    "setup": "client.setup",
    "preflight": "client.preflight",
    "submit": "client.submit",
    "status": "client.status",
    "logs": "client.logs",
    "cancel": "client.cancel",
    "schedule": "client.schedule",
}

OVERVIEW = """The pipeline of `dvc repro`, run by Kubeflow Pipelines: on this machine or on a cluster.

Values come from params.yaml and from -S section.key=value; what a cluster has stands in a copy of
pipelines/cluster.yaml. Credentials come from the environment or from secrets in the cluster."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (2: a mistake that one line on stderr explains)."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
    parser = argparse.ArgumentParser(
        prog="python -m pipelines", description=OVERVIEW, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(f"pipelines.{module_name}")
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    given = parser.parse_args(argv)
    try:
        code: int = given.run(given)
        return code
    except MaskcastError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
