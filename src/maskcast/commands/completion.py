"""The command `completion`: a script by which a shell completes stages, commands, their flags and paths."""

import argparse
from collections.abc import Iterator

import shtab

from maskcast.commands import COMMANDS, command_module, stages
from maskcast.commands.parser import CommandParser
from maskcast.runner.stage import get_stage, stage_names

DESCRIPTION = "Prints a script for tab completion of `maskcast` commands."
EPILOG = """\
Write it once to where your shell looks for such scripts; it works from the next shell on. It includes the commands
of `maskcast pipeline` if `maskcast[cluster]` is installed. Pressing the tab key does not start maskcast.

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
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that is to complete")


def tree() -> CommandParser:
    """Returns one parser of all stages and commands; only completion needs it whole."""
    root = CommandParser(prog="maskcast")
    root.add_argument("--version", action="store_true", help="tell version and commit")
    branches = root.add_subparsers()
    for name, summary in COMMANDS.items():
        command_module(name).add_arguments(branches.add_parser(name, help=summary))
    for name in stage_names():
        stages.add_arguments(branches.add_parser(name, help=get_stage(name).summary), name)
    for parser in all_parsers(root):
        for action in parser._actions:
            if action.metavar in (*FILES, *FOLDERS):
                # shtab's way to say what a path is: an attribute that argparse does not know.
                setattr(action, "complete", shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE)  # noqa: B010
    return root


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yields a parser and those of its commands, of theirs, and so on."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from all_parsers(below)
