"""The commands of ``maskcast pipeline``, which calls this module."""

import argparse
import importlib
import warnings
from collections.abc import Collection, Sequence

from maskcast.commands.parser import add_commands, command_parser, resolve_name

COMMANDS = {  # by name: module, imported only for this command, and help text
    "compile": ("compile", "write the file that Kubeflow runs"),
    "run-local": ("local", "run a pipeline on this machine"),
    "setup": ("client.setup", "write or apply the service account, role, secrets and volume claim"),
    "preflight": ("client.preflight", "check that everything a run needs is in place"),
    "submit": ("client.submit", "start a run on the cluster"),
    "status": ("client.status", "show the stages of a run, or the last runs"),
    "watch": ("client.watch", "follow a run until it ends"),
    "logs": ("client.logs", "print the log of a stage"),
    "retry": ("client.retry", "restart a failed run from the stage that failed"),
    "cancel": ("client.cancel", "stop a run"),
    "schedule": ("client.schedule", "run a pipeline on a schedule"),
}

OVERVIEW = """Runs the pipeline of `dvc repro` with Kubeflow Pipelines, on this machine or on a cluster.

Params come from params.yaml and from -S section.key=value. Settings of the cluster come from cluster.yaml, which
`maskcast new` writes, or from a copy of pipelines/cluster.yaml. Credentials come from the environment or from
secrets in the cluster."""

EPILOG = """examples:
  maskcast pipeline run-local
  maskcast pipeline preflight --cluster my-cluster.yaml
  maskcast pipeline submit --cluster my-cluster.yaml --wait"""


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code.

    Raises:
        MaskcastError: a user error, described in one line.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("-"):
        arguments[0] = resolve_name(arguments[0], "command of pipeline", [*COMMANDS])
    parser = command_parser("pipeline", OVERVIEW, EPILOG)
    add_arguments(parser, arguments[:1])
    args = parser.parse_args(arguments)
    code: int = args.run(args)
    return code


def add_arguments(parser: argparse.ArgumentParser, whole: Collection[str] = tuple(COMMANDS)) -> None:
    """Declares the commands, and the flags of those in ``whole``, whose modules are imported."""
    commands = add_commands(parser)
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name in whole:
            module = importlib.import_module(f"pipelines.{module_name}")
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(run=module.run)
