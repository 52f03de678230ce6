"""The command `completion`: a script for tab completion of stages, commands, their flags and paths."""

import argparse
from collections.abc import Iterator

import shtab

from maskcast.commands import COMMANDS, command_module, stages
from maskcast.commands.parser import CommandParser
from maskcast.runner.stage import get_stage, stage_names

DESCRIPTION = "Prints a script for tab completion of `maskcast` commands."
EPILOG = """\
Save it where your shell looks for completion scripts, then open a new shell. It includes the commands of
`maskcast pipeline` if `maskcast[cluster]` is installed. Pressing the tab key does not start maskcast.

examples:
  maskcast completion bash > ~/.local/share/bash-completion/completions/maskcast
  maskcast completion zsh > "${fpath[1]}/_maskcast"
  maskcast completion tcsh > ~/.maskcast.tcsh   # and `source` it in ~/.tcshrc
"""
FOLDERS = ("FOLDER", "STORE")
FILES = ("FILE", "PATH", "PATH|URL", "VIDEO", "GT.json", "DT.json")


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0."""
    print(shtab.complete(tree(), shell=args.shell))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="shell to write the script for")


def tree() -> CommandParser:
    """Returns one parser of all stages and commands, which only completion needs."""
    root = CommandParser(prog="maskcast")
    root.add_argument("--version", action="store_true", help="print version and commit")
    subparsers = root.add_subparsers()
    for name, summary in COMMANDS.items():
        command_module(name).add_arguments(subparsers.add_parser(name, help=summary))
    for name in stage_names():
        stages.add_arguments(subparsers.add_parser(name, help=get_stage(name).summary), name)
    for parser in all_parsers(root):
        for action in parser._actions:
            if action.metavar in (*FILES, *FOLDERS):
                # shtab reads the kind of a path from this attribute, which argparse does not have.
                setattr(action, "complete", shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE)  # noqa: B010
    return root


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yields a parser and, recursively, those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from all_parsers(subparser)
