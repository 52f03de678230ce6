"""What all commands share: how their help looks, and words that are mistyped or spelled in another way."""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from maskcast.errors import MaskcastError
from maskcast.redaction import printable


class _Help(argparse.HelpFormatter):
    """Wraps paragraphs of text, and leaves those alone that are laid out by indented lines."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"max_help_position": 22} | options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            part if "\n " in part else textwrap.fill(part, width, break_on_hyphens=False) for part in paragraphs
        )


class CommandParser(argparse.ArgumentParser):
    """A parser whose help fits the terminal, and which asks whether a mistyped word means another."""

    def __init__(self, **options: Any) -> None:
        own: dict[str, Any] = {"formatter_class": _Help, "allow_abbrev": False}
        self._words: list[str] = []
        super().__init__(**own | options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reads the words of a command line, and keeps them: a mistake may lie in one that is not at fault."""
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Says a mistake as every other line is said: without secrets that stand in what was given."""
        flags = set(_flags(self))
        for word in (word.partition("=")[0] for word in self._words):
            if word.startswith("--") and word not in flags and (near := _closest(word, flags)):
                message += f"; did you mean {near!r} by {word!r}?"
        super().error(printable(message))

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.nargs != argparse.PARSER and "" in arg_strings:  # which as a path would be the working directory
            raise argparse.ArgumentError(
                action, "got an empty text; give a value (is a variable of the shell unset?)"
            )
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {suggestion(str(value), names)}")


def command_parser(name: str, description: str, epilog: str) -> CommandParser:
    """Returns a parser of ``maskcast NAME``, whose help ends in ``epilog``."""
    return CommandParser(prog=f"maskcast {name}", description=description, epilog=epilog)


def add_commands(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    """Adds subcommands to a command; the one that was given is ``command``."""
    return parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, action=_Commands
    )


def add_number(parser: argparse.ArgumentParser, flag: str, default: int, least: int, meaning: str) -> None:
    """Declares a flag with a whole number, whose default its help tells.

    Raises:
        MaskcastError: when it is read and too small.
    """

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise MaskcastError(f"{flag}: got {value}; give {least} or more")
        return value

    number.__name__ = "int"  # what argparse says of other texts
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
    """Commands of a command, whose own help begins with the line that the list of them has."""

    def add_parser(self, name: str, **options: Any) -> Any:
        line = options["help"]
        return super().add_parser(name, **{"description": f"{line[:1].upper()}{line[1:]}."} | options)


def resolve_name(word: str, what: str, names: Sequence[str]) -> str:
    """Returns the name that a word means, which may be spelled with ``-`` or ``_``.

    Raises:
        MaskcastError: there is none; the line names the nearest, or all.
    """
    known = {name.replace("-", "_"): name for name in names}
    if (found := known.get(word.replace("-", "_"))) is None:
        raise MaskcastError(f"no {what} {word!r}; {suggestion(word, names)}")
    return found


def suggestion(word: str, names: Iterable[str]) -> str:
    """Returns what to say of a word that is none of the names: which of them is near, or which there are."""
    known = list(names)
    near = _closest(word, known)
    return f"did you mean {near!r}?" if near else f"there are: {', '.join(known)}"


def _closest(word: str, names: Iterable[str]) -> str | None:
    from maskcast.validation_errors import closest_match  # for mistakes alone

    spelled = {name.replace("-", "_"): name for name in names}
    found = closest_match(word.replace("-", "_"), sorted(spelled))
    return spelled[found] if found else None


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields the flags of a command, and of those within it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _flags(inner)
