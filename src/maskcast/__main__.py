"""The command line: ``maskcast <stage> --params params.yaml --<port> PATH ...``."""

import os
import signal
import sys
from collections.abc import Sequence

from maskcast.commands import COMMANDS, command_module
from maskcast.errors import MaskcastError, convert_system_errors, one_line
from maskcast.memory import keep_freed_memory, skip_last_collection
from maskcast.resources import limit_threads
from maskcast.stopping import raise_on_signals, report_stop
from maskcast.streams import discard, protect_streams


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one stage or command; returns the exit code.

    The code is 0 on success, 2 after a user error, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP,
    and 75 if a training was asked to stop and left a checkpoint. In all cases but the first, one line on stderr
    explains it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    limit_threads()
    try:
        with raise_on_signals(), convert_system_errors():
            _check_process()
            try:
                code = _run_command(arguments)
            except SystemExit:  # argparse's, as after --help
                _flush_output()
                raise
        _flush_output()
        return code
    except KeyboardInterrupt as stop:
        return report_stop(stop)
    except MaskcastError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        from maskcast.installation import extra_for, not_installed_message

        if (extra := extra_for(error.name or "")) is None:
            raise
        print(f"error: {not_installed_message(arguments[0], str(error.name), extra)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has closed the pipe, as in `... | head`
        discard(sys.stdout)
        return 128 + signal.SIGPIPE


def _run_command(arguments: Sequence[str]) -> int:
    """Runs the command; imports only what it needs."""
    if not arguments or arguments[0] in ("-h", "--help"):
        from maskcast.commands.help import overview

        print(overview())
        return 0
    name, *rest = arguments
    if name == "--version":
        from maskcast.commands.help import version

        print(version())
        return 0
    if (command := name.replace("_", "-")) not in COMMANDS:
        from maskcast.commands.stages import run

        return run(name, rest)
    module = command_module(command)
    if command == "pipeline":  # imports its own commands one by one
        return int(module.pipeline(rest))
    from maskcast.commands.parser import command_parser

    parser = command_parser(command, module.DESCRIPTION, module.EPILOG)
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(rest)))


def _check_process() -> None:
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise MaskcastError(
            f"file names are read as {encoding} by this locale, and clips would get other ids than in UTF-8; set "
            "PYTHONUTF8=1"
        )
    if sys.flags.optimize > 1:
        raise MaskcastError(
            "PYTHONOPTIMIZE=2 (python -OO) removes the docstrings that tell of ports and params; unset it"
        )
    try:
        os.getcwd()
    except FileNotFoundError:
        raise MaskcastError("the working directory has been removed; `cd` to a folder that is there") from None


def _flush_output() -> None:
    if sys.stdout is not None:  # else it is closed
        sys.stdout.flush()


def console() -> None:
    """Runs the console command `maskcast`; if its output is lost, a line says so, and the exit code is 2."""
    protect_streams()
    try:
        try:
            code: int | str | None = main()
        except SystemExit as ended:  # argparse's, as after --help
            code = ended.code
        if error := getattr(sys.stdout, "error", None):
            reason = f"cannot be written ({error.strerror})"
            print(f"error: standard output: {reason}; what was printed is lost, all else is done", file=sys.stderr)
            code = code or 2
        sys.exit(code)
    finally:
        skip_last_collection()


if __name__ == "__main__":
    console()
