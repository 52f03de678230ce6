"""The commands of ``maskcast pipeline``, which calls this module."""

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence

COMMANDS = {  # by name: its module, imported for this command alone, and what it does
    "compile": ("compile", "write the file that Kubeflow runs"),
    "run-local": ("local", "run a pipeline on this machine"),
    "setup": ("client.setup", "write or apply the service account, role, secrets and volume claim"),
    "preflight": ("client.preflight", "check that all is there that a run needs"),
    "submit": ("client.submit", "start a run on the cluster"),
    "status": ("client.status", "show the stages of a run, or the last runs"),
    "logs": ("client.logs", "print what a stage printed"),
    "cancel": ("client.cancel", "stop a run"),
    "schedule": ("client.schedule", "run a pipeline again and again"),
}

OVERVIEW = """The pipeline of `dvc repro`, run by Kubeflow Pipelines: on this machine or on a cluster.

Values come from params.yaml and from -S section.key=value; what a cluster has stands in a copy of
pipelines/cluster.yaml. Credentials come from the environment or from secrets in the cluster."""


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code.

    Raises:
        MaskcastError: a mistake that one line explains.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
    parser = argparse.ArgumentParser(
        prog="maskcast pipeline", description=OVERVIEW, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, (place, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name in arguments[:1]:
            module = importlib.import_module(f"pipelines.{place}")
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    given = parser.parse_args(arguments)
    try:
        code: int = given.run(given)
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
