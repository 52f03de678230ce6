"""The argument parser of all commands: the layout of help, and suggestions for mistyped words."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from maskcast.errors import MaskcastError
from maskcast.redaction import printable
from maskcast.spelling import closest_match, suggestion


class _Help(argparse.HelpFormatter):
    """Wraps paragraphs of text, but not those with indented lines."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"max_help_position": 22} | options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            part if "\n " in part else textwrap.fill(part, width, break_on_hyphens=False) for part in paragraphs
        )


class CommandParser(argparse.ArgumentParser):
    """A parser whose help fits the terminal, and whose errors suggest the closest word for a typo."""

    def __init__(self, **options: Any) -> None:
        defaults: dict[str, Any] = {"formatter_class": _Help, "allow_abbrev": False}
        self._words: list[str] = []
        super().__init__(**defaults | options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses a command line, and keeps its words, among which ``error`` looks for typos."""
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Reports a user error, without the secrets that its words may contain, and exits."""
        flags = set(_flags(self))
        for word in (word.partition("=")[0] for word in self._words):
            if word.startswith("--") and word not in flags and (near := closest_match(word, flags)):
                message += f"; did you mean {near!r} by {word!r}?"
        super().error(printable(message))

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.nargs != argparse.PARSER and "" in arg_strings:  # as a path, it would be the working directory
            raise argparse.ArgumentError(action, "got an empty value; give one (is a shell variable unset?)")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {suggestion(str(value), names)}")


def command_parser(name: str, description: str, epilog: str) -> CommandParser:
    """Returns the parser of ``maskcast NAME``, whose help ends with ``epilog``."""
    return CommandParser(prog=f"maskcast {name}", description=description, epilog=epilog)


def add_commands(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    """Adds subcommands to a command; the name of the given one is stored as ``command``."""
    return parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, action=_Commands
    )


def add_number(parser: argparse.ArgumentParser, flag: str, default: int, least: int, meaning: str) -> None:
    """Declares a flag for an integer of at least ``least``; parsing a smaller one raises a MaskcastError."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise MaskcastError(f"{flag}: got {value}; give {least} or more")
        return value

    number.__name__ = "int"  # the type in argparse's message about other text
    parser.add_argument(flag, metavar="N", type=number, default=default, help=f"{meaning} (default: %(default)s)")


def add_pipeline(parser: argparse.ArgumentParser) -> None:
    """Declares the positional argument ``pipeline``, the folder of a dvc.yaml."""
    parser.add_argument(
        "pipeline",
        metavar="PIPELINE",
        nargs="?",
        type=Path,
        default=Path(),
        help="folder with a dvc.yaml (default: the working directory)",
    )


class _Commands(argparse._SubParsersAction):
    """Subcommands, whose help begins with their line in the list of subcommands."""

    def add_parser(self, name: str, **options: Any) -> Any:
        line = options["help"]
        return super().add_parser(name, **{"description": f"{line[:1].upper()}{line[1:]}."} | options)


def resolve_name(word: str, what: str, names: Sequence[str]) -> str:
    """Returns the name that a word refers to; ``-`` and ``_`` are equivalent.

    Raises:
        MaskcastError: the name is unknown; the message has the remedy (see ``suggestion``).
    """
    by_spelling = {name.replace("-", "_"): name for name in names}
    if (name := by_spelling.get(word.replace("-", "_"))) is None:
        raise MaskcastError(f"unknown {what} {word!r}; {suggestion(word, names)}")
    return name


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields the flags of a command and of its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _flags(inner)
